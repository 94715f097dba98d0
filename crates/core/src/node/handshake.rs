//! Handshake messages: sending initiations and responses, receiving all three kinds.
//!
//! Order of cost for what comes in: `mac1` (one hash), cookie (one hash), then curve operations.
//! Failed validation changes no state. Source: WireGuard paper sections 5.3 and 5.4.

use super::shared::Shared;
use super::{Node, Peers};
use crate::config::Path;
use crate::counters::DropReason;
use crate::event::{Event, HandshakeFailure};
use crate::peer::{Peer, PeerKey, PendingHandshake};
use crate::psk_slots::{PskSlot, PskTag};
use crate::sessions::{Session, Slot};
use crate::timers::JITTER_MAX;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use wiremesh_noise::constants::REKEY_TIMEOUT;
use wiremesh_noise::{
    AuthenticatedInitiation, SessionKeys, create_initiation, open_initiation_from, set_mac2,
    verify_mac1,
};
use wiremesh_wire::{CookieReply, HandshakeInitiation, HandshakeResponse, Now, PresharedKey};

/// Least time between two initiations to one peer: the Linux implementation rounds timestamps to
/// 16.8 ms and accepts 50 initiations a second from one peer.
pub(super) const INITIATIONS_APART: Duration = Duration::from_millis(40);

/// Least time between two initiations of one peer that we answer.
const INITIATIONS_ACCEPTED_APART: Duration = Duration::from_millis(20);

/// Data that had no answer for this long makes an initiation go to the other candidates as well: a
/// peer that was restarted elsewhere does not know the session that we still have.
const DOUBTED_AFTER: Duration = Duration::from_millis(400);

/// Where a pending handshake or session is found by its index.
enum Found {
    Pending,
    Session(Slot),
}

impl Shared {
    /// Whether there is a session to seal data with.
    pub(super) fn has_data_session(&self, now: Now, peer: &Peer) -> bool {
        peer.link
            .as_ref()
            .and_then(|link| link.sessions.peek_current())
            .is_some_and(|session| !session.is_expired(now.instant))
    }

    /// Whether there is a session to seal anything with, be it only control packets.
    pub(super) fn has_live_session(&self, now: Now, peer: &Peer) -> bool {
        peer.link
            .as_ref()
            .is_some_and(|link| link.sessions.in_use(now.instant).is_some())
    }

    /// Whether the peer may be elsewhere: no session, or one on which nothing comes back.
    fn is_endpoint_doubtful(&self, now: Now, peer: &Peer) -> bool {
        let unanswered = peer
            .link
            .as_ref()
            .and_then(|link| link.timers.unanswered_since);
        !self.has_live_session(now, peer)
            || unanswered.is_some_and(|at| now.instant.saturating_since(at) >= DOUBTED_AFTER)
    }

    /// Starts a handshake unless one is under way. With a live session, not within
    /// `REKEY_TIMEOUT` of the last initiation; without one, as soon as 40 ms allow.
    pub(super) fn initiate(&mut self, now: Now, peer: &mut Peer) {
        let recently = peer
            .last_initiation_sent
            .is_some_and(|at| now.instant.saturating_since(at) < REKEY_TIMEOUT);
        if recently && self.has_live_session(now, peer) {
            return;
        }
        self.initiate_soon(now, peer);
    }

    /// Starts a handshake unless one is under way, at once or when 40 ms have passed.
    pub(super) fn initiate_soon(&mut self, now: Now, peer: &mut Peer) {
        if peer.link().pending.is_some() {
            return;
        }
        peer.link().attempt_began.get_or_insert(now.instant);
        let earliest = peer.last_initiation_sent.map(|at| at + INITIATIONS_APART);
        match earliest {
            Some(at) if now.instant < at => peer.link().timers.deferred_initiation = Some(at),
            _ => self.send_initiation(now, peer),
        }
    }

    /// Sends an initiation now; an earlier one that waits for its response is given up.
    pub(super) fn send_initiation(&mut self, now: Now, peer: &mut Peer) {
        let Some(path) = peer.path else {
            self.push_event(Event::HandshakeFailed {
                peer: peer.key,
                failure: HandshakeFailure::NoEndpoint,
            });
            return;
        };
        if let Some(old) = peer.link().pending.take() {
            self.indices.remove(&old.local_index);
        }
        let local_index = self.bind_index(now, peer.key);
        let ephemeral = self.drbg.draw32(now);
        let timestamp = self.next_timestamp(now);
        let (message, state) = create_initiation(
            &self.local,
            peer.remote.identity(&self.local),
            *ephemeral,
            local_index,
            timestamp,
        );
        let mut datagram = message.emit().to_vec();
        let link = peer.link.get_or_insert_default();
        if let Some(cookie) = link.cookie.cookie(now.instant) {
            set_mac2(&mut datagram, &cookie);
        }
        link.cookie.on_sent(&message.mac1);
        let retry_at = now.instant + REKEY_TIMEOUT + self.jitter.up_to(JITTER_MAX);
        link.pending = Some(Box::new(PendingHandshake {
            state,
            local_index,
            sent_at: now.instant,
            retry_at,
        }));
        link.attempt_began.get_or_insert(now.instant);
        link.timers.deferred_initiation = None;
        peer.last_initiation_sent = Some(now.instant);
        peer.stats.tx_bytes += HandshakeInitiation::LEN as u64;
        peer.on_traversal(now.instant);
        if self.is_endpoint_doubtful(now, peer) {
            for candidate in peer.candidates.iter().filter(|c| **c != path.remote) {
                self.push_transmit(Path::to(*candidate), datagram.clone());
            }
        }
        self.push_transmit(path, datagram);
    }

