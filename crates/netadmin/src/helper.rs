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

const HELP: &str = include_str!("helper/help.txt");

pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let socket = match &arguments[..] {
        [] => PathBuf::from(wiremesh_netadmin::SOCKET),
        [option, path] if option == "--socket" => path.into(),
        [option] if option == "--help" || option == "-h" => {
            print!("{HELP}");
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
    let cleared = interfaces.remove_left_behind();
    cleared.map_err(|error| format!("cannot remove what an earlier run left behind: {error}"))?;
    privilege::filter_system_calls()?;
    eprintln!("ready at {}", socket.display());
    server::run(listener, interfaces)
}
