//! A network that a test arranges itself: chosen policies, chosen faults, numbered messages.
//!
//! Owns hosts, virtual time and what is on its way, for two nodes or two thousand. Node ids rise
//! with the numbers of the hosts, so of two the smaller number is A. The same `Watch` as in
//! random runs looks at every datagram. Nothing goes wrong unless the test says so.

mod messages;
mod operator;

pub use messages::{Messages, Slowest};

use crate::host::{Host, Wanted};
use crate::levels::Terms;
use crate::link::{Link, Profile, SECOND};
use crate::options::{Failure, Rule};
use crate::random::Random;
use crate::spy::{Heard, Inside};
use crate::watch::{Person, Watch};
use messages::Message;
use operator::make_host;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh_control::frame::MessageType;
use wiremesh_control::{Level, Phase, Policy};
use wiremesh_core::{Event, PeerSecurity, Transmit};
use wiremesh_noise::LocalIdentity;
use wiremesh_wire::SecretKey;

/// Sessions are over by then, so the spy forgets them.
const SPY_MEMORY: u64 = 400 * SECOND;

/// What is the same for the whole network.
#[derive(Clone, Copy, Debug)]
pub struct LabOptions {
    /// Everything by chance follows from it.
    pub seed: u64,
    /// One way. Default 20 ms.
    pub delay: Duration,
    /// Datagrams lost, in a thousand. Default 0.
    pub loss: u32,
    /// A preshared key is replaced after this much use. Default 15 minutes.
    pub rotate_after: Duration,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            delay: Duration::from_millis(20),
            loss: 0,
            rotate_after: Duration::from_secs(900),
        }
    }
}

/// What a datagram is, as far as the spy can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A handshake initiation.
    Initiation,
    /// A handshake response; whether the boot key made it.
    Response {
        /// It did.
        boot: bool,
    },
    /// A message of the control protocol under the boot key.
    Control(MessageType),
    /// Anything on a session that another key made.
    Sealed,
    /// A keepalive or application data under the boot key, a cookie.
    Other,
}

/// A datagram on its way.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    /// Who sent it.
    pub from: usize,
    /// Whom it will reach.
    pub to: usize,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub len: usize,
}

/// What a host starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All that it wrote.
    WithDisk,
    /// Nothing.
    WithoutDisk,
    /// The state of [`Lab::back_up`].
    FromBackup,
}

enum Action {
    Arrive {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Message {
        from: usize,
        to: usize,
    },
}

type Filter = Box<dyn FnMut(&Passing) -> bool>;

/// The network.
pub struct Lab {
    options: LabOptions,
    random: Random,
    time: u64,
    serial: u64,
    queue: BTreeMap<(u64, u64), Action>,
    timers: BTreeSet<(u64, usize)>,
    timer_of: Vec<Option<u64>>,
    hosts: Vec<Host>,
    up: Vec<bool>,
    places: BTreeMap<SocketAddr, usize>,
    links: BTreeMap<(usize, usize), Link>,
    watch: Watch,
    forgotten_at: u64,
    filter: Option<Filter>,
    messages: Messages,
    every: Option<u64>,
    /// The message whose packet the node is being given.
    sending: Option<usize>,
    moves: u16,
}

fn place_of(host: usize, moves: u16) -> SocketAddr {
    let [high, low] = (host as u16).to_be_bytes();
    SocketAddr::from(([10, 77, high, low], 51_820 + moves))
}

fn secrets(random: &mut Random, count: usize) -> Vec<[u8; 32]> {
    let with_id = |secret: [u8; 32]| {
        let identity = LocalIdentity::new(SecretKey::from_bytes(secret));
        (
            identity
                .expect("a random secret key has a public one")
                .node_id(),
            secret,
        )
    };
    let mut secrets: Vec<_> = (0..count).map(|_| with_id(random.bytes32())).collect();
    secrets.sort_by_key(|(id, _)| *id);
    secrets.into_iter().map(|(_, secret)| secret).collect()
}

impl Lab {
    /// Nodes under these policies that do not know each other yet.
    ///
    /// # Panics
    ///
    /// If a policy contradicts itself.
    pub fn new(options: LabOptions, policies: &[Policy]) -> Self {
        let mut random = Random::new(options.seed, Vec::new());
        let secrets = secrets(&mut random, policies.len());
        let hosts: Vec<Host> = policies
            .iter()
            .zip(secrets)
            .enumerate()
            .map(|(number, (policy, secret))| {
                make_host(&mut random, number, secret, *policy, options.rotate_after)
            })
            .collect();
        let person = |host: &Host| Person {
            id: host.id,
            secret: host.secret,
            seed: host.seed,
            policy: host.suites.as_ref().map(|suites| suites.policy),
        };
        let people: Vec<Person> = hosts.iter().map(person).collect();
        let places = hosts.iter().enumerate();
        let mut lab = Self {
            options,
            random,
            time: 0,
            serial: 0,
            queue: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: vec![None; hosts.len()],
            up: vec![true; hosts.len()],
            places: places
                .map(|(number, host)| (host.address, number))
                .collect(),
            links: BTreeMap::new(),
            watch: Watch::new(&people),
            forgotten_at: 0,
            filter: None,
            messages: Messages::default(),
            every: None,
            sending: None,
            moves: 0,
            hosts,
        };
        (0..lab.len()).for_each(|host| lab.follow(host));
        lab
    }

