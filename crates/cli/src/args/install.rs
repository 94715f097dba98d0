//! The arguments of `wiremesh install`.

use clap::Args;
use std::path::PathBuf;

/// Arguments of `install`.
#[derive(Args, Debug)]
#[command(
    group = clap::ArgGroup::new("way").required(true).args(["systemd", "file_capability"]),
    after_help = "\
The modes tun and kernel of `wiremesh up` ask the helper wiremesh-netadmin for their interface; the
rest of Wiremesh needs no installation. Nothing is started: the commands for that are printed.

Examples:
  wiremesh install --systemd --dry-run        what it would write, and the other way
  sudo wiremesh install --systemd             a service of the system, for the group wiremesh
  sudo wiremesh install --file-capability     every member of the group starts their own helper"
)]
pub struct InstallArgs {
    /// As a system service with an ambient capability
    #[arg(long)]
    pub systemd: bool,
    /// As a program with a file capability, and a unit for users
    #[arg(long)]
    pub file_capability: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The helper to install [default: wiremesh-netadmin beside this program]
    #[arg(long, value_name = "FILE")]
    pub helper: Option<PathBuf>,
    /// Install below this folder
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub root: PathBuf,
}
