//! One node in kernel mode: its interface, and the program that drives it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use wiremesh_wire::NodeId;
use wiremesh_wire::address::control_address;

use crate::keys::KeyPair;
use crate::netns;
use crate::outcome::{Outcome, fail};
use crate::place::{Pings, Place};
use crate::process::{Running, run, text_of};
use crate::programs::{self, scratch_file};
use crate::stock::Make;

/// Where a node runs: a place, or a network namespace in it.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The place.
    pub place: Place,
    /// The namespace in it.
    pub inside: Option<String>,
}

impl Spot {
    /// A command that runs here, killed after a number of seconds.
    pub fn command(&self, seconds: u32, words: &[&str]) -> Command {
        match &self.inside {
            None => self.place.command(seconds, words),
            Some(name) => {
                let all = [&["ip", "netns", "exec", name], words].concat();
                self.place.command(seconds, &all)
            }
        }
    }

    /// Runs a short command here that must succeed.
    pub fn run(&self, words: &[&str]) -> Outcome<String> {
        run(&mut self.command(60, words))
    }

    /// Runs a script of the shell here with arguments, which must succeed.
    pub fn script(&self, script: &str, arguments: &[&str]) -> Outcome<String> {
        self.run(&[&["sh", "-c", script, "sh"], arguments].concat())
    }

    /// The real `ping` from here.
    pub fn ping(&self, to: &str, count: u32, interval: &str) -> Outcome<Pings> {
        let text = count.to_string();
        let words = [
            "ping", "-n", "-q", "-c", &text, "-i", interval, "-W", "2", to,
        ];
        let seconds = interval.parse::<f32>()? * count as f32;
        let output = self.command((seconds * 1.5) as u32 + 30, &words).output()?;
        let said = text_of(&output);
        let line = said.lines().find(|line| line.contains("transmitted"));
        let numbers: Vec<u32> = line
            .into_iter()
            .flat_map(|line| line.split([' ', ',']))
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [sent, answered, ..] => Ok(Pings { sent, answered }),
            _ => fail(format!("ping said: {said}")),
        }
    }
}

/// What a node and its one peer are set to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its keys.
    pub keys: KeyPair,
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// The peer's public key.
    pub peer: String,
    /// Where the peer is, if it is known.
    pub endpoint: Option<SocketAddr>,
    /// Its overlay address, and one more.
    pub addresses: (Ipv6Addr, Ipv4Addr),
    /// The peer's.
    pub peer_addresses: (Ipv6Addr, Ipv4Addr),
    /// After how many seconds a key is replaced.
    pub rotate_after: u32,
}

/// A node in kernel mode; gone on drop.
#[derive(Debug)]
pub struct KernelNode {
    spot: Spot,
    interface: String,
    settings: Settings,
    program: String,
    /// wireguard-go, where it stands in for the kernel.
    plane: Option<Running>,
}

impl KernelNode {
    /// Makes the interface and adds the peer, with no PSK and only its control address, as an
    /// operator would leave it whose node has died: there are handshakes, and nobody who answers.
    pub fn prepare(make: Make, spot: Spot, settings: Settings, program: String) -> Outcome<Self> {
        let interface = netns::unique_name();
        let plane = match make {
            Make::Kernel => {
                spot.run(&["ip", "link", "add", &interface, "type", "wireguard"])?;
                None
            }
            _ => {
                let go = programs::wireguard_go()?;
                let Some(mut command) = spot
                    .place
                    .daemon(&go.to_string_lossy(), &["-f", &interface])
                else {
                    return fail("wireguard-go runs in a namespace of the host");
                };
                let running = Running::start(&mut command, &scratch_file("go-log")?)?;
                crate::outcome::wait_for(
                    "wireguard-go",
                    std::time::Duration::from_secs(10),
                    || crate::uapi::socket_path(&interface).exists().then_some(()),
                )?;
                Some(running)
            }
        };
        let node = Self {
            spot,
            interface,
            settings,
            program,
            plane,
        };
        node.configure()?;
        Ok(node)
    }

    /// Our id and the peer's.
    fn ids(&self) -> Outcome<[NodeId; 2]> {
        Ok([
            self.settings.keys.public.parse()?,
            self.settings.peer.parse()?,
        ])
    }

