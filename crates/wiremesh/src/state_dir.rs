//! The directory where a node keeps what must outlive it.
//!
//! Owns the lock that keeps a second node out, the timestamp floor, and the seed of the static
//! ML-KEM key. The pins are in `pins.rs`.

use crate::pins::{self, Journal, Kept, PinsError};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use wiremesh_control::{Level, Pin};
use wiremesh_wire::{NodeId, Tai64n};
use zeroize::Zeroizing;

/// A seed from which a static ML-KEM key is made (FIPS 203, `d || z`).
pub(crate) type KemSeed = Zeroizing<[u8; 64]>;

/// Why a state directory cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// The operating system refused, or a file is damaged.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// A running node uses the directory, in this or another process.
    InUse(PathBuf),
    /// The file of pins cannot be read.
    Pins(PinsError),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::InUse(path) => write!(
                f,
                "{}: a running node uses this directory; stop it, or give each node one of its own",
                path.display()
            ),
            Self::Pins(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StateError {}

impl From<PinsError> for StateError {
    fn from(error: PinsError) -> Self {
        Self::Pins(error)
    }
}

/// An open state directory. Nobody else has it open.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Locked until dropped.
    _lock: File,
}

impl StateDir {
    /// Opens the directory, making it if needed.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(path).map_err(|error| at(path, error))?;
        Self::open_existing(path)
    }

    fn open_existing(path: &Path) -> Result<Self, StateError> {
        let name = path.join("lock");
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).open(&name);
        let lock = lock.map_err(|error| at(&name, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(&name, error)),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn timestamp_file(&self) -> PathBuf {
        self.path.join("timestamp")
    }

    /// The smallest timestamp that was never used, if one was saved.
    pub(crate) fn load_timestamp(&self) -> Result<Option<Tai64n>, StateError> {
        let file = self.timestamp_file();
        let Some(text) = read_if_there(&file)? else {
            return Ok(None);
        };
        let bytes = pins::parse_hex(text.trim()).ok_or_else(|| {
            let message = "not a timestamp of 24 hexadecimal digits; \
                restore the file, or delete it if the clock never went back";
            at(&file, io::Error::new(io::ErrorKind::InvalidData, message))
        })?;
        Ok(Some(Tai64n::from_bytes(bytes)))
    }

    /// Saves a timestamp so that it survives a crash right after.
    pub(crate) fn save_timestamp(&self, timestamp: Tai64n) -> io::Result<()> {
        let text = format!("{}\n", pins::hex(timestamp.as_bytes()));
        pins::replace(&self.timestamp_file(), &text).map(drop)
    }

    /// The seed of the static ML-KEM key, if one was saved.
    pub(crate) fn load_kem_seed(&self) -> Result<Option<KemSeed>, StateError> {
        let file = self.kem_seed_file();
        let Some(text) = read_if_there(&file)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        check_private(&file)?;
        let seed = pins::parse_hex(text.trim()).map(Zeroizing::new);
        seed.map(Some).ok_or_else(|| {
            let message = "not a seed of 128 hexadecimal digits; restore the file, or delete it: \
                the node makes a new key then";
            at(&file, io::Error::new(io::ErrorKind::InvalidData, message))
        })
    }

    /// Saves the seed, for the owner's eyes only: it is as secret as the node's key.
    pub(crate) fn save_kem_seed(&self, seed: &KemSeed) -> Result<(), StateError> {
        let file = self.kem_seed_file();
        let text = Zeroizing::new(format!("{}\n", pins::hex(&**seed)));
        pins::replace(&file, &text)
            .map(drop)
            .map_err(|error| at(&file, error))
    }

    fn kem_seed_file(&self) -> PathBuf {
        self.path.join("kem-seed")
    }
}

/// What a running node has of its state directory.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) dir: StateDir,
    pub(crate) journal: Journal,
    /// The seed of the static ML-KEM key, as long as no policy has asked for the key.
    pub(crate) unsaved_seed: Option<KemSeed>,
}

impl Disk {
    /// Saves the seed at its first use, before anything that depends on it leaves.
    pub(crate) fn use_kem_seed(&mut self) -> Result<(), StateError> {
        if let Some(seed) = &self.unsaved_seed {
            self.dir.save_kem_seed(seed)?;
            self.unsaved_seed = None;
        }
        Ok(())
    }
}

fn at(path: &Path, error: io::Error) -> StateError {
    StateError::Io {
        path: path.to_owned(),
        error,
    }
}

fn read_if_there(file: &Path) -> Result<Option<String>, StateError> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some).map_err(|error| at(file, error)),
    }
}

