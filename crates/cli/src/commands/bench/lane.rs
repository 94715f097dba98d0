//! Datagrams to the side that serves, and what comes back: inside the tunnel or beside it.
//!
//! Owns the patience; the same code measures both, so that the figures can be compared.

use super::datagram::{Datagram, HEADER_LEN, Kind, Tally};
use super::message::{Offer, PIECE_LEN, Token};
use super::port::{From, Inbox, Port};
use super::stream::PINGS_MAX;
use super::summary::{Pings, Search};
use super::talk;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How often it is asked whether anybody answers, and how long for each.
const REACH_TRIES: u32 = 4;
const REACH_PATIENCE: Duration = Duration::from_millis(500);

/// How long a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// Time between two pings while something else fills the path.
const PING_EVERY: Duration = Duration::from_millis(5);

/// Least patience with what is under way; a few round trips if that is more.
const SETTLED_AFTER: Duration = Duration::from_millis(200);

/// Least patience with a datagram that may be too long, and with each repetition of it; a few round
/// trips if that is more. What is lost by chance, or late on a busy host, is no limit of the path.
const PROBE_PATIENCE: [Duration; 3] = [
    Duration::from_millis(60),
    Duration::from_millis(120),
    Duration::from_millis(240),
];

/// A way for datagrams.
pub struct Lane {
    port: Port,
    to: SocketAddr,
    token: Token,
    inbox: Inbox,
    round_trip: Duration,
}

impl Lane {
    /// From a port to an address.
    pub fn new(port: Port, to: SocketAddr, token: Token) -> Self {
        Self {
            port,
            to,
            token,
            inbox: Inbox::new(),
            round_trip: PING_PATIENCE,
        }
    }

    /// Where it leads.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// Whether its datagrams may be cut into fragments on the way.
    pub fn may_fragment(&self) -> bool {
        self.port.may_fragment()
    }

    /// A few round trips, in which what is under way arrives or is lost.
    fn settled(&self) -> Duration {
        (4 * self.round_trip).clamp(SETTLED_AFTER, PING_PATIENCE)
    }

    /// Whether anybody answers.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn reaches(&mut self, test: u32) -> io::Result<bool> {
        for _ in 0..REACH_TRIES {
            let asked = self.ask(Kind::Echo, PIECE_LEN, (test, 0), REACH_PATIENCE);
            if let Some(time) = asked.await? {
                self.round_trip = time;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends a datagram and waits for its answer; the time it took.
    async fn ask(
        &mut self,
        kind: Kind,
        length: usize,
        (test, number): (u32, u64),
        patience: Duration,
    ) -> io::Result<Option<Duration>> {
        let mut bytes = vec![0; length];
        Datagram { kind, test, number }.emit(&self.token, &mut bytes);
        let expected = Datagram { kind, test, number }.answer(length);
        let sent = Instant::now();
        self.port.send(&bytes, self.to, None).await?;
        let answered = async {
            loop {
                self.port.receive(&mut self.inbox).await?;
                for (bytes, from) in self.inbox.datagrams() {
                    let length = bytes.len();
                    let answer = Datagram::parse(&self.token, bytes).map(|read| (read, length));
                    if is_from(from, self.to) && answer.is_some() && answer == expected {
                        return Ok(sent.elapsed());
                    }
                }
            }
        };
        timeout(patience, answered).await.ok().transpose()
    }

    /// Round trips, one after another.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn pings(&mut self, test: u32, duration: Duration) -> io::Result<Pings> {
        let begun = Instant::now();
        let mut pings = Pings::default();
        let mut number = 0;
        while begun.elapsed() < duration && pings.times.len() < PINGS_MAX {
            number += 1;
            let asked = self.ask(Kind::Echo, PIECE_LEN, (test, number), PING_PATIENCE);
            pings.times.extend(asked.await?);
        }
        if let Some(time) = pings.percentile(50) {
            self.round_trip = time;
        }
        Ok(pings)
    }

    /// Round trips that begin at fixed times. One after another would be many while the path is
    /// fast and few while it is slow, and their median that of the fast times.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn pings_on_time(&mut self, test: u32, duration: Duration) -> io::Result<Pings> {
        let mut bytes = [0; PIECE_LEN];
        let mut sent = Vec::new();
        let mut times = Vec::new();
        let mut ticks = tokio::time::interval(PING_EVERY);
        let begun = Instant::now();
        loop {
            let sends = begun.elapsed() < duration;
            let patient = begun.elapsed() < duration + PING_PATIENCE;
            let done = !patient || !times.contains(&None);
            if !sends && done {
                break;
            }
            tokio::select! {
                _ = ticks.tick() => if sends {
                    let (kind, number) = (Kind::Echo, sent.len() as u64);
                    Datagram { kind, test, number }.emit(&self.token, &mut bytes);
                    sent.push(Instant::now());
                    times.push(None);
                    self.port.send(&bytes, self.to, None).await?;
                },
                received = self.port.receive(&mut self.inbox) => {
                    received?;
                    for (bytes, from) in self.inbox.datagrams() {
                        let read = Datagram::parse(&self.token, bytes);
                        let read = read.filter(|read| read.kind == Kind::Echoed && read.test == test);
                        let number = read.and_then(|read| usize::try_from(read.number).ok());
                        if let Some(number) = number.filter(|_| is_from(from, self.to))
                            && let Some(sent) = sent.get(number)
                        {
                            times[number].get_or_insert(sent.elapsed());
                        }
                    }
                }
            }
        }
        let times = times.into_iter().flatten().collect();
        Ok(Pings { times })
    }

