//! The kernel's WireGuard, over generic netlink.
//!
//! Owns the bytes of these requests, and reading what the kernel says of a device. What is read has
//! no place for a private or preshared key: those go one way only, and are wiped here.

use crate::message::{self, Attributes, Message, Socket, attribute, nest, text};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;
use zeroize::Zeroizing;

/// A key.
pub type Key = [u8; 32];

/// Allowed IPs in one message: what fits into 64 KiB, with room.
const ALLOWED_IPS_PER_MESSAGE: usize = 1000;

/// What is to be changed of a peer, which is made if it is not there; `None` stays.
#[derive(Clone, Copy)]
pub struct PeerSettings<'a> {
    /// Whose.
    pub public_key: &'a Key,
    /// Remove it before, in the same message: nothing of it stays.
    pub replace: bool,
    /// Replaced in place: live sessions stay. All zeros is none.
    pub preshared_key: Option<&'a Key>,
    /// Where to.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 is off.
    pub keepalive_seconds: Option<u16>,
    /// Takes the place of all that it has.
    pub allowed_ips: Option<&'a [(IpAddr, u8)]>,
}

/// What the kernel says of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its public key, if it has one.
    pub public_key: Option<Key>,
    /// Its UDP port.
    pub listen_port: u16,
    /// Its peers.
    pub peers: Vec<Peer>,
}

/// What the kernel says of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub public_key: Key,
    /// Where its last authenticated packet came from.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 is off.
    pub keepalive_seconds: u16,
    /// Time of the last handshake since 1970; none yet is zero.
    pub last_handshake: Duration,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Its allowed IPs.
    pub allowed_ips: Vec<(IpAddr, u8)>,
}

/// Makes an interface.
///
/// # Errors
///
/// The kernel's: the name is in use, or it has no WireGuard (`EOPNOTSUPP`).
pub fn create(name: &str) -> io::Result<()> {
    Socket::open(Socket::ROUTE)?
        .ask(&create_message(name))
        .map(drop)
}

/// Sets the secret key of a device, and its UDP port; 0 is any free one. The port is taken when the
/// interface is up.
///
/// # Errors
///
/// The kernel's.
pub fn set(index: u32, private_key: &Key, listen_port: u16) -> io::Result<()> {
    tell(vec![set_message(index, private_key, listen_port)])
}

/// Changes a peer, or makes it.
///
/// # Errors
///
/// The kernel's. With more than a thousand allowed IPs, those before the error are set.
pub fn set_peer(index: u32, peer: &PeerSettings<'_>) -> io::Result<()> {
    tell(set_peer_messages(index, peer))
}

/// Removes a peer.
///
/// # Errors
///
/// The kernel's. A peer that is not there is none.
pub fn remove_peer(index: u32, public_key: &Key) -> io::Result<()> {
    tell(vec![remove_message(index, public_key)])
}

/// Reads a device with its peers.
///
/// # Errors
///
/// The kernel's.
pub fn device(index: u32) -> io::Result<Device> {
    let (socket, family) = open()?;
    let request = command(GET_DEVICE, message::DUMP, vec![ifindex(index)]);
    let answers = socket.ask(&Message {
        kind: family,
        ..request
    })?;
    Ok(read(
        answers.iter().filter_map(|answer| answer.get(GENL_BYTES..)),
    ))
}

/// A socket, and the number that this kernel gives the family.
fn open() -> io::Result<(Socket, u16)> {
    let socket = Socket::open(Socket::GENERIC)?;
    for answer in socket.ask(&family_message())? {
        let attributes = answer.get(GENL_BYTES..).unwrap_or(&[]);
        let id = Attributes(attributes).find(|(kind, _)| *kind == CTRL_FAMILY_ID);
        if let Some(id) = id.and_then(|(_, id)| Some(u16::from_ne_bytes(id.try_into().ok()?))) {
            return Ok((socket, id));
        }
    }
    Err(io::ErrorKind::Unsupported.into())
}

fn tell(messages: Vec<Message>) -> io::Result<()> {
    let (socket, family) = open()?;
    for message in messages {
        socket.ask(&Message {
            kind: family,
            ..message
        })?;
    }
    Ok(())
}

fn create_message(name: &str) -> Message {
    let kind = nest(IFLA_LINKINFO, &[text(IFLA_INFO_KIND, "wireguard")]);
    let body = [vec![0; 16], text(IFLA_IFNAME, name), kind].concat();
    Message {
        kind: RTM_NEWLINK,
        flags: message::CREATE | message::EXCL,
        body: body.into(),
    }
}

