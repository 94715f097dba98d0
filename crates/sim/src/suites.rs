//! The control protocol in a run: who takes part, under which policies, and what is checked.
//!
//! Owns the random policies and the way from the nodes to the [`Watch`]. A run without the control
//! protocol never comes here.

use crate::check::Check;
use crate::disk::Disk;
use crate::host::{SuiteSettings, make_node, now_at, preshared_key};
use crate::levels::{Common, Terms};
use crate::link::SECOND;
use crate::random::Random;
use crate::watch::{Person, Watch};
use crate::world::Simulation;
use std::time::Duration;
use wiremesh_control::{Level, Policy, Stage};
use wiremesh_core::Admission;

/// How a network is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Each node allows L1 and may come to L2.
    Gentle,
    /// Each node demands L2, as by default.
    Default,
    /// Each node goes from old to new, no two of them more than a stage apart.
    Upgrade,
    /// Each operator as he likes.
    Anything,
}

/// A policy that a node may have in a network of this theme, where the upgrade has come so far, in
/// a thousand.
pub(crate) fn random_policy(
    random: &mut Random,
    theme: Theme,
    static_kem: bool,
    progress: u64,
) -> Policy {
    use Level::{Classical, PostQuantum, PostQuantumAuthenticated};
    use Stage::{Both, BothPreferOld, NewOnly, OldOnly};
    let of = |random: &mut Random, stages: &[Stage]| stages[random.index(stages.len())];
    let (stage, minimum) = match theme {
        Theme::Gentle => (of(random, &[OldOnly, Both, Both, BothPreferOld]), Classical),
        Theme::Default => (of(random, &[Both, Both, Both, NewOnly]), PostQuantum),
        Theme::Upgrade if progress < 500 => (of(random, &[OldOnly, Both, Both]), Classical),
        Theme::Upgrade => (of(random, &[Both, NewOnly]), Classical),
        Theme::Anything => {
            let levels = [Classical, Classical, PostQuantum, PostQuantumAuthenticated];
            let stage = of(random, &[OldOnly, Both, Both, BothPreferOld, NewOnly]);
            (stage, levels[random.index(levels.len())])
        }
    };
    let policy = Policy {
        minimum,
        stage,
        static_kem: static_kem && random.permille(850),
    };
    match policy.suites() {
        Ok(_) => policy,
        Err(_) => Policy::at(stage),
    }
}

impl Simulation {
    /// Turns a network into one of the control protocol, before anything has happened.
    pub(crate) fn add_suites(&mut self) {
        let random = &mut self.random;
        self.theme = match random.below(4) {
            0 => Theme::Gentle,
            1 => Theme::Default,
            2 => Theme::Upgrade,
            _ => Theme::Anything,
        };
        let rotate_after = match random.below(3) {
            0 => Duration::from_secs(random.between(5, 60)),
            1 => Duration::from_secs(random.between(60, 240)),
            _ => Duration::from_secs(900),
        };
        let statics = random.permille(450);
        for host in &mut self.hosts {
            // Records hold for hours, so clocks that are years apart are for their operators.
            host.wall_offset = random.below(6 * SECOND) as i64 - 3 * SECOND as i64;
            host.wall_base = host.wall_offset;
            let mut kem_seed = [0; 64];
            random.fill(&mut kem_seed);
            let has_static = statics && random.permille(900);
            let policy = random_policy(random, self.theme, has_static, 0);
            host.suites = random.permille(880).then_some(SuiteSettings {
                policy,
                kem_seed: policy.static_kem.then_some(kem_seed),
                rotate_after,
            });
            if let Admission::AllowAll { provisional_max } = host.admission
                && host.suites.is_some()
                && random.permille(500)
            {
                let pending_max = provisional_max;
                host.admission = Admission::Proof { pending_max };
            }
            let now = now_at(0, host.instant_offset, host.wall_offset);
            let kept = (&Disk::default(), host.suites.as_ref());
            let settings = (host.admission, host.limits);
            host.node = make_node(host.secret, settings, kept, host.seed, now);
        }
        self.set_terms();
        let people: Vec<Person> = self
            .hosts
            .iter()
            .map(|host| Person {
                id: host.id,
                secret: host.secret,
                seed: host.seed,
                policy: host.suites.as_ref().map(|suites| suites.policy),
            })
            .collect();
        let mut watch = Watch::new(&people);
        for (number, host) in self.hosts.iter().enumerate() {
            for (other, wanted) in &host.wanted {
                let pair = (number, *other);
                watch.set_terms(pair, 0, wanted.terms);
                watch.set_boot_key(pair, preshared_key(number, *other, wanted.psk_epoch));
            }
        }
        self.watch = Some(watch);
    }

