//! The side of `wiremesh bench` that measures.
//!
//! Owns the order of the measurements, and what becomes of one that fails: without the tunnel there
//! is no report, without the plain path its figures are missing and the report says why.

use super::control::{Control, lost, other_version};
use super::lane::Lane;
use super::message::{Answer, Offer, Request, SIZE_MAX, Token, Way};
use super::port::Port;
use super::report::{Figure, Measure, NOT_ASKED, Report, Row};
use super::stream::{self, Moved};
use super::summary::{Pings, Search};
use super::talk;
use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::progress::Steps;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use wiremesh::quinn::{RecvStream, SendStream};
use wiremesh::{Connection, Node, TicketSecret, address::overlay_address};

/// UDP payload of the datagrams that are sent at a rate: it fits every path of the Internet.
const SIZE_BYTES: u16 = 1_200;
const _: () = assert!(SIZE_BYTES <= SIZE_MAX);

/// How long a plain TCP connection may take to be made.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

/// Measurements inside the tunnel, as many as beside it.
const STEPS: usize = 8;

/// Everything at hand.
struct Client<'a> {
    args: &'a BenchArgs,
    connection: &'a Connection,
    control: Control,
    token: Token,
    tunnel: Lane,
    tunnel_payload_max: usize,
    plain: Plain,
    steps: Steps,
    test: u32,
    rows: Vec<Row>,
}

/// The way beside the tunnel; why not, where it does not exist.
struct Plain {
    udp: Result<Lane, String>,
    tcp: Result<(SocketAddr, SocketAddr), String>,
}

/// Measures everything.
///
/// # Errors
///
/// The other side says no, or the tunnel is lost.
pub async fn measure(
    args: &BenchArgs,
    node: &Node,
    connection: &Connection,
    secret: &TicketSecret,
) -> Result<Report, Failure> {
    let mut control = Control::open(connection).await?;
    let hello = Request::Hello(*secret.as_bytes());
    let Answer::Welcome { token, port } = control.ask(&hello).await? else {
        return Err(other_version());
    };
    let socket = node.udp_socket(0).map_err(runtime)?;
    let tunnel_payload_max = socket.payload_max();
    let to = SocketAddr::new(overlay_address(&connection.peer()).into(), port);
    let port = Port::tunnel(socket).map_err(runtime)?;
    let mut client = Client {
        args,
        connection,
        control,
        token,
        tunnel: Lane::new(port, to, token),
        tunnel_payload_max,
        plain: Plain::none(NOT_ASKED),
        steps: Steps::new(if args.no_plain { STEPS } else { 2 * STEPS }),
        test: 0,
        rows: Vec::new(),
    };
    if !client.tunnel.reaches(0).await.map_err(runtime)? {
        return Err(
            Failure::runtime("datagrams inside the tunnel are not answered")
                .fix("run the same version of wiremesh on both hosts"),
        );
    }
    if !args.no_plain {
        client.plain = client.open_plain(node).await?;
    }
    client.all().await?;
    client.steps.finish();
    client.control.goodbye().await;
    Ok(Report {
        peer: connection.peer(),
        endpoint: talk::endpoint(connection),
        security: connection.security(),
        duration: args.duration,
        rate_bits_per_second: args.rate,
        rows: client.rows,
    })
}

