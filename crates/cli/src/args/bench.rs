//! The arguments of `bench`.

use super::TicketExtras;
use clap::Args;
use std::net::SocketAddr;
use std::time::Duration;

/// Arguments of `bench`.
#[derive(Args, Debug)]
#[command(after_help = "\
One host listens and prints a ticket, the other measures: round trips, throughput, datagrams and
their loss, the largest datagram; each inside the tunnel and beside it, over plain UDP and TCP
between the same addresses. The plain ports are open for this client alone and only while it
measures. If a firewall closes that way, the report says so and has the rest.

Examples:
  wiremesh bench --listen                       on one host; prints a ticket
  wiremesh bench wm...                          on the other
  wiremesh bench wm... --duration 1s --rate 50M --json
  wiremesh bench --listen 0.0.0.0:4000 --plain-port 4001 --keep")]
pub struct BenchArgs {
    /// The ticket that the other side's `wiremesh bench --listen` printed
    #[arg(required_unless_present = "listen")]
    pub ticket: Option<String>,
    /// Serve: on this UDP address, repeatable [default: all addresses, any free port]
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1)]
    pub listen: Option<Vec<SocketAddr>>,
    /// How long each measurement takes, at most 60s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// Bits per second that are offered in datagrams of 1,200 bytes, with K, M or G
    #[arg(long, value_name = "RATE", default_value = "10M", value_parser = rate)]
    pub rate: u64,
    /// Measure the tunnel alone
    #[arg(long)]
    pub no_plain: bool,
    /// Print JSON, one line
    #[arg(long)]
    pub json: bool,
    /// TCP and UDP port for the plain traffic, on the side that listens [default: any free one]
    #[arg(long, value_name = "PORT", conflicts_with = "ticket",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub plain_port: Option<u16>,
    /// Go on after the first client, until Ctrl-C
    #[arg(long, conflicts_with = "ticket")]
    pub keep: bool,
    /// Name of the network; both sides need the same
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub network: String,
    /// The ticket.
    #[command(flatten)]
    pub extras: TicketExtras,
}

/// A time such as `5s` or `300ms`, from 10 ms to a minute.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "use a time such as 5s or 300ms, from 10ms to 60s".to_owned();
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    match seconds {
        0.01..=60.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(wrong()),
    }
}

/// A rate such as `10M`, from 1 kbit/s to 10 Gbit/s.
fn rate(text: &str) -> Result<u64, String> {
    let wrong = || "use bits per second such as 500K, 10M or 1G, from 1K to 10G".to_owned();
    let unit = match text.chars().last() {
        Some('k' | 'K') => 1e3,
        Some('m' | 'M') => 1e6,
        Some('g' | 'G') => 1e9,
        _ => 1.0,
    };
    let number = if unit > 1.0 {
        &text[..text.len() - 1]
    } else {
        text
    };
    let rate = number.parse::<f64>().map_err(|_| wrong())? * unit;
    match rate {
        1e3..=1e10 => Ok(rate as u64),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parse(line: &[&str]) -> Option<BenchArgs> {
        let line = ["wiremesh", "bench"].iter().chain(line);
        match Cli::try_parse_from(line).ok()?.command {
            Command::Bench(args) => Some(args),
            _ => None,
        }
    }

    #[test]
    fn times_and_rates_have_units_and_limits() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("2.5s"), Ok(Duration::from_millis(2_500)));
        assert_eq!(duration("60"), Ok(Duration::from_secs(60)));
        for text in ["", "s", "ms", "0s", "9ms", "61s", "nan", "-1s", "5m", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(rate("10M"), Ok(10_000_000));
        assert_eq!(rate("1.5g"), Ok(1_500_000_000));
        assert_eq!(rate("1000"), Ok(1_000));
        for text in ["", "M", "999", "11G", "nan", "-1M", "1T", "é", "10é"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_side_listens_and_the_other_has_a_ticket() {
        let address: SocketAddr = "127.0.0.1:4000".parse().expect("an address");
        let listen = |line: &[&str]| parse(line).map(|args| args.listen);
        assert_eq!(listen(&["--listen"]), Some(Some(vec![])));
        assert_eq!(
            listen(&["--listen", "127.0.0.1:4000"]),
            Some(Some(vec![address]))
        );
        assert_eq!(listen(&["wmx"]), Some(None));
        assert_eq!(
            listen(&["wmx", "--listen", "127.0.0.1:4000"]),
            Some(Some(vec![address]))
        );
        assert_eq!(listen(&["--listen", "--keep"]), Some(Some(vec![])));
        for line in [
            &[][..],
            &["--json"],
            &["wmx", "--keep"],
            &["wmx", "--plain-port", "4001"],
            &["--listen", "--plain-port", "0"],
            &["--listen", "nowhere"],
        ] {
            assert!(parse(line).is_none(), "{line:?}");
        }
    }
}
