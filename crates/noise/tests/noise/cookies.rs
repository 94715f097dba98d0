//! Cookies: bound to the source address and to the message that asked, and short-lived.

use crate::support::{Pair, at, identity, remac};
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh_noise::constants::COOKIE_SECRET_MAX_AGE;
use wiremesh_noise::{
    CookieChecker, CookieError, CookieState, RemoteIdentity, create_initiation, set_mac2,
    verify_mac1,
};
use wiremesh_wire::{HandshakeInitiation, Instant};

const NONCE: [u8; 24] = [6; 24];
const TICK: Duration = Duration::from_nanos(1);

fn start() -> Instant {
    Instant::ZERO + Duration::from_secs(1000)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn source() -> SocketAddr {
    address("192.0.2.1:1000")
}

fn initiation(pair: &Pair, ephemeral: u8) -> HandshakeInitiation {
    create_initiation(
        &pair.initiator,
        &pair.to_responder,
        [ephemeral; 32],
        7,
        at(1),
    )
    .0
}

/// The initiation with mac2 set under the cookie that the checker gives to `source`.
fn with_cookie(pair: &Pair, checker: &CookieChecker, source: SocketAddr) -> [u8; 148] {
    let mut message = initiation(pair, 3).emit();
    set_mac2(&mut message, &checker.cookie_for(source));
    message
}

#[test]
fn cookie_travels_from_reply_to_mac2() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let first = initiation(&pair, 3);
    assert!(
        !checker.verify_mac2(&first.emit(), source(), start()),
        "zero is not a mac2"
    );
    let mut state = CookieState::new();
    assert_eq!(state.cookie(start()), None);
    state.on_sent(&first.mac1);

    let reply = checker.make_reply(first.sender, NONCE, &first.mac1, source());
    assert_eq!(reply.receiver, 7);
    state
        .consume_reply(&reply, &pair.to_responder, start())
        .expect("a true reply");
    let mut second = initiation(&pair, 4).emit();
    set_mac2(&mut second, &state.cookie(start()).expect("a fresh cookie"));
    assert!(
        verify_mac1(&pair.responder, &second),
        "mac2 does not touch mac1"
    );
    assert!(checker.verify_mac2(&second, source(), start()));
}

#[test]
fn cookie_is_bound_to_the_source_address() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let message = with_cookie(&pair, &checker, source());
    assert!(checker.verify_mac2(&message, source(), start()));
    for other in ["192.0.2.1:1001", "192.0.2.2:1000", "[2001:db8::1]:1000"] {
        assert!(
            !checker.verify_mac2(&message, address(other), start()),
            "{other}"
        );
    }
    let sources = [
        "[2001:db8::1]:1000",
        "[2001:db8::2]:1000",
        "[2001:db8::1]:1001",
    ];
    let cookies = sources.map(|text| checker.cookie_for(address(text)));
    assert!(cookies[0] != cookies[1] && cookies[0] != cookies[2] && cookies[1] != cookies[2]);
}

#[test]
fn mapped_address_is_the_same_source() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let mapped = address("[::ffff:192.0.2.1]:1000");
    assert_eq!(checker.cookie_for(source()), checker.cookie_for(mapped));
}

#[test]
fn mac2_covers_the_whole_message() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let message = with_cookie(&pair, &checker, source());
    for bit in 0..message.len() * 8 {
        let mut damaged = message;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !checker.verify_mac2(&damaged, source(), start()),
            "bit {bit}"
        );
        if bit < 116 * 8 {
            remac(&mut damaged, &pair.responder.node_id());
            assert!(
                !checker.verify_mac2(&damaged, source(), start()),
                "bit {bit}"
            );
        }
    }
    assert!(!checker.verify_mac2(&[], source(), start()));
}

#[test]
fn reply_is_bound_to_mac1_of_the_message_it_answers() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let (sent, other) = (initiation(&pair, 3), initiation(&pair, 4));
    let wrong = checker.make_reply(7, NONCE, &other.mac1, source());
    let right = checker.make_reply(7, NONCE, &sent.mac1, source());

    let mut state = CookieState::new();
    let refused = state.consume_reply(&right, &pair.to_responder, start());
    assert_eq!(
        refused,
        Err(CookieError::Unexpected),
        "nothing was sent yet"
    );

    state.on_sent(&sent.mac1);
    let refused = state.consume_reply(&wrong, &pair.to_responder, start());
    assert_eq!(refused, Err(CookieError::Authentication));
    assert_eq!(state.cookie(start()), None);
    assert_eq!(
        state.consume_reply(&right, &pair.to_responder, start()),
        Ok(())
    );
    let again = state.consume_reply(&right, &pair.to_responder, start());
    assert_eq!(
        again,
        Err(CookieError::Unexpected),
        "one message buys one reply"
    );
}

