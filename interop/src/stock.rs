//! The other side: a stock WireGuard of one of three makes, configured the way its makers mean it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::keys::{KeyPair, key_hex};
use crate::outcome::{Outcome, fail, wait_for};
use crate::place::Place;
use crate::process::Running;
use crate::programs::{self, scratch_file};
use crate::{netns, uapi};

/// Who made the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// The Go implementation, from the distribution.
    WireguardGo,
    /// The Rust implementation, from crates.io.
    Boringtun,
    /// The Linux kernel's module, in a guest.
    Kernel,
}

/// What an interface and its one peer, our node, are set to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The interface's own keys.
    pub keys: KeyPair,
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// Our public key.
    pub peer: String,
    /// The PSK, in base64.
    pub psk: Option<String>,
    /// Where our node is; without it only our node can initiate.
    pub endpoint: Option<SocketAddr>,
    /// Our addresses inside the tunnel: allowed IPs, and routes into the interface.
    pub peer_addresses: (Ipv6Addr, Ipv4Addr),
    /// The interface's own addresses inside the tunnel.
    pub addresses: (Ipv6Addr, Ipv4Addr),
    /// Persistent keepalive in seconds.
    pub keepalive: Option<u16>,
    /// Whether its own address will change. boringtun pins its address to each peer by a connected
    /// socket, until it is told not to.
    pub roams: bool,
}

/// What the other side tells about its peer.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Where it believes our node to be.
    pub endpoint: Option<SocketAddr>,
    /// Unix time of the last handshake in seconds, 0 for none.
    pub last_handshake: u64,
}

/// A running stock WireGuard interface; gone on drop.
#[derive(Debug)]
pub struct Stock {
    make: Make,
    place: Place,
    interface: String,
    settings: Settings,
    program: Option<Running>,
}

impl Stock {
    /// Starts one and configures it.
    pub fn start(make: Make, place: Place, settings: Settings) -> Outcome<Self> {
        let interface = netns::unique_name();
        let mut stock = Self {
            make,
            place,
            interface,
            settings,
            program: None,
        };
        stock.bring_up()?;
        Ok(stock)
    }

    /// Who made it.
    pub fn make(&self) -> Make {
        self.make
    }

    /// The name of its interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Its settings as they were given last.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it runs; other programs of its host run there too.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Kills it and starts it again with the same settings: sessions are lost, keys are not.
    pub fn restart(&mut self) -> Outcome {
        self.tear_down();
        self.bring_up()
    }

    /// Kills it for good.
    pub fn stop(&mut self) {
        self.tear_down();
    }

    /// Kills it and starts it again with other settings.
    pub fn restart_with(&mut self, change: impl FnOnce(&mut Settings)) -> Outcome {
        change(&mut self.settings);
        self.restart()
    }

