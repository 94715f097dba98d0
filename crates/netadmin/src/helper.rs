//! The helper's process.
//!
//! Owns the order of the start: look at the arguments, give up every capability but one, listen,
//! remove what an earlier run left, close the door to other system calls, serve.

mod interfaces;
mod listener;
mod peers;
mod privilege;
mod server;
mod tun;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Makes network interfaces for `wiremesh up` with the one capability CAP_NET_ADMIN.

Usage: wiremesh-netadmin [--socket FILE]

  --socket FILE  where to listen [default: /run/wiremesh/netadmin.sock]

Root, the helper's own user, and members of the helper's group may connect. It refuses to run as
root; `wiremesh install --systemd --dry-run` shows how it is meant to be started.

Examples:
  wiremesh-netadmin
  setpriv --reuid wiremesh --regid wiremesh --clear-groups --inh-caps +net_admin \\
      --ambient-caps +net_admin wiremesh-netadmin --socket /run/wiremesh/netadmin.sock";

pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let socket = match &arguments[..] {
        [] => PathBuf::from(wiremesh_netadmin::SOCKET),
        [option, path] if option == "--socket" => path.into(),
        [option] if option == "--help" || option == "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("error: wrong arguments\n  fix: wiremesh-netadmin --help");
            return ExitCode::from(2);
        }
    };
    let Err(failure) = run(&socket);
    eprintln!("error: {failure}");
    ExitCode::FAILURE
}

fn run(socket: &Path) -> Result<Infallible, String> {
    privilege::drop_all_but_net_admin()?;
    let listener = listener::listen(socket)?;
    let interfaces = interfaces::Interfaces::new(socket)?;
    interfaces.remove_left_behind()?;
    privilege::filter_system_calls()?;
    eprintln!("ready at {}", socket.display());
    server::run(listener, interfaces)
}