    /// The spy sees what a node drew since the last step.
    fn follow(&mut self, host: usize) {
        let h = &self.hosts[host];
        let (now, draws) = (h.now(self.time), h.node.random_draws());
        self.watch.on_step(host, now, draws);
    }

    /// Lets two nodes know each other and where they are.
    pub fn introduce(&mut self, a: usize, b: usize) {
        for (own, other) in [(a, b), (b, a)] {
            let endpoint = Some(self.hosts[other].address);
            let wanted = Wanted {
                endpoint,
                psk_epoch: 0,
                keepalive: None,
                present: true,
                stranger: false,
                terms: Terms::default(),
            };
            self.hosts[own].wanted.insert(other, wanted);
            self.add_peer(own, other);
        }
        let profile = Profile {
            delay: self.options.delay.as_nanos() as u64,
            loss: self.options.loss,
            mtu_bytes: usize::MAX,
            ..Profile::default()
        };
        self.links.insert((a.min(b), a.max(b)), Link::new(profile));
    }

    fn add_peer(&mut self, own: usize, other: usize) {
        let (time, id) = (self.time, self.hosts[other].id);
        self.hosts[own].add_peer(time, own, other, id);
        self.follow(own);
    }

    /// Virtual time since the start.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.time)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Pairs that know each other, the smaller number first.
    pub fn links(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.links.keys().copied()
    }

    /// What was sent, and what became of it.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Whether a host runs.
    pub fn is_up(&self, host: usize) -> bool {
        self.up[host]
    }

    /// The policy of a host.
    pub fn policy(&self, host: usize) -> Option<Policy> {
        self.hosts[host].node.policy()
    }

    /// What a node says of its peer.
    pub fn security(&self, host: usize, other: usize) -> Option<PeerSecurity> {
        let h = &self.hosts[host];
        let key = h.node.peer_by_id(&self.hosts[other].id)?;
        h.node.security(h.now(self.time), key)
    }

    /// The level on which a node sends data to another; `None` while it cannot.
    pub fn level(&self, host: usize, other: usize) -> Option<Level> {
        self.security(host, other)?.level.filter(|_| self.up[host])
    }

    /// The lower of the levels of both directions.
    pub fn level_of_link(&self, (a, b): (usize, usize)) -> Option<Level> {
        self.level(a, b).min(self.level(b, a))
    }

    /// Where the control protocol stands at a node.
    pub fn phase(&self, host: usize, other: usize) -> Option<Phase> {
        self.security(host, other)?.phase
    }

