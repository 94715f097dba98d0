//! TUN devices: what the helper makes, what it refuses, and what it leaves.

use crate::host::{self, Host, NODE_UID, OTHER_UID, prefix, reason, wanted};
use std::time::Duration;
use wiremesh_netadmin::client::{self, Error};
use wiremesh_netadmin::verbs::{Reason, Refusal};

#[test]
fn interface_is_as_asked_for_and_goes_with_the_connection() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    let tun = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    let link = host.ip(&["-d", "link", "show", "wm0"]);
    for part in [
        "mtu 1420",
        "qlen 1000",
        "UP",
        "tun type tun pi off vnet_hdr on persist off",
    ] {
        assert!(link.contains(part), "{part}: {link}");
    }
    assert!(
        link.starts_with(&format!("{}: ", tun.lease.index())),
        "{link}"
    );
    let addresses = host.ip(&["address", "show", "wm0"]);
    assert!(addresses.contains("inet6 fd77:6d00::1/128"), "{addresses}");
    assert!(addresses.contains("inet 10.77.0.1/32"), "{addresses}");
    let routes = host.ip(&["-6", "route"]);
    assert!(routes.contains("fd77:6d00::/25 dev wm0"), "{routes}");
    assert!(routes.contains("fd77:6d80::/25 dev wm0"), "{routes}");
    assert!(host.ip(&["route"]).contains("10.77.0.0/24 dev wm0"));
    let table = host.nft();
    assert!(table.contains("table ip6 wiremesh-wm0"), "{table}");
    // The device alone does not keep it.
    drop(tun.lease);
    host.wait_for(&before);
}

#[test]
fn table_reads_as_the_rules_say() {
    let Some(host) = Host::new() else { return };
    let _tun = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    let expected = "\
table ip6 wiremesh-wm0 {
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tiifname != \"wm0\" ip6 daddr fd77:6d00::1 ip6 saddr fd77:6d00::/24 ip6 saddr != fd77:6d00::1 ip6 saddr != fd77:6d80::1 drop
\t\tiifname != \"wm0\" ip6 daddr fd77:6d80::1 ip6 saddr fd77:6d00::/24 ip6 saddr != fd77:6d00::1 ip6 saddr != fd77:6d80::1 drop
\t\tip6 saddr fd77:6d80::/25 ip6 daddr fd77:6d80::/25 udp sport 2707 udp dport 2707 accept
\t\tip6 saddr fd77:6d80::/25 drop
\t\tip6 daddr fd77:6d80::/25 drop
\t}

\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifname \"wm0\" ip6 daddr fd77:6d00::/24 drop
\t\toifname \"wm0\" ip6 saddr fd77:6d00::/24 drop
\t\toifname \"wm0\" udp sport 2707-2708 drop
\t\toifname \"wm0\" udp dport 2707-2708 drop
\t}

\tchain output {
\t\ttype filter hook output priority filter; policy accept;
\t\tmeta skuid != 0 ip6 daddr fd77:6d00::/24 udp sport 2707-2708 drop
\t\tmeta skuid != 0 ip6 daddr fd77:6d00::/24 udp dport 2707-2708 drop
\t\tip6 saddr fd77:6d80::/25 ip6 daddr fd77:6d80::/25 udp sport 2707 udp dport 2707 accept
\t\tip6 saddr fd77:6d80::/25 drop
\t\tip6 daddr fd77:6d80::/25 drop
\t}
}
";
    assert_eq!(host.nft(), expected);
    // The same numbers as on the wire.
    use wiremesh_wire::address::{CONTROL_NET, CONTROL_PORT, STREAM_PORT};
    assert!(expected.contains(&CONTROL_NET.to_string()));
    assert_eq!((CONTROL_PORT, STREAM_PORT), (2707, 2708));
}

#[test]
fn client_killed_with_9_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    // In the helper's group by a further group only, as `usermod --append` does it.
    let mut client = host.client(&["--groups", &host.group()], "tun wm0");
    assert_eq!(client.line(), "made");
    assert_ne!(host.state(), before);
    let status = client.status();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status.field(set), "0000000000000000", "{set}");
    }
    client.kill();
    host.wait_for(&before);
}

