//! The frames of the transfer protocol: one byte of type, four bytes of length, the payload.
//!
//! Owns layout, limits and their checks. It allocates at most [`PAYLOAD_MAX_BYTES`] for a frame
//! and never trusts a count. Numbers are little-endian.

use super::error::{Refusal, TransferError};
use super::manifest::{ENTRIES_MAX, Entry, Kind, Modified};
use super::{CHUNK_BYTES, SECRET_LEN};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// The version of the conversation, in HELLO.
pub const VERSION: u8 = 1;

/// First bytes of a HELLO.
const MAGIC: [u8; 4] = *b"wmft";

/// Largest payload of a frame.
pub const PAYLOAD_MAX_BYTES: usize = CHUNK_BYTES;

/// Entries of one ENTRIES frame stop here; it leaves room for the longest single entry.
const ENTRIES_FRAME_BYTES: usize = 64 * 1024;

/// BLAKE3 of a file or of the beginning of one.
pub type Hash = [u8; 32];

/// One message of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Receiver: begins, and shows the secret of the ticket.
    Hello {
        /// The version that the receiver speaks.
        version: u8,
        /// The secret.
        secret: Zeroizing<[u8; SECRET_LEN]>,
    },
    /// Sender: ends the conversation.
    Refused(Refusal),
    /// Sender: some files and folders.
    Entries(Vec<Entry>),
    /// Sender: that was all of them; their number.
    EntriesEnd(u32),
    /// Receiver: asks for a file.
    Want(Want),
    /// Receiver: asks for nothing more.
    WantEnd,
    /// Sender: the answer to the next `Want`; data begins at this offset.
    File {
        /// Which file.
        entry: u32,
        /// Where its data begins: what was asked for, or 0.
        offset: u64,
    },
    /// Sender: bytes of the file.
    Data(Vec<u8>),
    /// Sender: the hash of the whole file.
    Done(Hash),
    /// Sender: this file cannot be sent.
    Failed(FileFailure),
    /// Receiver: all is on the disk; how many files.
    Bye {
        /// Files that are complete.
        complete: u32,
        /// Files that are not.
        failed: u32,
    },
}

/// A request for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Index in the manifest.
    pub entry: u32,
    /// Bytes that the receiver has.
    pub offset: u64,
    /// Their hash.
    pub prefix: Hash,
    /// The receiver may not write: when the hash differs, nothing shall be sent.
    pub verify_only: bool,
}

/// Why a sender cannot send one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFailure {
    /// It cannot be opened or read.
    Unreadable,
    /// It is no longer as the manifest says.
    Changed,
    /// It is not equal to what the receiver has, and the receiver may not write.
    Differs,
}

impl FileFailure {
    /// Says it to the user of the receiving side.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unreadable => "the sender cannot read it",
            Self::Changed => "it changed on the sender's side meanwhile",
            Self::Differs => "a file of that name exists with the same size and time, but differs",
        }
    }
}

mod code {
    pub const HELLO: u8 = 1;
    pub const REFUSED: u8 = 2;
    pub const ENTRIES: u8 = 3;
    pub const ENTRIES_END: u8 = 4;
    pub const WANT: u8 = 5;
    pub const WANT_END: u8 = 6;
    pub const FILE: u8 = 7;
    pub const DATA: u8 = 8;
    pub const DONE: u8 = 9;
    pub const FAILED: u8 = 10;
    pub const BYE: u8 = 11;
}

/// Reads one frame.
///
/// # Errors
///
/// The stream ended or broke, or the bytes are not a frame.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame, TransferError> {
    let mut head = [0u8; 5];
    stream.read_exact(&mut head).await?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > PAYLOAD_MAX_BYTES {
        return Err(TransferError::Protocol("a frame is too long"));
    }
    let mut payload = vec![0u8; length];
    stream.read_exact(&mut payload).await?;
    parse(head[0], payload)
}

/// Writes one frame.
///
/// # Errors
///
/// The stream broke.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
) -> Result<(), TransferError> {
    if let Frame::Data(data) = frame {
        debug_assert!(data.len() <= PAYLOAD_MAX_BYTES);
        stream.write_all(&head(code::DATA, data.len())).await?;
        stream.write_all(data).await?;
        return Ok(());
    }
    let bytes = Zeroizing::new(emit(frame));
    stream.write_all(&bytes).await?;
    Ok(())
}

