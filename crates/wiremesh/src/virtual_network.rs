//! A node on a simulated host: its time is tokio's paused clock, its randomness follows from a seed.
//!
//! Owns the date on which every simulation begins, and the count of what was drawn. Never used by a
//! node on a real host. For tests; not part of the public API.

use crate::builder::NodeBuilder;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wiremesh_noise::crypto::hmac;
use wiremesh_udp::memory::{self, Network};
use wiremesh_wire::{Instant, Now, UnixTime};

/// The date on which every simulation begins: 1 January 2026.
const DATE: Duration = Duration::from_secs(1_767_225_600);
/// What the monotonic clock shows then: the engine's deadlines may reach back a little.
const UPTIME: Duration = Duration::from_secs(1_000);

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    network: Network,
    seed: [u8; 32],
    drawn: AtomicU64,
}

impl World {
    pub(crate) fn now(&self) -> Now {
        let elapsed = self.network.elapsed();
        let uptime = u64::try_from((UPTIME + elapsed).as_nanos()).unwrap_or(u64::MAX);
        let date = UnixTime::from_duration(DATE + elapsed);
        Now::new(Instant::from_nanos(uptime), date)
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.network.sleep(time).await;
    }

    pub(crate) fn entropy(&self) -> [u8; 32] {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        *hmac(&self.seed, &[b"wiremesh simulation", &number])
    }
}

impl NodeBuilder {
    /// Runs the node on a host of a simulated network, in a current-thread runtime whose clock is
    /// paused. Equal seeds and equal inputs give equal datagrams.
    #[doc(hidden)]
    pub fn virtual_network(mut self, host: &memory::Host, seed: [u8; 32]) -> Self {
        self.host.world = Some(World {
            network: host.network().clone(),
            seed,
            drawn: AtomicU64::new(0),
        });
        self.udp.host = Some(host.clone());
        self
    }
}