#[test]
fn helper_holds_one_capability_and_no_more() {
    let Some(mut host) = Host::new() else { return };
    let net_admin = format!("{:016x}", 1u64 << 12);
    let holds_one = |status: host::Status| {
        for (field, expected) in [
            ("CapPrm", net_admin.as_str()),
            ("CapEff", &net_admin),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(status.field(field), expected, "{field}");
        }
        let mut uids = status.field("Uid").split_whitespace();
        assert!(uids.all(|uid| uid != "0"));
    };
    holds_one(host.helper_status());
    host.kill_helper();
    host.start_helper_with_file_capability();
    holds_one(host.helper_status());
    client::make_tun(&host.socket, &wanted("wm0")).expect("works the same");
}

#[test]
fn foreign_process_is_refused_even_where_the_file_lets_it_in() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    let mut stranger = host.client(&["--clear-groups"], "tun wm0");
    assert!(stranger.line().contains("Permission denied"));
    host.open_the_socket_file();
    let mut stranger = host.client(&["--clear-groups"], "tun wm0");
    assert!(stranger.line().contains("reason: Foreign"));
    assert_eq!(host.state(), before);
}

#[test]
fn what_is_refused_changes_nothing() {
    let Some(host) = Host::new() else { return };
    host.ip(&["tuntap", "add", "wmbusy", "mode", "tun"]);
    host.ip(&["address", "add", "10.9.0.1/24", "dev", "wmbusy"]);
    host.ip(&["link", "set", "lo", "up"]);
    host.ip(&["route", "add", "10.8.0.0/16", "dev", "lo"]);
    // What says "unreachable" for all that has no better route is in nobody's way.
    host.ip(&["route", "add", "unreachable", "fd00::/8"]);
    let before = host.state();
    let refused = |change: &dyn Fn(&mut wiremesh_netadmin::verbs::Interface)| {
        let mut wanted = wanted("wm0");
        change(&mut wanted);
        let error = client::make_tun(&host.socket, &wanted).expect_err("refused");
        assert_eq!(host.state(), before, "{error}");
        match error {
            Error::Refused(refusal) => refusal,
            error => panic!("{error}"),
        }
    };
    assert_eq!(
        refused(&|i| i.name = wanted("wmbusy").name),
        Refusal::from(Reason::NameInUse)
    );
    let busy = Refusal::with(Reason::Overlap, "10.9.0.1/24");
    assert_eq!(refused(&|i| i.addresses.push(prefix("10.9.0.7/32"))), busy);
    assert_eq!(refused(&|i| i.routes.push(prefix("10.0.0.0/8"))), busy);
    let route = Refusal::with(Reason::Overlap, "10.8.0.0/16");
    assert_eq!(refused(&|i| i.routes.push(prefix("10.8.1.0/24"))), route);
    // The last step fails, when everything else is there.
    let twice = Refusal::with(
        Reason::System,
        "cannot add a route: File exists (os error 17)",
    );
    assert_eq!(refused(&|i| i.routes.push(i.routes[0])), twice);
}

#[test]
fn second_interface_with_the_same_overlay_is_refused() {
    let Some(host) = Host::new() else { return };
    let _first = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    let error = client::make_tun(&host.socket, &wanted("wm1")).expect_err("overlaps");
    assert_eq!(reason(&error), Some(Reason::Overlap));
    let error = client::make_tun(&host.socket, &wanted("wm0")).expect_err("overlaps");
    assert_eq!(reason(&error), Some(Reason::Overlap));
}

#[test]
fn malformed_verbs_are_answered_and_cut_off() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    for bytes in [
        &[0][..],
        &[1],
        &[1; 5000],
        &[9; 60],
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        let reason = host.refusal_of(bytes).reason;
        assert!(
            matches!(reason, Reason::Malformed | Reason::Version | Reason::Name),
            "{reason:?}"
        );
    }
    assert_eq!(host.state(), before);
}

#[test]
fn silent_and_surplus_clients_are_cut_off() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    let silent: Vec<_> = (0..8).map(|_| host.connect()).collect();
    let error = client::make_tun(&host.socket, &wanted("wm0")).expect_err("full");
    assert_eq!(reason(&error), Some(Reason::Full));
    // A user who takes all places takes those of no other user.
    let mut other = host.client(&["--groups", &host.group()], "tun wm1");
    assert_eq!(other.line(), "made");
    other.kill();
    host.wait_for(&before);
    for socket in &silent {
        host::wait_for_end(socket, Duration::from_secs(8));
    }
    client::make_tun(&host.socket, &wanted("wm0")).expect("room again");
}

