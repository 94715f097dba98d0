//! `wiremesh bench`: what the tunnel between two hosts can do, beside plain UDP and TCP.
//!
//! Owns which side this is, and the end of each. The measurements and their protocol are in the
//! modules below.

mod client;
mod control;
mod datagram;
mod lane;
mod message;
mod plain;
mod port;
mod report;
mod server;
mod stream;
mod summary;
mod talk;

use crate::args::{BenchArgs, NodeArgs};
use crate::failure::Failure;
use crate::term::Style;
use crate::{node, say, units};
use message::Refusal;
use server::{Ended, Service};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use wiremesh::{Node, NodeBuilder};

const MADE_BY: &str = "wiremesh bench --listen";

/// Measurements of a run, about: those beside the tunnel take as long.
const MEASUREMENTS: u32 = 7;

pub async fn run(args: BenchArgs) -> Result<(), Failure> {
    match &args.ticket {
        Some(ticket) => measure(&args, ticket).await,
        None => listen(&args).await,
    }
}

fn builder(args: &BenchArgs) -> Result<NodeBuilder, Failure> {
    node::builder(&NodeArgs {
        key: None,
        listen: args.listen.iter().flatten().copied().collect(),
        network: args.network.clone(),
    })
}

async fn measure(args: &BenchArgs, ticket: &str) -> Result<(), Failure> {
    let ticket = node::parse_ticket(ticket)?;
    let secret = node::ticket_secret(&ticket, MADE_BY)?;
    let node = node::bind(builder(args)?).await?;
    let work = async {
        let connected = node.connect(&ticket, talk::PROTOCOL).await;
        let connection = connected.map_err(|error| node::connect_failure(&error, MADE_BY))?;
        let ways = if args.no_plain { 1 } else { 2 };
        say::note(format!(
            "connected with {}; measuring for about {}",
            connection.peer(),
            units::span(ways * MEASUREMENTS * args.duration)
        ));
        client::measure(args, &node, &connection, &secret).await
    };
    let result = tokio::select! {
        result = work => result,
        () = node::interrupted() => Err(Failure::interrupted()),
    };
    node.close().await;
    let report = result?;
    say::print(match args.json {
        true => report.json(),
        false => report.draw(Style::stdout()),
    })
}

async fn listen(args: &BenchArgs) -> Result<(), Failure> {
    let node = node::bind(node::with_guests(builder(args)?, talk::PROTOCOL)).await?;
    let service = Service {
        node: node.clone(),
        secret: node::fresh_secret()?,
        plain_port: args.plain_port.unwrap_or(0),
        turn: Arc::new(Semaphore::new(1)),
    };
    let secret = Some(service.secret.clone());
    let ticket = node::make_ticket(&node, &args.extras.advertise, secret).to_string();
    say::qr_code(&ticket, !args.extras.no_qr);
    say::note("on the other host: wiremesh bench, with this ticket:");
    say::print(format!("{ticket}\n"))?;
    let result = tokio::select! {
        done = serve_all(&node, &service, args.keep) => done,
        () = node::interrupted() => Err(Failure::interrupted()),
    };
    node.close().await;
    result
}

async fn serve_all(node: &Node, service: &Service, keep: bool) -> Result<(), Failure> {
    let (finished, mut endings) = mpsc::channel(1);
    loop {
        tokio::select! {
            connection = node.accept() => {
                let connection = connection.ok_or_else(|| Failure::runtime("the node stopped"))?;
                let (service, finished) = (service.clone(), finished.clone());
                tokio::spawn(async move {
                    let peer = connection.peer();
                    match service.serve(&connection).await {
                        Ok(Ended::Served) => {
                            say::note(format!("{peer} has measured"));
                            if !keep {
                                // Only the first matters.
                                let _ = finished.try_send(());
                            }
                        }
                        Ok(Ended::Refused(why)) => {
                            say::warn(format!("{peer} was refused: {}", reason(why)));
                        }
                        Err(error) => say::warn(format!("{peer}: {error}; waiting for another")),
                    }
                });
            }
            _ = endings.recv() => return Ok(()),
        }
    }
}

fn reason(why: Refusal) -> &'static str {
    match why {
        Refusal::Secret => "it came with a wrong or old ticket",
        Refusal::Busy => "another host is measuring",
        Refusal::Malformed => "it asked for what there is not; is it another version?",
        Refusal::Unable => "it asked for what cannot be done",
    }
}
