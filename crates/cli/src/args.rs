//! The arguments of the command.
//!
//! Owns names, help texts and examples. It checks the form of an argument and nothing else.

mod access;
mod bench;
#[cfg(target_os = "linux")]
mod exec;
mod install;
mod security;
mod topic;
mod wireguard;

pub use access::{ForwardArgs, ProxyArgs};
pub use bench::BenchArgs;
#[cfg(target_os = "linux")]
pub use exec::ExecArgs;
pub use install::InstallArgs;
pub use security::{
    PinCommand, PinLowerArgs, PinPlace, PinShowArgs, PolicyArgs, SuitesArgs, Switch,
};
pub use topic::{PublishArgs, SubscribeArgs};
pub use wireguard::{ExportArgs, ImportArgs, WgArgs, from_other_name};

use crate::units::BitRate;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use wiremesh::Endpoint;

const EXAMPLES: &str = "\
Examples:
  wiremesh demo                        eight nodes on this host, to see it work
  wiremesh send photos/                prints a ticket; give it to somebody
  wiremesh receive wm...               fetches what the ticket is for
  wiremesh key new && wiremesh up      runs a node

Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted.";

/// WireGuard between programs, with QUIC streams inside and no root.
#[derive(Debug, Parser)]
#[command(name = "wiremesh", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs eight nodes in this process, connects them and moves data, to see it work
    Demo(DemoArgs),
    /// Offers files and folders; prints a ticket for `wiremesh receive`
    Send(SendArgs),
    /// Fetches what a ticket of `wiremesh send` is for
    Receive(ReceiveArgs),
    /// Connects standard input and output with those of another host
    Pipe(PipeArgs),
    /// Sends an object to every node of a topic
    Publish(PublishArgs),
    /// Shows the objects of a topic as they come in
    Subscribe(SubscribeArgs),
    /// Measures the tunnel between two hosts, beside plain UDP and TCP on the same path
    Bench(BenchArgs),
    /// Sends ICMP echo requests to a peer, inside the tunnel
    Ping(PingArgs),
    /// Runs a SOCKS 5 proxy, through which programs of this host reach the peers
    Proxy(ProxyArgs),
    /// Forwards ports of this host to peers, and ports inside the tunnel to this host
    Forward(ForwardArgs),
    /// Makes and shows keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Shows the ticket of the running node, or what is in a given one
    Ticket(TicketArgs),
    /// Runs a node with the peers of a configuration file
    Up(UpArgs),
    /// Runs a program whose only network is the overlay, without root
    #[cfg(target_os = "linux")]
    Exec(ExecArgs),
    /// Shows the running node and its peers
    Status(StatusArgs),
    /// Shows or changes the security policy of the running node
    Policy(PolicyArgs),
    /// Lists the suites of this build, and how many of the known peers speak each
    Suites(SuitesArgs),
    /// Shows or lowers what peers have promised for good
    #[command(subcommand)]
    Pin(PinCommand),
    /// Installs the helper that makes interfaces for the modes tun and kernel
    Install(InstallArgs),
    /// Makes an interface that `wg` configures, in place of wireguard-go or boringtun
    Wg(WgArgs),
    /// Makes a configuration of a wg0.conf
    Import(ImportArgs),
    /// Makes a configuration for an unmodified WireGuard client
    Export(ExportArgs),
    /// Prints a configuration file with every field, its meaning and its default
    #[command(after_help = "\
Examples:
  mkdir -p ~/.config/wiremesh && wiremesh config > ~/.config/wiremesh/config.toml")]
    Config,
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wiremesh demo
  wiremesh demo --nodes 3 --mib 64")]
pub struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(2..=64))]
    pub nodes: u16,
    /// How much data goes between two of them, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512,
          value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub mib: u64,
    /// Instead: 16 nodes move to a post-quantum suite, one by one, while messages flow
    #[arg(long)]
    pub upgrade: bool,
    /// A node of `--upgrade` that runs in a process of its own
    #[arg(long, hide = true)]
    pub upgrade_member: bool,
}