#[test]
fn helper_killed_leaves_the_guard_and_its_next_start_removes_both() {
    let Some(mut host) = Host::new() else { return };
    host.ip(&["tuntap", "add", "wmother", "mode", "tun"]);
    let before = host.state();
    let tun = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    let during = host.state();
    host.kill_helper();
    assert_eq!(
        host.state(),
        during,
        "unguarded, or gone, without anybody knowing"
    );
    host.start_helper();
    assert_eq!(host.state(), before);
    drop(tun);
    client::make_tun(&host.socket, &wanted("wm0")).expect("works again");
    host.wait_for(&before);
}

#[test]
fn table_without_its_interface_goes_at_the_next_start() {
    let Some(mut host) = Host::new() else { return };
    let before = host.state();
    let tun = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    host.kill_helper();
    drop(tun);
    assert!(host.nft().contains("wiremesh-wm0"));
    host.start_helper();
    assert_eq!(host.state(), before);
}

#[test]
fn file_in_the_place_of_the_socket_stays() {
    let Some(mut host) = Host::new() else { return };
    host.kill_helper();
    std::fs::remove_file(&host.socket).expect("left by the helper");
    std::fs::write(&host.socket, "precious").expect("ours");
    let said =
        host.helper_that_fails(&["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"]);
    assert!(said.contains("cannot listen at"), "{said}");
    let content = std::fs::read_to_string(&host.socket).expect("still there");
    assert_eq!(content, "precious");
}

#[test]
fn second_helper_at_the_same_socket_and_one_without_the_capability_say_why() {
    let Some(host) = Host::new() else { return };
    let said =
        host.helper_that_fails(&["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"]);
    assert!(said.contains("another helper listens at"), "{said}");
    let said = host.helper_that_fails(&[]);
    assert!(said.contains("CAP_NET_ADMIN is missing\n  fix: "), "{said}");
}

/// The attacks of a local user and of a peer, each with its counterpart that passes.
#[test]
fn guard_stops_who_is_not_the_node() {
    let Some(host) = Host::new() else { return };
    host.ip(&["link", "set", "lo", "up"]);
    let mut client = host.client(&["--groups", &host.group()], "tun wm0");
    assert_eq!(client.line(), "made");
    for port in [2707, 2708] {
        let dial = format!("s.sendto(b'x', ('fd77:6d00::2', {port}))");
        assert_eq!(host.python(NODE_UID, &dial), "sent");
        assert_eq!(host.python(OTHER_UID, &dial), "EPERM", "dials port {port}");
        let from = format!("s.bind(('', {port})); s.sendto(b'x', ('fd77:6d00::2', 9009))");
        assert_eq!(
            host.python(OTHER_UID, &from),
            "EPERM",
            "sends from port {port}"
        );
    }
    assert_eq!(
        host.python(OTHER_UID, "s.sendto(b'x', ('fd77:6d00::2', 9009))"),
        "sent"
    );
    // A local user with a peer's address, to a program of ours; and with our own.
    let receive = "r=socket.socket(10,2); r.bind(('fd77:6d00::1', 9009)); r.settimeout(0.5); ";
    let send = "s.sendto(b'x', ('fd77:6d00::1', 9009)); r.recv(9)";
    let freebind = "s.setsockopt(41, 78, 1); s.bind(('fd77:6d00::2', 0)); ";
    assert_eq!(host.python(OTHER_UID, &format!("{receive}{send}")), "sent");
    let spoofed = host.python(OTHER_UID, &format!("{receive}{freebind}{send}"));
    assert!(spoofed == "timed out" || spoofed == "EPERM", "{spoofed}");
    // Between control addresses only the control port, whoever it is.
    let control = |port| format!("s.bind(('fd77:6d80::1', {port})); ");
    let to = |port| format!("s.sendto(b'x', ('fd77:6d80::2', {port}))");
    assert_eq!(host.python(NODE_UID, &(control(2707) + &to(2707))), "sent");
    assert_eq!(host.python(NODE_UID, &(control(2707) + &to(80))), "EPERM");
    assert_eq!(host.python(NODE_UID, &(control(9009) + &to(2707))), "EPERM");
    assert_eq!(
        host.python(OTHER_UID, &(control(9009) + &to(9009))),
        "EPERM"
    );
}
