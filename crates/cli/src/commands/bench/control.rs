//! The first stream, on the side that measures: a question, an answer.
//!
//! Owns the patience with the other side, and what its refusals mean to a person.

use super::message::{Answer, Refusal, Request};
use super::talk;
use crate::failure::Failure;
use std::io;
use std::time::Duration;
use tokio::time::timeout;
use wiremesh::Connection;
use wiremesh::quinn::{RecvStream, SendStream};

/// How long an answer may take on an idle stream.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// How long the goodbye may take.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// The first stream.
pub struct Control {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

impl Control {
    /// Opens it; the other side serves it as the first of the connection.
    pub async fn open(connection: &Connection) -> Result<Self, Failure> {
        let opened = connection.open_bi().await;
        let (send, receive) = opened.map_err(|error| lost(connection, &error.into()))?;
        Ok(Self {
            connection: connection.clone(),
            send,
            receive,
        })
    }

    /// Says that it was all, and waits until that is known: the side that listens ends with it.
    pub async fn goodbye(&mut self) {
        // A server that is gone needs no goodbye.
        let _ = self.send.finish();
        let _ = timeout(GOODBYE_PATIENCE, talk::read(&mut self.receive)).await;
    }

    /// Asks. A refusal is an error.
    pub async fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        let patience = match request {
            Request::Send { offer, .. } => ANSWER_PATIENCE + offer.duration,
            _ => ANSWER_PATIENCE,
        };
        let asked = async {
            let sent = self.send.write_all(&request.encode()).await;
            // What was said before the stream ended is more telling than its end.
            let answer = talk::read(&mut self.receive).await?;
            sent?;
            answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        let answer = timeout(patience, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (kind, body) = answer.map_err(|error| lost(&self.connection, &error))?;
        match Answer::decode(kind, &body) {
            Ok(Answer::Refused(why)) => Err(refused(why)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(other_version()),
        }
    }
}

fn refused(why: Refusal) -> Failure {
    match why {
        Refusal::Secret => Failure::input("the other side refused the ticket")
            .at("the argument TICKET")
            .fix("ask for a new one: a ticket of `wiremesh bench` is good while that runs"),
        Refusal::Busy => Failure::runtime("the other side is measuring with another host").fix(
            "try again when that has ended; a host that is lost is given up within two minutes",
        ),
        Refusal::Malformed => other_version(),
        Refusal::Unable => Failure::runtime("the other side cannot send what it was asked for")
            .fix("try again; if it stays so, add --no-plain"),
    }
}

/// The other side says what we do not understand, or the other way round.
pub fn other_version() -> Failure {
    Failure::runtime("the two sides do not understand each other")
        .fix("run the same version of wiremesh on both hosts")
}

/// What a stream that broke means.
pub fn lost(connection: &Connection, error: &io::Error) -> Failure {
    let why = connection.close_reason();
    let why = why.map_or_else(|| error.to_string(), |reason| reason.to_string());
    Failure::runtime(format!("the tunnel is lost: {why}"))
        .fix("look at what `wiremesh bench --listen` says on the other host, and start both again")
}
