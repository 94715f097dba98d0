//! `wiremesh exec`: a program whose only network is the overlay, without any privilege.
//!
//! Owns the node that feeds the program's interface, and what becomes of signals and exit codes.
//! The other half, [`inside`], is a child process in namespaces of its own that turns into the
//! program; UDP sockets stay out here.

mod channel;
mod forbidden;
pub mod inside;
mod names;

use super::up;
use crate::args::ExecArgs;
use crate::config::{self, Config, Log};
use crate::failure::Failure;
use crate::{keys, log, node, say};
use channel::Channel;
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use wiremesh::Device;
use wiremesh::address::{OVERLAY_NET, overlay_address};

/// The program's interface.
const INTERFACE: &str = "wm0";

/// What the half inside needs to know.
#[derive(Debug, Deserialize, Serialize)]
struct Setup {
    mtu_bytes: u16,
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<(IpAddr, u8)>,
    hosts: String,
}

/// What the half inside says.
#[derive(Debug, Deserialize, Serialize)]
enum Answer {
    /// The network is there; its TUN device comes along.
    Ready,
    /// There will be no program.
    Failed {
        what: String,
        place: Option<String>,
        fix: Option<String>,
        code: u8,
    },
}

/// The node runs: the program may start.
#[derive(Debug, Deserialize, Serialize)]
struct Go;

impl Setup {
    fn of(config: &Config) -> Result<Self, Failure> {
        let own = keys::node_id(&config.secret_key)?;
        let further = config.addresses.iter();
        let further = further.map(|(address, net)| (*address, net.prefix()));
        let nets = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
        let nets = std::iter::once(OVERLAY_NET).chain(nets.map(|(net, _)| *net));
        Ok(Self {
            mtu_bytes: config.mtu_bytes,
            addresses: std::iter::once((overlay_address(&own).into(), 128))
                .chain(further)
                .collect(),
            routes: nets.map(|net| (net.addr(), net.prefix())).collect(),
            hosts: names::hosts(&own, &config.peers),
        })
    }
}

/// Runs the program; its exit code, or 128 and the number of the signal that ended it.
pub async fn run(args: ExecArgs) -> Result<ExitCode, Failure> {
    let path = args.config.map_or_else(config::default_path, Ok)?;
    let config = config::load(&path)?;
    for warning in &config.warnings {
        say::warn(warning);
    }
    // Standard error is the program's: peers that come and go are not told there.
    log::start(config.log.min(Log::Warn));
    forbidden::check_device()?;
    let (channel, theirs) = Channel::pair().map_err(broken)?;
    let mut child = start_inside(&args.program, theirs)?;
    let mut signals = Signals::new().map_err(broken)?;
    let setup = Setup::of(&config)?;
    let prepared = tokio::task::spawn_blocking(move || {
        channel.send(&setup, Some(io::stdin().as_fd()))?;
        let answer = channel.receive::<Answer>()?;
        Ok::<_, io::Error>((channel, answer))
    });
    let prepared = prepared.await.map_err(io::Error::from);
    let (channel, answer) = prepared.and_then(|sent| sent).map_err(broken)?;
    let device = match answer {
        Some((Answer::Ready, Some(device))) => device,
        Some((answer @ Answer::Failed { .. }, _)) => return Ok(report(answer)),
        _ => return Ok(code_of(child.wait().await.map_err(broken)?)),
    };
    let device = Device::from_fd(device)
        .map_err(|error| Failure::runtime(format!("the TUN device cannot be used: {error}")))?;
    let node = node::from_config_with(&config, |builder| builder.device(device)).await?;
    let started = tokio::task::spawn_blocking(move || {
        channel.send(&Go, None)?;
        channel.receive::<Answer>()
    });
    let resolving = async {
        up::resolve_until_all(&node, &config).await;
        std::future::pending().await
    };
    let status = tokio::select! {
        status = signals.pass_on_until_end(&mut child) => status,
        never = resolving => never,
    };
    let status = status.map_err(broken)?;
    node.close().await;
    // The channel closes when the program starts; else it has said why not.
    match started.await {
        Ok(Ok(Some((answer, _)))) => Ok(report(answer)),
        _ => Ok(code_of(status)),
    }
}

