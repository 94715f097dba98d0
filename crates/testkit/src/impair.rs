//! A UDP relay that loses, delays, reorders, duplicates, corrupts, and limits size and rate.
//!
//! [`Impairment`] is one direction of a link as a pure state machine: time is an argument, chance
//! comes from a seed. [`Impair`] is the relay around it, with real sockets; like a NAT it gives
//! each client its own socket toward the target, and can change its port
//! ([`Impair::rebind_upstream`]).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use wiremesh_testkit::impair::{Impair, ImpairConfig, LinkConfig};
//!
//! let target = "127.0.0.1:5000".parse()?;
//! let link = LinkConfig { loss: 0.05, delay: Duration::from_millis(20), ..Default::default() };
//! let relay = Impair::start(ImpairConfig::new(target).with_link(link))?;
//! println!("send to {} instead of {target}", relay.local_addr());
//! # Ok(())
//! # }
//! ```

mod config;
mod link;
mod random;
mod relay;

pub use config::{ConfigError, ImpairConfig, LinkConfig};
pub use link::{IN_FLIGHT_MAX, Impairment, LinkStats};
pub use relay::{CLIENTS_MAX, Impair, ImpairError, ImpairStats};