#[cfg(unix)]
fn check_private(file: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(file).map_err(|error| at(file, error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let message = format!("others can read this secret (mode {mode:04o}); chmod 600 it");
    Err(at(
        file,
        io::Error::new(io::ErrorKind::PermissionDenied, message),
    ))
}

#[cfg(not(unix))]
fn check_private(_file: &Path) -> Result<(), StateError> {
    Ok(())
}

/// The pins in a state directory that no node has open, for the operator's tools.
///
/// A running node keeps its own: ask it through [`crate::Node::pins`] and
/// [`crate::Node::lower_pin`].
#[derive(Debug)]
pub struct PinStore {
    dir: StateDir,
    journal: Journal,
    kept: Kept,
}

impl PinStore {
    /// Opens the pins of an existing directory.
    ///
    /// # Errors
    ///
    /// [`StateError`]: there is no such directory, a running node has it, or the file is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let dir = StateDir::open_existing(path.as_ref())?;
        let (journal, kept) = Journal::open(dir.path())?;
        Ok(Self { dir, journal, kept })
    }

    /// All pins, ordered by key.
    pub fn pins(&self) -> impl Iterator<Item = (NodeId, Pin)> + '_ {
        self.kept.pins.iter().map(|(id, pin)| (*id, *pin))
    }

    /// The pin of a node.
    pub fn pin(&self, id: &NodeId) -> Option<Pin> {
        self.kept.pins.get(id).copied()
    }

    /// Lowers the level of a pin; `false` if there is no pin above `level`. For the operator only,
    /// see [`crate::Node::lower_pin`].
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn lower(&mut self, id: &NodeId, level: Level) -> Result<bool, StateError> {
        let Some(mut pin) = self.pin(id).filter(|pin| pin.level > level) else {
            return Ok(false);
        };
        pin.level = level;
        let mut batch = Kept::default();
        batch.pins.insert(*id, pin);
        self.journal
            .append(&batch)
            .map_err(|error| at(self.dir.path(), error))?;
        self.kept.pins.insert(*id, pin);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wiremesh_wire::UnixTime;

    fn opened() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(&folder.path().join("deep/state")).expect("a fresh directory");
        (folder, dir)
    }

    #[test]
    fn a_timestamp_survives_and_a_damaged_one_is_an_error() {
        let (_folder, dir) = opened();
        assert_eq!(dir.load_timestamp().expect("no file is fine"), None);
        for seconds in [1_700_000_000, 1_800_000_000] {
            let timestamp = Tai64n::from_unix(UnixTime::from_secs_nanos(seconds, 7));
            dir.save_timestamp(timestamp).expect("writable");
            assert_eq!(dir.load_timestamp().expect("saved"), Some(timestamp));
        }
        fs::write(dir.timestamp_file(), "nonsense").expect("writable");
        let error = dir.load_timestamp().expect_err("damaged").to_string();
        assert!(
            error.contains("timestamp") && error.contains("restore"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_serves_one_at_a_time() {
        let (_folder, dir) = opened();
        let second = StateDir::open(dir.path()).expect_err("it is in use");
        assert!(matches!(second, StateError::InUse(_)), "{second}");
        let tool = PinStore::open(dir.path()).expect_err("it is in use");
        assert!(matches!(tool, StateError::InUse(_)), "{tool}");
        let path = dir.path().to_owned();
        drop(dir);
        let second = StateDir::open(&path).expect("it is free");
        assert!(StateDir::open(&path).is_err());
        drop(second);
        PinStore::open(&path).expect("it is free");
    }

    #[test]
    fn a_tool_makes_no_directory() {
        let (folder, _dir) = opened();
        let missing = folder.path().join("missing");
        let error = PinStore::open(&missing).expect_err("there is none");
        assert!(matches!(error, StateError::Io { .. }), "{error}");
        assert!(!missing.exists());
    }

    #[cfg(unix)]
    #[test]
    fn the_seed_is_private_and_comes_back() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, dir) = opened();
        let file = dir.kem_seed_file();
        assert!(dir.load_kem_seed().expect("no file is fine").is_none());
        dir.save_kem_seed(&Zeroizing::new([7; 64]))
            .expect("writable");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = dir.load_kem_seed().expect("saved").expect("there");
        assert_eq!(*loaded, [7; 64]);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
        let error = dir.load_kem_seed().expect_err("readable by others");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::write(&file, "07".repeat(63)).expect("ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
        let error = dir.load_kem_seed().expect_err("too short").to_string();
        assert!(
            error.contains("kem-seed") && !error.contains("0707"),
            "{error}"
        );
    }
}