    fn configure(&self) -> Outcome {
        let [own, peer] = self.ids()?;
        let settings = &self.settings;
        let endpoint = settings
            .endpoint
            .map(|endpoint| format!("endpoint {endpoint} persistent-keepalive 25"))
            .unwrap_or_default();
        let script = "
            set -e
            printf '%s\\n' $2 | wg set $1 private-key /proc/self/fd/0 listen-port $3
            ip addr add $4/128 dev $1 nodad
            ip addr add $5/128 dev $1 nodad
            ip addr add $6/32 dev $1
            ip link set $1 mtu 1420 up
            ip route replace $7/128 dev $1 src $4
            ip route replace $8/128 dev $1 src $5
            ip route replace $9/32 dev $1 src $6
            shift 9
            wg set $2 peer $1 allowed-ips $3/128 $4";
        let (interface, port) = (&self.interface, settings.listen_port.to_string());
        let (v6, v4) = settings.addresses;
        let (peer_v6, peer_v4) = settings.peer_addresses;
        let peer_control = control_address(&peer).to_string();
        self.spot.script(
            script,
            &[
                interface,
                &settings.keys.secret,
                &port,
                &control_address(&own).to_string(),
                &v6.to_string(),
                &v4.to_string(),
                &peer_control,
                &peer_v6.to_string(),
                &peer_v4.to_string(),
                &settings.peer,
                interface,
                &peer_control,
                &endpoint,
            ],
        )?;
        let mut text = format!(
            "interface={interface}\nsecret_key={}\nnode_id={own}\npeer={peer}\n\
             prefixes={peer_v6}/128,{peer_v4}/32\nrotate_after_seconds={}\npin_file={}\n",
            settings.keys.secret,
            settings.rotate_after,
            self.file("pin"),
        );
        if let Some(endpoint) = settings.endpoint {
            text.push_str(&format!("endpoint={endpoint}\n"));
        }
        self.spot.script(
            "umask 077 && printf %s \"$2\" >$1",
            &[&self.file("settings"), &text],
        )?;
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        format!("/tmp/{}.{name}", self.interface)
    }

    /// Starts the program.
    pub fn start(&self) -> Outcome {
        // A process of its own: the shell that starts it ends at once.
        let script = "setsid \"$1\" \"$2\" </dev/null >>\"$3\" 2>&1 & echo $! >\"$4\"";
        let (settings, log, pid) = (self.file("settings"), self.file("log"), self.file("pid"));
        self.spot
            .script(script, &[&self.program, &settings, &log, &pid])?;
        Ok(())
    }

    /// `kill -9` of the program; the interface stays as it is.
    pub fn kill(&self) -> Outcome {
        let script = "pid=$(cat \"$1\") && kill -9 $pid && echo killed >>\"$2\"";
        self.spot
            .script(script, &[&self.file("pid"), &self.file("log")])?;
        Ok(())
    }

    /// The words of the last line that the program printed about its state since it was started.
    pub fn state(&self) -> HashMap<String, String> {
        let log = self.log();
        let lines = log.lines().rev().take_while(|line| *line != "killed");
        let mut lines = lines.filter(|line| line.contains("phase="));
        let words = lines.next().into_iter().flat_map(|line| line.split(' '));
        words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Whether its application's prefixes are in the allowed IPs, by its own word.
    pub fn is_open(&self) -> bool {
        self.state().get("open").is_some_and(|open| open == "true")
    }

    /// The epoch of the key in the slot, by its own word.
    pub fn epoch(&self) -> u32 {
        let state = self.state();
        state
            .get("epoch")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// Everything that the program printed.
    pub fn log(&self) -> String {
        self.spot
            .run(&["cat", &self.file("log")])
            .unwrap_or_default()
    }

    /// The PSK and the allowed IPs of the peer, as `wg show` tells them.
    pub fn shown(&self) -> Outcome<(Option<String>, String)> {
        let dump = self.spot.run(&["wg", "show", &self.interface, "dump"])?;
        let line = dump.lines().nth(1).unwrap_or_default();
        let [_, psk, _, allowed, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
            return fail(format!("wg show said: {dump}"));
        };
        Ok((
            Some(psk.to_owned()).filter(|psk| psk != "(none)"),
            allowed.to_owned(),
        ))
    }

    /// Whether there was a handshake with the peer as it is configured now.
    pub fn had_handshake(&self) -> bool {
        let times = ["wg", "show", &self.interface, "latest-handshakes"];
        let shown = self.spot.run(&times).unwrap_or_default();
        shown.split_whitespace().last().is_some_and(|at| at != "0")
    }

    /// The real `ping` to both addresses of the peer; `true` if all were answered, `false` if none.
    pub fn pings(&self, count: u32) -> Outcome<bool> {
        let (v6, v4) = self.settings.peer_addresses;
        let mut sum = Pings {
            sent: 0,
            answered: 0,
        };
        for to in [v6.to_string(), v4.to_string()] {
            let pings = self.spot.ping(&to, count, "0.3")?;
            sum.sent += pings.sent;
            sum.answered += pings.answered;
        }
        match sum.answered {
            0 => Ok(false),
            answered if answered == sum.sent => Ok(true),
            _ => fail(format!("some pings were answered: {sum:?}\n{}", self.log())),
        }
    }

    /// Pings to the peer's second address at an interval.
    pub fn ping(&self, count: u32, interval: &str) -> Outcome<Pings> {
        let to = self.settings.peer_addresses.1.to_string();
        self.spot.ping(&to, count, interval)
    }

    /// What it is set to.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Drop for KernelNode {
    fn drop(&mut self) {
        let _ = self.kill();
        if self.plane.is_none() {
            let _ = self.spot.run(&["ip", "link", "del", &self.interface]);
        }
    }
}

/// The program `kernel_node` beside another program of this package.
pub fn program(beside: &str) -> String {
    let path = Path::new(beside).with_file_name("kernel_node");
    path.to_string_lossy().into_owned()
}
