//! A file that is being received: the part, its state file, and the step to the final name.
//!
//! Owns the order of writes that makes a transfer survive `kill -9` and a power cut at any
//! moment: data, then `fsync`, then the state file by an atomic rename. The state file therefore
//! never promises bytes that the disk does not hold. It never gives a file its final name before
//! the hash of the whole file is right and the data is synced.

use super::error::TransferError;
use super::manifest::Modified;
use super::names::{NAME_MAX_BYTES, PART_SUFFIX, STATE_NEW_SUFFIX, STATE_SUFFIX};
use super::prefix::Prefix;
use super::store::Store;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// New bytes between two checkpoints: what a killed receiver loses at most.
pub const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes given up at the end of a part on a full disk, to make room for the state file.
const GIVE_UP_BYTES: u64 = 64 * 1024;

/// What the file is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The final name.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Time of modification.
    pub modified: Modified,
    /// Whether the owner may execute it.
    pub executable: bool,
}

/// What the state file says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    size: u64,
    modified: Modified,
    safe_bytes: u64,
}

impl Target {
    fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        let name = String::from_utf8_lossy(name);
        let mut hidden = format!(".{name}{suffix}");
        if hidden.len() > NAME_MAX_BYTES {
            let hash = blake3::hash(name.as_bytes()).to_hex();
            hidden = format!(".{}{suffix}", &hash[..32]);
        }
        self.path.with_file_name(hidden)
    }

    /// Where the bytes are until they are complete.
    pub fn part_path(&self) -> PathBuf {
        self.beside(PART_SUFFIX)
    }

    /// Where it says how many of them are safe.
    pub fn state_path(&self) -> PathBuf {
        self.beside(STATE_SUFFIX)
    }

    /// How many bytes an earlier run made safe of this very file.
    pub(super) fn saved_bytes(&self) -> Option<u64> {
        let text = fs::read(self.state_path()).ok()?;
        let state: State = serde_json::from_slice(&text).ok()?;
        let fits = state.version == 1
            && state.size == self.size
            && state.modified == self.modified
            && state.safe_bytes <= self.size;
        fits.then_some(state.safe_bytes)
    }
}

/// A file that is being received.
pub struct Part {
    target: Target,
    store: Store,
    prefix: Prefix,
    safe_bytes: u64,
}

/// What came of a part whose last byte arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The file has its final name.
    Complete,
    /// The hash is wrong; the part is removed.
    WrongHash,
}

