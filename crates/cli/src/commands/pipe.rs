//! `wiremesh pipe`: standard input and output, connected with those of another host.
//!
//! Owns the greeting with the ticket's secret and the order in which the two directions end. It
//! knows nothing of what goes through.

use crate::args::PipeArgs;
use crate::failure::Failure;
use crate::{node, say};
use std::io::IsTerminal;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use wiremesh::quinn::{RecvStream, SendStream};
use wiremesh::{Connection, Node, TicketSecret};

const PROTOCOL: &str = "wiremesh-pipe/1";

const MADE_BY: &str = "wiremesh pipe";

/// What the connecting side sends first, before the secret of the ticket.
const MAGIC: [u8; 4] = *b"wmp1";

/// How long a connection may stay without it.
const GREETING_PATIENCE: Duration = Duration::from_secs(30);

/// Application close code: all data of both directions has arrived.
const DONE: u32 = 0;

/// Application close code: the secret is wrong.
const REFUSED: u32 = 1;

pub async fn run(args: PipeArgs) -> Result<(), Failure> {
    let Some(text) = &args.ticket else {
        return listen(&args).await;
    };
    let ticket = node::parse_ticket(text)?;
    let secret = node::ticket_secret(&ticket, MADE_BY)?;
    let node = node::bind(node::builder(&args.node)?).await?;
    let work = async {
        let connection = node
            .connect(&ticket, PROTOCOL)
            .await
            .map_err(|error| node::connect_failure(&error, MADE_BY))?;
        let lost = |error: std::io::Error| lost(&connection, &error);
        let (mut send, receive) = connection
            .open_bi()
            .await
            .map_err(|error| lost(error.into()))?;
        send.write_all(&MAGIC)
            .await
            .map_err(|error| lost(error.into()))?;
        send.write_all(secret.as_bytes())
            .await
            .map_err(|error| lost(error.into()))?;
        carry(&connection, send, receive).await
    };
    let result = tokio::select! {
        result = work => result,
        () = node::interrupted() => Err(Failure::interrupted()),
    };
    node.close().await;
    result
}

async fn listen(args: &PipeArgs) -> Result<(), Failure> {
    let builder = node::with_guests(node::builder(&args.node)?, PROTOCOL);
    let node = node::bind(builder).await?;
    let secret = node::fresh_secret()?;
    let ticket = node::make_ticket(&node, &args.extras.advertise, Some(secret.clone())).to_string();
    // Standard output belongs to the data, so the ticket goes beside it.
    say::qr_code(&ticket, !args.extras.no_qr);
    say::note(format!("on the other host: wiremesh pipe {ticket}"));
    let work = async {
        let (connection, send, receive) = guest(&node, &secret).await?;
        say::note(format!("connected with {}", connection.peer()));
        carry(&connection, send, receive).await
    };
    let result = tokio::select! {
        result = work => result,
        () = node::interrupted() => Err(Failure::interrupted()),
    };
    node.close().await;
    result
}

/// Waits for the first connection that knows the secret. A connection that only keeps silent does
/// not hold up another one.
async fn guest(
    node: &Node,
    secret: &TicketSecret,
) -> Result<(Connection, SendStream, RecvStream), Failure> {
    let (found, mut guests) = tokio::sync::mpsc::channel(1);
    loop {
        tokio::select! {
            connection = node.accept() => {
                let connection = connection.ok_or_else(|| Failure::runtime("the node stopped"))?;
                let (found, secret) = (found.clone(), secret.clone());
                tokio::spawn(async move {
                    let greeted = tokio::time::timeout(GREETING_PATIENCE, greet(&connection, &secret));
                    match greeted.await {
                        Ok(Some((send, receive))) => {
                            if let Err(late) = found.try_send((connection, send, receive)) {
                                late.into_inner().0.close(REFUSED.into(), b"taken");
                            }
                        }
                        _ => {
                            let peer = connection.peer();
                            say::warn(format!("{peer} came with a wrong ticket and was refused"));
                            connection.close(REFUSED.into(), b"refused");
                        }
                    }
                });
            }
            guest = guests.recv() => {
                return guest.ok_or_else(|| Failure::runtime("the node stopped"));
            }
        }
    }
}

