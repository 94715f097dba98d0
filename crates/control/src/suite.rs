//! Suites, their levels, and how one is computed from two lists.
//!
//! Owns the numbers. A suite is a whole fixed version; there is no menu of ciphers.
//! docs/spec.md section 7.

use core::fmt;
use core::str::FromStr;

/// How strong a session is protected. Policy and pins speak of levels, never of suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Level {
    /// L1: WireGuard v1. X25519 only: what is recorded now can be read by a quantum computer.
    Classical = 1,
    /// L2: X25519 and ML-KEM-768. What is recorded now stays secret; authentication is classical.
    PostQuantum = 2,
    /// L3: as L2, with static ML-KEM keys: authentication too, once the peer's record is pinned.
    PostQuantumAuthenticated = 3,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 3] = [
        Level::Classical,
        Level::PostQuantum,
        Level::PostQuantumAuthenticated,
    ];

    /// The level of a number; `None` for one that is not defined.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.number() == number)
    }

    /// 1 to 3.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The short name: `L1`, `L2`, `L3`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Classical => "L1",
            Level::PostQuantum => "L2",
            Level::PostQuantumAuthenticated => "L3",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text is no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLevelError;

impl fmt::Display for ParseLevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a level is L1, L2 or L3")
    }
}

impl core::error::Error for ParseLevelError {}

impl FromStr for Level {
    type Err = ParseLevelError;

    /// Reads `L1`, `L2` or `L3`, in either case.
    fn from_str(text: &str) -> Result<Self, ParseLevelError> {
        Self::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(text.trim()))
            .ok_or(ParseLevelError)
    }
}

/// The number of a suite. Any number can be offered; only known ones are ever chosen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SuiteId(pub u16);

impl SuiteId {
    /// WireGuard v1 alone: L1.
    pub const WIREGUARD: SuiteId = SuiteId(0x0001);
    /// WireGuard v1 with a PSK from X25519 and ML-KEM-768: L2.
    pub const HYBRID: SuiteId = SuiteId(0x0002);
    /// The same with static ML-KEM-768 keys both ways: L3.
    pub const HYBRID_STATIC: SuiteId = SuiteId(0x0003);

    /// What this build speaks, best first.
    pub const KNOWN: [SuiteId; 3] = [Self::HYBRID_STATIC, Self::HYBRID, Self::WIREGUARD];

    /// The level of a suite that this build speaks; `None` for every other number.
    #[must_use]
    pub const fn level(self) -> Option<Level> {
        match self {
            Self::WIREGUARD => Some(Level::Classical),
            Self::HYBRID => Some(Level::PostQuantum),
            Self::HYBRID_STATIC => Some(Level::PostQuantumAuthenticated),
            _ => None,
        }
    }

    /// Whether it is one of the numbers `0x?A?A` that are offered at random and never chosen, so
    /// that no implementation comes to rely on knowing every number (GREASE, RFC 8701).
    #[must_use]
    pub const fn is_grease(self) -> bool {
        self.0 & 0x0f0f == 0x0a0a
    }

    /// The GREASE number that a random byte selects.
    #[must_use]
    pub const fn grease(random: u8) -> SuiteId {
        let (high, low) = ((random >> 4) as u16, (random & 0x0f) as u16);
        SuiteId(0x0a0a | (high << 12) | (low << 4))
    }

    /// What it consists of, for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::WIREGUARD => "WireGuard v1",
            Self::HYBRID => "WireGuard v1 with a PSK from X25519 + ML-KEM-768",
            Self::HYBRID_STATIC => "the same, with static ML-KEM-768 keys both ways",
            _ if self.is_grease() => "none (reserved at random, RFC 8701)",
            _ => "unknown to this build",
        }
    }
}

impl fmt::Display for SuiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

impl fmt::Debug for SuiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Most suites in a list.
pub const SUITES_MAX: usize = 16;

/// Suites in order of preference: 1 to 16, none twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Suites {
    list: [SuiteId; SUITES_MAX],
    len: u8,
}

/// Why a list of suites is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuitesError {
    /// No suite in it.
    Empty,
    /// More than 16.
    TooMany,
    /// One occurs twice.
    Duplicate(SuiteId),
}

impl fmt::Display for SuitesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the list of suites is empty"),
            Self::TooMany => write!(f, "more than {SUITES_MAX} suites"),
            Self::Duplicate(suite) => write!(f, "suite {suite} is listed twice"),
        }
    }
}

impl core::error::Error for SuitesError {}

