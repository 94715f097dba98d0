//! Neighbours for their short round trip, beside those anywhere, and a fresh mix of the latter.
//!
//! Owns who is measured and when. A node that has just joined looks around every second, later as
//! rarely as it shuffles. What is measured and not near may take the place of the oldest neighbour
//! elsewhere a few times, since those that a newcomer gets joined just before it. Never does: judge
//! contacts by anything but the measured round trip.

use alloc::collections::VecDeque;
use core::time::Duration;

use wiremesh_wire::{Instant, NodeId};

use crate::message::{Message, Wish};
use crate::peer::Role;
use crate::topic::Topic;

/// Looks around in a row after joining.
const EAGER_LOOKS: u32 = 40;
/// Neighbours elsewhere that are replaced after joining.
const MIXES: u32 = 4;
/// A neighbour is that young before it is replaced for the mix.
const MIX_AGE: Duration = Duration::from_secs(3);
/// Nodes that were measured lately and are not measured again.
const MEASURED_MAX: usize = 128;
/// A nearer neighbour has to be nearer by a fifth and by this.
const GAIN: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Default)]
pub(crate) struct Near {
    looks: u32,
    mixes: u32,
    look_due: Instant,
    measured: VecDeque<NodeId>,
}

impl Near {
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }
}

fn is_gain(new: Duration, old: Duration) -> bool {
    new + old / 5 < old && new + GAIN < old
}

impl Topic {
    /// The nearest of the neighbours that are near.
    pub(crate) fn nearest(&self) -> Option<NodeId> {
        let near = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_active() && peer.near);
        near.min_by_key(|(_, peer)| peer.rtt())
            .map(|(node, _)| *node)
    }

    /// How many neighbours are near, and the farthest of them.
    fn farthest(&self) -> (usize, Option<(Duration, NodeId)>) {
        let near = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_active() && peer.near);
        let trips = near.map(|(node, peer)| (peer.rtt(), *node));
        (trips.clone().count(), trips.max())
    }

    /// Measures one more contact when it is time.
    pub(crate) fn tick_near(&mut self, now: Instant) {
        if self.near.look_due > now || self.config.near.1 == 0 {
            return;
        }
        let measured = &self.near.measured;
        let fresh = |node: &NodeId| {
            !self.has_link(node) && !measured.contains(node) && !self.scores.is_banned(node)
        };
        let mut contacts = self.membership.contacts(fresh);
        let Some(contact) = self.random.take(&mut contacts) else {
            return;
        };
        self.near.looks += 1;
        if self.near.looks > EAGER_LOOKS {
            self.near.look_due = now + self.config.shuffle_interval;
        }
        if self.near.measured.len() >= MEASURED_MAX {
            self.near.measured.pop_front();
        }
        self.near.measured.push_back(contact.node);
        self.link_to(now, contact, Role::Probed(now));
    }

    /// The round trip to a node was measured.
    pub(crate) fn on_probed(&mut self, now: Instant, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let (Role::Probed(_), Some(trip)) = (peer.role, peer.rtt) else {
            return;
        };
        let contact = crate::message::Contact {
            node: *node,
            addresses: peer.addresses.clone(),
        };
        let (count, farthest) = self.farthest();
        let gain = farthest.is_some_and(|(farthest, _)| is_gain(trip, farthest));
        if count < self.config.near.0 || gain {
            let trip = u16::try_from(trip.as_micros() / 100).unwrap_or(u16::MAX);
            let addresses = self.addresses.clone();
            if let Some(peer) = self.peers.get_mut(node) {
                peer.role = Role::Asked(now);
                peer.near = true;
            }
            let neighbor = Message::Neighbor {
                wish: Wish::Near(trip),
                addresses: &addresses,
            };
            return self.send(now, node, &neighbor);
        }
        self.set_guest(now, node);
        let far = self.peers.iter();
        let far = far.filter(|(_, peer)| peer.is_active() && !peer.near);
        let oldest = far.map(|(node, peer)| (peer.active_since, *node)).min();
        let oldest = oldest.filter(|(since, _)| now.saturating_since(*since) > MIX_AGE);
        if let Some((_, oldest)) = oldest.filter(|_| self.near.mixes < MIXES) {
            self.near.mixes += 1;
            self.disconnect(now, &oldest);
            self.ask(now, contact, false);
        } else {
            self.drop_link(now, node);
        }
    }

    /// Whether a node may be a neighbour for being near; another one may have to go.
    pub(crate) fn make_place_near(&mut self, now: Instant, node: &NodeId, trip: u16) -> bool {
        let (count, farthest) = self.farthest();
        if count < self.config.near.1 {
            return true;
        }
        let own = self.peers.get(node).and_then(|peer| peer.rtt);
        let trip = own.unwrap_or(Duration::from_micros(u64::from(trip) * 100));
        let Some((_, farthest)) = farthest.filter(|(farthest, _)| is_gain(trip, *farthest)) else {
            return false;
        };
        self.disconnect(now, &farthest);
        true
    }

    /// After a nearer neighbour came, the farthest may go.
    pub(crate) fn trim_near(&mut self, now: Instant) {
        let (count, farthest) = self.farthest();
        if let Some((_, farthest)) = farthest.filter(|_| count > self.config.near.1) {
            self.disconnect(now, &farthest);
        }
    }
}
