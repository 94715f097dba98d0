//! Makes interfaces and removes them.
//!
//! Owns the mark that tells ours from others: the alias, which names the helper's socket. An
//! interface without it is never touched, and nothing stays of one that could not be finished.

use super::peers::Peers;
use super::tun;
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use wiremesh_netadmin::verbs::{Interface, Name, Prefix, Reason, Refusal, WireguardSettings};
use wiremesh_netlink::{interface, nftables, qdisc, wireguard};

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
    pub fn remove_left_behind(&self) -> io::Result<()> {
        let is_ours = |link: &interface::Link| link.alias == self.mark;
        let (ours, others): (Vec<_>, Vec<_>) = interface::links()?.into_iter().partition(is_ours);
        for link in &ours {
            interface::delete(link.index)?;
        }
        for name in nftables::interfaces()? {
            if others.iter().all(|link| link.name != name) {
                nftables::remove(&name)?;
            }
        }
        Ok(())
    }

    /// Makes an interface for a user, all of it or nothing: of the kernel's WireGuard, if there are
    /// settings for it, else a TUN device with its descriptor.
    pub fn make(
        &self,
        wanted: &Interface,
        wireguard: Option<&WireguardSettings>,
        uid: u32,
    ) -> Result<(Made, Option<OwnedFd>), Refusal> {
        look_for_overlap(wanted)?;
        let name = wanted.name.as_str();
        let device = match wireguard {
            Some(_) => wireguard::create(name).map(|()| None),
            None => tun::make(name).map(Some),
        };
        let device = device.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY | Errno::EXIST) => Reason::NameInUse.into(),
            Some(Errno::OPNOTSUPP) if wireguard.is_some() => Reason::NoWireguard.into(),
            _ => at("make the interface (of /dev/net/tun, or of WireGuard)")(error),
        })?;
        let index = interface::index_of(name).map_err(at("find the new interface"))?;
        if let Err(refusal) = self.configure(index, wanted, wireguard, uid) {
            // The interface goes before its table.
            if interface::delete(index).is_ok() {
                let _ = nftables::remove(name);
            }
            return Err(refusal);
        }
        let made = Made {
            name: wanted.name.clone(),
            index,
            peers: wireguard.map(|_| Peers::of(index)),
        };
        Ok((made, device))
    }

    /// The table is there before the interface can pass anything.
    fn configure(
        &self,
        index: u32,
        wanted: &Interface,
        wireguard: Option<&WireguardSettings>,
        uid: u32,
    ) -> Result<(), Refusal> {
        let addresses: Vec<_> = wanted.addresses.iter().map(|own| own.address).collect();
        let guard = nftables::Guard {
            interface: wanted.name.as_str(),
            addresses: &addresses,
            uid,
        };
        interface::set_alias(index, &self.mark).map_err(at("mark the interface"))?;
        nftables::set(&guard).map_err(at("load the filter table (nftables)"))?;
        if let Some(settings) = wireguard {
            wireguard::set(index, &settings.private_key, settings.listen_port)
                .map_err(at("set key and port"))?;
        }
        interface::set_limits(index, wanted.mtu_bytes.into(), 1000).map_err(at("set its MTU"))?;
        if let Some(rate) = wireguard.and_then(|settings| settings.rate_bits) {
            qdisc::set(index, rate).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Reason::NoShaper.into(),
                _ => at("limit its rate")(error),
            })?;
        }
        for own in &wanted.addresses {
            interface::add_address(index, own.address, own.bits).map_err(at("add an address"))?;
        }
        // The kernel takes WireGuard's UDP port now, not before.
        interface::set_up(index).map_err(|error| match wireguard {
            Some(settings) if error.kind() == io::ErrorKind::AddrInUse => {
                Refusal::with(Reason::PortInUse, settings.listen_port)
            }
            _ => at("set the interface up")(error),
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
    let there = interface::networks().map_err(at("read addresses and routes of the host"))?;
    for (address, bits) in there {
        let there = Prefix { address, bits };
        let mut all = wanted.addresses.iter().chain(&wanted.routes);
        if all.any(|new| new.overlaps(&there)) {
            return Err(Refusal::with(Reason::Overlap, there));
        }
    }
    Ok(())
}

/// What the kernel refused.
pub fn at(step: &str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::with(Reason::System, format_args!("cannot {step}: {error}"))
}
