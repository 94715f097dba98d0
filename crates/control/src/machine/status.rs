//! What the machine tells about itself, for people and for the comparison with the model.

use super::{Admission, Exchange, Gate, Machine};
use crate::pin::Pin;
use crate::suite::{Level, SuiteId, Suites};
use core::fmt;

/// Where the control protocol with a peer stands, as the model in `docs/proofs` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing is agreed and nothing runs.
    Boot,
    /// A: OFFER is out.
    Offered,
    /// A: FIN is out.
    Finished,
    /// A: DONE came; waiting for a session under the new key.
    Switch,
    /// B: REPLY is out.
    Replied,
    /// B: FIN came; waiting for a session under the new key.
    Set,
    /// The required level is reached.
    Up,
    /// As [`Phase::Offered`], while up.
    RotateOffered,
    /// As [`Phase::Finished`], while up.
    RotateFinished,
    /// As [`Phase::Switch`], while up.
    RotateSwitch,
    /// As [`Phase::Replied`], while up.
    RotateReplied,
    /// As [`Phase::Set`], while up.
    RotateSet,
    /// Both have agreed on L1.
    Legacy,
}

/// Why a message of the peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A frame breaks a rule of fragmentation.
    Frame,
    /// The body has not the layout of its type.
    Malformed,
    /// A message of our own role: reflected, or the peer miscounts.
    WrongRole,
    /// It belongs to no exchange that runs.
    Unexpected,
    /// A signature, confirmation or MAC is wrong.
    Unauthenticated,
    /// The chosen suite is not the one that both lists give.
    WrongSuite,
    /// The list is not that of the record with the same number.
    ListDiffersFromRecord,
    /// A record that is not the peer's, not of this network, or not valid now.
    Record,
    /// A static key that the record does not name.
    WrongStaticKey,
    /// A new exchange right after the last.
    TooSoon,
    /// More costly messages than a peer may send.
    TooMany,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frame => "a frame breaks a rule of fragmentation",
            Self::Malformed => "a message has not the layout of its type",
            Self::WrongRole => "a message of the wrong role",
            Self::Unexpected => "a message that belongs to no exchange under way",
            Self::Unauthenticated => "a signature or confirmation is wrong",
            Self::WrongSuite => "the suite is not the one that both lists give",
            Self::ListDiffersFromRecord => "its list is not the one of its record",
            Self::Record => "its record is not valid here and now; look at the clocks",
            Self::WrongStaticKey => "its static key is not the one of its record",
            Self::TooSoon | Self::TooMany => "more messages than are answered",
        })
    }
}

/// What the peer is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// The exchange runs.
    Exchanging,
    /// It answers no control message: a stock WireGuard peer, or a node without this protocol.
    NoControlAnswer,
    /// The lists have no suite in common.
    NoCommonSuite {
        /// The best that the peer lists.
        theirs: Option<Level>,
    },
    /// The best suite in common is below our minimum.
    BelowMinimum {
        /// Its level.
        level: Level,
    },
    /// The best suite in common is below what the peer once promised.
    BelowPin {
        /// The promise.
        pinned: Level,
    },
    /// The best suite in common is below what the peer itself promises now.
    BelowPeersMinimum {
        /// The promise.
        promised: Level,
    },
    /// Its messages are refused.
    Rejected(Refusal),
    /// The peer is in another network.
    OtherNetwork,
    /// The application refused the proof of this stranger.
    NotAdmitted,
    /// The peer refused. Not proven: it changes nothing but this text.
    PeerRefused {
        /// Its reason, a number of docs/spec.md section 7.3.
        code: u16,
        /// The best suite that it speaks.
        highest: SuiteId,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchanging => f.write_str("agreeing on a suite"),
            Self::NoControlAnswer => f.write_str(
                "it answers no control message; if it is stock WireGuard, mark it so in the configuration",
            ),
            Self::NoCommonSuite { theirs: Some(best) } => write!(
                f,
                "no suite in common: its best is {best}, below what this node allows"
            ),
            Self::NoCommonSuite { theirs: None } => {
                f.write_str("no suite in common: this build knows none of its suites; update")
            }
            Self::BelowMinimum { level } => {
                write!(f, "the best suite in common is {level}, below the minimum")
            }
            Self::BelowPin { pinned } => write!(
                f,
                "it promised {pinned} once and offers less now; an attack, or its operator went \
                 back: ask, then `wiremesh pin lower`"
            ),
            Self::BelowPeersMinimum { promised } => {
                write!(f, "it demands {promised}; allow that level here")
            }
            Self::Rejected(refusal) => write!(f, "its messages are refused: {refusal}"),
            Self::OtherNetwork => f.write_str("it is in another network"),
            Self::NotAdmitted => f.write_str("the application did not admit it"),
            Self::PeerRefused { code, highest } => {
                let why = match code {
                    1 => "no suite in common",
                    2 => "what we offer is below its minimum, or below what we promised it once",
                    3 => "our copy of its record is old",
                    4 => "it is busy",
                    5 => "it has retired what we offer; update, or move to a newer stage",
                    6 => "it is in another network",
                    7 => "it did not admit us",
                    _ => "for a reason that this build does not know",
                };
                write!(f, "it refuses: {why} (the best it speaks is {highest})")
            }
        }
    }
}

