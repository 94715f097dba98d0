//! Configuration files, right and wrong: what they mean, and what a person is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wiremesh::{Level, NodeId, Policy, Stage, Ticket, TicketSecret, network_id};
use wiremesh_cli::config::{self, Admission, Config, DEFAULT_PORT, default_text::DEFAULT_TEXT};
use wiremesh_cli::failure::Failure;

const OWN: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const A: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
const B: &str = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const C: &str = "QiyOemIn17yhNQs+K7cnn3iXuHu2hUt4PGDoAxGuMHk=";
const PSK: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().expect("a folder"),
        };
        place.private("key", OWN);
        place.private("psk", PSK);
        place
    }

    fn private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        path
    }

    fn toml(&self, text: &str) -> Result<Config, Failure> {
        config::parse(text, &self.dir.path().join("node.toml"))
    }

    /// Under `[node]` with a key.
    fn node(&self, lines: &str) -> Result<Config, Failure> {
        self.toml(&format!(
            "[node]\nkey = \"key\"\nstate-dir = \"s\"\ncontrol-socket = \"c\"\n{lines}"
        ))
    }
}

fn ticket(network: &str) -> Ticket {
    let mut ticket = Ticket::new(A.parse::<NodeId>().expect("valid"));
    ticket.network = network_id(network);
    ticket.endpoints = vec!["192.0.2.1:7".parse().expect("an endpoint")];
    ticket.secret = Some(TicketSecret::from_bytes([3; 16]));
    ticket
}

#[test]
fn full_file_is_read() {
    let place = Place::new();
    let text = format!(
        r#"
        listen = ["127.0.0.1:5000"]
        network = "home"
        admission = "allow-all"
        provisional-max = 7
        addresses = ["10.0.0.1/24", "fd00::1"]
        advertise = ["host.example:1"]
        mtu = 1280
        log = "debug"
        [security]
        minimum = "l1"
        stage = "both-prefer-old"
        static-kem = true
        [egress]
        rate = "9.5Mbit"
        shares = {{ bulk = 20 }}
        [echo]
        udp-port = 7
        [[peer]]
        name = "a"
        ticket = "{}"
        [[peer]]
        name = "phone"
        id = "{B}"
        endpoint = "[2001:db8::1]:51820"
        preshared-key-file = "psk"
        allowed-ips = ["10.0.0.2/32", "fd00:1::/64"]
        keepalive = 25
        stock = true
        [[peer]]
        id = "{C}"
        minimum = "L3"
        "#,
        ticket("home")
    );
    let config = place.node(&text).expect("good");
    assert_eq!(
        config.listen,
        ["127.0.0.1:5000".parse().expect("an address")]
    );
    assert_eq!(config.admission, Admission::AllowAll { provisional_max: 7 });
    assert_eq!((config.mtu_bytes, config.udp_echo_port), (1280, Some(7)));
    assert_eq!(config.egress.rate_bits, Some(9_500_000));
    assert_eq!(config.egress.shares_percent, [0, 10, 20]);
    assert_eq!(config.addresses.len(), 2);
    assert_eq!(config.state_dir, place.dir.path().join("s"));
    let expected = Policy {
        minimum: Level::Classical,
        stage: Stage::BothPreferOld,
        static_kem: true,
    };
    assert_eq!(config.policy, expected);
    assert!(config.warnings.is_empty());
    let [a, phone, strict] = &config.peers[..] else {
        panic!("three peers")
    };
    assert_eq!(strict.minimum, Some(Level::PostQuantumAuthenticated));
    assert_eq!((a.minimum, phone.minimum), (None, None));
    assert_eq!(a.endpoints, ["192.0.2.1:7".parse().expect("an endpoint")]);
    assert_eq!(a.node_id.to_string(), A);
    assert!(!a.stock && a.preshared_key.is_zero() && a.keepalive.is_none());
    assert!(phone.stock && !phone.preshared_key.is_zero());
    assert_eq!(phone.keepalive, Some(Duration::from_secs(25)));
    assert_eq!(phone.allowed_ips.len(), 2);
    assert_eq!(phone.place.line, 26);
}

