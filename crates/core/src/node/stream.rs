//! Stream packets without IP and UDP headers: who takes them, sealing and opening them.
//!
//! Owns the rule that such a packet passes only where both ends have agreed on it, beside a key, and
//! only where application data does. Never looks into QUIC beyond the first byte. docs/spec.md section 4.1.

use super::data::{HEADER_BYTES, Plaintext, TAG_BYTES};
use super::shared::Shared;
use super::{Node, NotReady, Received};
use crate::config::Path;
use crate::counters::DropReason;
use crate::peer::{Peer, PeerKey};
use crate::sessions::Slot;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Range;
use wiremesh_wire::address::{STREAM_PORT, overlay_address};
use wiremesh_wire::content::{from_bare, to_bare};
use wiremesh_wire::{Content, Now, ip};

/// The length of the datagram that [`Node::seal_stream_packet`] makes of a packet: no padding, as
/// nothing in the plaintext tells where it ends.
pub const fn sealed_stream_len(packet_len: usize) -> usize {
    HEADER_BYTES + packet_len + TAG_BYTES
}

impl Node {
    /// Whether stream packets to this peer may go without IP and UDP headers.
    pub fn takes_bare_streams(&self, key: PeerKey) -> bool {
        self.peers.peek(key).is_some_and(|peer| peer.bare_streams)
    }

    /// As [`Node::seal_packet`], for a QUIC packet from our stream port to that of the peer, which
    /// travels without IP and UDP headers.
    ///
    /// # Errors
    ///
    /// [`NotReady`]; a handshake is started when it is for want of a session and can give one.
    pub fn seal_stream_packet(
        &mut self,
        now: Now,
        key: PeerKey,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Path, NotReady> {
        self.check_clock(now);
        let Some(peer) = self.peers.of(key) else {
            return Err(NotReady::UnknownPeer);
        };
        if !peer.bare_streams {
            return Err(NotReady::BareNotAgreed);
        }
        let sealed = self.shared.seal_bare(now, peer, packet, out);
        match sealed {
            Err(NotReady::NoSession) => {
                self.shared.want_session(now, peer);
                self.shared.schedule(peer);
            }
            Err(NotReady::NoFixedBit) => self.shared.counters.drop_for(DropReason::NoFixedBit),
            _ => {}
        }
        sealed
    }
}

/// For tests: a peer that keeps no rules.
#[doc(hidden)]
impl Node {
    pub fn test_send_bare_streams(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.of(key) {
            peer.bare_streams = true;
        }
    }
}

impl Shared {
    /// Seals a stream packet for a peer that takes it bare.
    pub(super) fn seal_bare(
        &mut self,
        now: Now,
        peer: &mut Peer,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Path, NotReady> {
        let (first, rest) = packet.split_first().ok_or(NotReady::NoFixedBit)?;
        let first = to_bare(*first).ok_or(NotReady::NoFixedBit)?;
        let what = Plaintext {
            on: Slot::Current,
            len: packet.len(),
            padded_len: packet.len(),
        };
        let path = self.seal(now, peer, what, out, |plaintext| {
            plaintext[0] = first;
            plaintext[1..].copy_from_slice(rest);
            true
        })?;
        self.counters.bare_sent += 1;
        Ok(path)
    }

    /// Where in an IP packet the stream packet lies that may travel bare to this peer instead.
    pub(super) fn bare_part(&self, peer: &Peer, packet: &[u8]) -> Option<Range<usize>> {
        if !peer.bare_streams {
            return None;
        }
        let udp = ip::parse_udp(packet).ok()?;
        let to = SocketAddr::new(peer.overlay.into(), STREAM_PORT);
        if udp.destination != to || udp.source.port() != STREAM_PORT {
            return None;
        }
        let own = overlay_address(&self.local.node_id());
        let fits = packet.get(udp.payload.start).copied().and_then(to_bare);
        (udp.source.ip() == own && fits.is_some()).then_some(udp.payload)
    }

    /// Takes a bare stream packet that came on a session of this level and index; it is restored
    /// in place.
    pub(super) fn open_stream(
        &mut self,
        now: Now,
        peer: &Peer,
        on: (u8, u32),
        datagram: &mut [u8],
        packet: Range<usize>,
    ) -> Option<Received> {
        let first = &mut datagram[packet.start];
        let Some(restored) = from_bare(*first).filter(|_| peer.bare_streams) else {
            self.counters.drop_for(DropReason::BareNotAgreed);
            return None;
        };
        if !self.may_pass(now, peer, on) {
            return None;
        }
        *first = restored;
        self.counters.bare_received += 1;
        Some(Received {
            peer: peer.key,
            content: Content::Stream,
            packet,
        })
    }
}
