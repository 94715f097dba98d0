//! The run: virtual time, what happens next, and the phases.
//!
//! Owns the queue and the hosts. One thing happens at a time; after each the polls of the host are
//! drained and its invariants are checked.

use crate::attacker::Attacker;
use crate::check::{Check, Checker};
use crate::host::Host;
use crate::link::{Link, MS, SECOND};
use crate::options::{Failure, Mutation, Options, Report, Rule};
use crate::random::Random;
use crate::setup::{HEALING, WINDOW};
use crate::suites::Theme;
use crate::trace::{Note, Trace};
use crate::watch::Watch;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh_control::Phase;
use wiremesh_core::{Event, PeerConfig, Transmit};
use wiremesh_wire::{Content, NodeId};

/// Calls of one node's timers within a second of virtual time that are too many.
const TIMER_CALLS_MAX: u32 = 2_000;

/// What happens at a time.
pub(crate) enum Action {
    Arrive {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Traffic(usize),
    Fault,
    Attack,
    Answer {
        host: usize,
        asked: NodeId,
    },
    Wake(usize),
    AddPeer {
        host: usize,
        other: usize,
    },
    SetPsk {
        host: usize,
        other: usize,
        epoch: u32,
    },
}

/// One simulated network. [`Simulation::run`] is all there is to call.
pub struct Simulation {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) checker: Checker,
    pub(crate) attacker: Attacker,
    pub(crate) time: u64,
    pub(crate) chaos_end: u64,
    pub(crate) traffic_gap: u64,
    pub(crate) fault_gap: u64,
    pub(crate) attack_gap: u64,
    pub(crate) keepalives: bool,
    pub(crate) queue: BTreeMap<(u64, u64), Action>,
    pub(crate) serial: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) links: BTreeMap<(usize, usize), Link>,
    /// By host: the second and the calls in it.
    pub(crate) timer_calls: Vec<(u64, u32)>,
    pub(crate) sent: u64,
    pub(crate) datagrams: u64,
    pub(crate) attacks: u64,
    pub(crate) faults: u64,
    pub(crate) handshakes: u64,
    pub(crate) policy_changes: u64,
    pub(crate) agreements: u64,
    pub(crate) theme: Theme,
    /// There in a run of the control protocol.
    pub(crate) watch: Option<Watch>,
}

impl Simulation {
    /// Runs the network that `seed` describes to its end.
    ///
    /// Costs some ten milliseconds of processor time and some megabytes.
    ///
    /// # Errors
    ///
    /// The first broken invariant; its text says how to run the seed again.
    pub fn run(seed: u64, options: &Options) -> Result<Report, Box<Failure>> {
        let mut simulation = Self::new(seed, options);
        match simulation.phases() {
            Ok(()) => Ok(simulation.report()),
            Err((rule, detail)) => Err(Box::new(Failure {
                seed,
                control: options.control,
                at: Duration::from_nanos(simulation.time),
                rule,
                detail,
            })),
        }
    }

    fn report(&self) -> Report {
        let (levels, closed) = self.count_levels();
        Report {
            seed: self.seed,
            trace_hash: self.trace.finish(),
            nodes: self.hosts.len(),
            virtual_time: Duration::from_nanos(self.time),
            sent: self.sent,
            delivered: self.checker.delivered,
            datagrams: self.datagrams,
            attacks: self.attacks,
            faults: self.faults,
            handshakes: self.handshakes,
            policy_changes: self.policy_changes,
            levels,
            closed,
            agreements: self.agreements,
        }
    }

    fn phases(&mut self) -> Check {
        for host in 0..self.hosts.len() {
            self.drain(host)?;
        }
        self.run_until(self.chaos_end)?;
        self.heal()?;
        let pairs = self.pairs();
        self.talk(&pairs, HEALING)?;
        let numbers = self.talk(&pairs, WINDOW)?;
        self.run_until(self.time + 5 * SECOND)?;
        self.check_healed(&pairs, &numbers)?;
        self.run_quiet()
    }

