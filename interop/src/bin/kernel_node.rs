//! A node in kernel mode for tests: the control protocol over a WireGuard interface that exists
//! already, driven with the `wg` tool.
//!
//! It owns the one peer of the interface and the UDP socket of the control protocol; of WireGuard
//! it knows only what `wg show` tells. Whenever its state changes it prints a line of words
//! `name=value`. It never makes or removes the interface: killed with SIGKILL, it leaves slot and
//! allowed IPs as they are, and starts again from nothing but its pin.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use wiremesh_control::kernel::{KernelCommand, KernelPeer, KernelView};
use wiremesh_control::{Level, Local, LocalConfig, PeerSettings, Pin, Plane, Random};
use wiremesh_wire::address::{CONTROL_PORT, control_address};
use wiremesh_wire::{Instant, NodeId, Now, PresharedKey, SecretKey, UnixTime};

const USAGE: &str = "kernel_node FILE      FILE has lines of the form key=value: interface, \
                     secret_key, node_id, peer, prefixes (of the peer, with commas), \
                     rotate_after_seconds, pin_file; and endpoint (of the peer) if it is known";
/// So that the peer handshakes as soon as it is added.
const KEEPALIVE: &str = "25";
/// `wg` reads a PSK from a file only, and a guest may have no `/dev/stdin`.
const STDIN: &str = "/proc/self/fd/0";

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file] = words.as_slice() else {
        return Err(USAGE.into());
    };
    let text = std::fs::read_to_string(file)?;
    let settings: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    Node::start(&settings)?.run()
}

/// The peer on the interface, as the `wg` tool sees it.
struct Interface {
    name: String,
    peer: NodeId,
    control: Ipv6Addr,
    /// The peer's prefixes beside its control address.
    prefixes: String,
    /// Where the peer was seen last.
    endpoint: Option<String>,
}

impl Interface {
    fn set(&self, words: &[&str], psk: Option<&PresharedKey>) -> Outcome {
        let mut child = Command::new("wg")
            .args(["set", &self.name])
            .args(words)
            .stdin(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().ok_or("no pipe")?;
        if let Some(psk) = psk {
            input.write_all(psk.to_base64().as_bytes())?;
        }
        drop(input);
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(format!("wg set {words:?} failed").into()),
        }
    }

    fn set_psk(&self, psk: &PresharedKey) -> Outcome {
        let peer = self.peer.to_string();
        self.set(&["peer", &peer, "preshared-key", STDIN], Some(psk))
    }

    /// Removes the peer and adds it again in one message, with its control address only.
    fn replace(&mut self, psk: &PresharedKey) -> Outcome {
        self.view()?;
        let (peer, allowed) = (self.peer.to_string(), self.allowed_ips(false));
        let mut words = vec![
            "peer",
            &peer,
            "remove",
            "peer",
            &peer,
            "preshared-key",
            STDIN,
            "allowed-ips",
            &allowed,
            "persistent-keepalive",
            KEEPALIVE,
        ];
        if let Some(endpoint) = &self.endpoint {
            words.extend(["endpoint", endpoint]);
        }
        self.set(&words, Some(psk))
    }

    fn allow_application(&self, allowed: bool) -> Outcome {
        let peer = self.peer.to_string();
        let allowed = self.allowed_ips(allowed);
        self.set(&["peer", &peer, "allowed-ips", &allowed], None)
    }

    fn allowed_ips(&self, application: bool) -> String {
        match application {
            true => format!("{}/128,{}", self.control, self.prefixes),
            false => format!("{}/128", self.control),
        }
    }

    /// The figures of the peer; its endpoint is remembered.
    fn view(&mut self) -> Outcome<KernelView> {
        let output = Command::new("wg")
            .args(["show", &self.name, "dump"])
            .output()?;
        let dump = String::from_utf8(output.stdout)?;
        let Some(line) = dump.lines().nth(1) else {
            return Ok(KernelView::default());
        };
        let [_, _, endpoint, _, handshake, rx, tx, _] = line.split('\t').collect::<Vec<_>>()[..]
        else {
            return Err(format!("wg show said: {dump}").into());
        };
        if endpoint.parse::<SocketAddr>().is_ok() {
            self.endpoint = Some(endpoint.to_owned());
        }
        let handshake: u64 = handshake.parse()?;
        Ok(KernelView {
            last_handshake: (handshake > 0).then(|| UnixTime::from_secs_nanos(handshake, 0)),
            rx_bytes: rx.parse()?,
            tx_bytes: tx.parse()?,
        })
    }
}

struct Node {
    local: Local,
    peer: KernelPeer,
    interface: Interface,
    socket: UdpSocket,
    /// Where the peer takes and sends control packets.
    other: SocketAddr,
    pin_file: String,
    began: Clock,
    said: String,
}

