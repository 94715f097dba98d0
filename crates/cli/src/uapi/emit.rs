//! Writes the answer to a `get=1`.
//!
//! Owns the order and the form of its lines. The answer holds the private key, as the protocol
//! wants it: the socket is its owner's only.

use super::PublicKey;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};
use wiremesh::{IpNet, PresharedKey, SecretKey};
use zeroize::Zeroizing;

/// What `wg show` and `wg showconf` are made from.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The key, if there is one.
    pub private_key: Option<SecretKey>,
    /// The UDP port; 0 is not shown.
    pub listen_port: u16,
    /// The mark of datagrams; 0 is not shown.
    pub fwmark: u32,
    /// The peers.
    pub peers: Vec<ShownPeer>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct ShownPeer {
    /// Who it is.
    pub public_key: PublicKey,
    /// Its preshared key; all zero is none.
    pub preshared_key: PresharedKey,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was completed.
    pub last_handshake: Option<SystemTime>,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Seconds between keepalives; 0 is off.
    pub keepalive: u16,
    /// Its prefixes.
    pub allowed_ips: Vec<IpNet>,
}

/// The lines, without the `errno=0` behind them.
pub fn emit(shown: &Shown) -> Zeroizing<String> {
    // Grown at once: a string that grows leaves copies of what it held.
    let prefixes: usize = shown.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(
        200 + shown.peers.len() * 400 + prefixes * 60,
    ));
    if let Some(key) = &shown.private_key {
        key_line(&mut text, "private_key", key.as_bytes());
    }
    if shown.listen_port != 0 {
        line(&mut text, "listen_port", shown.listen_port);
    }
    if shown.fwmark != 0 {
        line(&mut text, "fwmark", shown.fwmark);
    }
    for peer in &shown.peers {
        emit_peer(&mut text, peer);
    }
    text
}

fn emit_peer(text: &mut String, peer: &ShownPeer) {
    key_line(text, "public_key", &peer.public_key.0);
    key_line(text, "preshared_key", peer.preshared_key.as_bytes());
    line(text, "protocol_version", 1);
    if let Some(endpoint) = peer.endpoint {
        line(text, "endpoint", endpoint);
    }
    let since = peer
        .last_handshake
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    line(text, "last_handshake_time_sec", since.as_secs());
    line(text, "last_handshake_time_nsec", since.subsec_nanos());
    line(text, "tx_bytes", peer.tx_bytes);
    line(text, "rx_bytes", peer.rx_bytes);
    line(text, "persistent_keepalive_interval", peer.keepalive);
    for net in &peer.allowed_ips {
        line(text, "allowed_ip", net);
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{key}={value}");
}

fn key_line(text: &mut String, key: &str, bytes: &[u8; 32]) {
    let _ = write!(text, "{key}=");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn everything_is_shown_as_the_specification_says() {
        let shown = Shown {
            private_key: Some(SecretKey::from_bytes([0xa5; 32])),
            listen_port: 51820,
            fwmark: 7,
            peers: vec![ShownPeer {
                public_key: PublicKey([1; 32]),
                preshared_key: PresharedKey::from_bytes([0x0f; 32]),
                endpoint: Some("[::1]:5".parse().expect("an address")),
                last_handshake: Some(UNIX_EPOCH + Duration::new(12, 34)),
                tx_bytes: 8,
                rx_bytes: 9,
                keepalive: 25,
                allowed_ips: vec!["10.0.0.0/8".parse().expect("a prefix")],
            }],
        };
        let expected = format!(
            "private_key={}\nlisten_port=51820\nfwmark=7\npublic_key={}\npreshared_key={}\n\
             protocol_version=1\nendpoint=[::1]:5\nlast_handshake_time_sec=12\n\
             last_handshake_time_nsec=34\ntx_bytes=8\nrx_bytes=9\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\n",
            "a5".repeat(32),
            "01".repeat(32),
            "0f".repeat(32),
        );
        assert_eq!(*emit(&shown), expected);
        assert_eq!(*emit(&Shown::default()), "");
    }
}
