//! Configurations of stock WireGuard: taken over by `import`, made by `export`.

#[path = "support/home.rs"]
mod home;

use home::Home;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use wiremesh_cli::config::{self, Config};

const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PEER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const PSK: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

fn wg0() -> String {
    format!(
        "[Interface]\nPrivateKey = {SECRET}\nListenPort = 51999\nAddress = 10.0.0.2/24, fd00::2/64\n\
         MTU = 1400\nPostUp = touch ran\nPreDown = touch ran\nDNS = 1.1.1.1\n\n\
         [Peer]\nPublicKey = {PEER}\nPresharedKey = {PSK}\nAllowedIPs = 10.0.0.0/24, fd00::/64\n\
         Endpoint = host.example:51820\nPersistentKeepalive = 25\n\n\
         [Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.1.0.0/16\n"
    )
}

fn same_peers(a: &Config, b: &Config) {
    assert_eq!(a.peers.len(), b.peers.len());
    for (a, b) in a.peers.iter().zip(&b.peers) {
        assert_eq!(
            (a.node_id, a.stock, a.keepalive),
            (b.node_id, b.stock, b.keepalive)
        );
        assert_eq!(a.endpoints, b.endpoints);
        assert_eq!(a.preshared_key, b.preshared_key);
        let nets = |peer: &config::Peer| {
            peer.allowed_ips
                .iter()
                .map(|(net, _)| *net)
                .collect::<Vec<_>>()
        };
        assert_eq!(nets(a), nets(b));
    }
}

#[test]
fn an_imported_configuration_says_the_same_and_runs_nothing() {
    let home = Home::new();
    home.write("wg0.conf", &wg0());
    let output = home.run(&["import", "wg0.conf", "--into", "office"]);
    let shown = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{shown}");
    for part in [
        "PostUp is not run",
        "PreDown is not run",
        "level L1",
        "2 peers",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!home.path().join("ran").exists());
    let folder = home.path().join("office");
    for file in ["config.toml", "key", "peer1.psk"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    assert!(!folder.join("peer2.psk").exists());
    let text = fs::read_to_string(folder.join("config.toml")).expect("text");
    assert!(!text.contains(SECRET) && !text.contains(PSK));
    let before = config::load(&home.path().join("wg0.conf")).expect("good");
    let after = config::load(&folder.join("config.toml")).expect("good");
    assert_eq!(before.secret_key, after.secret_key);
    assert_eq!(before.listen, after.listen);
    assert_eq!(before.addresses, after.addresses);
    assert_eq!(before.mtu_bytes, after.mtu_bytes);
    same_peers(&before, &after);
    home.good(&["up", "--check", "--config", "office/config.toml"]);

    let shown = home.bad(&["import", "wg0.conf", "--into", "office"], 2);
    assert!(shown.contains("not overwritten"), "{shown}");
    let shown = home.bad(&["import", "office/config.toml"], 2);
    assert!(shown.contains("a configuration of ours"), "{shown}");
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let home = Home::new();
    home.write("wg0.conf", &wg0());
    fs::create_dir(home.path().join("there")).expect("a folder");
    home.write("there/peer1.psk", "mine");
    let shown = home.bad(&["import", "wg0.conf", "--into", "there"], 2);
    assert!(shown.contains("peer1.psk"), "{shown}");
    let left = fs::read_dir(home.path().join("there")).expect("a folder");
    let left: Vec<_> = left
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["peer1.psk"]);
    home.write("wrong.conf", "[Interface]\nPrivateKey = x\n");
    home.bad(&["import", "wrong.conf", "--into", "new"], 2);
    assert!(!home.path().join("new").exists());
}

/// A node with one more address.
fn node() -> Home {
    let home = Home::new();
    home.good(&["key", "new"]);
    home.write(
        ".config/wiremesh/config.toml",
        "[node]\nkey = \"key\"\naddresses = [\"10.0.0.1/24\"]\nadvertise = [\"home.example:51820\"]",
    );
    home
}

