//! `wiremesh wg`: an interface that `wg` configures, in place of wireguard-go or boringtun.
//!
//! Owns its start and its end: in the foreground, or in a process of its own for wg-quick. That one
//! runs `$WG_QUICK_USERSPACE_IMPLEMENTATION IFNAME`, one word and one argument, waits until it
//! returns, and calls `wg setconf` at once; so the socket must be there when the process that was
//! called returns.

use crate::args::WgArgs;
use crate::config::Log;
use crate::failure::Failure;
use crate::node::stopped_by_user_or_system;
use crate::uapi::interface::Interface;
use crate::uapi::server::Server;
use crate::{log, say};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use wiremesh::Device;

/// How often the interface and the socket are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the process in the background prints when it can be configured.
const READY: &str = "ready\n";

pub async fn run(args: WgArgs) -> Result<(), Failure> {
    if args.daemon && !args.foreground {
        return detach(&args.interface);
    }
    if args.detached {
        // A process that was just started leads no group, for which alone this fails.
        let _ = rustix::process::setsid();
    }
    log::start(log_level());
    let device = Device::create(Some(&args.interface)).map_err(|error| {
        Failure::runtime(format!(
            "the interface {} cannot be made: {error}",
            args.interface
        ))
        .fix("run it as root, with a name that no interface has")
    })?;
    let server = Server::bind(&args.interface).await?;
    let interface = Arc::new(Mutex::new(Interface::new(device)));
    if args.detached {
        say::print(READY)?;
    } else {
        say::note(format!(
            "interface {0}; wg setconf {0} FILE configures it; Ctrl-C ends it",
            args.interface
        ));
    }
    tokio::select! {
        _ = stopped_by_user_or_system() => {}
        () = server.serve(Arc::clone(&interface)) => {}
        () = watch(&interface, &server) => {}
    }
    tracing::info!("stopping");
    interface.lock().await.close().await;
    Ok(())
}

/// The same variable as wireguard-go's.
fn log_level() -> Log {
    match std::env::var("LOG_LEVEL").as_deref() {
        Ok("error" | "silent") => Log::Error,
        Ok("debug" | "verbose") => Log::Debug,
        _ => Log::Info,
    }
}

/// Ready when the interface or the socket is gone; the host may change the MTU meanwhile.
async fn watch(interface: &Mutex<Interface>, server: &Server) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !server.is_there() {
            tracing::info!("the socket was removed");
            return;
        }
        if !interface.lock().await.follow() {
            tracing::info!("the interface is gone");
            return;
        }
    }
}

/// Starts the process in the background and waits until `wg` can configure it.
fn detach(interface: &str) -> Result<(), Failure> {
    let failed = |error| Failure::runtime(format!("cannot go on in the background: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(["wg", "--detached", interface])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(failed)?;
    }
    if line == READY {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).map_err(failed)?;
    }
    child.wait().map_err(failed)?;
    say::note(said.trim_end());
    Err(Failure::runtime(format!(
        "the interface {interface} was not made"
    )))
}