    /// Epoch of the preshared key that made the session in use.
    pub fn epoch(&self, host: usize, other: usize) -> Option<u32> {
        self.security(host, other)?.psk_epoch
    }

    /// From now on, loses each datagram of which `lost` says so.
    pub fn lose(&mut self, lost: impl FnMut(&Passing) -> bool + 'static) {
        self.filter = Some(Box::new(lost));
    }

    /// The end of [`Lab::lose`].
    pub fn lose_no_more(&mut self) {
        self.filter = None;
    }

    /// From now on, each node sends each of its peers a numbered message once in this time.
    pub fn send_every(&mut self, every: Duration) {
        let every = every.as_nanos() as u64;
        if self.every.replace(every).is_some() {
            return;
        }
        let pairs: Vec<(usize, usize)> = self.links().collect();
        for (a, b) in pairs {
            for (from, to) in [(a, b), (b, a)] {
                let delay = self.random.below(every);
                self.after(delay, Action::Message { from, to });
            }
        }
    }

    /// The end of [`Lab::send_every`].
    pub fn send_no_more(&mut self) {
        self.every = None;
    }

    fn after(&mut self, delay: u64, action: Action) {
        self.serial += 1;
        self.queue.insert((self.time + delay, self.serial), action);
    }

    fn failure(&self, (rule, detail): (Rule, String)) -> Box<Failure> {
        Box::new(Failure {
            seed: self.options.seed,
            control: true,
            at: self.time(),
            rule,
            detail,
        })
    }

    /// Lets time pass.
    ///
    /// # Errors
    ///
    /// The first broken invariant.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Box<Failure>> {
        let end = self.time + time.as_nanos() as u64;
        while self.step(end)? {}
        self.time = end;
        Ok(())
    }

