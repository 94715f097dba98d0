//! HyParView: who is a neighbour, and whom else we know.
//!
//! Owns the passive view, the walks, and the changes of the active view. Never does: broadcast.
//! J. Leitao, J. Pereira, L. Rodrigues, "HyParView", DSN 2007; docs/spec.md section 8.4 says where
//! we differ: a link is made before somebody is a neighbour, NEIGHBOR and JOIN are answered, and
//! the answer to a shuffle goes the way back, so that nobody makes links for strangers' contacts.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use wiremesh_wire::{Instant, NodeId, Now};

use crate::config::{ANSWER_TIME, CONNECT_TIME, GUEST_TIME, LOST_MAX, REFUSED_TIME};
use crate::message::{CONTACTS_MAX, Contact, HOPS_MAX, Message, Wish};
use crate::peer::{Lane, Link, Role};
use crate::random::Random;
use crate::score::Misdeed;
use crate::topic::Topic;

/// Ways back of shuffles that are remembered.
const ROUTES_MAX: usize = 64;
/// A neighbour that asks to be one again so soon has not started anew.
const AGAIN: Duration = Duration::from_secs(3);
/// Contacts to join by that are remembered.
const BOOTSTRAP_MAX: usize = 16;
/// Links made because of walks, at once; one a second after that.
const WALKS_MAX: u32 = 8;
const REJOIN_MIN: Duration = Duration::from_secs(1);
const REJOIN_MAX: Duration = Duration::from_secs(30);
/// The first time between shuffles; it grows to that of the configuration.
const SHUFFLE_FIRST: Duration = Duration::from_secs(2);

/// A contact of the passive view.
struct Known {
    contact: Contact,
    /// Not asked before, as it has just refused.
    ask_after: Instant,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Membership {
    passive: Vec<Known>,
    bootstrap: Vec<Contact>,
    /// Neighbours whose link broke; the oldest first.
    lost: VecDeque<Contact>,
    /// The way back of a shuffle, by its nonce; the oldest first.
    routes: VecDeque<(u64, NodeId)>,
    /// The nonce of our own shuffle, and what we sent with it.
    shuffle: Option<(u64, Vec<NodeId>)>,
    lost_due: Instant,
    /// Links made because of walks; one a second is forgiven.
    walks: u32,
    walks_at: Instant,
    shuffle_due: Instant,
    shuffle_wait: Duration,
    rejoin_due: Instant,
    rejoin_wait: Duration,
    joined: bool,
}

impl Membership {
    pub(crate) fn passive_len(&self) -> usize {
        self.passive.len() + self.lost.len()
    }

    fn forget(&mut self, node: &NodeId) {
        self.passive.retain(|known| known.contact.node != *node);
    }

    fn add(&mut self, random: &mut Random, contact: Contact, max: usize) {
        self.forget(&contact.node);
        if self.passive.len() >= max {
            random.take(&mut self.passive);
        }
        self.passive.push(Known {
            contact,
            ask_after: Instant::ZERO,
        });
    }

    /// Whether a link may be made because of a walk; somebody else chose where it goes.
    fn may_walk_in(&mut self, now: Instant) -> bool {
        let gone = now.saturating_since(self.walks_at).as_secs();
        self.walks = self
            .walks
            .saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
        if gone > 0 {
            self.walks_at = now;
        }
        self.walks = (self.walks + 1).min(WALKS_MAX + 1);
        self.walks <= WALKS_MAX
    }

    /// The contacts of the passive view that pass.
    pub(crate) fn contacts(&self, pass: impl Fn(&NodeId) -> bool) -> Vec<Contact> {
        let contacts = self.passive.iter().map(|known| &known.contact);
        contacts
            .filter(|contact| pass(&contact.node))
            .cloned()
            .collect()
    }

    fn refused(&mut self, node: &NodeId, until: Instant) {
        let known = self.passive.iter_mut();
        for known in known.filter(|known| known.contact.node == *node) {
            known.ask_after = until;
        }
    }
}

impl Topic {
    /// Joins the network through any of `contacts`, and again when all neighbours are gone.
    pub fn join(&mut self, now: Now, contacts: &[Contact]) {
        let others = contacts.iter().filter(|contact| contact.node != self.me);
        self.membership.bootstrap = others.take(BOOTSTRAP_MAX).cloned().collect();
        self.membership.joined = true;
        self.membership.rejoin_wait = REJOIN_MIN;
        self.membership.rejoin_due = now.instant;
        self.membership.shuffle_due = now.instant + SHUFFLE_FIRST;
        self.membership.shuffle_wait = SHUFFLE_FIRST;
        self.near.restart();
        self.fill_active(now.instant);
    }

