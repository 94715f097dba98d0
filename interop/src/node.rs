//! Our side: the product as a user runs it, or a stand-in for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::keys::KeyPair;
use crate::outcome::{Outcome, fail, wait_for};
use crate::place::Place;
use crate::process::{Running, text_of};
use crate::programs::{self, scratch_file};
use crate::stock::{Make, Settings, Stock};

/// The port inside the tunnel on which our side answers UDP with its own bytes.
pub const ECHO_PORT: u16 = 7;

/// What our node and its one peer are set to.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Our keys.
    pub keys: KeyPair,
    /// The UDP port that we listen on.
    pub listen_port: u16,
    /// The stock peer's public key.
    pub peer: String,
    /// The PSK, in base64.
    pub psk: Option<String>,
    /// Where the peer is; without it only the peer can initiate.
    pub endpoint: Option<SocketAddr>,
    /// Our addresses inside the tunnel: the overlay one, and one more.
    pub addresses: (Ipv6Addr, Ipv4Addr),
    /// The peer's addresses inside the tunnel.
    pub peer_addresses: (Ipv6Addr, Ipv4Addr),
    /// Whether every handshake must come with a cookie.
    pub always_under_load: bool,
}

/// What runs on our side.
#[derive(Debug)]
pub enum Ours {
    /// The product.
    Wiremesh(Node),
    /// wireguard-go with an echo program beside it.
    StandIn(Stock, Option<Running>),
}

impl Ours {
    /// Starts the product.
    pub fn wiremesh(place: Place, settings: NodeSettings) -> Outcome<Self> {
        Node::start(place, settings).map(Self::Wiremesh)
    }

    /// Starts the stand-in.
    pub fn stand_in(place: Place, settings: &NodeSettings, load_program: &str) -> Outcome<Self> {
        if settings.always_under_load {
            let reason = "the stand-in cannot be set to be always under load";
            return Err(crate::outcome::Stop::Skipped(reason.to_owned()));
        }
        let stock = Settings {
            keys: settings.keys.clone(),
            listen_port: settings.listen_port,
            peer: settings.peer.clone(),
            psk: settings.psk.clone(),
            endpoint: settings.endpoint,
            peer_addresses: settings.peer_addresses,
            addresses: settings.addresses,
            keepalive: None,
            roams: false,
        };
        let stock = Stock::start(Make::WireguardGo, place.clone(), stock)?;
        let address = SocketAddr::new(settings.addresses.0.into(), ECHO_PORT).to_string();
        let echo = match place.daemon(load_program, &["echo", &address, "3600"]) {
            Some(mut command) => Running::start(&mut command, &scratch_file("echo-log")?)?,
            None => return fail("our side is in a namespace of the host"),
        };
        Ok(Self::StandIn(stock, Some(echo)))
    }

    /// Pings an address inside the tunnel the way a user of our side does; whether it answered.
    pub fn ping(&self, to: IpAddr, seconds: u32) -> Outcome<bool> {
        match self {
            Self::Wiremesh(node) => node.ping(to, seconds),
            Self::StandIn(stock, _) => {
                let (to, seconds) = (to.to_string(), seconds.to_string());
                let words = ["ping", "-n", "-c", "1", "-W", &seconds, &to];
                Ok(stock.place().succeeds(60, &words))
            }
        }
    }

    /// Kills our side and starts it again with the same settings: sessions are lost, keys are not.
    pub fn restart(&mut self) -> Outcome {
        match self {
            Self::Wiremesh(node) => node.restart(),
            Self::StandIn(stock, _) => stock.restart(),
        }
    }

    /// Where our side believes the peer to be.
    pub fn peer_endpoint(&self) -> Outcome<Option<SocketAddr>> {
        match self {
            Self::Wiremesh(node) => node.peer_endpoint(),
            Self::StandIn(stock, _) => Ok(stock.report()?.endpoint),
        }
    }

    /// What our side tells about itself, for the log.
    pub fn status_text(&self) -> String {
        match self {
            Self::Wiremesh(node) => node.status_text(),
            Self::StandIn(stock, _) => format!("{:?}", stock.report()),
        }
    }
}

/// `wiremesh up` in a place of its own; killed on drop.
#[derive(Debug)]
pub struct Node {
    place: Place,
    settings: NodeSettings,
    folder: PathBuf,
    program: PathBuf,
    running: Option<Running>,
}