    /// Every ordered pair of hosts that have something to say to each other.
    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        let of = |(host, h): (usize, &Host)| -> Vec<(usize, usize)> {
            h.wanted.keys().map(|other| (host, *other)).collect()
        };
        self.hosts.iter().enumerate().flat_map(of).collect()
    }

    /// One packet a second on each pair, for so long. `None` for one that was not taken.
    fn talk(
        &mut self,
        pairs: &[(usize, usize)],
        time: u64,
    ) -> Result<Vec<Option<usize>>, (Rule, String)> {
        let end = self.time + time;
        let mut numbers = Vec::new();
        while self.time < end {
            for (from, to) in pairs {
                numbers.push(self.send_packet(*from, *to, 64, false)?);
                let gap = self.random.below(100 * MS);
                self.run_until(self.time + gap)?;
            }
            self.run_until(self.time + SECOND)?;
            self.check_levels(pairs)?;
        }
        Ok(numbers)
    }

    pub(crate) fn after(&mut self, delay: u64, action: Action) {
        self.serial += 1;
        self.queue.insert((self.time + delay, self.serial), action);
    }

    /// Does everything that is due by `end`.
    pub(crate) fn run_until(&mut self, end: u64) -> Check {
        loop {
            let timer = (0..self.hosts.len())
                .filter_map(|host| Some((self.hosts[host].next_timer()?, host)))
                .min();
            let queued = self.queue.keys().next().copied();
            match (timer, queued) {
                (Some((at, host)), queued)
                    if at <= end && queued.is_none_or(|(other, _)| at <= other) =>
                {
                    self.time = self.time.max(at);
                    self.on_timer(host)?;
                }
                (_, Some((at, _))) if at <= end => {
                    self.time = self.time.max(at);
                    let (_, action) = self.queue.pop_first().expect("it was seen just now");
                    self.perform(action)?;
                }
                _ => break,
            }
        }
        self.time = self.time.max(end);
        Ok(())
    }

    fn on_timer(&mut self, host: usize) -> Check {
        let second = self.time / SECOND;
        let calls = &mut self.timer_calls[host];
        *calls = if calls.0 == second {
            (second, calls.1 + 1)
        } else {
            (second, 1)
        };
        if calls.1 > TIMER_CALLS_MAX {
            let detail = format!("node {host} was called {} times in a second", calls.1);
            return Err((Rule::TimersAdvance, detail));
        }
        let now = self.hosts[host].now(self.time);
        self.hosts[host].node.handle_timeout(now);
        self.drain(host)?;
        self.checker.check_node(host, &self.hosts[host])
    }

    fn perform(&mut self, action: Action) -> Check {
        if let Some(until) = self.sleeping_until(&action) {
            // What an operator does to a machine that sleeps is done when it wakes.
            self.after(until.saturating_sub(self.time) + MS, action);
            return Ok(());
        }
        match action {
            Action::Arrive { from, to, bytes } => self.on_arrival(from, to, bytes),
            Action::Traffic(host) => self.on_traffic(host),
            Action::Fault => self.on_fault(),
            Action::Attack => self.on_attack(),
            Action::Answer { host, asked } => self.on_answer(host, &asked),
            Action::Wake(host) => self.wake(host),
            Action::AddPeer { host, other } => self.on_add_peer(host, other),
            Action::SetPsk { host, other, epoch } => self.on_set_psk(host, other, epoch),
        }
    }

    fn sleeping_until(&self, action: &Action) -> Option<u64> {
        match action {
            Action::Answer { host, .. }
            | Action::AddPeer { host, .. }
            | Action::SetPsk { host, .. } => Some(self.hosts[*host].sleep.as_ref()?.until),
            _ => None,
        }
    }

    fn on_arrival(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) -> Check {
        let there = |host: &Host| host.address == to && host.sleep.is_none();
        match self.hosts.iter().position(there) {
            Some(host) => self.input(host, from, bytes),
            None => Ok(()),
        }
    }

    /// Hands a datagram to a node.
    fn input(&mut self, number: usize, from: SocketAddr, bytes: Vec<u8>) -> Check {
        self.trace.note(self.time, number, Note::Arrived(&bytes));
        self.checker.on_input(number, from, &bytes);
        let host = &mut self.hosts[number];
        let refused = host.refused();
        let mut buffer = bytes.clone();
        let (now, path) = (host.now(self.time), host.path_from(from));
        let received = host.node.handle_datagram(now, path, &mut buffer);
        let accepted = host.refused() == refused;
        self.checker.on_handled(number, from, &bytes, accepted);
        if let Some(received) = received {
            let peer = host.node.node_id_of(received.peer);
            let peer = peer.ok_or((Rule::Genuine, "a packet of a removed peer".to_string()))?;
            if let (Some(watch), Some(from)) = (&self.watch, self.checker.host_of(&peer)) {
                watch.on_delivered(number, from, self.time, &bytes)?;
            }
            let mut packet = received.packet;
            packet.start += usize::from(received.content == Content::Stream);
            self.deliver(number, peer, &mut buffer[packet])?;
        }
        self.drain(number)?;
        self.checker.check_node(number, &self.hosts[number])
    }

    fn deliver(&mut self, host: usize, mut peer: NodeId, packet: &mut [u8]) -> Check {
        match self.options.mutation {
            Some(Mutation::DeliverTwice) => self.checker.on_received(host, peer, packet)?,
            Some(Mutation::DamagePacket) => packet[packet.len() / 2] ^= 1,
            Some(Mutation::SwapSender) => peer = self.hosts[host].id,
            _ => (),
        }
        self.trace.note(
            self.time,
            host,
            Note::Said(format_args!("delivers {}", packet.len())),
        );
        self.checker.on_received(host, peer, packet)
    }

    /// Takes everything out of a node; it may crash in between.
    pub(crate) fn drain(&mut self, host: usize) -> Check {
        self.watch_step(host);
        loop {
            while let Some(event) = self.hosts[host].node.poll_event() {
                if self.hosts[host].crashes_now() {
                    return self.restart(host);
                }
                self.on_event(host, event)?;
            }
            match self.hosts[host].node.poll_transmit() {
                Some(_) if self.hosts[host].crashes_now() => return self.restart(host),
                Some(transmit) => self.on_transmit(host, transmit)?,
                None => return Ok(()),
            }
        }
    }

    fn on_event(&mut self, host: usize, event: Event) -> Check {
        self.trace
            .note(self.time, host, Note::Said(format_args!("{event:?}")));
        self.hosts[host].write(&event);
        match event {
            Event::SessionEstablished { .. } => self.handshakes += 1,
            Event::AdmissionRequested { node_id, .. } => {
                let delay = self.random.below(5 * SECOND);
                self.after(
                    delay,
                    Action::Answer {
                        host,
                        asked: node_id,
                    },
                );
            }
            Event::ControlMoved {
                role,
                from,
                event,
                to,
                ..
            } => {
                self.agreements += u64::from(
                    from != to
                        && matches!(
                            to,
                            Phase::Set | Phase::RotateSet | Phase::Switch | Phase::RotateSwitch
                        ),
                );
                Watch::on_moved(host, role, (from, event, to))?;
            }
            _ => (),
        }
        Ok(())
    }

    /// The application answers a stranger; sometimes it does not.
    fn on_answer(&mut self, host: usize, asked: &NodeId) -> Check {
        let other = self.checker.host_of(asked);
        let welcome = other.filter(|other| self.hosts[host].wanted.contains_key(other));
        match welcome {
            Some(other) if self.random.permille(900) => {
                let now = self.hosts[host].now(self.time);
                let security = self.hosts[host].settings_for(other);
                let node = &mut self.hosts[host].node;
                let config = PeerConfig {
                    security: security.clone(),
                    ..PeerConfig::new(*asked)
                };
                if let Ok(key) = node.admit(now, config) {
                    node.set_peer_settings(now, key, security);
                    self.checker.on_peer_added(host, other, None);
                }
            }
            Some(_) => (),
            None => {
                let now = self.hosts[host].now(self.time);
                self.hosts[host].node.refuse(now, asked);
            }
        }
        self.drain(host)
    }

    /// A node sends a datagram.
    pub(crate) fn on_transmit(&mut self, number: usize, transmit: Transmit) -> Check {
        let Transmit { path, datagram, .. } = transmit;
        self.datagrams += 1;
        self.trace.note(self.time, number, Note::Sent(&datagram));
        let host = &self.hosts[number];
        let now = host.now(self.time).instant;
        self.checker
            .on_sent(number, host, now, path.remote, &datagram)?;
        if datagram[0] == 4 && self.options.mutation == Some(Mutation::RepeatNonce) {
            self.checker
                .on_sent(number, host, now, path.remote, &datagram)?;
        }
        let from = host.address;
        self.watch_sent(number, &datagram)?;
        self.attacker
            .capture(&mut self.random, (from, path.remote), &datagram);
        self.carry(number, path.remote, datagram);
        Ok(())
    }

    fn carry(&mut self, from: usize, to: SocketAddr, datagram: Vec<u8>) {
        let Some(other) = self.hosts.iter().position(|host| host.address == to) else {
            return self.trace.note(self.time, from, Note::Lost(&datagram));
        };
        let source = self.hosts[from].address;
        let Some(link) = self.links.get_mut(&(from.min(other), from.max(other))) else {
            return;
        };
        let copies = link.carry(&mut self.random, datagram.len());
        if copies.is_empty() {
            self.trace.note(self.time, from, Note::Lost(&datagram));
        }
        for copy in copies {
            let mut bytes = datagram.clone();
            if let Some(bit) = copy.flipped {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            self.after(
                copy.after,
                Action::Arrive {
                    from: source,
                    to,
                    bytes,
                },
            );
        }
    }
}
