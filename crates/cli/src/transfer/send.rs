//! The sending side of a transfer.
//!
//! Owns the answers to a receiver: the secret is checked before anything else is said. A thread
//! reads and hashes files while the stream carries earlier ones. It never changes a file.

use super::error::{Refusal, TransferError};
use super::frame::{self, FileFailure, Frame, Want};
use super::manifest::Kind;
use super::meter::Meter;
use super::prefix::Prefix;
use super::walk::{Source, file_kind};
use super::{AHEAD_FILES, CHUNK_BYTES, QUEUE_FRAMES, SECRET_LEN};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;

/// What a receiver says at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Files that the receiver has now.
    pub complete: u32,
    /// Files that it wanted and does not have.
    pub failed: u32,
}

/// Serves one receiver.
///
/// # Errors
///
/// [`TransferError::Refused`] when the secret is wrong (the receiver is told), otherwise whatever
/// ended the conversation early; the source can be served again.
pub async fn serve<R, W>(
    mut reader: R,
    mut writer: W,
    secret: &[u8; SECRET_LEN],
    source: Arc<Source>,
    meter: Arc<Meter>,
) -> Result<Sent, TransferError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if let Err(refusal) = check_hello(&frame::read(&mut reader).await?, secret)? {
        frame::write(&mut writer, &Frame::Refused(refusal)).await?;
        writer.shutdown().await?;
        return Err(TransferError::Refused(refusal));
    }
    meter.begin(source.manifest.files(), source.manifest.bytes());
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    for frame in frame::entries_frames(source.manifest.entries()) {
        frame::write(&mut writer, &frame).await?;
    }
    writer.flush().await?;

    let (wants, wants_queue) = mpsc::channel(AHEAD_FILES);
    let (frames, frames_queue) = mpsc::channel(QUEUE_FRAMES);
    let read_meter = Arc::clone(&meter);
    let disk = tokio::task::spawn_blocking(move || {
        read_files(&source, wants_queue, &frames, &read_meter);
    });
    tokio::try_join!(
        read_wants(&mut reader, wants),
        write_frames(&mut writer, frames_queue, &meter)
    )?;
    disk.await
        .map_err(|_| TransferError::Protocol("the reading thread failed"))?;
    let Frame::Bye { complete, failed } = frame::read(&mut reader).await? else {
        return Err(TransferError::Protocol("the end is missing"));
    };
    writer.shutdown().await?;
    Ok(Sent { complete, failed })
}

fn check_hello(
    frame: &Frame,
    expected: &[u8; SECRET_LEN],
) -> Result<Result<(), Refusal>, TransferError> {
    let Frame::Hello { version, secret } = frame else {
        return Err(TransferError::Protocol("the greeting is missing"));
    };
    if !bool::from(secret.ct_eq(expected)) {
        return Ok(Err(Refusal::Secret));
    }
    Ok(if *version == frame::VERSION {
        Ok(())
    } else {
        Err(Refusal::Version)
    })
}

async fn read_wants(
    reader: &mut (impl AsyncRead + Unpin),
    wants: mpsc::Sender<Want>,
) -> Result<(), TransferError> {
    loop {
        match frame::read(reader).await? {
            Frame::Want(want) => {
                if wants.send(want).await.is_err() {
                    return Err(TransferError::Protocol("a request for what is not a file"));
                }
            }
            Frame::WantEnd => return Ok(()),
            _ => return Err(TransferError::Protocol("something else than a request")),
        }
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(
    writer: &mut BufWriter<W>,
    mut frames: mpsc::Receiver<Frame>,
    meter: &Meter,
) -> Result<(), TransferError> {
    loop {
        let frame = match frames.try_recv() {
            Ok(frame) => frame,
            Err(_) => {
                // Nothing is ready: what was gathered goes out before we wait.
                writer.flush().await?;
                match frames.recv().await {
                    Some(frame) => frame,
                    None => return Ok(()),
                }
            }
        };
        frame::write(writer, &frame).await?;
        match frame {
            Frame::Data(data) => meter.moved(data.len() as u64),
            Frame::Done(_) => meter.file_done(),
            _ => {}
        }
    }
}

/// Answers requests until there are no more, the stream is gone, or a request makes no sense.
fn read_files(
    source: &Source,
    mut wants: mpsc::Receiver<Want>,
    frames: &mpsc::Sender<Frame>,
    meter: &Meter,
) {
    while let Some(want) = wants.blocking_recv() {
        let index = want.entry as usize;
        let Some(entry) = source.manifest.entries().get(index) else {
            return;
        };
        if entry.kind == Kind::Folder {
            return;
        }
        meter.file(&entry.path);
        let answered = match send_file(&source.paths[index], entry.kind, &want, frames, meter) {
            Ok(()) => Ok(()),
            Err(Stop::File(failure)) => frames.blocking_send(Frame::Failed(failure)).map_err(drop),
            Err(Stop::Stream) => Err(()),
        };
        if answered.is_err() {
            return;
        }
    }
}

/// Why a file is not sent to its end.
enum Stop {
    /// Something with the file.
    File(FileFailure),
    /// Nobody takes the frames any more.
    Stream,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::File(FileFailure::Unreadable)
    }
}

impl<T> From<mpsc::error::SendError<T>> for Stop {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::Stream
    }
}

fn send_file(
    path: &Path,
    kind: Kind,
    want: &Want,
    frames: &mpsc::Sender<Frame>,
    meter: &Meter,
) -> Result<(), Stop> {
    let Kind::File { size, .. } = kind else {
        return Err(Stop::File(FileFailure::Changed));
    };
    // Looked at before it is opened: to open a pipe that took the file's name would wait for ever.
    if file_kind(&fs::metadata(path)?) != kind || !fs::metadata(path)?.is_file() {
        return Err(Stop::File(FileFailure::Changed));
    }
    let mut file = File::open(path)?;
    let known = (want.offset <= size)
        .then(|| Prefix::read(path, want.offset))
        .flatten()
        .filter(|prefix| prefix.hasher.finalize().as_bytes() == &want.prefix);
    if want.verify_only && (known.is_none() || want.offset != size) {
        return Err(Stop::File(FileFailure::Differs));
    }
    let mut prefix = known.unwrap_or_default();
    meter.kept(prefix.bytes);
    file.seek(SeekFrom::Start(prefix.bytes))?;
    frames.blocking_send(Frame::File {
        entry: want.entry,
        offset: prefix.bytes,
    })?;
    while prefix.bytes < size {
        let length = (size - prefix.bytes).min(CHUNK_BYTES as u64);
        let mut data = vec![0; usize::try_from(length).expect("at most CHUNK_BYTES")];
        match file.read_exact(&mut data) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Stop::File(FileFailure::Changed));
            }
            Err(error) => return Err(error.into()),
        }
        prefix.hasher.update(&data);
        prefix.bytes += length;
        frames.blocking_send(Frame::Data(data))?;
    }
    if file_kind(&file.metadata()?) != kind {
        return Err(Stop::File(FileFailure::Changed));
    }
    frames.blocking_send(Frame::Done(*prefix.hasher.finalize().as_bytes()))?;
    Ok(())
}
