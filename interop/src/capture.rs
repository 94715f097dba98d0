//! What goes over the link, seen by `tcpdump`: the WireGuard messages with time and direction.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::outcome::{Outcome, fail, wait_for};
use crate::place::Place;
use crate::process::Running;
use crate::programs::scratch_file;

/// The message types of WireGuard v1 (docs/spec.md, message formats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Handshake initiation, 148 bytes.
    Initiation,
    /// Handshake response, 92 bytes.
    Response,
    /// Cookie reply, 64 bytes.
    CookieReply,
    /// Transport data, 32 bytes or more.
    TransportData,
    /// A UDP datagram that is none of these.
    Other,
}

/// One UDP datagram as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since the epoch.
    pub at: Duration,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// The first bytes of the payload; handshake messages are whole.
    pub payload: Vec<u8>,
}

impl Seen {
    /// The message type.
    pub fn kind(&self) -> Kind {
        kind_of(&self.payload)
    }

    /// Whether an initiation or a response carries a mac2, the proof that the sender had a cookie.
    pub fn has_mac2(&self) -> bool {
        matches!(self.kind(), Kind::Initiation | Kind::Response)
            && self.payload[self.payload.len() - 16..] != [0; 16]
    }
}

/// The message type of a datagram.
pub fn kind_of(datagram: &[u8]) -> Kind {
    match (datagram.first_chunk::<4>(), datagram.len()) {
        (Some([1, 0, 0, 0]), 148) => Kind::Initiation,
        (Some([2, 0, 0, 0]), 92) => Kind::Response,
        (Some([3, 0, 0, 0]), 64) => Kind::CookieReply,
        (Some([4, 0, 0, 0]), 32..) => Kind::TransportData,
        _ => Kind::Other,
    }
}

/// A running capture on `link0`; ended on drop.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    tcpdump: Running,
}

impl Capture {
    /// Starts to capture UDP on the link of a namespace.
    pub fn start(place: &Place) -> Outcome<Self> {
        let file = scratch_file("capture")?;
        let path = file.to_string_lossy().into_owned();
        let words = [
            "-i",
            "link0",
            "-U",
            "-Z",
            "root",
            "--immediate-mode",
            "-s",
            "300",
            "-w",
        ];
        let words: Vec<&str> = words.into_iter().chain([path.as_str(), "udp"]).collect();
        let Some(mut command) = place.daemon("tcpdump", &words) else {
            return fail("captures are made on the host's side of the link");
        };
        let tcpdump = Running::start(&mut command, &scratch_file("tcpdump-log")?)?;
        let ready = || tcpdump.log_text().contains("listening on").then_some(());
        wait_for("tcpdump", Duration::from_secs(10), ready)?;
        Ok(Self { file, tcpdump })
    }

    /// Everything that was seen so far.
    pub fn seen(&self) -> Outcome<Vec<Seen>> {
        // tcpdump writes each packet as it comes (-U); a moment for the last one.
        std::thread::sleep(Duration::from_millis(200));
        match parse_file(&std::fs::read(&self.file)?) {
            Some(seen) => Ok(seen),
            None => fail(format!("unreadable capture: {}", self.tcpdump.log_text())),
        }
    }

    /// What was seen so far with one UDP port at either end.
    pub fn seen_with_port(&self, port: u16) -> Outcome<Vec<Seen>> {
        let mut seen = self.seen()?;
        seen.retain(|one| one.source.port() == port || one.destination.port() == port);
        Ok(seen)
    }
}

/// Reads a pcap file in this machine's byte order: microseconds, Ethernet.
fn parse_file(bytes: &[u8]) -> Option<Vec<Seen>> {
    let (head, mut rest) = bytes.split_at_checked(24)?;
    if head[..4] != 0xa1b2_c3d4_u32.to_ne_bytes() || u32_at(head, 20)? != 1 {
        return None;
    }
    let mut seen = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(16) {
        let Some((frame, after)) = after.split_at_checked(u32_at(record, 8)? as usize) else {
            break; // the last one is still being written
        };
        let at = Duration::new(u64::from(u32_at(record, 0)?), u32_at(record, 4)? * 1000);
        seen.extend(parse_frame(at, frame));
        rest = after;
    }
    Some(seen)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn parse_frame(at: Duration, frame: &[u8]) -> Option<Seen> {
    let packet = frame.get(14..)?;
    let (source, destination, udp): (IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let address = |at: usize| -> Option<IpAddr> {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?).into())
            };
            let header_len = usize::from(packet.first()? & 15) * 4;
            (address(12)?, address(16)?, packet.get(header_len..)?)
        }
        [0x86, 0xdd] => {
            let address = |at: usize| -> Option<IpAddr> {
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).into())
            };
            (address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?));
    let (source, destination) = (
        SocketAddr::new(source, port(0)?),
        SocketAddr::new(destination, port(2)?),
    );
    Some(Seen {
        at,
        source,
        destination,
        payload: udp.get(8..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_with(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45]);
        frame.extend([0; 11]);
        frame.extend([10, 99, 0, 1, 10, 99, 0, 2]);
        frame.extend(51820_u16.to_be_bytes());
        frame.extend(51821_u16.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn messages_are_read_back_from_a_file_and_a_cut_record_is_left_out() {
        let mut initiation = vec![1, 0, 0, 0];
        initiation.resize(148, 7);
        let frame = frame_with(&initiation);
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0, 0, 0, 300, 1] {
            file.extend(word.to_ne_bytes());
        }
        for word in [17_u32, 5, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(&frame);
        file.extend([1; 20]);
        let seen = parse_file(&file).expect("the file is well formed");
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].kind(), Kind::Initiation);
        assert!(seen[0].has_mac2());
        assert_eq!(seen[0].at, Duration::new(17, 5000));
        assert_eq!(
            seen[0].source,
            "10.99.0.1:51820".parse().expect("an address")
        );
        assert_eq!(
            seen[0].destination,
            "10.99.0.2:51821".parse().expect("an address")
        );
    }

    #[test]
    fn a_message_of_the_wrong_length_is_no_message() {
        for (kind, len) in [(1, 147), (2, 93), (3, 63), (4, 31), (0, 148), (5, 148)] {
            let mut payload = vec![kind, 0, 0, 0];
            payload.resize(len, 0);
            let seen = parse_frame(Duration::ZERO, &frame_with(&payload)).expect("a frame");
            assert_eq!(seen.kind(), Kind::Other);
            assert!(!seen.has_mac2());
        }
    }
}
