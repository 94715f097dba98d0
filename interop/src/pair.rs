//! A pair: our node and a stock peer that are configured for each other, in an arena.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::arena::{Arena, OUR_V4, OUR_V6, OurSide, THEIR_V4, THEIR_V6};
use crate::keys::{KeyPair, key_hex, overlay_address};
use crate::node::{ECHO_PORT, Form, NodeSettings, Ours};
use crate::outcome::{Outcome, ensure, fail, skip};
use crate::place::{Pings, Place};
use crate::process::{Running, text_of};
use crate::programs::{self, scratch_file};
use crate::stock::{Make, Settings, Stock};

/// Which side can begin: only that side is told where the other one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The stock program.
    They,
    /// Our node.
    We,
}

/// How a pair differs from the plain one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Handshakes go over IPv6.
    pub outer_v6: bool,
    /// The PSK on our side.
    pub our_psk: Option<String>,
    /// The PSK on the other side.
    pub their_psk: Option<String>,
    /// Our node wants a cookie from everyone.
    pub always_under_load: bool,
    /// Our node is configured by a `wg0.conf`.
    pub wg_conf: bool,
    /// The stock program's own address will change.
    pub they_roam: bool,
}

/// Two nodes that are configured for each other.
#[derive(Debug)]
pub struct Pair {
    /// Our node.
    pub ours: Ours,
    /// The stock peer.
    pub theirs: Stock,
    /// The UDP port of our node.
    pub our_port: u16,
    our_public: String,
    load_program: &'static str,
    outer: (IpAddr, IpAddr),
}

impl Pair {
    /// Starts both sides; nothing has been sent between them yet.
    pub fn start(arena: &Arena, initiator: Initiator, options: &Options) -> Outcome<Self> {
        let number = arena.next_pair();
        let (our_port, their_port) = (40_000 + u16::from(number), 50_000 + u16::from(number));
        let (our_keys, their_keys) = (KeyPair::generate()?, KeyPair::generate()?);
        let inner = |keys: &KeyPair, host: u8| -> Outcome<_> {
            Ok((
                overlay_address(&keys.public)?,
                Ipv4Addr::new(10, 77, number, host),
            ))
        };
        let (our_addresses, their_addresses) = (inner(&our_keys, 1)?, inner(&their_keys, 2)?);
        let (our_ip, their_ip) = if options.outer_v6 {
            (OUR_V6, THEIR_V6)
        } else {
            (OUR_V4, THEIR_V4)
        };
        let outer: (IpAddr, IpAddr) = (our_ip.parse()?, their_ip.parse()?);
        let theirs = Settings {
            keys: their_keys.clone(),
            listen_port: their_port,
            peer: our_keys.public.clone(),
            psk: options.their_psk.clone(),
            endpoint: (initiator == Initiator::They).then(|| SocketAddr::new(outer.0, our_port)),
            peer_addresses: our_addresses,
            addresses: their_addresses,
            keepalive: None,
            roams: options.they_roam,
        };
        let our_public = our_keys.public.clone();
        let ours = NodeSettings {
            keys: our_keys,
            listen_port: our_port,
            peer: their_keys.public,
            psk: options.our_psk.clone(),
            endpoint: (initiator == Initiator::We).then(|| SocketAddr::new(outer.1, their_port)),
            addresses: our_addresses,
            peer_addresses: their_addresses,
            always_under_load: options.always_under_load,
            wg_conf: options.wg_conf,
            stock: true,
            rotate_after: None,
        };
        // The side that cannot begin comes first, so that the first initiation finds it.
        let start_theirs = || Stock::start(arena.make, arena.theirs.clone(), theirs.clone());
        let start_ours = || start_ours(arena, &ours);
        let (ours, theirs) = if initiator == Initiator::They {
            let ours = start_ours()?;
            (ours, start_theirs()?)
        } else {
            let theirs = start_theirs()?;
            (start_ours()?, theirs)
        };
        let load_program = arena.helpers.load;
        Ok(Self {
            ours,
            theirs,
            our_port,
            our_public,
            load_program,
            outer,
        })
    }

