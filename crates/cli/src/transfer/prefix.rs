//! The beginning of a file that is on the disk already.
//!
//! Owns the hash over it, which the sender compares with its own file. It only reads.

use super::part::Target;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Bytes that are on the disk, and the hash over them.
#[derive(Clone, Debug, Default)]
pub struct Prefix {
    /// How many.
    pub bytes: u64,
    /// Their hash, ready to go on.
    pub hasher: blake3::Hasher,
}

impl Prefix {
    /// Reads the first `bytes` of a file. `None` when it is shorter or cannot be read.
    pub fn read(path: &Path, bytes: u64) -> Option<Self> {
        let mut file = File::open(path).ok()?.take(bytes);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; super::CHUNK_BYTES];
        let mut left = bytes;
        while left > 0 {
            match file.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(Self { bytes, hasher })
    }

    /// Reads what an earlier transfer of the same file left; nothing when it left nothing usable.
    pub fn of_part(target: &Target) -> Self {
        let part = target.part_path();
        let is_file = fs::symlink_metadata(&part).is_ok_and(|metadata| metadata.is_file());
        let safe_bytes = target.saved_bytes().filter(|_| is_file);
        safe_bytes
            .and_then(|bytes| Self::read(&part, bytes))
            .unwrap_or_default()
    }
}
