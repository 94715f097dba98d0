//! One peer of a node in kernel mode: what the kernel has been told of it.
//!
//! Owns the tasks that change it. What is agreed with it is in [`KernelPeer`]; a stock peer has none.

use super::shared::Shared;
use super::watch::Watch;
use super::{KernelPeerChange, KernelTask};
use crate::allowed_ips::Overlap;
use crate::config::PeerConfig;
use crate::peer::PeerKey;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;
use wiremesh_control::PeerSettings;
use wiremesh_control::kernel::KernelPeer;
use wiremesh_noise::constants::REKEY_TIMEOUT;
use wiremesh_wire::{Instant, IpNet, NodeId, Now, PresharedKey, address};

/// So that a peer that is not stock handshakes without traffic.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// The first figures after a peer was added are read this soon.
const FIRST_READING: Duration = Duration::from_millis(100);
/// How long one of several places is tried. The kernel makes an initiation every 5 s.
const CANDIDATE_TIME: Duration = Duration::from_secs(6);
/// Most places of a peer.
const CANDIDATES_MAX: usize = 24;

/// What of the figures that are read just now is older than what the kernel has been told.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stale {
    #[default]
    Nothing,
    Endpoint,
    /// The peer was added since, or removed and added anew.
    All,
}

/// See the module.
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) node_id: NodeId,
    pub(super) overlay: Ipv6Addr,
    pub(super) control: Ipv6Addr,
    pub(super) allowed_ips: Box<[IpNet]>,
    /// The operator's.
    pub(super) keepalive: Option<Duration>,
    pub(super) endpoint: Option<SocketAddr>,
    /// Further places, the endpoint of the time when they were set among them.
    candidates: Box<[SocketAddr]>,
    next_candidate_at: Option<Instant>,
    nudged_at: Option<Instant>,
    pub(super) settings: PeerSettings,
    /// The operator named it as stock WireGuard.
    pub(super) stock: bool,
    /// The boot key where there is no agreement, which has its own.
    preshared_key: PresharedKey,
    pub(super) agreement: Option<Box<KernelPeer>>,
    pub(super) watch: Watch,
    pub(super) stale: Stale,
    /// The kernel may have something else than it was told: closed until it is added anew.
    pub(super) broken: bool,
    /// The last figures that it was among.
    pub(super) round: u64,
    /// A session was there on which data passes.
    pub(super) was_ready: bool,
}

impl Peer {
    pub(super) fn add(
        shared: &mut Shared,
        now: Now,
        key: PeerKey,
        config: PeerConfig,
    ) -> Result<Self, Overlap> {
        let overlay = address::overlay_address(&config.node_id);
        let control = address::control_address(&config.node_id);
        let own = shared.prefixes.own(overlay, control);
        let wanted = own.iter().chain(&config.allowed_ips);
        shared.prefixes.insert(key, wanted)?;
        let mut peer = Self {
            key,
            node_id: config.node_id,
            overlay,
            control,
            allowed_ips: config.allowed_ips.into_boxed_slice(),
            keepalive: config.persistent_keepalive.filter(|every| !every.is_zero()),
            endpoint: config.endpoint,
            candidates: Box::default(),
            next_candidate_at: None,
            nudged_at: None,
            settings: config.security,
            stock: config.stock,
            preshared_key: config.preshared_key.clone(),
            agreement: None,
            watch: Watch::default(),
            stale: Stale::Nothing,
            broken: false,
            round: 0,
            was_ready: false,
        };
        if let Some(agreeing) = shared.agreeing.as_ref().filter(|_| !config.stock) {
            peer.agreement = Some(Box::new(KernelPeer::new(
                &agreeing.local,
                config.node_id,
                config.preshared_key.clone(),
                agreeing.pin(&config.node_id),
                peer.settings.clone(),
            )));
        }
        peer.replace(shared, config.preshared_key);
        peer.run(shared, now, |agreement, local, random| {
            agreement.start(local, now, random);
        });
        shared.left.remove(&config.node_id);
        shared.read_by(now.instant + FIRST_READING);
        Ok(peer)
    }

    pub(super) fn remove(self, shared: &mut Shared) {
        let own = shared.prefixes.own(self.overlay, self.control);
        let nets = own.iter().chain(self.allowed_ips.iter());
        shared.prefixes.take(self.key, nets);
        shared.remove_peer(self.node_id);
    }

    /// Whether data may pass as far as the agreement goes.
    pub(super) fn is_open(&self) -> bool {
        self.agreement.as_ref().is_none_or(|peer| peer.is_open())
    }

    /// What the kernel is to have: with the gate closed, no more than the control address. Nothing
    /// of a peer without an agreement comes to the control protocol.
    fn nets(&self, shared: &Shared, open: bool) -> Vec<IpNet> {
        let control = IpNet::from(self.control);
        let agrees = self.agreement.is_some();
        if agrees && (!open || self.broken) {
            return [control].to_vec();
        }
        let mut nets = shared.prefixes.own(self.overlay, self.control);
        nets.retain(|net| agrees || *net != control);
        nets.extend(shared.prefixes.of(self.key, &self.allowed_ips));
        nets.sort_unstable();
        nets.dedup();
        nets
    }

    /// How often the kernel is to send a keepalive.
    fn kernel_keepalive(&self) -> Option<Duration> {
        let own = self.agreement.as_ref().map(|_| KEEPALIVE);
        self.keepalive.or(own)
    }