    /// The operators write down whom they know as stock WireGuard, whom they want to be strict
    /// with, and the boot key of each pair.
    fn set_terms(&mut self) {
        let plain: Vec<bool> = self.hosts.iter().map(|h| h.suites.is_none()).collect();
        for number in 0..self.hosts.len() {
            let others: Vec<usize> = self.hosts[number].wanted.keys().copied().collect();
            for other in others {
                let theirs = self.hosts[other].wanted.get(&number);
                let theirs = theirs.map_or((0, false), |w| (w.psk_epoch, w.stranger));
                let strict = match self.theme {
                    Theme::Anything => self.random.permille(150),
                    _ => false,
                };
                let named = self.random.permille(800);
                let minimum = Level::ALL[self.random.index(3)];
                let wanted = self.hosts[number].wanted.get_mut(&other);
                let wanted = wanted.expect("it was among them");
                let stranger = wanted.stranger || theirs.1;
                wanted.psk_epoch = match stranger {
                    true => 0,
                    false => wanted.psk_epoch.max(theirs.0),
                };
                if wanted.present && !plain[number] {
                    wanted.terms = Terms {
                        stock: plain[other] && named,
                        minimum: strict.then_some(minimum),
                    };
                }
            }
        }
    }

    /// The watch sees what the node drew since the last step.
    pub(crate) fn watch_step(&mut self, host: usize) {
        if let Some(watch) = &mut self.watch {
            let h = &self.hosts[host];
            watch.on_step(host, h.now(self.time), h.node.random_draws());
        }
    }

    pub(crate) fn watch_sent(&mut self, host: usize, datagram: &[u8]) -> Check {
        self.watch_step(host);
        if let Some(watch) = &mut self.watch {
            watch.on_sent(host, self.time, datagram, &self.hosts[host].disk)?;
        }
        Ok(())
    }

    /// What a pair can agree on by now.
    pub(crate) fn common(&self, (host, other): (usize, usize)) -> Option<Common> {
        let disks = [&self.hosts[host].disk, &self.hosts[other].disk];
        Some(self.watch.as_ref()?.common((host, other), disks))
    }

    /// The level of the session that carries data.
    pub(crate) fn level_of(&self, (host, other): (usize, usize)) -> Option<Level> {
        let h = &self.hosts[host];
        let key = h.node.peer_by_id(&self.hosts[other].id)?;
        h.node.security(h.now(self.time), key)?.level
    }

    pub(crate) fn check_levels(&mut self, pairs: &[(usize, usize)]) -> Check {
        for pair in pairs {
            let (common, level) = (self.common(*pair), self.level_of(*pair));
            if let (Some(common), Some(watch)) = (common, &mut self.watch) {
                watch.on_level(self.time, *pair, common, level)?;
            }
        }
        Ok(())
    }

    /// By level, the pairs that have one in common; and those that have none.
    pub(crate) fn count_levels(&self) -> ([u64; 3], u64) {
        let (mut levels, mut closed) = ([0; 3], 0);
        for pair in self.pairs() {
            match self.common(pair) {
                Some(Common::Level(level)) => levels[usize::from(level.number()) - 1] += 1,
                Some(Common::Nothing) => closed += 1,
                None => {}
            }
        }
        (levels, closed)
    }
}
