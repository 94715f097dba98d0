//! The arguments of `proxy` and `forward`.

use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments of `proxy`.
#[derive(Args, Debug)]
#[command(after_help = "\
Programs that speak SOCKS 5 reach the peers through it: TCP (CONNECT) and UDP (UDP ASSOCIATE), stock
WireGuard peers too, without root and without an interface. Hosts are addresses inside the tunnel,
names of peers in the configuration, or NODE-ID.wiremesh.internal; no other name is looked up.
It runs a node of its own from the configuration, until Ctrl-C. There is no password: every program
of this host may use it.

Examples:
  wiremesh proxy --socks5 127.0.0.1:1080
  curl --proxy socks5h://127.0.0.1:1080 http://laptop:8080/
  wiremesh proxy --socks5 127.0.0.1:1080 --config /etc/wireguard/wg0.conf")]
pub struct ProxyArgs {
    /// Address and port for SOCKS 5, on this host
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    pub socks5: SocketAddr,
    /// Let other hosts in too: all that reach the port act as this node, without a password
    #[arg(long)]
    pub allow_remote: bool,
    /// TOML file or wg0.conf [default: $XDG_CONFIG_HOME/wiremesh/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `forward`.
#[derive(Args, Debug)]
#[command(after_help = "\
A forward goes from a port of this host to a port of a peer; with --listen from a port of this node
inside the tunnel, which every peer reaches, to an address of this host. PEER is a name in the
configuration, a node id, or an address inside the tunnel, IPv6 in [brackets]. Several may be given.
It runs a node of its own from the configuration, until Ctrl-C.

Examples:
  wiremesh forward 8080:laptop:80            127.0.0.1:8080 here is port 80 of laptop
  wiremesh forward 2222:10.0.0.1:22 --udp 5353:10.0.0.1:53
  wiremesh forward --listen 8080:127.0.0.1:80")]
pub struct ForwardArgs {
    /// A TCP port here, and a port of a peer
    #[arg(value_name = "[ADDR:]PORT:PEER:PORT")]
    pub tcp: Vec<String>,
    /// The same for UDP, repeatable
    #[arg(long, value_name = "[ADDR:]PORT:PEER:PORT")]
    pub udp: Vec<String>,
    /// A TCP port of this node inside the tunnel, and where it leads, repeatable
    #[arg(long, value_name = "PORT:ADDR:PORT")]
    pub listen: Vec<String>,
    /// The same for UDP, repeatable
    #[arg(long, value_name = "PORT:ADDR:PORT")]
    pub listen_udp: Vec<String>,
    /// Let other hosts use the ports here too: they act as this node, without a password
    #[arg(long)]
    pub allow_remote: bool,
    /// TOML file or wg0.conf [default: $XDG_CONFIG_HOME/wiremesh/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
