//! Transport data: opening what comes in, sealing what goes out.
//!
//! The path of every packet; no allocation on the way in, none on the way out when the caller
//! reuses its buffer. Source: WireGuard paper section 5.4.6.

use super::control::touches_control;
use super::shared::Shared;
use super::{Node, NotReady, Received, Rejected};
use crate::config::{Path, Routing};
use crate::counters::DropReason;
use crate::event::Event;
use crate::peer::{Peer, PeerKey};
use crate::sessions::Slot;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Range;
use wiremesh_noise::OpenError;
use wiremesh_wire::{Content, Message, Now, TransportDataHeader, ip};

/// Header before the packet.
pub(super) const HEADER_BYTES: usize = TransportDataHeader::LEN;
/// Authenticator after it.
pub(super) const TAG_BYTES: usize = 16;
/// Packets are padded to a multiple of this.
const PADDING_BYTES: usize = 16;

/// What is to be sealed: on which session, and how long without and with padding.
pub(super) struct Plaintext {
    pub(super) on: Slot,
    pub(super) len: usize,
    pub(super) padded_len: usize,
}

impl Node {
    /// Takes one UDP datagram. A data packet is decrypted where it lies and returned; everything
    /// else becomes events and transmits.
    ///
    /// Cost: one hash lookup, one AEAD and one allowed-IPs check for data. Nothing is allocated.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        path: Path,
        datagram: &mut [u8],
    ) -> Option<Received> {
        self.check_clock(now);
        match Message::parse(datagram) {
            Ok(Message::TransportData(header)) => self.open(now, path, &header, datagram),
            Ok(Message::Initiation(message)) => {
                self.handle_initiation(now, path, datagram, &message);
                None
            }
            Ok(Message::Response(message)) => {
                self.handle_response(now, path, datagram, &message);
                None
            }
            Ok(Message::CookieReply(message)) => {
                self.handle_cookie_reply(now, &message);
                None
            }
            Err(_) => {
                self.shared.counters.drop_for(DropReason::Malformed);
                None
            }
        }
    }

    fn open(
        &mut self,
        now: Now,
        path: Path,
        header: &TransportDataHeader,
        datagram: &mut [u8],
    ) -> Option<Received> {
        let shared = &mut self.shared;
        let Some(key) = shared.indices.get(&header.receiver).copied() else {
            shared.counters.drop_for(DropReason::UnknownIndex);
            return None;
        };
        let peer = self.peers.of(key)?;
        let link = peer.link.as_deref_mut()?;
        let Some((slot, session)) = link.sessions.by_index(header.receiver) else {
            shared.counters.drop_for(DropReason::UnknownIndex);
            return None;
        };
        if session.is_expired(now.instant) {
            shared.counters.drop_for(DropReason::SessionExpired);
            return None;
        }
        let plaintext_len = match session
            .opener
            .open(header.counter, &mut datagram[HEADER_BYTES..])
        {
            Ok(plaintext) => plaintext.len(),
            Err(error) => {
                shared.counters.drop_for(match error {
                    OpenError::Replayed => DropReason::Replayed,
                    OpenError::CounterTooLarge => DropReason::SessionExpired,
                    OpenError::Authentication => DropReason::Unauthenticated,
                });
                return None;
            }
        };
        let newest = session.is_newest(header.counter);
        let level = session.psk.level;
        let rekey = match slot {
            Slot::Current | Slot::Below => session.wants_rekey_on_receive(now.instant),
            Slot::Next | Slot::Previous => false,
        };
        if newest && peer.path != Some(path) {
            shared.move_endpoint(peer, path);
        }
        peer.stats.rx_bytes += datagram.len() as u64;
        peer.stats.last_received = Some(now.instant);
        // Before what was staged is sent: that is not answered yet.
        shared.on_authenticated(now, peer, plaintext_len != 0, rekey);
        if slot == Slot::Next {
            shared.confirm_next(now, peer);
        }
        if plaintext_len == 0 {
            return None;
        }
        let plaintext = HEADER_BYTES..HEADER_BYTES + plaintext_len;
        let on = (level, header.receiver);
        match Content::of(datagram.get(HEADER_BYTES)) {
            Content::Stream => shared.open_stream(now, peer, on, datagram, plaintext),
            _ => shared.open_packet(now, peer, on, datagram, plaintext),
        }
    }

    /// Seals one IP packet for `key`, appending the whole datagram to `out`, and tells where it
    /// goes. `fill` is given exactly `packet_len` bytes to write the packet to.
    ///
    /// The nonce is assigned here: what is sealed must be sent in this order, soon. Nothing is
    /// appended when the peer is not ready.
    ///
    /// # Errors
    ///
    /// [`NotReady`]; a handshake is started when it is for want of a session and can give one.
    pub fn seal_packet(
        &mut self,
        now: Now,
        key: PeerKey,
        packet_len: usize,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Path, NotReady> {
        self.check_clock(now);
        let Some(peer) = self.peers.of(key) else {
            return Err(NotReady::UnknownPeer);
        };
        let what = self.shared.padded(Slot::Current, packet_len);
        let routing = self.shared.prefixes.routing;
        let sealed = self.shared.seal(now, peer, what, out, |packet| {
            fill(packet);
            routing == Routing::AsGiven || !touches_control(packet)
        });
        match sealed {
            Err(NotReady::NoSession) => {
                self.shared.want_session(now, peer);
                self.shared.schedule(peer);
            }
            Err(NotReady::ControlOnly) => self.shared.counters.drop_for(DropReason::ControlOnly),
            _ => {}
        }
        sealed
    }

    /// Takes one IP packet, finds its peer by the destination, and queues it: sealed when a
    /// session is live, else staged until there is one, for which a handshake is started.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the packet in it; nothing has changed but that a handshake may run.
    pub fn handle_packet(&mut self, now: Now, packet: Vec<u8>) -> Result<(), Rejected> {
        self.check_clock(now);
        let Ok(header) = ip::parse(&packet) else {
            return Err(Rejected::NotIp(packet));
        };
        if self.shared.is_control(&packet) {
            self.shared.counters.drop_for(DropReason::ControlOnly);
            return Err(Rejected::NoRoute(packet));
        }
        let Some(key) = self.peer_by_address(header.destination) else {
            return Err(Rejected::NoRoute(packet));
        };
        let Some(peer) = self.peers.of(key) else {
            return Err(Rejected::NoRoute(packet));
        };
        let result = self.shared.queue_packet(now, peer, packet);
        self.shared.schedule(peer);
        result
    }
}

