//! What a receiver does with each file of a transfer: fetch, compare, overwrite or leave.
//!
//! Owns the look at the target folder and the question before something is overwritten. It
//! creates folders and nothing else, and only after every question has its answer.

use super::error::TransferError;
use super::frame::{Hash, Want};
use super::manifest::{Entry, Kind, Manifest, Modified};
use super::part::Target;
use super::prefix::Prefix;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An answer to "overwrite this file?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This one.
    Yes,
    /// Not this one; it is left as it is.
    No,
    /// This and all others.
    All,
    /// None of them.
    None,
    /// Stop; nothing was changed.
    Abort,
}

/// A file that exists and differs from the one that comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its path in the transfer.
    pub name: String,
    /// Size of the file that is here.
    pub size_here: u64,
    /// Size of the file that comes.
    pub size_coming: u64,
    /// Whether the one that comes is newer.
    pub coming_is_newer: bool,
}

/// Who answers the question. It is called on a thread that may wait for a person.
pub type Ask = Arc<dyn Fn(&Conflict) -> Answer + Send + Sync>;

/// What happens to files that exist and differ.
#[derive(Clone)]
pub enum Overwrite {
    /// They are replaced.
    Always,
    /// The transfer does not begin.
    Refuse,
    /// Somebody is asked.
    Ask(Ask),
}

/// A file to ask the sender for.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Index in the manifest.
    pub entry: u32,
    /// Path in the transfer.
    pub name: String,
    /// Where it goes.
    pub target: Target,
    /// What is there under its final name.
    pub here: Here,
}

/// What is under the final name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// Nothing, or something that may be replaced.
    Free,
    /// A file of the same size and time, most likely the same: it is compared and kept.
    Same,
    /// As `Same`, and it may be replaced if it differs.
    SameOrReplace,
}

/// The work of a receiver.
#[derive(Debug, Default)]
pub struct Plan {
    /// Files to ask for, in the order of the manifest.
    pub fetches: Vec<Fetch>,
    /// Files that the user keeps as they are.
    pub declined: Vec<String>,
}

/// Looks at the target folder, asks what must be asked, and creates the folders.
///
/// # Errors
///
/// [`TransferError::WouldOverwrite`] when nobody may be asked, [`TransferError::InTheWay`],
/// [`TransferError::Interrupted`] when the answer is to stop, or a local error.
pub fn make(
    into: &Path,
    manifest: &Manifest,
    overwrite: &Overwrite,
) -> Result<Plan, TransferError> {
    let folders = folders_to_create(into, manifest)?;
    let mut plan = Plan::default();
    let mut refused = Vec::new();
    let mut standing = None;
    for (index, entry) in manifest.entries().iter().enumerate() {
        let Kind::File {
            size,
            modified,
            executable,
        } = entry.kind
        else {
            continue;
        };
        let path = into.join(&entry.path);
        let target = Target {
            path,
            size,
            modified,
            executable,
        };
        let here = match look(&target)? {
            Found::Nothing => Here::Free,
            Found::Same if matches!(overwrite, Overwrite::Always) => Here::SameOrReplace,
            Found::Same => Here::Same,
            Found::Other(metadata) => {
                let conflict = conflict(entry, &target, &metadata);
                match decide(overwrite, &conflict, &mut standing) {
                    Some(Answer::Yes | Answer::All) => Here::Free,
                    Some(Answer::No | Answer::None) => {
                        plan.declined.push(conflict.name);
                        continue;
                    }
                    Some(Answer::Abort) => return Err(TransferError::Interrupted),
                    None => {
                        refused.push(conflict.name);
                        continue;
                    }
                }
            }
        };
        let entry_index = u32::try_from(index).expect("a manifest has at most ENTRIES_MAX entries");
        let name = entry.path.clone();
        plan.fetches.push(Fetch {
            entry: entry_index,
            name,
            target,
            here,
        });
    }
    if !refused.is_empty() {
        return Err(TransferError::WouldOverwrite(refused));
    }
    for folder in folders {
        fs::create_dir(&folder).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(TransferError::local(folder, error)),
        })?;
    }
    Ok(plan)
}

