//! `wiremesh status` and `wiremesh ticket`: what the running node tells.

use crate::args::{StatusArgs, TicketArgs};
use crate::control::Client;
use crate::failure::Failure;
use crate::term::Style;
use crate::{folders, node, say};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use wiremesh::address::{network_id, overlay_address};

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Moves the cursor to the top and clears below it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

pub async fn status(args: StatusArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&socket(args.socket)?).await?;
    let redraw = args.watch && !args.json && std::io::stdout().is_terminal();
    loop {
        let status = client.status().await?;
        let text = if args.json {
            let json = serde_json::to_string(&status);
            json.map_err(|error| Failure::runtime(error.to_string()))? + "\n"
        } else {
            status.draw(Style::stdout(), SystemTime::now())
        };
        let text = if redraw {
            format!("{CLEAR}{text}")
        } else {
            text
        };
        if !say::print_more(text)? || !args.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            () = node::interrupted() => return Err(Failure::interrupted()),
        }
    }
}

pub async fn ticket(args: TicketArgs) -> Result<(), Failure> {
    if let Some(text) = &args.ticket {
        return explain(text);
    }
    let mut client = Client::connect(&socket(args.socket)?).await?;
    let ticket = client.status().await?.ticket;
    say::print(format!("{ticket}\n"))?;
    say::qr_code(&ticket, !args.no_qr);
    Ok(())
}

fn explain(text: &str) -> Result<(), Failure> {
    let ticket = node::parse_ticket(text)?;
    let mut lines = vec![
        ("node id", ticket.node_id.to_string()),
        ("address", overlay_address(&ticket.node_id).to_string()),
    ];
    if ticket.network == network_id("") {
        lines.push(("network", "the default one".to_owned()));
    } else {
        lines.push(("network", ticket.network.to_string()));
    }
    lines.extend(
        ticket
            .endpoints
            .iter()
            .map(|endpoint| ("endpoint", endpoint.to_string())),
    );
    lines.extend(
        ticket
            .relays
            .iter()
            .map(|relay| ("relay", relay.to_string())),
    );
    let secret = match ticket.secret {
        Some(_) => "yes: whoever has this ticket may use it",
        None => "no: the node decides by key whom it lets in",
    };
    lines.push(("secret", secret.to_owned()));
    let text = lines
        .iter()
        .map(|(title, value)| format!("{title:9} {value}\n"));
    say::print(text.collect::<String>())
}

fn socket(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    given.map_or_else(folders::control_socket, Ok)
}
