//! A file that is only appended to.
//!
//! Owns the three operations that the receiving side needs from a file. A test gives it little
//! room, and it fails as a full disk does: after part of a write.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// The file, and in tests the room that is left.
pub struct Store {
    file: File,
    room: Option<u64>,
}

impl Store {
    /// Takes an open file. `room` limits how many bytes can be appended; only tests set it.
    pub fn new(file: File, room: Option<u64>) -> Self {
        Self { file, room }
    }

    /// Creates or empties a file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Self::new(file, None))
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes at the end.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(room) = &mut self.room {
            let fits = usize::try_from(*room)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            *room -= fits as u64;
            if fits < bytes.len() {
                self.file.write_all(&bytes[..fits])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.file.write_all(bytes)
    }

    /// Cuts the file and goes on from there.
    pub fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.seek(SeekFrom::Start(bytes))?;
        Ok(())
    }

    /// Waits until the disk has everything.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
