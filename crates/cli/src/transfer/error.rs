//! Why a transfer stops.
//!
//! Owns the error types and their wording; says who is at fault: the other side, this host, or
//! the path between them.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why the sender does not serve this receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The secret of the ticket is wrong.
    Secret,
    /// The sender does not speak this version.
    Version,
    /// A reason that this version does not know.
    Other(u8),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret => write!(f, "the ticket is not, or no longer, valid for this sender"),
            Self::Version => write!(f, "the sender speaks another version of the file transfer"),
            Self::Other(code) => write!(f, "the sender refuses (reason {code})"),
        }
    }
}

/// Why a transfer stopped before its end.
#[derive(Debug)]
pub enum TransferError {
    /// The stream broke: the other side or the path is gone.
    Lost(io::Error),
    /// The other side broke the protocol.
    Protocol(&'static str),
    /// The other side refused.
    Refused(Refusal),
    /// The sender named a file in a way that could leave the target folder.
    BadName {
        /// The name, escaped for a terminal.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The disk is full.
    DiskFull(PathBuf),
    /// Another operation on a local file failed.
    Local {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Another process is receiving the same file.
    Busy(PathBuf),
    /// Files exist and nobody could be asked.
    WouldOverwrite(Vec<String>),
    /// A folder of the transfer meets something else in the target folder.
    InTheWay {
        /// What is in the way.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The caller cancelled.
    Interrupted,
}

impl TransferError {
    /// Turns a failed operation on `path` into an error; a full disk gets its own.
    pub fn local(path: impl Into<PathBuf>, error: io::Error) -> Self {
        let path = path.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(path),
            _ => Self::Local { path, error },
        }
    }

    /// Whether the same command, later, can go on where this one stopped.
    pub fn is_resumable(&self) -> bool {
        matches!(
            self,
            Self::Lost(_) | Self::DiskFull(_) | Self::Interrupted | Self::Local { .. }
        )
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                write!(f, "the other side ended the transfer early")
            }
            Self::Lost(error) => write!(f, "the connection is lost: {error}"),
            Self::Protocol(what) => write!(f, "the other side broke the protocol: {what}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::BadName { name, why } => {
                write!(
                    f,
                    "the sender names a file {name}, which {why}; nothing was written"
                )
            }
            Self::DiskFull(path) => write!(f, "the disk is full at {}", path.display()),
            Self::Local { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Busy(path) => {
                write!(f, "another process is receiving {} now", path.display())
            }
            Self::WouldOverwrite(names) => {
                let more = names.len().saturating_sub(3);
                let verb = if names.len() == 1 { "exists" } else { "exist" };
                write!(
                    f,
                    "{} {verb} already",
                    names[..names.len() - more].join(", ")
                )?;
                if more > 0 {
                    write!(f, " (and {more} more)")
                } else {
                    Ok(())
                }
            }
            Self::InTheWay { path, what } => {
                write!(
                    f,
                    "{} is {what}, and a folder of the transfer goes there",
                    path.display()
                )
            }
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for TransferError {}

impl From<io::Error> for TransferError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_and_full_quota_are_told_apart_from_other_errors() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = TransferError::local("/x", io::Error::from(kind));
            assert!(matches!(error, TransferError::DiskFull(_)), "{error:?}");
        }
        let other = TransferError::local("/x", io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(matches!(other, TransferError::Local { .. }));
    }

    #[test]
    fn long_list_of_existing_files_is_cut() {
        let names = |n: usize| (0..n).map(|i| format!("f{i}")).collect();
        let text = |n| TransferError::WouldOverwrite(names(n)).to_string();
        assert_eq!(text(1), "f0 exists already");
        assert_eq!(text(3), "f0, f1, f2 exist already");
        assert_eq!(text(5), "f0, f1, f2 exist already (and 2 more)");
    }
}
