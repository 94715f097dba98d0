//! The list of what a transfer holds.
//!
//! Owns the checked list: a [`Manifest`] exists only when every path stays inside the target
//! folder, no path comes twice and every folder comes before what is in it.

use super::error::TransferError;
use super::names;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most entries of one transfer.
pub const ENTRIES_MAX: usize = 1_000_000;

/// Most bytes of all paths of one transfer together.
pub const PATHS_MAX_BYTES: usize = 256 * 1024 * 1024;

/// A time of modification: seconds since 1970 and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Modified {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanos: u32,
}

impl Modified {
    /// Takes the time of the operating system.
    pub fn from_system(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { seconds, nanos: 0 },
                    nanos => Self {
                        seconds: seconds - 1,
                        nanos: 1_000_000_000 - nanos,
                    },
                }
            }
        }
    }

    /// The time for the operating system; `None` when it cannot hold it.
    pub fn to_system(self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let whole = if self.seconds >= 0 {
            UNIX_EPOCH.checked_add(seconds)
        } else {
            UNIX_EPOCH.checked_sub(seconds)
        };
        whole?.checked_add(Duration::from_nanos(u64::from(self.nanos)))
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// When it was modified.
        modified: Modified,
        /// Whether its owner may execute it.
        executable: bool,
    },
}

/// A file or folder of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative path with `/` between names.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

/// A checked list of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
    files: u64,
    bytes: u64,
}

impl Manifest {
    /// Checks a list.
    ///
    /// # Errors
    ///
    /// [`TransferError::BadName`] for the first bad path, [`TransferError::Protocol`] for a list
    /// that is too long or in the wrong order.
    pub fn new(entries: Vec<Entry>) -> Result<Self, TransferError> {
        if entries.len() > ENTRIES_MAX {
            return Err(TransferError::Protocol("too many files"));
        }
        let (mut files, mut bytes) = (0u64, 0u64);
        let mut seen: HashMap<&str, bool> = HashMap::with_capacity(entries.len());
        for entry in &entries {
            let bad = |why| TransferError::BadName {
                name: names::printable(&entry.path),
                why,
            };
            names::check_path(&entry.path).map_err(bad)?;
            if let Some(parent) = names::parent(&entry.path)
                && seen.get(parent) != Some(&true)
            {
                return Err(bad("comes before its folder"));
            }
            if seen
                .insert(&entry.path, entry.kind == Kind::Folder)
                .is_some()
            {
                return Err(bad("comes twice"));
            }
            if let Kind::File { size, .. } = entry.kind {
                files += 1;
                bytes = bytes.checked_add(size).ok_or(TransferError::Protocol(
                    "the sizes add up to more than 2^64",
                ))?;
            }
        }
        Ok(Self {
            entries,
            files,
            bytes,
        })
    }

    /// The entries, folders before what is in them.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many of them are files.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::Folder,
        }
    }

    fn file(path: &str, size: u64) -> Entry {
        let modified = Modified {
            seconds: 1,
            nanos: 2,
        };
        Entry {
            path: path.into(),
            kind: Kind::File {
                size,
                modified,
                executable: false,
            },
        }
    }

    #[test]
    fn list_must_be_ordered_unique_and_inside() {
        let good = Manifest::new(vec![folder("a"), file("a/x", 3), file("b", 4)]);
        let good = good.expect("a good list");
        assert_eq!((good.files(), good.bytes()), (2, 7));
        for bad in [
            vec![file("a/x", 1)],
            vec![file("a/x", 1), folder("a")],
            vec![file("a", 1), file("a/x", 1)],
            vec![file("a", 1), file("a", 1)],
            vec![folder("a"), file("a/../../x", 1)],
            vec![folder(".."), file("../x", 1)],
            vec![file("/x", 1)],
        ] {
            let result = Manifest::new(bad.clone());
            assert!(
                matches!(result, Err(TransferError::BadName { .. })),
                "{bad:?}"
            );
        }
        let much = Manifest::new(vec![file("a", u64::MAX), file("b", 1)]);
        assert!(matches!(much, Err(TransferError::Protocol(_))));
    }

    #[test]
    fn times_before_and_after_1970_survive() {
        for (seconds, nanos) in [(0, 0), (5, 7), (-1, 0), (-1, 999_999_999), (-7, 1)] {
            let time = Modified { seconds, nanos };
            let system = time.to_system().expect("fits");
            assert_eq!(Modified::from_system(system), time);
        }
        // No panic for what the operating system cannot hold.
        let _ = Modified {
            seconds: i64::MAX,
            nanos: 0,
        }
        .to_system();
        let _ = Modified {
            seconds: i64::MIN,
            nanos: 0,
        }
        .to_system();
    }
}
