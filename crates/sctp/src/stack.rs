//! All associations and listeners of a node.
//!
//! Owns the way from a packet to its association, the limits, and the deadlines. It reads no clock and
//! sends nothing itself.
//!
//! An INIT for a listener is answered and forgotten: all that is needed is in the cookie (RFC 9260,
//! section 5.1.3). An association is there from the COOKIE ECHO on.

use crate::association::{Association, Phase, begins};
use crate::packet::{COOKIE_ECHO, first_chunk, ports};
use crate::{ConnectError, ListenError, SctpConfig};
use dcsctp::api::Options;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use wiremesh_wire::Priority;

/// Associations of one listener that are not accepted yet.
const BACKLOG_MAX: usize = 128;
/// Answers to INITs that wait to leave; beyond that INITs get none.
const ANSWERS_MAX: usize = 64;
/// Ports for associations that we open.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Longer silence than any retransmission, for what nobody holds any more.
const LINGER: Duration = Duration::from_secs(60);

/// The other end's address, and how packets go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Remote {
    pub(crate) address: Ipv6Addr,
    /// The UDP port of RFC 6951, or IP protocol 132.
    pub(crate) udp_port: Option<u16>,
}

/// The name of an association: ours is unique among those that live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) address: Ipv6Addr,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

struct Entry {
    association: Association,
    remote: Remote,
    /// Makes the handle's name unique when the key comes again.
    serial: u64,
    deadline: Option<Duration>,
    let_go_at: Option<Duration>,
}

struct Listener {
    waiting: VecDeque<(Key, u64)>,
    arrived: Arc<Notify>,
}

/// A packet that may leave.
pub(crate) struct Outgoing<'a> {
    pub(crate) to: Remote,
    pub(crate) class: Priority,
    pub(crate) packet: &'a [u8],
}

/// See the module.
pub(crate) struct Stack {
    pub(crate) config: SctpConfig,
    mtu_bytes: usize,
    associations: HashMap<Key, Entry>,
    per_peer: HashMap<Ipv6Addr, usize>,
    listeners: BTreeMap<u16, Listener>,
    deadlines: BTreeSet<(Duration, Key)>,
    /// Associations that have packets to send, in turn.
    ready: VecDeque<Key>,
    answers: VecDeque<(Remote, Vec<u8>)>,
    serial: u64,
    next_port: u16,
    pub(crate) refused: u64,
    pub(crate) closed: bool,
    pub(crate) released: bool,
}

impl Stack {
    pub(crate) fn new(config: SctpConfig, mtu_bytes: usize) -> Self {
        Self {
            config,
            mtu_bytes,
            associations: HashMap::new(),
            per_peer: HashMap::new(),
            listeners: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            serial: 0,
            next_port: *EPHEMERAL.start(),
            refused: 0,
            closed: false,
            released: false,
        }
    }

    fn options(&self, key: Key, remote: Remote) -> Options {
        let SctpConfig {
            message_max,
            send_bytes,
            receive_bytes,
            interleaving,
            ..
        } = self.config;
        let udp_header = if remote.udp_port.is_some() { 8 } else { 0 };
        Options {
            local_port: key.local_port,
            remote_port: key.remote_port,
            mtu: (self.mtu_bytes - udp_header) & !3,
            max_message_size: message_max,
            max_send_buffer_size: send_bytes,
            per_stream_send_queue_limit: send_bytes,
            total_buffered_amount_low_threshold: send_bytes / 2,
            default_stream_buffered_amount_low_threshold: send_bytes / 8,
            max_receiver_window_buffer_size: receive_bytes,
            enable_message_interleaving: interleaving,
            // The association asks for the next one itself.
            max_burst: 1,
            // Each packet comes out of a WireGuard message whose tag was right.
            disable_checksum_verification: true,
            ..Options::default()
        }
    }

    pub(crate) fn connect(
        &mut self,
        now: Duration,
        remote: Remote,
        remote_port: u16,
    ) -> Result<(Key, u64), ConnectError> {
        if self.closed {
            return Err(ConnectError::Closed);
        }
        let key = self.free_key(remote, remote_port);
        let key = key.ok_or(ConnectError::NoPort)?;
        self.check_room(remote.address)
            .map_err(ConnectError::TooMany)?;
        let mut association = Association::new(&self.options(key, remote), now);
        association.connect();
        Ok((key, self.insert(key, remote, association)))
    }

