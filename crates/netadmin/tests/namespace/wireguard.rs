//! Interfaces of the kernel's WireGuard, with `wg` as the witness.

use crate::host::{self, Host, bytes_of, prefix, reason, receive, send, wanted};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use wiremesh_netadmin::client::{self, Error, Wireguard};
use wiremesh_netadmin::verbs::{
    ALLOWED_IPS_MAX, FIGURES_MAX, Interface, Key, PEERS_MAX, PREFIXES_MAX, PeerChange, Reason,
    Refusal, Reply, Request, WireguardSettings,
};
use zeroize::Zeroizing;

/// Where nothing may be skipped.
const REQUIRED: &str = "WIREMESH_KERNEL_WIREGUARD";
/// Clamped, as `wg genkey` makes them; and that in base64.
const SECRET: Key = [0x50; 32];
const SECRET_TEXT: &str = "UFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFA=\n";
const PSK: Key = [0x52; 32];
const PSK_TEXT: &str = "UlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlI=";
const PORT: u16 = 51820;

/// A host whose kernel has WireGuard; none, and why, elsewhere.
fn host_with_wireguard() -> Option<Host> {
    let host = Host::new()?;
    match make(&host, &wanted("wmprobe")) {
        Ok(_) => {}
        Err(error) if reason(&error) == Some(Reason::NoWireguard) => {
            assert!(std::env::var_os(REQUIRED).is_none(), "{error}");
            eprintln!("skipped: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    }
    host.wait_for_no("wmprobe");
    Some(host)
}

fn make(host: &Host, wanted: &Interface) -> Result<Wireguard, Error> {
    client::make_wireguard(&host.socket, wanted, settings(PORT))
}

fn settings(listen_port: u16) -> WireguardSettings {
    WireguardSettings {
        private_key: Zeroizing::new(SECRET),
        listen_port,
        rate_bits: None,
    }
}

/// An interface that does not overlap with the usual one.
fn other(name: &str) -> Interface {
    Interface {
        addresses: vec![prefix("10.78.0.1/32")],
        routes: vec![prefix("10.78.0.0/24")],
        ..wanted(name)
    }
}

fn key(number: u16) -> Key {
    let mut key = [1; 32];
    key[..2].copy_from_slice(&number.to_le_bytes());
    key
}

fn change(public_key: Key) -> PeerChange {
    PeerChange {
        public_key,
        replace: false,
        preshared_key: None,
        endpoint: None,
        keepalive_seconds: None,
        allowed_ips: None,
    }
}

fn full_change(public_key: Key) -> PeerChange {
    PeerChange {
        preshared_key: Some(Zeroizing::new(PSK)),
        endpoint: Some("192.0.2.1:51821".parse().expect("an endpoint")),
        keepalive_seconds: Some(25),
        allowed_ips: Some(vec![prefix("fd77:6d80::7/128"), prefix("10.77.0.0/28")]),
        ..change(public_key)
    }
}

fn keys(wireguard: &Wireguard) -> BTreeSet<Key> {
    let figures = wireguard.figures().expect("it is told");
    figures.peers.iter().map(|peer| peer.public_key).collect()
}

#[test]
fn kernel_without_wireguard_is_told_and_nothing_stays() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    match make(&host, &wanted("wm0")) {
        Ok(_) => eprintln!("skipped: this kernel has WireGuard"),
        Err(error) => {
            assert_eq!(
                error.to_string(),
                "wiremesh-netadmin refused: the kernel has no WireGuard module"
            );
            assert_eq!(host.state(), before);
            client::make_tun(&host.socket, &wanted("wm0")).expect("the other kind is there");
        }
    }
}

#[test]
fn foreign_process_gets_no_interface() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    host.open_the_socket_file();
    let mut stranger = host.client(&["--clear-groups"], "wireguard wm0");
    assert!(stranger.line().contains("reason: Foreign"));
    assert_eq!(host.state(), before);
}

#[test]
fn interface_is_as_asked_for_and_goes_with_the_connection() {
    let Some(host) = host_with_wireguard() else {
        return;
    };
    let before = host.state();
    let made = make(&host, &wanted("wm0")).expect("made");
    let link = host.ip(&["-d", "link", "show", "wm0"]);
    let index = format!("{}: ", made.lease().index());
    assert!(link.starts_with(&index), "{link}");
    for part in ["mtu 1420", "UP", "wireguard"] {
        assert!(link.contains(part), "{part}: {link}");
    }
    let addresses = host.ip(&["address", "show", "wm0"]);
    assert!(addresses.contains("inet6 fd77:6d00::1/128"), "{addresses}");
    assert!(addresses.contains("inet 10.77.0.1/32"), "{addresses}");
    let routes = host.ip(&["-6", "route"]);
    assert!(routes.contains("fd77:6d00::/25 dev wm0"), "{routes}");
    assert!(host.ip(&["route"]).contains("10.77.0.0/24 dev wm0"));
    assert!(host.nft().contains("table ip6 wiremesh-wm0"));
    assert_eq!(host.wg("wm0", "private-key").as_deref(), Some(SECRET_TEXT));
    assert_eq!(host.wg("wm0", "listen-port").as_deref(), Some("51820\n"));
    assert_eq!(made.figures().expect("told").listen_port, PORT);
    drop(made);
    host.wait_for(&before);
    // Port 0 is one that the kernel chooses.
    let made = client::make_wireguard(&host.socket, &wanted("wm0"), settings(0)).expect("made");
    assert_ne!(made.figures().expect("told").listen_port, 0);
}

#[test]
fn peers_are_as_set_and_their_figures_are_told() {
    let Some(host) = host_with_wireguard() else {
        return;
    };
    let made = make(&host, &wanted("wm0")).expect("made");
    made.set_peer(&full_change(key(7))).expect("set");
    made.set_peer(&change(key(8))).expect("set");
    let show = |what| host.wg("wm0", what).expect("it is there");
    let has = |what, text: &str| assert!(show(what).contains(text), "{what}: {}", show(what));
    has("endpoints", "\t192.0.2.1:51821\n");
    has("persistent-keepalive", "\t25\n");
    has("allowed-ips", "\tfd77:6d80::7/128 10.77.0.0/28\n");
    has("allowed-ips", "\t(none)\n");
    has("preshared-keys", PSK_TEXT);
    let figures = made.figures().expect("told");
    let first = figures.peers.iter().find(|peer| peer.public_key == key(7));
    let first = first.expect("it is there");
    assert_eq!(first.endpoint, full_change(key(7)).endpoint);
    assert_eq!(first.last_handshake, Duration::ZERO);
    assert_eq!(keys(&made), [key(7), key(8)].into());
    // What is not named stays.
    let addresses = PeerChange {
        allowed_ips: Some(vec![prefix("fd77:6d00::7/128")]),
        ..change(key(7))
    };
    made.set_peer(&addresses).expect("set");
    has("allowed-ips", "\tfd77:6d00::7/128\n");
    has("preshared-keys", PSK_TEXT);
    has("persistent-keepalive", "\t25\n");
    // Nothing stays of one that is replaced.
    let anew = PeerChange {
        replace: true,
        ..change(key(7))
    };
    made.set_peer(&anew).expect("set");
    assert_eq!(show("allowed-ips").matches("(none)").count(), 2);
    assert_eq!(show("preshared-keys").matches("(none)").count(), 2);
    assert!(!show("persistent-keepalive").contains("25"));
    assert_eq!(keys(&made), [key(7), key(8)].into());
    made.remove_peer(&key(7)).expect("removed");
    made.remove_peer(&key(7)).expect("none is none");
    assert_eq!(keys(&made), [key(8)].into());
    let status = host.helper_status();
    assert_eq!(status.field("Seccomp"), "2");
    assert_eq!(status.field("CapEff"), format!("{:016x}", 1u64 << 12));
}

#[test]
fn no_reply_holds_a_key_or_preshared_key() {
    let Some(host) = host_with_wireguard() else {
        return;
    };
    let make = Request::Make(wanted("wm0"), Some(settings(PORT)));
    let peer = Request::SetPeer(full_change(key(7)));
    let requests = [
        make.clone(),
        peer.clone(),
        Request::ReadFigures(0),
        make.clone(),
        Request::ReadFigures(1),
        Request::RemovePeer(key(7)),
        peer,
        Request::ReadFigures(0),
    ];
    let mut all = Vec::new();
    let mut say = |socket: &_, bytes: &[u8]| {
        send(socket, bytes).expect("sent");
        let reply = receive(socket);
        assert!(Reply::parse(&reply).is_some());
        all.extend(reply);
    };
    let socket = host.connect();
    for request in &requests {
        say(&socket, &bytes_of(request));
    }
    // Damaged ones, with the keys in them.
    for bytes in [bytes_of(&requests[0]), bytes_of(&requests[1])] {
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            say(&socket, &damaged);
        }
    }
    let has = |wanted: &[u8]| all.windows(wanted.len()).any(|part| part == wanted);
    assert!(has(b"07000101"), "no figures");
    // As bytes, in hexadecimal, in base64.
    for secret in [&SECRET[..4], b"50505050", &SECRET_TEXT.as_bytes()[..8]] {
        assert!(!has(secret));
    }
    for secret in [&PSK[..4], b"52525252", &PSK_TEXT.as_bytes()[..8]] {
        assert!(!has(secret));
    }
}

