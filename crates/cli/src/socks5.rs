//! The messages of SOCKS version 5 (RFC 1928), without authentication.
//!
//! Owns their bytes, and nothing of what is done about them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const ADDRESS_IPV4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_IPV6: u8 = 4;

/// What a request is answered with (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// Done.
    Succeeded = 0,
    /// Something of ours is missing.
    GeneralFailure = 1,
    /// The address is in no peer's allowed IPs.
    NetworkUnreachable = 3,
    /// No peer has the name, or the peer does not answer.
    HostUnreachable = 4,
    /// Nobody listens on the peer's port.
    ConnectionRefused = 5,
    /// Neither CONNECT nor UDP ASSOCIATE.
    CommandNotSupported = 7,
    /// Neither IPv4, IPv6 nor a name.
    AddressTypeNotSupported = 8,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A TCP connection.
    Connect,
    /// A relay for UDP datagrams.
    UdpAssociate,
}

/// A host as the client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name.
    Name(String),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub command: Command,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// Why there is no request.
#[derive(Debug)]
pub enum RequestError {
    /// The client is gone, or speaks something else: it gets no answer.
    Io(io::Error),
    /// It is answered with this.
    Refused(Reply),
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn other_protocol() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not SOCKS version 5")
}

/// Reads a client's greeting; gives the answer, and whether to go on after it.
///
/// # Errors
///
/// The client is gone, or speaks something else.
pub async fn read_greeting(client: &mut (impl AsyncRead + Unpin)) -> io::Result<([u8; 2], bool)> {
    if client.read_u8().await? != VERSION {
        return Err(other_protocol());
    }
    let count = client.read_u8().await?;
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).await?;
    Ok(match methods.contains(&NO_AUTHENTICATION) {
        true => ([VERSION, NO_AUTHENTICATION], true),
        false => ([VERSION, NO_ACCEPTABLE_METHOD], false),
    })
}

/// Reads a request.
///
/// # Errors
///
/// [`RequestError`].
pub async fn read_request(client: &mut (impl AsyncRead + Unpin)) -> Result<Request, RequestError> {
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let [version, command, _reserved, address_type] = head;
    if version != VERSION {
        return Err(other_protocol().into());
    }
    let host = match address_type {
        ADDRESS_IPV4 => {
            let mut octets = [0; 4];
            client.read_exact(&mut octets).await?;
            Host::Ip(octets.into())
        }
        ADDRESS_IPV6 => {
            let mut octets = [0; 16];
            client.read_exact(&mut octets).await?;
            Host::Ip(octets.into())
        }
        ADDRESS_NAME => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            Host::Name(String::from_utf8_lossy(&name).into_owned())
        }
        _ => return Err(RequestError::Refused(Reply::AddressTypeNotSupported)),
    };
    let port = client.read_u16().await?;
    let command = match command {
        1 => Command::Connect,
        3 => Command::UdpAssociate,
        _ => return Err(RequestError::Refused(Reply::CommandNotSupported)),
    };
    Ok(Request {
        command,
        host,
        port,
    })
}

/// An answer to a request; `bound` is where the client's datagrams go, or our end of a connection.
pub fn emit_reply(reply: Reply, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, reply as u8, 0];
    push_address(&mut bytes, bound);
    bytes
}

/// What stands before the payload of a datagram to the client (RFC 1928, section 7).
pub fn emit_datagram_header(from: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0];
    push_address(&mut bytes, from);
    bytes
}

fn push_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(ADDRESS_IPV4);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(ADDRESS_IPV6);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
}

