//! Two nodes, each with the kernel's WireGuard or our engine, a network between them, and the
//! invariants that are checked at each step.

use super::node::{Engine, Mind, Node};
use super::tunnel::{Datagram, Effects, Inner, Make, Millis, Session, Tunnel};
use crate::pair::Seeded;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wiremesh_control::frame::MessageType;
use wiremesh_control::kernel::KernelCommand;
use wiremesh_control::machine::{Context, Gate, Machine, Output, Slot};
use wiremesh_control::{Level, MachineStatus, Pin, Policy};
use wiremesh_wire::{Now, PresharedKey};

/// Every clock step and every delivery.
const TICK: Millis = 10;
/// A node that is cut off for longer than that after a fault is stuck.
pub const RECOVERY: Millis = 200_000;

/// A datagram on its way.
pub struct Letter {
    at: Millis,
    pub to: usize,
    pub datagram: Datagram,
}

impl Letter {
    /// Which exchange a frame in it belongs to.
    pub fn exchange(&self) -> Option<[u8; 8]> {
        match &self.datagram {
            Datagram::Data {
                inner: Inner::Control(frame),
                ..
            } => frame[4..12].try_into().ok(),
            _ => None,
        }
    }

    /// What kind of control message a frame in it belongs to.
    pub fn message(&self) -> Option<MessageType> {
        let Datagram::Data {
            inner: Inner::Control(frame),
            ..
        } = &self.datagram
        else {
            return None;
        };
        MessageType::ALL
            .into_iter()
            .find(|kind| *kind as u8 == frame[1])
    }
}

/// `true`: the network loses it.
pub type Fate = Box<dyn FnMut(Millis, &Letter) -> bool>;

pub struct World {
    pub nodes: [Node; 2],
    pub time: Millis,
    ids: u64,
    random: Seeded,
    letters: VecDeque<Letter>,
    pub fate: Fate,
    pub chatter: bool,
    /// How often the application sends when it does.
    pub chatter_every: Millis,
    /// One way.
    pub delay: Millis,
    /// Deliveries and commands so far.
    pub steps: u64,
    /// At this step, this node, off for so long.
    pub crash: Option<(u64, usize, Millis)>,
    pub crashed_at: Option<Millis>,
    /// Application data below this level is a fault, whatever the gates say.
    pub floor: Level,
    levels: BTreeMap<[u8; 32], Level>,
    numbers: u64,
    rotate_after: Duration,
    pub log: Vec<String>,
}

impl World {
    pub fn new(makes: [Make; 2]) -> Self {
        Self::with_policies(makes, [Policy::default(); 2])
    }

    pub fn with_policies(makes: [Make; 2], policies: [Policy; 2]) -> Self {
        Self::with_rotation(makes, policies, Duration::from_secs(900))
    }

    pub fn with_rotation(makes: [Make; 2], policies: [Policy; 2], rotate_after: Duration) -> Self {
        let node =
            |at: usize| Node::new(makes[at], policies[at], at, Pin::default(), 0, rotate_after);
        let mut world = Self {
            nodes: [node(0), node(1)],
            time: 0,
            ids: 0,
            random: Seeded(11),
            letters: VecDeque::new(),
            fate: Box::new(|_, _| false),
            chatter: true,
            chatter_every: 100,
            delay: 20,
            steps: 0,
            crash: None,
            crashed_at: None,
            floor: Level::PostQuantum,
            levels: BTreeMap::new(),
            numbers: 0,
            rotate_after,
            log: Vec::new(),
        };
        world.levels.insert([0; 32], Level::Classical);
        world
    }

    pub fn now(&self) -> Now {
        Node::now(self.time)
    }

    /// Runs until `end`.
    pub fn run_to(&mut self, end: Millis) {
        while self.time < end {
            self.tick();
        }
    }

    pub fn run_for(&mut self, time: Millis) {
        self.run_to(self.time + time);
    }

    /// Runs until both are up, for at most `limit`.
    pub fn run_until_up(&mut self, limit: Millis) -> Millis {
        let began = self.time;
        while !self.is_up() {
            assert!(
                self.time < began + limit,
                "not up after {limit} ms, at {} ms: {}\n{}",
                self.time,
                self.describe(),
                self.log.join("\n"),
            );
            self.tick();
        }
        self.time - began
    }

