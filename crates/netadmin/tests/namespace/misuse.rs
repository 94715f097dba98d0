//! Clients that do what they should not. None harms another, and none is waited for.

use crate::host::{self, Host, bytes_of, prefix, reason, receive, send, wanted};
use rustix::net::RecvFlags;
use std::time::{Duration, Instant};
use wiremesh_netadmin::client;
use wiremesh_netadmin::verbs::{ALLOWED_IPS_MAX, PeerChange, Prefix, Reason, Reply, Request};

/// What a connection with a TUN device has no use for.
const IDLE: Request = Request::ReadFigures(0);
/// Far below the time that a client which is waited for would take.
const SOON: Duration = Duration::from_secs(5);

fn change(allowed_ips: Vec<Prefix>) -> PeerChange {
    PeerChange {
        public_key: [1; 32],
        replace: false,
        preshared_key: None,
        endpoint: None,
        keepalive_seconds: None,
        allowed_ips: Some(allowed_ips),
    }
}

#[test]
fn helper_is_there_only_where_one_answers() {
    let Some(mut host) = Host::new() else { return };
    assert!(client::is_there(&host.socket));
    host.kill_helper();
    assert!(!client::is_there(&host.socket), "only its file is there");
    assert!(!client::is_there("/nonexistent/socket".as_ref()));
}

#[test]
fn peers_need_a_wireguard_interface_of_the_same_connection() {
    let Some(host) = Host::new() else { return };
    let change = Request::SetPeer(change(vec![prefix("10.1.0.0/16")]));
    let all = [change, Request::RemovePeer([1; 32]), IDLE];
    for request in &all {
        let refusal = host.refusal_of(&bytes_of(request));
        assert_eq!(refusal.reason, Reason::NoInterface);
    }
    let tun = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    let make = bytes_of(&Request::Make(wanted("wm1"), None));
    let during = host.state();
    for (bytes, expected) in all
        .iter()
        .map(|request| (bytes_of(request), Reason::NoInterface))
        .chain([
            (make, Reason::Second),
            (b"1 nonsense".to_vec(), Reason::Malformed),
        ])
    {
        send(&tun.lease, &bytes).expect("sent");
        let reply = Reply::parse(&receive(&tun.lease));
        assert_eq!(reply, Some(Reply::Refused(expected.into())));
    }
    assert_eq!(host.state(), during, "a refusal takes nothing away");
}

/// As a program would send it that does not check itself.
#[test]
fn what_is_out_of_bounds_is_refused_with_its_reason() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    let change = format!("1 peer {} change", "a1".repeat(32));
    let make = "1 make wm0 1420 10.77.0.1/32 10.77.0.0/24";
    let secret = "50".repeat(32);
    let too_many = vec!["10.1.0.0/16"; ALLOWED_IPS_MAX + 1].join(",");
    for (text, expected) in [
        (format!("{change} - - - 8.8.0.0/16"), Reason::NotPrivate),
        (format!("{change} - - - 10.0.0.1/8"), Reason::NoNetwork),
        (format!("{change} - - - {too_many}"), Reason::Malformed),
        (
            format!("{change} - [fd77:6d00::2]:2708 - -"),
            Reason::Endpoint,
        ),
        (format!("{make},0.0.0.0/0 {secret} 0"), Reason::NotPrivate),
        (format!("{make} {secret} 53"), Reason::Port),
        (format!("{make} {secret}"), Reason::Malformed),
        (format!("1 makes wm0 {secret}"), Reason::Malformed),
        (format!("1 make wm0 1420 {secret} "), Reason::Malformed),
        (
            format!("{make} {secret} 0").replace("wm0", "eth0"),
            Reason::Name,
        ),
        (
            format!("{make} {secret} 0").replace("1420", "68"),
            Reason::Mtu,
        ),
    ] {
        let refusal = host.refusal_of(text.as_bytes());
        assert_eq!(refusal.reason, expected, "{text}");
        assert!(!refusal.detail.contains(&secret[..8]));
    }
    assert_eq!(host.state(), before);
}

#[test]
fn client_that_never_reads_is_cut_off_and_nobody_waits() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    let socket = host.connect();
    send(&socket, &bytes_of(&Request::Make(wanted("wm0"), None))).expect("sent");
    let start = Instant::now();
    let question = bytes_of(&IDLE);
    // Until its own queue is full of answers.
    while send(&socket, &question).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(60), "never cut off");
    }
    host.wait_for(&before);
    client::make_tun(&host.socket, &wanted("wm0")).expect("the helper is well");
}

#[test]
fn client_that_floods_has_its_turn_and_no_more() {
    let Some(host) = Host::new() else { return };
    let flood = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    let question = bytes_of(&IDLE);
    let (mut asked, mut answered) = (0, 0);
    for _ in 0..20 {
        // As many as it can have answers for without reading.
        while asked < answered + 100 {
            send(&flood.lease, &question).expect("sent");
            asked += 1;
        }
        let start = Instant::now();
        let error = client::make_tun(&host.socket, &wanted("wm0")).expect_err("it is in use");
        assert_eq!(reason(&error), Some(Reason::Overlap));
        assert!(start.elapsed() < SOON, "the others wait");
        let mut reply = [0; 100];
        while rustix::net::recv(&flood.lease, &mut reply, RecvFlags::DONTWAIT).is_ok() {
            answered += 1;
        }
    }
    assert!(answered > 20, "no flood: {answered}");
}

#[test]
fn client_that_asks_a_thousand_times_and_goes_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    for _ in 0..3 {
        let socket = host.connect();
        send(&socket, &bytes_of(&Request::Make(wanted("wm0"), None))).expect("sent");
        let question = bytes_of(&IDLE);
        let sent = (0..1000).take_while(|_| send(&socket, &question).is_ok());
        assert!(sent.count() > 10);
        drop(socket);
        host.wait_for(&before);
    }
    // All three have gone, and their places are free.
    let silent: Vec<_> = (0..8).map(|_| host.connect()).collect();
    for socket in &silent {
        host::wait_for_end(socket, Duration::from_secs(8));
    }
    client::make_tun(&host.socket, &wanted("wm0")).expect("the helper is well");
}