#[test]
fn documented_defaults_are_the_defaults() {
    let place = Place::new();
    // The defaults that depend on the host are set in both; the peer section is an example.
    let node_part = DEFAULT_TEXT
        .split("# One section for each peer")
        .next()
        .expect("a part");
    let skipped = [
        "#key",
        "#state-dir",
        "#control-socket",
        "#provisional-max",
        "#rate",
    ];
    let uncommented: String = node_part
        .lines()
        .filter(|line| !skipped.iter().any(|prefix| line.starts_with(prefix)))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let fixed = "key = \"key\"\nstate-dir = \"s\"\ncontrol-socket = \"c\"\n";
    let written = uncommented.replace("[node]\n", &format!("[node]\n{fixed}"));
    let written = place.toml(&written).expect("defaults are valid");
    let absent = place.node("").expect("an empty file is valid");
    assert_eq!(format!("{written:?}"), format!("{absent:?}"));
    assert_eq!(absent.listen[0].port(), DEFAULT_PORT);
    assert_eq!(absent.admission, Admission::AllowList);
    assert_eq!(absent.policy, Policy::default());
    assert_eq!(absent.policy.minimum, Level::PostQuantum);
    assert!(DEFAULT_TEXT.contains("its default is 1024"));
    assert_eq!(config::DEFAULT_PROVISIONAL_MAX, 1024);
}

#[test]
fn default_text_documents_every_field() {
    let place = Place::new();
    for (section, field) in [
        ("[node]", "x"),
        ("[security]", "x"),
        ("[egress]", "x"),
        ("[echo]", "x"),
        ("[[peer]]", "x"),
    ] {
        let failure = place
            .toml(&format!("{section}\n{field} = 1"))
            .expect_err("unknown");
        let fix = failure.fix.expect("a remedy");
        for name in fix.trim_start_matches("known here: ").split(", ") {
            let documented = DEFAULT_TEXT.contains(&format!("#{name} = "));
            assert!(documented, "{name} of {section} is not documented");
        }
    }
}

#[test]
fn mistakes_are_told_with_line_column_and_remedy() {
    let place = Place::new();
    let ticket = ticket("");
    let peer = |lines: &str| format!("[[peer]]\nid = \"{A}\"\n{lines}");
    // The lines come after five others.
    for (text, at, what, fix) in [
        ("lissen = []", "5:1", "unknown field `lissen`", "`listen`"),
        (
            "allowed_ips = 1",
            "5:1",
            "unknown field",
            "known here: key, listen",
        ),
        ("mtu = \"x\"", "5:7", "invalid type", "wiremesh config"),
        (
            "[egress]\nrate = \"10\"",
            "6:8",
            "`rate`: \"10\": the unit",
            "10Mbit",
        ),
        (
            "[egress]\nrate = \"1kbit\"",
            "6:8",
            "from 8kbit to 1000Gbit",
            "10Mbit",
        ),
        ("[egress]\nrat = 1", "6:1", "unknown field `rat`", "`rate`"),
        (
            "[egress]\nshares = { bulk = 300 }",
            "6:19",
            "`bulk`: a share is from 0 to 100",
            "bulk = 5",
        ),
        (
            "[egress]\nshares = { urgent = 60, bulk = 31 }",
            "6:10",
            "60 + 10 + 31 percent",
            "at most 100",
        ),
        (
            "[egress]\nshares = { batch = 1 }",
            "6:12",
            "unknown field `batch`",
            "known here: urgent, normal, bulk",
        ),
        ("mtu = 100", "5:7", "1280 to 65535", ""),
        ("mtu = ", "5:", "", "wiremesh config"),
        ("log = \"inof\"", "5:7", "`inof`", "`info`"),
        (
            "listen = [\"x\"]",
            "5:11",
            "`listen`: \"x\"",
            "0.0.0.0:51820",
        ),
        (
            "listen = [\n \"0.0.0.0\"]",
            "6:2",
            "`listen`",
            "0.0.0.0:51820",
        ),
        (
            "admission = \"alow-all\"",
            "5:13",
            "alow-all",
            "`allow-all`",
        ),
        ("provisional-max = 3", "5:19", "allow-all", "remove it"),
        (
            "addresses = [\"10.0.0.1/33\"]",
            "5:14",
            "addresses",
            "10.0.0.2",
        ),
        (
            "[[peer]]\nname = \"x\"",
            "5:1",
            "neither `id` nor `ticket`",
            "id =",
        ),
        (
            "[[peer]]\nid = \"abc\"",
            "6:6",
            "`id`: \"abc\"",
            "44 characters",
        ),
        (&peer("keepalive = 70000"), "7:13", "65535", "25"),
        (
            &peer("allowed-ips = [\"10.0.0.0/33\"]"),
            "7:16",
            "10.0.0.0/33",
            "/24",
        ),
        (&peer("name = \"a b\""), "7:8", "a b", "letters"),
        (
            &peer("endpoint = \"host\""),
            "7:12",
            "endpoint",
            "host.example",
        ),
        (&peer("stokc = true"), "7:1", "stokc", "`stock`"),
        (
            &peer("ticket = \"wmabc\""),
            "7:10",
            "`ticket`",
            "copy it again",
        ),
        (
            &format!("[[peer]]\nid = \"{B}\"\nticket = \"{ticket}\""),
            "7:10",
            "another node",
            "`id`",
        ),
        (
            &format!("network = \"x\"\n[[peer]]\nticket = \"{ticket}\""),
            "7:10",
            "another network",
            "",
        ),
    ] {
        let failure = place.node(text).expect_err(text);
        let shown = failure.to_string();
        assert_eq!(failure.exit.code(), 2);
        assert!(
            shown.contains(&format!("node.toml:{at}")),
            "{text}: {shown}"
        );
        assert!(failure.what.contains(what), "{text}: {shown}");
        assert!(
            failure.fix.unwrap_or_default().contains(fix),
            "{text}: {shown}"
        );
        assert!(!shown.contains(&ticket.to_string()), "{shown}");
    }
}

