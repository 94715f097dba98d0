//! Makes interfaces and removes them.
//!
//! Owns the mark that tells ours from others: the alias, which names the helper's socket. An
//! interface without it is never touched, and nothing stays of one that could not be finished.

use super::peers::Peers;
use super::tun;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use wiremesh_netadmin::verbs::{Interface, Name, Prefix, Reason, Refusal};
use wiremesh_netlink::wireguard::{self, Settings};
use wiremesh_netlink::{interface, nftables};

/// An interface of ours.
pub struct Made {
    /// Its name.
    pub name: Name,
    /// Its index.
    pub index: u32,
    /// The peers of a WireGuard interface.
    pub peers: Option<Peers>,
}

/// The interfaces of one helper.
pub struct Interfaces {
    mark: String,
}

impl Interfaces {
    /// For the helper that listens there.
    pub fn new(socket: &Path) -> Result<Self, String> {
        let socket = std::path::absolute(socket).map_err(|error| error.to_string())?;
        // A path of a socket has 107 bytes at most, an alias 255.
        let mark = format!("wiremesh-netadmin {}", socket.display());
        Ok(Self { mark })
    }

    /// Removes what a helper at the same socket left, and tables whose interface is gone.
    pub fn remove_left_behind(&self) -> Result<(), String> {
        let cannot = |error| format!("cannot look for interfaces left behind: {error}");
        let (ours, others): (Vec<_>, Vec<_>) = interface::links()
            .map_err(cannot)?
            .into_iter()
            .partition(|link| link.alias == self.mark);
        for link in &ours {
            interface::delete(link.index)
                .map_err(|error| format!("cannot remove {}, left behind: {error}", link.name))?;
        }
        for name in nftables::interfaces().map_err(cannot)? {
            if others.iter().all(|link| link.name != name) {
                nftables::remove(&name)
                    .map_err(|error| format!("cannot remove the table of {name}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Makes an interface for a user, all of it or nothing: of the kernel's WireGuard, if there are
    /// settings for it, else a TUN device with its descriptor.
    pub fn make(
        &self,
        wanted: &Interface,
        wireguard: Option<&Settings<'_>>,
        uid: u32,
    ) -> Result<(Made, Option<OwnedFd>), Refusal> {
        look_for_overlap(wanted)?;
        let device = match wireguard {
            Some(_) => wireguard::create(wanted.name.as_str()).map(|()| None),
            None => tun::make(wanted.name.as_str()).map(Some),
        };
        let device = device.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY | Errno::EXIST) => Reason::NameInUse.into(),
            Some(Errno::OPNOTSUPP) if wireguard.is_some() => Reason::NoWireguard.into(),
            _ => at("make the interface")(error),
        })?;
        let index = index_of(wanted.name.as_str())?;
        let done = self.configure(index, wanted, wireguard, uid);
        if let Err(refusal) = done {
            // The interface goes before its table.
            if interface::delete(index).is_ok() {
                let _ = nftables::remove(wanted.name.as_str());
            }
            return Err(refusal);
        }
        let made = Made {
            name: wanted.name.clone(),
            index,
            peers: wireguard.map(|_| Peers::new(index)),
        };
        Ok((made, device))
    }

    /// The table is there before the interface can pass anything.
    fn configure(
        &self,
        index: u32,
        wanted: &Interface,
        wireguard: Option<&Settings<'_>>,
        uid: u32,
    ) -> Result<(), Refusal> {
        let v6 = wanted.addresses.iter().filter_map(|own| match own.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        });
        let guard = nftables::Guard {
            interface: wanted.name.as_str(),
            addresses: &v6.collect::<Vec<_>>(),
            uid,
        };
        interface::set_alias(index, &self.mark).map_err(at("mark the interface"))?;
        nftables::set(&guard).map_err(at("load the filter table (nftables)"))?;
        if let Some(settings) = wireguard {
            wireguard::set(index, settings).map_err(at("set key and port"))?;
        }
        interface::set_mtu(index, wanted.mtu_bytes.into()).map_err(at("set the MTU"))?;
        for own in &wanted.addresses {
            interface::add_address(index, own.address, own.bits).map_err(at("add an address"))?;
        }
        // The kernel takes WireGuard's UDP port now, not before.
        interface::set_up(index).map_err(|error| {
            match wireguard.and_then(|it| it.listen_port) {
                Some(port) if error.kind() == io::ErrorKind::AddrInUse => {
                    Refusal::with(Reason::PortInUse, port)
                }
                _ => at("set the interface up")(error),
            }
        })?;
        for route in &wanted.routes {
            interface::add_route(index, route.address, route.bits).map_err(at("add a route"))?;
        }
        Ok(())
    }

    /// Removes an interface, if it is still there and ours, and then its table.
    pub fn remove(&self, made: &Made) {
        let name = made.name.as_str();
        let is_ours = |link: &interface::Link| link.index == made.index && link.alias == self.mark;
        // An interface that cannot be removed keeps its table; the next start tries again.
        let Ok(links) = interface::links() else {
            return;
        };
        if links.iter().any(is_ours) && interface::delete(made.index).is_err() {
            return;
        }
        // A later interface of this name has made the table anew.
        if !links.iter().any(|link| link.name == name && !is_ours(link)) {
            let _ = nftables::remove(name);
        }
    }
}

fn look_for_overlap(wanted: &Interface) -> Result<(), Refusal> {
    let there = interface::networks()
        .map_err(at("read the interfaces, addresses and routes of the host"))?;
    let there = there
        .into_iter()
        .map(|(address, bits)| Prefix { address, bits });
    let all = || wanted.addresses.iter().chain(&wanted.routes);
    match there
        .into_iter()
        .find(|old| all().any(|new| new.overlaps(old)))
    {
        Some(old) => Err(Refusal::with(Reason::Overlap, old)),
        None => Ok(()),
    }
}

fn index_of(name: &str) -> Result<u32, Refusal> {
    let links =
        interface::links().map_err(at("read the interfaces, addresses and routes of the host"))?;
    let found = links.iter().find(|link| link.name == name);
    found
        .map(|link| link.index)
        .ok_or(Refusal::with(Reason::System, "the new interface is gone"))
}

/// What the kernel refused.
pub fn at(step: &str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::with(Reason::System, format_args!("cannot {step}: {error}"))
}
