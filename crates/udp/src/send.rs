//! How one transmit becomes system calls, and what each refusal means.
//!
//! Owns the splitting into batches, the fall back from segmentation offload, the retry without a
//! pinned source, and the verdict. Pure: the system call is an argument, so that every refusal of
//! the operating system can be tested without provoking it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::DropReason;
use crate::batch::canonical;
use crate::errors::{blames_offload, blames_source, drop_reason};

/// Most bytes in one segmented send: the payload limit of an IPv4 datagram, which also bounds the
/// batch that a kernel segments.
const BATCH_BYTES_MAX: usize = 65_507;

/// Datagrams to one destination.
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// Where to; an IPv4-mapped address is sent as IPv4.
    pub destination: SocketAddr,
    /// Our address to send from, so that an answer leaves from where the question arrived;
    /// ignored when unspecified or of the other family. `None` leaves the choice to the system.
    pub source: Option<IpAddr>,
    /// The two ECN bits of the IP header, 0 to 3.
    pub ecn: u8,
    /// When the contents are several datagrams: the length of each but the last, which may be
    /// shorter. `None` means one datagram.
    pub segment_size: Option<usize>,
    /// The UDP payloads, one after the other. Nothing is sent when empty.
    pub contents: &'a [u8],
}

/// What a successful send did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams given to the operating system.
    pub datagrams: usize,
    /// The pinned source is no longer ours and was left out: the caller forgets it.
    pub source_rejected: bool,
}

/// Why a send did not complete.
#[derive(Debug)]
pub enum SendError {
    /// The socket's buffer is full. The first `sent_bytes` of the contents (whole segments) are
    /// sent; wait with [`crate::UdpSockets::poll_writable`] and send the rest.
    WouldBlock {
        /// How much of the contents is sent already.
        sent_bytes: usize,
    },
    /// This destination cannot be served now; counted. Other destinations are not affected.
    Dropped(DropReason),
    /// The socket itself failed; see [`crate::UdpSockets::rebind`].
    Fatal(io::Error),
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SendError::WouldBlock { .. } => f.write_str("the socket's send buffer is full"),
            SendError::Dropped(reason) => write!(f, "datagram not sent: {reason}"),
            SendError::Fatal(error) => write!(f, "UDP socket failed: {error}"),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SendError::Fatal(error) => Some(error),
            _ => None,
        }
    }
}

impl Transmit<'_> {
    /// The segment length that holds: never 0, never more than the contents.
    fn segment_bytes(&self) -> usize {
        let all = self.contents.len().max(1);
        self.segment_size
            .filter(|&size| size > 0)
            .map_or(all, |size| size.min(all))
    }

    pub(crate) fn datagram_count_from(&self, offset: usize) -> usize {
        self.contents
            .len()
            .saturating_sub(offset)
            .div_ceil(self.segment_bytes())
    }

    /// Gives the usable form of the pinned source.
    pub(crate) fn usable_source(&self, destination: SocketAddr) -> Option<IpAddr> {
        self.source
            .map(|source| source.to_canonical())
            .filter(|source| !source.is_unspecified() && source.is_ipv4() == destination.is_ipv4())
    }
}

/// Gives the canonical destination, or says that it can never work.
///
/// Checked here because the operating system answers such addresses with EINVAL, which must stay
/// what it nearly always is: a refused source or offload.
pub(crate) fn checked_destination(destination: SocketAddr) -> Result<SocketAddr, DropReason> {
    let destination = canonical(destination);
    let unscoped = match destination {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local() && v6.scope_id() == 0,
    };
    if destination.port() == 0 || destination.ip().is_unspecified() || unscoped {
        return Err(DropReason::InvalidDestination);
    }
    Ok(destination)
}

/// What one system call is asked to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub(crate) contents: &'a [u8],
    pub(crate) segment_size: Option<usize>,
    pub(crate) source: Option<IpAddr>,
}

/// Whether a socket may segment, and how much; switched off for good when it proves broken.
#[derive(Debug)]
pub(crate) struct Offload {
    enabled: AtomicBool,
    segments_max: usize,
}

impl Offload {
    pub(crate) fn new(segments_max: usize) -> Self {
        Offload {
            enabled: AtomicBool::new(segments_max > 1),
            segments_max,
        }
    }

    pub(crate) fn segments_max(&self) -> usize {
        if self.enabled.load(Relaxed) {
            self.segments_max.max(1)
        } else {
            1
        }
    }

    fn set(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }
}

