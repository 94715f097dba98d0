//! Network namespaces: made with names of this process, linked in pairs, gone on drop.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::outcome::{Outcome, Stop};
use crate::process::run_words;

/// The start of every name that the laboratory gives to something on the host.
const PREFIX: &str = "wmi";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that no other run and no other call gives: prefix, process id, `x`, a number.
pub fn unique_name() -> String {
    format!(
        "{PREFIX}{}x{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A network namespace with nothing but its loopback interface; removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one.
    pub fn new() -> Outcome<Self> {
        let name = unique_name();
        run_words(&["ip", "netns", "add", &name])?;
        let namespace = Self { name };
        run_words(&["ip", "-n", namespace.name(), "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A UDP socket in this namespace. The thread that makes it ends inside; the socket stays there.
    pub fn udp_socket(&self, address: SocketAddr) -> Outcome<UdpSocket> {
        let namespace = File::open(Path::new("/run/netns").join(&self.name))?;
        let make = move || -> std::io::Result<UdpSocket> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            UdpSocket::bind(address)
        };
        match std::thread::spawn(make).join() {
            Ok(socket) => Ok(socket?),
            Err(_) => Err(Stop::Failed("the thread for a socket panicked".to_owned())),
        }
    }

    /// Lays a cable between this namespace and another; each end is called `link0`.
    pub fn link_to(&self, other: &Self) -> Outcome {
        let (a, b) = (self.name(), other.name());
        run_words(&[
            "ip", "link", "add", "link0", "netns", a, "type", "veth", "peer", "name", "link0",
            "netns", b,
        ])?;
        for end in [a, b] {
            run_words(&["ip", "-n", end, "link", "set", "link0", "up"])?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The programs in it are ended by their own guards before this.
        let _ = run_words(&["ip", "netns", "del", &self.name]);
    }
}

/// Removes what runs that were killed have left: namespaces with the processes in them, sockets,
/// logs.
pub fn clean_up_after_dead_runs() {
    let names = run_words(&["ip", "netns", "list"]).unwrap_or_default();
    for name in names
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        if !is_of_dead_run(name) {
            continue;
        }
        for process in run_words(&["ip", "netns", "pids", name])
            .unwrap_or_default()
            .lines()
        {
            let _ = run_words(&["kill", "-9", process]);
        }
        let _ = run_words(&["ip", "netns", "del", name]);
    }
    let temporary = std::env::temp_dir();
    let folders = [crate::uapi::FOLDER, crate::guest::FOLDER].map(Path::new);
    for folder in folders.into_iter().chain([temporary.as_path()]) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(is_of_dead_run) {
                continue;
            }
            // A socket or a folder with logs; what cannot be removed is in nobody's way.
            let _ = match entry.file_type() {
                Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()),
                _ => std::fs::remove_file(entry.path()),
            };
        }
    }
}

fn is_of_dead_run(name: &str) -> bool {
    let process = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('x'));
    process
        .is_some_and(|(id, _)| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_runs_are_cleaned_up() {
        assert!(!is_of_dead_run(&unique_name()));
        assert!(!is_of_dead_run("wmi1x0"), "process 1 always lives");
        assert!(is_of_dead_run("wmi999999999x0"));
        for foreign in ["wmi", "wmix0", "wmifoox1", "other999999999x0", ""] {
            assert!(!is_of_dead_run(foreign), "{foreign}");
        }
    }
}