#[test]
fn mistakes_in_a_policy_are_told_with_line_column_and_remedy() {
    let place = Place::new();
    let peer = |lines: &str| format!("[[peer]]\nid = \"{A}\"\n{lines}");
    for (text, at, what, fix) in [
        (
            "[security]\nminimum = \"L4\"",
            "6:11",
            "\"L4\"",
            "\"L2\" post-quantum",
        ),
        (
            "[security]\nminimum = 2",
            "6:11",
            "invalid type",
            "wiremesh config",
        ),
        ("[security]\nstage = \"bth\"", "6:9", "no stage", "`both`"),
        (
            "[security]\nstage = \"soon\"",
            "6:9",
            "no stage",
            "new-only",
        ),
        (
            "[security]\nstatickem = true",
            "6:1",
            "unknown field",
            "`static-kem`",
        ),
        // The default minimum is L2, which the oldest stage does not list.
        (
            "[security]\nstage = \"old-only\"",
            "6:9",
            "lists nothing of L2",
            "minimum = \"L1\"",
        ),
        (
            "[security]\nminimum = \"L3\"",
            "6:11",
            "L3",
            "static-kem = true",
        ),
        (&peer("minimum = \"x\""), "7:11", "\"x\"", "L1"),
        (
            &peer("minimum = \"L3\""),
            "7:11",
            "static",
            "static-kem = true",
        ),
        (
            &peer("stock = true\nminimum = \"L2\""),
            "8:11",
            "stock",
            "remove",
        ),
    ] {
        let failure = place.node(text).expect_err(text);
        let shown = failure.to_string();
        assert_eq!(failure.exit.code(), 2);
        assert!(
            shown.contains(&format!("node.toml:{at}")),
            "{text}: {shown}"
        );
        assert!(failure.what.contains(what), "{text}: {shown}");
        let given = failure.fix.unwrap_or_default();
        assert!(given.contains(fix), "{text}: {shown}");
    }
    let weak = place.node(&peer("minimum = \"L1\"")).expect("only useless");
    assert!(weak.warnings[0].contains("7:11") && weak.warnings[0].contains("no effect"));
    let old = "[security]\nminimum = \"L1\"\nstage = \"old-only\"";
    assert_eq!(
        place.node(old).expect("good").policy,
        Policy::at(Stage::OldOnly)
    );
}

#[test]
fn trouble_with_a_named_file_names_both_files() {
    let place = Place::new();
    for (name, text, mode) in [
        ("psk", "short", 0o600),
        ("psk", PSK, 0o644),
        ("missing", "", 0o600),
    ] {
        if name == "psk" {
            place.private(name, text);
        }
        let path = place.dir.path().join(name);
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        let peer = format!("[[peer]]\nid = \"{A}\"\npreshared-key-file = \"{name}\"");
        let shown = place.node(&peer).expect_err("trouble").to_string();
        assert!(shown.contains("node.toml:7:22") && shown.contains(&*path.to_string_lossy()));
    }
}