#[test]
fn forged_reply_changes_nothing() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let sent = initiation(&pair, 3);
    let mut state = CookieState::new();
    state.on_sent(&sent.mac1);
    let true_reply = checker.make_reply(7, NONCE, &sent.mac1, source());
    state
        .consume_reply(&true_reply, &pair.to_responder, start())
        .expect("a true reply");
    let cookie = state.cookie(start());

    state.on_sent(&sent.mac1);
    let stranger = CookieChecker::new(&identity(3), [5; 32], start());
    let forged = stranger.make_reply(7, NONCE, &sent.mac1, source());
    let refused = state.consume_reply(&forged, &pair.to_responder, start() + TICK);
    assert_eq!(refused, Err(CookieError::Authentication));
    for bit in 0..256 {
        let mut damaged = true_reply.clone();
        damaged.encrypted_cookie[bit / 8] ^= 1 << (bit % 8);
        let refused = state.consume_reply(&damaged, &pair.to_responder, start() + TICK);
        assert_eq!(refused, Err(CookieError::Authentication));
    }
    assert_eq!(state.cookie(start()), cookie);
    assert_eq!(
        state.cookie(start() + COOKIE_SECRET_MAX_AGE),
        None,
        "its age is unchanged too"
    );
    assert!(
        state
            .consume_reply(&true_reply, &pair.to_responder, start())
            .is_ok()
    );
}

#[test]
fn reply_from_another_peer_is_refused() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let sent = initiation(&pair, 3);
    let mut state = CookieState::new();
    state.on_sent(&sent.mac1);
    let reply = checker.make_reply(7, NONCE, &sent.mac1, source());
    let other = RemoteIdentity::new(&pair.initiator, identity(3).node_id());
    let refused = state.consume_reply(&reply, &other, start());
    assert_eq!(refused, Err(CookieError::Authentication));
}

#[test]
fn expired_cookie_is_not_used() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let sent = initiation(&pair, 3);
    let mut state = CookieState::new();
    state.on_sent(&sent.mac1);
    let reply = checker.make_reply(7, NONCE, &sent.mac1, source());
    state
        .consume_reply(&reply, &pair.to_responder, start())
        .expect("a true reply");
    let last = start() + (COOKIE_SECRET_MAX_AGE - TICK);
    assert!(state.cookie(last).is_some());
    assert_eq!(state.cookie(last + TICK), None);
}

#[test]
fn secret_is_due_after_its_lifetime() {
    let local = identity(2);
    let mut checker = CookieChecker::new(&local, [5; 32], start());
    let due = start() + COOKIE_SECRET_MAX_AGE;
    assert!(!checker.needs_secret(start() + (COOKIE_SECRET_MAX_AGE - TICK)));
    assert!(checker.needs_secret(due));
    let before = checker.cookie_for(source());
    checker.renew_secret([6; 32], due);
    assert!(!checker.needs_secret(due));
    assert_ne!(checker.cookie_for(source()), before);
}

#[test]
fn old_secret_is_refused_after_twice_its_lifetime() {
    let pair = Pair::new(1, 2);
    let mut checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let message = with_cookie(&pair, &checker, source());
    let renewed_at = start() + COOKIE_SECRET_MAX_AGE;
    checker.renew_secret([6; 32], renewed_at);
    let last = renewed_at + (COOKIE_SECRET_MAX_AGE - TICK);
    assert!(
        checker.verify_mac2(&message, source(), last),
        "still good as the previous secret"
    );
    assert!(!checker.verify_mac2(&message, source(), last + TICK));
    let fresh = with_cookie(&pair, &checker, source());
    assert!(checker.verify_mac2(&fresh, source(), last + TICK));

    checker.renew_secret([7; 32], last);
    assert!(
        !checker.verify_mac2(&message, source(), last),
        "two secrets back is gone"
    );
    assert!(checker.verify_mac2(&fresh, source(), last));
}

#[test]
fn forgotten_renewal_does_not_make_a_secret_eternal() {
    let pair = Pair::new(1, 2);
    let checker = CookieChecker::new(&pair.responder, [5; 32], start());
    let message = with_cookie(&pair, &checker, source());
    assert!(checker.verify_mac2(
        &message,
        source(),
        start() + (2 * COOKIE_SECRET_MAX_AGE - TICK)
    ));
    assert!(!checker.verify_mac2(&message, source(), start() + 2 * COOKIE_SECRET_MAX_AGE));
}

#[test]
fn secrets_of_cookies_are_not_printed() {
    let checker = CookieChecker::new(&identity(2), [5; 32], start());
    let printed = format!("{checker:?} {:?}", CookieState::new());
    assert!(!printed.contains("5, 5") && printed.contains(".."));
}
