//! SOCKS5: what a client sends is read to its end and no further, and means what its bytes say.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wiremesh_cli::socks5::{
    Command, Host, Reply, Request, RequestError, emit_datagram_header, emit_reply, parse_datagram,
    read_greeting, read_request,
};

/// Takes the bytes for a greeting, a request and a datagram.
pub fn run(bytes: &[u8]) {
    greeting(bytes);
    request(bytes);
    datagram(bytes);
}

/// What is in memory is read without waiting.
fn now<T>(reading: impl Future<Output = T>) -> T {
    match pin!(reading).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("bytes in memory were waited for"),
    }
}

fn greeting(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok((answer, goes_on)) = now(read_greeting(&mut rest)) else {
        let is_whole = |count: &u8| bytes.len() >= 2 + usize::from(*count);
        let is_good = bytes.first() == Some(&5) && bytes.get(1).is_some_and(is_whole);
        assert!(!is_good, "it is all there");
        return;
    };
    let methods = &bytes[2..bytes.len() - rest.len()];
    assert_eq!((bytes[0], usize::from(bytes[1])), (5, methods.len()));
    assert_eq!(goes_on, methods.contains(&0));
    assert_eq!(answer, if goes_on { [5, 0] } else { [5, 0xff] });
}

fn request(bytes: &[u8]) {
    let mut rest = bytes;
    match now(read_request(&mut rest)) {
        Ok(request) => {
            let read = &bytes[..bytes.len() - rest.len()];
            assert_eq!(bytes_of(&request, read), read);
        }
        Err(RequestError::Refused(reply)) => {
            assert!(bytes[0] == 5);
            let expected = match bytes[3] {
                1 | 3 | 4 => Reply::CommandNotSupported,
                _ => Reply::AddressTypeNotSupported,
            };
            assert_eq!(reply, expected);
            let bound = SocketAddr::from(([127, 0, 0, 1], 1080));
            let answer = emit_reply(reply, bound);
            assert_eq!(answer[..4], [5, reply as u8, 0, 1]);
        }
        Err(RequestError::Io(_)) => {
            let address_len = match bytes.get(3) {
                Some(1) => 4,
                Some(4) => 16,
                Some(3) => 1 + usize::from(bytes.get(4).copied().unwrap_or_default()),
                _ => 0,
            };
            let whole = bytes.len() >= 4 + address_len + 2;
            assert!(bytes.first() != Some(&5) || !whole, "it is all there");
        }
    }
}

/// The request as a client writes it; `read` is what it was read from.
fn bytes_of(request: &Request, read: &[u8]) -> Vec<u8> {
    let command = match request.command {
        Command::Connect => 1,
        Command::UdpAssociate => 3,
    };
    let mut bytes = vec![5, command, read[2]];
    match &request.host {
        Host::Ip(IpAddr::V4(ip)) => bytes.extend([&[1][..], &ip.octets()].concat()),
        Host::Ip(IpAddr::V6(ip)) => bytes.extend([&[4][..], &ip.octets()].concat()),
        Host::Name(name) => {
            // A name need not be UTF-8, and is then none that a peer has.
            let written = &read[5..read.len() - 2];
            assert_eq!(String::from_utf8_lossy(written), name.as_str());
            bytes.extend([&[3, written.len() as u8][..], written].concat());
        }
    }
    bytes.extend(request.port.to_be_bytes());
    bytes
}

fn datagram(bytes: &[u8]) {
    let Some((host, port, payload)) = parse_datagram(bytes) else {
        return;
    };
    assert!(bytes.ends_with(payload) && bytes[2] == 0);
    let header = &bytes[3..bytes.len() - payload.len()];
    match host {
        Host::Ip(ip) => {
            let again = emit_datagram_header(SocketAddr::new(ip, port));
            assert_eq!(&again[3..], header);
        }
        Host::Name(name) => {
            let (written, tail) = header[2..].split_at(header.len() - 4);
            assert_eq!((header[0], usize::from(header[1])), (3, written.len()));
            assert_eq!(String::from_utf8_lossy(written), name);
            assert_eq!(tail, port.to_be_bytes());
        }
    }
}
