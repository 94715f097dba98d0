//! The side of `wiremesh bench` that prints the ticket.
//!
//! Owns the life of a client: one at a time, let in by the secret of the ticket, with a token and
//! ports of its own, for a limited time.

use super::datagram::{Datagram, Kind, Tally};
use super::message::{Answer, Refusal, Request, Token, Way};
use super::plain::Plain;
use super::port::{From, Inbox, Port};
use super::{stream, talk};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wiremesh::quinn::{RecvStream, SendStream};
use wiremesh::{Connection, Node, TicketSecret, address::overlay_address};

/// How long a connection may stay without the greeting of a client.
const GREETING_PATIENCE: Duration = Duration::from_secs(30);

/// How long the server waits for the client to close, after its last word.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a client may keep the others out: all measurements, each as long as it may be.
const SESSION_MAX: Duration = Duration::from_secs(30 * 60);

/// Streams at a time, of each kind; further ones wait.
pub const STREAMS_MAX: usize = 4;

/// What is served, and how.
#[derive(Clone)]
pub struct Service {
    /// The node.
    pub node: Node,
    /// The secret of its ticket.
    pub secret: TicketSecret,
    /// Port for plain traffic; 0 takes any.
    pub plain_port: u16,
    /// One client at a time.
    pub turn: Arc<Semaphore>,
}

/// How a client went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has what it wanted.
    Served,
    /// It was told why not.
    Refused(Refusal),
}

impl Service {
    /// Serves a connection to its end.
    ///
    /// # Errors
    ///
    /// It was lost.
    pub async fn serve(&self, connection: &Connection) -> io::Result<Ended> {
        let greeted = tokio::time::timeout(GREETING_PATIENCE, greet(connection)).await;
        let Ok((mut send, mut receive, hello)) = greeted? else {
            connection.close(1u32.into(), b"no greeting");
            return Err(io::ErrorKind::InvalidData.into());
        };
        let ended = match hello {
            Some(Request::Hello(secret)) if bool::from(secret.ct_eq(self.secret.as_bytes())) => {
                match self.turn.try_acquire() {
                    Ok(_turn) => {
                        let session = self.session(connection, &mut send, &mut receive);
                        tokio::time::timeout(SESSION_MAX, session).await??
                    }
                    Err(_) => Ended::Refused(Refusal::Busy),
                }
            }
            Some(Request::Hello(_)) => Ended::Refused(Refusal::Secret),
            _ => Ended::Refused(Refusal::Malformed),
        };
        if let Ended::Refused(why) = ended {
            send.write_all(&Answer::Refused(why).encode()).await?;
        }
        send.finish()?;
        // Time for the last word to arrive.
        let _ = tokio::time::timeout(GOODBYE_PATIENCE, connection.closed()).await;
        Ok(ended)
    }

    async fn session(
        &self,
        connection: &Connection,
        send: &mut SendStream,
        receive: &mut RecvStream,
    ) -> io::Result<Ended> {
        // Everything that serves this client ends with it.
        let mut tasks = JoinSet::new();
        let token = talk::fresh_token()?;
        let socket = self.node.udp_socket(0).map_err(io::Error::other)?;
        let admitted = overlay_address(&connection.peer()).into();
        let lane = Lane::new(Port::tunnel(socket)?, admitted, token);
        tasks.spawn(lane.clone().answer_all());
        tasks.spawn(serve_streams(connection.clone()));
        let port = lane.port.number()?;
        let welcome = Answer::Welcome { token, port };
        send.write_all(&welcome.encode()).await?;
        let mut plain: Option<Plain> = None;
        loop {
            let Some((kind, body)) = talk::read(receive).await? else {
                return Ok(Ended::Served);
            };
            let answer = match Request::decode(kind, &body) {
                Ok(Request::OpenPlain) if plain.is_none() => {
                    let opened = Plain::open(&self.node, connection, self.plain_port, token);
                    opened.serve(&mut tasks);
                    plain.insert(opened).answer()
                }
                Ok(Request::Count { way, test }) => match lane_of(way, &lane, &plain) {
                    Some(lane) => Answer::Counted(lane.received(test)),
                    None => Answer::Refused(Refusal::Unable),
                },
                Ok(Request::Send { way, test, offer }) => {
                    let lane = lane_of(way, &lane, &plain);
                    // Without a datagram from there it is not known that anybody wants ours.
                    match lane.and_then(|lane| Some((lane, lane.whence()?))) {
                        Some((lane, to)) => {
                            let sent = talk::send_paced(&lane.port, to, &token, test, offer).await;
                            let (sent, took) = sent?;
                            Answer::Sent { sent, took }
                        }
                        None => Answer::Refused(Refusal::Unable),
                    }
                }
                _ => return Ok(Ended::Refused(Refusal::Malformed)),
            };
            send.write_all(&answer.encode()).await?;
        }
    }
}