    fn tick(&mut self) {
        self.time += TICK;
        for at in 0..2 {
            if self.nodes[at]
                .off_until
                .take_if(|end| self.time >= *end)
                .is_some()
            {
                self.boot(at);
            }
            if self.nodes[at]
                .killed_until
                .take_if(|end| self.time >= *end)
                .is_some()
            {
                self.boot(at);
            }
        }
        while self.letters.front().is_some_and(|l| l.at <= self.time) {
            if let Some(letter) = self.letters.pop_front() {
                self.deliver(&letter);
            }
        }
        for at in 0..2 {
            if self.nodes[at].off_until.is_none() {
                let mut ids = self.ids;
                let effects = self.nodes[at].tunnel.tick(self.time, &mut ids);
                self.ids = ids;
                self.take(at, effects);
                self.poll(at);
            }
        }
        if self.chatter && self.time.is_multiple_of(self.chatter_every) {
            self.send_application(0);
            self.send_application(1);
        }
        self.check();
    }

    fn deliver(&mut self, letter: &Letter) {
        let to = letter.to;
        if self.nodes[to].off_until.is_some() {
            return;
        }
        self.step();
        if self.nodes[to].off_until.is_some() {
            return;
        }
        let mut ids = self.ids;
        let effects = self.nodes[to]
            .tunnel
            .handle(self.time, &letter.datagram, &mut ids);
        self.ids = ids;
        self.take(to, effects);
    }

    /// One more step; the node that is to crash at it does.
    fn step(&mut self) {
        self.steps += 1;
        if let Some((at_step, who, downtime)) = self.crash
            && at_step == self.steps
        {
            self.crashed_at = Some(self.time);
            self.power_off(who, downtime);
        }
    }

    pub fn power_off(&mut self, who: usize, downtime: Millis) {
        self.log(format!("{} crashes", ["A", "B"][who]));
        self.nodes[who].off_until = Some(self.time + downtime);
        self.nodes[who].tunnel.usable.clear();
        self.nodes[who].tunnel.next = None;
        self.nodes[who].allowed = false;
    }

    /// `kill -9` of the program of a kernel node: peer, slot and allowed IPs stay as they are, and
    /// are made anew when it is back.
    pub fn kill(&mut self, who: usize, downtime: Millis) {
        assert_eq!(self.nodes[who].make, Make::Kernel);
        self.log(format!("{} is killed", ["A", "B"][who]));
        self.nodes[who].killed_until = Some(self.time + downtime);
    }

    fn boot(&mut self, at: usize) {
        let old = &self.nodes[at];
        let mut fresh = Node::new(
            old.make,
            old.policy,
            at,
            old.pin,
            self.time,
            self.rotate_after,
        );
        fresh.sent = old.sent.clone();
        fresh.arrived = old.arrived.clone();
        fresh.replaced = old.replaced;
        self.nodes[at] = fresh;
        self.log(format!("{} is back", ["A", "B"][at]));
    }

    fn take(&mut self, at: usize, effects: Effects) {
        for datagram in effects.send {
            self.transmit(at, datagram);
        }
        if let Some(psk) = effects.usable {
            self.on_usable(at, &psk);
        }
        match effects.received {
            Some(Inner::Control(frame)) => self.on_frame(at, &frame),
            Some(Inner::Application(number)) if self.nodes[at].may_receive() => {
                self.nodes[at].arrived.insert(number, self.time);
            }
            _ => {}
        }
    }

    fn transmit(&mut self, from: usize, datagram: Datagram) {
        let letter = Letter {
            at: self.time + self.delay,
            to: 1 - from,
            datagram,
        };
        if let Datagram::Data {
            session,
            inner: Inner::Application(_),
        } = &letter.datagram
        {
            let level = self.level_of(from, *session);
            assert!(
                level >= self.floor,
                "application data below the level at {} ms: {}\n{}",
                self.time,
                self.describe(),
                self.log.join("\n"),
            );
        }
        if let Some(kind) = letter.message() {
            self.log(format!("{} sends {kind:?}", ["A", "B"][from]));
        } else if !matches!(letter.datagram, Datagram::Data { .. }) {
            let text = match &letter.datagram {
                Datagram::Initiation { .. } => "initiates",
                _ => "responds",
            };
            self.log(format!("{} {text}", ["A", "B"][from]));
        }
        if !(self.fate)(self.time, &letter) {
            self.letters.push_back(letter);
        } else {
            self.log("    ... lost".to_owned());
        }
    }