impl Part {
    /// Opens the part after `prefix` and takes it for this process.
    ///
    /// # Errors
    ///
    /// [`TransferError::Busy`] when another process has it; errors of the operating system.
    pub fn open(target: Target, prefix: Prefix, room: Option<u64>) -> Result<Self, TransferError> {
        let path = target.part_path();
        let local = |error| TransferError::local(path.clone(), error);
        // A link or a device of that name is not ours to write to.
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            fs::remove_file(&path).map_err(local)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(if target.executable { 0o777 } else { 0o666 });
        }
        let file = options.open(&path).map_err(local)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(TransferError::Busy(target.path)),
            // Some network file systems have no locks; then the user is on their own.
            Err(fs::TryLockError::Error(_)) => {}
        }
        if !is_still_at(&file, &path) {
            // The process that had it gave it its final name between our open and our lock.
            return Err(TransferError::Busy(target.path));
        }
        let mut part = Self {
            safe_bytes: prefix.bytes,
            target,
            store: Store::new(file, room),
            prefix,
        };
        part.store.cut(part.prefix.bytes).map_err(local)?;
        if part.prefix.bytes == 0 {
            // An old promise must not outlive the bytes that it was about.
            remove_if_there(&part.target.state_path()).map_err(local)?;
        }
        Ok(part)
    }

    /// The file that this becomes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How many bytes a next run can rely on.
    pub fn safe_bytes(&self) -> u64 {
        self.safe_bytes
    }

    /// Adds bytes, and a checkpoint from time to time.
    ///
    /// # Errors
    ///
    /// [`TransferError::DiskFull`] or another error of the operating system; the part stays, with
    /// a checkpoint as late as possible.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        if let Err(error) = self.store.append(bytes) {
            let error = TransferError::local(self.target.path.clone(), error);
            self.retreat(matches!(error, TransferError::DiskFull(_)));
            return Err(error);
        }
        self.prefix.hasher.update(bytes);
        self.prefix.bytes += bytes.len() as u64;
        if self.prefix.bytes - self.safe_bytes >= CHECKPOINT_BYTES
            && let Err(error) = self.checkpoint()
        {
            self.retreat(matches!(error, TransferError::DiskFull(_)));
            return Err(error);
        }
        Ok(())
    }

    /// After a failed write: cuts the part to what was written whole, less a little when the
    /// state file needs room, and tries to save the state. On failure the last checkpoint counts.
    fn retreat(&mut self, give_up_some: bool) {
        let give_up = if give_up_some { GIVE_UP_BYTES } else { 0 };
        let keep = self
            .prefix
            .bytes
            .saturating_sub(give_up)
            .max(self.safe_bytes);
        if self.store.cut(keep).is_ok() {
            let _ = self.save(keep);
        }
    }

    /// Makes everything so far safe.
    ///
    /// # Errors
    ///
    /// Errors of the operating system; the last checkpoint counts then.
    pub fn checkpoint(&mut self) -> Result<(), TransferError> {
        let bytes = self.prefix.bytes;
        self.save(bytes)
            .map_err(|error| TransferError::local(self.target.path.clone(), error))
    }

    fn save(&mut self, bytes: u64) -> io::Result<()> {
        self.store.sync()?;
        let state = State {
            version: 1,
            size: self.target.size,
            modified: self.target.modified,
            safe_bytes: bytes,
        };
        let path = self.target.state_path();
        let text = serde_json::to_vec(&state).expect("numbers always serialise");
        let fresh = self.target.beside(STATE_NEW_SUFFIX);
        let written = Store::create(&fresh)
            .and_then(|mut store| {
                store.append(&text)?;
                store.sync()
            })
            .and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written?;
        self.safe_bytes = bytes;
        Ok(())
    }

    /// Compares the hash and gives the file its name.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    pub fn finish(mut self, hash: &[u8; 32]) -> Result<Finish, TransferError> {
        let part = self.target.part_path();
        let local = |error| TransferError::local(part.clone(), error);
        let state = self.target.state_path();
        if self.prefix.hasher.finalize().as_bytes() != hash {
            remove_if_there(&state).map_err(local)?;
            fs::remove_file(&part).map_err(local)?;
            return Ok(Finish::WrongHash);
        }
        if let Some(modified) = self.target.modified.to_system() {
            // A file system that cannot hold the time makes no file worse.
            let _ = self.store.file().set_modified(modified);
        }
        self.set_mode().map_err(local)?;
        self.store.sync().map_err(local)?;
        fs::rename(&part, &self.target.path).map_err(local)?;
        // Without a part the state file promises nothing.
        remove_if_there(&state).map_err(local)?;
        Ok(Finish::Complete)
    }

    /// A part of an earlier run may have been opened with the other mode.
    #[cfg(unix)]
    fn set_mode(&self) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let file = self.store.file();
        let mode = file.metadata()?.permissions().mode();
        let wanted = if self.target.executable {
            // Whoever may read may execute.
            mode | ((mode & 0o444) >> 2)
        } else {
            mode & !0o111
        };
        if wanted == mode {
            return Ok(());
        }
        file.set_permissions(fs::Permissions::from_mode(wanted))
    }

    #[cfg(not(unix))]
    fn set_mode(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => id(open) == id(named),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still_at(_file: &File, _path: &Path) -> bool {
    true
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dir: &Path, size: u64) -> Target {
        Target {
            path: dir.join("file"),
            size,
            modified: Modified {
                seconds: 1_000_000_000,
                nanos: 5,
            },
            executable: false,
        }
    }

    fn open(target: &Target) -> Part {
        Part::open(target.clone(), Prefix::of_part(target), None).expect("opens")
    }

    #[test]
    fn part_without_checkpoint_starts_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = target(dir.path(), 10);
        let mut part = open(&target);
        part.write(b"12345").expect("written");
        drop(part);
        assert_eq!(Prefix::of_part(&target).bytes, 0);
    }

    #[test]
    fn checkpoint_is_resumed_and_the_tail_after_it_is_cut() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = target(dir.path(), 10);
        let mut part = open(&target);
        part.write(b"12345").expect("written");
        part.checkpoint().expect("saved");
        part.write(b"lost").expect("written");
        drop(part);
        let prefix = Prefix::of_part(&target);
        assert_eq!(prefix.bytes, 5);
        let mut part = Part::open(target.clone(), prefix, None).expect("opens");
        part.write(b"67890").expect("written");
        let hash = blake3::hash(b"1234567890");
        assert_eq!(
            part.finish(hash.as_bytes()).expect("finishes"),
            Finish::Complete
        );
        assert_eq!(fs::read(&target.path).expect("there"), b"1234567890");
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
        let metadata = fs::metadata(&target.path).expect("there");
        assert_eq!(
            Modified::from_system(metadata.modified().expect("time")),
            target.modified
        );
    }

    #[test]
    fn state_of_another_version_of_the_file_is_not_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let old = target(dir.path(), 10);
        let mut part = open(&old);
        part.write(b"12345").expect("written");
        part.checkpoint().expect("saved");
        drop(part);
        let longer = Target {
            size: 11,
            ..old.clone()
        };
        assert_eq!(Prefix::of_part(&longer).bytes, 0);
        let newer = Target {
            modified: Modified {
                seconds: 1,
                nanos: 0,
            },
            ..old.clone()
        };
        assert_eq!(Prefix::of_part(&newer).bytes, 0);
        assert_eq!(Prefix::of_part(&old).bytes, 5);
        fs::write(old.part_path(), b"123").expect("cut");
        assert_eq!(Prefix::of_part(&old).bytes, 0);
        fs::write(old.state_path(), b"{garbage").expect("damaged");
        assert_eq!(Prefix::of_part(&old).bytes, 0);
    }

    #[test]
    fn wrong_hash_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = target(dir.path(), 5);
        let mut part = open(&target);
        part.write(b"12345").expect("written");
        part.checkpoint().expect("saved");
        assert_eq!(part.finish(&[0; 32]).expect("removes"), Finish::WrongHash);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
    }

    #[test]
    fn full_disk_keeps_a_resumable_part() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = target(dir.path(), 1 << 20);
        let room = Some(300_000);
        let mut part = Part::open(target.clone(), Prefix::default(), room).expect("opens");
        part.write(&[1; 200_000]).expect("written");
        let error = part.write(&[2; 200_000]).expect_err("no room");
        assert!(matches!(error, TransferError::DiskFull(_)), "{error:?}");
        drop(part);
        let prefix = Prefix::of_part(&target);
        assert_eq!(prefix.bytes, 200_000 - GIVE_UP_BYTES);
        assert!(!target.path.exists());
    }

    #[test]
    fn part_in_use_is_not_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = target(dir.path(), 5);
        let first = open(&target);
        let second = Part::open(target.clone(), Prefix::default(), None);
        assert!(matches!(second, Err(TransferError::Busy(_))));
        drop(first);
        assert!(Part::open(target, Prefix::default(), None).is_ok());
    }

    #[test]
    fn longest_name_still_has_room_for_a_part() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut target = target(dir.path(), 5);
        target.path = dir.path().join("n".repeat(255));
        let mut part = open(&target);
        part.write(b"12345").expect("written");
        part.checkpoint().expect("saved");
        let hash = blake3::hash(b"12345");
        assert_eq!(
            part.finish(hash.as_bytes()).expect("finishes"),
            Finish::Complete
        );
    }

    #[cfg(unix)]
    #[test]
    fn link_in_place_of_the_part_is_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = target(dir.path(), 5);
        let victim = dir.path().join("victim");
        fs::write(&victim, b"precious").expect("written");
        std::os::unix::fs::symlink(&victim, target.part_path()).expect("linked");
        let mut part = open(&target);
        part.write(b"12345").expect("written");
        assert_eq!(fs::read(&victim).expect("there"), b"precious");
    }

    #[cfg(unix)]
    #[test]
    fn executable_bit_arrives_within_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        for executable in [true, false] {
            let target = Target {
                executable,
                ..target(dir.path(), 0)
            };
            let part = open(&target);
            part.finish(blake3::hash(b"").as_bytes()).expect("finishes");
            let mode = fs::metadata(&target.path)
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o100 != 0, executable, "{mode:o}");
            assert_eq!(mode & 0o6000, 0);
        }
    }
}