impl Node {
    fn start(place: Place, settings: NodeSettings) -> Outcome<Self> {
        let folder = scratch_file("node")?;
        std::fs::create_dir_all(&folder)?;
        let program = programs::wiremesh()?;
        let mut node = Self {
            place,
            settings,
            folder,
            program,
            running: None,
        };
        std::fs::write(node.folder.join("node.toml"), node.configuration())?;
        node.launch()?;
        Ok(node)
    }

    /// The configuration file of the product, as `wiremesh up --config` reads it.
    fn configuration(&self) -> String {
        let settings = &self.settings;
        let (v6, v4) = settings.peer_addresses;
        let folder = self.folder.display();
        let mut text = format!(
            "secret_key = \"{}\"\n\
             listen = [\"0.0.0.0:{port}\", \"[::]:{port}\"]\n\
             addresses = [\"{}/32\"]\n\
             state_dir = \"{folder}/state\"\n\
             echo_port = {ECHO_PORT}\n",
            settings.keys.secret,
            settings.addresses.1,
            port = settings.listen_port,
        );
        if settings.always_under_load {
            text.push_str("handshakes_under_load_per_second = 0\n");
        }
        text.push_str(&format!(
            "\n[[peer]]\nnode_id = \"{}\"\nstock = true\nallowed_ips = [\"{v6}/128\", \"{v4}/32\"]\n",
            settings.peer
        ));
        if let Some(psk) = &settings.psk {
            text.push_str(&format!("preshared_key = \"{psk}\"\n"));
        }
        if let Some(endpoint) = settings.endpoint {
            text.push_str(&format!("endpoint = \"{endpoint}\"\n"));
        }
        text
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    fn launch(&mut self) -> Outcome {
        let (program, socket) = (self.program.to_string_lossy(), self.socket());
        let config = self.folder.join("node.toml");
        let (config, socket_text) = (config.to_string_lossy(), socket.to_string_lossy());
        let words = ["up", "--config", &config, "--socket", &socket_text];
        let Some(mut command) = self.place.daemon(&program, &words) else {
            return fail("our side is in a namespace of the host");
        };
        let _ = std::fs::remove_file(&socket);
        let mut running = Running::start(&mut command, &scratch_file("node-log")?)?;
        wait_for("wiremesh up", Duration::from_secs(10), || {
            (!running.is_alive() || socket.exists()).then_some(())
        })?;
        if !running.is_alive() {
            return fail(format!("wiremesh up ended: {}", running.log_text()));
        }
        self.running = Some(running);
        Ok(())
    }

    fn restart(&mut self) -> Outcome {
        if let Some(running) = self.running.take() {
            running.kill();
        }
        self.launch()
    }

    fn ping(&self, to: IpAddr, seconds: u32) -> Outcome<bool> {
        let (program, socket) = (self.program.to_string_lossy(), self.socket());
        let (to, seconds) = (to.to_string(), seconds.to_string());
        let socket = socket.to_string_lossy();
        let words = [
            &program,
            "ping",
            "--socket",
            &socket,
            "--count",
            "1",
            "--timeout",
            &seconds,
            &to,
        ];
        Ok(self.place.succeeds(60, &words))
    }

    fn status(&self) -> Outcome<Value> {
        let (program, socket) = (self.program.to_string_lossy(), self.socket());
        let socket = socket.to_string_lossy();
        let text = self
            .place
            .run(&[&program, "status", "--json", "--socket", &socket])?;
        Ok(serde_json::from_str(&text)?)
    }

    fn peer_endpoint(&self) -> Outcome<Option<SocketAddr>> {
        let status = self.status()?;
        let peers = status["peers"].as_array().into_iter().flatten();
        let mut ours = peers.filter(|peer| peer["node_id"] == self.settings.peer.as_str());
        let endpoint = ours.next().and_then(|peer| peer["endpoint"].as_str());
        Ok(endpoint.and_then(|text| text.parse().ok()))
    }

    fn status_text(&self) -> String {
        let (program, socket) = (self.program.to_string_lossy(), self.socket());
        let words = [&program, "status", "--socket", &socket.to_string_lossy()];
        let status = self
            .place
            .command(10, &words)
            .output()
            .map(|output| text_of(&output));
        let log = self
            .running
            .as_ref()
            .map(Running::log_text)
            .unwrap_or_default();
        format!("{}\n{log}", status.unwrap_or_default())
    }
}
