//! The configuration of `wiremesh up`: a TOML file of our own, or an existing `wg0.conf`.
//!
//! Owns the resolved form, in which every value is checked, every file it names is read and every
//! default is filled in. It starts nothing and changes nothing.

pub mod check;
pub mod default_text;
pub mod toml_file;
pub mod wg_conf;
pub mod write;

use crate::failure::{Failure, Place};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wiremesh::{EgressConfig, Endpoint, IpNet, Level, NodeId, Policy, PresharedKey, SecretKey};

/// The UDP port of `wiremesh up` when none is given: the one that WireGuard is known for.
pub const DEFAULT_PORT: u16 = 51820;

/// The MTU inside the tunnel when none is given, bytes.
pub const DEFAULT_MTU: u16 = 1420;

/// The smallest MTU that IPv6 allows, bytes.
pub const MIN_MTU: u16 = 1280;

/// Strangers that are let in at a time under `allow-all`, when no number is given.
pub const DEFAULT_PROVISIONAL_MAX: u32 = 1024;

/// Largest configuration file that is read.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Who may open a session without being named as a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nobody.
    AllowList,
    /// Everybody, up to a number at a time.
    AllowAll {
        /// The number.
        provisional_max: u32,
    },
}

/// How much the running node writes to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Errors only.
    Error,
    /// Also warnings, such as refused peers.
    Warn,
    /// Also peers that come and go.
    Info,
    /// Everything.
    Debug,
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The file that it comes from.
    pub file: PathBuf,
    /// The secret key.
    pub secret_key: SecretKey,
    /// UDP addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The name of the network.
    pub network: String,
    /// Who may come in unasked.
    pub admission: Admission,
    /// What it lists, promises and demands.
    pub policy: Policy,
    /// Further addresses inside the tunnel, beside the one that follows from the key, and the
    /// prefix that each talks to.
    pub addresses: Vec<(IpAddr, IpNet)>,
    /// Endpoints to write into tickets, before those that the node finds itself.
    pub advertise: Vec<Endpoint>,
    /// Largest IP packet inside the tunnel, bytes.
    pub mtu_bytes: u16,
    /// Where the node keeps what must survive a restart.
    pub state_dir: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// How much to log.
    pub log: Log,
    /// The pace of what leaves, and the share of each class.
    pub egress: EgressConfig,
    /// UDP port inside the tunnel that sends every datagram back.
    pub udp_echo_port: Option<u16>,
    /// The peers.
    pub peers: Vec<Peer>,
    /// What the user should know although it is no error.
    pub warnings: Vec<String>,
}

/// A checked peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// A name for people.
    pub name: Option<String>,
    /// Its key.
    pub node_id: NodeId,
    /// Where to reach it, best first; none: it comes to us.
    pub endpoints: Vec<Endpoint>,
    /// The preshared key.
    pub preshared_key: PresharedKey,
    /// Prefixes beside its overlay addresses, each with its place in the file.
    pub allowed_ips: Vec<(IpNet, Place)>,
    /// Persistent keepalive.
    pub keepalive: Option<Duration>,
    /// Application data with it needs at least this level, whatever the policy says.
    pub minimum: Option<Level>,
    /// Whether it is a stock WireGuard peer, which speaks nothing of ours inside the tunnel.
    pub stock: bool,
    /// Where the file names it.
    pub place: Place,
}

impl Peer {
    /// How messages call it: its name, else its key.
    pub fn label(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.node_id.to_string())
    }
}

/// Where the configuration is when nobody says otherwise.
///
/// # Errors
///
/// No home folder is known.
pub fn default_path() -> Result<PathBuf, Failure> {
    Ok(crate::folders::config()?.join("config.toml"))
}

/// Reads a file of either form and checks it.
///
/// # Errors
///
/// What is wrong, with file, line and remedy.
pub fn load(path: &Path) -> Result<Config, Failure> {
    load_as(path, None)
}

/// Reads a file that must be a `wg0.conf`.
///
/// # Errors
///
/// As [`load`].
pub fn load_wg_conf(path: &Path) -> Result<Config, Failure> {
    load_as(path, Some(Form::WgConf))
}

/// Reads a file that must be of our own form.
///
/// # Errors
///
/// As [`load`].
pub fn load_toml(path: &Path) -> Result<Config, Failure> {
    load_as(path, Some(Form::Toml))
}

