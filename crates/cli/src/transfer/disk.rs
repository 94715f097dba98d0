//! The thread that writes to the disk while the stream brings more.
//!
//! Owns the parts that are open. Small files are synced several at a time, since each sync waits
//! for the disk; large ones when they end. When its queue is closed, for whatever reason, it makes
//! safe what has arrived.

use super::error::TransferError;
use super::frame::Hash;
use super::part::{Finish, Part};
use super::plan::Fetch;
use super::prefix::Prefix;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use tokio::sync::{mpsc, oneshot};

/// Files up to this size wait for others before they are synced.
const SMALL_BYTES: u64 = 1024 * 1024;

/// Small files that wait, at most.
const WAITING_MAX: usize = 64;

/// Files that are synced at a time.
const SYNCS: usize = 8;

/// Work for the disk thread, in order.
pub(super) enum Operation {
    /// A file begins, after what is there of it.
    Begin(Box<(Fetch, Prefix)>),
    /// Its next bytes.
    Data(Vec<u8>),
    /// Its end.
    Finish(Hash),
    /// It does not come to its end.
    Close,
    /// Everything so far shall be on the disk, and the count given.
    Settle(oneshot::Sender<Tally>),
}

/// What the disk thread has done.
pub(super) struct Tally {
    pub(super) complete: u64,
    pub(super) failed: Vec<(String, &'static str)>,
}

/// A small file that is complete but for its name.
struct Waiting {
    part: Part,
    name: String,
    hash: Hash,
}

/// The disk thread, and at its end what came of it.
#[derive(Default)]
pub(super) struct Disk {
    room: Option<u64>,
    current: Option<(Part, String)>,
    waiting: Vec<Waiting>,
    failed: Vec<(String, &'static str)>,
    folders: BTreeSet<PathBuf>,
    /// Files that have their names.
    pub(super) complete: u64,
    /// The file that was under way, and the bytes of it that are safe.
    pub(super) part: Option<(PathBuf, u64)>,
    /// Why it stopped.
    pub(super) error: Option<TransferError>,
}

impl Disk {
    /// `room` limits each file, for tests.
    pub(super) fn new(room: Option<u64>) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// Works until the queue is closed or something fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Operation>) -> Self {
        while let Some(operation) = queue.blocking_recv() {
            if let Err(error) = self.handle(operation) {
                self.error = Some(error);
                break;
            }
        }
        self.save_current();
        if let Err(error) = self.finish_waiting() {
            self.error.get_or_insert(error);
        }
        self.sync_folders();
        self
    }

    fn handle(&mut self, operation: Operation) -> Result<(), TransferError> {
        match operation {
            Operation::Begin(begin) => {
                let (fetch, prefix) = *begin;
                let part = Part::open(fetch.target, prefix, self.room)?;
                self.current = Some((part, fetch.name));
            }
            Operation::Data(data) => self.write(&data)?,
            Operation::Finish(hash) => {
                let (part, name) = self.current.take().expect("the end comes after Begin");
                let small = part.target().size <= SMALL_BYTES;
                self.waiting.push(Waiting { part, name, hash });
                if !small || self.waiting.len() >= WAITING_MAX {
                    self.finish_waiting()?;
                }
            }
            Operation::Close => self.save_current(),
            Operation::Settle(reply) => {
                self.finish_waiting()?;
                self.sync_folders();
                let failed = std::mem::take(&mut self.failed);
                // Nobody waits any more when the transfer was cancelled.
                let _ = reply.send(Tally {
                    complete: self.complete,
                    failed,
                });
            }
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), TransferError> {
        let (part, _) = self.current.as_mut().expect("data comes after Begin");
        let Err(error) = part.write(data) else {
            return Ok(());
        };
        // The part has saved what it could; a checkpoint at the end would promise more.
        if let Some((part, _)) = self.current.take() {
            self.part = Some((part.target().path.clone(), part.safe_bytes()));
        }
        Err(error)
    }

    /// Gives the files that wait their names, several at a time; the first error counts.
    fn finish_waiting(&mut self) -> Result<(), TransferError> {
        let waiting = std::mem::take(&mut self.waiting);
        let threads = waiting.len().min(SYNCS);
        let left = Mutex::new(waiting.into_iter());
        let next = || {
            left.lock()
                .expect("no code panics with this lock held")
                .next()
        };
        let work = || {
            let mut done = Vec::new();
            while let Some(Waiting { part, name, hash }) = next() {
                let folder = part.target().path.parent().map(ToOwned::to_owned);
                done.push((folder, name, part.finish(&hash)));
            }
            done
        };
        let done: Vec<_> = match threads {
            0 | 1 => work(),
            _ => std::thread::scope(|scope| {
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let done = threads.into_iter().map(|thread| thread.join());
                done.flat_map(|done| done.expect("finishing a file does not panic"))
                    .collect()
            }),
        };
        let mut result = Ok(());
        for (folder, name, finish) in done {
            match finish {
                Ok(Finish::Complete) => {
                    self.complete += 1;
                    self.folders.extend(folder);
                }
                Ok(Finish::WrongHash) => {
                    self.failed
                        .push((name, "its hash is wrong; what arrived is removed"));
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    fn save_current(&mut self) {
        if let Some((mut part, _)) = self.current.take() {
            // On failure the last checkpoint counts.
            let _ = part.checkpoint();
            self.part = Some((part.target().path.clone(), part.safe_bytes()));
        }
    }

    /// Makes new names survive a power cut.
    fn sync_folders(&mut self) {
        for folder in std::mem::take(&mut self.folders) {
            // Not every file system can sync a folder; the data itself is safe.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
    }
}