impl Client<'_> {
    async fn all(&mut self) -> Result<(), Failure> {
        self.idle().await?;
        self.stream_pings().await?;
        self.throughput(Measure::Up).await?;
        self.throughput(Measure::Down).await?;
        self.loaded().await?;
        self.datagrams_up().await?;
        self.datagrams_down().await?;
        self.largest().await
    }

    async fn open_plain(&mut self, node: &Node) -> Result<Plain, Failure> {
        let Answer::Plain { tcp, udp } = self.control.ask(&Request::OpenPlain).await? else {
            return Err(other_version());
        };
        let Some(endpoint) = talk::endpoint(self.connection) else {
            return Ok(Plain::none("the endpoint of the other side is unknown"));
        };
        let own = talk::own_address(node, endpoint, 0);
        let at = |port: u16| {
            let mut address = endpoint;
            address.set_port(port);
            address
        };
        let closed =
            |name| format!("the other side could not open a {name} port and says why there");
        let mut plain = Plain::none("");
        plain.tcp = match tcp {
            0 => Err(closed("TCP")),
            port => Ok((own, at(port))),
        };
        plain.udp = match (udp, Port::plain(own)) {
            (0, _) => Err(closed("UDP")),
            (_, Err(error)) => Err(format!("cannot open UDP {own}: {error}")),
            (port, Ok(socket)) => Ok(Lane::new(socket, at(port), self.token)),
        };
        if let Ok(lane) = &mut plain.udp
            && !lane.reaches(0).await.map_err(runtime)?
        {
            let to = lane.to();
            plain.udp = Err(format!("no answer from UDP {to}: is there a firewall?"));
        }
        Ok(plain)
    }

    fn next_test(&mut self) -> u32 {
        self.test += 1;
        self.test
    }

    /// Begins a measurement beside the tunnel, if there is anything to tell.
    fn plain_step(&mut self, what: &str) {
        if !self.args.no_plain {
            self.steps.next(&format!("{what}, plain"));
        }
    }

    fn put(&mut self, measure: Measure, tunnel: Figure, plain: Figure) {
        self.rows.push(Row {
            measure,
            tunnel,
            plain,
        });
    }

    fn put_pings(
        &mut self,
        measures: &[(Measure, usize)],
        tunnel: &Result<Pings, String>,
        plain: &Result<Pings, String>,
    ) {
        for (measure, percent) in measures {
            let figure = |pings: &Result<Pings, String>| {
                let time = pings.as_ref().map_err(String::clone)?.percentile(*percent);
                let none = || "no ping was answered".to_owned();
                time.map(|time| time.as_secs_f64()).ok_or_else(none)
            };
            self.put(*measure, figure(tunnel), figure(plain));
        }
    }

    async fn idle(&mut self) -> Result<(), Failure> {
        let (test, duration) = (self.next_test(), self.args.duration);
        self.steps.next("round trip");
        let tunnel = self.tunnel.pings(test, duration).await.map_err(runtime)?;
        self.plain_step("round trip");
        let plain = match &mut self.plain.udp {
            Ok(lane) => lane.pings(test, duration).await.map_err(plainly),
            Err(why) => Err(why.clone()),
        };
        let measures = [(Measure::IdleMedian, 50), (Measure::IdleSlow, 99)];
        self.put_pings(&measures, &Ok(tunnel), &plain);
        Ok(())
    }

    async fn stream_pings(&mut self) -> Result<(), Failure> {
        let duration = self.args.duration;
        self.steps.next("round trip over a stream");
        let (reader, writer) = self.stream().await?;
        let tunnel = stream::ping(reader, writer, duration).await;
        let tunnel = tunnel.map_err(|error| lost(self.connection, &error))?;
        self.plain_step("round trip over TCP");
        let plain = match self.tcp().await {
            Ok((reader, writer)) => {
                let pings = stream::ping(reader, writer, duration).await;
                pings.map_err(plainly)
            }
            Err(why) => Err(why),
        };
        self.put_pings(&[(Measure::StreamMedian, 50)], &Ok(tunnel), &plain);
        Ok(())
    }

    async fn throughput(&mut self, measure: Measure) -> Result<(), Failure> {
        let duration = self.args.duration;
        let up = measure == Measure::Up;
        let what = if up {
            "throughput up"
        } else {
            "throughput down"
        };
        self.steps.next(what);
        let (reader, writer) = self.stream().await?;
        let moved = match up {
            true => stream::up(reader, writer, duration).await,
            false => stream::down(reader, writer, duration).await,
        };
        let tunnel = moved.map_err(|error| lost(self.connection, &error))?;
        self.plain_step(what);
        let plain = match self.tcp().await {
            Ok((reader, writer)) => match up {
                true => stream::up(reader, writer, duration).await,
                false => stream::down(reader, writer, duration).await,
            }
            .map_err(plainly),
            Err(why) => Err(why),
        };
        self.put(measure, rate_of(tunnel), plain.and_then(rate_of));
        Ok(())
    }

    async fn loaded(&mut self) -> Result<(), Failure> {
        let (test, duration) = (self.next_test(), self.args.duration);
        self.steps.next("round trip under load");
        let (reader, writer) = self.stream().await?;
        let load = stream::up(reader, writer, duration);
        let (load, pings) = tokio::join!(load, pings_in(&mut self.tunnel, test, duration));
        load.map_err(|error| lost(self.connection, &error))?;
        let tunnel = pings.map_err(runtime)?;
        self.plain_step("round trip under load");
        let plain = match (self.tcp().await, &mut self.plain.udp) {
            (Ok((reader, writer)), Ok(lane)) => {
                let load = stream::up(reader, writer, duration);
                let (load, pings) = tokio::join!(load, pings_in(lane, test, duration));
                load.and(pings).map_err(plainly)
            }
            (Err(why), _) => Err(why),
            (_, Err(why)) => Err(why.clone()),
        };
        let measures = [(Measure::LoadedMedian, 50), (Measure::LoadedSlow, 99)];
        self.put_pings(&measures, &Ok(tunnel), &plain);
        Ok(())
    }

    fn offered(&self) -> Offer {
        Offer {
            bits_per_second: self.args.rate,
            size_bytes: SIZE_BYTES,
            duration: self.args.duration,
        }
    }

    async fn datagrams_up(&mut self) -> Result<(), Failure> {
        let (test, offer) = (self.next_test(), self.offered());
        self.steps.next("datagrams up");
        let sent = self.tunnel.offer(test, offer).await.map_err(runtime)?;
        let tunnel = Delivery::new(sent, self.counted(Way::Tunnel, test).await?);
        self.plain_step("datagrams up");
        let sent = match &self.plain.udp {
            Ok(lane) => lane.offer(test, offer).await.map_err(plainly),
            Err(why) => Err(why.clone()),
        };
        let plain = match sent {
            Ok(sent) => Ok(Delivery::new(sent, self.counted(Way::Plain, test).await?)),
            Err(why) => Err(why),
        };
        self.put_delivery(Measure::DatagramsUp, Measure::LossUp, tunnel, plain);
        Ok(())
    }

    async fn counted(&mut self, way: Way, test: u32) -> Result<u64, Failure> {
        match self.control.ask(&Request::Count { way, test }).await? {
            Answer::Counted(count) => Ok(count),
            _ => Err(other_version()),
        }
    }

    async fn datagrams_down(&mut self) -> Result<(), Failure> {
        let (test, offer) = (self.next_test(), self.offered());
        self.steps.next("datagrams down");
        let tunnel = requested(
            &mut self.control,
            &mut self.tunnel,
            Way::Tunnel,
            test,
            offer,
        );
        let tunnel = tunnel.await?;
        self.plain_step("datagrams down");
        let plain = match &mut self.plain.udp {
            Ok(lane) => Ok(requested(&mut self.control, lane, Way::Plain, test, offer).await?),
            Err(why) => Err(why.clone()),
        };
        self.put_delivery(Measure::DatagramsDown, Measure::LossDown, tunnel, plain);
        Ok(())
    }

    fn put_delivery(
        &mut self,
        rate: Measure,
        loss: Measure,
        tunnel: Delivery,
        plain: Result<Delivery, String>,
    ) {
        let of = |figure: fn(&Delivery) -> f64| match &plain {
            Ok(plain) => (Ok(figure(&tunnel)), Ok(figure(plain))),
            Err(why) => (Ok(figure(&tunnel)), Err(why.clone())),
        };
        let (rates, losses) = (of(Delivery::bits_per_second), of(Delivery::loss));
        self.put(rate, rates.0, rates.1);
        self.put(loss, losses.0, losses.1);
    }

    async fn largest(&mut self) -> Result<(), Failure> {
        let test = self.next_test();
        self.steps.next("largest datagram");
        let search = Search::tunnel(self.tunnel_payload_max);
        let tunnel = self.tunnel.largest(test, search).await.map_err(runtime)?;
        self.plain_step("largest datagram");
        let plain = match &mut self.plain.udp {
            Ok(lane) if lane.may_fragment() => {
                Err("this host cannot forbid fragments, so the limit is not seen".to_owned())
            }
            Ok(lane) => {
                let headers = if lane.to().is_ipv4() { 28 } else { 48 };
                let found = lane.largest(test, Search::network(headers)).await;
                found.map_err(plainly).and_then(bytes)
            }
            Err(why) => Err(why.clone()),
        };
        self.put(Measure::Largest, bytes(tunnel), plain);
        let of_connection = self.connection.max_datagram_size();
        let of_connection = of_connection.ok_or_else(|| "the other side takes none".to_owned());
        let plain = Err("plain UDP has no connections".to_owned());
        let tunnel = of_connection.and_then(bytes);
        self.put(Measure::LargestOfConnection, tunnel, plain);
        Ok(())
    }

    async fn stream(&self) -> Result<(RecvStream, SendStream), Failure> {
        let opened = self.connection.open_bi().await;
        let (send, receive) = opened.map_err(|error| lost(self.connection, &error.into()))?;
        Ok((receive, send))
    }

    /// A plain TCP connection that was let in as far as we know.
    async fn tcp(&mut self) -> Result<(OwnedReadHalf, OwnedWriteHalf), String> {
        let (own, to) = self.plain.tcp.clone()?;
        let made = timeout(TCP_PATIENCE, connect(own, to, &self.token)).await;
        let stream = made.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        // It would be as long until the next one fails.
        stream.map(TcpStream::into_split).map_err(|error| {
            let why = format!("no TCP connection to {to}: {error}; is there a firewall?");
            self.plain.tcp = Err(why.clone());
            why
        })
    }
}