/// Splits entries into frames of bounded size.
pub fn entries_frames(entries: &[Entry]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    for entry in entries {
        batch_bytes += entry.path.len() + 32;
        batch.push(entry.clone());
        if batch_bytes >= ENTRIES_FRAME_BYTES {
            frames.push(Frame::Entries(std::mem::take(&mut batch)));
            batch_bytes = 0;
        }
    }
    if !batch.is_empty() {
        frames.push(Frame::Entries(batch));
    }
    let count = u32::try_from(entries.len()).expect("a manifest has at most ENTRIES_MAX entries");
    frames.push(Frame::EntriesEnd(count));
    frames
}

fn head(code: u8, length: usize) -> [u8; 5] {
    let length = u32::try_from(length).expect("payloads are at most PAYLOAD_MAX_BYTES");
    let [a, b, c, d] = length.to_le_bytes();
    [code, a, b, c, d]
}

/// Gives the bytes of a frame.
pub fn emit(frame: &Frame) -> Vec<u8> {
    let mut out = vec![0u8; 5];
    let code = match frame {
        Frame::Hello { version, secret } => {
            out.extend(MAGIC);
            out.push(*version);
            out.extend(secret.as_slice());
            code::HELLO
        }
        Frame::Refused(refusal) => {
            out.push(match refusal {
                Refusal::Secret => 1,
                Refusal::Version => 2,
                Refusal::Other(code) => *code,
            });
            code::REFUSED
        }
        Frame::Entries(entries) => {
            entries.iter().for_each(|entry| emit_entry(entry, &mut out));
            code::ENTRIES
        }
        Frame::EntriesEnd(count) => {
            out.extend(count.to_le_bytes());
            code::ENTRIES_END
        }
        Frame::Want(want) => {
            out.extend(want.entry.to_le_bytes());
            out.extend(want.offset.to_le_bytes());
            out.extend(want.prefix);
            out.push(u8::from(want.verify_only));
            code::WANT
        }
        Frame::WantEnd => code::WANT_END,
        Frame::File { entry, offset } => {
            out.extend(entry.to_le_bytes());
            out.extend(offset.to_le_bytes());
            code::FILE
        }
        Frame::Data(data) => {
            out.extend(data);
            code::DATA
        }
        Frame::Done(hash) => {
            out.extend(hash);
            code::DONE
        }
        Frame::Failed(failure) => {
            out.push(*failure as u8);
            code::FAILED
        }
        Frame::Bye { complete, failed } => {
            out.extend(complete.to_le_bytes());
            out.extend(failed.to_le_bytes());
            code::BYE
        }
    };
    let length = out.len() - 5;
    out[..5].copy_from_slice(&head(code, length));
    out
}

fn emit_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.push(match entry.kind {
        Kind::Folder => 0,
        Kind::File {
            executable: false, ..
        } => 1,
        Kind::File {
            executable: true, ..
        } => 2,
    });
    if let Kind::File { size, modified, .. } = entry.kind {
        out.extend(size.to_le_bytes());
        out.extend(modified.seconds.to_le_bytes());
        out.extend(modified.nanos.to_le_bytes());
    }
    let length = u16::try_from(entry.path.len()).expect("paths are at most PATH_MAX_BYTES");
    out.extend(length.to_le_bytes());
    out.extend(entry.path.as_bytes());
}

/// Gives the frame of a type and a payload.
///
/// # Errors
///
/// [`TransferError::Protocol`] with what is wrong.
pub fn parse(code: u8, payload: Vec<u8>) -> Result<Frame, TransferError> {
    if code == code::DATA {
        return Ok(Frame::Data(payload));
    }
    let payload = Zeroizing::new(payload);
    let mut fields = Fields(&payload);
    let frame = match code {
        code::HELLO => {
            if fields.take::<4>()? != MAGIC {
                return Err(TransferError::Protocol("it is not a file transfer"));
            }
            Frame::Hello {
                version: fields.u8()?,
                secret: Zeroizing::new(fields.take()?),
            }
        }
        code::REFUSED => Frame::Refused(match fields.u8()? {
            1 => Refusal::Secret,
            2 => Refusal::Version,
            other => Refusal::Other(other),
        }),
        code::ENTRIES => {
            let mut entries = Vec::new();
            while !fields.0.is_empty() {
                entries.push(parse_entry(&mut fields)?);
            }
            Frame::Entries(entries)
        }
        code::ENTRIES_END => match fields.u32()? {
            count if count as usize <= ENTRIES_MAX => Frame::EntriesEnd(count),
            _ => return Err(TransferError::Protocol("too many files")),
        },
        code::WANT => Frame::Want(Want {
            entry: fields.u32()?,
            offset: fields.u64()?,
            prefix: fields.take()?,
            verify_only: match fields.u8()? {
                0 => false,
                1 => true,
                _ => return Err(TransferError::Protocol("a flag is neither 0 nor 1")),
            },
        }),
        code::WANT_END => Frame::WantEnd,
        code::FILE => Frame::File {
            entry: fields.u32()?,
            offset: fields.u64()?,
        },
        code::DONE => Frame::Done(fields.take()?),
        code::FAILED => Frame::Failed(match fields.u8()? {
            0 => FileFailure::Unreadable,
            1 => FileFailure::Changed,
            2 => FileFailure::Differs,
            _ => return Err(TransferError::Protocol("an unknown reason")),
        }),
        code::BYE => Frame::Bye {
            complete: fields.u32()?,
            failed: fields.u32()?,
        },
        _ => return Err(TransferError::Protocol("an unknown frame type")),
    };
    if fields.0.is_empty() {
        Ok(frame)
    } else {
        Err(TransferError::Protocol("bytes after the end of a frame"))
    }
}

