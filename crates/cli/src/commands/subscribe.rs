//! `wiremesh subscribe`, and how both commands of topics get their node.
//!
//! Owns the form in which objects are shown.

use crate::args::{NodeArgs, SubscribeArgs, TicketExtras};
use crate::failure::Failure;
use crate::{node, say, units};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use wiremesh::{Admission, Node, Object, PeerConfig, Ticket, Topic, TopicError};

/// Strangers at a time in a topic of a node that prints a ticket.
const GUESTS_MAX: u32 = 64;
/// How often the neighbours are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After this long without a neighbour the user is told.
const LONELY_AFTER: Duration = Duration::from_secs(5);

pub async fn run(args: SubscribeArgs) -> Result<(), Failure> {
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder).map_err(|error| {
            let what = format!("cannot make the folder {}: {error}", folder.display());
            Failure::input(what).at("the option --output")
        })?;
    }
    let (node, topic) = topic_node(&args.topic, &args.node, &args.ticket, &args.peer).await?;
    let result = tokio::select! {
        result = show_all(&args, &topic) => result,
        () = node::interrupted() => Err(Failure::interrupted()),
    };
    drop(topic);
    node.close().await;
    result
}

async fn show_all(args: &SubscribeArgs, topic: &Topic) -> Result<(), Failure> {
    let mut subscription = topic.subscribe();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(object) = subscription.recv().await else {
            return Err(Failure::runtime("the node stopped"));
        };
        if !show(args, &object)? {
            return Ok(());
        }
        left -= 1;
    }
    match subscription.missed() {
        0 => {}
        missed => say::warn(format!(
            "{} not shown: they came faster than they were written",
            units::count(missed, "object was", "objects were")
        )),
    }
    Ok(())
}

/// Shows an object; whether anybody still reads.
fn show(args: &SubscribeArgs, object: &Object) -> Result<bool, Failure> {
    let file = args.output.as_deref().map(|folder| save(folder, object));
    let file = file.transpose()?;
    if args.json {
        return say::print_more(format!("{}\n", json(object, file.as_deref())));
    }
    let from: String = object.from.to_string().chars().take(10).collect();
    say::note(format!(
        "{:.12}  {:<6}  {:>9}  from {from}…",
        object.id.to_string(),
        object.priority.name(),
        units::bytes(object.content.len() as u64),
    ));
    match file {
        Some(file) => say::print_more(format!("{}\n", file.display())),
        None => write_out(&object.content),
    }
}

/// Writes a content to standard output, on a terminal as a line.
fn write_out(content: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    let line = stdout.is_terminal() && !content.ends_with(b"\n");
    let end: &[u8] = if line { b"\n" } else { b"" };
    let written = stdout
        .write_all(content)
        .and_then(|()| stdout.write_all(end));
    match written.and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::runtime(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}

/// Writes a content to a file that gets its name when it is whole.
fn save(folder: &Path, object: &Object) -> Result<PathBuf, Failure> {
    let path = folder.join(object.id.to_string());
    let part = folder.join(format!(".{}.wiremesh-part", object.id));
    let saved = std::fs::write(&part, &object.content);
    let saved = saved.and_then(|()| std::fs::rename(&part, &path));
    saved.map_err(|error| {
        Failure::runtime(format!("cannot write {}: {error}", path.display()))
            .at("the option --output")
    })?;
    Ok(path)
}

fn json(object: &Object, file: Option<&Path>) -> serde_json::Value {
    let expires = object.expires.duration_since(UNIX_EPOCH);
    let expires = expires.unwrap_or_default().as_millis();
    let mut value = serde_json::json!({
        "id": object.id.to_string(),
        "priority": object.priority.name(),
        "from": object.from.to_string(),
        "expires_ms": u64::try_from(expires).unwrap_or(u64::MAX),
        "bytes": object.content.len(),
    });
    let (name, content) = match (file, std::str::from_utf8(&object.content)) {
        (Some(file), _) => ("file", file.display().to_string()),
        (None, Ok(text)) => ("text", text.to_owned()),
        (None, Err(_)) => {
            let hex = object.content.iter().map(|byte| format!("{byte:02x}"));
            ("hex", hex.collect())
        }
    };
    value[name] = content.into();
    value
}

/// A node in a topic, which lets in whoever has its ticket, and knows the nodes of others.
pub async fn topic_node(
    name: &str,
    args: &NodeArgs,
    extras: &TicketExtras,
    peers: &[String],
) -> Result<(Node, Topic), Failure> {
    let peers = peers
        .iter()
        .map(|text| node::parse_ticket(text).map_err(|failure| failure.at("the option --peer")));
    let peers: Vec<Ticket> = peers.collect::<Result<_, _>>()?;
    let builder = node::builder(args)?.admission(Admission::AllowAll {
        provisional_max: GUESTS_MAX,
    });
    let node = node::bind(builder).await?;
    for ticket in peers {
        add(&node, ticket)?;
    }
    let topic = node.topic(name).map_err(|error| match error {
        TopicError::Name(_) => Failure::input(error.to_string()).at("the argument TOPIC"),
        _ => Failure::runtime(error.to_string()),
    })?;
    let ticket = node::make_ticket(&node, &extras.advertise, None).to_string();
    say::qr_code(&ticket, !extras.no_qr);
    say::note(format!("others join with: --peer {ticket}"));
    Ok((node, topic))
}

fn add(node: &Node, ticket: Ticket) -> Result<(), Failure> {
    if ticket.network != node.ticket().network {
        return Err(Failure::input("the ticket belongs to another network")
            .at("the option --peer")
            .fix("name the network of the other side: --network NAME"));
    }
    let mut config = PeerConfig::new(ticket.node_id);
    config.endpoints = ticket.endpoints;
    node.add_peer(config).map(drop).map_err(|error| {
        Failure::input(format!("the ticket cannot be used: {error}")).at("the option --peer")
    })
}

/// Waits for a neighbour, and says so when that takes long.
pub async fn joined(topic: &Topic) {
    let alone = || topic.status().neighbours.is_empty();
    let begun = tokio::time::Instant::now();
    let mut told = false;
    while alone() {
        if !told && begun.elapsed() >= LONELY_AFTER {
            told = true;
            say::note("waiting for another node of the topic; Ctrl-C stops");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