fn family_message() -> Message {
    let name = text(CTRL_FAMILY_NAME, "wireguard");
    Message {
        kind: GENL_ID_CTRL,
        ..command(CTRL_GETFAMILY, 0, vec![name])
    }
}

/// Without the number of the family. The parts may hold secrets.
fn command(command: u8, flags: u16, parts: Vec<Vec<u8>>) -> Message {
    let parts = Zeroizing::new(parts);
    let mut body = Zeroizing::new(Vec::with_capacity(
        GENL_BYTES + parts.iter().map(Vec::len).sum::<usize>(),
    ));
    body.extend([command, 1, 0, 0]);
    parts.iter().for_each(|part| body.extend(part));
    Message {
        kind: 0,
        flags,
        body,
    }
}

fn ifindex(index: u32) -> Vec<u8> {
    attribute(DEVICE_IFINDEX, &index.to_ne_bytes())
}

fn set_message(index: u32, private_key: &Key, listen_port: u16) -> Message {
    let parts = vec![
        ifindex(index),
        attribute(DEVICE_PRIVATE_KEY, private_key),
        attribute(DEVICE_LISTEN_PORT, &listen_port.to_ne_bytes()),
    ];
    command(SET_DEVICE, 0, parts)
}

/// The first message has everything; further ones, the allowed IPs that it has no room for.
fn set_peer_messages(index: u32, peer: &PeerSettings<'_>) -> Vec<Message> {
    let mut parts = vec![attribute(PEER_PUBLIC_KEY, peer.public_key)];
    parts.extend(
        peer.preshared_key
            .map(|key| attribute(PEER_PRESHARED_KEY, key)),
    );
    parts.extend(
        peer.endpoint
            .map(|endpoint| attribute(PEER_ENDPOINT, &sockaddr(endpoint))),
    );
    parts.extend(
        peer.keepalive_seconds
            .map(|s| attribute(PEER_KEEPALIVE, &s.to_ne_bytes())),
    );
    let mut chunks = peer
        .allowed_ips
        .unwrap_or(&[])
        .chunks(ALLOWED_IPS_PER_MESSAGE);
    if peer.allowed_ips.is_some() {
        parts.push(attribute(PEER_FLAGS, &REPLACE_ALLOWED_IPS.to_ne_bytes()));
        parts.push(allowed_ips(chunks.next().unwrap_or(&[])));
    }
    let removal = peer.replace.then(|| removal(peer.public_key));
    let first = removal.into_iter().chain([parts]).collect();
    let mut messages = vec![peers_message(index, first)];
    messages.extend(chunks.map(|chunk| {
        let key = attribute(PEER_PUBLIC_KEY, peer.public_key);
        peers_message(index, vec![vec![key, allowed_ips(chunk)]])
    }));
    messages
}

fn remove_message(index: u32, public_key: &Key) -> Message {
    peers_message(index, vec![removal(public_key)])
}

fn removal(public_key: &Key) -> Vec<Vec<u8>> {
    let flags = attribute(PEER_FLAGS, &(REMOVE_ME | UPDATE_ONLY).to_ne_bytes());
    vec![attribute(PEER_PUBLIC_KEY, public_key), flags]
}

/// The kernel goes through the peers in order.
fn peers_message(index: u32, peers: Vec<Vec<Vec<u8>>>) -> Message {
    let peers = Zeroizing::new(peers);
    let nests = Zeroizing::new(peers.iter().map(|parts| nest(0, parts)).collect::<Vec<_>>());
    let parts = vec![ifindex(index), nest(DEVICE_PEERS, &nests)];
    command(SET_DEVICE, 0, parts)
}