impl Node {
    fn start(settings: &HashMap<&str, &str>) -> Outcome<Self> {
        let setting = |key: &str| settings.get(key).copied().ok_or(format!("no {key}"));
        let secret: SecretKey = setting("secret_key")?.parse()?;
        let node_id: NodeId = setting("node_id")?.parse()?;
        let peer: NodeId = setting("peer")?.parse()?;
        let mut config = LocalConfig::new(secret);
        config.plane = Plane::Kernel;
        config.rotate_after = Duration::from_secs(setting("rotate_after_seconds")?.parse()?);
        let pin_file = setting("pin_file")?.to_owned();
        let pin = load_pin(&pin_file)?;
        let local = Local::new(config, node_id, date()?, &mut Urandom)?;
        let boot = PresharedKey::default();
        let mut interface = Interface {
            name: setting("interface")?.to_owned(),
            peer,
            control: control_address(&peer),
            prefixes: setting("prefixes")?.to_owned(),
            endpoint: settings.get("endpoint").map(|text| (*text).to_owned()),
        };
        // What it was before, if anything, ends here.
        interface.replace(&boot)?;
        let address = SocketAddr::new(control_address(&node_id).into(), CONTROL_PORT);
        let other = SocketAddr::new(interface.control.into(), CONTROL_PORT);
        Ok(Self {
            peer: KernelPeer::new(&local, peer, boot, pin, PeerSettings::default()),
            local,
            interface,
            socket: UdpSocket::bind(address)?,
            other,
            pin_file,
            began: Clock::now(),
            said: String::new(),
        })
    }

    fn run(mut self) -> Outcome {
        let mut polled = Clock::now();
        let mut frame = [0; 2048];
        loop {
            let left = self.peer.poll_interval().saturating_sub(polled.elapsed());
            if left.is_zero() {
                let view = self.interface.view()?;
                let now = self.now()?;
                self.peer.handle_view(&self.local, now, &mut Urandom, view);
                self.carry_out()?;
                // From the end on: where `wg` takes long, packets would not get their turn.
                polled = Clock::now();
                continue;
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv_from(&mut frame) {
                Ok((len, from)) if from == self.other => {
                    let now = self.now()?;
                    self.peer
                        .handle_frame(&self.local, now, &mut Urandom, &frame[..len]);
                    self.carry_out()?;
                }
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // The answer to what could not be sent.
                Err(error) => eprintln!("receiving: {error}"),
            }
        }
    }

    fn carry_out(&mut self) -> Outcome {
        for command in self.peer.poll_commands() {
            match command {
                KernelCommand::SetPsk(psk) => self.interface.set_psk(&psk)?,
                KernelCommand::Replace(psk) => {
                    self.interface.replace(&psk)?;
                    self.say("replaced=true".to_owned());
                }
                KernelCommand::AllowApplication(allowed) => {
                    self.interface.allow_application(allowed)?;
                }
                KernelCommand::Send(payload) => {
                    // Without a session or an endpoint it is lost, and repeated.
                    if let Err(error) = self.socket.send_to(&payload, self.other) {
                        eprintln!("sending: {error}");
                    }
                }
                KernelCommand::SavePin(pin) => save_pin(&self.pin_file, &pin)?,
            }
        }
        let status = self.peer.status();
        let suite = status
            .suite
            .map_or("none".to_owned(), |suite| suite.to_string());
        let waiting = status
            .waiting
            .map_or("none".to_owned(), |(reason, _)| format!("{reason:?}"));
        self.say(format!(
            "open={} epoch={} suite={suite} phase={:?} waiting={waiting}",
            self.peer.is_open(),
            status.epoch,
            status.phase,
        ));
        Ok(())
    }

    /// Prints what was not the last to be printed.
    fn say(&mut self, text: String) {
        if text != self.said {
            println!("{:.3} {text}", self.began.elapsed().as_secs_f32());
            self.said = text;
        }
    }

    fn now(&self) -> Outcome<Now> {
        let nanos = u64::try_from(self.began.elapsed().as_nanos())?;
        Ok(Now::new(Instant::from_nanos(nanos), date()?))
    }
}

fn date() -> Outcome<UnixTime> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(UnixTime::from_duration(since))
}

/// The kernel's random numbers.
struct Urandom;

impl Random for Urandom {
    fn fill(&mut self, out: &mut [u8]) {
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(out))
            .expect("the system has random numbers");
    }
}

fn load_pin(file: &str) -> Outcome<Pin> {
    let Ok(text) = std::fs::read_to_string(file) else {
        return Ok(Pin::default());
    };
    let (level, seq) = text.trim().split_once(' ').ok_or("a pin is two words")?;
    Ok(Pin {
        level: level.parse()?,
        max_seq: seq.parse()?,
        ..Pin::default()
    })
}

fn save_pin(file: &str, pin: &Pin) -> Outcome {
    let level: Level = pin.level;
    let new = format!("{file}.new");
    let mut out = File::create(&new)?;
    writeln!(out, "{level} {}", pin.max_seq)?;
    out.sync_all()?;
    Ok(std::fs::rename(new, file)?)
}
