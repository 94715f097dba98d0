//! Arguments of `exec`.
//!
//! Owns the help text that says what such a program can reach.

use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// Arguments of `exec`.
#[derive(Args, Debug)]
#[command(after_help = "\
The program runs as the same user, with the same files, in a network that has only the peers of the
configuration: by address, or as NAME, NAME.wiremesh.internal or ID.wiremesh.internal. It can listen
on any port of the node's address. Unix sockets of the file system stay reachable, so it is no cage
for a hostile program. Signals are passed on. Beside `wiremesh up` it needs a configuration of its
own, with another key, state-dir and port.

Exit code: the program's; 128 and the number of the signal that ended it; 126 if it cannot be run,
127 if it is not there.

Examples:
  wiremesh exec -- curl http://laptop:8080/
  wiremesh exec -- python3 -m http.server 80 --bind ::
  wiremesh exec --config node.toml -- bash")]
pub struct ExecArgs {
    /// TOML file or wg0.conf [default: $XDG_CONFIG_HOME/wiremesh/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The half that becomes the program
    #[arg(long, hide = true)]
    pub inside: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}