/// This program again, as the half inside. It must not have threads when it makes a user
/// namespace, and this process has.
fn start_inside(program: &[OsString], channel: OwnedFd) -> Result<Child, Failure> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("wiremesh")
        .args(["exec", "--inside", "--"])
        .args(program)
        .stdin(channel)
        .kill_on_drop(true);
    command
        .spawn()
        .map_err(|error| Failure::runtime(format!("cannot start a second process: {error}")))
}

fn report(answer: Answer) -> ExitCode {
    match answer {
        Answer::Ready => ExitCode::FAILURE,
        Answer::Failed {
            what,
            place,
            fix,
            code,
        } => {
            let failure = Failure {
                place,
                fix,
                ..Failure::runtime(what)
            };
            failure.report();
            ExitCode::from(code)
        }
    }
}

/// As a shell has it.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).ok(),
        (None, Some(signal)) => u8::try_from(128 + signal).ok(),
        (None, None) => None,
    };
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

fn broken(error: io::Error) -> Failure {
    Failure::runtime(format!(
        "the second process of wiremesh exec fails: {error}"
    ))
}

/// The signals that are passed on to the program.
struct Signals {
    interrupt: Stream,
    quit: Stream,
    terminate: Stream,
    hangup: Stream,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn pass_on_until_end(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        loop {
            let signal = tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => Signal::INT,
                _ = self.quit.recv() => Signal::QUIT,
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.hangup.recv() => Signal::HUP,
            };
            // What a key made, the terminal has given to the program too: to all in the foreground.
            let from_key = matches!(signal, Signal::INT | Signal::QUIT) && is_in_foreground();
            let id = child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(id) = id.and_then(Pid::from_raw).filter(|_| !from_key) {
                // It may have ended a moment ago.
                let _ = kill_process(id, signal);
            }
        }
    }
}

fn is_in_foreground() -> bool {
    File::open("/dev/tty")
        .is_ok_and(|terminal| rustix::termios::tcgetpgrp(terminal) == Ok(getpgrp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn program_gets_the_addresses_of_the_node_and_the_networks_of_its_peers() {
        let text = "[Interface]\nPrivateKey = 4BAkrFf8yRDLWHCR3zcB0JHpsUsbbMF1yXSbcrT6gXw=\n\
                    Address = 10.0.0.2/24\nMTU = 1300\n[Peer]\n\
                    PublicKey = z7qclBvDyZpia3q+ONZY169QCU0zJZqcDmHooqZ5NAU=\n\
                    AllowedIPs = 10.0.0.1/32, 192.168.7.0/24\n";
        let config = config::parse(text, Path::new("wg0.conf")).expect("a configuration");
        let setup = Setup::of(&config).expect("a setup");
        let own = overlay_address(&keys::node_id(&config.secret_key).expect("a key"));
        let net = |text: &str, bits| (text.parse::<IpAddr>().expect("an address"), bits);
        assert_eq!(setup.mtu_bytes, 1300);
        assert_eq!(setup.addresses, [(own.into(), 128), net("10.0.0.2", 24)]);
        assert_eq!(
            setup.routes,
            [
                net("fd77:6d00::", 25),
                net("10.0.0.1", 32),
                net("192.168.7.0", 24)
            ]
        );
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        for (raw, expected) in [(0, 0u8), (7 << 8, 7), (9, 137), (15, 143)] {
            let code = code_of(ExitStatus::from_raw(raw));
            assert_eq!(
                format!("{code:?}"),
                format!("{:?}", ExitCode::from(expected))
            );
        }
    }
}
