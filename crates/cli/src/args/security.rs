//! The arguments of `policy`, `suites` and `pin`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use wiremesh::{Level, Stage};

/// Arguments of `policy`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without an option it shows the policy. A change takes effect at once, for every peer: streams go on
where the new policy allows what they run on. It lasts until the node ends; to keep it, write it
into the [security] section of the configuration.

Stages, in the order in which a network is upgraded:
  old-only         offers L1 only; needs --minimum L1
  both-prefer-old  offers both, the old suite first among those of one level
  both             offers both; the best that a peer speaks too is used
  new-only         offers no L1, and promises that for good: peers remember it

Examples:
  wiremesh policy
  wiremesh policy --minimum L1                    lets old nodes in, which offer L1 only
  wiremesh policy --minimum L2 --stage new-only   ends the upgrade
  wiremesh policy --json | jq .minimum")]
pub struct PolicyArgs {
    /// No application data flows below this level: L1, L2 or L3
    #[arg(long, value_name = "LEVEL")]
    pub minimum: Option<Level>,
    /// What to offer and promise: old-only, both-prefer-old, both or new-only
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<Stage>,
    /// Whether to offer L3, with a static ML-KEM key
    #[arg(long, value_name = "ON|OFF")]
    pub static_kem: Option<Switch>,
    /// Print JSON, one line
    #[arg(long)]
    pub json: bool,
    /// Control socket of the running node
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

impl PolicyArgs {
    /// Whether something is to be changed.
    pub fn changes(&self) -> bool {
        self.minimum.is_some() || self.stage.is_some() || self.static_kem.is_some()
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Arguments of `suites`.
#[derive(Args, Debug)]
#[command(after_help = "\
Shows what this build speaks. If a node runs, also what that one offers, and how many of the peers
that have told their list speak each suite. BEST counts those that speak nothing better: an old
suite can be retired when it is nobody's best.

Examples:
  wiremesh suites
  wiremesh suites --json | jq '.suites[] | {suite, best_of}'")]
pub struct SuitesArgs {
    /// Print JSON, one line
    #[arg(long)]
    pub json: bool,
    /// Control socket of the running node
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

/// The subcommands of `pin`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A node that has moved to stage new-only promises in its signed record never to go below a level
again. Its peers remember that as a pin, and let no data through below it. If its operator goes back
all the same, each peer's operator has to lower the pin by hand.

Examples:
  wiremesh pin show
  wiremesh pin lower laptop")]
pub enum PinCommand {
    /// Shows what peers have promised
    #[command(after_help = "\
Asks the running node. When none runs, it reads the state folder of the configuration.

Examples:
  wiremesh pin show
  wiremesh pin show laptop
  wiremesh pin show --json | jq '.pins[] | select(.level != \"L1\")'")]
    Show(PinShowArgs),
    /// Forgets that a peer has promised a level; asks before
    #[command(after_help = "\
Whoever makes you do this has the downgrade that pins prevent. Do it only when the peer's operator
has told you, on another way, that they went back. Without a terminal it needs --yes.

Examples:
  wiremesh pin lower laptop
  wiremesh pin lower laptop --to L2
  wiremesh pin lower hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= --yes")]
    Lower(PinLowerArgs),
}

/// Where pins are.
#[derive(Args, Clone, Debug)]
pub struct PinPlace {
    /// Control socket of the running node
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Configuration whose state folder is used when no node runs (TOML or wg0.conf)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `pin show`.
#[derive(Args, Debug)]
pub struct PinShowArgs {
    /// Name, node id or ticket [default: all]
    pub peer: Option<String>,
    /// Print JSON, one line
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub place: PinPlace,
}

/// Arguments of `pin lower`.
#[derive(Args, Debug)]
pub struct PinLowerArgs {
    /// Name, node id or ticket
    pub peer: String,
    /// The level to go down to: L1 or L2
    #[arg(long, value_name = "LEVEL", default_value = "L1")]
    pub to: Level,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub place: PinPlace,
}
