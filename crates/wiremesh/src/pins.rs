//! What a node remembers of other nodes for good, on disk: their pins, and the sequence number of
//! its own record.
//!
//! Owns the file `pins` of the state directory: an append-only journal of lines, each with a
//! checksum. A batch of lines is one write and one sync, done before what follows from it leaves
//! the node. Bytes behind the last line feed are what a crash left of such a write and do not
//! count; any other damage is an error, since what is lost here can be talked down.
//!
//! ```text
//! wiremesh-pins 1
//! pin NODE-ID LEVEL MAX-SEQ KEM-KEY-HASH|- LAST-SEEN CHECKSUM
//! seq NUMBER CHECKSUM
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use wiremesh_control::Pin;
use wiremesh_noise::crypto::hash;
use wiremesh_wire::NodeId;

/// The name of the file in the state directory.
pub(crate) const FILE_NAME: &str = "pins";
/// The first line; the number rises when older versions must not read on.
const HEADER: &str = "wiremesh-pins 1";
/// What the first line of every version begins with.
const HEADER_START: &str = "wiremesh-pins ";
/// A journal is written anew while the node runs when it is longer than this and than twice what
/// it was after the last time.
const COMPACT_FROM_BYTES: u64 = 1 << 20;

/// Why the file of pins cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum PinsError {
    /// The operating system refused.
    Io {
        /// The file.
        file: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A line is not what was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A newer version wrote what this one does not know.
    Newer {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for PinsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, error } => write!(f, "{}: {error}", file.display()),
            Self::Damaged {
                file,
                line: 1,
                what,
            } => write!(
                f,
                "{}, line 1: {what}; restore the file from a backup, or remove it: every promise \
                 of a peer is forgotten then, and all can be talked down to L1",
                file.display()
            ),
            Self::Damaged { file, line, what } => write!(
                f,
                "{}, line {line}: {what}; restore the file from a backup, or remove the line: what \
                 the peer in it has promised is forgotten then, and it can be talked down to L1",
                file.display()
            ),
            Self::Newer { file, line } => write!(
                f,
                "{}, line {line}: a newer version of wiremesh wrote this; use that version, or \
                 remove the line and forget what it says",
                file.display()
            ),
        }
    }
}

impl std::error::Error for PinsError {}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) pins: BTreeMap<NodeId, Pin>,
    /// No record of ours had a number above this.
    pub(crate) record_seq: u64,
}

impl Kept {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The lines that say the same.
    fn lines(&self) -> String {
        let mut text = String::new();
        for (node_id, pin) in &self.pins {
            push_line(&mut text, &pin_text(node_id, pin));
        }
        if self.record_seq > 0 {
            push_line(&mut text, &format!("seq {}", self.record_seq));
        }
        text
    }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that are written and synced.
    len: u64,
    compact_at: u64,
    /// A write failed: there may be more bytes behind `len`, which must not stay in the middle.
    torn: bool,
}

impl Journal {
    /// Opens the journal of a state directory, making it if there is none, and gives what is in
    /// it. What is superfluous in the file is left out of a new one that replaces it.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Kept), PinsError> {
        let path = dir.join(FILE_NAME);
        let io = |error| PinsError::Io {
            file: path.clone(),
            error,
        };
        let kept = load(dir)?;
        let whole = whole_text(&kept);
        let as_it_is = fs::read(&path).unwrap_or_default() == whole.as_bytes();
        let file = match as_it_is {
            true => File::options().write(true).open(&path).map_err(io)?,
            false => replace(&path, &whole).map_err(io)?,
        };
        let journal = Self {
            path,
            file,
            len: whole.len() as u64,
            compact_at: compact_at(whole.len() as u64),
            torn: false,
        };
        Ok((journal, kept))
    }

    /// Adds a batch so that it survives a crash right after. After an error nothing of it counts,
    /// and it can be added again.
    pub(crate) fn append(&mut self, batch: &Kept) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.file.set_len(self.len)?;
        }
        let text = batch.lines();
        self.torn = true;
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.torn = false;
        self.len += text.len() as u64;
        if self.len >= self.compact_at {
            self.compact();
        }
        Ok(())
    }

    /// Writes the file anew without what is superseded. What cannot be done now is tried later.
    fn compact(&mut self) {
        self.compact_at = compact_at(self.len);
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let compacted = load(folder).map(|kept| whole_text(&kept)).and_then(|text| {
            let file = replace(&self.path, &text).map_err(|error| PinsError::Io {
                file: self.path.clone(),
                error,
            })?;
            Ok((file, text.len() as u64))
        });
        match compacted {
            Ok((file, len)) => {
                self.file = file;
                self.len = len;
                self.compact_at = compact_at(len);
            }
            Err(error) => tracing::warn!(%error, "the file of pins cannot be made shorter"),
        }
    }
}

