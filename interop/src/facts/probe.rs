//! A WireGuard peer that does only what it is told: each message at its moment, with any PSK.
//!
//! The one under examination has it as its one peer. It owns a socket in the namespace at the other
//! end of the link; it keeps no timers and answers nothing by itself.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wiremesh_noise::{
    InitiatorHandshake, LocalIdentity, Opener, RemoteIdentity, Sealer, SessionKeys,
    create_initiation, open_initiation,
};
use wiremesh_wire::{
    HandshakeInitiation, HandshakeResponse, NodeId, PresharedKey, SecretKey, Tai64n, UnixTime,
};

use crate::arena::{OUR_V4, THEIR_V4};
use crate::capture::{Capture, Kind, kind_of};
use crate::keys::{KeyPair, overlay_address};
use crate::outcome::{Outcome, Stop, ensure, fail};
use crate::place::Place;
use crate::runner::Context;
use crate::stock::{Settings, Stock};

/// How long an answer over the link may take, on an emulated CPU too.
pub const ANSWER: Duration = Duration::from_secs(3);

/// A session that the probe has with its subject.
#[derive(Debug)]
struct Session {
    sealer: Sealer,
    opener: Opener,
    local_index: u32,
}

/// A peer under full control.
pub struct Probe {
    socket: UdpSocket,
    local: LocalIdentity,
    remote: RemoteIdentity,
    subject: SocketAddr,
    inner: (Ipv4Addr, Ipv4Addr),
    sessions: Vec<Session>,
    next_index: u32,
}

/// The one under examination with a probe as its only peer.
pub struct Bench {
    /// The one under examination.
    pub subject: Stock,
    /// Its peer.
    pub probe: Probe,
    /// The probe's own address on the link.
    pub probe_address: SocketAddr,
}

impl Bench {
    /// Starts both. The subject begins only if it is told where the probe is.
    pub fn start(context: &Context<'_>, psk: &str, subject_begins: bool) -> Outcome<Self> {
        let arena = context.arena;
        let number = arena.next_pair();
        let (own, subject) = (KeyPair::generate()?, KeyPair::generate()?);
        let ports = (40_000 + u16::from(number), 50_000 + u16::from(number));
        let probe_address = SocketAddr::new(OUR_V4.parse()?, ports.0);
        let subject_address = SocketAddr::new(THEIR_V4.parse()?, ports.1);
        let inner = |host| Ipv4Addr::new(10, 77, number, host);
        let settings = Settings {
            keys: subject.clone(),
            listen_port: ports.1,
            peer: own.public.clone(),
            psk: Some(psk.to_owned()),
            endpoint: subject_begins.then_some(probe_address),
            peer_addresses: (overlay_address(&own.public)?, inner(1)),
            addresses: (overlay_address(&subject.public)?, inner(2)),
            keepalive: None,
            roams: false,
        };
        let local = LocalIdentity::new(own.secret.parse::<SecretKey>()?)?;
        let remote = RemoteIdentity::new(&local, subject.public.parse::<NodeId>()?);
        let probe = Probe {
            socket: socket_at(&arena.ours, probe_address)?,
            local,
            remote,
            subject: subject_address,
            inner: (inner(1), inner(2)),
            sessions: Vec::new(),
            next_index: 1,
        };
        let subject = Stock::start(arena.make, arena.theirs.clone(), settings)?;
        Ok(Self {
            subject,
            probe,
            probe_address,
        })
    }

    /// The allowed IPs of the probe.
    pub fn allowed_ips(&self) -> String {
        let (v6, v4) = self.subject.settings().peer_addresses;
        format!("{v6}/128,{v4}/32")
    }

    /// How many UDP datagrams the subject has sent.
    pub fn sent_by_subject(&self, capture: &Capture) -> Outcome<usize> {
        let port = self.subject.settings().listen_port;
        let seen = capture.seen_with_port(port)?;
        Ok(seen
            .iter()
            .filter(|message| message.source.port() == port)
            .count())
    }
}

/// A socket at the other end of the link.
pub fn socket_at(place: &Place, address: SocketAddr) -> Outcome<UdpSocket> {
    match place {
        Place::Namespace(namespace) => namespace.udp_socket(address),
        Place::Guest(_) => fail("probes sit on the host's side of the link"),
    }
}