impl Fetch {
    /// Reads what is here of the file and forms the request for the rest.
    pub fn prepare(&self) -> (Want, Prefix) {
        let complete = match self.here {
            Here::Free => None,
            Here::Same | Here::SameOrReplace => Prefix::read(&self.target.path, self.target.size),
        };
        let prefix = complete.unwrap_or_else(|| Prefix::of_part(&self.target));
        let hash: Hash = *prefix.hasher.finalize().as_bytes();
        let want = Want {
            entry: self.entry,
            offset: prefix.bytes,
            prefix: hash,
            verify_only: self.here == Here::Same,
        };
        (want, prefix)
    }

    /// Whether the bytes of `prefix` are in the file of the final name, not in a part.
    pub fn is_complete(&self) -> bool {
        self.here != Here::Free
    }
}

fn conflict(entry: &Entry, target: &Target, here: &Metadata) -> Conflict {
    let here_modified = here.modified().ok().map(Modified::from_system);
    let key = |time: Modified| (time.seconds, time.nanos);
    Conflict {
        name: entry.path.clone(),
        size_here: here.len(),
        size_coming: target.size,
        coming_is_newer: here_modified.is_none_or(|time| key(time) < key(target.modified)),
    }
}

fn decide(
    overwrite: &Overwrite,
    conflict: &Conflict,
    standing: &mut Option<Answer>,
) -> Option<Answer> {
    match overwrite {
        Overwrite::Always => Some(Answer::Yes),
        Overwrite::Refuse => None,
        Overwrite::Ask(ask) => {
            let answer = standing.unwrap_or_else(|| ask(conflict));
            if matches!(answer, Answer::All | Answer::None) {
                *standing = Some(answer);
            }
            Some(answer)
        }
    }
}

/// What is under the final name.
enum Found {
    Nothing,
    Same,
    Other(Metadata),
}

fn look(target: &Target) -> Result<Found, TransferError> {
    let metadata = match fs::symlink_metadata(&target.path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(TransferError::local(&target.path, error)),
    };
    if metadata.is_dir() {
        return Err(TransferError::InTheWay {
            path: target.path.clone(),
            what: "a folder",
        });
    }
    let same_time = metadata
        .modified()
        .is_ok_and(|time| Modified::from_system(time) == target.modified);
    if metadata.is_file() && metadata.len() == target.size && same_time {
        return Ok(Found::Same);
    }
    Ok(Found::Other(metadata))
}