    /// Sends datagrams at a rate; how many, and in which time. Then waits until they have arrived.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn offer(&self, test: u32, offer: Offer) -> io::Result<(u64, Duration)> {
        let to = From {
            source: self.to,
            own: None,
        };
        let sent = talk::send_paced(&self.port, to, &self.token, test, offer).await?;
        tokio::time::sleep(self.settled()).await;
        Ok(sent)
    }

    /// Counts the datagrams of a test until `done`, and a few round trips longer.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn count<T>(
        &mut self,
        test: u32,
        done: impl Future<Output = T>,
    ) -> io::Result<(u64, T)> {
        let mut tally = Tally::default();
        let settled = self.settled();
        let counting = async {
            loop {
                self.port.receive(&mut self.inbox).await?;
                for (bytes, from) in self.inbox.datagrams() {
                    let read = Datagram::parse(&self.token, bytes);
                    let counts = read.filter(|read| read.kind == Kind::Count && read.test == test);
                    if let Some(read) = counts.filter(|_| is_from(from, self.to)) {
                        tally.add(test, read.number);
                    }
                }
            }
        };
        let ended = async {
            let value = done.await;
            tokio::time::sleep(settled).await;
            value
        };
        let value = tokio::select! {
            failed = counting => return failed,
            value = ended => value,
        };
        Ok((tally.received(test), value))
    }

    /// The largest datagram that arrives, bytes of UDP payload; 0 for none.
    ///
    /// # Errors
    ///
    /// The socket is closed.
    pub async fn largest(&mut self, test: u32, mut search: Search) -> io::Result<usize> {
        let mut number = 0;
        while let Some(length) = search.next(HEADER_LEN) {
            let mut arrived = false;
            for least in PROBE_PATIENCE {
                number += 1;
                let patience = (4 * self.round_trip).clamp(least, PING_PATIENCE);
                let asked = self.ask(Kind::Probe, length, (test, number), patience);
                arrived = asked.await?.is_some();
                if arrived {
                    break;
                }
            }
            search.note(length, arrived);
        }
        Ok(search.arrived())
    }
}

fn is_from(from: From, other: SocketAddr) -> bool {
    from.source.port() == other.port() && from.source.ip().to_canonical() == other.ip()
}
