//! Urgent messages beside bulk, and what they wait for.
//!
//! Owns the one situation that all measurements vary: a node behind a modem sends bulk objects
//! without end to its peers, and urgent messages to the first of them.

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;
use wiremesh::{Connection, EgressConfig, Node, Priority};

use crate::traffic::{self, Received};
use crate::{Delays, LinkConfig, World, run};

/// Bits per second of the modem.
pub const MODEM_RATE: u64 = 10_000_000;

/// 10 Mbit/s and 20 ms, with a queue of 50 kB.
pub const MODEM: LinkConfig = LinkConfig {
    delay: Duration::from_millis(20),
    rate: Some(MODEM_RATE),
    queue_bytes: 50_000,
    loss_permille: 0,
    mtu_bytes: 1_500,
};

/// How long bulk runs before the first message counts: longer than slow start.
pub(crate) const WARM_UP: Duration = Duration::from_secs(3);

/// What an urgent message travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// An object on a stream of its own.
    Stream,
    /// A QUIC datagram.
    Datagram,
}

/// A situation.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// What the sender is told about its uplink.
    pub pacing: Pacing,
    /// What urgent messages travel in.
    pub carrier: Carrier,
    /// Nodes that bulk goes to; urgent messages go to the first.
    pub peers: usize,
    /// Whether bulk and urgent messages have connections of their own.
    pub apart: bool,
    /// Whether there is bulk at all.
    pub is_loaded: bool,
    /// Whether urgent objects are sent without end, too.
    pub is_flooded: bool,
    /// Urgent messages.
    pub messages: u32,
}

/// What the sender knows of its uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacing {
    /// Nothing.
    Off,
    /// What the operator says: bits per second.
    Configured(u64),
}

impl Pacing {
    fn config(self) -> EgressConfig {
        EgressConfig {
            rate_bits: match self {
                Self::Configured(rate) => Some(rate),
                Self::Off => None,
            },
            ..EgressConfig::default()
        }
    }
}

impl Default for Case {
    fn default() -> Self {
        Case {
            name: "",
            pacing: Pacing::Off,
            carrier: Carrier::Stream,
            peers: 1,
            apart: false,
            is_loaded: true,
            is_flooded: false,
            messages: 200,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What it shows.
    pub name: &'static str,
    /// The delays of urgent messages.
    pub urgent: Delays,
    /// How many of them were sent.
    pub sent: u32,
    /// Bits per second of bulk that came to all peers together.
    pub bulk_rate: u64,
    /// The longest time that a packet waited in front of the modem.
    pub modem_wait: Duration,
    /// Packets that the modem had no room for.
    pub modem_dropped: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |delay: Duration| delay.as_secs_f64() * 1e3;
        write!(
            f,
            "| {:<42} | {:6.1} | {:6.1} | {:6.1} | {:5.2} | {:5.1} | {:4} |",
            self.name,
            ms(self.urgent.p50()),
            ms(self.urgent.p99()),
            ms(self.urgent.max()),
            self.bulk_rate as f64 / 1e6,
            ms(self.modem_wait),
            self.modem_dropped,
        )
    }
}

/// The head of a table of [`Figures`].
pub const TABLE_HEAD: &str = "\
| situation                                  | p50 ms | p99 ms | max ms | bulk Mbit/s | modem ms | drops |
|---|---|---|---|---|---|---|";

/// All situations, in the order of the table.
pub fn situations() -> Vec<Case> {
    let paced = Pacing::Configured(MODEM_RATE / 100 * 95);
    let case = |name, pacing, carrier, peers, apart| Case {
        name,
        pacing,
        carrier,
        peers,
        apart,
        ..Case::default()
    };
    use Carrier::{Datagram, Stream};
    let idle = |name, carrier| Case {
        is_loaded: false,
        ..case(name, Pacing::Off, carrier, 1, false)
    };
    let flooded = |name, apart| Case {
        is_flooded: true,
        ..case(name, paced, Stream, 1, apart)
    };
    vec![
        idle("object, nothing else is sent", Stream),
        idle("datagram, nothing else is sent", Datagram),
        case("object, no pace", Pacing::Off, Stream, 1, false),
        case("datagram, no pace", Pacing::Off, Datagram, 1, false),
        case("object", paced, Stream, 1, false),
        case("object, connections apart", paced, Stream, 1, true),
        case("object, bulk to 4 peers", paced, Stream, 4, false),
        case("object, 4 peers, apart", paced, Stream, 4, true),
        case("datagram", paced, Datagram, 1, false),
        case("datagram, connections apart", paced, Datagram, 1, true),
        case("datagram, bulk to 4 peers", paced, Datagram, 4, false),
        case("datagram, 4 peers, apart", paced, Datagram, 4, true),
        flooded("urgent objects without end", false),
        flooded("urgent without end, connections apart", true),
    ]
}

/// Measures one situation; the same one gives the same figures.
pub fn measure(case: Case) -> Figures {
    run(1, move |world| async move { in_world(&world, case).await })
}

async fn in_world(world: &World, case: Case) -> Figures {
    let uplink = world.network.link(MODEM);
    let builder = world.builder(&world.host(uplink));
    let builder = builder.egress(case.pacing.config());
    let sender = builder.bind().await.expect("the port is free");
    let received = Received::default();
    let mut urgent_on = None;
    for _ in 0..case.peers {
        let peer = world.node(world.network.link(MODEM)).await;
        let bulk_on = connection(world, &sender, &peer, &received).await;
        if case.is_loaded {
            tokio::spawn(traffic::objects(bulk_on.clone(), Priority::Bulk));
        }
        if urgent_on.is_none() {
            urgent_on = Some(match case.apart {
                true => connection(world, &sender, &peer, &received).await,
                false => bulk_on,
            });
        }
    }
    let urgent_on = urgent_on.expect("there is a peer");
    if case.is_flooded {
        tokio::spawn(traffic::objects(urgent_on.clone(), Priority::Urgent));
    }
    sleep(WARM_UP).await;
    let (began, before) = (world.elapsed(), received.bytes(Priority::Bulk));
    let network = world.network.clone();
    match case.carrier {
        Carrier::Stream => traffic::urgent(network, urgent_on.clone(), case.messages).await,
        Carrier::Datagram => {
            traffic::urgent_datagrams(network, urgent_on.clone(), case.messages).await
        }
    }
    let took = world.elapsed() - began;
    let bulk_bytes = received.bytes(Priority::Bulk) - before;
    // What is under way still counts.
    sleep(Duration::from_secs(1)).await;
    let modem = world.network.counters(uplink);
    Figures {
        name: case.name,
        urgent: received.delays(),
        sent: case.messages,
        bulk_rate: (bulk_bytes as f64 * 8.0 / took.as_secs_f64()) as u64,
        modem_wait: modem.wait_max,
        modem_dropped: modem.dropped,
    }
}

/// A connection whose other end takes what comes.
async fn connection(world: &World, from: &Node, to: &Node, received: &Received) -> Connection {
    let (made, accepted) = world.connect(from, to).await;
    let network = &world.network;
    let streams = traffic::receive(network.clone(), accepted.clone(), received.clone());
    tokio::spawn(streams);
    let datagrams = traffic::receive_datagrams(network.clone(), accepted, received.clone());
    tokio::spawn(datagrams);
    made
}
