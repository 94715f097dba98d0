//! Sealing and opening transport data.

use crate::support::{Pair, psk, room_around};
use proptest::prelude::*;
use wiremesh_noise::constants::REJECT_AFTER_MESSAGES;
use wiremesh_noise::session::OVERHEAD;
use wiremesh_noise::{OpenError, Opener, SealError, Sealer};
use wiremesh_wire::TransportDataHeader;

/// The initiator's sealer and the responder's opener.
fn session() -> (Sealer, Opener) {
    let (ours, theirs) = Pair::new(1, 2).handshake(&psk(0));
    (ours.split().0, theirs.split().1)
}

fn sealed(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = room_around(plaintext);
    sealer
        .seal(&mut datagram)
        .expect("room and counter are fine");
    datagram
}

fn header(datagram: &[u8]) -> TransportDataHeader {
    TransportDataHeader::parse(datagram[..16].try_into().expect("16 bytes")).expect("a header")
}

#[test]
fn counters_rise_from_zero_and_the_header_names_the_receiver() {
    let (mut sealer, mut opener) = session();
    for counter in 0..3 {
        assert_eq!(sealer.next_counter(), counter);
        let mut datagram = sealed(&mut sealer, b"0123456789abcdef");
        assert_eq!(
            header(&datagram),
            TransportDataHeader {
                receiver: 9,
                counter
            }
        );
        let opened = opener.open(counter, &mut datagram[16..]).expect("opens");
        assert_eq!(opened, b"0123456789abcdef");
    }
    assert_eq!((sealer.receiver(), opener.replay().next()), (9, 3));
}

#[test]
fn keepalive_opens_to_nothing() {
    let (mut sealer, mut opener) = session();
    let mut datagram = sealed(&mut sealer, b"");
    assert_eq!(datagram.len(), OVERHEAD);
    assert_eq!(opener.open(0, &mut datagram[16..]), Ok(&mut [][..]));
}

#[test]
fn replayed_packet_is_dropped() {
    let (mut sealer, mut opener) = session();
    let datagram = sealed(&mut sealer, &[1; 64]);
    assert!(opener.open(0, &mut datagram.clone()[16..]).is_ok());
    let mut again = datagram.clone();
    assert_eq!(opener.open(0, &mut again[16..]), Err(OpenError::Replayed));
    assert_eq!(
        again, datagram,
        "a replay is refused before the cipher runs"
    );
}

#[test]
fn forged_packet_does_not_burn_its_counter() {
    let (mut sealer, mut opener) = session();
    let mut first = sealed(&mut sealer, &[1; 64]);
    let mut forged = first.clone();
    forged[20] ^= 1;
    assert_eq!(
        opener.open(0, &mut forged[16..]),
        Err(OpenError::Authentication)
    );
    // A forgery with a far counter must not move the window either.
    assert_eq!(
        opener.open(1 << 40, &mut forged[16..]),
        Err(OpenError::Authentication)
    );
    assert_eq!(opener.replay().next(), 0);
    assert!(opener.open(0, &mut first[16..]).is_ok());
}

#[test]
fn counter_beyond_the_limit_is_refused_before_the_cipher_runs() {
    let (_, mut opener) = session();
    for counter in [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, u64::MAX] {
        let mut bytes = [7u8; 32];
        assert_eq!(
            opener.open(counter, &mut bytes),
            Err(OpenError::CounterTooLarge)
        );
        assert_eq!(bytes, [7; 32]);
    }
}

#[test]
fn last_counter_of_a_session_opens() {
    let (ours, theirs) = Pair::new(1, 2).handshake(&psk(0));
    let mut opener = theirs.split().1;
    let last = REJECT_AFTER_MESSAGES - 1;
    let mut datagram = room_around(&[1; 16]);
    ours.sealing
        .seal_with_counter(9, last, &mut datagram)
        .expect("the last one seals");
    assert!(opener.open(last, &mut datagram[16..]).is_ok());
    let beyond = ours.sealing.seal_with_counter(9, last + 1, &mut datagram);
    assert_eq!(beyond, Err(SealError::Exhausted));
}

#[test]
fn datagrams_without_room_are_refused_and_take_no_counter() {
    let (mut sealer, mut opener) = session();
    for len in 0..OVERHEAD {
        let mut datagram = vec![3; len];
        assert_eq!(sealer.seal(&mut datagram), Err(SealError::TooShort));
        assert_eq!(datagram, vec![3; len]);
    }
    assert_eq!(sealer.next_counter(), 0);
    for len in 0..16 {
        assert_eq!(
            opener.open(0, &mut vec![3; len]),
            Err(OpenError::Authentication)
        );
    }
}

#[test]
fn values_of_a_session_stay_small() {
    // The window (1 KiB) and the cipher contexts (about 600 bytes each) are behind pointers.
    assert!(size_of::<Sealer>() <= 48);
    assert!(size_of::<Opener>() <= 48);
}

#[test]
fn keys_can_be_shared_between_threads() {
    fn assert_shareable<T: Send + Sync>() {}
    assert_shareable::<wiremesh_noise::SealingKey>();
    assert_shareable::<wiremesh_noise::OpeningKey>();
    assert_shareable::<wiremesh_noise::LocalIdentity>();
    assert_shareable::<Sealer>();
    assert_shareable::<Opener>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_plaintext_comes_back_and_no_damaged_one_does(
        plaintext in prop::collection::vec(any::<u8>(), 0..1600),
        bit: prop::sample::Index,
    ) {
        let (mut sealer, mut opener) = session();
        let mut datagram = sealed(&mut sealer, &plaintext);
        let mut damaged = datagram[16..].to_vec();
        let bit = bit.index(damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(opener.open(0, &mut damaged), Err(OpenError::Authentication));
        let mut renumbered = datagram[16..].to_vec();
        prop_assert_eq!(opener.open(1, &mut renumbered), Err(OpenError::Authentication));
        prop_assert_eq!(opener.open(0, &mut datagram[16..]), Ok(&mut plaintext.clone()[..]));
    }
}
