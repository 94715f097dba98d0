//! The interface of `wiremesh up --mode tun`: asked of the helper, gone when the node ends.
//!
//! Owns which addresses and routes a configuration needs on the host, and what each refusal means
//! to a person. This process has no privilege and asks for none.

use crate::config::Config;
use crate::failure::Failure;
use crate::keys;
use std::net::IpAddr;
use std::path::Path;
use wiremesh::Device;
use wiremesh::address::{OVERLAY_NET, overlay_address};
use wiremesh_netadmin::client::{self, Error, Lease};
use wiremesh_netadmin::verbs::{Interface, Name, Prefix, Reason};

/// An interface, and what keeps it.
pub struct Held {
    /// What the node gets.
    pub device: Device,
    /// The interface goes with it.
    pub lease: Lease,
}

/// Asks the helper for the interface that a configuration needs.
///
/// # Errors
///
/// What is missing, with the remedy; nothing on the host has changed then.
pub fn open(config: &Config, name: &str, helper: &Path) -> Result<Held, Failure> {
    let wanted = wanted(config, name)?;
    let made = client::make_tun(helper, &wanted).map_err(|error| failure(&error, helper))?;
    let device = Device::from_fd(made.device).map_err(|error| {
        Failure::runtime(format!("the interface {name} cannot be used: {error}"))
    })?;
    Ok(Held {
        device,
        lease: made.lease,
    })
}

/// The overlay address alone, with the route to all others, and what is configured for stock peers.
fn wanted(config: &Config, name: &str) -> Result<Interface, Failure> {
    let own = overlay_address(&keys::node_id(&config.secret_key)?);
    let mut addresses = vec![Prefix {
        address: own.into(),
        bits: 128,
    }];
    addresses.extend(config.addresses.iter().map(|(address, _)| host(*address)));
    let mut routes = vec![Prefix {
        address: OVERLAY_NET.addr(),
        bits: OVERLAY_NET.prefix(),
    }];
    for peer in &config.peers {
        for (net, _) in &peer.allowed_ips {
            let route = Prefix {
                address: net.addr(),
                bits: net.prefix(),
            };
            // What lies in a route already needs none of its own.
            let covered = |known: &Prefix| known.bits <= route.bits && known.overlaps(&route);
            if !routes.iter().any(covered) {
                routes.push(route);
            }
        }
    }
    Ok(Interface {
        name: Name::parse(name).map_err(|refusal| {
            Failure::input(format!("{name}: {refusal}")).at("the option --interface")
        })?,
        mtu_bytes: config.mtu_bytes,
        addresses,
        routes,
    })
}

fn host(address: IpAddr) -> Prefix {
    Prefix {
        address,
        bits: if address.is_ipv4() { 32 } else { 128 },
    }
}

fn failure(error: &Error, helper: &Path) -> Failure {
    let what = Failure::runtime(format!("no interface for --mode tun: {error}"));
    match error {
        Error::Unreachable(_) | Error::NoReply => what.at(helper.display()).fix(
            "start the helper (`wiremesh install --systemd` sets it up), or run without an \
             interface: --mode rootless",
        ),
        Error::Refused(refusal) => match refusal.reason {
            Reason::Foreign => what.fix("add this user to the helper's group, and log in again"),
            Reason::NameInUse => what.fix("choose another name with --interface"),
            Reason::Overlap => what.fix(
                "another interface has this network: take that one away, or the address or \
                 allowed-ips out of the configuration",
            ),
            Reason::Version => what.fix("install helper and program of one version"),
            Reason::NotPrivate | Reason::NoNetwork | Reason::Malformed => {
                what.fix("correct address and allowed-ips in the configuration")
            }
            _ => what,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn config(lines: &str) -> Config {
        let dir = tempfile::tempdir().expect("a folder");
        let key = dir.path().join("key");
        fs::write(&key, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
        let text =
            format!("[node]\nkey = \"key\"\nstate-dir = \"s\"\ncontrol-socket = \"c\"\n{lines}");
        crate::config::parse(&text, &dir.path().join("node.toml")).expect("a good configuration")
    }

    fn texts(prefixes: &[Prefix]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_host_gets_the_overlay_and_what_stock_peers_have() {
        let config = config(
            "addresses = [\"10.0.0.1/24\"]\nmtu = 1300\n[[peer]]\nstock = true\n\
             id = \"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\"\n\
             allowed-ips = [\"10.0.0.0/24\", \"10.0.0.7/32\", \"fd00:1::/64\"]\n",
        );
        let wanted = wanted(&config, "wm7").expect("a good name");
        let own = overlay_address(&keys::node_id(&config.secret_key).expect("a good key"));
        assert_eq!(
            texts(&wanted.addresses),
            [format!("{own}/128"), "10.0.0.1/32".into()]
        );
        let routes = ["fd77:6d00::/25", "10.0.0.0/24", "fd00:1::/64"];
        assert_eq!(texts(&wanted.routes), routes);
        assert_eq!((wanted.name.as_str(), wanted.mtu_bytes), ("wm7", 1300));
    }

    #[test]
    fn a_bad_name_and_a_missing_helper_are_told_with_the_fix() {
        let config = config("");
        let name = wanted(&config, "eth0").expect_err("a name of somebody else's");
        assert!(name.to_string().contains("wm and 1 to 13 of"), "{name}");
        let missing = open(&config, "wm0", Path::new("/nonexistent/socket"));
        let text = missing.err().expect("no helper").to_string();
        assert!(text.contains("wiremesh install --systemd"), "{text}");
        assert!(text.contains("--mode rootless"), "{text}");
    }
}
