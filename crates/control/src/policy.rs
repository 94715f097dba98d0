//! What this node lists, promises and demands.
//!
//! Owns the stages of an upgrade and the rule for the required level. docs/spec.md sections 7.2
//! and 7.5.

use crate::pin::Pin;
use crate::suite::{Level, SuiteId, Suites, choose};
use core::fmt;
use core::str::FromStr;

/// Where a node stands in the upgrade from L1 to post-quantum suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Stage {
    /// Lists the old suite only.
    OldOnly,
    /// Lists both, so that the new one is used with all who list it. The default.
    #[default]
    Both,
    /// Lists both, the old one first; matters between two suites of one level.
    BothPreferOld,
    /// Lists the new ones only and promises never to go back: peers pin that.
    NewOnly,
}

impl Stage {
    /// All stages, in the order of an upgrade.
    pub const ALL: [Stage; 4] = [
        Stage::OldOnly,
        Stage::BothPreferOld,
        Stage::Both,
        Stage::NewOnly,
    ];

    /// The name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::OldOnly => "old-only",
            Stage::Both => "both",
            Stage::BothPreferOld => "both-prefer-old",
            Stage::NewOnly => "new-only",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Stage {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.name() == text.trim())
            .ok_or(PolicyError::UnknownStage)
    }
}

/// What a node lists and demands. Can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// No application data flows below this level. Default L2.
    pub minimum: Level,
    /// What is listed and promised. Default [`Stage::Both`].
    pub stage: Stage,
    /// Whether the node has a static ML-KEM key and lists the L3 suite. Default: no.
    pub static_kem: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            minimum: Level::PostQuantum,
            stage: Stage::default(),
            static_kem: false,
        }
    }
}

/// Why a policy contradicts itself. The operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// The stage's suites are all below the minimum.
    NothingListed {
        /// The minimum.
        minimum: Level,
        /// The stage.
        stage: Stage,
    },
    /// L3 is demanded without a static key.
    NoStaticKey,
    /// No such stage.
    UnknownStage,
    /// The node was started without the control protocol.
    NoControl,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingListed { minimum, stage } => write!(
                f,
                "stage {stage} lists nothing of {minimum} or better; lower the minimum or move on"
            ),
            Self::NoStaticKey => f.write_str("minimum L3 needs the static ML-KEM key turned on"),
            Self::NoControl => f.write_str("this node runs without the control protocol"),
            Self::UnknownStage => {
                f.write_str("a stage is old-only, both-prefer-old, both or new-only")
            }
        }
    }
}

impl core::error::Error for PolicyError {}

impl Policy {
    /// The policy of a stage, with the lowest minimum that the stage allows.
    #[must_use]
    pub fn at(stage: Stage) -> Self {
        let minimum = match stage {
            Stage::NewOnly => Level::PostQuantum,
            _ => Level::Classical,
        };
        Self {
            minimum,
            stage,
            static_kem: false,
        }
    }

    /// The suites to list: those of the stage that the minimum allows.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if none is left.
    pub fn suites(&self) -> Result<Suites, PolicyError> {
        if self.minimum == Level::PostQuantumAuthenticated && !self.static_kem {
            return Err(PolicyError::NoStaticKey);
        }
        let new = [SuiteId::HYBRID_STATIC, SuiteId::HYBRID];
        let old = [SuiteId::WIREGUARD];
        let (first, second): (&[_], &[_]) = match self.stage {
            Stage::OldOnly => (&old, &[]),
            Stage::Both => (&new, &old),
            Stage::BothPreferOld => (&old, &new),
            Stage::NewOnly => (&new, &[]),
        };
        let allowed = |suite: &SuiteId| {
            suite.level() >= Some(self.minimum)
                && (self.static_kem || *suite != SuiteId::HYBRID_STATIC)
        };
        let listed = first.iter().chain(second).copied().filter(allowed);
        Suites::new(listed).map_err(|_| PolicyError::NothingListed {
            minimum: self.minimum,
            stage: self.stage,
        })
    }

    /// What application data needs at least: what is promised to peers holds for the node itself.
    #[must_use]
    pub fn demanded(&self) -> Level {
        self.minimum.max(self.promised())
    }

    /// The `min_level` of our record: what peers may pin.
    #[must_use]
    pub fn promised(&self) -> Level {
        match self.stage {
            Stage::NewOnly => self.minimum.max(Level::PostQuantum),
            _ => Level::Classical,
        }
    }
}

/// The level that application data with a peer needs:
/// `max(minimum, min(pin, our best), level of the best suite in common)`.
///
/// `in_common` are A's list and B's, once the peer's is known from a signed message or a fresh
/// record.
#[must_use]
pub fn required_level(minimum: Level, pin: &Pin, ours: &Suites, theirs: Option<&Suites>) -> Level {
    let best = ours.best_level().unwrap_or(Level::Classical);
    let pinned = pin.level.min(best);
    let common = theirs
        .and_then(|theirs| choose(ours, theirs))
        .and_then(SuiteId::level)
        .unwrap_or(Level::Classical);
    minimum.max(pinned).max(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_lists_and_promises_what_the_specification_says() {
        use SuiteId as S;
        let cases: [(Stage, &[S], Level); 4] = [
            (Stage::OldOnly, &[S::WIREGUARD], Level::Classical),
            (Stage::Both, &[S::HYBRID, S::WIREGUARD], Level::Classical),
            (
                Stage::BothPreferOld,
                &[S::WIREGUARD, S::HYBRID],
                Level::Classical,
            ),
            (Stage::NewOnly, &[S::HYBRID], Level::PostQuantum),
        ];
        for (stage, listed, promised) in cases {
            let policy = Policy::at(stage);
            assert_eq!(policy.suites().expect("consistent").as_slice(), listed);
            assert_eq!(policy.promised(), promised, "{stage}");
            assert_eq!(stage.name().parse(), Ok(stage));
        }
        let default = Policy::default().suites().expect("consistent");
        assert_eq!(default.as_slice(), [S::HYBRID], "the default minimum is L2");
    }

    #[test]
    fn a_policy_that_lists_nothing_is_refused() {
        let policy = Policy {
            stage: Stage::OldOnly,
            ..Policy::default()
        };
        assert!(matches!(
            policy.suites(),
            Err(PolicyError::NothingListed { .. })
        ));
        let policy = Policy {
            minimum: Level::PostQuantumAuthenticated,
            ..Policy::default()
        };
        assert_eq!(policy.suites(), Err(PolicyError::NoStaticKey));
    }

    #[test]
    fn the_required_level_is_the_highest_of_minimum_pin_and_common() {
        use Level::{Classical, PostQuantum, PostQuantumAuthenticated};
        let old = Policy::at(Stage::OldOnly).suites().expect("consistent");
        let both = Policy::at(Stage::Both).suites().expect("consistent");
        let pinned = |level| Pin {
            level,
            ..Pin::default()
        };
        let cases = [
            (Classical, Classical, both, None, Classical),
            (Classical, Classical, both, Some(both), PostQuantum),
            (Classical, Classical, both, Some(old), Classical),
            (Classical, PostQuantum, both, Some(old), PostQuantum),
            (Classical, PostQuantumAuthenticated, both, None, PostQuantum),
            (PostQuantum, Classical, both, None, PostQuantum),
            (Classical, PostQuantum, old, Some(old), Classical),
        ];
        for (minimum, pin, ours, theirs, expected) in cases {
            let level = required_level(minimum, &pinned(pin), &ours, theirs.as_ref());
            assert_eq!(level, expected, "{minimum} {pin} {ours:?} {theirs:?}");
        }
    }
}
