//! The kernel's figures as they come in, and what follows from time alone.
//!
//! Owns who of the peers is given which figures: a removed peer's late ones are nobody's, and those
//! that were read before a peer was added anew say nothing of it.

use super::peer::{Peer, Stale};
use super::shared::Shared;
use super::{KernelFigures, KernelNode};
use crate::config::Path;
use crate::event::{Event, HandshakeFailure};
use core::time::Duration;
use wiremesh_control::kernel::{KernelPeer, KernelView};
use wiremesh_wire::address::ALL_NET;
use wiremesh_wire::{NodeId, Now};

/// How often the figures are read where no agreement wants them sooner.
const READ_EVERY: Duration = Duration::from_secs(1);

impl KernelNode {
    /// Does everything that is due at `now`. Calling it early or twice does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        self.check_clock(now);
        self.shared.renew_record(now, false);
        if self.is_busy() {
            self.shared.ask_if_due(now.instant);
        }
    }

    /// Takes the figures of all peers of the interface, read for [`super::KernelTask::ReadFigures`].
    ///
    /// One that is missing is added anew, one that was removed and is still there is removed again.
    /// Figures of others are nobody's.
    pub fn handle_figures(&mut self, now: Now, figures: &[KernelFigures]) {
        self.check_clock(now);
        self.shared.round += 1;
        for figures in figures {
            let key = self.by_id.get(&figures.node_id);
            let Some(peer) = key.and_then(|key| self.peers.get_mut(key)) else {
                continue;
            };
            // Twice in one reading is not possible, and would say that nothing was sent.
            if core::mem::replace(&mut peer.round, self.shared.round) != self.shared.round {
                peer.handle_figures(&mut self.shared, now, figures);
            }
        }
        self.shared.remove_left(figures);
        let mut interval = READ_EVERY;
        for peer in self.peers.values_mut() {
            let missing = peer.round != self.shared.round;
            let stale = core::mem::take(&mut peer.stale);
            if peer.broken || missing && stale != Stale::All {
                peer.rebuild(&mut self.shared, now);
            }
            let agreement = peer.agreement.as_deref();
            interval = interval.min(agreement.map_or(READ_EVERY, KernelPeer::poll_interval));
        }
        self.shared.read_next(now.instant + interval);
    }

    /// A [`super::KernelTask::SetPeer`] of this peer was not carried out, so the kernel has something
    /// else than it was told, perhaps sessions that are gone for us: its gate is told no more to
    /// open, and with the next figures it is added anew.
    pub fn handle_failure(&mut self, id: &NodeId) {
        let key = self.by_id.get(id);
        if let Some(peer) = key.and_then(|key| self.peers.get_mut(key)) {
            peer.broken = true;
        }
    }

    /// Ends all sessions when the wall clock stepped forward: this may be a restored snapshot,
    /// whose nonces were used once already.
    pub(super) fn check_clock(&mut self, now: Now) {
        if !self.shared.clock.stepped(now) {
            return;
        }
        self.shared.renew_record(now, true);
        for peer in self.peers.values_mut() {
            peer.rebuild(&mut self.shared, now);
        }
        self.shared.push_event(Event::ClockStepped);
    }
}

impl Peer {
    fn handle_figures(&mut self, shared: &mut Shared, now: Now, figures: &KernelFigures) {
        if self.stale == Stale::All {
            return;
        }
        if self.stale == Stale::Nothing {
            self.follow(shared, figures);
        }
        let view = KernelView {
            last_handshake: figures.last_handshake,
            rx_bytes: figures.rx_bytes,
            tx_bytes: figures.tx_bytes,
        };
        if self.watch.take(now, view) {
            shared.counters.handshakes += 1;
        }
        self.run(shared, now, |agreement, local, random| {
            agreement.handle_view(local, now, random, view);
        });
        self.settle(shared, now.instant);
        if self.watch.give_up(now.instant) {
            let failure = match self.endpoint {
                Some(_) => HandshakeFailure::NoAnswer,
                None => HandshakeFailure::NoEndpoint,
            };
            let peer = self.key;
            shared.push_event(Event::HandshakeFailed { peer, failure });
        }
        self.try_candidates(shared, now.instant);
    }

    /// The kernel sends to where the peer was heard last. Not into the tunnel itself: that loop
    /// ends when the peer is added anew.
    fn follow(&mut self, shared: &mut Shared, figures: &KernelFigures) {
        let moved = figures
            .endpoint
            .filter(|to| figures.endpoint != self.endpoint && !ALL_NET.contains(to.ip()));
        let Some(endpoint) = moved else {
            return;
        };
        self.endpoint = Some(endpoint);
        shared.push_event(Event::EndpointChanged {
            peer: self.key,
            path: Path::to(endpoint),
        });
    }
}