fn load_as(path: &Path, wanted: Option<Form>) -> Result<Config, Failure> {
    use std::io::Read;
    let missing = |error: std::io::Error| {
        let failure =
            Failure::input(format!("cannot read the configuration: {error}")).at(path.display());
        if error.kind() == std::io::ErrorKind::NotFound {
            failure.fix(format!("write one: wiremesh config > {}", path.display()))
        } else {
            failure
        }
    };
    let file = std::fs::File::open(path).map_err(missing)?;
    let private = file
        .metadata()
        .map_err(missing)
        .map(|data| crate::keys::check_private(&data))?;
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(FILE_MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(missing)?;
    let form = form_of(&text, path);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != form) {
        let (what, fix) = match wanted {
            Form::Toml => (
                "a wg0.conf",
                "make it one of ours first: wiremesh import FILE",
            ),
            Form::WgConf => (
                "a configuration of ours",
                "name a file as `wg-quick` uses it",
            ),
        };
        return Err(Failure::input(format!("this is {what}"))
            .at(path.display())
            .fix(fix));
    }
    let mut config = parse(&text, path)?;
    if let (Err(mode), Form::WgConf) = (private, form) {
        config.warnings.push(format!(
            "others can read {0}, which holds a secret key (mode {mode:04o}); chmod 600 {0}",
            path.display()
        ));
    }
    Ok(config)
}

/// Checks the text of a file of either form; reads the key files that it names.
///
/// # Errors
///
/// As [`load`].
pub fn parse(text: &str, path: &Path) -> Result<Config, Failure> {
    let config = match form_of(text, path) {
        Form::Toml => toml_file::parse(text, path)?,
        Form::WgConf => wg_conf::parse(text, path)?,
    };
    check::check(&config)?;
    Ok(config)
}

/// The form of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Toml,
    WgConf,
}

/// The ending of the name decides; without a known one, the first section does.
fn form_of(text: &str, path: &Path) -> Form {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => return Form::Toml,
        Some("conf") => return Form::WgConf,
        _ => {}
    }
    let section = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with('['));
    match section {
        Some(line)
            if ["[interface]", "[peer]"].iter().any(|s| {
                line.get(..s.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(s))
            }) =>
        {
            Form::WgConf
        }
        _ => Form::Toml,
    }
}

/// An address of ours with the prefix that it talks to, such as `10.0.0.2/24`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnAddress(pub(crate) IpAddr, pub(crate) IpNet);

impl std::str::FromStr for OwnAddress {
    type Err = wiremesh::IpNetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text.parse()?;
        let address = text.split('/').next().unwrap_or(text).parse();
        Ok(Self(
            address.map_err(|_| wiremesh::IpNetError::Address)?,
            net,
        ))
    }
}

/// Checks an MTU.
pub(crate) fn check_mtu(mtu: u64) -> Result<u16, String> {
    match u16::try_from(mtu) {
        Ok(mtu) if mtu >= MIN_MTU => Ok(mtu),
        _ => Err(format!(
            "the MTU is {mtu}; it must be from {MIN_MTU} to 65535"
        )),
    }
}

/// The addresses that mean "this port, everywhere".
pub(crate) fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![
        SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)),
        SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_follows_the_ending_and_else_the_first_section() {
        let form = |text, path: &str| form_of(text, Path::new(path));
        assert_eq!(form("", "a.toml"), Form::Toml);
        assert_eq!(form("[node]", "a.conf"), Form::WgConf);
        assert_eq!(form("# x\n\n [Interface] # y\n", "a"), Form::WgConf);
        assert_eq!(form("[PEER]", "/dev/fd/63"), Form::WgConf);
        assert_eq!(form("[node]\n[[peer]]", "a"), Form::Toml);
        assert_eq!(form("[[peer]]", "a"), Form::Toml);
        assert_eq!(form("", "a"), Form::Toml);
    }

    #[test]
    fn missing_file_says_how_to_write_one() {
        let failure = load(Path::new("/nonexistent/x.toml")).expect_err("missing");
        assert!(
            failure
                .fix
                .expect("a remedy")
                .contains("wiremesh config > /nonexistent")
        );
    }
}