/// The folders that are missing. One that is a link is refused: the sender could otherwise name
/// files outside the target folder through it.
fn folders_to_create(into: &Path, manifest: &Manifest) -> Result<Vec<PathBuf>, TransferError> {
    let mut missing = Vec::new();
    for entry in manifest.entries() {
        if entry.kind != Kind::Folder {
            continue;
        }
        let path = into.join(&entry.path);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) => {
                let what = if metadata.is_symlink() {
                    "a symbolic link"
                } else {
                    "a file"
                };
                return Err(TransferError::InTheWay { path, what });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(path),
            Err(error) => return Err(TransferError::local(path, error)),
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const TIME: Modified = Modified {
        seconds: 1_700_000_000,
        nanos: 0,
    };

    fn file(path: &str, size: u64) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::File {
                size,
                modified: TIME,
                executable: false,
            },
        }
    }

    fn three() -> Manifest {
        let entries = vec![
            Entry {
                path: "d".into(),
                kind: Kind::Folder,
            },
            file("d/a", 1),
            file("d/b", 1),
            file("c", 1),
        ];
        Manifest::new(entries).expect("a good list")
    }

    fn put(dir: &Path, name: &str, text: &str, time: Option<Modified>) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("created");
        fs::write(&path, text).expect("written");
        if let Some(time) = time {
            let file = fs::File::options().write(true).open(&path).expect("opens");
            file.set_modified(time.to_system().expect("fits"))
                .expect("set");
        }
    }

    fn answers(list: &'static [Answer]) -> (Overwrite, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let ask: Ask = Arc::new(move |conflict| {
            let mut log = log.lock().expect("not poisoned");
            log.push(conflict.name.clone());
            list[log.len() - 1]
        });
        (Overwrite::Ask(ask), asked)
    }

    #[test]
    fn empty_folder_gets_everything() {
        let dir = tempfile::tempdir().expect("a folder");
        let plan = make(dir.path(), &three(), &Overwrite::Refuse).expect("a plan");
        assert_eq!(plan.fetches.len(), 3);
        assert!(plan.fetches.iter().all(|fetch| fetch.here == Here::Free));
        assert!(dir.path().join("d").is_dir());
    }

    #[test]
    fn without_a_person_nothing_is_touched_when_a_file_exists() {
        let dir = tempfile::tempdir().expect("a folder");
        put(dir.path(), "c", "mine", None);
        let error = make(dir.path(), &three(), &Overwrite::Refuse).expect_err("refuses");
        assert!(matches!(error, TransferError::WouldOverwrite(names) if names == ["c"]));
        assert!(!dir.path().join("d").exists());
    }

    #[test]
    fn file_of_the_same_size_and_time_is_compared_not_asked_about() {
        let dir = tempfile::tempdir().expect("a folder");
        put(dir.path(), "c", "x", Some(TIME));
        let plan = make(dir.path(), &three(), &Overwrite::Refuse).expect("a plan");
        let fetch = plan.fetches.last().expect("three");
        assert_eq!(fetch.here, Here::Same);
        let (want, _) = fetch.prepare();
        assert_eq!((want.offset, want.verify_only), (1, true));
        assert_eq!(want.prefix, *blake3::hash(b"x").as_bytes());
        let plan = make(dir.path(), &three(), &Overwrite::Always).expect("a plan");
        assert_eq!(
            plan.fetches.last().expect("three").here,
            Here::SameOrReplace
        );
    }

    #[test]
    fn answers_apply_to_one_or_to_all() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["d/a", "d/b", "c"] {
            put(dir.path(), name, "other", None);
        }
        let (overwrite, asked) = answers(&[Answer::No, Answer::All]);
        let plan = make(dir.path(), &three(), &overwrite).expect("a plan");
        assert_eq!(plan.declined, ["d/a"]);
        assert_eq!(plan.fetches.len(), 2);
        assert_eq!(*asked.lock().expect("not poisoned"), ["d/a", "d/b"]);

        let (overwrite, asked) = answers(&[Answer::None]);
        let plan = make(dir.path(), &three(), &overwrite).expect("a plan");
        assert_eq!((plan.declined.len(), plan.fetches.len()), (3, 0));
        assert_eq!(asked.lock().expect("not poisoned").len(), 1);

        let (overwrite, _) = answers(&[Answer::Abort]);
        let error = make(dir.path(), &three(), &overwrite).expect_err("stops");
        assert!(matches!(error, TransferError::Interrupted));
    }

    #[cfg(unix)]
    #[test]
    fn link_in_place_of_a_folder_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).expect("linked");
        let error = make(dir.path(), &three(), &Overwrite::Always).expect_err("refuses");
        assert!(matches!(
            error,
            TransferError::InTheWay {
                what: "a symbolic link",
                ..
            }
        ));
    }

    #[test]
    fn folder_in_place_of_a_file_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("c")).expect("created");
        let error = make(dir.path(), &three(), &Overwrite::Always).expect_err("refuses");
        assert!(matches!(
            error,
            TransferError::InTheWay {
                what: "a folder",
                ..
            }
        ));
    }
}
