//! The three classes of what an application sends.
//!
//! Owns their order and their names. Never decides what a class may do: that is the egress
//! scheduler's in `wiremesh-core`.

use core::fmt;
use core::str::FromStr;

/// What goes before what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Goes first, at every hop.
    Urgent = 0,
    /// What nobody said anything about.
    #[default]
    Normal = 1,
    /// Takes what the others leave, and a minimum share.
    Bulk = 2,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Normal, Self::Bulk];

    /// Its place in [`Priority::ALL`], for a table by class.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// From the byte that stands for it on the wire.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Urgent),
            1 => Some(Self::Normal),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }

    /// Its name, as a person writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPriority;

impl fmt::Display for UnknownPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a priority; fix: write urgent, normal or bulk")
    }
}

impl core::error::Error for UnknownPriority {}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        let known = Self::ALL.into_iter().find(|class| class.name() == text);
        known.ok_or(UnknownPriority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_come_back() {
        for class in Priority::ALL {
            assert_eq!(class.name().parse(), Ok(class));
            assert_eq!(Priority::from_byte(class as u8), Some(class));
            assert_eq!(Priority::ALL[class.index()], class);
        }
        assert_eq!(Priority::from_byte(3), None);
        assert_eq!("Urgent".parse::<Priority>(), Err(UnknownPriority));
        assert!(Priority::Urgent < Priority::Bulk);
    }
}
