//! The receiving side of a transfer.
//!
//! Owns the conversation with the sender. Requests go out ahead of the answers, so that many
//! small files cost no round trip each; a thread writes to the disk while the stream brings more.
//! Whatever ends it, the thread first makes safe what has arrived.

use super::disk::{Disk, Operation};
use super::error::TransferError;
use super::frame::{self, Frame, Want};
use super::manifest::{Manifest, PATHS_MAX_BYTES};
use super::meter::Meter;
use super::plan::{self, Fetch, Overwrite};
use super::prefix::Prefix;
use super::{AHEAD_FILES, QUEUE_FRAMES, SECRET_LEN};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// How to receive.
#[derive(Clone)]
pub struct Options {
    /// The folder that everything goes to.
    pub into: PathBuf,
    /// What happens to files that exist and differ.
    pub overwrite: Overwrite,
    /// Tests only: the disk of each file is full after so many bytes.
    #[doc(hidden)]
    pub room: Option<u64>,
}

/// What came of a transfer that ran to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Files that arrived.
    pub fetched: u64,
    /// Files that were there already and are equal.
    pub kept: u64,
    /// Files that the user did not want to be overwritten.
    pub declined: Vec<String>,
    /// Files that could not be had, and why.
    pub failed: Vec<(String, &'static str)>,
}

/// What came of a transfer that stopped early.
#[derive(Debug)]
pub struct Stopped {
    /// Why.
    pub error: TransferError,
    /// Files that are complete.
    pub complete: u64,
    /// The file that was under way and the bytes of it that are safe.
    pub part: Option<(PathBuf, u64)>,
}

/// Receives everything that the sender has, until the end or until `cancel` is ready.
///
/// # Errors
///
/// [`Stopped`]; what it says to be complete or safe is on the disk.
pub async fn receive<R, W>(
    reader: R,
    writer: W,
    secret: &[u8; SECRET_LEN],
    options: Options,
    meter: Arc<Meter>,
    cancel: impl Future<Output = ()>,
) -> Result<Received, Stopped>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (operations, queue) = mpsc::channel(QUEUE_FRAMES);
    let disk = Disk::new(options.room);
    let disk = tokio::task::spawn_blocking(move || disk.run(queue));
    let talked = tokio::select! {
        biased;
        () = cancel => Err(TransferError::Interrupted),
        result = talk(reader, writer, secret, options, &meter, operations) => result,
    };
    // The queue is closed now in every case, so the thread saves what it has and ends.
    let Ok(disk) = disk.await else {
        let error = TransferError::Protocol("the writing thread failed");
        return Err(Stopped {
            error,
            complete: 0,
            part: None,
        });
    };
    match (disk.error, talked) {
        (None, Ok(received)) => Ok(received),
        (Some(error), _) | (None, Err(error)) => Err(Stopped {
            error,
            complete: disk.complete,
            part: disk.part,
        }),
    }
}

async fn talk<R, W>(
    mut reader: R,
    mut writer: W,
    secret: &[u8; SECRET_LEN],
    options: Options,
    meter: &Meter,
    disk: mpsc::Sender<Operation>,
) -> Result<Received, TransferError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let secret = Zeroizing::new(*secret);
    frame::write(
        &mut writer,
        &Frame::Hello {
            version: frame::VERSION,
            secret,
        },
    )
    .await?;
    writer.flush().await?;
    let manifest = read_manifest(&mut reader).await?;
    let (files, bytes) = (manifest.files(), manifest.bytes());
    let plan = blocking(move || plan::make(&options.into, &manifest, &options.overwrite)).await??;
    meter.begin(files - plan.declined.len() as u64, bytes);

    let (asked, answers) = mpsc::channel(AHEAD_FILES);
    let mut received = Received {
        declined: plan.declined,
        ..Received::default()
    };
    tokio::try_join!(
        ask(&mut writer, plan.fetches, asked),
        take_answers(&mut reader, answers, &disk, meter, &mut received),
    )?;
    let (reply, tally) = oneshot::channel();
    disk.send(Operation::Settle(reply))
        .await
        .map_err(|_| DISK_STOPPED)?;
    let tally = tally.await.map_err(|_| DISK_STOPPED)?;
    received.fetched = tally.complete;
    received.failed.extend(tally.failed);

    let complete = u32::try_from(received.fetched + received.kept).unwrap_or(u32::MAX);
    let failed = u32::try_from(received.failed.len()).unwrap_or(u32::MAX);
    // Everything is on the disk; a sender that goes away now has done its part.
    if frame::write(&mut writer, &Frame::Bye { complete, failed })
        .await
        .is_ok()
        && writer.shutdown().await.is_ok()
    {
        let _ = reader.read(&mut [0]).await;
    }
    Ok(received)
}

/// Stands in for the error of the disk thread, which is reported instead.
const DISK_STOPPED: TransferError = TransferError::Protocol("the writing thread stopped");

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TransferError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| TransferError::Protocol("a working thread failed"))
}