    /// Answers an authenticated, fresh initiation. The answer goes to where it came from; the
    /// endpoint moves only when data follows on the new session, even where none was known: an
    /// initiation may be a replay of one that we never saw.
    pub(super) fn accept_initiation(
        &mut self,
        now: Now,
        path: Path,
        peer: &mut Peer,
        initiation: &AuthenticatedInitiation,
    ) {
        let local_index = self.bind_index(now, peer.key);
        let ephemeral = self.drbg.draw32(now);
        let not_taken_up = peer
            .link
            .as_ref()
            .and_then(|link| link.sessions.not_taken_up(now.instant));
        let slot = peer.psks.to_answer_with(not_taken_up);
        let answer = initiation.respond(&slot.psk, &ephemeral, local_index);
        let Ok((message, keys)) = answer else {
            self.indices.remove(&local_index);
            self.counters.drop_for(DropReason::HandshakeInvalid);
            return self.schedule(peer);
        };
        peer.greatest_timestamp = Some(initiation.timestamp());
        peer.last_initiation_received = Some(now.instant);
        peer.expects_initiation = false;
        let session = Session::new(keys, now.instant, slot.tag);
        let link = peer.link.get_or_insert_default();
        link.sessions.add(session, false, peer.gate, |index| {
            self.indices.remove(&index);
        });
        let mut datagram = message.emit().to_vec();
        if let Some(cookie) = link.cookie.cookie(now.instant) {
            set_mac2(&mut datagram, &cookie);
        }
        link.cookie.on_sent(&message.mac1);
        peer.stats.rx_bytes += HandshakeInitiation::LEN as u64;
        peer.stats.tx_bytes += HandshakeResponse::LEN as u64;
        peer.stats.last_received = Some(now.instant);
        peer.on_traversal(now.instant);
        self.push_transmit(path, datagram);
        self.schedule(peer);
    }

    /// The peer has answered our initiation: the session is usable at once.
    fn complete(
        &mut self,
        now: Now,
        path: Path,
        peer: &mut Peer,
        keys: SessionKeys,
        made_with: PskTag,
    ) {
        let link = peer.link.get_or_insert_default();
        let Some(pending) = link.pending.take() else {
            return;
        };
        let handshake_time = now.instant.saturating_since(pending.sent_at);
        let index = keys.local_index;
        self.indices.insert(index, peer.key);
        link.attempt_began = None;
        link.timers.deferred_initiation = None;
        link.timers.on_received();
        // Of two handshakes that crossed, the one of the smaller node id wins on both sides.
        let peers_wins = peer.remote.node_id() < self.local.node_id();
        let session = Session::new(keys, now.instant, made_with);
        link.sessions.add(session, peers_wins, peer.gate, |index| {
            self.indices.remove(&index);
        });
        peer.path = Some(path);
        peer.confirm_stranger(now.instant);
        peer.stats.rx_bytes += HandshakeResponse::LEN as u64;
        peer.stats.last_handshake = Some(now.unix);
        peer.stats.last_handshake_time = Some(handshake_time);
        peer.stats.last_received = Some(now.instant);
        peer.stats.gave_up = false;
        peer.on_traversal(now.instant);
        self.counters.handshakes += 1;
        if made_with.level >= peer.gate {
            self.push_event(Event::SessionEstablished {
                peer: peer.key,
                initiator: true,
                handshake_time: Some(handshake_time),
            });
        }
        self.on_session_usable(now, peer, made_with);
        // The responder may use the session only after our first data: send some now.
        let flushed = self.flush_staged(now, peer);
        match peer.link().sessions.unused(index) {
            Some(Slot::Current) if flushed => {}
            Some(slot) => self.send_keepalive_on(now, peer, slot),
            None => {}
        }
        self.schedule(peer);
    }

