//! What the pure layers are given by the host: time and randomness.
//!
//! Owns the clock reading. The monotonic clock runs on in suspend
//! (`CLOCK_BOOTTIME`) where the platform has one, so that sessions age while a laptop sleeps.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wiremesh_wire::{Instant, Now, UnixTime};

/// Where time and randomness come from: the operating system, or a simulated host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    #[cfg(feature = "virtual")]
    pub(crate) world: Option<crate::virtual_network::World>,
}

impl Host {
    /// Reads both clocks.
    pub(crate) fn now(&self) -> Now {
        #[cfg(feature = "virtual")]
        if let Some(world) = &self.world {
            return world.now();
        }
        now()
    }

    /// Waits exactly so long on a simulated host; `false` on a real one, at once.
    pub(crate) async fn sleep(&self, time: Duration) -> bool {
        #[cfg(feature = "virtual")]
        if let Some(world) = &self.world {
            world.sleep(time).await;
            return true;
        }
        let _ = time;
        false
    }

    /// 32 bytes of randomness.
    pub(crate) fn entropy(&self) -> io::Result<[u8; 32]> {
        #[cfg(feature = "virtual")]
        if let Some(world) = &self.world {
            return Ok(world.entropy());
        }
        entropy()
    }
}

fn now() -> Now {
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