impl Shared {
    /// Padding hides the length, but never beyond what the tunnel's MTU lets through.
    pub(super) fn padded_len(&self, packet_len: usize) -> usize {
        let padded = packet_len.next_multiple_of(PADDING_BYTES);
        padded.min(self.mtu_bytes.max(packet_len))
    }

    pub(super) fn padded(&self, on: Slot, len: usize) -> Plaintext {
        let padded_len = self.padded_len(len);
        Plaintext {
            on,
            len,
            padded_len,
        }
    }

    /// Seals what `fill` writes with the session in this place, unless it says that it may not go.
    pub(super) fn seal(
        &mut self,
        now: Now,
        peer: &mut Peer,
        what: Plaintext,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<Path, NotReady> {
        let path = peer.path.ok_or(NotReady::NoSession)?;
        let datagram_len = HEADER_BYTES + what.padded_len + TAG_BYTES;
        let link = peer.link.as_deref_mut().ok_or(NotReady::NoSession)?;
        let session = link
            .sessions
            .sealing(what.on)
            .filter(|s| !s.is_expired(now.instant))
            .ok_or(NotReady::NoSession)?;
        let start = out.len();
        out.resize(start + datagram_len, 0);
        let datagram = &mut out[start..];
        if !fill(&mut datagram[HEADER_BYTES..HEADER_BYTES + what.len]) {
            out.truncate(start);
            return Err(NotReady::ControlOnly);
        }
        if session.sealer.seal(datagram).is_err() {
            out.truncate(start);
            return Err(NotReady::NoSession);
        }
        let rekey = session.wants_rekey_on_send(now.instant);
        link.timers.on_sent();
        let armed = what.len != 0 && link.timers.no_answer.is_none();
        if armed {
            link.timers.on_data_sent(now.instant, &mut self.jitter);
        }
        peer.stats.tx_bytes += datagram_len as u64;
        peer.on_traversal(now.instant);
        if rekey {
            self.initiate(now, peer);
        }
        if armed || rekey {
            self.schedule(peer);
        }
        Ok(path)
    }

    fn queue_packet(&mut self, now: Now, peer: &mut Peer, packet: Vec<u8>) -> Result<(), Rejected> {
        if self.has_data_session(now, peer) {
            if self.transmits.len() >= self.limits.transmits_max {
                self.counters.drop_for(DropReason::LimitReached);
                return Err(Rejected::QueueFull(packet));
            }
            let mut datagram = Vec::with_capacity(packet.len() + 64);
            let (sealed, ecn) = match self.bare_part(peer, &packet) {
                Some(bare) => {
                    let sealed = self.seal_bare(now, peer, &packet[bare], &mut datagram);
                    (sealed, ip::ecn(&packet))
                }
                None => {
                    let what = self.padded(Slot::Current, packet.len());
                    let fill = |out: &mut [u8]| {
                        out.copy_from_slice(&packet);
                        true
                    };
                    (self.seal(now, peer, what, &mut datagram, fill), 0)
                }
            };
            if let Ok(path) = sealed {
                self.push_marked(path, datagram, ecn);
                return Ok(());
            }
        }
        let staged = match peer.link().staged.len() < self.limits.staged_packets_max {
            true => self.staging.stage(packet),
            false => Err(packet),
        };
        // Also for want of room: what is offered next may find the session there.
        self.want_session(now, peer);
        match staged {
            Ok(staged) => {
                peer.link().staged.push_back((now.instant, staged));
                Ok(())
            }
            Err(packet) => {
                self.counters.drop_for(DropReason::StagedFull);
                Err(Rejected::QueueFull(packet))
            }
        }
    }

    /// Seals what waited for a session; `false` if nothing did, or it goes on waiting.
    pub(super) fn flush_staged(&mut self, now: Now, peer: &mut Peer) -> bool {
        if !self.has_data_session(now, peer) {
            if !peer.link().staged.is_empty() {
                self.want_session(now, peer);
            }
            return false;
        }
        let staged = core::mem::take(&mut peer.link().staged);
        let any = !staged.is_empty();
        for (_, packet) in staged {
            // A full transmit queue stops here, and counts; the packets in it are on their way.
            let _ = self.queue_packet(now, peer, packet.into_packet());
        }
        any
    }

    /// Sends an empty packet on the youngest session, or starts a handshake if there is none.
    pub(super) fn send_keepalive(&mut self, now: Now, peer: &mut Peer) {
        let link = peer.link.as_deref();
        let on = link.and_then(|link| link.sessions.youngest(now.instant));
        self.send_keepalive_on(now, peer, on.unwrap_or(Slot::Current));
    }

    /// Sends an empty packet on this session, or starts a handshake if that is not possible.
    pub(super) fn send_keepalive_on(&mut self, now: Now, peer: &mut Peer, on: Slot) {
        let mut datagram = Vec::with_capacity(HEADER_BYTES + TAG_BYTES);
        let what = self.padded(on, 0);
        match self.seal(now, peer, what, &mut datagram, |_| true) {
            Ok(path) => {
                self.push_transmit(path, datagram);
            }
            Err(_) => self.initiate(now, peer),
        }
    }

    fn move_endpoint(&mut self, peer: &mut Peer, path: Path) {
        let moved = peer.path.map(|old| old.remote) != Some(path.remote);
        peer.path = Some(path);
        if moved {
            self.push_event(Event::EndpointChanged {
                peer: peer.key,
                path,
            });
        }
    }

    /// The peer has shown that it holds the keys of the session that we made as responder.
    fn confirm_next(&mut self, now: Now, peer: &mut Peer) {
        let link = peer.link.get_or_insert_default();
        let confirmed = link.sessions.confirm_next(peer.gate, |index| {
            self.indices.remove(&index);
        });
        let Some(made_with) = confirmed else {
            return;
        };
        if link.pending.is_none() {
            // An attempt that could send nothing (no endpoint) has found its session this way.
            link.attempt_began = None;
        }
        peer.confirm_stranger(now.instant);
        peer.stats.last_handshake = Some(now.unix);
        peer.stats.gave_up = false;
        self.counters.handshakes += 1;
        if made_with.level >= peer.gate {
            self.push_event(Event::SessionEstablished {
                peer: peer.key,
                initiator: false,
                handshake_time: None,
            });
        }
        self.on_session_usable(now, peer, made_with);
        self.flush_staged(now, peer);
    }

    fn on_authenticated(&mut self, now: Now, peer: &mut Peer, is_data: bool, rekey: bool) {
        let link = peer.link.get_or_insert_default();
        link.timers.on_received();
        let armed = is_data && link.timers.passive_keepalive.is_none();
        if is_data {
            link.timers.on_data_received(now.instant);
        }
        peer.on_traversal(now.instant);
        if rekey {
            self.initiate(now, peer);
        }
        if armed || rekey {
            self.schedule(peer);
        }
    }

    /// Whether a packet is from or to a control address, where that has a meaning.
    fn is_control(&self, packet: &[u8]) -> bool {
        self.prefixes.routing == Routing::Overlay && touches_control(packet)
    }

    /// Takes an IP packet that came on a session of this level and index.
    fn open_packet(
        &mut self,
        now: Now,
        peer: &mut Peer,
        on: (u8, u32),
        datagram: &[u8],
        plaintext: Range<usize>,
    ) -> Option<Received> {
        let packet = self.check_source(peer, datagram, plaintext)?;
        if self.is_control(&datagram[packet.clone()]) {
            self.open_control(now, peer, &datagram[packet]);
            return None;
        }
        self.may_pass(now, peer, on).then_some(Received {
            peer: peer.key,
            content: Content::Packet,
            packet,
        })
    }

    /// Cryptokey routing: the packet without its padding, if its source belongs to the peer.
    fn check_source(
        &mut self,
        peer: &Peer,
        datagram: &[u8],
        packet: Range<usize>,
    ) -> Option<Range<usize>> {
        let Ok(header) = ip::parse(&datagram[packet.clone()]) else {
            self.counters.drop_for(DropReason::NotIp);
            return None;
        };
        let overlay = self.prefixes.routing == Routing::Overlay;
        let own = overlay && header.source == IpAddr::V6(peer.overlay);
        if !own && self.prefixes.lookup(header.source) != Some(peer.key) {
            self.counters.drop_for(DropReason::SourceNotAllowed);
            return None;
        }
        Some(packet.start..packet.start + header.total_len)
    }
}