    /// Whether a handshake message may go on: `mac1`, then under load cookie and rate.
    fn admit_message(
        &mut self,
        now: Now,
        path: Path,
        bytes: &[u8],
        (sender, mac1): (u32, &[u8; 16]),
    ) -> bool {
        if !verify_mac1(&self.local, bytes) {
            self.counters.drop_for(DropReason::Mac1);
            return false;
        }
        if !self.load.on_handshake_message(now.instant) {
            return true;
        }
        if self.cookies.needs_secret(now.instant) {
            let secret = *self.drbg.draw32(now);
            self.cookies.renew_secret(secret, now.instant);
        }
        if self.cookies.verify_mac2(bytes, path.remote, now.instant) {
            if self.load.allow_source(now.instant, path.remote.ip()) {
                return true;
            }
            self.counters.drop_for(DropReason::RateLimited);
            return false;
        }
        let nonce = self.drbg.draw24(now);
        let reply = self.cookies.make_reply(sender, nonce, mac1, path.remote);
        self.counters.drop_for(DropReason::CookieDemanded);
        if self.push_transmit(path, reply.emit().to_vec()) {
            self.counters.cookies_sent += 1;
        }
        false
    }

    fn find(&mut self, peers: &Peers, index: u32) -> Option<(PeerKey, Found)> {
        let key = *self.indices.get(&index)?;
        let link = peers.peek(key)?.link.as_deref()?;
        if link
            .pending
            .as_ref()
            .is_some_and(|pending| pending.local_index == index)
        {
            return Some((key, Found::Pending));
        }
        link.sessions
            .slot_of(index)
            .map(|slot| (key, Found::Session(slot)))
    }
}

impl Node {
    pub(super) fn handle_initiation(
        &mut self,
        now: Now,
        path: Path,
        bytes: &[u8],
        message: &HandshakeInitiation,
    ) {
        if !self
            .shared
            .admit_message(now, path, bytes, (message.sender, &message.mac1))
        {
            return;
        }
        // The key of a peer was checked when it became one, which costs a tenth of all this.
        let checked = |bytes: &[u8; 32]| self.peers.checked_id(bytes);
        let opened = open_initiation_from(&self.shared.local, message, checked);
        let Ok(opened) = opened else {
            return self.shared.counters.drop_for(DropReason::HandshakeInvalid);
        };
        let known = self.peers.key_of(&opened.peer());
        let Some(peer) = known.and_then(|key| self.peers.of(key)) else {
            return self.handle_stranger(now, path, opened);
        };
        let Ok(initiation) = opened.authenticate(peer.remote.identity(&self.shared.local)) else {
            return self.shared.counters.drop_for(DropReason::HandshakeInvalid);
        };
        if peer
            .greatest_timestamp
            .is_some_and(|greatest| initiation.timestamp() <= greatest)
        {
            return self.shared.counters.drop_for(DropReason::HandshakeReplayed);
        }
        let too_soon = |at| now.instant.saturating_since(at) < INITIATIONS_ACCEPTED_APART;
        if peer.last_initiation_received.is_some_and(too_soon) && !peer.expects_initiation {
            return self.shared.counters.drop_for(DropReason::HandshakeFlood);
        }
        self.shared.accept_initiation(now, path, peer, &initiation);
    }

    pub(super) fn handle_response(
        &mut self,
        now: Now,
        path: Path,
        bytes: &[u8],
        message: &HandshakeResponse,
    ) {
        if !self
            .shared
            .admit_message(now, path, bytes, (message.sender, &message.mac1))
        {
            return;
        }
        let Some((key, Found::Pending)) = self.shared.find(&self.peers, message.receiver) else {
            return self.shared.counters.drop_for(DropReason::UnknownIndex);
        };
        let Some(peer) = self.peers.of(key) else {
            return;
        };
        let Some(pending) = peer.link.as_ref().and_then(|link| link.pending.as_ref()) else {
            return;
        };
        let slots: Vec<&PskSlot> = peer.psks.in_order().collect();
        let psks: Vec<&PresharedKey> = slots.iter().map(|slot| &slot.psk).collect();
        let answer = pending
            .state
            .consume_response_any(&self.shared.local, message, &psks);
        let Ok((place, keys)) = answer else {
            // The pending handshake stays: anyone can send a bad response.
            self.shared.counters.drop_for(DropReason::HandshakeInvalid);
            return self.shared.retry_soon(now, peer);
        };
        let made_with = slots[place].tag;
        self.shared.complete(now, path, peer, keys, made_with);
    }

    pub(super) fn handle_cookie_reply(&mut self, now: Now, message: &CookieReply) {
        let found = self.shared.find(&self.peers, message.receiver);
        let handshake = matches!(
            found,
            Some((_, Found::Pending | Found::Session(Slot::Next)))
        );
        let Some((key, _)) = found.filter(|_| handshake) else {
            return self.shared.counters.drop_for(DropReason::UnknownIndex);
        };
        let Some(peer) = self.peers.of(key) else {
            return;
        };
        let Some(link) = peer.link.as_deref_mut() else {
            return;
        };
        let remote = peer.remote.identity(&self.shared.local);
        if link
            .cookie
            .consume_reply(message, remote, now.instant)
            .is_err()
        {
            self.shared.counters.drop_for(DropReason::CookieInvalid);
        }
    }
}