#[test]
fn name_and_port_in_use_leave_everything_as_it_was() {
    let Some(host) = host_with_wireguard() else {
        return;
    };
    let first = make(&host, &wanted("wm0")).expect("made");
    first.set_peer(&full_change(key(7))).expect("set");
    let before = host.state();
    let refused = |wanted: &Interface, port| {
        let error = client::make_wireguard(&host.socket, wanted, settings(port));
        let error = error.expect_err("in use");
        assert_eq!(host.state(), before, "{error}");
        match error {
            Error::Refused(refusal) => refusal,
            error => panic!("{error}"),
        }
    };
    let port = Refusal::with(Reason::PortInUse, PORT);
    assert_eq!(refused(&other("wm1"), PORT), port);
    assert_eq!(refused(&other("wm0"), 0), Reason::NameInUse.into());
    assert_eq!(refused(&wanted("wm1"), 0).reason, Reason::Overlap);
    // The last step fails, when everything else is there.
    let mut twice = other("wm1");
    twice.routes.push(twice.routes[0]);
    assert_eq!(refused(&twice, 0).reason, Reason::System);
    assert_eq!(keys(&first), [key(7)].into());
    make_other_user_of(&host, &first);
}

/// Another client has no way to the interface or the peers of the first.
fn make_other_user_of(host: &Host, first: &Wireguard) {
    let others = WireguardSettings {
        private_key: Zeroizing::new([0x58; 32]),
        ..settings(0)
    };
    let second = client::make_wireguard(&host.socket, &other("wm1"), others);
    let second = second.expect("made");
    assert_eq!(keys(&second), [].into());
    second.remove_peer(&key(7)).expect("it has none");
    second.set_peer(&change(key(7))).expect("its own");
    second.remove_peer(&key(7)).expect("its own");
    assert_eq!(keys(first), [key(7)].into());
    let before = host.wg("wm0", "dump");
    assert!(before.is_some());
    drop(second);
    host.wait_for_no("wm1");
    assert_eq!(host.wg("wm0", "dump"), before);
}

