//! One end of a WireGuard tunnel, as the Linux kernel runs it, and as our engine does.
//!
//! Owns the sessions and the timers of the protocol (WireGuard paper, section 6; the kernel's
//! `noise.c`, `timers.c` and `send.c`), the bytes that the kernel counts, and what waits for a
//! session. No cryptography: a response is good if it was made with a preshared key that the
//! initiator tries.

use wiremesh_wire::PresharedKey;

/// Virtual time in milliseconds.
pub type Millis = u64;

const REKEY_AFTER: Millis = 120_000;
const REJECT_AFTER: Millis = 180_000;
const REKEY_TIMEOUT: Millis = 5_000;
const KEEPALIVE_TIMEOUT: Millis = 10_000;
const ATTEMPTS_MAX: u32 = 18;
const PERSISTENT_KEEPALIVE: Millis = 25_000;
/// Between two initiations of one peer (20 ms in the kernel).
const INITIATIONS_APART: Millis = 20;
const STAGED_MAX: usize = 128;

/// What is inside a transport packet.
#[derive(Clone, Debug)]
pub enum Inner {
    Keepalive,
    Control(Vec<u8>),
    Application(u64),
}

impl Inner {
    fn bytes(&self) -> u64 {
        let inside = match self {
            Inner::Keepalive => 0,
            Inner::Control(payload) => 48 + payload.len() as u64,
            Inner::Application(_) => 100,
        };
        32 + inside.next_multiple_of(16)
    }
}

/// What goes over the network.
#[derive(Clone, Debug)]
pub enum Datagram {
    Initiation {
        id: u64,
    },
    Response {
        initiation: u64,
        session: u64,
        psk: PresharedKey,
    },
    Data {
        session: u64,
        inner: Inner,
    },
}

