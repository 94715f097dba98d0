//! An arena: two places with a cable between them, ours and the stock program's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::guest::Guest;
use crate::netns::Namespace;
use crate::outcome::Outcome;
use crate::place::Place;
use crate::stock::Make;

/// Our end of the link, IPv4.
pub const OUR_V4: &str = "10.99.0.1";
/// Our end of the link, IPv6.
pub const OUR_V6: &str = "fd99::1";
/// Where our end goes when it roams.
pub const OUR_NEXT_V4: &str = "10.99.0.11";
/// The other end of the link, IPv4.
pub const THEIR_V4: &str = "10.99.0.2";
/// The other end of the link, IPv6.
pub const THEIR_V6: &str = "fd99::2";
/// Where the other end goes when it roams.
pub const THEIR_NEXT_V4: &str = "10.99.0.12";

/// What runs on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OurSide {
    /// The product's command line program.
    Command,
    /// The product's library in a program that embeds it.
    Embedded,
    /// wireguard-go in its place: shows that the laboratory itself is right.
    StandIn,
}

/// The paths of the programs of this package; only a test knows them.
#[derive(Clone, Copy, Debug)]
pub struct Helpers {
    /// `udp_load`
    pub load: &'static str,
    /// `embedded`
    pub embedded: &'static str,
}

/// Two linked places.
#[derive(Debug)]
pub struct Arena {
    /// Who made the other side.
    pub make: Make,
    /// What runs on our side.
    pub our_side: OurSide,
    /// The other end; before ours, because the guest goes before the namespace that it is in.
    pub theirs: Place,
    /// Our end.
    pub ours: Place,
    /// The programs of this package.
    pub helpers: Helpers,
    next_pair: AtomicU8,
}

impl Arena {
    /// Makes an arena: two namespaces, or one and the guest for the kernel.
    pub fn new(make: Make, our_side: OurSide, helpers: Helpers) -> Outcome<Self> {
        let ours = Arc::new(Namespace::new()?);
        let theirs = if make == Make::Kernel {
            Place::Guest(Arc::new(Guest::boot(&ours)?))
        } else {
            let theirs = Arc::new(Namespace::new()?);
            ours.link_to(&theirs)?;
            Place::Namespace(theirs)
        };
        let ours = Place::Namespace(ours);
        for (place, v4, v6) in [(&ours, OUR_V4, OUR_V6), (&theirs, THEIR_V4, THEIR_V6)] {
            place.run(&["ip", "addr", "add", &format!("{v4}/24"), "dev", "link0"])?;
            place.run(&[
                "ip",
                "addr",
                "add",
                &format!("{v6}/64"),
                "dev",
                "link0",
                "nodad",
            ])?;
        }
        Ok(Self {
            make,
            our_side,
            theirs,
            ours,
            helpers,
            next_pair: AtomicU8::new(1),
        })
    }

    /// A number for the next pair of nodes here, which makes its ports and addresses its own.
    pub fn next_pair(&self) -> u8 {
        self.next_pair.fetch_add(1, Ordering::Relaxed)
    }
}