/// Sends all contents through `send`, in as few calls as the offload allows.
pub(crate) fn send_all(
    transmit: &Transmit<'_>,
    source: Option<IpAddr>,
    offload: &Offload,
    mut send: impl FnMut(Chunk<'_>) -> io::Result<()>,
) -> Result<Sent, SendError> {
    let contents = transmit.contents;
    let segment = transmit.segment_bytes();
    let mut at = 0;
    let mut kept_source = source;
    // Offload is on trial after a refused batch: only a single datagram that passes convicts it.
    let mut on_trial = false;
    while at < contents.len() {
        let segments = offload.segments_max().min(BATCH_BYTES_MAX / segment).max(1);
        let end = contents.len().min(at + segments * segment);
        let batched = end - at > segment;
        let chunk = Chunk {
            contents: &contents[at..end],
            segment_size: batched.then_some(segment),
            source: kept_source,
        };
        let Err(error) = send(chunk) else {
            at = end;
            on_trial = false;
            continue;
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            acquit(offload, on_trial);
            return Err(SendError::WouldBlock { sent_bytes: at });
        }
        if kept_source.is_some() && blames_source(&error) {
            kept_source = None;
        } else if batched && blames_offload(&error) {
            offload.set(false);
            on_trial = true;
            kept_source = source;
        } else {
            acquit(offload, on_trial);
            return Err(match drop_reason(&error) {
                Some(reason) => SendError::Dropped(reason),
                None => SendError::Fatal(error),
            });
        }
    }
    Ok(Sent {
        datagrams: transmit.datagram_count_from(0),
        source_rejected: source.is_some() && kept_source.is_none(),
    })
}

fn acquit(offload: &Offload, on_trial: bool) {
    if on_trial {
        offload.set(true);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const DESTINATION: &str = "192.0.2.1:7";
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn transmit(contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        let destination = DESTINATION.parse().expect("valid address");
        Transmit {
            destination,
            source: None,
            ecn: 0,
            segment_size,
            contents,
        }
    }

    /// One system call: length, segmented, with source.
    type Call = (usize, bool, bool);

    /// Runs a send against a list of answers (0 accepts) and notes each call.
    fn run(
        contents: &[u8],
        source: Option<IpAddr>,
        offload: &Offload,
        answers: &[i32],
    ) -> (Result<Sent, SendError>, Vec<Call>) {
        let mut calls = Vec::new();
        let mut answers = answers.iter();
        let result = send_all(&transmit(contents, Some(100)), source, offload, |chunk| {
            let Chunk {
                contents,
                segment_size,
                source,
            } = chunk;
            calls.push((contents.len(), segment_size.is_some(), source.is_some()));
            match answers.next() {
                None | Some(0) => Ok(()),
                Some(&number) => Err(io::Error::from_raw_os_error(number)),
            }
        });
        (result, calls)
    }

    #[test]
    fn a_batch_goes_out_in_one_call() {
        let (result, calls) = run(&[0; 350], None, &Offload::new(64), &[]);
        assert_eq!(result.expect("accepted").datagrams, 4);
        assert_eq!(calls, [(350, true, false)]);
    }

    #[test]
    fn batches_are_split_at_the_segment_limit() {
        let (_, calls) = run(&[0; 350], None, &Offload::new(2), &[]);
        assert_eq!(calls, [(200, true, false), (150, true, false)]);
    }

    #[test]
    fn batches_are_split_at_the_size_limit() {
        let contents = vec![0; 70_000];
        let mut lengths = Vec::new();
        let sent = send_all(
            &transmit(&contents, Some(8_952)),
            None,
            &Offload::new(64),
            |chunk| {
                lengths.push(chunk.contents.len());
                Ok(())
            },
        );
        assert_eq!(lengths, [62_664, 7_336]);
        assert_eq!(sent.expect("accepted").datagrams, 8);
    }

    #[test]
    fn edges_of_the_segment_size() {
        for (length, segment, datagrams) in [
            (0, Some(10), 0),
            (1, Some(10), 1),
            (10, Some(10), 1),
            (11, Some(10), 2),
            (5, None, 1),
        ] {
            let contents = vec![0; length];
            let mut calls = 0;
            let sent = send_all(
                &transmit(&contents, segment),
                None,
                &Offload::new(64),
                |_| {
                    calls += 1;
                    Ok(())
                },
            );
            assert_eq!(sent.expect("accepted").datagrams, datagrams);
            assert_eq!(calls, usize::from(length > 0));
        }
        let zero = send_all(&transmit(&[1, 2], Some(0)), None, &Offload::new(64), |_| {
            Ok(())
        });
        assert_eq!(zero.expect("accepted").datagrams, 1);
    }

    #[test]
    fn broken_offload_falls_back_to_single_datagrams_for_good() {
        for number in [libc::EIO, libc::EINVAL] {
            let offload = Offload::new(64);
            let (result, calls) = run(&[0; 250], None, &offload, &[number]);
            assert_eq!(result.expect("accepted").datagrams, 3);
            assert_eq!(
                calls,
                [
                    (250, true, false),
                    (100, false, false),
                    (100, false, false),
                    (50, false, false)
                ]
            );
            assert_eq!(offload.segments_max(), 1);
        }
    }

    #[test]
    fn offload_survives_a_destination_that_fails_alone_too() {
        let offload = Offload::new(64);
        let (result, calls) = run(&[0; 250], None, &offload, &[libc::EINVAL, libc::EMSGSIZE]);
        assert!(matches!(
            result,
            Err(SendError::Dropped(DropReason::TooLarge))
        ));
        assert_eq!(calls.len(), 2);
        assert_eq!(offload.segments_max(), 64);
    }

    #[test]
    fn a_refused_source_is_left_out_and_reported() {
        for number in [libc::EINVAL, libc::EADDRNOTAVAIL, libc::ENETUNREACH] {
            let offload = Offload::new(64);
            let (result, calls) = run(&[0; 250], Some(SOURCE), &offload, &[number]);
            assert!(result.expect("accepted").source_rejected);
            assert_eq!(calls, [(250, true, true), (250, true, false)]);
            assert_eq!(
                offload.segments_max(),
                64,
                "a stale source says nothing about offload"
            );
        }
    }

    #[test]
    fn a_good_source_is_kept_when_offload_is_broken() {
        let offload = Offload::new(64);
        let answers = [libc::EINVAL, libc::EINVAL];
        let (result, calls) = run(&[0; 150], Some(SOURCE), &offload, &answers);
        assert!(!result.expect("accepted").source_rejected);
        assert_eq!(
            calls,
            [
                (150, true, true),
                (150, true, false),
                (100, false, true),
                (50, false, true)
            ]
        );
    }

    #[test]
    fn a_source_is_retried_once_only() {
        let answers = [libc::EADDRNOTAVAIL, libc::EADDRNOTAVAIL];
        let (result, calls) = run(&[0; 50], Some(SOURCE), &Offload::new(64), &answers);
        assert!(matches!(
            result,
            Err(SendError::Dropped(DropReason::Unreachable))
        ));
        assert_eq!(calls, [(50, false, true), (50, false, false)]);
    }

    #[test]
    fn would_block_says_how_much_is_sent() {
        let offload = Offload::new(1);
        let (result, _) = run(&[0; 350], None, &offload, &[0, 0, libc::EAGAIN]);
        assert!(matches!(
            result,
            Err(SendError::WouldBlock { sent_bytes: 200 })
        ));
    }

    #[test]
    fn per_destination_errors_are_dropped_and_others_are_fatal() {
        for number in [
            libc::ECONNREFUSED,
            libc::ENETUNREACH,
            libc::EPERM,
            libc::ENOBUFS,
        ] {
            let (result, calls) = run(&[0; 250], None, &Offload::new(64), &[number]);
            assert!(matches!(result, Err(SendError::Dropped(_))));
            assert_eq!(calls.len(), 1);
        }
        let (result, _) = run(&[0; 250], None, &Offload::new(64), &[libc::EBADF]);
        assert!(matches!(result, Err(SendError::Fatal(_))));
    }

    #[test]
    fn impossible_destinations_never_reach_the_system() {
        for (address, possible) in [
            ("192.0.2.1:7", true),
            ("[::ffff:192.0.2.1]:7", true),
            ("[fe80::1%2]:7", true),
            ("192.0.2.1:0", false),
            ("0.0.0.0:7", false),
            ("[::]:7", false),
            ("[::ffff:0.0.0.0]:7", false),
            ("[fe80::1]:7", false),
        ] {
            let address: SocketAddr = address.parse().expect("valid address");
            assert_eq!(checked_destination(address).is_ok(), possible, "{address}");
        }
    }

    #[test]
    fn a_useless_source_is_ignored() {
        let destination: SocketAddr = DESTINATION.parse().expect("valid address");
        let cases = [("192.0.2.9", true), ("0.0.0.0", false), ("::1", false)];
        for (source, used) in cases {
            let source = Some(source.parse().expect("valid address"));
            let transmit = Transmit {
                source,
                ..transmit(&[], None)
            };
            assert_eq!(
                transmit.usable_source(destination).is_some(),
                used,
                "{source:?}"
            );
        }
    }
}
