//! Nodes of all kinds in one network.

use crate::modes::Mode;
use crate::modes::host::{HEALS, Host, PORT, START, hosts};
use crate::netns::unique_name;
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::process::Running;
use crate::programs;

/// A node that is not ours, its interface made by the kernel or by wireguard-go.
fn stock(host: &Host, peers: &[&Host], by_kernel: bool) -> Outcome<Option<Running>> {
    let name = unique_name();
    let running = if by_kernel {
        host.place
            .run(&["ip", "link", "add", &name, "type", "wireguard"])?;
        None
    } else {
        let program = programs::wireguard_go()?;
        let running = host.daemon(&program.to_string_lossy(), &["-f", &name])?;
        wait_for("wireguard-go", START, || {
            host.place
                .succeeds(10, &["wg", "show", &name])
                .then_some(())
        })?;
        Some(running)
    };
    let mut script = format!(
        "set -e\necho '{}' | wg set {name} listen-port {PORT} private-key /proc/self/fd/0\n\
         ip addr add {}/128 dev {name} nodad\nip link set {name} mtu 1420 up\n\
         ip route add fd77:6d00::/25 dev {name}\n",
        host.keys.secret,
        host.overlay()?
    );
    for peer in peers {
        script += &format!(
            "wg set {name} peer {} endpoint {}:{PORT} allowed-ips {}/128\n",
            peer.keys.public,
            peer.address,
            peer.overlay()?
        );
    }
    host.place.run(&["sh", "-c", &script])?;
    Ok(running)
}

/// Rootless, tun and wireguard-go, and with the kernel's WireGuard our kernel mode and plain `wg`:
/// each pings each, and ours have streams with each other.
pub fn all_reach_all(with_kernel: bool) -> Outcome {
    let own: &[Mode] = match with_kernel {
        true => &[Mode::Rootless, Mode::Tun, Mode::Kernel],
        false => &[Mode::Rootless, Mode::Tun],
    };
    // The kernel's last: without it, there is one less of each.
    let all = match with_kernel {
        true => Vec::from(hosts::<5>()?),
        false => Vec::from(hosts::<3>()?),
    };
    let mut all = all;
    let count = own.len();
    let (ours, theirs) = all.split_at_mut(count);
    for at in 0..count {
        for other in 0..count {
            if other != at {
                let [one, other] = two(ours, at, other)?;
                one.knows(other);
            }
        }
        for other in theirs.iter() {
            ours[at].knows_as(other, true, None);
        }
    }
    for (host, mode) in ours.iter_mut().zip(own) {
        host.start(*mode)?;
    }
    let mut running = Vec::new();
    for (at, host) in theirs.iter().enumerate() {
        let peers = ours.iter().chain(theirs.iter());
        let peers: Vec<&Host> = peers.filter(|peer| peer.address != host.address).collect();
        running.push(stock(host, &peers, at == 1)?);
    }
    let mut pairs = 0;
    for (at, from) in ours.iter().chain(theirs.iter()).enumerate() {
        for (to_at, to) in ours.iter().chain(theirs.iter()).enumerate() {
            if at == to_at {
                continue;
            }
            // A node without root has no host programs behind it: it pings by itself.
            let (_, took) = wait_for("a ping", HEALS, || {
                let mut answered = at < count && from.node_pings(to, 5).is_ok();
                answered |= at != 0 && from.host_pings(to).unwrap_or(false);
                answered.then_some(())
            })
            .or_else(|_| fail(format!("{at} does not reach {to_at}: {}", from.log())))?;
            if at != 0 {
                ensure(
                    from.host_pings(to)?,
                    format!("the host {at} does not reach {to_at}"),
                )?;
            }
            if at < count && to_at < count {
                wait_for("a stream", HEALS, || from.streams(to, 100_000, 10).ok())
                    .or_else(|_| fail(format!("no stream from {at} to {to_at}")))?;
            }
            pairs += 1;
            println!("    all_reach_all: {at} to {to_at} after {took:?}");
        }
    }
    ensure(pairs == all.len() * (all.len() - 1), "pairs were left out")
}

/// Two of some hosts, the first to be changed.
fn two(hosts: &mut [Host], one: usize, other: usize) -> Outcome<[&mut Host; 2]> {
    hosts
        .get_disjoint_mut([one, other])
        .or_else(|_| fail("there are two"))
}
