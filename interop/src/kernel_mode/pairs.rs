//! Pairs with a node in kernel mode in them, in both roles by the order of the keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::arena::{Arena, OUR_V4, THEIR_V4};
use crate::kernel_mode::node::{self, KernelNode, Settings, Spot};
use crate::keys::{KeyPair, key_bytes, overlay_address};
use crate::node::{Form, NodeSettings, Ours};
use crate::outcome::{Outcome, ensure, wait_for};
use crate::place::Place;
use crate::programs;
use crate::stock::Make;

/// A node in kernel mode is found to have reached its level within this, in the emulated guest.
pub const SOON: Duration = Duration::from_secs(90);

/// Two new key pairs, that of A first: the smaller public key, compared as raw bytes.
pub fn ordered_keys() -> Outcome<[KeyPair; 2]> {
    let (one, other) = (KeyPair::generate()?, KeyPair::generate()?);
    let ordered = key_bytes(&one.public)? < key_bytes(&other.public)?;
    Ok(if ordered { [one, other] } else { [other, one] })
}

/// A node in kernel mode, and our engine.
#[derive(Debug)]
pub struct Mixed {
    /// The node in kernel mode.
    pub kernel: KernelNode,
    /// Our engine.
    pub engine: Ours,
}

impl Mixed {
    /// Prepares the kernel's interface and starts the engine. Both know where the other is.
    pub fn prepare(arena: &Arena, kernel_is_a: bool, rotate_after: Option<u32>) -> Outcome<Self> {
        let number = arena.next_pair();
        let [a, b] = ordered_keys()?;
        let (kernel, engine) = if kernel_is_a { (a, b) } else { (b, a) };
        let (engine_port, kernel_port) = (40_000 + u16::from(number), 50_000 + u16::from(number));
        let inner = |keys: &KeyPair, host: u8| -> Outcome<_> {
            let v4 = Ipv4Addr::new(10, 77, number, host);
            Ok((overlay_address(&keys.public)?, v4))
        };
        let (engine_inner, kernel_inner) = (inner(&engine, 1)?, inner(&kernel, 2)?);
        let at =
            |ip: &str, port: u16| -> Outcome<SocketAddr> { Ok(SocketAddr::new(ip.parse()?, port)) };
        let settings = Settings {
            keys: kernel.clone(),
            listen_port: kernel_port,
            peer: engine.public.clone(),
            endpoint: Some(at(OUR_V4, engine_port)?),
            addresses: kernel_inner,
            peer_addresses: engine_inner,
            rotate_after: rotate_after.unwrap_or(900),
        };
        let spot = Spot {
            place: arena.theirs.clone(),
            inside: None,
        };
        let program = node::program(arena.helpers.load);
        let node = KernelNode::prepare(arena.make, spot, settings, program)?;
        let settings = NodeSettings {
            keys: engine,
            listen_port: engine_port,
            peer: kernel.public,
            psk: None,
            endpoint: Some(at(THEIR_V4, kernel_port)?),
            addresses: engine_inner,
            peer_addresses: kernel_inner,
            always_under_load: false,
            wg_conf: false,
            stock: false,
            rotate_after,
        };
        // Only the embedding program has the setting.
        let form = match rotate_after {
            None => Form::Command(programs::wiremesh()?),
            Some(_) => Form::Embedded(arena.helpers.embedded.into()),
        };
        Ok(Self {
            kernel: node,
            engine: Ours::wiremesh(form, arena.ours.clone(), settings)?,
        })
    }

    /// The same with the node in kernel mode running, and both up.
    pub fn up(arena: &Arena, kernel_is_a: bool, rotate_after: Option<u32>) -> Outcome<Self> {
        let pair = Self::prepare(arena, kernel_is_a, rotate_after)?;
        pair.kernel.start()?;
        pair.wait_until_up(0)?;
        Ok(pair)
    }

    /// Waits until both say that the level is reached, under a key after `epoch`.
    pub fn wait_until_up(&self, epoch: u32) -> Outcome<Duration> {
        let up = || (self.is_up() && self.kernel.epoch() > epoch).then_some(());
        match wait_for("both to reach their level", SOON, up) {
            Ok(((), took)) => Ok(took),
            Err(_) => crate::outcome::fail(format!("not up after {SOON:?}\n{}", self.describe())),
        }
    }

    /// Both say that the level is reached.
    pub fn is_up(&self) -> bool {
        let level = self.engine.peer_status().ok();
        let level = level.and_then(|status| Some(status["level"].as_str()?.to_owned()));
        level.as_deref() == Some("L2") && self.kernel.is_open()
    }

