//! Why the helper did nothing.

use std::fmt;

/// Bytes of the text in a refusal, at most.
pub const DETAIL_BYTES_MAX: usize = 200;

/// Each reason with its text, once.
macro_rules! reasons {
    ($($name:ident: $text:literal,)*) => {
        /// The kind of a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $name,)*
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    Malformed: "the request is malformed",
    Version: "helper and program are of different versions",
    Foreign: "this user is not in the helper's group",
    Full: "the helper has as many clients as it takes",
    Second: "this connection has its interface already",
    Name: "an interface is named wm and 1 to 13 of a-z, 0-9, -",
    NameInUse: "the interface name is in use",
    Mtu: "the MTU is below 1280",
    NotPrivate: "outside the private ranges",
    NoNetwork: "a network with bits behind its prefix",
    Overlap: "the host has this already, and the wanted overlaps it",
    System: "the system refused",
    NoWireguard: "the kernel has no WireGuard module",
    NoInterface: "this connection has no WireGuard interface",
    Port: "UDP ports below 1024 are the system's",
    PortInUse: "the UDP port is in use",
    Endpoint: "an endpoint within the overlay",
    Peers: "the interface has as many peers or allowed IPs as it takes",
    Rate: "a rate outside 8 kbit/s to 1 Tbit/s",
    NoShaper: "the kernel cannot limit the rate: it has no CAKE (sch_cake)",
}

/// Why the helper did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What a program may act on.
    pub reason: Reason,
    /// What a person needs besides; may be empty, at most [`DETAIL_BYTES_MAX`].
    pub detail: String,
}

impl Refusal {
    /// With a detail.
    pub fn with(reason: Reason, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self { reason, detail }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::with(reason, "")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.text())?;
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

impl std::error::Error for Refusal {}