fn parse_entry(fields: &mut Fields<'_>) -> Result<Entry, TransferError> {
    let tag = fields.u8()?;
    let kind = match tag {
        0 => Kind::Folder,
        1 | 2 => {
            let size = fields.u64()?;
            let modified = Modified {
                seconds: i64::from_le_bytes(fields.take()?),
                nanos: fields.u32()?,
            };
            if modified.nanos >= 1_000_000_000 {
                return Err(TransferError::Protocol(
                    "a time has more than 10^9 nanoseconds",
                ));
            }
            Kind::File {
                size,
                modified,
                executable: tag == 2,
            }
        }
        _ => return Err(TransferError::Protocol("an unknown kind of file")),
    };
    let length = u16::from_le_bytes(fields.take()?);
    let path = fields.bytes(usize::from(length))?;
    let path = str::from_utf8(path)
        .map_err(|_| TransferError::Protocol("a file name is not UTF-8"))?
        .to_owned();
    Ok(Entry { path, kind })
}

/// A reader of fields that never reads past the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], TransferError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(TransferError::Protocol("a frame is too short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], TransferError> {
        Ok(self.bytes(N)?.try_into().expect("bytes() gives exactly N"))
    }

    fn u8(&mut self) -> Result<u8, TransferError> {
        Ok(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, TransferError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, TransferError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(frame: &Frame) {
        let bytes = emit(frame);
        assert_eq!(
            parse(bytes[0], bytes[5..].to_vec()).expect("own frame parses"),
            *frame
        );
    }

    #[test]
    fn every_frame_survives_emit_and_parse() {
        let file = Kind::File {
            size: u64::MAX,
            modified: Modified {
                seconds: -5,
                nanos: 999_999_999,
            },
            executable: true,
        };
        for frame in [
            Frame::Hello {
                version: 1,
                secret: Zeroizing::new([7; 16]),
            },
            Frame::Refused(Refusal::Secret),
            Frame::Refused(Refusal::Version),
            Frame::Refused(Refusal::Other(77)),
            Frame::Entries(vec![
                Entry {
                    path: "d".into(),
                    kind: Kind::Folder,
                },
                Entry {
                    path: "d/ü".into(),
                    kind: file,
                },
            ]),
            Frame::EntriesEnd(2),
            Frame::Want(Want {
                entry: 3,
                offset: 1 << 40,
                prefix: [9; 32],
                verify_only: true,
            }),
            Frame::WantEnd,
            Frame::File {
                entry: 3,
                offset: 0,
            },
            Frame::Data(vec![1, 2, 3]),
            Frame::Done([4; 32]),
            Frame::Failed(FileFailure::Unreadable),
            Frame::Failed(FileFailure::Changed),
            Frame::Failed(FileFailure::Differs),
            Frame::Bye {
                complete: 1,
                failed: 2,
            },
        ] {
            round_trip(&frame);
        }
    }

    #[test]
    fn many_entries_are_split_into_frames_within_the_limit() {
        let entries: Vec<Entry> = (0..3000)
            .map(|i| Entry {
                path: format!("{i}{}", "x".repeat(4000)),
                kind: Kind::Folder,
            })
            .collect();
        let frames = entries_frames(&entries);
        assert!(frames.len() > 10);
        assert!(
            frames
                .iter()
                .all(|frame| emit(frame).len() <= PAYLOAD_MAX_BYTES + 5)
        );
        assert_eq!(frames.last(), Some(&Frame::EntriesEnd(3000)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_parsed_frames_emit_the_same_bytes(
            code in 0u8..14,
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(frame) = parse(code, payload.clone()) {
                prop_assert_eq!(&emit(&frame)[5..], &payload[..]);
            }
        }
    }
}
