//! What the pure layers are given by the host: time, randomness, and a place to keep a timestamp.
//!
//! Owns the clock reading and the state directory. The monotonic clock runs on in suspend
//! (`CLOCK_BOOTTIME`) where the platform has one, so that sessions age while a laptop sleeps.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wiremesh_wire::{Instant, Now, Tai64n, UnixTime};

/// Reads both clocks.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Now::new(monotonic(), UnixTime::from_duration(unix))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn monotonic() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn monotonic() -> Instant {
    use std::sync::OnceLock;
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    let origin = ORIGIN.get_or_init(std::time::Instant::now);
    Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// 32 bytes of the operating system's randomness.
pub(crate) fn entropy() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Where a node keeps what must outlive it.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// Opens the directory, making it if needed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    fn timestamp_file(&self) -> PathBuf {
        self.0.join("timestamp")
    }

    /// The smallest timestamp that was never used, if one was saved.
    pub(crate) fn load_timestamp(&self) -> io::Result<Option<Tai64n>> {
        let text = match fs::read_to_string(self.timestamp_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let bytes = parse_hex(text.trim()).ok_or_else(|| {
            let message = "not a timestamp of 24 hexadecimal digits; \
                restore the file, or delete it if the clock never went back";
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        Ok(Some(Tai64n::from_bytes(bytes)))
    }

    /// Saves a timestamp so that it survives a crash right after.
    pub(crate) fn save_timestamp(&self, timestamp: Tai64n) -> io::Result<()> {
        let new = self.0.join("timestamp.new");
        let mut file = File::create(&new)?;
        for byte in timestamp.as_bytes() {
            write!(file, "{byte:02x}")?;
        }
        writeln!(file)?;
        file.sync_all()?;
        fs::rename(&new, self.timestamp_file())?;
        // The rename itself is durable once the directory is; not every platform can sync one.
        File::open(&self.0)
            .and_then(|dir| dir.sync_all())
            .or(Ok(()))
    }
}

fn parse_hex(text: &str) -> Option<[u8; 12]> {
    let mut bytes = [0; 12];
    if text.len() != 24 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_and_a_damaged_one_is_an_error() {
        let path = std::env::temp_dir().join(format!("wiremesh-state-{}", std::process::id()));
        let dir = StateDir::open(&path).expect("a fresh directory");
        assert_eq!(dir.load_timestamp().expect("no file is fine"), None);
        let timestamp = Tai64n::from_unix(UnixTime::from_secs_nanos(1_700_000_000, 7));
        dir.save_timestamp(timestamp).expect("writable");
        assert_eq!(dir.load_timestamp().expect("saved"), Some(timestamp));
        fs::write(dir.timestamp_file(), "nonsense").expect("writable");
        assert!(dir.load_timestamp().is_err());
        fs::remove_dir_all(&path).expect("ours");
    }
}
