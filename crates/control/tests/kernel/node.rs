//! One node: what carries its packets, and who decides about the preshared key.

use super::tunnel::{Make, Millis, Tunnel};
use crate::pair::{EPOCH_START, Seeded, ordered_keys};
use std::collections::BTreeMap;
use std::time::Duration;
use wiremesh_control::kernel::{KernelPeer, KernelView};
use wiremesh_control::machine::{Gate, Machine, PeerSettings, Slot};
use wiremesh_control::{Local, LocalConfig, Pin, Plane, Policy};
use wiremesh_wire::{Instant, Now, PresharedKey, UnixTime};

/// Who decides about the slot.
#[allow(clippy::large_enum_variant)]
pub enum Mind {
    Kernel(KernelPeer),
    Engine(Engine),
}

/// Our engine as the machine sees it: rules E1 to E3.
pub struct Engine {
    pub machine: Machine,
    pub primary: Option<Slot>,
    pub alternate: Option<Slot>,
    pub gate: Option<Gate>,
    pub handshake: bool,
    pub had_session: bool,
    pub had_open_session: bool,
}

pub struct Node {
    pub make: Make,
    pub policy: Policy,
    pub local: Local,
    pub mind: Mind,
    pub tunnel: Tunnel,
    pub pin: Pin,
    pub allowed: bool,
    pub poll_at: Millis,
    /// Off, until then.
    pub off_until: Option<Millis>,
    /// The program is dead until then; the kernel goes on.
    pub killed_until: Option<Millis>,
    /// Packets of the application that arrived here: number, when.
    pub arrived: BTreeMap<u64, Millis>,
    /// Packets of the application that were accepted for sending here.
    pub sent: BTreeMap<u64, Millis>,
    /// What the kernel tells, instead of what is.
    pub told: Option<KernelView>,
    /// How often the peer was removed and added again.
    pub replaced: u32,
}

impl Node {
    pub fn now(time: Millis) -> Now {
        let time = Duration::from_millis(time);
        Now::new(
            Instant::from_nanos(time.as_nanos() as u64),
            UnixTime::from_duration(Duration::from_secs(EPOCH_START) + time),
        )
    }

    pub fn new(
        make: Make,
        policy: Policy,
        at: usize,
        pin: Pin,
        time: Millis,
        rotate_after: Duration,
    ) -> Self {
        let keys = ordered_keys();
        let (secret, id) = &keys[at];
        let peer = keys[1 - at].1;
        let mut config = LocalConfig::new(secret.clone());
        // The static key is made whatever the policy is, so that it can be turned on later.
        config.policy = Policy {
            static_kem: true,
            ..Policy::default()
        };
        config.kem_seed = Some([at as u8 + 1; 64]);
        config.rotate_after = rotate_after;
        config.plane = match make {
            Make::Kernel => Plane::Kernel,
            Make::Engine => Plane::Engine,
        };
        let mut random = Seeded(time + at as u64 + 77);
        let unix = Self::now(time).unix;
        let mut local = Local::new(config, *id, unix, &mut random).expect("a consistent policy");
        local
            .set_policy(policy, unix, &mut random)
            .expect("a consistent policy");
        let settings = PeerSettings::default();
        let boot = PresharedKey::default();
        let mind = match make {
            Make::Kernel => {
                Mind::Kernel(KernelPeer::new(&local, peer, boot.clone(), pin, settings))
            }
            Make::Engine => Mind::Engine(Engine {
                machine: Machine::new(&local, peer, pin, settings),
                primary: None,
                alternate: None,
                gate: None,
                handshake: false,
                had_session: false,
                had_open_session: false,
            }),
        };
        Self {
            make,
            policy,
            local,
            mind,
            tunnel: Tunnel::new(make, boot),
            pin,
            allowed: false,
            // Their polls are at different moments.
            poll_at: time + 170 + 430 * at as u64,
            off_until: None,
            killed_until: None,
            arrived: BTreeMap::new(),
            sent: BTreeMap::new(),
            told: None,
            replaced: 0,
        }
    }

    /// The kernel drops what comes from an address that is not allowed; the engine knows the gate
    /// of the sender's session, which the sender keeps to.
    pub fn may_receive(&self) -> bool {
        self.make == Make::Engine || self.allowed
    }

    pub fn view(&self) -> KernelView {
        self.told.unwrap_or(KernelView {
            // As `wg show` tells it.
            last_handshake: self
                .tunnel
                .last_handshake
                .map(|at| Self::now(at / 1_000 * 1_000).unix),
            rx_bytes: self.tunnel.rx_bytes,
            tx_bytes: self.tunnel.tx_bytes,
        })
    }
}