    /// Tells the neighbours that this node goes, and asks nobody any more. Drain `poll_send` before
    /// the links are closed.
    pub fn leave(&mut self, now: Now) {
        self.membership.joined = false;
        for node in self.active() {
            self.send(now.instant, &node, &Message::Disconnect);
            self.set_guest(now.instant, &node);
        }
    }

    pub(crate) fn active(&self) -> Vec<NodeId> {
        let active = self.peers.iter().filter(|(_, peer)| peer.is_active());
        active.map(|(node, _)| *node).collect()
    }

    pub(crate) fn is_near(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.near)
    }

    /// Neighbours that are not there for being near.
    pub(crate) fn far_len(&self) -> usize {
        let peers = self.peers.values();
        peers.filter(|peer| peer.is_active() && !peer.near).count()
    }

    fn random_active(&mut self, except: &[NodeId]) -> Option<NodeId> {
        let mut active = self.active();
        active.retain(|node| !except.contains(node));
        self.random.take(&mut active)
    }

    pub(crate) fn handle_membership(&mut self, now: Instant, from: NodeId, message: Message<'_>) {
        match message {
            Message::Join { addresses } => self.on_join(now, from, addresses.to_vec()),
            Message::ForwardJoin { hops, contact } => {
                self.on_forward_join(now, from, hops, contact);
            }
            Message::Neighbor { wish, addresses } => {
                self.on_neighbor(now, from, wish, addresses.to_vec());
            }
            Message::NeighborReply { accepted } => self.on_neighbor_reply(now, from, accepted),
            Message::Disconnect => {
                self.demote(now, &from);
                self.fill_active(now);
            }
            Message::Shuffle {
                hops,
                nonce,
                contacts,
            } => self.on_shuffle(now, from, hops, nonce, contacts),
            Message::ShuffleReply { nonce, contacts } => {
                self.on_shuffle_reply(now, from, nonce, contacts);
            }
            _ => unreachable!("the caller gives membership messages only"),
        }
    }

    fn on_join(&mut self, now: Instant, from: NodeId, addresses: Vec<u8>) {
        let contact = Contact {
            node: from,
            addresses,
        };
        let walkers = self.active();
        self.activate(now, &from, contact.addresses.clone(), false);
        self.send(now, &from, &Message::NeighborReply { accepted: true });
        let hops = self.config.active_walk.min(HOPS_MAX);
        for walker in walkers.iter().filter(|walker| **walker != from) {
            let contact = contact.clone();
            self.send(now, walker, &Message::ForwardJoin { hops, contact });
        }
    }

    fn on_forward_join(&mut self, now: Instant, from: NodeId, hops: u8, contact: Contact) {
        if contact.node == self.me || !self.is_active(&from) {
            return;
        }
        let next = self.random_active(&[from, contact.node]);
        let hops = hops.min(self.config.active_walk);
        let known = self.is_active(&contact.node);
        if let Some(next) = next.filter(|_| hops > 0 || known) {
            if hops == self.config.passive_walk && !known {
                self.add_passive(contact.clone());
            }
            if hops > 0 {
                let hops = hops - 1;
                self.send(now, &next, &Message::ForwardJoin { hops, contact });
            }
        } else if !known && self.membership.may_walk_in(now) {
            self.ask(now, contact, false);
        }
    }

    fn on_neighbor(&mut self, now: Instant, from: NodeId, wish: Wish, addresses: Vec<u8>) {
        let known = self.is_active(&from);
        let accepted = known
            || match wish {
                Wish::Low => self.far_len() < self.config.far.1,
                Wish::High => true,
                Wish::Near(trip) => self.make_place_near(now, &from, trip),
            };
        if accepted {
            let near = matches!(wish, Wish::Near(_));
            self.activate(now, &from, addresses, near);
        } else if let Some(peer) = self.peers.get_mut(&from) {
            peer.addresses = addresses;
        }
        self.send(now, &from, &Message::NeighborReply { accepted });
    }

