//! Waiting for less than the runtime's timer can, which counts whole milliseconds.
//!
//! Owns a timer of the operating system where there is one. With a pace, a packet is due every
//! millisecond or so: one that is late by as much leaves together with the next, and the third waits.

use crate::host::Host;
use std::time::Duration;

/// Longer waits are left to the runtime.
const FINE_BELOW: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<timerfd::Timer>,
}

impl Alarm {
    /// Without a timer of the operating system the runtime's has to do.
    pub(crate) fn new() -> Self {
        #[cfg(target_os = "linux")]
        match timerfd::Timer::new() {
            Ok(timer) => return Self { timer: Some(timer) },
            Err(error) => tracing::debug!(%error, "no fine timer"),
        }
        Self::default()
    }

    /// Waits so long; may be dropped at any time.
    pub(crate) async fn sleep(&self, host: &Host, time: Duration) {
        if time < FINE_BELOW {
            if host.sleep(time).await {
                return;
            }
            #[cfg(target_os = "linux")]
            if let Some(timer) = &self.timer
                && timer.sleep(time).await.is_ok()
            {
                return;
            }
        }
        tokio::time::sleep(time).await;
    }
}

#[cfg(target_os = "linux")]
mod timerfd {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// timerfd_create(2).
    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            wiremesh_device::watch(fd).map(Self)
        }

        pub(super) async fn sleep(&self, time: Duration) -> io::Result<()> {
            // Zero would switch it off.
            let time = time.max(Duration::from_nanos(1));
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let once = Itimerspec {
                it_interval: zero,
                it_value: Timespec {
                    tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(time.subsec_nanos()),
                },
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            let mut count = [0; 8];
            // What was set before has no say any more: the read fails until this one is over.
            let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut count)?);
            self.0.async_io(Interest::READABLE, read).await.map(drop)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn it_rings_after_its_time_and_not_for_one_that_was_given_up() {
            let timer = Timer::new().expect("there is one");
            for micros in [0, 300, 1_500] {
                let given_up = timer.sleep(Duration::from_micros(10));
                let _ = tokio::time::timeout(Duration::ZERO, given_up).await;
                let (began, time) = (std::time::Instant::now(), Duration::from_micros(micros));
                timer.sleep(time).await.expect("it rings");
                assert!(began.elapsed() >= time, "{micros}");
            }
        }
    }
}