async fn read_manifest(reader: &mut (impl AsyncRead + Unpin)) -> Result<Manifest, TransferError> {
    let mut entries = Vec::new();
    let mut paths_bytes = 0;
    loop {
        match frame::read(reader).await? {
            Frame::Entries(more) => {
                paths_bytes += more
                    .iter()
                    .map(|entry| entry.path.len() + 32)
                    .sum::<usize>();
                if paths_bytes > PATHS_MAX_BYTES {
                    return Err(TransferError::Protocol("too many files"));
                }
                entries.extend(more);
            }
            Frame::EntriesEnd(count) if count as usize == entries.len() => {
                return Manifest::new(entries);
            }
            Frame::Refused(refusal) => return Err(TransferError::Refused(refusal)),
            _ => return Err(TransferError::Protocol("the list of files is damaged")),
        }
    }
}

/// A file that was asked for.
struct Asked {
    fetch: Fetch,
    want: Want,
    prefix: Prefix,
}

/// Asks for every file, at most [`AHEAD_FILES`] ahead of the answers.
async fn ask(
    writer: &mut (impl AsyncWrite + Unpin),
    fetches: Vec<Fetch>,
    asked: mpsc::Sender<Asked>,
) -> Result<(), TransferError> {
    let (ready, mut queue) = mpsc::channel(AHEAD_FILES);
    let reading = tokio::task::spawn_blocking(move || {
        for fetch in fetches {
            let (want, prefix) = fetch.prepare();
            if ready
                .blocking_send(Asked {
                    fetch,
                    want,
                    prefix,
                })
                .is_err()
            {
                return;
            }
        }
    });
    while let Some(next) = queue.recv().await {
        frame::write(writer, &Frame::Want(next.want)).await?;
        writer.flush().await?;
        asked.send(next).await.map_err(|_| DISK_STOPPED)?;
    }
    reading
        .await
        .map_err(|_| TransferError::Protocol("a working thread failed"))?;
    frame::write(writer, &Frame::WantEnd).await?;
    writer.flush().await?;
    Ok(())
}

async fn take_answers(
    reader: &mut (impl AsyncRead + Unpin),
    mut asked: mpsc::Receiver<Asked>,
    disk: &mpsc::Sender<Operation>,
    meter: &Meter,
    received: &mut Received,
) -> Result<(), TransferError> {
    while let Some(Asked {
        fetch,
        want,
        prefix,
    }) = asked.recv().await
    {
        meter.file(&fetch.name);
        let offset = match frame::read(reader).await? {
            Frame::File { entry, offset }
                if entry == want.entry && (offset == want.offset || offset == 0) =>
            {
                offset
            }
            Frame::Failed(failure) => {
                received.failed.push((fetch.name, failure.describe()));
                continue;
            }
            _ => return Err(TransferError::Protocol("an answer to another question")),
        };
        meter.kept(offset);
        if offset == fetch.target.size && offset == want.offset && fetch.is_complete() {
            take_comparison(reader, &fetch, &prefix, received).await?;
        } else {
            let prefix = if offset == want.offset {
                prefix
            } else {
                Prefix::default()
            };
            let left = fetch.target.size - offset;
            let name = fetch.name.clone();
            send(disk, Operation::Begin(Box::new((fetch, prefix)))).await?;
            if let Some(why) = take_data(reader, left, disk, meter).await? {
                received.failed.push((name, why));
                continue;
            }
        }
        meter.file_done();
    }
    Ok(())
}

async fn send(disk: &mpsc::Sender<Operation>, operation: Operation) -> Result<(), TransferError> {
    disk.send(operation).await.map_err(|_| DISK_STOPPED)
}

/// The file is there; only the hash comes.
async fn take_comparison(
    reader: &mut (impl AsyncRead + Unpin),
    fetch: &Fetch,
    prefix: &Prefix,
    received: &mut Received,
) -> Result<(), TransferError> {
    match frame::read(reader).await? {
        Frame::Done(hash) if prefix.hasher.finalize().as_bytes() == &hash => received.kept += 1,
        Frame::Failed(failure) => received
            .failed
            .push((fetch.name.clone(), failure.describe())),
        _ => return Err(TransferError::Protocol("a hash that contradicts itself")),
    }
    Ok(())
}

/// Takes the bytes of a file; gives the reason when the sender stops in the middle.
async fn take_data(
    reader: &mut (impl AsyncRead + Unpin),
    mut left: u64,
    disk: &mpsc::Sender<Operation>,
    meter: &Meter,
) -> Result<Option<&'static str>, TransferError> {
    loop {
        match frame::read(reader).await? {
            Frame::Data(data) if !data.is_empty() && data.len() as u64 <= left => {
                left -= data.len() as u64;
                meter.moved(data.len() as u64);
                send(disk, Operation::Data(data)).await?;
            }
            Frame::Done(hash) if left == 0 => {
                send(disk, Operation::Finish(hash)).await?;
                return Ok(None);
            }
            Frame::Failed(failure) => {
                send(disk, Operation::Close).await?;
                return Ok(Some(failure.describe()));
            }
            _ => return Err(TransferError::Protocol("data that does not fit the file")),
        }
    }
}
