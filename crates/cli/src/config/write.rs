//! Writes configuration files of our own kind, and those of stock WireGuard clients.
//!
//! Owns the text of both. It writes no file and makes no key.

use super::{Config, Peer};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use wiremesh::{Endpoint, IpNet, NodeId, PresharedKey, SecretKey};
use zeroize::Zeroizing;

/// What is said of every peer that is stock WireGuard.
const MARK: &str =
    "# Stock WireGuard, level L1: what is recorded now can be read with a quantum computer.";

/// A peer of a file.
#[derive(Debug)]
pub struct PeerText<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its key.
    pub node_id: NodeId,
    /// Where it is reached.
    pub endpoints: &'a [Endpoint],
    /// The file with its preshared key.
    pub preshared_key_file: Option<&'a str>,
    /// Its prefixes.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds between keepalives; 0 is off.
    pub keepalive: u64,
}

/// The section of a stock peer.
pub fn stock_peer(peer: &PeerText<'_>) -> String {
    let mut text = format!("\n{MARK}\n[[peer]]\nname = {:?}\n", peer.name);
    let mut line = |key: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    line("id", format!("\"{}\"", peer.node_id));
    line("stock", "true".to_owned());
    if let Some(endpoint) = peer.endpoints.first() {
        line("endpoint", format!("\"{endpoint}\""));
    }
    if let Some(file) = peer.preshared_key_file {
        line("preshared-key-file", format!("{file:?}"));
    }
    if !peer.allowed_ips.is_empty() {
        line("allowed-ips", list(&peer.allowed_ips));
    }
    if peer.keepalive != 0 {
        line("keepalive", peer.keepalive.to_string());
    }
    text
}

/// The part of a file that is about the node itself; its key is in the file `key` beside it.
pub fn node(config: &Config) -> String {
    let from = config.file.display().to_string().replace(['\n', '\r'], "?");
    let mut text = format!(
        "# Made of {from} by `wiremesh import`. `wiremesh config` explains every field.\n\n\
         [node]\nkey = \"key\"\nlisten = {}\n",
        list(&config.listen)
    );
    if !config.addresses.is_empty() {
        let own = config.addresses.iter();
        let own = own.map(|(address, net)| format!("{address}/{}", net.prefix()));
        let _ = writeln!(text, "addresses = {}", list(&own.collect::<Vec<_>>()));
    }
    if config.mtu_bytes != super::DEFAULT_MTU {
        let _ = writeln!(text, "mtu = {}", config.mtu_bytes);
    }
    text
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| format!("\"{}\"", item.to_string()))
        .collect();
    format!("[{}]", items.join(", "))
}

/// A stock client of a node.
#[derive(Debug)]
pub struct Client<'a> {
    /// Its key; without one its place is left open.
    pub secret_key: Option<&'a SecretKey>,
    /// Its addresses inside the tunnel.
    pub addresses: Vec<IpNet>,
    /// All zero is none.
    pub preshared_key: &'a PresharedKey,
    /// Our key.
    pub node_id: NodeId,
    /// Our addresses inside the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// Where it reaches us.
    pub endpoint: &'a Endpoint,
    /// Largest IP packet inside the tunnel, bytes.
    pub mtu_bytes: u16,
}

/// The addresses of a node that a client may reach: the one of its key, and those configured.
pub fn reachable(overlay: Ipv6Addr, addresses: &[(IpAddr, IpNet)]) -> Vec<IpNet> {
    let further = addresses.iter().map(|(address, _)| IpNet::host(*address));
    std::iter::once(IpNet::from(overlay))
        .chain(further)
        .collect()
}

/// The prefixes of a peer, as a client that is this peer has them as addresses.
pub fn client_addresses(overlay: Ipv6Addr, peer: &Peer) -> Vec<IpNet> {
    let further = peer.allowed_ips.iter().map(|(net, _)| *net);
    std::iter::once(IpNet::from(overlay))
        .chain(further)
        .collect()
}

/// A configuration for `wg-quick` and for the applications of phones.
pub fn client(client: &Client<'_>) -> Zeroizing<String> {
    // Grown at once: a string that grows leaves copies of what it held.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str("[Interface]\n");
    match client.secret_key {
        Some(key) => {
            text.push_str("PrivateKey = ");
            text.push_str(&key.to_base64());
            text.push('\n');
        }
        None => text.push_str("# PrivateKey = the client's own; wiremesh does not have it\n"),
    }
    let joined = |nets: &[IpNet]| {
        let nets: Vec<String> = nets.iter().map(IpNet::to_string).collect();
        nets.join(", ")
    };
    // Writing to a string does not fail.
    let _ = writeln!(text, "Address = {}", joined(&client.addresses));
    if client.mtu_bytes != super::DEFAULT_MTU {
        let _ = writeln!(text, "MTU = {}", client.mtu_bytes);
    }
    let _ = writeln!(text, "\n[Peer]\nPublicKey = {}", client.node_id);
    if !client.preshared_key.is_zero() {
        text.push_str("PresharedKey = ");
        text.push_str(&client.preshared_key.to_base64());
        text.push('\n');
    }
    let _ = writeln!(text, "AllowedIPs = {}", joined(&client.allowed_ips));
    let _ = writeln!(text, "Endpoint = {}", client.endpoint);
    text.push_str("PersistentKeepalive = 25\n");
    text
}