fn compact_at(len: u64) -> u64 {
    len.saturating_mul(2).max(COMPACT_FROM_BYTES)
}

/// Reads the file of a state directory; without one, nothing is kept.
pub(crate) fn load(dir: &Path) -> Result<Kept, PinsError> {
    let file = dir.join(FILE_NAME);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(PinsError::Io { file, error }),
    };
    parse(&bytes).map_err(|(line, fault)| match fault {
        Fault::Damaged(what) => PinsError::Damaged { file, line, what },
        Fault::Newer => PinsError::Newer { file, line },
    })
}

/// What is wrong with a line.
enum Fault {
    Damaged(&'static str),
    Newer,
}

fn parse(bytes: &[u8]) -> Result<Kept, (usize, Fault)> {
    // What is behind the last line feed was never synced.
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    let whole = end.map_or(&[][..], |end| &bytes[..end]);
    let mut lines = whole.split(|byte| *byte == b'\n').map(std::str::from_utf8);
    match lines.next() {
        Some(Ok(HEADER)) => {}
        Some(Ok(other)) if other.starts_with(HEADER_START) => return Err((1, Fault::Newer)),
        _ => return Err((1, Fault::Damaged("this is no file of pins"))),
    }
    let mut kept = Kept::default();
    for (index, line) in lines.enumerate() {
        let line = line.map_err(|_| Fault::Damaged("it is not text"));
        line.and_then(|line| parse_line(line, &mut kept))
            .map_err(|fault| (index + 2, fault))?;
    }
    Ok(kept)
}

fn parse_line(line: &str, kept: &mut Kept) -> Result<(), Fault> {
    let (text, sum) = line
        .rsplit_once(' ')
        .ok_or(Fault::Damaged("it has no checksum"))?;
    if checksum(text) != sum {
        return Err(Fault::Damaged("its checksum is wrong"));
    }
    // Written as it stands there, then: what is not understood is newer than this version.
    let mut fields = text.split(' ');
    let kind = fields.next();
    let fields: Vec<&str> = fields.collect();
    let understood = match (kind, &fields[..]) {
        (Some("pin"), [id, level, seq, key_hash, seen]) => {
            parse_pin(id, [level, seq, key_hash, seen]).map(|(id, pin)| {
                kept.pins.insert(id, pin);
            })
        }
        (Some("seq"), [number]) => number.parse().ok().map(|number: u64| {
            kept.record_seq = kept.record_seq.max(number);
        }),
        _ => None,
    };
    understood.ok_or(Fault::Newer)
}

fn parse_pin(id: &str, [level, seq, key_hash, seen]: [&str; 4]) -> Option<(NodeId, Pin)> {
    let kem_pk_hash = match key_hash {
        "-" => None,
        text => Some(parse_hex(text)?),
    };
    let pin = Pin {
        level: level.parse().ok()?,
        max_seq: seq.parse().ok()?,
        kem_pk_hash,
        last_seen: seen.parse().ok()?,
    };
    Some((id.parse().ok()?, pin))
}

fn pin_text(node_id: &NodeId, pin: &Pin) -> String {
    let Pin {
        level,
        max_seq,
        kem_pk_hash,
        last_seen,
    } = pin;
    let key_hash = kem_pk_hash.map_or("-".to_owned(), |hash| hex(&hash));
    format!("pin {node_id} {level} {max_seq} {key_hash} {last_seen}")
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push(' ');
    text.push_str(&checksum(line));
    text.push('\n');
}

fn whole_text(kept: &Kept) -> String {
    format!("{HEADER}\n{}", kept.lines())
}

/// 64 bits of BLAKE2s: against accidents, not against somebody who writes to our disk.
fn checksum(text: &str) -> String {
    hex(&hash(&[b"wiremesh pins v1", text.as_bytes()])[..8])
}

/// Puts a whole new file in the place of `path`, so that a crash leaves the one or the other.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<File> {
    let new = path.with_extension("new");
    // One that a crash left has whatever mode it has.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename itself is durable once the directory is; not every platform can sync one.
    let folder = path.parent().unwrap_or(Path::new(""));
    File::open(folder)
        .and_then(|dir| dir.sync_all())
        .or(Ok::<_, io::Error>(()))?;
    Ok(file)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly `N` bytes in hexadecimal.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