    fn free_key(&mut self, remote: Remote, remote_port: u16) -> Option<Key> {
        EPHEMERAL.into_iter().find_map(|_| {
            let key = Key {
                address: remote.address,
                local_port: self.next_port,
                remote_port,
            };
            self.next_port = match self.next_port {
                u16::MAX => *EPHEMERAL.start(),
                port => port + 1,
            };
            let free = !self.associations.contains_key(&key)
                && !self.listeners.contains_key(&key.local_port);
            free.then_some(key)
        })
    }

    fn check_room(&self, peer: Ipv6Addr) -> Result<(), usize> {
        let of_peer = self.per_peer.get(&peer).copied().unwrap_or(0);
        let limits = [
            (self.associations.len(), self.config.associations_max),
            (of_peer, self.config.associations_per_peer_max),
        ];
        match limits.into_iter().find(|(count, max)| count >= max) {
            Some((_, max)) => Err(max),
            None => Ok(()),
        }
    }

    fn insert(&mut self, key: Key, remote: Remote, association: Association) -> u64 {
        self.serial += 1;
        let entry = Entry {
            association,
            remote,
            serial: self.serial,
            deadline: None,
            let_go_at: None,
        };
        *self.per_peer.entry(key.address).or_default() += 1;
        self.associations.insert(key, entry);
        self.settle(key);
        self.serial
    }