fn conf(text: &str) -> Result<Config, Failure> {
    config::parse(text, Path::new("wg0.conf"))
}

#[test]
fn wg_conf_is_read_and_what_is_not_done_is_said() {
    let config = conf(&format!(
        "# made by hand\n[interface]\nprivatekey={OWN} # mine\nAddress = 10.0.0.2/24, fd00::2/64\n\
         Address = 10.1.0.2\nListenPort = 5001\nMTU = 1400\nDNS = 1.1.1.1, example.org\n\
         PostUp = iptables -A FORWARD -i %i -j ACCEPT; rm -rf /\nPreDown = x\nTable = off\n\
         FwMark = 0x1\nSaveConfig = true\n\n[Peer]\nPublicKey = {A}\nPresharedKey = {PSK}\n\
         AllowedIPs = 10.0.0.0/24, fd00::/64,\nAllowedIPs = 10.2.0.5/16\n\
         Endpoint = vpn.example.org:51820\nPersistentKeepalive = 25\n\
         [Peer]\nPublicKey = {B}\nPersistentKeepalive = off\n"
    ))
    .expect("good");
    let addresses: Vec<String> = config
        .addresses
        .iter()
        .map(|(a, net)| format!("{a} {net}"))
        .collect();
    assert_eq!(
        addresses,
        [
            "10.0.0.2 10.0.0.0/24",
            "fd00::2 fd00::/64",
            "10.1.0.2 10.1.0.2/32"
        ]
    );
    assert_eq!(config.listen.len(), 2);
    assert!(config.listen.iter().all(|address| address.port() == 5001));
    assert_eq!(config.mtu_bytes, 1400);
    let [a, b] = &config.peers[..] else {
        panic!("two peers")
    };
    assert!(a.stock && b.stock);
    let nets: Vec<String> = a
        .allowed_ips
        .iter()
        .map(|(net, _)| net.to_string())
        .collect();
    assert_eq!(nets, ["10.0.0.0/24", "fd00::/64", "10.2.0.0/16"]);
    assert_eq!(a.endpoints[0].to_string(), "vpn.example.org:51820");
    assert_eq!(
        (a.keepalive, b.keepalive),
        (Some(Duration::from_secs(25)), None)
    );
    assert!(!a.preshared_key.is_zero());
    let warned: Vec<&str> = config
        .warnings
        .iter()
        .filter_map(|warning| warning.split(' ').nth(1))
        .collect();
    assert_eq!(
        warned,
        ["DNS", "PostUp", "PreDown", "Table", "FwMark", "SaveConfig"]
    );
    assert!(config.warnings[1].contains("wg0.conf:9:1: PostUp is not run"));
}

#[test]
fn wg_conf_mistakes_are_told_with_line_and_remedy() {
    let own = format!("[Interface]\nPrivateKey = {OWN}\n");
    let peer = format!("{own}[Peer]\nPublicKey = {A}\n");
    let twice = format!("{own}PrivateKey = {OWN}\n");
    for (text, line, what, fix) in [
        ("", "", "no [Interface]", "[Interface]"),
        ("x = 1", ":1", "before the first section", ""),
        ("[Interface]\n", ":1", "no PrivateKey", "wg genkey"),
        ("[Interfaec]\n", ":1", "unknown section", "[Interface]"),
        (
            "[Interface]\nPrivateKey = abc",
            ":2",
            "PrivateKey",
            "44 characters",
        ),
        (
            "[Interface]\nPrivatKey = abc",
            ":2",
            "unknown field",
            "PrivateKey",
        ),
        ("[Interface]\nsecretsecret", ":2", "Key = value", ""),
        (&twice, ":3", "line 2", "remove one"),
        (
            &format!("{own}[interface]\n"),
            ":3",
            "second [Interface]",
            "first",
        ),
        (&format!("{own}ListenPort = 99999"), ":3", "99999", "51820"),
        (
            &format!("{own}Address = 10.0.0.0.1/24"),
            ":3",
            "10.0.0.0.1",
            "10.0.0.2/24",
        ),
        (&format!("{own}MTU = 5"), ":3", "1280", ""),
        (
            &format!("{own}AllowedIPs = ::/0"),
            ":3",
            "unknown field",
            "known here",
        ),
        (
            &format!("{own}[Peer]\n"),
            ":3",
            "no PublicKey",
            "public key",
        ),
        (
            &format!("{own}[Peer]\nPublicKey = {OWN}x"),
            ":4",
            "PublicKey",
            "wg pubkey",
        ),
        (
            &format!("{peer}AllowedIPs = 10.0.0.0/33"),
            ":5",
            "10.0.0.0/33",
            "/24",
        ),
        (&format!("{peer}Endpoint = host"), ":5", "Endpoint", "51820"),
        (
            &format!("{peer}PersistentKeepalive = often"),
            ":5",
            "often",
            "25",
        ),
    ] {
        let failure = conf(text).expect_err(text);
        let shown = failure.to_string();
        assert_eq!(failure.exit.code(), 2);
        assert!(
            shown.contains(&format!("wg0.conf{line}")),
            "{text}: {shown}"
        );
        assert!(failure.what.contains(what), "{text}: {shown}");
        assert!(
            failure.fix.unwrap_or_default().contains(fix),
            "{text}: {shown}"
        );
        assert!(!shown.contains("secretsecret"));
    }
}