#[test]
fn an_exported_client_and_the_node_know_each_other() {
    let home = node();
    let text = home.good(&["export", "--peer", "phone", "--address", "10.0.0.7"]);
    home.write("phone.conf", &text);
    let client = config::load(&home.path().join("phone.conf")).expect("good");
    let ours = home.path().join(".config/wiremesh/config.toml");
    let node = config::load(&ours).expect("good");
    let marked = fs::read_to_string(&ours).expect("text");
    assert!(marked.contains("level L1") && marked.contains("stock = true"));
    let (peer, server) = (&node.peers[0], &client.peers[0]);
    assert_eq!(peer.name.as_deref(), Some("phone"));
    assert!(peer.stock);
    assert_eq!(wiremesh::node_id(&client.secret_key), Ok(peer.node_id));
    assert_eq!(wiremesh::node_id(&node.secret_key), Ok(server.node_id));
    assert_eq!(peer.preshared_key, server.preshared_key);
    assert!(!peer.preshared_key.is_zero());
    assert_eq!(server.endpoints[0].to_string(), "home.example:51820");
    let overlay = |id| wiremesh::IpNet::from(wiremesh::address::overlay_address(id));
    let reached: Vec<_> = server.allowed_ips.iter().map(|(net, _)| *net).collect();
    let own = "10.0.0.1/32".parse().expect("a prefix");
    assert_eq!(reached, [overlay(&server.node_id), own]);
    let addresses: Vec<_> = client.addresses.iter().map(|(_, net)| *net).collect();
    let further = "10.0.0.7/32".parse().expect("a prefix");
    assert_eq!(addresses, [overlay(&peer.node_id), further]);
    assert_eq!(peer.allowed_ips[0].0, further);

    // Once more: the key is the client's own, the rest is the same.
    let again = home.good(&["export", "--peer", "phone"]);
    assert!(again.contains("# PrivateKey"), "{again}");
    let rest = |text: &str| -> String {
        let lines = text.lines().filter(|line| !line.contains("PrivateKey"));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(rest(&again), rest(&text));
    let shown = home.bad(&["export", "--peer", "phone", "--qr"], 2);
    assert!(shown.contains("only the client has"), "{shown}");
}

#[test]
fn an_export_goes_to_a_file_or_a_qr_code() {
    let home = node();
    let code = home.good(&["export", "--peer", "tablet", "--qr"]);
    assert!(
        code.lines().count() > 20 && code.contains('\u{2588}'),
        "{code}"
    );
    home.good(&["export", "--peer", "laptop", "--output", "laptop.conf"]);
    assert_eq!(mode(&home.path().join("laptop.conf")), 0o600);
    config::load(&home.path().join("laptop.conf")).expect("good");
    assert_eq!(
        mode(&home.path().join(".config/wiremesh/laptop.psk")),
        0o600
    );
}

#[test]
fn an_export_that_fails_changes_nothing() {
    let home = node();
    let ours = home.path().join(".config/wiremesh/config.toml");
    let before = fs::read(&ours).expect("text");
    home.write("taken.conf", "mine");
    for (arguments, what) in [
        (&["--peer", "../phone"][..], "cannot be a name"),
        (&["--peer", "phone", "--address", "10.0.0.1"], "10.0.0.1"),
        (
            &["--peer", "phone", "--output", "taken.conf"],
            "not overwritten",
        ),
    ] {
        let shown = home.bad(&[&["export"], arguments].concat(), 2);
        assert!(shown.contains(what), "{arguments:?}: {shown}");
        assert_eq!(fs::read(&ours).expect("text"), before, "{arguments:?}");
        let left = fs::read_dir(ours.parent().expect("has one")).expect("a folder");
        assert_eq!(left.count(), 2, "{arguments:?}");
    }
    home.write("plain.toml", "[node]\nkey = \".config/wiremesh/key\"\n");
    let shown = home.bad(&["export", "--peer", "phone", "--config", "plain.toml"], 2);
    assert!(shown.contains("--endpoint"), "{shown}");
    home.write("wg0.conf", &wg0());
    let shown = home.bad(&["export", "--peer", "phone", "--config", "wg0.conf"], 2);
    assert!(shown.contains("wiremesh import"), "{shown}");
}