    fn remove(&mut self, key: Key) {
        let Some(entry) = self.associations.remove(&key) else {
            return;
        };
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, key));
        }
        if let Some(count) = self.per_peer.get_mut(&key.address) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&key.address);
            }
        }
    }

    /// An association that somebody has a handle of.
    pub(crate) fn held(&mut self, key: Key, serial: u64) -> Option<&mut Association> {
        let entry = self.associations.get_mut(&key)?;
        (entry.serial == serial).then_some(&mut entry.association)
    }

    /// To be called after something was done with an association: its packets and deadline.
    pub(crate) fn settle(&mut self, key: Key) {
        let Some(entry) = self.associations.get_mut(&key) else {
            return;
        };
        if entry.association.is_done() {
            return self.remove(key);
        }
        if entry.association.front().is_some() && !self.ready.contains(&key) {
            self.ready.push_back(key);
        }
        let own = entry.association.poll_timeout();
        let deadline = own.into_iter().chain(entry.let_go_at).min();
        if deadline != entry.deadline {
            if let Some(before) = entry.deadline {
                self.deadlines.remove(&(before, key));
            }
            if let Some(at) = deadline {
                self.deadlines.insert((at, key));
            }
            entry.deadline = deadline;
        }
    }

    /// Nobody has a handle any more: what was given is delivered, then it ends.
    pub(crate) fn let_go(&mut self, now: Duration, key: Key, serial: u64) {
        let Some(entry) = self.associations.get_mut(&key) else {
            return;
        };
        if entry.serial == serial {
            entry.association.held = false;
            entry.let_go_at = Some(now + LINGER);
            entry.association.shut_down();
            self.settle(key);
        }
    }

    pub(crate) fn listen(&mut self, port: u16) -> Result<u16, ListenError> {
        if self.closed {
            return Err(ListenError::Closed);
        }
        let free = |port: &u16| !self.listeners.contains_key(port);
        let wanted = match port {
            0 => EPHEMERAL.into_iter().find(free),
            port => Some(port).filter(free),
        };
        let port = wanted.ok_or(ListenError::InUse(port))?;
        let listener = Listener {
            waiting: VecDeque::new(),
            arrived: Arc::new(Notify::new()),
        };
        self.listeners.insert(port, listener);
        Ok(port)
    }

    pub(crate) fn unlisten(&mut self, port: u16) {
        let Some(listener) = self.listeners.remove(&port) else {
            return;
        };
        for (key, serial) in listener.waiting {
            if let Some(association) = self.held(key, serial) {
                association.held = false;
                association.abort("nobody listens any more");
                self.settle(key);
            }
        }
    }

    /// An association that wants to be accepted; `Err` with what to wait for.
    pub(crate) fn accept(&mut self, port: u16) -> Result<Option<(Key, u64, Remote)>, Arc<Notify>> {
        let Some(listener) = self.listeners.get_mut(&port).filter(|_| !self.closed) else {
            return Ok(None);
        };
        while let Some((key, serial)) = listener.waiting.pop_front() {
            if let Some(entry) = self.associations.get(&key)
                && entry.serial == serial
            {
                return Ok(Some((key, serial, entry.remote)));
            }
        }
        Err(Arc::clone(&listener.arrived))
    }

    /// Takes an SCTP packet.
    pub(crate) fn handle_packet(&mut self, now: Duration, from: Remote, packet: &mut [u8]) {
        let Some((remote_port, local_port)) = ports(packet) else {
            return;
        };
        let key = Key {
            address: from.address,
            local_port,
            remote_port,
        };
        if let Some(entry) = self.associations.get_mut(&key) {
            // RFC 6951, section 5.4: packets go to where the last one came from.
            entry.remote = from;
            entry.association.handle_packet(now, packet);
            return self.settle(key);
        }
        if !self.listeners.contains_key(&local_port) || !begins(packet) {
            return;
        }
        let mut association = Association::new(&self.options(key, from), now);
        association.handle_packet(now, packet);
        if first_chunk(packet) == Some(COOKIE_ECHO) {
            return self.arrived(key, from, association);
        }
        while let Some((_, answer)) = association.front() {
            if self.answers.len() < ANSWERS_MAX {
                self.answers.push_back((from, answer.to_vec()));
            }
            association.pop();
        }
    }

    fn arrived(&mut self, key: Key, from: Remote, association: Association) {
        let full = self.check_room(from.address).is_err();
        let Some(listener) = self.listeners.get_mut(&key.local_port) else {
            return;
        };
        if association.phase() != Phase::Open {
            return;
        }
        if full || listener.waiting.len() >= BACKLOG_MAX {
            self.refused += 1;
            return;
        }
        let serial = self.serial + 1;
        listener.waiting.push_back((key, serial));
        listener.arrived.notify_waiters();
        self.insert(key, from, association);
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(at, key)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, key));
            let Some(entry) = self.associations.get_mut(&key) else {
                continue;
            };
            entry.deadline = None;
            if entry.let_go_at.is_some_and(|at| at <= now) {
                self.remove(key);
                continue;
            }
            entry.association.handle_timeout(now);
            self.settle(key);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Gives out packets, in turn of the associations, for as long as `send` takes them; `true` when
    /// none is left.
    pub(crate) fn send_all(&mut self, mut send: impl FnMut(Outgoing<'_>) -> bool) -> bool {
        while let Some((to, packet)) = self.answers.front() {
            let (to, class) = (*to, Priority::Urgent);
            if !send(Outgoing { to, class, packet }) {
                return false;
            }
            self.answers.pop_front();
        }
        let mut refused = 0;
        while let Some(key) = self.ready.pop_front() {
            let Some(entry) = self.associations.get_mut(&key) else {
                continue;
            };
            let to = entry.remote;
            let Some((class, packet)) = entry.association.front() else {
                continue;
            };
            if send(Outgoing { to, class, packet }) {
                refused = 0;
                entry.association.pop();
                self.settle(key);
                continue;
            }
            entry.association.refused();
            // Another one may be for a peer that has room.
            self.ready.push_back(key);
            refused += 1;
            if refused >= self.ready.len() {
                return false;
            }
        }
        true
    }

    pub(crate) fn has_packets(&self) -> bool {
        !self.ready.is_empty() || !self.answers.is_empty()
    }

    /// The node is closed.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for entry in self.associations.values_mut() {
            entry.association.abort("the node was closed");
        }
        for listener in self.listeners.values() {
            listener.arrived.notify_waiters();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.associations.len()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.closed || (self.released && self.associations.is_empty())
    }
}

#[cfg(test)]
mod tests;