    /// The stock peer's own address inside the tunnel, of one family.
    pub fn their_address(&self, v6: bool) -> IpAddr {
        let (six, four) = self.theirs.settings().addresses;
        if v6 { six.into() } else { four.into() }
    }

    /// Our address inside the tunnel, of one family.
    pub fn our_address(&self, v6: bool) -> IpAddr {
        let (six, four) = self.theirs.settings().peer_addresses;
        if v6 { six.into() } else { four.into() }
    }

    /// The addresses of the link's ends that this pair uses: ours, theirs.
    pub fn outer(&self) -> (IpAddr, IpAddr) {
        self.outer
    }

    /// The real `ping` on their side to our address.
    pub fn they_ping(&self, v6: bool, count: u32, interval: &str) -> Outcome<Pings> {
        let place = self.theirs.place();
        place.ping(self.our_address(v6), count, interval)
    }

    /// Their pings, all of which must be answered.
    pub fn they_reach_us(&self) -> Outcome {
        let pings = self.they_ping(true, 3, "0.3")?;
        ensure(
            pings.answered == pings.sent,
            format!("their ping: {pings:?}\n{}", self.state()),
        )
    }

    /// Our ping, which must be answered.
    pub fn we_reach_them(&self) -> Outcome {
        let to = self.their_address(true);
        ensure(
            self.ours.ping(to, 10)?,
            format!("our ping: no answer\n{}", self.state()),
        )
    }

    /// A real program on their side sends a number of bytes to our echo and checks them; what it
    /// said.
    pub fn they_load(&self, bytes: u64, size: usize, window: usize) -> Outcome<String> {
        let to = SocketAddr::new(self.our_address(true), ECHO_PORT).to_string();
        let (bytes, size, window) = (bytes.to_string(), size.to_string(), window.to_string());
        let words = [self.load_program, "send", &to, &bytes, &size, &window];
        let output = self.theirs.place().command(1800, &words).output()?;
        let said = text_of(&output);
        ensure(output.status.success(), format!("{said}\n{}", self.state()))?;
        Ok(said)
    }

    /// Floods the stock peer with initiations of a stranger from a place, until the guard is
    /// dropped.
    pub fn flood_them(&self, from: &Place) -> Outcome<Running> {
        let settings = self.theirs.settings();
        let to = SocketAddr::new(self.outer.1, settings.listen_port).to_string();
        let key = key_hex(&settings.keys.public)?;
        // The kernel is under load from 512 waiting initiations on, the others far earlier.
        let (burst, ms) = if self.theirs.make() == Make::Kernel {
            ("200", "10")
        } else {
            ("300", "100")
        };
        match from.daemon(self.load_program, &["flood", &to, &key, "300", burst, ms]) {
            Some(mut command) => Running::start(&mut command, &scratch_file("flood-log")?),
            None => fail("floods come from the host's side of the link"),
        }
    }

    /// What both sides tell about each other, for messages.
    pub fn state(&self) -> String {
        let us = format!("our node {}: {}", self.our_public, self.ours.status_text());
        format!("{us}\nthe peer: {:?}", self.theirs.report())
    }
}

fn start_ours(arena: &Arena, settings: &NodeSettings) -> Outcome<Ours> {
    if settings.wg_conf && arena.our_side != OurSide::Command {
        return skip("only the command line program reads a wg0.conf");
    }
    let place = arena.ours.clone();
    let form = match arena.our_side {
        OurSide::StandIn => return Ours::stand_in(place, settings, arena.helpers.load),
        // The command line program has no such setting.
        OurSide::Command if !settings.always_under_load => Form::Command(programs::wiremesh()?),
        OurSide::Command | OurSide::Embedded => Form::Embedded(arena.helpers.embedded.into()),
    };
    Ours::wiremesh(form, place, settings.clone())
}