/// How the node of a short command is made.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeArgs {
    /// Secret key file [default: a fresh key, for this run]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// UDP address to listen on, repeatable [default: all addresses, any free port]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Name of the network; both sides need the same
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub network: String,
}

/// What a command puts into its ticket.
#[derive(Args, Clone, Debug, Default)]
pub struct TicketExtras {
    /// Endpoint to put into the ticket first, such as a forwarded port; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Vec<Endpoint>,
    /// Print no QR code
    #[arg(long)]
    pub no_qr: bool,
}

/// Arguments of `send`.
#[derive(Args, Debug)]
#[command(after_help = "\
The ticket is printed on standard output. Whoever has it can fetch the files while this command
runs; it ends when one receiver has everything. After an interruption the same command gives the
same ticket again, and the receiver goes on where it stopped. Symbolic links are not sent.

Examples:
  wiremesh send report.pdf
  wiremesh send photos/ notes.txt --keep
  wiremesh send big.iso --listen 0.0.0.0:4000 --advertise host.example:4000")]
pub struct SendArgs {
    /// Files and folders
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub paths: Vec<PathBuf>,
    /// Go on after the first receiver, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The ticket.
    #[command(flatten)]
    pub ticket: TicketExtras,
}

/// Arguments of `receive`.
#[derive(Args, Debug)]
#[command(after_help = "\
A file gets its name only when its BLAKE3 hash is right. Until then it is .NAME.wiremesh-part; the
same command goes on where it stopped, also after a crash of either side.

Examples:
  wiremesh receive wm...
  wiremesh receive wm... --into ~/Downloads
  wiremesh receive wm... --overwrite")]