fn lane_of<'a>(way: Way, tunnel: &'a Lane, plain: &'a Option<Plain>) -> Option<&'a Lane> {
    match way {
        Way::Tunnel => Some(tunnel),
        Way::Plain => plain.as_ref()?.udp.as_ref(),
    }
}

async fn greet(connection: &Connection) -> io::Result<(SendStream, RecvStream, Option<Request>)> {
    let (send, mut receive) = connection.accept_bi().await?;
    let message = talk::read(&mut receive).await?;
    let hello = message.and_then(|(kind, body)| Request::decode(kind, &body).ok());
    Ok((send, receive, hello))
}

async fn serve_streams(connection: Connection) {
    let turns = Arc::new(Semaphore::new(STREAMS_MAX));
    let mut streams = JoinSet::new();
    loop {
        let turn = Arc::clone(&turns).acquire_owned().await;
        let Ok((send, receive)) = connection.accept_bi().await else {
            return;
        };
        streams.spawn(async move {
            // The asking side sees what went wrong.
            let _ = stream::serve(receive, send).await;
            drop(turn);
        });
        while streams.try_join_next().is_some() {}
    }
}

/// A UDP port that answers one client.
#[derive(Clone)]
pub struct Lane {
    /// The port.
    pub port: Port,
    admitted: IpAddr,
    token: Token,
    seen: Arc<Mutex<Seen>>,
}

/// What has come in.
#[derive(Default)]
struct Seen {
    tally: Tally,
    /// The latest that began with the token.
    from: Option<From>,
}

impl Lane {
    /// For datagrams from one address that begin with the token.
    pub fn new(port: Port, admitted: IpAddr, token: Token) -> Self {
        Self {
            port,
            admitted,
            token,
            seen: Arc::default(),
        }
    }

    /// Answers until the port is closed. Whoever does not know the token gets nothing.
    pub async fn answer_all(self) {
        let mut inbox = Inbox::new();
        while self.port.receive(&mut inbox).await.is_ok() {
            for (bytes, from) in inbox.datagrams() {
                let Some((answer, length)) = self.take(bytes, from) else {
                    continue;
                };
                answer.emit(&self.token, bytes);
                // Lost, as on any network.
                let _ = self
                    .port
                    .send(&bytes[..length], from.source, from.own)
                    .await;
            }
        }
    }

    fn take(&self, bytes: &[u8], from: From) -> Option<(Datagram, usize)> {
        if from.source.ip().to_canonical() != self.admitted {
            return None;
        }
        let datagram = Datagram::parse(&self.token, bytes)?;
        let mut seen = self.seen();
        seen.from = Some(from);
        if datagram.kind == Kind::Count {
            seen.tally.add(datagram.test, datagram.number);
        }
        datagram.answer(bytes.len())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many datagrams of a test have arrived.
    fn received(&self, test: u32) -> u64 {
        self.seen().tally.received(test)
    }

    /// Where the client is.
    fn whence(&self) -> Option<From> {
        self.seen().from
    }
}
