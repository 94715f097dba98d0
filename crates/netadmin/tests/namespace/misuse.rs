//! Clients that do what they should not. None harms another, and none is waited for.

use crate::host::{self, Host, bytes_of, prefix, reason, receive, send, wanted};
use rustix::net::RecvFlags;
use std::time::{Duration, Instant};
use wiremesh_netadmin::client;
use wiremesh_netadmin::verbs::{
    ALLOWED_IPS_MAX, PeerChange, Prefix, REQUEST_BYTES_MAX, Reason, Reply, Request,
};

/// What a connection with a TUN device has no use for.
const IDLE: Request = Request::ReadFigures { from: 0 };
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
        assert_eq!(refusal.reason, Reason::NoInterface, "{request:?}");
    }
    let tun = client::make_tun(&host.socket, &wanted("wm0")).expect("made");
    let make = bytes_of(&Request::MakeTun(wanted("wm1")));
    let during = host.state();
    for (bytes, expected) in all
        .iter()
        .map(|request| (bytes_of(request), Reason::NoInterface))
        .chain([(make, Reason::Second), (vec![1; 9], Reason::Malformed)])
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
    let good = bytes_of(&Request::SetPeer(change(vec![prefix("10.1.0.0/16")])));
    let family = good.len() - 18;
    let mut public = good.clone();
    public[family + 1..family + 5].copy_from_slice(&[8, 8, 0, 0]);
    assert_eq!(host.refusal_of(&public).reason, Reason::NotPrivate);
    assert_eq!(host.refusal_of(&public).detail, "8.8.0.0/16");
    let mut host_bits = good.clone();
    host_bits[family + 4] = 1;
    assert_eq!(host.refusal_of(&host_bits).reason, Reason::NoNetwork);
    let nets = vec![prefix("10.1.0.0/16"); ALLOWED_IPS_MAX];
    let full = bytes_of(&Request::SetPeer(change(nets)));
    assert_eq!(full.len(), REQUEST_BYTES_MAX);
    let mut more = [&full[..], &full[full.len() - 18..]].concat();
    let length = (more.len() as u16).to_le_bytes();
    more[2..4].copy_from_slice(&length);
    assert_eq!(host.refusal_of(&more).reason, Reason::Malformed);
    assert_eq!(host.state(), before);
}

#[test]
fn client_that_never_reads_is_cut_off_and_nobody_waits() {
    let Some(host) = Host::new() else { return };
    let before = host.state();
    let socket = host.connect();
    send(&socket, &bytes_of(&Request::MakeTun(wanted("wm0")))).expect("sent");
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
        send(&socket, &bytes_of(&Request::MakeTun(wanted("wm0")))).expect("sent");
        let question = bytes_of(&IDLE);
        let sent = (0..1000).take_while(|_| send(&socket, &question).is_ok());
        assert!(sent.count() > 10);
        drop(socket);
        host.wait_for(&before);
    }
    // All three have gone, and their places are free.
    let silent: Vec<_> = (0..16).map(|_| host.connect()).collect();
    for socket in &silent {
        host::wait_for_end(socket, Duration::from_secs(8));
    }
    client::make_tun(&host.socket, &wanted("wm0")).expect("the helper is well");
}