    fn level_of(&self, at: usize, session: u64) -> Level {
        let psk = self.nodes[at]
            .tunnel
            .sessions(self.time)
            .find(|s| s.id == session)
            .map(|s| *s.psk.as_bytes())
            .expect("it is sealed on a session that lives");
        self.levels.get(&psk).copied().unwrap_or(Level::PostQuantum)
    }

    pub fn log(&mut self, text: String) {
        self.log.push(format!("{:>7} {text}", self.time));
        if self.log.len() > 400 {
            self.log.remove(0);
        }
    }

    fn on_usable(&mut self, at: usize, psk: &PresharedKey) {
        self.log(format!("{} has a session", ["A", "B"][at]));
        let Mind::Engine(engine) = &self.nodes[at].mind else {
            return;
        };
        let slots = engine.primary.iter().chain(&engine.alternate);
        let epoch = slots
            .filter(|slot| slot.psk == *psk)
            .map(|slot| slot.epoch)
            .next()
            .unwrap_or(0);
        self.run_engine(at, |machine, cx| {
            machine.start(cx);
            machine.handle_session(cx, epoch);
        });
    }

    fn on_frame(&mut self, at: usize, frame: &[u8]) {
        if self.nodes[at].killed_until.is_some() {
            return;
        }
        let now = self.now();
        match &mut self.nodes[at].mind {
            Mind::Kernel(peer) => {
                peer.handle_frame(&self.nodes[at].local, now, &mut self.random, frame);
                self.carry_out(at);
            }
            Mind::Engine(_) => self.run_engine(at, |machine, cx| machine.handle_frame(cx, frame)),
        }
    }

    /// What a node does every now and then.
    fn poll(&mut self, at: usize) {
        let (time, now) = (self.time, self.now());
        let node = &mut self.nodes[at];
        if node.killed_until.is_some() {
            return;
        }
        let view = node.view();
        match &mut node.mind {
            Mind::Kernel(peer) if time >= node.poll_at => {
                peer.handle_view(&node.local, now, &mut self.random, view);
                node.poll_at = time + peer.poll_interval().as_millis() as u64;
                self.carry_out(at);
            }
            Mind::Kernel(_) => {}
            Mind::Engine(_) => {
                self.lose_sessions(at);
                self.run_engine(at, |machine, cx| machine.handle_timeout(cx));
            }
        }
    }

    fn lose_sessions(&mut self, at: usize) {
        let any = self.nodes[at].tunnel.sessions(self.time).count() > 0;
        let open = self.engine_open(at);
        let Mind::Engine(engine) = &mut self.nodes[at].mind else {
            return;
        };
        let lost = std::mem::replace(&mut engine.had_session, any) && !any;
        let lost_open = std::mem::replace(&mut engine.had_open_session, open) && !open;
        if lost {
            self.run_engine(at, |machine, cx| machine.handle_sessions_gone(cx));
        } else if lost_open {
            self.run_engine(at, |machine, cx| machine.handle_open_session_gone(cx));
        }
    }

    fn engine_open(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let Mind::Engine(engine) = &node.mind else {
            return false;
        };
        let Some(Gate::Level(gate)) = engine.gate else {
            return false;
        };
        let next = node.tunnel.next.as_ref().map(|next| next.id);
        node.tunnel
            .sessions(self.time)
            .filter(|s| Some(s.id) != next)
            .any(|s| self.level_of(at, s.id) >= gate)
    }

