//! What `wiremesh send` keeps so that it can go on after it was killed: key, secret and port, so
//! that the same files have the same ticket again.
//!
//! Owns one file for each set of paths, mode 0600 in a private folder, locked while in use and
//! removed when a receiver has everything. One that was not used for a week is not taken.

use crate::args::NodeArgs;
use crate::failure::Failure;
use crate::{folders, keys, node};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wiremesh::{SecretKey, TicketSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is in the file.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    key: String,
    secret: [u8; 16],
    port: u16,
}

/// An offer of some paths.
pub struct Offer {
    /// The key of the node.
    pub key: SecretKey,
    /// The secret of the ticket.
    pub secret: TicketSecret,
    /// The UDP port of before; 0 is any.
    pub port: u16,
    /// Whether it goes on with an earlier one.
    pub again: bool,
    file: Option<(File, PathBuf)>,
}

impl Offer {
    /// Goes on with the offer of the same paths, or begins a new one.
    ///
    /// # Errors
    ///
    /// The key file is bad, or there is no randomness. A state folder that cannot be used only
    /// means that a later run has another ticket.
    pub fn open(paths: &[PathBuf], args: &NodeArgs) -> Result<Self, Failure> {
        let file = folders::state()
            .ok()
            .and_then(|state| Self::file(&state, paths, args));
        Self::with_file(file, args)
    }

    fn with_file(file: Option<(File, PathBuf)>, args: &NodeArgs) -> Result<Self, Failure> {
        let mut file = file;
        let saved = file.as_mut().and_then(|(file, _)| read(file));
        let given = args.key.as_deref().map(keys::read).transpose()?;
        if let Some(saved) = saved
            && let Ok(key) = saved.key.parse()
        {
            let secret = TicketSecret::from_bytes(saved.secret);
            let key = given.unwrap_or(key);
            return Ok(Self {
                key,
                secret,
                port: saved.port,
                again: true,
                file,
            });
        }
        let key = given.map_or_else(keys::generate, Ok)?;
        Ok(Self {
            key,
            secret: node::fresh_secret()?,
            port: 0,
            again: false,
            file,
        })
    }

    /// The locked file; `None` when it cannot be had, or another process offers the same.
    fn file(state: &Path, paths: &[PathBuf], args: &NodeArgs) -> Option<(File, PathBuf)> {
        let mut hasher = blake3::Hasher::new();
        for path in paths {
            hasher.update(fs::canonicalize(path).ok()?.as_os_str().as_encoded_bytes());
            hasher.update(&[0]);
        }
        // With another key or network it is another offer.
        let key = args.key.as_deref().map(fs::canonicalize).transpose().ok()?;
        hasher.update(key.unwrap_or_default().as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(args.network.as_bytes());
        let folder = state.join("send");
        folders::create_private(&folder).ok()?;
        let path = folder.join(&hasher.finalize().to_hex()[..32]);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(&path).ok()?;
        file.try_lock().ok()?;
        Some((file, path))
    }

    /// Saves it with the port that the node has.
    pub fn save(&mut self, port: u16) {
        let Some((file, _)) = &mut self.file else {
            return;
        };
        let saved = Saved {
            version: 1,
            key: self.key.to_base64().to_string(),
            secret: *self.secret.as_bytes(),
            port,
        };
        // Without it a later run has another ticket; that is no reason to stop this one.
        let Ok(text) = serde_json::to_vec(&saved).map(Zeroizing::new) else {
            return;
        };
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&text))
            .and_then(|()| file.sync_all());
    }

    /// Forgets it: its ticket is used up.
    pub fn forget(self) {
        if let Some((_, path)) = &self.file {
            // It would only be found again for the same files, within a week.
            let _ = fs::remove_file(path);
        }
    }
}

fn read(file: &mut File) -> Option<Saved> {
    let age = file
        .metadata()
        .ok()?
        .modified()
        .ok()?
        .elapsed()
        .unwrap_or_default();
    if age > AGE_MAX {
        return None;
    }
    let mut text = Zeroizing::new(Vec::with_capacity(1024));
    file.take(4096).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text)
        .ok()
        .filter(|saved: &Saved| saved.version == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(state: &Path, paths: &[PathBuf]) -> Offer {
        let args = NodeArgs::default();
        Offer::with_file(Offer::file(state, paths, &args), &args).expect("opens")
    }

    #[test]
    fn same_paths_have_the_same_ticket_until_it_is_used_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = dir.path().join("state");
        let paths = [dir.path().to_owned()];
        let mut first = open(&state, &paths);
        first.save(4242);
        let (key, secret) = (first.key.clone(), first.secret.clone());
        assert!(!first.again);

        let parallel = open(&state, &paths);
        assert!(
            !parallel.again && parallel.secret != secret,
            "in use: another one"
        );
        drop(parallel);
        drop(first);

        let other = open(&state, &[std::env::temp_dir()]);
        assert!(!other.again && other.secret != secret);

        let second = open(&state, &paths);
        assert!(second.again && second.port == 4242);
        assert!(second.key == key && second.secret == secret);
        second.forget();
        let third = open(&state, &paths);
        assert!(!third.again && third.secret != secret);
    }

    #[test]
    fn old_and_damaged_files_are_not_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let paths = [dir.path().to_owned()];
        let mut offer = open(dir.path(), &paths);
        offer.save(1);
        let path = offer.file.as_ref().expect("a file").1.clone();
        drop(offer);
        let old = std::time::SystemTime::now() - AGE_MAX - Duration::from_secs(60);
        File::options()
            .write(true)
            .open(&path)
            .expect("opens")
            .set_modified(old)
            .expect("set");
        assert!(!open(dir.path(), &paths).again);
        fs::write(&path, "{").expect("written");
        assert!(!open(dir.path(), &paths).again);
    }
}