#[test]
fn peers_have_a_limit_and_all_are_told() {
    let Some(host) = host_with_wireguard() else {
        return;
    };
    let made = make(&host, &wanted("wm0")).expect("made");
    let last = PEERS_MAX as u16;
    for number in 0..last {
        made.set_peer(&change(key(number))).expect("room");
    }
    let error = made.set_peer(&change(key(last))).expect_err("full");
    assert_eq!(reason(&error), Some(Reason::Peers), "{error}");
    made.set_peer(&full_change(key(0))).expect("not another");
    const { assert!(PEERS_MAX > 2 * FIGURES_MAX, "they come in parts") };
    assert_eq!(keys(&made), (0..last).map(key).collect());
    // One that asks for all of them and never reads is cut off; the others are served meanwhile.
    let greedy = host.connect();
    let make = Request::Make(other("wm1"), Some(settings(0)));
    send(&greedy, &bytes_of(&make)).expect("sent");
    while send(&greedy, &bytes_of(&Request::ReadFigures(0))).is_ok() {}
    host.wait_for_no("wm1");
    made.remove_peer(&key(0)).expect("removed");
    made.set_peer(&change(key(last))).expect("room again");
}

#[test]
fn allowed_ips_have_a_limit_over_all_peers() {
    let Some(host) = host_with_wireguard() else {
        return;
    };
    let made = make(&host, &wanted("wm0")).expect("made");
    let many = |peer: u16, count: usize| PeerChange {
        allowed_ips: Some(vec![prefix(&format!("10.{peer}.0.0/16")); count]),
        ..change(key(peer))
    };
    let full = (PREFIXES_MAX / ALLOWED_IPS_MAX) as u16;
    for number in 0..full {
        made.set_peer(&many(number, ALLOWED_IPS_MAX)).expect("room");
    }
    let error = made.set_peer(&many(full, 1)).expect_err("full");
    assert_eq!(reason(&error), Some(Reason::Peers), "{error}");
    made.set_peer(&many(0, ALLOWED_IPS_MAX - 1))
        .expect("it had as many");
    made.set_peer(&many(full, 1)).expect("room for one");
    made.remove_peer(&key(1)).expect("removed");
    made.set_peer(&many(full, ALLOWED_IPS_MAX))
        .expect("room again");
}

#[test]
fn client_killed_with_9_leaves_nothing() {
    let Some(host) = host_with_wireguard() else {
        return;
    };
    let before = host.state();
    let mut client = host.client(&["--groups", &host.group()], "wireguard wm0");
    assert_eq!(client.line(), "made");
    assert_ne!(host.state(), before);
    client.kill();
    host.wait_for(&before);
}

#[test]
fn helper_killed_leaves_the_guard_and_its_next_start_removes_both() {
    let Some(mut host) = host_with_wireguard() else {
        return;
    };
    // Of somebody else, whom nobody asked.
    host.ip(&["link", "add", "wmother", "type", "wireguard"]);
    let before = host.state();
    let made = make(&host, &wanted("wm0")).expect("made");
    let during = host.state();
    host.kill_helper();
    assert_eq!(host.state(), during);
    assert!(matches!(made.figures(), Err(error) if reason(&error).is_none()));
    host.start_helper();
    assert_eq!(host.state(), before);
    assert!(Path::new(&host.socket).exists());
    make(&host, &wanted("wm0")).expect("works again");
    host.wait_for(&before);
    host::wait_for_end(&host.connect(), Duration::from_secs(8));
}
