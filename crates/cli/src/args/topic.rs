//! The arguments of `publish` and `subscribe`.

use super::{NodeArgs, TicketExtras};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use wiremesh::Priority;

/// Longest lifetime of an object, seconds.
const EXPIRES_MAX: f64 = 3_600.0;

/// Arguments of `publish`.
#[derive(Args, Debug)]
#[command(after_help = "\
Runs a node of its own, which ends when all its neighbours have the object; they pass it on. With
--peer it joins the nodes of a ticket that `wiremesh subscribe` printed; without, it prints a ticket
and waits for the first one. Nothing says who published an object: sign it if that matters.

Examples:
  wiremesh publish blocks block.bin --peer wm... --priority urgent
  echo hello | wiremesh publish chat - --peer wm... --expires 10m
  wiremesh publish releases image.iso        prints a ticket for `wiremesh subscribe`")]
pub struct PublishArgs {
    /// Name of the topic
    pub topic: String,
    /// File with the object, 1 byte to 64 MiB; - is standard input
    pub file: PathBuf,
    /// What goes before what, at every node: urgent, normal or bulk
    #[arg(long, value_name = "CLASS", default_value_t)]
    pub priority: Priority,
    /// How long it may be on its way, at most an hour: 500ms, 60s, 10m, 1h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lifetime)]
    pub expires: Duration,
    /// Ticket of a node in the topic; repeatable
    #[arg(long, value_name = "TICKET")]
    pub peer: Vec<String>,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The ticket.
    #[command(flatten)]
    pub ticket: TicketExtras,
}

/// Arguments of `subscribe`.
#[derive(Args, Debug)]
#[command(after_help = "\
Runs a node of its own, until Ctrl-C or --count. It prints a ticket on standard error; whoever has
it joins the topic through this node with --peer. Contents go to standard output, one after another;
what is known of each goes to standard error. With --output each content becomes a file whose name is
the object's id, and the names go to standard output.

Examples:
  wiremesh subscribe chat                    prints a ticket for the others
  wiremesh subscribe chat --peer wm...       joins them
  wiremesh subscribe releases --peer wm... --count 1 --output downloads
  wiremesh subscribe blocks --peer wm... --json")]
pub struct SubscribeArgs {
    /// Name of the topic
    pub topic: String,
    /// End after so many objects
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Folder that the contents go to
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Print one line of JSON for each object
    #[arg(long)]
    pub json: bool,
    /// Ticket of a node in the topic; repeatable
    #[arg(long, value_name = "TICKET")]
    pub peer: Vec<String>,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The ticket.
    #[command(flatten)]
    pub ticket: TicketExtras,
}

/// A number with a unit; seconds without one.
fn lifetime(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    let with_unit = units.iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(unit)?.parse::<f64>().ok()?;
        Some(number * seconds)
    });
    match with_unit.or_else(|| text.parse().ok()) {
        Some(seconds) if (0.001..=EXPIRES_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("use a time from 1ms to 1h, such as 500ms, 60s or 10m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_limits() {
        for (text, millis) in [("500ms", 500), ("60s", 60_000), ("10m", 600_000)] {
            assert_eq!(lifetime(text), Ok(Duration::from_millis(millis)));
        }
        assert_eq!(lifetime("1h"), lifetime("3600"));
        for text in ["", "0", "2h", "-1s", "1d", "s", "nan", "inf", "1e9"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