/// Reads a datagram of a client: for whom it is, and the payload. Fragments are not put together,
/// which RFC 1928 leaves open.
pub fn parse_datagram(bytes: &[u8]) -> Option<(Host, u16, &[u8])> {
    let ([_, _, fragment, address_type], rest) = bytes.split_first_chunk()?;
    if *fragment != 0 {
        return None;
    }
    let (host, rest) = match *address_type {
        ADDRESS_IPV4 => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (Host::Ip((*octets).into()), rest)
        }
        ADDRESS_IPV6 => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (Host::Ip((*octets).into()), rest)
        }
        ADDRESS_NAME => {
            let (len, rest) = rest.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*len))?;
            (Host::Name(String::from_utf8_lossy(name).into_owned()), rest)
        }
        _ => return None,
    };
    let (port, payload) = rest.split_first_chunk::<2>()?;
    Some((host, u16::from_be_bytes(*port), payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<T>(reading: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(reading)
    }

    fn request(bytes: &[u8]) -> Result<Request, RequestError> {
        read(read_request(&mut &bytes[..]))
    }

    #[test]
    fn a_greeting_needs_a_method_without_authentication() {
        let answer = |bytes: &[u8]| read(read_greeting(&mut &bytes[..]));
        assert_eq!(answer(&[5, 2, 2, 0]).expect("read"), ([5, 0], true));
        assert_eq!(answer(&[5, 1, 2]).expect("read"), ([5, 0xff], false));
        assert_eq!(answer(&[5, 0]).expect("read"), ([5, 0xff], false));
        assert!(answer(&[4, 1, 0]).is_err(), "SOCKS 4");
        assert!(answer(b"GET / HTTP/1.1\r\n").is_err());
        assert!(answer(&[5, 2, 0]).is_err(), "cut off");
    }

    #[test]
    fn requests_in_all_three_forms_are_read() {
        let wanted = request(&[5, 1, 0, 1, 10, 0, 0, 2, 0, 80]).expect("read");
        assert_eq!(wanted.host, Host::Ip([10, 0, 0, 2].into()));
        assert_eq!((wanted.command, wanted.port), (Command::Connect, 80));
        let wanted = request(b"\x05\x03\x00\x03\x06laptop\x1f\x90").expect("read");
        assert_eq!(wanted.host, Host::Name("laptop".into()));
        assert_eq!((wanted.command, wanted.port), (Command::UdpAssociate, 8080));
        let mut bytes = vec![5, 1, 0, 4];
        bytes.extend([0; 15]);
        bytes.extend([1, 1, 187]);
        let wanted = request(&bytes).expect("read");
        assert_eq!(wanted.host, Host::Ip("::1".parse().expect("an address")));
        assert_eq!(wanted.port, 443);
    }

    #[test]
    fn what_is_not_supported_is_said_with_the_right_code() {
        for (bytes, expected) in [
            (
                &[5, 2, 0, 1, 10, 0, 0, 2, 0, 80][..],
                Reply::CommandNotSupported,
            ),
            (
                &[5, 9, 0, 1, 10, 0, 0, 2, 0, 80],
                Reply::CommandNotSupported,
            ),
            (&[5, 1, 0, 2, 0, 0], Reply::AddressTypeNotSupported),
        ] {
            match request(bytes) {
                Err(RequestError::Refused(reply)) => assert_eq!(reply, expected),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
        assert!(matches!(request(&[4, 1, 0, 1]), Err(RequestError::Io(_))));
    }

    #[test]
    fn replies_and_headers_have_the_published_form() {
        let v4 = SocketAddr::from(([127, 0, 0, 1], 0x1f90));
        let reply = emit_reply(Reply::ConnectionRefused, v4);
        assert_eq!(reply, [5, 5, 0, 1, 127, 0, 0, 1, 0x1f, 0x90]);
        let v6: SocketAddr = "[::1]:53".parse().expect("an address");
        let header = emit_datagram_header(v6);
        assert_eq!(header[..4], [0, 0, 0, 4]);
        assert_eq!((header.len(), &header[20..]), (22, &[0, 53][..]));
    }

    #[test]
    fn fragments_and_other_addresses_are_dropped() {
        let good = [0, 0, 0, 1, 10, 0, 0, 1, 0, 53, b'x'];
        assert!(parse_datagram(&good).is_some());
        for (at, value) in [(2, 1), (3, 2)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(parse_datagram(&bad), None);
        }
        assert_eq!(parse_datagram(&good[..9]), None);
    }

    proptest! {
        #[test]
        fn a_datagram_is_read_as_it_was_written(v6 in any::<bool>(), ip in any::<u128>(),
            port in any::<u16>(), payload in proptest::collection::vec(any::<u8>(), 0..50)) {
            let ip = match v6 {
                true => IpAddr::V6(ip.into()),
                false => IpAddr::V4((ip as u32).into()),
            };
            let mut bytes = emit_datagram_header(SocketAddr::new(ip, port));
            bytes.extend(&payload);
            let parsed = parse_datagram(&bytes);
            prop_assert_eq!(parsed, Some((Host::Ip(ip), port, &payload[..])));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_datagram(&bytes);
            let _ = request(&bytes);
            let _ = read(read_greeting(&mut &bytes[..]));
        }
    }
}