async fn greet(connection: &Connection, secret: &TicketSecret) -> Option<(SendStream, RecvStream)> {
    let (send, mut receive) = connection.accept_bi().await.ok()?;
    let mut greeting = [0; 20];
    receive.read_exact(&mut greeting).await.ok()?;
    let right = greeting[..4].ct_eq(&MAGIC) & greeting[4..].ct_eq(secret.as_bytes());
    bool::from(right).then_some((send, receive))
}

fn lost(connection: &Connection, error: &std::io::Error) -> Failure {
    use wiremesh::quinn::ConnectionError::ApplicationClosed;
    match connection.close_reason() {
        Some(ApplicationClosed(close)) if close.error_code == REFUSED.into() => {
            Failure::input("the other side refused the ticket")
                .at("the argument TICKET")
                .fix("ask for a new one; a ticket of `wiremesh pipe` is good for one connection")
        }
        _ => Failure::runtime(format!("the connection is lost: {error}")),
    }
}

async fn carry(
    connection: &Connection,
    send: SendStream,
    receive: RecvStream,
) -> Result<(), Failure> {
    let interactive = std::io::stdin().is_terminal();
    let (stdin, stdout) = (tokio::io::stdin(), tokio::io::stdout());
    both_ways(connection, send, receive, stdin, stdout, interactive).await
}

/// Carries both directions to their ends. When the other side has ended and our input is a
/// terminal, nobody waits for its Ctrl-D.
async fn both_ways(
    connection: &Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    interactive: bool,
) -> Result<(), Failure> {
    let forth = async {
        tokio::io::copy(&mut input, &mut send).await?;
        send.shutdown().await?;
        // Until the other side has all of it.
        let _ = send.stopped().await;
        std::io::Result::Ok(())
    };
    let back = async {
        tokio::io::copy(&mut receive, &mut output).await?;
        output.flush().await
    };
    tokio::pin!(forth, back);
    let result = tokio::select! {
        forth = &mut forth => match forth {
            Ok(()) => back.await,
            // Who reads no more may still write.
            Err(error) if connection.close_reason().is_none() => back.await.and(Err(error)),
            Err(error) => Err(error),
        },
        back = &mut back => match back {
            Ok(()) if interactive => Ok(()),
            Ok(()) => forth.await,
            Err(error) => Err(error),
        },
    };
    result.map_err(|error| lost(connection, &error))?;
    connection.close(DONE.into(), b"done");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_arrive_whole_and_the_secret_is_needed() {
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let listener = node::with_guests(Node::builder().listen(loopback), PROTOCOL);
        let listener = listener.bind().await.expect("binds");
        let secret = TicketSecret::from_bytes([5; 16]);
        let ticket = listener.ticket();
        let caller = Node::builder()
            .listen(loopback)
            .bind()
            .await
            .expect("binds");

        let forth: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let back: Vec<u8> = (0..200_000u32).map(|n| (n / 7) as u8).collect();
        let calling = async {
            let wrong = caller.connect(&ticket, PROTOCOL).await.expect("connects");
            let (mut send, mut receive) = wrong.open_bi().await.expect("opens");
            send.write_all(&MAGIC).await.expect("written");
            send.write_all(&[6; 16]).await.expect("written");
            let refused = receive.read_to_end(1).await.expect_err("refused");
            let failure = lost(&wrong, &std::io::Error::other(refused));
            assert_eq!(failure.exit.code(), 2);

            let right = caller.connect(&ticket, PROTOCOL).await.expect("connects");
            let (mut send, receive) = right.open_bi().await.expect("opens");
            send.write_all(&MAGIC).await.expect("written");
            send.write_all(secret.as_bytes()).await.expect("written");
            let mut got = Vec::new();
            both_ways(&right, send, receive, &forth[..], &mut got, false)
                .await
                .expect("carried");
            assert!(got == back);
        };
        let listening = async {
            let (connection, send, receive) = guest(&listener, &secret).await.expect("a guest");
            let mut got = Vec::new();
            both_ways(&connection, send, receive, &back[..], &mut got, false)
                .await
                .expect("carried");
            assert!(got == forth);
        };
        tokio::join!(calling, listening);
    }
}
