//! Our side: the product as a user runs it, or a stand-in for it.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::keys::KeyPair;
use crate::outcome::{Outcome, fail, skip, wait_for};
use crate::place::Place;
use crate::process::{Running, text_of};
use crate::programs::scratch_file;
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
    /// Whether the configuration is a `wg0.conf` and not a file of our own kind.
    pub wg_conf: bool,
    /// Whether the peer is stock WireGuard, and not a node in kernel mode.
    pub stock: bool,
    /// After how many seconds a key is replaced; only the embedding program has that setting.
    pub rotate_after: Option<u32>,
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
    pub fn wiremesh(form: Form, place: Place, settings: NodeSettings) -> Outcome<Self> {
        Node::start(form, place, settings).map(Self::Wiremesh)
    }

    /// Starts the stand-in.
    pub fn stand_in(place: Place, settings: &NodeSettings, load_program: &str) -> Outcome<Self> {
        if settings.always_under_load {
            return skip("the stand-in cannot be set to be always under load");
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

    /// What the product tells about its peer; nothing from the stand-in.
    pub fn peer_status(&self) -> Outcome<Value> {
        match self {
            Self::Wiremesh(node) => node.peer_status(),
            Self::StandIn(..) => Ok(Value::Null),
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

/// How the product is run.
#[derive(Clone, Debug)]
pub enum Form {
    /// The command line program: `wiremesh up`.
    Command(PathBuf),
    /// The program `embedded`, which uses the library.
    Embedded(PathBuf),
}

/// The product in a place of its own; killed on drop.
#[derive(Debug)]
pub struct Node {
    place: Place,
    settings: NodeSettings,
    folder: PathBuf,
    form: Form,
    running: Option<Running>,
}

impl Node {
    fn start(form: Form, place: Place, settings: NodeSettings) -> Outcome<Self> {
        let folder = scratch_file("node")?;
        std::fs::create_dir_all(&folder)?;
        let mut node = Self {
            place,
            settings,
            folder,
            form,
            running: None,
        };
        let text = match node.form {
            Form::Command(_) if node.settings.wg_conf => node.wg_conf(),
            Form::Command(_) => node.configuration()?,
            Form::Embedded(_) => node.plain_settings(),
        };
        write_private(&node.config(), &text)?;
        node.launch()?;
        Ok(node)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn config(&self) -> String {
        self.file(if self.settings.wg_conf {
            "wg0.conf"
        } else {
            "config.toml"
        })
    }

    fn socket(&self) -> String {
        // A wg0.conf cannot say where; then it is where XDG_RUNTIME_DIR says.
        self.file(if self.settings.wg_conf {
            "wiremesh/control.sock"
        } else {
            "control.sock"
        })
    }

    /// A configuration as `wg-quick` reads it.
    fn wg_conf(&self) -> String {
        let settings = &self.settings;
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {}\nAddress = {}/24\n\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {}/32\n",
            settings.keys.secret,
            settings.listen_port,
            settings.addresses.1,
            settings.peer,
            settings.peer_addresses.1,
        );
        if let Some(psk) = &settings.psk {
            text.push_str(&format!("PresharedKey = {psk}\n"));
        }
        if let Some(endpoint) = settings.endpoint {
            text.push_str(&format!("Endpoint = {endpoint}\n"));
        }
        text
    }

    /// The configuration file of `wiremesh up`, and the key files that it names.
    fn configuration(&self) -> Outcome<String> {
        let settings = &self.settings;
        write_private(&self.file("key"), &settings.keys.secret)?;
        let mut text = format!(
            "[node]\nkey = \"key\"\nlisten = [\"0.0.0.0:{port}\", \"[::]:{port}\"]\n\
             addresses = [\"{}\"]\nstate-dir = \"state\"\ncontrol-socket = \"control.sock\"\n\
             log = \"debug\"\n\n[echo]\nudp-port = {ECHO_PORT}\n\n\
             [[peer]]\nname = \"stock\"\nid = \"{}\"\nstock = {}\nallowed-ips = [\"{}/32\"]\n",
            settings.addresses.1,
            settings.peer,
            settings.stock,
            settings.peer_addresses.1,
            port = settings.listen_port,
        );
        if let Some(psk) = &settings.psk {
            write_private(&self.file("psk"), psk)?;
            text.push_str("preshared-key-file = \"psk\"\n");
        }
        if let Some(endpoint) = settings.endpoint {
            text.push_str(&format!("endpoint = \"{endpoint}\"\n"));
        }
        Ok(text)
    }

    /// The settings of the program `embedded`.
    fn plain_settings(&self) -> String {
        let settings = &self.settings;
        let mut text = format!(
            "secret_key={}\nport={}\nstate_dir={}\naddress={}\npeer_address={}/32\npeer={}\n\
             echo_port={ECHO_PORT}\n",
            settings.keys.secret,
            settings.listen_port,
            self.file("state"),
            settings.addresses.1,
            settings.peer_addresses.1,
            settings.peer,
        );
        if !settings.stock {
            text.push_str("suites=yes\n");
        }
        if let Some(seconds) = settings.rotate_after {
            text.push_str(&format!("rotate_after_seconds={seconds}\n"));
        }
        if settings.always_under_load {
            text.push_str("handshakes_per_second_max=0\n");
        }
        if let Some(psk) = &settings.psk {
            text.push_str(&format!("preshared_key={psk}\n"));
        }
        if let Some(endpoint) = settings.endpoint {
            text.push_str(&format!("endpoint={endpoint}\n"));
        }
        text
    }

    fn launch(&mut self) -> Outcome {
        let (config, socket) = (self.config(), self.socket());
        let _ = std::fs::remove_file(&socket);
        let (program, words) = match &self.form {
            Form::Command(program) => (program, ["up", "--config", &config]),
            Form::Embedded(program) => (program, ["serve", &config, &socket]),
        };
        let Some(mut command) = self.place.daemon(&program.to_string_lossy(), &words) else {
            return fail("our side is in a namespace of the host");
        };
        command
            .env("XDG_RUNTIME_DIR", &self.folder)
            .env("XDG_STATE_HOME", &self.folder);
        let mut running = Running::start(&mut command, &scratch_file("node-log")?)?;
        wait_for("our node to start", Duration::from_secs(10), || {
            (!running.is_alive() || Path::new(&socket).exists()).then_some(())
        })?;
        if !running.is_alive() {
            return fail(format!("our node ended: {}", running.log_text()));
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

    /// Asks the running node through its own program; what it printed.
    fn ask(&self, command: &[&str], embedded: &[&str]) -> Outcome<Output> {
        let socket = self.socket();
        let (program, words) = match &self.form {
            Form::Command(program) => (program, [command, &["--socket", &socket]].concat()),
            Form::Embedded(program) => (program, [&["ask", &socket], embedded].concat()),
        };
        let program = program.to_string_lossy();
        let words = [&[program.as_ref()], words.as_slice()].concat();
        Ok(self.place.command(60, &words).output()?)
    }

    fn ping(&self, to: IpAddr, seconds: u32) -> Outcome<bool> {
        let (to, seconds) = (to.to_string(), seconds.to_string());
        let command = ["ping", "--count", "1", "--timeout", &seconds, &to];
        let output = self.ask(&command, &["ping", &to, &seconds])?;
        Ok(output.status.success())
    }

    fn peer_endpoint(&self) -> Outcome<Option<SocketAddr>> {
        let peer = self.peer_status()?;
        Ok(peer["endpoint"].as_str().and_then(|text| text.parse().ok()))
    }

    /// What the node tells about its one peer.
    fn peer_status(&self) -> Outcome<Value> {
        let output = self.ask(&["status", "--json"], &["status"])?;
        let mut status: Value = serde_json::from_slice(&output.stdout)?;
        let peers = status["peers"].as_array_mut().into_iter().flatten();
        let mut ours = peers.filter(|peer| peer["node_id"] == self.settings.peer.as_str());
        Ok(ours.next().map(Value::take).unwrap_or_default())
    }

    fn status_text(&self) -> String {
        let status = self
            .ask(&["status"], &["status"])
            .map(|output| text_of(&output));
        let log = self
            .running
            .as_ref()
            .map(Running::log_text)
            .unwrap_or_default();
        format!("{}\n{log}", status.unwrap_or_default())
    }
}

fn write_private(path: &str, text: &str) -> Outcome {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