/// The next datagram from a socket within a time.
pub fn receive_from(socket: &UdpSocket, limit: Duration) -> Outcome<Option<(Vec<u8>, SocketAddr)>> {
    let mut buffer = [0; 2048];
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match socket.recv_from(&mut buffer) {
            Ok((len, source)) => return Ok(Some((buffer[..len].to_vec(), source))),
            // Where the machine itself is suspended, the wait ends with this.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Probe {
    /// Waits until an initiation is far enough from the one before to be accepted.
    fn keep_distance() {
        std::thread::sleep(Duration::from_millis(40));
    }

    /// Where the one under examination is.
    pub fn subject_address(&self) -> SocketAddr {
        self.subject
    }

    /// Its node id.
    pub fn subject_id(&self) -> NodeId {
        self.remote.node_id()
    }

    /// Makes an initiation with the present time and sends nothing.
    pub fn initiation(&mut self) -> Outcome<([u8; HandshakeInitiation::LEN], InitiatorHandshake)> {
        let index = self.next_index;
        self.next_index += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let timestamp = Tai64n::from_unix(UnixTime::from_duration(now));
        let (message, pending) =
            create_initiation(&self.local, &self.remote, random()?, index, timestamp);
        Ok((message.emit(), pending))
    }

    /// Sends a datagram.
    pub fn send(&self, datagram: &[u8]) -> Outcome {
        self.socket.send_to(datagram, self.subject)?;
        Ok(())
    }

    /// The next datagram of a kind within a time; others are thrown away.
    pub fn receive(&self, kind: Kind, limit: Duration) -> Outcome<Option<Vec<u8>>> {
        let end = Instant::now() + limit;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match receive_from(&self.socket, left)? {
                Some((datagram, _)) if kind_of(&datagram) == kind => return Ok(Some(datagram)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The next datagram of any kind within a time.
    pub fn receive_any(&self, limit: Duration) -> Outcome<Option<Vec<u8>>> {
        Ok(receive_from(&self.socket, limit)?.map(|(datagram, _)| datagram))
    }

    /// Throws away what has come so far.
    pub fn forget_received(&self) -> Outcome {
        while receive_from(&self.socket, Duration::from_millis(1))?.is_some() {}
        Ok(())
    }

    /// A whole handshake as the initiator, confirmed by a ping; the number of the session.
    pub fn connect(&mut self, psk: &str) -> Outcome<usize> {
        Self::keep_distance();
        let (message, pending) = self.initiation()?;
        self.send(&message)?;
        let session = self.finish(&pending, psk)?;
        ensure(
            self.ask(session)? == Some(session),
            "a new session does not carry a ping",
        )?;
        Ok(session)
    }

    /// Waits for the response to an initiation that was sent; the number of the session.
    pub fn finish(&mut self, pending: &InitiatorHandshake, psk: &str) -> Outcome<usize> {
        let Some(response) = self.receive(Kind::Response, ANSWER)? else {
            return fail("no response to an initiation");
        };
        let Ok(response) = <&[u8; HandshakeResponse::LEN]>::try_from(&response[..]) else {
            return fail("a response has another length");
        };
        let response = HandshakeResponse::parse(response)?;
        let psk: PresharedKey = psk.parse()?;
        let keys = pending.consume_response(&self.local, &response, &psk);
        self.add(keys.map_err(|error| Stop::Failed(format!("their response: {error}")))?)
    }

    /// Knocks: an initiation that is answered and never confirmed. Whether it was answered.
    pub fn knock(&mut self) -> Outcome<bool> {
        Self::keep_distance();
        let (message, _) = self.initiation()?;
        self.send(&message)?;
        Ok(self.receive(Kind::Response, ANSWER)?.is_some())
    }

    /// Opens an initiation of the subject: the nanoseconds of its timestamp.
    pub fn timestamp_of(&self, initiation: &[u8]) -> Outcome<u32> {
        let opened = self.open(initiation)?;
        let bytes = *opened.timestamp().as_bytes();
        let [.., a, b, c, d] = bytes;
        Ok(u32::from_be_bytes([a, b, c, d]))
    }

    /// Answers an initiation of the subject under a PSK; the number of the session.
    pub fn answer(&mut self, initiation: &[u8], psk: &str) -> Outcome<usize> {
        let opened = self.open(initiation)?;
        let index = self.next_index;
        self.next_index += 1;
        let (response, keys) = opened.respond(&psk.parse()?, &random()?, index)?;
        self.send(&response.emit())?;
        self.add(keys)
    }

    /// Answers an initiation of the subject under its PSK and waits until the subject uses the
    /// new session; the number of the session.
    pub fn accept(&mut self, initiation: &[u8], psk: &str) -> Outcome<usize> {
        let session = self.answer(initiation, psk)?;
        let end = Instant::now() + ANSWER;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let Some(data) = self.receive(Kind::TransportData, left)? else {
                break;
            };
            if self.session_of(&data) == Some(session) {
                return Ok(session);
            }
        }
        fail("a response was not accepted")
    }

    /// Pings the subject through a session and gives the number of the session of the reply.
    pub fn ask(&mut self, session: usize) -> Outcome<Option<usize>> {
        self.forget_received()?;
        let request = echo_request(self.inner);
        let mut datagram = vec![0; 16];
        datagram.extend(request);
        datagram.resize(datagram.len().next_multiple_of(16) + 16, 0);
        self.sessions[session].sealer.seal(&mut datagram)?;
        self.send(&datagram)?;
        let end = Instant::now() + ANSWER;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let Some(reply) = self.receive(Kind::TransportData, left)? else {
                break;
            };
            if let Some(session) = self.opens_as_reply(&reply) {
                return Ok(Some(session));
            }
        }
        Ok(None)
    }

    /// The number of the session that transport data of the subject belongs to.
    pub fn session_of(&self, datagram: &[u8]) -> Option<usize> {
        let index = u32::from_le_bytes(*datagram.get(4..)?.first_chunk()?);
        self.sessions
            .iter()
            .position(|session| session.local_index == index)
    }

    fn opens_as_reply(&mut self, datagram: &[u8]) -> Option<usize> {
        let number = self.session_of(datagram)?;
        let counter = u64::from_le_bytes(*datagram.get(8..)?.first_chunk()?);
        let mut sealed = datagram.get(16..)?.to_vec();
        let packet = self.sessions[number]
            .opener
            .open(counter, &mut sealed)
            .ok()?;
        // An echo reply with our identifier; the subject's own pings are requests.
        (packet.get(20) == Some(&0) && packet.get(24..26) == Some(&ECHO_ID)).then_some(number)
    }

    fn open(&self, initiation: &[u8]) -> Outcome<wiremesh_noise::AuthenticatedInitiation> {
        let Ok(initiation) = <&[u8; HandshakeInitiation::LEN]>::try_from(initiation) else {
            return fail("an initiation has another length");
        };
        let initiation = HandshakeInitiation::parse(initiation)?;
        Ok(open_initiation(&self.local, &initiation)?.authenticate(&self.remote)?)
    }

    fn add(&mut self, keys: SessionKeys) -> Outcome<usize> {
        let local_index = keys.local_index;
        let (sealer, opener) = keys.split();
        self.sessions.push(Session {
            sealer,
            opener,
            local_index,
        });
        Ok(self.sessions.len() - 1)
    }
}

const ECHO_ID: [u8; 2] = [0x27, 0x07];

fn random() -> Outcome<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// An ICMP echo request in IPv4: 20 bytes of header, 8 of ICMP, 8 of data.
fn echo_request((source, destination): (Ipv4Addr, Ipv4Addr)) -> [u8; 36] {
    let mut packet = [0; 36];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 36, 0, 1, 0, 0, 64, 1]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20] = 8;
    packet[24..26].copy_from_slice(&ECHO_ID);
    let (head, icmp) = packet.split_at_mut(20);
    let sums = (checksum(head), checksum(icmp));
    head[10..12].copy_from_slice(&sums.0.to_be_bytes());
    icmp[2..4].copy_from_slice(&sums.1.to_be_bytes());
    packet
}

/// The Internet checksum of bytes whose checksum field is still zero.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| {
        let [high, low] = [word[0], word.get(1).copied().unwrap_or(0)];
        u32::from(u16::from_be_bytes([high, low]))
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_whole_packet_is_zero() {
        let packet = echo_request((Ipv4Addr::new(10, 77, 1, 1), Ipv4Addr::new(10, 77, 1, 2)));
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(checksum(&packet[20..]), 0);
    }
}