    fn run_engine(&mut self, at: usize, input: impl FnOnce(&mut Machine, &mut Context<'_>)) {
        let now = self.now();
        let any_session = !self.nodes[at].tunnel.usable.is_empty();
        let open_session = self.engine_open(at);
        let node = &mut self.nodes[at];
        let Mind::Engine(engine) = &mut node.mind else {
            return;
        };
        let mut out = Vec::new();
        let mut cx = Context {
            local: &node.local,
            now,
            random: &mut self.random,
            out: &mut out,
            any_session,
            open_session,
            traffic_bytes: 0,
        };
        input(&mut engine.machine, &mut cx);
        for output in out {
            self.step();
            if self.nodes[at].off_until.is_some() {
                return;
            }
            self.apply(at, output);
        }
    }

    fn apply(&mut self, at: usize, output: Output) {
        let node = &mut self.nodes[at];
        let Mind::Engine(engine) = &mut node.mind else {
            return;
        };
        match output {
            Output::Frame(frame) => {
                let mut ids = self.ids;
                let inner = Inner::Control(frame);
                let effects = node.tunnel.send(self.time, inner, |_| true, &mut ids);
                self.ids = ids;
                return self.take(at, effects);
            }
            Output::SavePin(pin) => node.pin = pin,
            Output::Candidate(slot) => engine.alternate = Some(slot),
            Output::Install(slot) => {
                let old = std::mem::replace(&mut engine.primary, slot);
                engine.alternate = old;
            }
            Output::Settle => engine.alternate = None,
            Output::SetGate(gate) => engine.gate = Some(gate),
            Output::Handshake => engine.handshake = true,
            _ => {}
        }
        let slots: Vec<&Slot> = engine.primary.iter().chain(&engine.alternate).collect();
        for slot in &slots {
            self.levels.insert(*slot.psk.as_bytes(), slot.level);
        }
        let boot = PresharedKey::default();
        node.tunnel.keys = slots.into_iter().map(|slot| slot.psk.clone()).collect();
        node.tunnel.keys.push(boot);
        if std::mem::take(&mut engine.handshake) {
            let (mut ids, mut effects) = (self.ids, Effects::default());
            node.tunnel.initiate_now(self.time, &mut ids, &mut effects);
            self.ids = ids;
            self.take(at, effects);
        }
    }

    /// Carries out what the kernel's peer wants, with a look at the invariants after each.
    fn carry_out(&mut self, at: usize) {
        let Mind::Kernel(peer) = &mut self.nodes[at].mind else {
            return;
        };
        for command in peer.poll_commands() {
            self.step();
            if self.nodes[at].off_until.is_some() {
                return;
            }
            self.log(format!("{} does {}", ["A", "B"][at], name(&command)));
            self.carry_out_one(at, command);
            self.check_floor();
        }
        self.check();
        if let Mind::Kernel(peer) = &self.nodes[at].mind {
            let next = self.time + peer.poll_interval().as_millis() as u64;
            self.nodes[at].poll_at = self.nodes[at].poll_at.min(next);
        }
    }

    fn carry_out_one(&mut self, at: usize, command: KernelCommand) {
        let level = self.status(at).suite.and_then(|suite| suite.level());
        let node = &mut self.nodes[at];
        match command {
            KernelCommand::SetPsk(psk) => {
                let level = level.unwrap_or(Level::Classical);
                self.levels.entry(*psk.as_bytes()).or_insert(level);
                node.tunnel.keys = vec![psk];
            }
            KernelCommand::Replace(psk) => {
                node.tunnel = Tunnel::new(Make::Kernel, psk);
                node.allowed = false;
                node.replaced += 1;
            }
            KernelCommand::AllowApplication(allowed) => node.allowed = allowed,
            KernelCommand::SavePin(pin) => node.pin = pin,
            KernelCommand::Send(frame) => {
                let mut ids = self.ids;
                let inner = Inner::Control(frame);
                let effects = node.tunnel.send(self.time, inner, |_| true, &mut ids);
                self.ids = ids;
                self.take(at, effects);
            }
        }
    }

    fn send_application(&mut self, at: usize) {
        let gate = match &self.nodes[at].mind {
            Mind::Kernel(_) if self.nodes[at].allowed => Level::Classical,
            Mind::Engine(Engine {
                gate: Some(Gate::Level(gate)),
                ..
            }) if self.engine_open(at) => *gate,
            _ => return,
        };
        if self.nodes[at].off_until.is_some() {
            return;
        }
        self.numbers += 1;
        let levels = self.levels.clone();
        let fits = |session: &Session| {
            let level = levels.get(session.psk.as_bytes());
            level.copied().unwrap_or(Level::PostQuantum) >= gate
        };
        let mut ids = self.ids;
        let inner = Inner::Application(self.numbers);
        let node = &mut self.nodes[at];
        node.sent.insert(self.numbers, self.time);
        let effects = node.tunnel.send(self.time, inner, fits, &mut ids);
        self.ids = ids;
        self.take(at, effects);
    }

    /// I1: the application's prefixes are in the allowed IPs only while no session lives that is
    /// below what the gate asks for, as of the last of the commands.
    fn check(&self) {
        self.check_floor();
        self.check_against(|at| match self.status(at).required {
            Gate::Level(gate) => gate,
            Gate::Closed => panic!("open for a stranger"),
        });
    }

    fn check_floor(&self) {
        self.check_against(|_| self.floor);
    }

    fn check_against(&self, least: impl Fn(usize) -> Level) {
        for (at, node) in self.nodes.iter().enumerate() {
            if !node.allowed {
                continue;
            }
            let least = least(at);
            for session in node.tunnel.sessions(self.time) {
                let level = self.level_of(at, session.id);
                assert!(
                    level >= least,
                    "open at {} ms with a session at {level}: {}\n{}",
                    self.time,
                    self.describe(),
                    self.log.join("\n"),
                );
            }
        }
    }

    pub fn status(&self, at: usize) -> MachineStatus {
        match &self.nodes[at].mind {
            Mind::Kernel(peer) => peer.status(),
            Mind::Engine(engine) => engine.machine.status(),
        }
    }

    pub fn is_open(&self, at: usize) -> bool {
        match self.nodes[at].make {
            Make::Kernel => self.nodes[at].allowed,
            Make::Engine => self.engine_open(at),
        }
    }

    /// Both gates are open, and with chatter: what was sent just now arrived.
    pub fn is_up(&self) -> bool {
        let open = self.is_open(0) && self.is_open(1);
        let heard = |at: usize| match self.chatter {
            true => self.is_heard(at),
            false => self.shares_session(at),
        };
        self.is_on() && open && heard(0) && heard(1)
    }

    /// One more handshake of a session that lives.
    pub fn handshake(&mut self, initiator: usize) {
        let (mut ids, mut effects) = (self.ids, Effects::default());
        let tunnel = &mut self.nodes[initiator].tunnel;
        tunnel.initiate_now(self.time, &mut ids, &mut effects);
        self.ids = ids;
        self.take(initiator, effects);
    }

    /// Both are running.
    pub fn is_on(&self) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.all(|node| node.off_until.is_none() && node.killed_until.is_none())
    }

