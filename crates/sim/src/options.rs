//! What a simulation does, what it may break on purpose, and what it reports.
//!
//! Owns plain values. Everything that is not set here follows from the seed.

use std::fmt;
use std::time::Duration;

/// How a simulation is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether each step is printed to standard output.
    pub trace: bool,
    /// A fault of the simulator itself, which its checks must notice.
    pub mutation: Option<Mutation>,
    /// Bytes that steer the first decisions, for a fuzzer; empty for none.
    pub script: Vec<u8>,
    /// Whether most nodes run the control protocol, under policies that change. Default: none does.
    pub control: bool,
    /// Virtual time with impairments, faults and attacks. Default: 100 s to 400 s by the seed.
    pub chaos: Option<Duration>,
}

/// A fault of the simulator: a run with it must fail under the named [`Rule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A decrypted packet is handed over twice: [`Rule::DeliveredOnce`].
    DeliverTwice,
    /// A decrypted packet is damaged: [`Rule::Genuine`].
    DamagePacket,
    /// A decrypted packet is said to come from another peer: [`Rule::Genuine`].
    SwapSender,
    /// A datagram is sealed twice under one nonce: [`Rule::NonceOnce`].
    RepeatNonce,
    /// An endpoint is moved to where only junk came from: [`Rule::EndpointAuthenticated`].
    StealEndpoint,
    /// A datagram is sent to a stranger unasked: [`Rule::NoAmplification`].
    AnswerTooMuch,
    /// One link stays down after healing: [`Rule::TrafficHeals`].
    LeaveLinkDown,
    /// A packet from outside the allowed IPs is handed over: [`Rule::SourceAllowed`].
    IgnoreAllowedIps,
    /// A node lets data pass whatever the level: [`Rule::NothingBelowLevel`].
    OpenGateEarly,
    /// After healing nothing longer than a handshake message passes, so no exchange can end:
    /// [`Rule::LevelReached`].
    CutLongDatagrams,
}

impl Mutation {
    /// Those of every run, with the rule that each breaks.
    pub const ALL: [(Mutation, Rule); 8] = [
        (Mutation::DeliverTwice, Rule::DeliveredOnce),
        (Mutation::DamagePacket, Rule::Genuine),
        (Mutation::SwapSender, Rule::Genuine),
        (Mutation::RepeatNonce, Rule::NonceOnce),
        (Mutation::StealEndpoint, Rule::EndpointAuthenticated),
        (Mutation::AnswerTooMuch, Rule::NoAmplification),
        (Mutation::LeaveLinkDown, Rule::TrafficHeals),
        (Mutation::IgnoreAllowedIps, Rule::SourceAllowed),
    ];

    /// Those that need [`Options::control`].
    pub const CONTROL: [(Mutation, Rule); 2] = [
        (Mutation::OpenGateEarly, Rule::NothingBelowLevel),
        (Mutation::CutLongDatagrams, Rule::LevelReached),
    ];
}

/// An invariant. Those that speak of healing and quiet are checked then, the others at every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What is delivered was sent, unchanged, by the owner of the key it is attributed to.
    Genuine,
    /// A packet is delivered at most once.
    DeliveredOnce,
    /// A nonce is used once per key, and nonces leave in order.
    NonceOnce,
    /// No ephemeral key is used for two handshake messages.
    EphemeralOnce,
    /// The source of a delivered packet is within the peer's allowed IPs.
    SourceAllowed,
    /// Peers, strangers, indices, queues and events stay within their limits.
    WithinLimits,
    /// Never more bytes go to an unauthenticated source than came from it.
    NoAmplification,
    /// An endpoint is one that was configured, or one that authenticated data came from.
    EndpointAuthenticated,
    /// A session was made under a preshared key that was set.
    PskEpochKnown,
    /// Two initiations to one peer are at least 40 ms apart.
    InitiationsApart,
    /// Timestamps rise, and are below the floor that is saved.
    TimestampsRise,
    /// Deadlines lie ahead: a node does not ask to be called again and again.
    TimersAdvance,
    /// After healing each packet arrives, both ways, under the newest preshared key.
    TrafficHeals,
    /// No application byte leaves, and none is delivered, below the level that policies, promises
    /// and lists demand.
    NothingBelowLevel,
    /// The spy can follow each handshake: a check that goes blind would find nothing.
    SpyFollows,
    /// No two live nodes that talk stay below their common level for more than 200 s.
    LevelReached,
    /// The control protocol moves as its model allows.
    KnownTransition,
    /// When all has been quiet long enough, nothing is left of sessions and handshakes.
    StateFreed,
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// Whether it was run with [`Options::control`].
    pub control: bool,
    /// Virtual time since the start.
    pub at: Duration,
    /// Which invariant.
    pub rule: Rule,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed;
        let (option, variable) = match self.control {
            true => ("--control ", "WIREMESH_SIM_CONTROL_SEED"),
            false => ("", "WIREMESH_SIM_SEED"),
        };
        write!(
            f,
            "seed {seed} broke {:?} at {:.6} s: {}\n  \
             again: cargo run -p wiremesh-sim -- {option}--seed {seed} --trace\n  \
             as a test: {variable}={seed} cargo test -p wiremesh-sim",
            self.rule,
            self.at.as_secs_f64(),
            self.detail,
        )
    }
}

impl std::error::Error for Failure {}

/// What happened in a run in which every invariant held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// BLAKE2s-256 over everything that happened, in order.
    pub trace_hash: [u8; 32],
    /// Nodes.
    pub nodes: usize,
    /// Virtual time, all phases.
    pub virtual_time: Duration,
    /// Application packets taken by a node.
    pub sent: u64,
    /// Application packets delivered.
    pub delivered: u64,
    /// Datagrams that nodes sent.
    pub datagrams: u64,
    /// Datagrams that the attacker sent.
    pub attacks: u64,
    /// Faults: restarts, clock jumps, address changes and the like.
    pub faults: u64,
    /// Handshakes completed, both sides counted.
    pub handshakes: u64,
    /// Changes of policy at run time.
    pub policy_changes: u64,
    /// Ordered pairs of nodes with a level in common at the end, by level from L1.
    pub levels: [u64; 3],
    /// Ordered pairs that must not talk by their policies and promises.
    pub closed: u64,
    /// Exchanges that ended in a new preshared key, both sides counted.
    pub agreements: u64,
}
