//! `wiremesh send`.
//!
//! Owns the life of an offer: it serves receivers, one after another or at once, until one has
//! everything (or, with `--keep`, until it is stopped).

use super::offer::Offer;
use crate::args::SendArgs;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::transfer::walk::WalkError;
use crate::transfer::{self, Meter, Refusal, Sent, Source, TransferError};
use crate::{node, say, units};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use wiremesh::{Connection, Node, TicketSecret};

/// How long a connection may stay without the greeting of a receiver.
const GREETING_PATIENCE: Duration = Duration::from_secs(30);

/// How long the sender waits for the receiver to close, after its last word.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(args: SendArgs) -> Result<(), Failure> {
    let walked = transfer::walk(&args.paths).map_err(walk_failure)?;
    for skipped in &walked.skipped {
        say::warn(skipped);
    }
    let source = Arc::new(walked.source);
    let mut offer = Offer::open(&args.paths, &args.node)?;
    let node = start(&args, &offer).await?;
    let port = node
        .listen_addresses()
        .first()
        .map_or(0, |address| address.port());
    offer.save(port);
    let secret = offer.secret.clone();
    let ticket = node::make_ticket(&node, &args.ticket.advertise, Some(secret)).to_string();

    let manifest = &source.manifest;
    say::note(format!(
        "offering {}, {}{}",
        units::count(manifest.files(), "file", "files"),
        units::bytes(manifest.bytes()),
        if offer.again {
            " (the same ticket as before)"
        } else {
            ""
        }
    ));
    say::qr_code(&ticket, !args.ticket.no_qr);
    say::note("on the other host: wiremesh receive, with this ticket:");
    say::print(format!("{ticket}\n"))?;

    let result = tokio::select! {
        done = serve_all(&node, &source, &offer.secret, args.keep) => done,
        () = node::interrupted() => Err(Failure::interrupted()
            .fix(format!("to go on, with the same ticket: {}", say::this_command()))),
    };
    node.close().await;
    if result.is_ok() {
        offer.forget();
    }
    result
}

/// The port of before may be taken; then the ticket changes, which is better than no sending.
async fn start(args: &SendArgs, offer: &Offer) -> Result<Node, Failure> {
    let builder = || -> Result<_, Failure> {
        let builder = node::builder(&args.node)?.secret_key(offer.key.clone());
        Ok(node::with_guests(builder, transfer::PROTOCOL))
    };
    if offer.port != 0
        && args.node.listen.is_empty()
        && let Ok(node) = node::bind(builder()?.port(offer.port)).await
    {
        return Ok(node);
    }
    node::bind(builder()?).await
}

fn walk_failure(error: WalkError) -> Failure {
    match error {
        WalkError::Unreadable { path, error } => {
            Failure::input(format!("cannot read {}: {error}", path.display()))
        }
        WalkError::NeitherFileNorFolder(path) => {
            Failure::input(format!("{} is neither a file nor a folder", path.display()))
                .fix("send what it prints through `wiremesh pipe`")
        }
        WalkError::NoName { path, why } => {
            Failure::input(format!("{} cannot be sent: its name {why}", path.display()))
        }
        WalkError::SameName(name) => {
            Failure::input(format!("two arguments have the name {name:?}"))
                .fix("send them one after another, or the folder that holds both")
        }
        WalkError::TooMuch(error) => Failure::input(error.to_string()),
    }
    .at("the arguments FILE|FOLDER")
}

async fn serve_all(
    node: &Node,
    source: &Arc<Source>,
    secret: &TicketSecret,
    keep: bool,
) -> Result<(), Failure> {
    let (finished, mut endings) = mpsc::channel(1);
    let drawing = Arc::new(AtomicBool::new(false));
    loop {
        tokio::select! {
            connection = node.accept() => {
                let Some(connection) = connection else {
                    return Err(Failure::runtime("the node stopped"));
                };
                let (source, secret) = (Arc::clone(source), secret.clone());
                let (finished, drawing) = (finished.clone(), Arc::clone(&drawing));
                tokio::spawn(async move {
                    if serve_one(&connection, source, &secret, &drawing).await && !keep {
                        // Only the first matters.
                        let _ = finished.try_send(());
                    }
                });
            }
            _ = endings.recv() => return Ok(()),
        }
    }
}

/// Serves a connection; whether the receiver has everything.
async fn serve_one(
    connection: &Connection,
    source: Arc<Source>,
    secret: &TicketSecret,
    drawing: &AtomicBool,
) -> bool {
    let peer = connection.peer();
    let Ok(Ok((writer, reader))) =
        tokio::time::timeout(GREETING_PATIENCE, connection.accept_bi()).await
    else {
        connection.close(1u32.into(), b"no greeting");
        return false;
    };
    let meter = Arc::new(Meter::default());
    // Two lines that are redrawn in turn cannot be read: only one transfer is drawn.
    let draws = !drawing.swap(true, Relaxed);
    let progress = draws.then(|| Progress::start(Arc::clone(&meter)));
    let begun = Instant::now();
    let result = transfer::serve(
        reader,
        writer,
        secret.as_bytes(),
        source,
        Arc::clone(&meter),
    )
    .await;
    if let Some(progress) = progress {
        progress.finish().await;
        drawing.store(false, Relaxed);
    }
    let moved = meter.snapshot().bytes_moved;
    match &result {
        Ok(Sent { complete, failed }) => {
            let speed = moved as f64 / begun.elapsed().as_secs_f64().max(1e-6);
            say::note(format!(
                "{peer} has {} ({} sent, {})",
                units::count(u64::from(*complete), "file", "files"),
                units::bytes(moved),
                units::rate(speed)
            ));
            if *failed > 0 {
                let failed = units::count(u64::from(*failed), "file", "files");
                say::warn(format!("{failed} did not arrive; the offer stays open"));
            }
            let _ = tokio::time::timeout(GOODBYE_PATIENCE, connection.closed()).await;
        }
        Err(TransferError::Refused(Refusal::Secret)) => {
            say::warn(format!(
                "{peer} came with a wrong or old ticket and was refused"
            ));
            // Time for the refusal to arrive.
            let _ = tokio::time::timeout(GOODBYE_PATIENCE, connection.closed()).await;
        }
        Err(error) => {
            say::warn(format!("{peer}: {error}; waiting for it to come back"));
        }
    }
    matches!(result, Ok(Sent { failed: 0, .. }))
}