impl Datagram {
    pub fn bytes(&self) -> u64 {
        match self {
            Datagram::Initiation { .. } => 148,
            Datagram::Response { .. } => 92,
            Datagram::Data { inner, .. } => inner.bytes(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Session {
    pub id: u64,
    pub psk: PresharedKey,
    pub born: Millis,
    initiator: bool,
}

/// What an input led to.
#[derive(Default)]
pub struct Effects {
    pub send: Vec<Datagram>,
    pub received: Option<Inner>,
    /// A session that can be sent with since now.
    pub usable: Option<PresharedKey>,
}

/// Which implementation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Kernel,
    Engine,
}

pub struct Tunnel {
    make: Make,
    /// The preshared keys that are tried, in this order; the kernel has one.
    pub keys: Vec<PresharedKey>,
    /// Sessions that can be sent with, oldest first; at most two in the kernel.
    pub usable: Vec<Session>,
    /// The responder's, until the first packet.
    pub next: Option<Session>,
    /// Of the peer in the kernel, from when it was added.
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub last_handshake: Option<Millis>,
    initiation: Option<u64>,
    initiated_at: Option<Millis>,
    attempts: u32,
    retry_at: Option<Millis>,
    reply_due_at: Option<Millis>,
    keepalive_at: Option<Millis>,
    another_keepalive: bool,
    persistent_at: Option<Millis>,
    consumed_at: Option<Millis>,
    /// Engine: the key of the last response, as an index, while no packet came under it.
    answered: Option<usize>,
    staged: Vec<Inner>,
}

impl Tunnel {
    pub fn new(make: Make, psk: PresharedKey) -> Self {
        Self {
            make,
            keys: vec![psk],
            usable: Vec::new(),
            next: None,
            rx_bytes: 0,
            tx_bytes: 0,
            last_handshake: None,
            initiation: None,
            initiated_at: None,
            attempts: 0,
            retry_at: None,
            reply_due_at: None,
            keepalive_at: None,
            another_keepalive: false,
            // Given with the peer, it sends one at once.
            persistent_at: Some(0),
            consumed_at: None,
            answered: None,
            staged: Vec::new(),
        }
    }

    /// All sessions under which packets are taken or sent.
    pub fn sessions(&self, now: Millis) -> impl Iterator<Item = &Session> {
        let all = self.usable.iter().chain(&self.next);
        all.filter(move |session| now < session.born + REJECT_AFTER)
    }

    fn current(&self, now: Millis, fits: impl Fn(&Session) -> bool) -> Option<Session> {
        let mut newest = self.usable.iter().rev();
        // The kernel sends with the newest or not at all.
        let depth = match self.make {
            Make::Kernel => 1,
            Make::Engine => usize::MAX,
        };
        let valid = |session: &&Session| now < session.born + REJECT_AFTER && fits(session);
        newest.by_ref().take(depth).find(valid).cloned()
    }

    /// Sends on the newest session that `fits`, or keeps it for one.
    pub fn send(
        &mut self,
        now: Millis,
        inner: Inner,
        fits: impl Fn(&Session) -> bool,
        ids: &mut u64,
    ) -> Effects {
        let mut effects = Effects::default();
        self.send_into(now, inner, &fits, ids, &mut effects);
        effects
    }

    fn send_into(
        &mut self,
        now: Millis,
        inner: Inner,
        fits: &dyn Fn(&Session) -> bool,
        ids: &mut u64,
        effects: &mut Effects,
    ) {
        let Some(session) = self.current(now, fits) else {
            if self.staged.len() == STAGED_MAX {
                self.staged.remove(0);
            }
            // Control packets of the engine are never kept, nor is what waits behind its gate.
            if self.make == Make::Kernel {
                self.staged.push(inner);
            }
            return self.initiate(now, false, ids, effects);
        };
        if !matches!(inner, Inner::Keepalive) {
            self.reply_due_at
                .get_or_insert(now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        }
        self.put(
            now,
            Datagram::Data {
                session: session.id,
                inner,
            },
            effects,
        );
        if session.initiator && now >= session.born + REKEY_AFTER {
            self.initiate(now, false, ids, effects);
        }
    }

    /// Begins a handshake unless one was begun less than 5 s ago.
    fn initiate(&mut self, now: Millis, retry: bool, ids: &mut u64, effects: &mut Effects) {
        if !retry {
            self.attempts = 0;
        }
        let too_soon = |at: Millis| now < at + REKEY_TIMEOUT;
        if self.initiated_at.is_some_and(too_soon) {
            return;
        }
        self.initiate_now(now, ids, effects);
    }

    /// Begins a handshake.
    pub fn initiate_now(&mut self, now: Millis, ids: &mut u64, effects: &mut Effects) {
        *ids += 1;
        self.initiation = Some(*ids);
        self.initiated_at = Some(now);
        // The kernel adds up to a third of a second.
        self.retry_at = Some(now + REKEY_TIMEOUT + *ids * 7919 % 334);
        self.put(now, Datagram::Initiation { id: *ids }, effects);
    }

    fn put(&mut self, now: Millis, datagram: Datagram, effects: &mut Effects) {
        self.tx_bytes += datagram.bytes();
        self.keepalive_at = None;
        self.another_keepalive = false;
        self.traverse(now);
        effects.send.push(datagram);
    }

    fn traverse(&mut self, now: Millis) {
        self.persistent_at = Some(now + PERSISTENT_KEEPALIVE);
    }

    fn on_authenticated(&mut self, now: Millis, bytes: u64) {
        self.rx_bytes += bytes;
        self.reply_due_at = None;
        self.traverse(now);
    }

    pub fn handle(&mut self, now: Millis, datagram: &Datagram, ids: &mut u64) -> Effects {
        let mut effects = Effects::default();
        match datagram {
            Datagram::Initiation { id } => self.on_initiation(now, *id, ids, &mut effects),
            Datagram::Response {
                initiation,
                session,
                psk,
            } => {
                if self.initiation == Some(*initiation) && self.keys.contains(psk) {
                    self.on_authenticated(now, datagram.bytes());
                    self.on_response(now, *session, psk, ids, &mut effects);
                }
            }
            Datagram::Data { session, inner } => {
                self.on_data(now, *session, inner, datagram.bytes(), ids, &mut effects);
            }
        }
        effects
    }

    fn on_initiation(&mut self, now: Millis, id: u64, ids: &mut u64, effects: &mut Effects) {
        let flood = |at: Millis| now < at + INITIATIONS_APART;
        if self.consumed_at.is_some_and(flood) {
            return;
        }
        self.consumed_at = Some(now);
        if self.make == Make::Kernel {
            // A response counts as an initiation of one's own, and the retry that it holds back
            // does not come later.
            self.initiated_at = Some(now);
        }
        self.on_authenticated(now, 148);
        // Rule E2: the next key, while nothing comes under the last.
        let index = self.answered.map_or(0, |last| (last + 1) % self.keys.len());
        self.answered = Some(index);
        let psk = self.keys[index].clone();
        *ids += 1;
        self.next = Some(Session {
            id: *ids,
            psk: psk.clone(),
            born: now,
            initiator: false,
        });
        // "We get rid of the existing previous one."
        if self.make == Make::Kernel && self.usable.len() > 1 {
            self.usable.remove(0);
        }
        let response = Datagram::Response {
            initiation: id,
            session: *ids,
            psk,
        };
        self.put(now, response, effects);
    }

    fn on_response(
        &mut self,
        now: Millis,
        session: u64,
        psk: &PresharedKey,
        ids: &mut u64,
        effects: &mut Effects,
    ) {
        self.initiation = None;
        if self.make == Make::Kernel
            && let Some(next) = self.next.take()
        {
            self.usable.pop();
            self.usable.push(next);
        }
        self.add(Session {
            id: session,
            psk: psk.clone(),
            born: now,
            initiator: true,
        });
        effects.usable = Some(psk.clone());
        self.on_handshake(now);
        self.flush(now, ids, effects);
    }

    fn add(&mut self, session: Session) {
        self.usable.push(session);
        if self.make == Make::Kernel && self.usable.len() > 2 {
            self.usable.remove(0);
        }
    }

    fn on_handshake(&mut self, now: Millis) {
        self.retry_at = None;
        self.attempts = 0;
        self.last_handshake = Some(now);
    }

    fn flush(&mut self, now: Millis, ids: &mut u64, effects: &mut Effects) {
        let mut staged = std::mem::take(&mut self.staged);
        if staged.is_empty() {
            staged.push(Inner::Keepalive);
        }
        for inner in staged {
            self.send_into(now, inner, &|_| true, ids, effects);
        }
    }

    fn on_data(
        &mut self,
        now: Millis,
        session: u64,
        inner: &Inner,
        bytes: u64,
        ids: &mut u64,
        effects: &mut Effects,
    ) {
        let Some(found) = self.sessions(now).find(|s| s.id == session).cloned() else {
            return;
        };
        if self.next.as_ref().is_some_and(|next| next.id == session) {
            self.next = None;
            self.answered = None;
            self.add(found.clone());
            self.on_handshake(now);
            effects.usable = Some(found.psk);
            if !self.staged.is_empty() {
                self.flush(now, ids, effects);
            }
        }
        self.on_authenticated(now, bytes);
        if !matches!(inner, Inner::Keepalive) {
            match self.keepalive_at {
                Some(_) => self.another_keepalive = true,
                None => self.keepalive_at = Some(now + KEEPALIVE_TIMEOUT),
            }
        }
        let limit = REJECT_AFTER - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;
        let newest = self.usable.last().is_some_and(|last| last.id == session);
        if newest && found.initiator && now >= found.born + limit {
            self.initiate(now, false, ids, effects);
        }
        effects.received = Some(inner.clone());
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Millis, ids: &mut u64) -> Effects {
        let mut effects = Effects::default();
        self.usable.retain(|s| now < s.born + REJECT_AFTER);
        if self.retry_at.take_if(|at| now >= *at).is_some() {
            self.attempts += 1;
            if self.attempts <= ATTEMPTS_MAX {
                self.initiate(now, true, ids, &mut effects);
            } else {
                self.staged.clear();
            }
        }
        if self.reply_due_at.take_if(|at| now >= *at).is_some() {
            self.initiate(now, false, ids, &mut effects);
        }
        if self.keepalive_at.take_if(|at| now >= *at).is_some() {
            let again = std::mem::take(&mut self.another_keepalive);
            self.send_into(now, Inner::Keepalive, &|_| true, ids, &mut effects);
            if again {
                self.keepalive_at = Some(now + KEEPALIVE_TIMEOUT);
            }
        }
        if self.persistent_at.take_if(|at| now >= *at).is_some() {
            self.traverse(now);
            self.send_into(now, Inner::Keepalive, &|_| true, ids, &mut effects);
        }
        effects
    }
}
