//! How the program finds peers by name: the texts of its own `/etc/hosts`, `/etc/resolv.conf` and
//! `/etc/nsswitch.conf`.
//!
//! Owns which names there are: `ID.wiremesh.internal`, and for a petname the same and the bare
//! name. No name is asked of anybody outside.

use crate::config::Peer;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use wiremesh::NodeId;
use wiremesh::address::overlay_address;

const DOMAIN: &str = "wiremesh.internal";

/// Text of a resolver configuration without a name server.
pub const RESOLV_CONF: &str = "# wiremesh exec: names come from /etc/hosts alone\n";

/// The names of this node and its peers.
pub fn hosts(own: &NodeId, peers: &[Peer]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    line(&mut text, overlay_address(own).into(), &id_name(own));
    let mut taken = HashSet::from(["localhost".to_owned()]);
    for peer in peers {
        let mut names = id_name(&peer.node_id);
        let petname = peer.name.as_deref().filter(|name| is_host_name(name));
        // Names of hosts have no case; the first peer keeps the name.
        if let Some(name) = petname
            && taken.insert(name.to_ascii_lowercase())
        {
            let _ = write!(names, " {name}.{DOMAIN} {name}");
        }
        for address in addresses(peer) {
            line(&mut text, address, &names);
        }
    }
    text
}

fn id_name(id: &NodeId) -> String {
    format!("{}.{DOMAIN}", id.to_base32())
}

fn line(text: &mut String, address: IpAddr, names: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{address} {names}");
}

/// A stock peer has no overlay address: its prefixes of a single address stand for it.
fn addresses(peer: &Peer) -> Vec<IpAddr> {
    if !peer.stock {
        return vec![overlay_address(&peer.node_id).into()];
    }
    let nets = peer.allowed_ips.iter().map(|(net, _)| net);
    let single = nets.filter(|net| net.prefix() == if net.addr().is_ipv4() { 32 } else { 128 });
    single.map(|net| net.addr()).collect()
}

/// Whether a petname can stand in `/etc/hosts` and means a name there.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 200 && name.split('.').all(is_label) && name.parse::<IpAddr>().is_err()
}

/// The host's text, except that names of hosts come from files: other services would ask outside,
/// over Unix sockets.
pub fn nsswitch(text: &str) -> String {
    let others = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("hosts:"));
    let mut own: String = others.flat_map(|line| [line, "\n"]).collect();
    own.push_str("hosts: files\n");
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    const KEY: &str = "4BAkrFf8yRDLWHCR3zcB0JHpsUsbbMF1yXSbcrT6gXw=";
    const PEERS: [&str; 3] = [
        "z7qclBvDyZpia3q+ONZY169QCU0zJZqcDmHooqZ5NAU=",
        "C4sxj9FOmRv7VqB0X1eHGspquAUlEw5IXG/z3Y4vqmc=",
        "SKgcKxrxgicG+h51lwiLBTHFm/wUyS2486wZS+t6UEk=",
    ];

    fn parsed() -> config::Config {
        let [a, b, c] = PEERS;
        let text = format!(
            "[Interface]\nPrivateKey = {KEY}\nAddress = 10.0.0.2/24\n\
             [Peer]\nPublicKey = {a}\nAllowedIPs = 10.0.0.1/32, 10.1.0.0/16\n\
             [Peer]\nPublicKey = {b}\nAllowedIPs = 10.0.0.3/32\n\
             [Peer]\nPublicKey = {c}\nAllowedIPs = 10.2.0.0/16\n"
        );
        config::parse(&text, Path::new("wg0.conf")).expect("a configuration")
    }

    #[test]
    fn every_peer_has_its_name_and_its_petname() {
        let mut config = parsed();
        config.peers[0].name = Some("laptop".to_owned());
        config.peers[1].stock = false;
        config.peers[1].name = Some("LAPTOP".to_owned());
        let own = config.peers[2].node_id;
        let text = hosts(&own, &config.peers);
        let [a, b, c] = [0, 1, 2].map(|at: usize| config.peers[at].node_id);
        let (first, second) = (a.to_base32(), b.to_base32());
        assert_eq!(
            text,
            format!(
                "127.0.0.1 localhost\n::1 localhost\n{} {}.wiremesh.internal\n\
                 10.0.0.1 {first}.wiremesh.internal laptop.wiremesh.internal laptop\n\
                 {} {second}.wiremesh.internal\n",
                overlay_address(&c),
                c.to_base32(),
                overlay_address(&b)
            )
        );
    }

    #[test]
    fn only_names_of_hosts_become_names() {
        for good in ["a", "my-box", "a.b", "x_1"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in [
            "", "a b", "a\nb", "#a", "-a", ".a", "a..b", "10.0.0.1", "::1", "é",
        ] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }

    #[test]
    fn only_files_are_asked_for_hosts() {
        assert_eq!(
            nsswitch("passwd: files\n hosts: resolve [!UNAVAIL=return] files dns\ngroup: files"),
            "passwd: files\ngroup: files\nhosts: files\n"
        );
    }
}