impl Suites {
    /// Checks a list.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn new(suites: impl IntoIterator<Item = SuiteId>) -> Result<Self, SuitesError> {
        let mut list = [SuiteId(0); SUITES_MAX];
        let mut len = 0;
        for suite in suites {
            if list[..len].contains(&suite) {
                return Err(SuitesError::Duplicate(suite));
            }
            *list.get_mut(len).ok_or(SuitesError::TooMany)? = suite;
            len += 1;
        }
        match len {
            0 => Err(SuitesError::Empty),
            len => Ok(Self {
                list,
                len: len as u8,
            }),
        }
    }

    /// The suites, most preferred first.
    #[must_use]
    pub fn as_slice(&self) -> &[SuiteId] {
        &self.list[..usize::from(self.len)]
    }

    /// Whether a suite is listed.
    #[must_use]
    pub fn contains(&self, suite: SuiteId) -> bool {
        self.as_slice().contains(&suite)
    }

    /// The highest level among the suites that this build knows; `None` if it knows none.
    #[must_use]
    pub fn best_level(&self) -> Option<Level> {
        self.as_slice().iter().filter_map(|s| s.level()).max()
    }

    /// The suite of the highest level that this build knows, or else the first in the list.
    #[must_use]
    pub fn highest(&self) -> SuiteId {
        let best = self.best_level();
        let found = self.as_slice().iter().find(|s| s.level() == best);
        found.copied().unwrap_or(self.list[0])
    }

    /// Whether both lists name the same suites in the same order, GREASE left out.
    #[must_use]
    pub fn same_as(&self, other: &Suites) -> bool {
        let real = |suites: &Suites| {
            let mut kept = suites.list;
            let mut len = 0;
            for suite in suites.as_slice().iter().filter(|s| !s.is_grease()) {
                kept[len] = *suite;
                len += 1;
            }
            (kept, len)
        };
        let ((ours, our_len), (theirs, their_len)) = (real(self), real(other));
        ours[..our_len] == theirs[..their_len]
    }

    /// The same list with a GREASE number at a place that `random` selects, if there is room.
    #[must_use]
    pub fn with_grease(&self, random: [u8; 2]) -> Suites {
        let len = usize::from(self.len);
        let grease = SuiteId::grease(random[0]);
        if len == SUITES_MAX || self.contains(grease) {
            return *self;
        }
        let at = usize::from(random[1]) % (len + 1);
        let mut list = self.list;
        list.copy_within(at..len, at + 1);
        list[at] = grease;
        Suites {
            list,
            len: self.len + 1,
        }
    }
}

impl fmt::Debug for Suites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The suite that both ends compute: the highest level in common, ties by A's order. A is the node
/// with the smaller id.
#[must_use]
pub fn choose(a: &Suites, b: &Suites) -> Option<SuiteId> {
    let common = a.as_slice().iter().filter(|s| b.contains(**s));
    let mut best: Option<(Level, SuiteId)> = None;
    for suite in common {
        let Some(level) = suite.level() else {
            continue;
        };
        if best.is_none_or(|(highest, _)| level > highest) {
            best = Some((level, *suite));
        }
    }
    best.map(|(_, suite)| suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(numbers: &[u16]) -> Suites {
        Suites::new(numbers.iter().map(|n| SuiteId(*n))).expect("a valid list")
    }

    #[test]
    fn the_highest_level_in_common_is_chosen_whatever_the_order() {
        let cases: [(&[u16], &[u16], Option<u16>); 7] = [
            (&[1, 2], &[2, 1], Some(2)),
            (&[1, 2, 3], &[1, 2], Some(2)),
            (&[3, 2, 1], &[1, 3], Some(3)),
            (&[1], &[2], None),
            (&[0x1a2a, 1], &[0x1a2a, 1], Some(1)),
            (&[0x0a0a], &[0x0a0a], None),
            (&[0x0777, 2], &[0x0777, 2], Some(2)),
        ];
        for (a, b, expected) in cases {
            assert_eq!(
                choose(&list(a), &list(b)),
                expected.map(SuiteId),
                "{a:?} {b:?}"
            );
        }
    }

    #[test]
    fn lists_have_one_to_sixteen_suites_without_duplicates() {
        let numbers = |n: u16| (0..n).map(SuiteId);
        assert_eq!(Suites::new(numbers(0)), Err(SuitesError::Empty));
        assert!(Suites::new(numbers(16)).is_ok());
        assert_eq!(Suites::new(numbers(17)), Err(SuitesError::TooMany));
        let twice = [SuiteId(1), SuiteId(2), SuiteId(1)];
        assert_eq!(Suites::new(twice), Err(SuitesError::Duplicate(SuiteId(1))));
    }

    #[test]
    fn grease_goes_anywhere_and_changes_nothing() {
        let suites = list(&[2, 1]);
        for random in 0..=u8::MAX {
            let greased = suites.with_grease([random, random]);
            assert_eq!(greased.as_slice().len(), 3);
            assert!(SuiteId::grease(random).is_grease());
            assert!(greased.same_as(&suites));
            assert_eq!(choose(&greased, &suites), Some(SuiteId::HYBRID));
        }
        assert!(SuiteId::KNOWN.iter().all(|suite| !suite.is_grease()));
        assert!(!list(&[2]).same_as(&suites));
        assert!(!list(&[1, 2]).same_as(&suites), "order is part of a list");
    }
}