    fn on_neighbor_reply(&mut self, now: Instant, from: NodeId, accepted: bool) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if !matches!(peer.role, Role::Asked(_)) {
            // Both asked, and are neighbours already; or it is too late.
            if accepted && !peer.is_active() {
                self.send(now, &from, &Message::Disconnect);
            }
            return;
        }
        if accepted {
            let (addresses, near) = (peer.addresses.clone(), peer.near);
            self.activate(now, &from, addresses, near);
        } else {
            peer.role = Role::Guest(now);
            self.membership.refused(&from, now + REFUSED_TIME);
        }
        self.fill_active(now);
    }

    /// Whether a node was asked to be a neighbour and behaves as one: its answer, on the stream of
    /// another class, may come later.
    pub(crate) fn is_accepted_by(&mut self, now: Instant, from: &NodeId) -> bool {
        let peer = self.peers.get(from);
        let asked = peer.is_some_and(|peer| matches!(peer.role, Role::Asked(_)));
        if asked {
            self.on_neighbor_reply(now, *from, true);
        }
        self.is_active(from)
    }

    /// Makes a node with a link a neighbour, in place of another if the view is full.
    fn activate(&mut self, now: Instant, node: &NodeId, addresses: Vec<u8>, near: bool) {
        let again = self.peers.get(node).filter(|peer| peer.is_active());
        if again.is_some_and(|peer| now.saturating_since(peer.active_since) < AGAIN) {
            // Both asked at once, or somebody likes to hear of all objects again.
            return self.blame(now, node, Misdeed::Greedy);
        }
        let full = !near && self.far_len() >= self.config.far.1;
        let mut victims = self.active();
        victims.retain(|victim| victim != node && !self.is_near(victim));
        let victim = self.random.take(&mut victims);
        if let Some(victim) = victim.filter(|_| full && !self.is_active(node)) {
            self.disconnect(now, &victim);
        }
        self.membership.forget(node);
        self.membership.lost.retain(|contact| contact.node != *node);
        self.membership.rejoin_wait = REJOIN_MIN;
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        peer.role = Role::Active;
        peer.near = near;
        peer.active_since = now;
        peer.addresses = addresses;
        peer.lanes = [Lane::NEW; 3];
        peer.ping_due = now;
        let bit = peer.bit();
        self.objects.clear_slot(bit);
        self.announce_all(now, node, bit);
        self.send_ping(now, node);
        self.trim_near(now);
    }

    /// Tells a neighbour that it is none any more.
    pub(crate) fn disconnect(&mut self, now: Instant, node: &NodeId) {
        self.send(now, node, &Message::Disconnect);
        self.demote(now, node);
    }

    /// A neighbour is none any more; its link may stay for a while.
    fn demote(&mut self, now: Instant, node: &NodeId) {
        if !self.is_active(node) {
            return;
        }
        let contact = self.peers.get(node).map(|peer| Contact {
            node: *node,
            addresses: peer.addresses.clone(),
        });
        self.set_guest(now, node);
        if let Some(contact) = contact {
            self.add_passive(contact);
            self.membership.refused(node, now + REFUSED_TIME);
        }
    }

    pub(crate) fn set_guest(&mut self, now: Instant, node: &NodeId) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.role = Role::Guest(now);
            peer.announce = Default::default();
            peer.flush = None;
            peer.clear_data();
        }
        self.forget_source(now, node);
    }

    fn add_passive(&mut self, contact: Contact) {
        let banned = self.scores.is_banned(&contact.node);
        if contact.node == self.me || self.is_active(&contact.node) || banned {
            return;
        }
        let max = self.config.passive_max;
        self.membership.add(&mut self.random, contact, max);
    }

    /// Asks a node to be a neighbour, over a new link if there is none.
    pub(crate) fn ask(&mut self, now: Instant, contact: Contact, join: bool) {
        let node = contact.node;
        if self.scores.is_banned(&node) || !self.link_to(now, contact, Role::Asked(now)) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.near = false;
        }
        let addresses = self.addresses.clone();
        let addresses = addresses.as_slice();
        if join {
            self.send(now, &node, &Message::Join { addresses });
        } else {
            let few = self.far_len() * 2 < self.config.far.0;
            let wish = if few { Wish::High } else { Wish::Low };
            self.send(now, &node, &Message::Neighbor { wish, addresses });
        }
    }

    /// Asks for as many neighbours as are missing.
    pub(crate) fn fill_active(&mut self, now: Instant) {
        if !self.membership.joined {
            return;
        }
        let asked = |role: &Role| matches!(role, Role::Asked(_) | Role::Active);
        let far = self.peers.values().filter(|peer| !peer.near);
        let mut have = far.filter(|peer| asked(&peer.role)).count();
        while have < self.config.far.0 {
            let free = |known: &&Known| {
                let peer = self.peers.get(&known.contact.node);
                known.ask_after <= now && !peer.is_some_and(|peer| asked(&peer.role))
            };
            let free = self.membership.passive.iter().filter(free);
            let mut free: Vec<Contact> = free.map(|known| known.contact.clone()).collect();
            let Some(contact) = self.random.take(&mut free) else {
                break;
            };
            self.membership.refused(&contact.node, now + ANSWER_TIME);
            self.ask(now, contact, false);
            have += 1;
        }
        if have == 0 && self.membership.rejoin_due <= now {
            let mut bootstrap = self.membership.bootstrap.clone();
            if let Some(contact) = self.random.take(&mut bootstrap) {
                self.ask(now, contact, true);
            }
            let wait = self.membership.rejoin_wait;
            let jitter = Duration::from_millis(self.random.below(1_000) as u64);
            self.membership.rejoin_due = now + wait + jitter;
            self.membership.rejoin_wait = (wait * 2).min(REJOIN_MAX);
        }
    }

    /// A neighbour's link broke: it crashed, or the network is split. It is looked for later.
    pub(crate) fn lose(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get(node).filter(|peer| peer.is_active()) else {
            return;
        };
        let lost = &mut self.membership.lost;
        lost.retain(|contact| contact.node != *node);
        if lost.len() >= LOST_MAX {
            lost.pop_front();
        }
        lost.push_back(Contact {
            node: *node,
            addresses: peer.addresses.clone(),
        });
    }

    /// Joins through a node that was lost, so that the parts of a network that was split find each
    /// other.
    pub(crate) fn look_for_lost(&mut self, now: Instant) {
        let lost = self.membership.lost.iter();
        let lost = lost.filter(|contact| !self.has_link(&contact.node));
        let mut lost: Vec<Contact> = lost.cloned().collect();
        if let Some(contact) = self.random.take(&mut lost) {
            self.ask(now, contact, true);
        }
    }

    /// A link is gone; whoever it led to is not a contact until somebody names it again.
    pub(crate) fn on_link_gone(&mut self, now: Instant, node: &NodeId) {
        self.membership.forget(node);
        self.fill_active(now);
    }

    /// What is due now and then: links that do not come up, answers that do not come, links that
    /// nobody needs, shuffles, and new neighbours for those that went.
    pub(crate) fn tick_membership(&mut self, now: Instant) {
        let since = |start: Instant| now.saturating_since(start);
        let mut gone = Vec::new();
        let mut silent = Vec::new();
        for (node, peer) in &self.peers {
            match (peer.link, peer.role) {
                (Link::Connecting(start), _) if since(start) >= CONNECT_TIME => gone.push(*node),
                (Link::Up, Role::Asked(start) | Role::Probed(start))
                    if since(start) >= CONNECT_TIME + ANSWER_TIME =>
                {
                    silent.push(*node);
                }
                (Link::Up, Role::Guest(start)) if since(start) >= GUEST_TIME => gone.push(*node),
                _ => {}
            }
        }
        for node in silent {
            self.set_guest(now, &node);
        }
        for node in gone {
            self.drop_link(now, &node);
        }
        self.fill_active(now);
        if self.membership.joined {
            if self.membership.shuffle_due <= now {
                self.start_shuffle(now);
            }
            if self.membership.lost_due <= now {
                let jitter = Duration::from_millis(self.random.below(5_000) as u64);
                self.membership.lost_due = now + self.config.shuffle_interval + jitter;
                self.look_for_lost(now);
            }
            self.tick_near(now);
        }
    }

    fn start_shuffle(&mut self, now: Instant) {
        let jitter = Duration::from_millis(self.random.below(1_000) as u64);
        let wait = &mut self.membership.shuffle_wait;
        *wait = (*wait * 3 / 2).clamp(SHUFFLE_FIRST, self.config.shuffle_interval);
        self.membership.shuffle_due = now + *wait + jitter;
        // Every other one stays with the nearest neighbour, who knows others nearby.
        let nearest = self.nearest().filter(|_| self.random.below(2) == 0);
        let hops = match nearest {
            Some(_) => 0,
            None => self.config.active_walk.min(HOPS_MAX),
        };
        let Some(to) = nearest.or_else(|| self.random_active(&[])) else {
            return;
        };
        let contacts = self.some_contacts(&to);
        let nonce = self.random.word();
        let sent = contacts.iter().map(|contact| contact.node).collect();
        self.membership.shuffle = Some((nonce, sent));
        let message = Message::Shuffle {
            hops,
            nonce,
            contacts,
        };
        self.send(now, &to, &message);
    }

    /// Ourselves, three neighbours, and of the passive view what fits.
    fn some_contacts(&mut self, except: &NodeId) -> Vec<Contact> {
        let mut contacts = Vec::from([Contact {
            node: self.me,
            addresses: self.addresses.clone(),
        }]);
        // Who is near hears of others who are near, as far as there are any.
        let near = self.is_near(except);
        let active = self.peers.iter().filter(|(_, peer)| peer.is_active());
        let active = active.filter(|(_, peer)| peer.near == near);
        let mut active: Vec<Contact> = active
            .map(|(node, peer)| Contact {
                node: *node,
                addresses: peer.addresses.clone(),
            })
            .collect();
        let passive = self.membership.passive.iter();
        let mut passive: Vec<Contact> = passive.map(|known| known.contact.clone()).collect();
        for (from, max) in [(&mut active, 4), (&mut passive, CONTACTS_MAX)] {
            while contacts.len() < max {
                let Some(contact) = self.random.take(from) else {
                    break;
                };
                if contact.node != *except {
                    contacts.push(contact);
                }
            }
        }
        contacts
    }

    fn on_shuffle(
        &mut self,
        now: Instant,
        from: NodeId,
        hops: u8,
        nonce: u64,
        contacts: Vec<Contact>,
    ) {
        let known = self.membership.routes.iter().any(|route| route.0 == nonce);
        if !self.is_active(&from) || known {
            return;
        }
        let hops = hops.min(self.config.active_walk);
        let next = self.random_active(&[from]).filter(|_| hops > 0);
        if let Some(next) = next {
            let routes = &mut self.membership.routes;
            if routes.len() >= ROUTES_MAX {
                routes.pop_front();
            }
            routes.push_back((nonce, from));
            let hops = hops - 1;
            let message = Message::Shuffle {
                hops,
                nonce,
                contacts,
            };
            return self.send(now, &next, &message);
        }
        let answer = self.some_contacts(&from);
        let sent: Vec<NodeId> = answer.iter().map(|contact| contact.node).collect();
        let contacts_back = Message::ShuffleReply {
            nonce,
            contacts: answer,
        };
        self.send(now, &from, &contacts_back);
        self.take_contacts(contacts, &sent);
    }

    fn on_shuffle_reply(&mut self, now: Instant, from: NodeId, nonce: u64, contacts: Vec<Contact>) {
        if !self.is_active(&from) {
            return;
        }
        let own = self.membership.shuffle.take_if(|(own, _)| *own == nonce);
        if let Some((_, sent)) = own {
            self.take_contacts(contacts, &sent);
            return self.fill_active(now);
        }
        let routes = &mut self.membership.routes;
        let Some(place) = routes.iter().position(|route| route.0 == nonce) else {
            return;
        };
        if let Some((_, to)) = routes.remove(place) {
            self.send(now, &to, &Message::ShuffleReply { nonce, contacts });
        }
    }

    /// Takes contacts in, in place of those that the other node has now.
    fn take_contacts(&mut self, contacts: Vec<Contact>, sent: &[NodeId]) {
        for contact in contacts {
            let passive = &mut self.membership.passive;
            if passive.len() >= self.config.passive_max {
                let given = |known: &Known| sent.contains(&known.contact.node);
                if let Some(place) = passive.iter().position(given) {
                    passive.swap_remove(place);
                }
            }
            if !self.peers.contains_key(&contact.node) {
                self.add_passive(contact);
            }
        }
    }
}