fn allowed_ips(nets: &[(IpAddr, u8)]) -> Vec<u8> {
    let each = nets.iter().map(|(address, bits)| {
        let (family, octets) = message::split(*address);
        let family = attribute(ALLOWED_IP_FAMILY, &u16::from(family).to_ne_bytes());
        let address = attribute(ALLOWED_IP_ADDRESS, &octets);
        nest(0, &[family, address, attribute(ALLOWED_IP_BITS, &[*bits])])
    });
    nest(PEER_ALLOWED_IPS, &each.collect::<Vec<_>>())
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn sockaddr(endpoint: SocketAddr) -> Vec<u8> {
    let (family, octets) = message::split(endpoint.ip());
    let mut bytes = u16::from(family).to_ne_bytes().to_vec();
    bytes.extend(endpoint.port().to_be_bytes());
    match endpoint {
        SocketAddr::V4(_) => {
            bytes.extend(octets);
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(octets);
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// Reads the messages of one answer. A peer that does not fit into one goes on in the next.
fn read<'a>(messages: impl Iterator<Item = &'a [u8]>) -> Device {
    let mut device = Device::default();
    for message in messages {
        for (kind, value) in Attributes(message) {
            match kind {
                DEVICE_PUBLIC_KEY => device.public_key = value.try_into().ok(),
                DEVICE_LISTEN_PORT => device.listen_port = number(value, u16::from_ne_bytes),
                DEVICE_PEERS => {
                    for (_, peer) in Attributes(value) {
                        add_peer(&mut device.peers, read_peer(peer));
                    }
                }
                _ => {}
            }
        }
    }
    device
}

fn add_peer(peers: &mut Vec<Peer>, peer: Peer) {
    match peers.last_mut() {
        Some(last) if last.public_key == peer.public_key => {
            last.allowed_ips.extend(peer.allowed_ips)
        }
        _ => peers.push(peer),
    }
}

fn read_peer(attributes: &[u8]) -> Peer {
    let mut peer = Peer::default();
    for (kind, value) in Attributes(attributes) {
        match kind {
            PEER_PUBLIC_KEY => peer.public_key = number(value, |key: Key| key),
            PEER_ENDPOINT => peer.endpoint = read_sockaddr(value),
            PEER_KEEPALIVE => peer.keepalive_seconds = number(value, u16::from_ne_bytes),
            PEER_LAST_HANDSHAKE => peer.last_handshake = read_time(value).unwrap_or_default(),
            PEER_RX_BYTES => peer.received_bytes = number(value, u64::from_ne_bytes),
            PEER_TX_BYTES => peer.sent_bytes = number(value, u64::from_ne_bytes),
            PEER_ALLOWED_IPS => {
                let nets = Attributes(value).filter_map(|(_, net)| read_allowed_ip(net));
                peer.allowed_ips.extend(nets);
            }
            _ => {}
        }
    }
    peer
}

/// What the kernel gives has its size; anything else reads as zero.
fn number<const N: usize, T>(value: &[u8], from: impl Fn([u8; N]) -> T) -> T {
    from(value.try_into().unwrap_or([0; N]))
}

/// `struct __kernel_timespec`.
fn read_time(value: &[u8]) -> Option<Duration> {
    let (seconds, rest) = value.split_first_chunk()?;
    let nanoseconds = i64::from_ne_bytes(*rest.first_chunk()?);
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).ok()?;
    let nanoseconds = u32::try_from(nanoseconds)
        .ok()
        .filter(|n| *n < 1_000_000_000)?;
    Some(Duration::new(seconds, nanoseconds))
}

fn read_sockaddr(value: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = value.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        2 => Some((*rest.first_chunk::<4>()?, port).into()),
        10 => {
            let (flow, rest) = rest.split_first_chunk()?;
            let (address, scope) = rest.split_first_chunk::<16>()?;
            let flow = u32::from_be_bytes(*flow);
            let scope = u32::from_ne_bytes(*scope.first_chunk()?);
            Some(SocketAddrV6::new((*address).into(), port, flow, scope).into())
        }
        _ => None,
    }
}

fn read_allowed_ip(attributes: &[u8]) -> Option<(IpAddr, u8)> {
    let value = |wanted| Attributes(attributes).find(|(kind, _)| *kind == wanted);
    let (_, bits) = value(ALLOWED_IP_BITS)?;
    Some((message::join(value(ALLOWED_IP_ADDRESS)?.1)?, *bits.first()?))
}

const GENL_BYTES: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_GETFAMILY: u8 = 3;
const CTRL_FAMILY_ID: u16 = 1;
const CTRL_FAMILY_NAME: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
// linux/wireguard.h
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const REMOVE_ME: u32 = 1;
const REPLACE_ALLOWED_IPS: u32 = 2;
const UPDATE_ONLY: u32 = 4;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED_IPS: u16 = 9;
const ALLOWED_IP_FAMILY: u16 = 1;
const ALLOWED_IP_ADDRESS: u16 = 2;
const ALLOWED_IP_BITS: u16 = 3;

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const INDEX: u32 = 7;
    const FAMILY: u16 = 0x1d;

    fn vector(name: &str) -> Vec<u8> {
        let text = include_str!("../tests/vectors/wireguard.txt");
        let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
        let (_, hex) = lines.find(|(case, _)| *case == name).expect("a case");
        let (pairs, _) = hex.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| {
            let pair = std::str::from_utf8(pair).expect("hex");
            u8::from_str_radix(pair, 16).expect("hex")
        };
        pairs.iter().map(byte).collect()
    }

    fn net(text: &str) -> (IpAddr, u8) {
        let (address, bits) = text.split_once('/').expect("address/bits");
        (
            address.parse().expect("an address"),
            bits.parse().expect("bits"),
        )
    }

    /// As it goes to the kernel.
    fn sent(message: Message, name: &str) {
        let family = if message.kind == 0 {
            FAMILY
        } else {
            message.kind
        };
        let flags = if message.flags & message::DUMP == message::DUMP {
            0
        } else {
            4
        };
        let message = Message {
            kind: family,
            ..message
        };
        assert_eq!(*message.emit(0, flags), vector(name), "{name}");
    }

    #[test]
    fn requests_have_the_bytes_that_the_kernel_reads() {
        let key = |byte| [byte; 32];
        sent(create_message("wm0"), "create");
        sent(family_message(), "family");
        sent(
            command(GET_DEVICE, message::DUMP, vec![ifindex(INDEX)]),
            "get",
        );
        sent(set_message(INDEX, &key(0x51), 51820), "set");
        let peer = PeerSettings {
            public_key: &key(0xa1),
            replace: false,
            preshared_key: Some(&key(0x52)),
            endpoint: Some("192.0.2.1:51821".parse().expect("an endpoint")),
            keepalive_seconds: Some(25),
            allowed_ips: Some(&[net("fd77:6d80::1/128"), net("10.1.0.0/16")]),
        };
        let mut messages = set_peer_messages(INDEX, &peer);
        assert_eq!(messages.len(), 1);
        sent(messages.remove(0), "peer");
        let peer = PeerSettings {
            public_key: &key(0xb2),
            replace: false,
            preshared_key: None,
            endpoint: Some("[2001:db8::9]:9".parse().expect("an endpoint")),
            keepalive_seconds: None,
            allowed_ips: Some(&[]),
        };
        sent(
            set_peer_messages(INDEX, &peer).remove(0),
            "peer without addresses",
        );
        let peer = PeerSettings {
            public_key: &key(0xa1),
            replace: true,
            preshared_key: Some(&key(0x52)),
            endpoint: None,
            keepalive_seconds: None,
            allowed_ips: Some(&[net("10.1.0.0/16")]),
        };
        sent(set_peer_messages(INDEX, &peer).remove(0), "replacement");
        sent(remove_message(INDEX, &key(0xa1)), "remove");
    }

    #[test]
    fn many_allowed_ips_go_in_several_messages_that_fit() {
        let nets: Vec<_> = (0..2500u16)
            .map(|n| (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]), 128))
            .collect();
        let peer = PeerSettings {
            public_key: &[1; 32],
            replace: false,
            preshared_key: None,
            endpoint: None,
            keepalive_seconds: None,
            allowed_ips: Some(&nets),
        };
        let messages = set_peer_messages(INDEX, &peer);
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(|message| message.body.len() < 65_536));
        // Read as an answer they are one peer with all of them, in order.
        let device = read(messages.iter().map(|message| &message.body[GENL_BYTES..]));
        assert_eq!(device.peers.len(), 1);
        assert_eq!(device.peers[0].allowed_ips, nets);
    }

    #[test]
    fn answer_is_read_without_its_secrets() {
        let answers = [vector("answer 1"), vector("answer 2")];
        let device = read(answers.iter().map(|answer| &answer[GENL_BYTES..]));
        let peer = |byte, endpoint: Option<&str>, nets: &[&str]| Peer {
            public_key: [byte; 32],
            endpoint: endpoint.map(|text| text.parse().expect("an endpoint")),
            keepalive_seconds: 25,
            last_handshake: Duration::new(1_700_000_000, 250_000_000),
            received_bytes: 3,
            sent_bytes: 1 << 40,
            allowed_ips: nets.iter().map(|text| net(text)).collect(),
        };
        let first = peer(0xa1, Some("192.0.2.1:51821"), &["fd77:6d80::1/128"]);
        let second = peer(0xb2, None, &["10.1.0.0/16", "2001:db8::/32", "0.0.0.0/0"]);
        let expected = Device {
            public_key: Some([0x61; 32]),
            listen_port: 51820,
            peers: vec![first, second],
        };
        assert_eq!(device, expected);
        // The bytes of the secret and the preshared key, as `Debug` would show them.
        let shown = format!("{device:?}");
        assert!(!shown.contains("81, 81, 81") && !shown.contains("82, 82, 82"));
    }

    #[test]
    fn cut_and_damaged_answers_are_read_as_far_as_they_go() {
        let answer = vector("answer 1");
        for length in 0..answer.len() {
            read(std::iter::once(&answer[..length]));
            let mut damaged = answer.clone();
            damaged[length] ^= 0xff;
            read(std::iter::once(&damaged[..]));
        }
    }
}