pub struct ReceiveArgs {
    /// The ticket that `wiremesh send` printed
    pub ticket: String,
    /// Folder that everything goes to
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub into: PathBuf,
    /// Replace files that exist and differ, without a question
    #[arg(long)]
    pub overwrite: bool,
    /// How long to try again after the connection is lost, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub retry: u64,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `pipe`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without a ticket it prints one on standard error and waits for one connection.

Examples:
  tar c folder | wiremesh pipe         on one host; prints a ticket
  wiremesh pipe wm... | tar x          on the other")]
pub struct PipeArgs {
    /// The ticket that the other side's `wiremesh pipe` printed
    pub ticket: Option<String>,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The ticket.
    #[command(flatten)]
    pub extras: TicketExtras,
}

/// Arguments of `ping`.
#[derive(Args, Debug)]
#[command(after_help = "\
Asks the running node (wiremesh up) to ping. With --config, or when none runs, it starts a node of
its own from the configuration. Works with stock WireGuard peers too. Exit code 0 when at least
one reply came.

Examples:
  wiremesh ping laptop                 a peer's name in the configuration
  wiremesh ping 10.0.0.1 -c 3          an address inside the tunnel
  wiremesh ping 10.0.0.1 --config /etc/wireguard/wg0.conf
  wiremesh ping wm...                  a ticket")]
pub struct PingArgs {
    /// Name, node id, address inside the tunnel, or ticket
    pub peer: String,
    /// How many requests [default: until Ctrl-C]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Seconds between two requests
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// Seconds to wait for a reply
    #[arg(short = 'W', long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub timeout: Duration,
    /// Bytes of data in a request
    #[arg(short, long, value_name = "BYTES", default_value_t = 56)]
    pub size: u16,
    /// Start a node of its own from this file (TOML or wg0.conf)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Control socket of the running node
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

/// The subcommands of `key`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  wiremesh key new
  wiremesh key new --key node.key
  wiremesh key show")]
pub enum KeyCommand {
    /// Makes a key file, mode 0600; never overwrites one
    #[command(after_help = "\
Examples:
  wiremesh key new
  wiremesh key new --key node.key")]
    New(KeyArgs),
    /// Shows node id and address of a key file, never the secret
    #[command(after_help = "\
Examples:
  wiremesh key show
  wiremesh key show --key node.key")]
    Show(KeyArgs),
}

/// Arguments of `key new` and `key show`.
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// Key file [default: $XDG_CONFIG_HOME/wiremesh/key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Arguments of `ticket`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wiremesh ticket                      the running node's ticket
  wiremesh ticket wm...                what is in a ticket")]
pub struct TicketArgs {
    /// A ticket to explain
    pub ticket: Option<String>,
    /// Control socket of the running node
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Print no QR code
    #[arg(long)]
    pub no_qr: bool,
}

/// Arguments of `up`.
#[derive(Args, Debug)]
#[command(after_help = "\
Runs until Ctrl-C (exit code 130) or SIGTERM (exit code 0). A wg0.conf works as it is, but nothing
in it is run as root: no routes, no DNS, no PostUp.

Examples:
  wiremesh up
  wiremesh up --config node.toml --check
  wiremesh up --config /etc/wireguard/wg0.conf
  wiremesh up --mode tun                 every program of the host reaches the peers
  wiremesh up --egress-rate 9.5Mbit      a little below what the uplink carries")]
pub struct UpArgs {
    /// TOML file or wg0.conf [default: $XDG_CONFIG_HOME/wiremesh/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Who runs WireGuard, and who reaches the peers
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Name of the interface, for --mode tun and --mode kernel
    #[arg(long, value_name = "NAME", default_value = "wm0")]
    pub interface: String,
    /// Socket of wiremesh-netadmin, which makes the interface
    #[arg(long, value_name = "FILE", default_value = wiremesh_netadmin::SOCKET)]
    pub helper: PathBuf,
    /// Pace of what leaves, such as 10Mbit; goes before the configuration's
    #[arg(long, value_name = "RATE")]
    pub egress_rate: Option<BitRate>,
    /// Check the configuration and end
    #[arg(long)]
    pub check: bool,
}

/// Who reaches the peers of a node.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// This program alone; no privilege, nothing of the host changes
    #[default]
    Rootless,
    /// Every program of the host, through an interface of the helper
    Tun,
    /// The same, with the kernel's WireGuard doing the work
    Kernel,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wiremesh status
  wiremesh status --watch
  wiremesh status --json | jq '.peers[].state'")]
pub struct StatusArgs {
    /// Print JSON, one line
    #[arg(long)]
    pub json: bool,
    /// Print it again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Control socket of the running node
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

/// Seconds with a fraction, at least a millisecond and at most a day.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("use a number of seconds from 0.001 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_command_has_an_example_and_says_everything() {
        fn visit(command: &mut clap::Command, path: &str) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:\n  "), "{path}: {help}");
            for line in help.lines() {
                assert!(line.chars().count() <= 110, "{path}: {line}");
            }
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{path}: {}",
                    argument.get_id()
                );
            }
            let names: Vec<String> = command
                .get_subcommands()
                .map(|sub| sub.get_name().to_owned())
                .collect();
            for name in names {
                let sub = command.find_subcommand_mut(&name).expect("listed");
                visit(sub, &format!("{path} {name}"));
            }
        }
        let mut command = Cli::command();
        command.build();
        visit(&mut command, "wiremesh");
    }

    #[test]
    fn durations_have_limits() {
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        for text in ["", "0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_usage_has_exit_code_2() {
        for line in [
            &["wiremesh"][..],
            &["wiremesh", "sned"],
            &["wiremesh", "send"],
            &["wiremesh", "ping", "x", "-c", "0"],
            &["wiremesh", "up", "--listen", "x"],
            &["wiremesh", "up", "--egress-rate", "10"],
            &["wiremesh", "policy", "--minimum", "L4"],
            &["wiremesh", "policy", "--stage", "later"],
            &["wiremesh", "pin"],
            &["wiremesh", "pin", "lower"],
            &["wiremesh", "pin", "lower", "x", "--to", "0"],
        ] {
            assert_eq!(
                Cli::try_parse_from(line).expect_err("wrong").exit_code(),
                2,
                "{line:?}"
            );
        }
        assert_eq!(
            Cli::try_parse_from(["wiremesh", "--help"])
                .expect_err("help")
                .exit_code(),
            0
        );
    }
}
