//! What can go wrong, and whose fault it is.

use crate::association::End;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use wiremesh::{RawBindError, UdpBindError};

/// Why there is no SCTP for a node.
#[derive(Debug)]
#[non_exhaustive]
pub enum SctpError {
    /// IP protocol 132 of this node cannot be claimed.
    Protocol(RawBindError),
    /// UDP port 9899 of this node cannot be bound.
    Udp(UdpBindError),
    /// Neither is wanted.
    NoTransport,
}

impl fmt::Display for SctpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => write!(f, "SCTP cannot be had: {error}"),
            Self::Udp(error) => write!(
                f,
                "the UDP port of SCTP cannot be had: {error}; fix: free port 9899, or set `udp: false`"
            ),
            Self::NoTransport => write!(
                f,
                "SCTP has nothing to travel in; fix: a node with an overlay address, and `udp: true` \
                 where IP protocols are the host's"
            ),
        }
    }
}

impl std::error::Error for SctpError {}

/// Why an association cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// As many associations as [`crate::SctpConfig`] allows are there.
    TooMany(usize),
    /// Port 0, or all local ports are used for associations with this peer.
    NoPort,
    /// SCTP is carried in IPv6 here.
    NotIpv6(IpAddr),
    /// [`crate::SctpConfig::udp`] is off.
    NoUdp,
    /// The peer, or this side, ended it before it was open.
    Refused(EndError),
    /// No answer.
    TimedOut {
        /// Where it was sent.
        address: Ipv6Addr,
        /// For how long.
        waited: Duration,
    },
    /// The node was closed.
    Closed,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(max) => write!(
                f,
                "there are {max} associations already; fix: end some, or raise the limit in SctpConfig"
            ),
            Self::NoPort => write!(
                f,
                "no port: port 0 was asked for, or all local ports are in use"
            ),
            Self::NotIpv6(ip) => write!(f, "{ip} is no IPv6 address; fix: give the peer one"),
            Self::NoUdp => write!(f, "SCTP over UDP is switched off; fix: set `udp: true`"),
            Self::Refused(end) => write!(f, "refused: {end}"),
            Self::TimedOut { address, waited } => write!(
                f,
                "no answer from {address} for {} s: does it listen, and does it speak SCTP over the same \
                 transport?",
                waited.as_secs()
            ),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a port cannot be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody listens there; for port 0, on all.
    InUse(u16),
    /// The node was closed.
    Closed,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(port) => write!(f, "port {port} is in use; take another one, or 0"),
            Self::Closed => write!(f, "the node was closed"),
        }
    }
}

impl std::error::Error for ListenError {}

/// How an association ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndError {
    /// It was shut down; all that was sent before has arrived.
    Shutdown,
    /// It was broken off, by whom and why.
    Aborted(String),
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => write!(f, "the association was shut down"),
            Self::Aborted(why) if why.is_empty() => write!(f, "the association was broken off"),
            Self::Aborted(why) => write!(f, "the association was broken off: {why}"),
        }
    }
}

impl std::error::Error for EndError {}

impl From<End> for EndError {
    fn from(end: End) -> Self {
        match end {
            End::Shutdown => Self::Shutdown,
            End::Aborted(why) => Self::Aborted(why),
        }
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// SCTP has no empty messages.
    Empty,
    /// Longer than [`crate::SctpConfig::message_max`].
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest possible.
        max: usize,
    },
    /// The association has ended.
    Ended(EndError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "an empty message cannot be sent over SCTP"),
            Self::TooLong { len, max } => write!(
                f,
                "{len} bytes, at most {max}; fix: cut it up, or raise `message_max`"
            ),
            Self::Ended(end) => write!(f, "{end}"),
        }
    }
}

impl std::error::Error for SendError {}
