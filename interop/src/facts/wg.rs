//! The stock `wg` tool, as an operator or our kernel mode uses it: the same words for the kernel
//! (netlink) and for wireguard-go (its configuration socket).

use std::net::SocketAddr;

use crate::outcome::{Outcome, Stop, fail};
use crate::process::text_of;
use crate::stock::Stock;

/// The file name under which `wg` reads the PSK from its standard input: the guest has no
/// `/dev/stdin`.
pub const PSK_FILE: &str = "/proc/self/fd/0";

/// A peer as `wg show INTERFACE dump` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The PSK that is configured, in base64; `None` is the zero one.
    pub psk: Option<String>,
    /// Where it is believed to be, as `wg` writes it.
    pub endpoint: Option<SocketAddr>,
    /// Unix time of the last handshake in seconds, 0 for none.
    pub last_handshake: u64,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

/// What an interface tells about its one peer.
pub fn show(stock: &Stock) -> Outcome<Peer> {
    let dump = stock
        .place()
        .run(&["wg", "show", stock.interface(), "dump"])?;
    let line = dump.lines().nth(1).unwrap_or_default();
    let [_, psk, endpoint, _, handshake, rx, tx, _] = line.split('\t').collect::<Vec<_>>()[..]
    else {
        return fail(format!("wg show dump said: {dump}"));
    };
    Ok(Peer {
        psk: Some(psk.to_owned()).filter(|psk| psk != "(none)"),
        endpoint: endpoint.parse().ok(),
        last_handshake: handshake.parse()?,
        rx_bytes: rx.parse()?,
        tx_bytes: tx.parse()?,
    })
}

/// `wg set INTERFACE WORDS`; the PSK, if any, is what [`PSK_FILE`] among the words stands for.
pub fn set(stock: &Stock, psk: Option<&str>, words: &str) -> Outcome {
    run(stock, psk, &[], words).map(drop)
}

/// Sets the PSK of the one peer in place.
pub fn set_psk(stock: &Stock, psk: &str) -> Outcome {
    let peer = &stock.settings().peer;
    set(
        stock,
        Some(psk),
        &format!("peer {peer} preshared-key {PSK_FILE}"),
    )
}

/// What a peer that is removed and added again in one command is set to.
#[derive(Clone, Debug)]
pub struct Readd {
    /// The PSK; `None` is the zero one.
    pub psk: Option<String>,
    /// Allowed IPs, separated by commas.
    pub allowed_ips: String,
    /// Persistent keepalive in seconds.
    pub keepalive: Option<u16>,
    /// Where the peer is.
    pub endpoint: Option<SocketAddr>,
}

impl Readd {
    /// The words of `wg set` behind the interface.
    pub fn words(&self, peer: &str) -> String {
        let mut words = format!(
            "peer {peer} remove peer {peer} allowed-ips {}",
            self.allowed_ips
        );
        if self.psk.is_some() {
            words.push_str(&format!(" preshared-key {PSK_FILE}"));
        }
        if let Some(seconds) = self.keepalive {
            words.push_str(&format!(" persistent-keepalive {seconds}"));
        }
        if let Some(endpoint) = self.endpoint {
            words.push_str(&format!(" endpoint {endpoint}"));
        }
        words
    }

    /// Removes the one peer and adds it again with one `wg set`.
    pub fn run(&self, stock: &Stock) -> Outcome {
        let words = self.words(&stock.settings().peer);
        set(stock, self.psk.as_deref(), &words)
    }

    /// The same under `strace`: how often `wg` sent settings. `None` without `strace`.
    pub fn count_requests(&self, stock: &Stock) -> Outcome<Option<usize>> {
        let words = self.words(&stock.settings().peer);
        count_requests(stock, self.psk.as_deref(), &words)
    }
}

/// Runs `wg set` under `strace` and counts what it sent to the interface: netlink messages that
/// set a device, or `set=1` requests. `None` without `strace`.
pub fn count_requests(stock: &Stock, psk: Option<&str>, words: &str) -> Outcome<Option<usize>> {
    if !stock
        .place()
        .succeeds(10, &["sh", "-c", "command -v strace"])
    {
        return Ok(None);
    }
    let tracer = [
        "strace",
        "-qq",
        "-s",
        "64",
        "-e",
        "trace=sendto,sendmsg,write,writev",
    ];
    let log = run(stock, psk, &tracer, words)?;
    let requests = log.lines().filter(|line| {
        let netlink = line.starts_with("send") && line.contains("nlmsg_len");
        let is_lookup = line.contains("nlmsg_type=nlctrl") || line.contains("nlmsg_type=0x10");
        (netlink && !is_lookup) || line.contains("\"set=1\\n")
    });
    match requests.count() {
        0 => fail(format!("strace saw no request: {log}")),
        count => Ok(Some(count)),
    }
}

/// Runs `TRACER wg set INTERFACE WORDS` and gives everything that was printed.
fn run(stock: &Stock, psk: Option<&str>, tracer: &[&str], words: &str) -> Outcome<String> {
    let script = "key=$1; shift; printf '%s\\n' \"$key\" | \"$@\"";
    let mut all = vec!["sh", "-c", script, "sh", psk.unwrap_or_default()];
    all.extend(tracer);
    all.extend(["wg", "set", stock.interface()]);
    all.extend(words.split(' '));
    let output = stock.place().command(30, &all).output()?;
    if output.status.success() {
        return Ok(text_of(&output));
    }
    let start: String = words.chars().take(400).collect();
    Err(Stop::Failed(format!(
        "wg set {start}: {}",
        text_of(&output)
    )))
}
