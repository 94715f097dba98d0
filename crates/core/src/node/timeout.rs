//! What happens when a deadline of a peer is due.
//!
//! Source: WireGuard paper section 6.

use super::Node;
use super::shared::Shared;
use crate::counters::DropReason;
use crate::event::{Event, HandshakeFailure};
use crate::peer::{Peer, PeerKey, Provisional};
use alloc::vec::Vec;
use wiremesh_control::machine::Machine;
use wiremesh_noise::constants::REKEY_ATTEMPT_TIME;
use wiremesh_wire::Now;

/// What is left of a peer after its deadlines.
enum Left {
    Stays,
    Goes,
}

impl Node {
    /// Does everything that is due at `now`. Calling it early or twice does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        self.check_clock(now);
        let mut due: Vec<(PeerKey, u64)> = Vec::new();
        self.shared
            .wheel
            .expire(now.instant, |peer, tick| due.push((peer, tick)));
        for (key, tick) in due {
            // An entry that an earlier one superseded would otherwise be renewed for ever.
            let Some(peer) = self
                .peers
                .of(key)
                .filter(|peer| peer.scheduled == Some(tick))
            else {
                continue;
            };
            peer.scheduled = None;
            if let Left::Goes = self.shared.run_deadlines(now, peer) {
                let node_id = peer.remote.node_id();
                self.remove_peer(key);
                self.shared
                    .push_event(Event::PeerForgotten { peer: key, node_id });
            } else {
                self.shared.schedule(peer);
            }
        }
        self.expire_admissions(now);
        self.settle_strangers();
    }

    /// Ends all sessions when the wall clock stepped forward: this may be a restored snapshot,
    /// whose nonces were used once already.
    pub(super) fn check_clock(&mut self, now: Now) {
        if !self.shared.clock.stepped(now) {
            return;
        }
        self.shared.renew_record(now);
        let keys: Vec<PeerKey> = self.peers().collect();
        for key in keys {
            let Some(peer) = self.peers.of(key) else {
                continue;
            };
            let Some(link) = peer.link.as_deref_mut() else {
                continue;
            };
            let had_any = !link.sessions.is_empty();
            let had_session = link.sessions.reach(peer.gate);
            let wanted = link.attempt_began.is_some();
            let staged = core::mem::take(&mut link.staged);
            self.shared.drop_link(peer);
            if had_session {
                self.shared.push_event(Event::SessionLost { peer: key });
            }
            if had_any {
                self.shared.on_links_gone(now, peer);
            }
            if peer.provisional.is_some() {
                let node_id = peer.remote.node_id();
                self.remove_peer(key);
                self.shared
                    .push_event(Event::PeerForgotten { peer: key, node_id });
            } else if wanted || !staged.is_empty() {
                peer.link().staged = staged;
                self.shared.initiate_soon(now, peer);
                self.shared.schedule(peer);
            }
        }
        self.shared.push_event(Event::ClockStepped);
    }
}

impl Shared {
    fn run_deadlines(&mut self, now: Now, peer: &mut Peer) -> Left {
        self.retry_or_give_up(now, peer);
        self.expire_sessions(now, peer);
        self.expire_staged(now, peer);
        let unconfirmed_too_long = matches!(peer.provisional,
            Some(Provisional::UnconfirmedUntil(at) | Provisional::Unproven(at))
                if now.instant >= at);
        if unconfirmed_too_long || (peer.provisional.is_some() && peer.link.is_none()) {
            return Left::Goes;
        }
        if let Some(link) = &mut peer.link {
            let keepalive = link.timers.take_passive_keepalive(now.instant);
            let no_answer = link.timers.take_no_answer(now.instant);
            let deferred = link.timers.take_deferred_initiation(now.instant);
            if keepalive && self.has_live_session(now, peer) {
                self.send_keepalive(now, peer);
            }
            if no_answer {
                forget_local(peer);
                self.initiate(now, peer);
            }
            if deferred {
                // One that is under way is answered, but under no key of ours.
                match peer.link().pending {
                    Some(_) => self.send_initiation(now, peer),
                    None => self.initiate_soon(now, peer),
                }
            }
        }
        let due = |machine: &Machine| machine.next_deadline().is_some_and(|at| now.instant >= at);
        if peer.machine.as_deref().is_some_and(due) {
            self.run_machine(now, peer, |machine, cx| machine.handle_timeout(cx));
        }
        if peer.persistent_due.is_some_and(|at| now.instant >= at) {
            peer.on_traversal(now.instant);
            if peer.path.is_some() {
                self.send_keepalive(now, peer);
            }
        }
        peer.trim();
        Left::Stays
    }

    fn retry_or_give_up(&mut self, now: Now, peer: &mut Peer) {
        let Some(link) = peer.link.as_deref_mut() else {
            return;
        };
        let Some(began) = link.attempt_began else {
            return;
        };
        if now.instant.saturating_since(began) >= REKEY_ATTEMPT_TIME {
            let answer_lost = link.pending.take();
            if let Some(pending) = &answer_lost {
                self.indices.remove(&pending.local_index);
            }
            link.attempt_began = None;
            link.timers.deferred_initiation = None;
            let staged = link.staged.len();
            link.staged
                .retain(|(since, _)| now.instant.saturating_since(*since) < REKEY_ATTEMPT_TIME);
            let left = link.staged.len();
            (left..staged).for_each(|_| self.counters.drop_for(DropReason::NoAnswer));
            peer.stats.gave_up = true;
            let failure = match peer.path {
                Some(_) => HandshakeFailure::NoAnswer,
                None => HandshakeFailure::NoEndpoint,
            };
            self.push_event(Event::HandshakeFailed {
                peer: peer.key,
                failure,
            });
            // Packets that came later have their own time to wait (paper, section 6.4).
            if left != 0 {
                peer.link().attempt_began = Some(now.instant);
                if peer.path.is_some() {
                    self.send_initiation(now, peer);
                }
            }
        } else if link
            .pending
            .as_ref()
            .is_some_and(|pending| now.instant >= pending.retry_at)
        {
            forget_local(peer);
            self.send_initiation(now, peer);
        }
    }

    fn expire_sessions(&mut self, now: Now, peer: &mut Peer) {
        let Some(link) = peer.link.as_deref_mut() else {
            return;
        };
        if link.sessions.is_empty() {
            return;
        }
        let had_session = link.sessions.reach(peer.gate);
        link.sessions.expire(now.instant, false, |index| {
            self.indices.remove(&index);
        });
        link.sessions.promote(peer.gate);
        if had_session && !link.sessions.reach(peer.gate) {
            self.push_event(Event::SessionLost { peer: peer.key });
            if !link.sessions.is_empty() {
                return self.on_open_session_gone(now, peer);
            }
        }
        if link.sessions.is_empty() {
            link.timers.passive_keepalive = None;
            link.timers.no_answer = None;
            let waiting = !link.staged.is_empty() && link.attempt_began.is_none();
            self.on_links_gone(now, peer);
            if waiting {
                self.initiate(now, peer);
            }
            peer.trim();
        }
    }
}

/// The address of ours that the peer used may be the reason for the silence.
fn forget_local(peer: &mut Peer) {
    if let Some(path) = &mut peer.path {
        path.local = None;
    }
}