    /// Changes settings. In place where the make can do that, else by a restart; says which.
    pub fn change(&mut self, change: impl FnOnce(&mut Settings)) -> Outcome<&'static str> {
        change(&mut self.settings);
        if self.make == Make::Boringtun {
            self.restart()?;
            return Ok("by a restart");
        }
        self.configure()?;
        Ok("in place")
    }

    /// What it tells about our node.
    pub fn report(&self) -> Outcome<Report> {
        if self.make == Make::Kernel {
            let dump = self.place.run(&["wg", "show", &self.interface, "dump"])?;
            let Some(peer) = dump.lines().nth(1) else {
                return Ok(Report::default());
            };
            let fields: Vec<&str> = peer.split('\t').collect();
            let endpoint = fields.get(2).and_then(|text| text.parse().ok());
            let last_handshake = fields
                .get(4)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            return Ok(Report {
                endpoint,
                last_handshake,
            });
        }
        let mut report = Report::default();
        for (key, value) in uapi::fetch(&self.interface)? {
            match key.as_str() {
                "endpoint" => report.endpoint = value.parse().ok(),
                "last_handshake_time_sec" => report.last_handshake = value.parse()?,
                _ => {}
            }
        }
        Ok(report)
    }

    fn bring_up(&mut self) -> Outcome {
        match self.make {
            Make::Kernel => {
                let words = ["ip", "link", "add", &self.interface, "type", "wireguard"];
                self.place.run(&words)?;
            }
            Make::WireguardGo => {
                let program = programs::wireguard_go()?;
                self.launch(&program, &["-f", &self.interface.clone()])?;
            }
            Make::Boringtun => {
                let program = programs::boringtun()?;
                let interface = self.interface.clone();
                let mut words = vec!["-f", "--disable-drop-privileges"];
                if self.settings.roams {
                    words.push("--disable-connected-udp");
                }
                words.push(&interface);
                self.launch(&program, &words)?;
            }
        }
        self.configure()?;
        self.address()
    }

    fn launch(&mut self, program: &Path, arguments: &[&str]) -> Outcome {
        let path = program.to_string_lossy();
        let Some(mut command) = self.place.daemon(&path, arguments) else {
            return fail("user-space programs run in a namespace of the host");
        };
        let mut running = Running::start(&mut command, &scratch_file("stock-log")?)?;
        let socket = uapi::socket_path(&self.interface);
        // The file is there a moment before anybody listens.
        let up = || !running.is_alive() || UnixStream::connect(&socket).is_ok();
        let limit = Duration::from_secs(10);
        let (_, _) = wait_for(&format!("{path} to start"), limit, {
            let mut up = up;
            move || up().then_some(())
        })?;
        if !running.is_alive() {
            return fail(format!("{path} ended: {}", running.log_text()));
        }
        self.program = Some(running);
        Ok(())
    }

    fn configure(&self) -> Outcome {
        if self.make == Make::Kernel {
            return self.configure_kernel();
        }
        let settings = &self.settings;
        let mut pairs = vec![
            ("private_key", key_hex(&settings.keys.secret)?),
            ("listen_port", settings.listen_port.to_string()),
            ("public_key", key_hex(&settings.peer)?),
        ];
        if let Some(psk) = &settings.psk {
            pairs.push(("preshared_key", key_hex(psk)?));
        }
        if let Some(endpoint) = settings.endpoint {
            pairs.push(("endpoint", endpoint.to_string()));
        }
        if let Some(seconds) = settings.keepalive {
            pairs.push(("persistent_keepalive_interval", seconds.to_string()));
        }
        pairs.push(("replace_allowed_ips", "true".to_owned()));
        pairs.push(("allowed_ip", format!("{}/128", settings.peer_addresses.0)));
        pairs.push(("allowed_ip", format!("{}/32", settings.peer_addresses.1)));
        uapi::set(&self.interface, &pairs)
    }

    fn configure_kernel(&self) -> Outcome {
        let settings = &self.settings;
        let (v6, v4) = settings.peer_addresses;
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {}\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = {v6}/128, {v4}/32\n",
            settings.keys.secret, settings.listen_port, settings.peer
        );
        if let Some(psk) = &settings.psk {
            text.push_str(&format!("PresharedKey = {psk}\n"));
        }
        if let Some(endpoint) = settings.endpoint {
            text.push_str(&format!("Endpoint = {endpoint}\n"));
        }
        if let Some(seconds) = settings.keepalive {
            text.push_str(&format!("PersistentKeepalive = {seconds}\n"));
        }
        // syncconf keeps the sessions of a peer that stays.
        let script = "printf %s \"$2\" >/tmp/$1.conf && wg syncconf $1 /tmp/$1.conf";
        self.place
            .run(&["sh", "-c", script, "sh", &self.interface, &text])?;
        Ok(())
    }

    fn address(&self) -> Outcome {
        let interface = self.interface.as_str();
        let (v6, v4) = self.settings.addresses;
        let (peer_v6, peer_v4) = self.settings.peer_addresses;
        let script = "ip addr add $2/128 dev $1 nodad && ip addr add $3/32 dev $1 && \
                      ip link set $1 mtu 1420 up && ip route replace $4/128 dev $1 && \
                      ip route replace $5/32 dev $1 src $3";
        self.place.run(&[
            "sh",
            "-c",
            script,
            "sh",
            interface,
            &v6.to_string(),
            &v4.to_string(),
            &peer_v6.to_string(),
            &peer_v4.to_string(),
        ])?;
        Ok(())
    }

    fn tear_down(&mut self) {
        if let Some(program) = self.program.take() {
            program.kill();
            let _ = std::fs::remove_file(uapi::socket_path(&self.interface));
        } else if self.make == Make::Kernel {
            let _ = self.place.run(&["ip", "link", "del", &self.interface]);
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.tear_down();
    }
}