    /// Our ping to both addresses of the kernel's node; whether both were answered.
    pub fn engine_pings(&self, seconds: u32) -> Outcome<bool> {
        let (v6, v4) = self.kernel.settings().addresses;
        let mut answered = 0;
        for to in [IpAddr::V6(v6), IpAddr::V4(v4)] {
            answered += u32::from(self.engine.ping(to, seconds)?);
        }
        ensure(answered != 1, "one address answers and the other does not")?;
        Ok(answered == 2)
    }

    /// For messages.
    pub fn describe(&self) -> String {
        format!(
            "kernel: {:?}\n{}\nengine: {}",
            self.kernel.shown(),
            self.kernel.log(),
            self.engine.status_text()
        )
    }
}

/// Two nodes in kernel mode, each in a namespace of its own in the place of the stock programs.
#[derive(Debug)]
pub struct Kernels {
    /// A and B.
    pub nodes: [KernelNode; 2],
    link: Link,
}

/// Two namespaces with a cable, in a guest.
#[derive(Debug)]
struct Link {
    place: Place,
    names: [String; 2],
}

impl Link {
    fn lay(place: &Place, number: u8) -> Outcome<Self> {
        let names = [0, 1].map(|end| format!("wmk{number}x{end}"));
        let link = Self {
            place: place.clone(),
            names,
        };
        let [a, b] = &link.names;
        let script = "
            set -e
            modprobe -q veth || true
            ip netns add $1; ip netns add $2
            ip link add $1 type veth peer name $2
            for end in 1 2; do
              eval name=\\$$end
              ip link set $name netns $name
              ip -n $name link set $name name link0
              ip -n $name link set lo up
              ip -n $name addr add 10.96.0.$end/24 dev link0
              ip -n $name link set link0 up
            done";
        place.run(&["sh", "-c", script, "sh", a, b])?;
        Ok(link)
    }

    fn spot(&self, end: usize) -> Spot {
        Spot {
            place: self.place.clone(),
            inside: Some(self.names[end].clone()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = self.place.run(&["ip", "netns", "del", name]);
        }
    }
}

impl Kernels {
    /// Prepares both interfaces; both know where the other is. Only in a guest.
    pub fn prepare(arena: &Arena, rotate_after: u32) -> Outcome<Self> {
        if arena.make != Make::Kernel {
            return crate::outcome::skip("two namespaces in one place are made in the guest only");
        }
        let number = arena.next_pair();
        let link = Link::lay(&arena.theirs, number)?;
        let keys = ordered_keys()?;
        let inner = |end: usize| -> Outcome<_> {
            let v4 = Ipv4Addr::new(10, 77, number, end as u8 + 1);
            Ok((overlay_address(&keys[end].public)?, v4))
        };
        let node = |end: usize| {
            let settings = Settings {
                keys: keys[end].clone(),
                listen_port: 51_820,
                peer: keys[1 - end].public.clone(),
                endpoint: Some(SocketAddr::new(
                    Ipv4Addr::new(10, 96, 0, 2 - end as u8).into(),
                    51_820,
                )),
                addresses: inner(end)?,
                peer_addresses: inner(1 - end)?,
                rotate_after,
            };
            let program = node::program(arena.helpers.load);
            KernelNode::prepare(arena.make, link.spot(end), settings, program)
        };
        Ok(Self {
            nodes: [node(0)?, node(1)?],
            link,
        })
    }

    /// The same with both running and up.
    pub fn up(arena: &Arena, rotate_after: u32) -> Outcome<Self> {
        let pair = Self::prepare(arena, rotate_after)?;
        for node in &pair.nodes {
            node.start()?;
        }
        pair.wait_until_up(0)?;
        Ok(pair)
    }

    /// Waits until both say that they are open, under one key after `epoch`.
    pub fn wait_until_up(&self, epoch: u32) -> Outcome<Duration> {
        let up = || {
            let open = self.nodes.iter().all(KernelNode::is_open);
            let epochs = self.nodes.each_ref().map(KernelNode::epoch);
            (open && epochs[0] == epochs[1] && epochs[0] > epoch).then_some(())
        };
        match wait_for("both to open", SOON, up) {
            Ok(((), took)) => Ok(took),
            Err(_) => crate::outcome::fail(format!("not up after {SOON:?}\n{}", self.describe())),
        }
    }

    /// For messages.
    pub fn describe(&self) -> String {
        let [a, b] = &self.nodes;
        format!(
            "A: {:?}\n{}\nB: {:?}\n{}\nin {:?}",
            a.shown(),
            a.log(),
            b.shown(),
            b.log(),
            self.link.names
        )
    }
}