    /// Lets time pass until something holds; `false` if it did not within `time`.
    ///
    /// # Errors
    ///
    /// The first broken invariant.
    pub fn run_until(
        &mut self,
        time: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<bool, Box<Failure>> {
        let end = self.time + time.as_nanos() as u64;
        loop {
            if holds(self) {
                return Ok(true);
            }
            if !self.step(end)? {
                self.time = end;
                return Ok(holds(self));
            }
        }
    }

    /// Does what is next, if it is due by `end`.
    fn step(&mut self, end: u64) -> Result<bool, Box<Failure>> {
        let timer = self.timers.first().copied();
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let done = match (timer, queued) {
            (Some((at, host)), queued) if at <= end && queued.is_none_or(|other| at <= other) => {
                self.time = self.time.max(at);
                let now = self.hosts[host].now(self.time);
                self.hosts[host].node.handle_timeout(now);
                self.drain(host)
            }
            (_, Some(at)) if at <= end => {
                self.time = self.time.max(at);
                let (_, action) = self.queue.pop_first().expect("it was seen just now");
                self.perform(action)
            }
            _ => return Ok(false),
        };
        if self.time > self.forgotten_at + SPY_MEMORY / 4 {
            self.forgotten_at = self.time;
            let before = self.time.saturating_sub(SPY_MEMORY);
            self.watch.spy.forget_before(before);
        }
        done.map(|()| true).map_err(|broken| self.failure(broken))
    }

    fn perform(&mut self, action: Action) -> Result<(), (Rule, String)> {
        match action {
            Action::Arrive { from, to, bytes } => self.on_arrival(from, to, bytes),
            Action::Message { from, to } => {
                if let Some(every) = self.every {
                    self.after(every, Action::Message { from, to });
                    if self.up[from] {
                        return self.send_message(from, to);
                    }
                }
                Ok(())
            }
        }
    }

    fn send_message(&mut self, from: usize, to: usize) -> Result<(), (Rule, String)> {
        let ends = (self.hosts[from].id, self.hosts[to].id);
        let (number, packet) = self.messages.make(self.time, (from, to), ends);
        let now = self.hosts[from].now(self.time);
        self.sending = Some(number);
        let taken = self.hosts[from].node.handle_packet(now, packet);
        if taken.is_err() {
            self.messages.of(number).refused = true;
        }
        let drained = self.drain(from);
        self.sending = None;
        drained
    }

    fn on_arrival(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        mut bytes: Vec<u8>,
    ) -> Result<(), (Rule, String)> {
        let there = self.places.get(&to).copied().filter(|host| self.up[*host]);
        let Some(host) = there else {
            return Ok(());
        };
        let datagram = bytes.clone();
        let h = &mut self.hosts[host];
        let (now, path) = (h.now(self.time), h.path_from(from));
        let received = h.node.handle_datagram(now, path, &mut bytes);
        if let Some(received) = received {
            let number = self.messages.deliver(self.time, &bytes[received.packet]);
            let number = number.map_err(|detail| (Rule::Genuine, detail))?;
            let Message { from, to, .. } = *self.messages.of(number);
            if to != host {
                let detail = format!("message {number} to node {to} reached node {host}");
                return Err((Rule::Genuine, detail));
            }
            self.watch.on_delivered(host, from, self.time, &datagram)?;
        }
        self.drain(host)
    }

    /// Takes everything out of a node, and notes when it wants to be called.
    fn drain(&mut self, host: usize) -> Result<(), (Rule, String)> {
        self.follow(host);
        loop {
            while let Some(event) = self.hosts[host].node.poll_event() {
                self.hosts[host].write(&event);
                if let Event::ControlMoved {
                    role,
                    from,
                    event,
                    to,
                    ..
                } = event
                {
                    Watch::on_moved(host, role, (from, event, to))?;
                }
            }
            match self.hosts[host].node.poll_transmit() {
                Some(transmit) => self.on_transmit(host, transmit)?,
                None => break,
            }
        }
        self.schedule(host);
        Ok(())
    }

    fn schedule(&mut self, host: usize) {
        let next = self.hosts[host].next_timer().filter(|_| self.up[host]);
        let before = std::mem::replace(&mut self.timer_of[host], next);
        if before != next {
            before.map(|at| self.timers.remove(&(at, host)));
            next.map(|at| self.timers.insert((at, host)));
        }
    }

    fn on_transmit(&mut self, from: usize, transmit: Transmit) -> Result<(), (Rule, String)> {
        let Transmit { path, datagram, .. } = transmit;
        let heard = self
            .watch
            .on_sent(from, self.time, &datagram, &self.hosts[from].disk)?;
        let Some(to) = self.places.get(&path.remote).copied() else {
            return Ok(());
        };
        let kind = kind_of(heard);
        let len = datagram.len();
        let passing = Passing {
            from,
            to,
            kind,
            len,
        };
        let filtered = self.filter.as_mut().is_some_and(|lost| lost(&passing));
        let link = self.links.get_mut(&(from.min(to), from.max(to)));
        let copies = link.map(|link| link.carry(&mut self.random, len));
        let copies = copies.filter(|copies| !copies.is_empty() && !filtered);
        let Some(copies) = copies else {
            if let Some(number) = self.sending.filter(|_| datagram.first() == Some(&4)) {
                let message = self.messages.of(number);
                message.lost_on_the_way |= len >= message.datagram_len;
            }
            return Ok(());
        };
        for copy in copies {
            let arrival = Action::Arrive {
                from: self.hosts[from].address,
                to: path.remote,
                bytes: datagram.clone(),
            };
            self.after(copy.after, arrival);
        }
        Ok(())
    }
}

fn kind_of(heard: Heard) -> Kind {
    match heard {
        Heard::Initiation => Kind::Initiation,
        Heard::Response { boot, .. } => Kind::Response { boot },
        Heard::Sealed => Kind::Sealed,
        Heard::Boot {
            inside: Inside::Control { kind, .. },
            ..
        } => Kind::Control(kind),
        Heard::Boot { .. } | Heard::Noise => Kind::Other,
    }
}