    fn set(&self, shared: &mut Shared, change: impl FnOnce(&mut KernelPeerChange)) {
        let mut task = KernelPeerChange {
            node_id: self.node_id,
            replace: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            allowed_ips: None,
        };
        change(&mut task);
        shared.tasks.push_back(KernelTask::SetPeer(task));
    }

    /// Adds the peer, anew if it is there: without sessions, and with the gate closed.
    pub(super) fn replace(&mut self, shared: &mut Shared, psk: PresharedKey) {
        self.watch.restart();
        if shared.is_reading() {
            self.stale = Stale::All;
        }
        let nets = self.nets(shared, false);
        self.set(shared, |task| {
            task.replace = true;
            task.preshared_key = Some(psk);
            task.endpoint = self.endpoint;
            task.persistent_keepalive = self.kernel_keepalive();
            task.allowed_ips = Some(nets);
        });
    }

    /// Adds a peer anew that is not in the kernel as it was left there.
    pub(super) fn rebuild(&mut self, shared: &mut Shared, now: Now) {
        self.broken = false;
        match self.agreement {
            Some(_) => self.run(shared, now, |agreement, local, random| {
                agreement.reset(local, now, random);
            }),
            None => {
                let psk = self.preshared_key.clone();
                self.replace(shared, psk);
                self.settle(shared, now.instant);
            }
        }
    }

    pub(super) fn set_psk(&self, shared: &mut Shared, psk: PresharedKey) {
        self.set(shared, |task| task.preshared_key = Some(psk));
    }

    pub(super) fn allow(&self, shared: &mut Shared, open: bool) {
        let nets = self.nets(shared, open);
        self.set(shared, |task| task.allowed_ips = Some(nets));
    }

    pub(super) fn set_endpoint(&mut self, shared: &mut Shared, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
        if shared.is_reading() {
            self.stale = self.stale.max(Stale::Endpoint);
        }
        self.set(shared, |task| task.endpoint = Some(endpoint));
    }

    pub(super) fn set_candidates(&mut self, shared: &mut Shared, candidates: &[SocketAddr]) {
        let candidates = &candidates[..candidates.len().min(CANDIDATES_MAX)];
        match (self.endpoint, candidates.first()) {
            (None, Some(first)) => self.set_endpoint(shared, *first),
            (None, None) => return,
            (Some(_), _) => {}
        }
        let known = self.endpoint.filter(|known| !candidates.contains(known));
        self.candidates = known.iter().chain(candidates).copied().collect();
        self.next_candidate_at = None;
    }

    /// While nobody answers, goes on to the next place in time.
    pub(super) fn try_candidates(&mut self, shared: &mut Shared, now: Instant) {
        let answered = self.watch.is_live(now) && !self.watch.is_silent(now);
        if answered || self.candidates.len() < 2 {
            self.next_candidate_at = None;
            return;
        }
        let due = *self.next_candidate_at.get_or_insert(now + CANDIDATE_TIME);
        if now < due {
            return;
        }
        self.next_candidate_at = Some(now + CANDIDATE_TIME);
        let mut places = self.candidates.iter();
        let here = places.position(|place| Some(*place) == self.endpoint);
        let next = here.map_or(0, |here| (here + 1) % self.candidates.len());
        self.set_endpoint(shared, self.candidates[next]);
        self.nudge(shared, now);
    }

    /// Has the kernel send something at once, for which it needs a session: it does when a
    /// keepalive is set where there was none. Not again before it could make another initiation.
    fn nudge(&mut self, shared: &mut Shared, now: Instant) {
        let just_now = |at: Instant| now.saturating_since(at) < REKEY_TIMEOUT;
        if self.nudged_at.is_some_and(just_now) {
            return;
        }
        self.nudged_at = Some(now);
        let every = self.kernel_keepalive();
        let steps = [Some(Duration::ZERO), every.or(Some(KEEPALIVE))];
        let after = every.is_none().then_some(Duration::ZERO);
        for step in steps.into_iter().flatten().chain(after) {
            self.set(shared, |task| task.persistent_keepalive = Some(step));
        }
    }

    pub(super) fn set_keepalive(&mut self, shared: &mut Shared, every: Option<Duration>) {
        self.keepalive = every.filter(|every| !every.is_zero());
        let every = self.kernel_keepalive().unwrap_or_default();
        self.set(shared, |task| task.persistent_keepalive = Some(every));
    }

    pub(super) fn set_allowed_ips(
        &mut self,
        shared: &mut Shared,
        nets: &[IpNet],
    ) -> Result<(), Overlap> {
        let own = shared.prefixes.own(self.overlay, self.control);
        let prefixes = &mut shared.prefixes;
        self.allowed_ips = prefixes.replace(self.key, &own, &self.allowed_ips, nets)?;
        if self.is_open() {
            self.allow(shared, true);
        }
        Ok(())
    }

    pub(super) fn set_preshared_key(&mut self, shared: &mut Shared, psk: PresharedKey) {
        self.preshared_key = psk.clone();
        match &mut self.agreement {
            Some(agreement) => {
                agreement.set_boot(psk);
                self.carry_out(shared);
            }
            None => self.set_psk(shared, psk),
        }
    }

    pub(super) fn connect(&mut self, shared: &mut Shared, now: Now) {
        if !self.watch.is_live(now.instant) {
            self.watch.want(now.instant);
            self.nudge(shared, now.instant);
        }
    }
}