    /// What `at` would send with, the other side would take.
    fn shares_session(&self, at: usize) -> bool {
        let newest = self.nodes[at].tunnel.usable.last();
        let mut theirs = self.nodes[1 - at].tunnel.sessions(self.time);
        newest.is_some_and(|newest| theirs.any(|s| s.id == newest.id))
    }

    fn is_heard(&self, at: usize) -> bool {
        let recent = self.time.saturating_sub(2 * self.chatter_every + 400);
        let heard = self.nodes[1 - at].arrived.values().next_back();
        heard.is_some_and(|last| *last >= recent)
    }

    /// Packets of the application that went off before `until` and arrived nowhere.
    pub fn lost(&self, until: Millis) -> usize {
        (0..2)
            .map(|at| {
                let [sent, arrived] = [&self.nodes[at].sent, &self.nodes[1 - at].arrived];
                let missing = |entry: &(&u64, &Millis)| !arrived.contains_key(entry.0);
                sent.iter()
                    .filter(|(_, at)| **at < until)
                    .filter(missing)
                    .count()
            })
            .sum()
    }

    pub fn set_policy(&mut self, at: usize, policy: Policy) {
        let now = self.now();
        let node = &mut self.nodes[at];
        node.policy = policy;
        node.local
            .set_policy(policy, now.unix, &mut self.random)
            .expect("a consistent policy");
        match &mut node.mind {
            Mind::Kernel(peer) => {
                peer.handle_policy(&node.local, now, &mut self.random);
                self.carry_out(at);
            }
            Mind::Engine(_) => self.run_engine(at, |machine, cx| machine.handle_policy(cx)),
        }
    }

    pub fn describe(&self) -> String {
        let side = |at: usize| {
            let status = self.status(at);
            let sessions: Vec<String> = self.nodes[at]
                .tunnel
                .sessions(self.time)
                .map(|s| format!("{}@{}", s.psk.as_bytes()[0], s.born))
                .collect();
            format!(
                "{:?} epoch {} slot {:?} sessions {sessions:?} open {}",
                status.phase,
                status.epoch,
                self.nodes[at]
                    .tunnel
                    .keys
                    .iter()
                    .map(|key| key.as_bytes()[0])
                    .collect::<Vec<_>>(),
                self.is_open(at)
            )
        };
        format!("A: {}; B: {}", side(0), side(1))
    }
}

fn name(command: &KernelCommand) -> String {
    match command {
        KernelCommand::SetPsk(psk) => format!("SetPsk({})", psk.as_bytes()[0]),
        KernelCommand::Replace(psk) => format!("Replace({})", psk.as_bytes()[0]),
        KernelCommand::AllowApplication(allowed) => format!("AllowApplication({allowed})"),
        KernelCommand::Send(_) => "Send".to_owned(),
        KernelCommand::SavePin(_) => "SavePin".to_owned(),
    }
}
