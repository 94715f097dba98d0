//! What goes wrong where nodes run the control protocol: disks, clocks and operators.
//!
//! Owns the choice among these faults. Clocks are put right at healing, since records are valid by
//! the clock; a disk is lost only where the timestamps on it are not far ahead of the right time.

use crate::check::Check;
use crate::disk::Disk;
use crate::link::SECOND;
use crate::suites::random_policy;
use crate::world::Simulation;
use std::time::Duration;
use wiremesh_control::{Level, PeerSettings, Policy};

const HOUR: u64 = 3_600 * SECOND;
/// Timestamps further ahead of the right time than this would lock a host without its disk out.
const AHEAD_MAX: Duration = Duration::from_secs(61);

impl Simulation {
    pub(crate) fn suite_fault(&mut self, host: usize) -> Check {
        match self.random.below(18) {
            0 => self.restart(host),
            1 => self.crash_soon(host),
            2 => self.lose_disk(host, None),
            3 | 4 => self.back_up_or_restore(host),
            5 | 6 => self.set_clock(host),
            7 => self.suspend(host),
            8 | 9 => self.change_address(host),
            10..=12 => self.change_policy(host),
            13 => self.change_minimum(host),
            14 => self.lower_pin(host),
            15 => self.remove_peer(host),
            16 => self.reconnect(host),
            _ => self.change_link(),
        }
    }

    /// It crashes between two of the next events and datagrams that are taken from it.
    fn crash_soon(&mut self, host: usize) -> Check {
        let left = self.random.below(12) as u32;
        self.say(host, format_args!("crashes after {left} polls"));
        self.hosts[host].crash_in = Some(left);
        Ok(())
    }

    /// A crash with an empty disk, or an older one.
    fn lose_disk(&mut self, host: usize, older: Option<Disk>) -> Check {
        if self.hosts[host].stamped_ahead(self.time, AHEAD_MAX) {
            return self.restart(host);
        }
        self.say(
            host,
            format_args!("loses its disk, has a backup: {}", older.is_some()),
        );
        self.hosts[host].disk = older.unwrap_or_default();
        self.begin_anew(host, false)
    }

    fn back_up_or_restore(&mut self, host: usize) -> Check {
        match self.hosts[host].backup.clone() {
            Some(older) if self.random.permille(700) => self.lose_disk(host, Some(older)),
            _ => {
                self.hosts[host].backup = Some(self.hosts[host].disk.clone());
                Ok(())
            }
        }
    }

    /// The wall clock is set, by milliseconds to hours; mostly right again the next time.
    fn set_clock(&mut self, host: usize) -> Check {
        let h = &mut self.hosts[host];
        if h.wall_offset != h.wall_base && self.random.permille(700) {
            h.wall_offset = h.wall_base;
        } else {
            let size = [SECOND / 100, SECOND, 29 * SECOND, 60 * SECOND, 10 * HOUR];
            let size = size[self.random.index(size.len())];
            let by = self.random.below(size) as i64;
            h.wall_offset += if self.random.permille(400) { by } else { -by };
        }
        let off = h.wall_offset - h.wall_base;
        self.say(host, format_args!("has a clock that is off by {off} ns"));
        Ok(())
    }

    fn change_policy(&mut self, host: usize) -> Check {
        let Some(settings) = &self.hosts[host].suites else {
            return Ok(());
        };
        let has_static = settings.kem_seed.is_some();
        let progress = self.time * 1_000 / self.chaos_end.max(1);
        let policy = random_policy(&mut self.random, self.theme, has_static, progress);
        self.set_policy(host, policy)
    }

    pub(crate) fn set_policy(&mut self, host: usize, policy: Policy) -> Check {
        self.say(host, format_args!("sets {policy:?}"));
        let now = self.hosts[host].now(self.time);
        let done = self.hosts[host].node.set_policy(now, policy);
        if let (Ok(()), Some(settings)) = (done, &mut self.hosts[host].suites) {
            settings.policy = policy;
            self.policy_changes += 1;
            if let Some(watch) = &mut self.watch {
                watch.levels.on_policy(host, self.time, policy);
            }
        }
        self.drain(host)
    }

    /// The operator demands more of one peer, or less.
    fn change_minimum(&mut self, host: usize) -> Check {
        let Some(other) = self.some_partner(host) else {
            return Ok(());
        };
        let minimum = match self.random.below(3) {
            0 => None,
            _ => Some(Level::ALL[self.random.index(3)]),
        };
        let wanted = &self.hosts[host].wanted[&other];
        if !wanted.present || wanted.terms.stock || self.hosts[host].suites.is_none() {
            return Ok(());
        }
        self.say(host, format_args!("demands {minimum:?} of {other}"));
        let (now, id) = (self.hosts[host].now(self.time), self.hosts[other].id);
        let h = &mut self.hosts[host];
        if let Some(wanted) = h.wanted.get_mut(&other) {
            wanted.terms.minimum = minimum;
            if let Some(watch) = &mut self.watch {
                watch.set_terms((host, other), self.time, wanted.terms);
            }
        }
        let settings = PeerSettings {
            minimum,
            ..PeerSettings::default()
        };
        if let Some(key) = h.node.peer_by_id(&id) {
            h.node.set_peer_settings(now, key, settings);
        }
        self.drain(host)
    }

    /// The operator forgives a broken promise.
    fn lower_pin(&mut self, host: usize) -> Check {
        if let Some(other) = self.some_partner(host) {
            let (now, id) = (self.hosts[host].now(self.time), self.hosts[other].id);
            let lowered = self.hosts[host].node.lower_pin(now, &id, Level::Classical);
            self.say(host, format_args!("lowers its pin of {other}: {lowered}"));
        }
        self.drain(host)
    }
}