/// A snapshot.
#[derive(Clone, Copy, Debug)]
pub struct MachineStatus {
    /// What is agreed: the suite of the key in the slot, or WireGuard alone.
    pub suite: Option<SuiteId>,
    /// Epoch of the key in the slot; 0 is the boot key.
    pub epoch: u32,
    /// Since when it is there, Unix seconds.
    pub since: Option<u64>,
    /// What application data needs.
    pub required: Gate,
    /// What is remembered for good.
    pub pin: Pin,
    /// What the peer listed last.
    pub theirs: Option<Suites>,
    /// Why the peer waits and since when, Unix seconds.
    pub waiting: Option<(WaitReason, u64)>,
    /// Where the protocol stands.
    pub phase: Phase,
    /// Whether the application has yet to admit it.
    pub stranger: bool,
}

impl Machine {
    /// A snapshot.
    #[must_use]
    pub fn status(&self) -> MachineStatus {
        let suite = match (&self.slot, self.legacy) {
            (Some(slot), _) => Some(slot.suite),
            (None, true) => Some(SuiteId::WIREGUARD),
            (None, false) => None,
        };
        MachineStatus {
            suite,
            epoch: self.slot.map_or(0, |slot| slot.epoch),
            since: self
                .slot
                .map(|slot| slot.since_unix)
                .or(self.legacy.then_some(self.legacy_since)),
            required: self.gate.unwrap_or(Gate::Closed),
            pin: self.pin,
            theirs: self.theirs,
            waiting: self.waiting,
            phase: self.phase(),
            stranger: self.admission != Admission::Admitted,
        }
    }

    /// Whether both ends take stream packets without IP and UDP headers. Only beside a key: what
    /// goes on a session under it goes to the very process that announced them, while at L1 a
    /// session says nothing of who answers today.
    #[must_use]
    pub fn agrees_on_bare_streams(&self) -> bool {
        self.bare_streams && self.slot.is_some()
    }

    /// The pin as it is now.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Whether no exchange is under way that a new one would disturb.
    pub(super) fn is_free(&self) -> bool {
        match self.exchange {
            Exchange::None | Exchange::Live(..) => true,
            Exchange::Switch(_) | Exchange::Set(_) => !self.urgent,
            _ => false,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let up = self.open && !self.legacy;
        match (&self.exchange, up) {
            (Exchange::Offered(..) | Exchange::Held(..) | Exchange::KeyWanted(_), true) => {
                Phase::RotateOffered
            }
            (Exchange::Offered(..) | Exchange::Held(..) | Exchange::KeyWanted(_), false) => {
                Phase::Offered
            }
            (Exchange::Finished(..), true) => Phase::RotateFinished,
            (Exchange::Finished(..), false) => Phase::Finished,
            (Exchange::Switch(_), true) => Phase::RotateSwitch,
            (Exchange::Switch(_), false) => Phase::Switch,
            (Exchange::Replied(..), true) => Phase::RotateReplied,
            (Exchange::Replied(..), false) => Phase::Replied,
            (Exchange::Set(_), _) if self.legacy => Phase::Legacy,
            (Exchange::Set(_), true) => Phase::RotateSet,
            (Exchange::Set(_), false) => Phase::Set,
            _ if self.legacy => Phase::Legacy,
            (_, true) => Phase::Up,
            (_, false) => Phase::Boot,
        }
    }
}
