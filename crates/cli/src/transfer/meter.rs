//! Counters of a running transfer, written by the transfer and read by whoever draws progress.
//!
//! Owns numbers only; it never draws and never blocks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a transfer has done so far.
#[derive(Debug, Default)]
pub struct Meter {
    bytes_total: AtomicU64,
    bytes_moved: AtomicU64,
    bytes_kept: AtomicU64,
    files_total: AtomicU64,
    files_done: AtomicU64,
    current: Mutex<String>,
}

impl Meter {
    /// Sets the size of the job.
    pub fn begin(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Relaxed);
        self.bytes_total.store(bytes, Relaxed);
    }

    /// Counts bytes that came or went over the stream.
    pub fn moved(&self, bytes: u64) {
        self.bytes_moved.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes that were there already.
    pub fn kept(&self, bytes: u64) {
        self.bytes_kept.fetch_add(bytes, Relaxed);
    }

    /// Names the file that is under way.
    pub fn file(&self, path: &str) {
        let mut current = self
            .current
            .lock()
            .expect("no code panics with this lock held");
        current.clear();
        current.push_str(path);
    }

    /// Counts a file that is complete.
    pub fn file_done(&self) {
        self.files_done.fetch_add(1, Relaxed);
    }

    /// A copy of all counters.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            bytes_total: self.bytes_total.load(Relaxed),
            bytes_moved: self.bytes_moved.load(Relaxed),
            bytes_kept: self.bytes_kept.load(Relaxed),
            files_total: self.files_total.load(Relaxed),
            files_done: self.files_done.load(Relaxed),
            current: self
                .current
                .lock()
                .expect("no code panics with this lock held")
                .clone(),
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of all files of the job; 0 while it is unknown.
    pub bytes_total: u64,
    /// Bytes that went over the stream.
    pub bytes_moved: u64,
    /// Bytes that an earlier run left and this one keeps.
    pub bytes_kept: u64,
    /// Files of the job.
    pub files_total: u64,
    /// Files that are complete.
    pub files_done: u64,
    /// The file that is under way.
    pub current: String,
}