#[test]
fn key_in_a_readable_wg_conf_is_warned_about() {
    let place = Place::new();
    let path = place.private("wg0.conf", &format!("[Interface]\nPrivateKey = {OWN}\n"));
    assert!(config::load(&path).expect("good").warnings.is_empty());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    let warnings = config::load(&path).expect("good").warnings;
    assert!(warnings[0].contains("chmod 600"), "{warnings:?}");
}

proptest::proptest! {
    /// Neither form panics on any text, and an error always has its place.
    #[test]
    fn no_text_panics(
        lines in proptest::collection::vec(
            "\\[?\\[?(Interface|Peer|node|peer|echo)\\]?\\]?|[A-Za-z-]{1,12} ?= ?.{0,12}|.{0,12}",
            0..8,
        ),
    ) {
        let text = lines.join("\n");
        for name in ["x.conf", "x.toml", "x"] {
            if let Err(failure) = config::parse(&text, Path::new(name)) {
                assert_eq!(failure.exit.code(), 2);
                assert!(failure.place.is_some(), "{failure}");
            }
        }
    }

    /// The fields with values of the right type and any content.
    #[test]
    fn no_value_panics(field in 0usize..20, value in ".{0,20}") {
        let fields = [
            "PrivateKey", "ListenPort", "Address", "MTU", "DNS", "PublicKey", "PresharedKey",
            "AllowedIPs", "Endpoint", "PersistentKeepalive", "listen", "network", "admission",
            "addresses", "advertise", "id", "ticket", "endpoint", "allowed-ips", "name",
        ];
        let name = fields[field];
        for section in ["Interface", "Peer", "node", "peer"] {
            let conf = format!("[Interface]\nPrivateKey = {OWN}\n[{section}]\n{name} = {value}");
            let _ = config::parse(&conf, Path::new("x.conf"));
        }
        for toml in [
            format!("[node]\n{name} = {value:?}"),
            format!("[[peer]]\n{name} = {value:?}"),
            format!("[node]\n{name} = [{value:?}]\n[[peer]]\n{name} = [{value:?}]"),
        ] {
            let _ = config::parse(&toml, Path::new("x.toml"));
        }
    }
}

#[test]
fn a_pasted_secret_is_not_shown_although_base64_ends_like_a_field() {
    for line in [
        OWN.to_owned(),
        format!("PrivateKey {OWN}"),
        format!("PrivateKey: {OWN}"),
        format!("PrivateKey{OWN}"),
    ] {
        let failure = conf(&format!("[Interface]\n{line}\n")).expect_err(&line);
        let shown = failure.to_string();
        assert!(!shown.contains(&OWN[..20]), "{shown}");
        assert!(shown.contains("wg0.conf:2"), "{shown}");
    }
}

#[test]
fn a_key_in_place_of_its_files_name_is_not_shown() {
    for text in [
        format!("[node]\nkey = \"{OWN}\"\n"),
        format!(
            "[node]\nkey = \"key\"\n[[peer]]\nid = \"{A}\"\nstock = true\n\
             preshared-key-file = \"{OWN}\"\n"
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("key"), OWN).expect("ours");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.path().join("key"), mode).expect("ours");
        let file = folder.path().join("config.toml");
        let failure = wiremesh_cli::config::parse(&text, &file).expect_err("no file");
        let shown = failure.to_string();
        assert!(!shown.contains(&OWN[..20]), "{shown}");
        assert!(shown.contains("config.toml:"), "{shown}");
    }
}
