//! The command line of `impair`: options, their units and their ranges.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use wiremesh_testkit::impair::{ImpairConfig, LinkConfig};

const EXAMPLES: &str = "\
Examples:
  A mobile network between a client and a server on port 5000:
    impair --listen 127.0.0.1:6000 --target 127.0.0.1:5000 --loss 1 --delay 40 --jitter 15

  A slow DSL line with a shallow queue:
    impair --target 127.0.0.1:5000 --rate 8000 --queue 64 --delay 20

  Heavy weather, the same each time:
    impair --target 127.0.0.1:5000 --loss 5 --burst-loss 1 --duplicate 2 --corrupt 1 --seed 42

  A NAT that forgets its table every 30 seconds, and a path that takes 1360-byte packets:
    impair --target 127.0.0.1:5000 --rebind-every 30 --mtu 1360

  Only the answers are lost:
    impair --target 127.0.0.1:5000 --loss 20 --direction to-client

Stop with Ctrl-C; the summary then goes to standard output.";

/// Relays UDP datagrams as a bad network does: point the client at --listen instead of the target.
#[derive(Debug, Parser)]
#[command(name = "impair", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address to forward to
    #[arg(long, value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// Datagrams lost, each on its own
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    loss: f64,
    /// Datagrams with which a burst of losses begins
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    burst_loss: f64,
    /// Mean length of such a burst
    #[arg(long, value_name = "DATAGRAMS", default_value = "10")]
    burst_length: f64,
    /// Delay of every datagram, one way
    #[arg(long, value_name = "MILLISECONDS", default_value = "0", value_parser = milliseconds)]
    delay: Duration,
    /// Further delay from zero to this, different for each datagram: reorders
    #[arg(long, value_name = "MILLISECONDS", default_value = "0", value_parser = milliseconds)]
    jitter: Duration,
    /// Datagrams that arrive twice
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    duplicate: f64,
    /// Datagrams in which one to three bits flip
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    corrupt: f64,
    /// Largest IP packet, headers included [default: no limit]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<usize>,
    /// Rate of the link, for each client and direction [default: no limit]
    #[arg(long, value_name = "KBIT/S", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: Option<u64>,
    /// Queue in front of a link with a rate
    #[arg(long, value_name = "KIB", default_value = "256",
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    queue: u32,
    /// Which direction is impaired
    #[arg(long, value_enum, default_value = "both")]
    direction: Direction,
    /// Source of all chance: the same seed treats the same datagrams alike
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// Changes the port toward the target this often [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rebind_every: Option<u64>,
    /// Stops after this time [default: runs until Ctrl-C]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Both,
    ToTarget,
    ToClient,
}

impl Args {
    pub(crate) fn config(&self) -> ImpairConfig {
        let link = LinkConfig {
            loss: self.loss,
            burst_loss: self.burst_loss,
            burst_datagrams: self.burst_length,
            delay: self.delay,
            jitter: self.jitter,
            duplicate: self.duplicate,
            corrupt: self.corrupt,
            mtu_bytes: self.mtu,
            rate_bits_per_s: self.rate.map(|rate| rate * 1000),
            queue_bytes: self.queue as usize * 1024,
        };
        let mut config = ImpairConfig::new(self.target).with_seed(self.seed);
        config.listen = self.listen;
        if self.direction != Direction::ToClient {
            config.to_target = link.clone();
        }
        if self.direction != Direction::ToTarget {
            config.to_client = link;
        }
        config
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value / 100.0),
        _ => Err("give a percentage from 0 to 100, such as 5 or 0.1".to_owned()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=3_600_000.0).contains(&value) => {
            Ok(Duration::from_secs_f64(value / 1000.0))
        }
        _ => Err("give milliseconds from 0 to 3600000, such as 20 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn units_are_converted() {
        let line = "impair --target [::1]:5 --loss 5 --corrupt 0.5% --delay 20 --jitter 0.5 \
                    --rate 8 --queue 2 --mtu 1360 --direction to-client";
        let config = parse(line).expect("a valid line").config();
        assert_eq!(config.to_target, LinkConfig::default());
        let link = config.to_client;
        assert_eq!((link.loss, link.corrupt), (0.05, 0.005));
        assert_eq!(link.delay, Duration::from_millis(20));
        assert_eq!(link.jitter, Duration::from_micros(500));
        assert_eq!((link.rate_bits_per_s, link.queue_bytes), (Some(8000), 2048));
        assert_eq!(link.mtu_bytes, Some(1360));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for option in [
            "--loss 101",
            "--loss -1",
            "--loss many",
            "--delay -1",
            "--jitter 3600001",
            "--rate 0",
            "--queue 0",
            "--rebind-every 0",
            "--listen here",
        ] {
            let error = parse(&format!("impair --target 127.0.0.1:5 {option}"));
            assert_eq!(error.expect_err(option).exit_code(), 2);
        }
        assert!(parse("impair").is_err(), "the target is required");
    }
}