impl Plain {
    fn none(why: &str) -> Self {
        Self {
            udp: Err(why.to_owned()),
            tcp: Err(why.to_owned()),
        }
    }
}

async fn connect(own: SocketAddr, to: SocketAddr, token: &Token) -> io::Result<TcpStream> {
    let socket = match own.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(own)?;
    let mut stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(token).await?;
    Ok(stream)
}

/// Round trips while something else fills the path, once it does.
async fn pings_in(lane: &mut Lane, test: u32, duration: Duration) -> io::Result<Pings> {
    let until_full = duration / 5;
    tokio::time::sleep(until_full).await;
    lane.pings_on_time(test, duration - until_full).await
}

/// Has the other side send datagrams.
async fn requested(
    control: &mut Control,
    lane: &mut Lane,
    way: Way,
    test: u32,
    offer: Offer,
) -> Result<Delivery, Failure> {
    let request = Request::Send { way, test, offer };
    let (received, answer) = lane
        .count(test, control.ask(&request))
        .await
        .map_err(runtime)?;
    match answer? {
        Answer::Sent { sent, took } => Ok(Delivery::new((sent, took), received)),
        _ => Err(other_version()),
    }
}

/// Datagrams that were sent, and those that arrived.
struct Delivery {
    sent: u64,
    took: Duration,
    received: u64,
}

impl Delivery {
    fn new((sent, took): (u64, Duration), received: u64) -> Self {
        let received = received.min(sent);
        Self {
            sent,
            took,
            received,
        }
    }

    fn bits_per_second(&self) -> f64 {
        let bits = self.received as f64 * f64::from(SIZE_BYTES) * 8.0;
        bits / self.took.as_secs_f64().max(1e-9)
    }

    fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }
}

fn rate_of(moved: Moved) -> Figure {
    let too_little = || "too little arrived to measure a rate; try a longer --duration".to_owned();
    moved.bits_per_second().ok_or_else(too_little)
}

fn bytes(length: usize) -> Figure {
    match length {
        0 => Err("not one arrived".to_owned()),
        length => Ok(length as f64),
    }
}

fn runtime(error: impl std::fmt::Display) -> Failure {
    Failure::runtime(format!("measuring failed: {error}"))
}

fn plainly(error: io::Error) -> String {
    format!("the plain path failed: {error}")
}
