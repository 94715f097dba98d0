//! Two stock interfaces that are configured for each other: the one under examination, and
//! wireguard-go on this host as the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::arena::{OUR_V4, OUR_V6, THEIR_V4, THEIR_V6};
use crate::capture::{Capture, Kind, Seen};
use crate::facts::wg;
use crate::keys::{KeyPair, overlay_address};
use crate::outcome::{Outcome, ensure};
use crate::runner::Context;
use crate::stock::{Make, Settings, Stock};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The implementation under examination.
    Subject,
    /// wireguard-go at the other end of the link.
    Other,
}

impl Who {
    /// The opposite one.
    pub fn peer(self) -> Self {
        match self {
            Self::Subject => Self::Other,
            Self::Other => Self::Subject,
        }
    }
}

/// How a duo differs from the plain one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Handshakes go over IPv6.
    pub outer_v6: bool,
    /// The PSK of both.
    pub psk: Option<String>,
}

/// Two stock interfaces.
#[derive(Debug)]
pub struct Duo {
    /// The one under examination.
    pub subject: Stock,
    /// wireguard-go at the other end.
    pub other: Stock,
}

impl Duo {
    /// Starts both; nothing has been sent between them yet, and only `initiator` can begin.
    pub fn start(context: &Context<'_>, initiator: Who, options: &Options) -> Outcome<Self> {
        let arena = context.arena;
        let number = arena.next_pair();
        let keys = [KeyPair::generate()?, KeyPair::generate()?];
        let ports = [50_000 + u16::from(number), 40_000 + u16::from(number)];
        let outer: [IpAddr; 2] = if options.outer_v6 {
            [THEIR_V6.parse()?, OUR_V6.parse()?]
        } else {
            [THEIR_V4.parse()?, OUR_V4.parse()?]
        };
        let inner = |own: usize| -> Outcome<_> {
            let host = [2, 1][own];
            Ok((
                overlay_address(&keys[own].public)?,
                Ipv4Addr::new(10, 77, number, host),
            ))
        };
        let settings = |own: usize| -> Outcome<Settings> {
            let peer = 1 - own;
            let begins = initiator == [Who::Subject, Who::Other][own];
            Ok(Settings {
                keys: keys[own].clone(),
                listen_port: ports[own],
                peer: keys[peer].public.clone(),
                psk: options.psk.clone(),
                endpoint: begins.then(|| SocketAddr::new(outer[peer], ports[peer])),
                peer_addresses: inner(peer)?,
                addresses: inner(own)?,
                keepalive: None,
                roams: false,
            })
        };
        let subject = Stock::start(arena.make, arena.theirs.clone(), settings(0)?)?;
        let other = Stock::start(Make::WireguardGo, arena.ours.clone(), settings(1)?)?;
        Ok(Self { subject, other })
    }

    /// One of the two.
    pub fn side(&self, who: Who) -> &Stock {
        match who {
            Who::Subject => &self.subject,
            Who::Other => &self.other,
        }
    }

    /// The port on the link that tells this duo from others.
    pub fn port(&self) -> u16 {
        self.subject.settings().listen_port
    }

    /// Somebody's IPv6 address inside the tunnel, for control.
    pub fn control(&self, who: Who) -> IpAddr {
        self.side(who).settings().addresses.0.into()
    }

    /// Somebody's IPv4 address inside the tunnel, for applications.
    pub fn application(&self, who: Who) -> IpAddr {
        self.side(who).settings().addresses.1.into()
    }

    /// Three pings from one side to the control address of the other, all of which must be
    /// answered.
    pub fn reach(&self, from: Who) -> Outcome {
        self.reach_address(from, self.control(from.peer()))
    }

    /// Three pings from one side to an address, all of which must be answered.
    pub fn reach_address(&self, from: Who, to: IpAddr) -> Outcome {
        let pings = self.side(from).place().ping(to, 3, "0.2")?;
        ensure(
            pings.answered == pings.sent,
            format!("{from:?} pings {to}: {pings:?}\n{}", self.state()),
        )
    }

    /// What both tell about each other, for messages.
    pub fn state(&self) -> String {
        format!(
            "subject: {:?}\nother: {:?}",
            wg::show(&self.subject),
            wg::show(&self.other)
        )
    }

    /// What was seen of this duo.
    pub fn seen(&self, capture: &Capture) -> Outcome<Vec<Seen>> {
        capture.seen_with_port(self.port())
    }

    /// Whether a message that was seen was sent by one of the two.
    pub fn is_from(&self, who: Who, message: &Seen) -> bool {
        (message.source.port() == self.port()) == (who == Who::Subject)
    }

    /// How many messages of a kind somebody has sent.
    pub fn count(&self, capture: &Capture, who: Who, kind: Kind) -> Outcome<usize> {
        let seen = self.seen(capture)?;
        let matching = seen
            .iter()
            .filter(|message| message.kind() == kind && self.is_from(who, message));
        Ok(matching.count())
    }

    /// How many initiations both have sent.
    pub fn initiations(&self, capture: &Capture) -> Outcome<usize> {
        Ok(self.count(capture, Who::Subject, Kind::Initiation)?
            + self.count(capture, Who::Other, Kind::Initiation)?)
    }
}
