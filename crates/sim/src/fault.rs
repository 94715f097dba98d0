//! What goes wrong in a run, and how it is put right again.
//!
//! Owns the choice of faults, the healing, and the checks after it.

use crate::check::Check;
use crate::disk::Disk;
use crate::host::{Host, Sleep, preshared_key};
use crate::levels::Common;
use crate::link::{Link, Profile, SECOND};
use crate::options::{Mutation, Rule};
use crate::setup::address_of;
use crate::trace::Note;
use crate::world::{Action, Simulation};
use std::net::SocketAddr;
use wiremesh_core::PeerState;

const HOUR: u64 = 3_600 * SECOND;

impl Simulation {
    pub(crate) fn on_fault(&mut self) -> Check {
        if self.time >= self.chaos_end {
            return Ok(());
        }
        let gap = self.random.between(SECOND, 2 * self.fault_gap);
        self.after(gap, Action::Fault);
        self.faults += 1;
        let host = self.random.index(self.hosts.len());
        if self.hosts[host].sleep.is_some() {
            return self.change_link();
        }
        if self.options.control {
            return self.suite_fault(host);
        }
        match self.random.below(12) {
            0 => self.restart(host),
            1 => self.install_anew(host),
            2 => self.wall_jump(host),
            3 => self.instant_jump(host),
            4 => self.suspend(host),
            5 | 6 => self.change_address(host),
            7 => self.change_psk(host),
            8 => self.remove_peer(host),
            9 => self.reconnect(host),
            _ => self.change_link(),
        }
    }

    pub(crate) fn say(&mut self, host: usize, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.time, host, Note::Said(what));
    }

    pub(crate) fn restart(&mut self, host: usize) -> Check {
        self.say(host, format_args!("restarts"));
        self.begin_anew(host, true)
    }

    fn install_anew(&mut self, host: usize) -> Check {
        // Without a floor the clock has to be ahead of all that was sent, as after a fresh
        // installation with the old key; else the peers rightly refuse.
        self.say(host, format_args!("is installed anew"));
        self.hosts[host].step_wall_ahead(70 * SECOND);
        self.hosts[host].disk = Disk::default();
        self.begin_anew(host, false)
    }

    /// Starts a node with what is on its disk; with `kept` that is all that it wrote.
    pub(crate) fn begin_anew(&mut self, host: usize, kept: bool) -> Check {
        let time = self.time;
        self.hosts[host].restart(time, &mut self.random);
        self.checker.on_restart(host, kept);
        if let Some(watch) = &mut self.watch {
            watch.on_restart(host, time, self.hosts[host].seed);
        }
        self.add_wanted_peers(host);
        self.drain(host)
    }

    /// The wall clock is set, forward or back, by milliseconds to hours.
    fn wall_jump(&mut self, host: usize) -> Check {
        let size = [SECOND / 100, SECOND, 29 * SECOND, 60 * SECOND, 10 * HOUR];
        let size = size[self.random.index(size.len())];
        let by = self.random.below(size) as i64;
        let by = if self.random.permille(500) { by } else { -by };
        self.say(host, format_args!("sets its clock by {by} ns"));
        self.hosts[host].step_wall(by);
        Ok(())
    }

    /// Both clocks went on while nothing ran.
    fn instant_jump(&mut self, host: usize) -> Check {
        let by = self.random.below(5 * HOUR);
        self.say(host, format_args!("was frozen for {by} ns"));
        self.hosts[host].instant_offset += by;
        self.hosts[host].step_wall(by as i64);
        Ok(())
    }

    /// The machine sleeps. Its monotonic clock goes on, or stops as on some systems.
    pub(crate) fn suspend(&mut self, host: usize) -> Check {
        let time = self.random.between(SECOND, 200 * SECOND);
        let stops = self.random.permille(500);
        self.say(
            host,
            format_args!("sleeps for {time} ns, its clock stops: {stops}"),
        );
        let now = self.time;
        let sleep = Sleep {
            since: now,
            until: now + time,
            clock_stops: stops,
        };
        self.hosts[host].sleep = Some(sleep);
        self.after(time, Action::Wake(host));
        Ok(())
    }

    pub(crate) fn wake(&mut self, host: usize) -> Check {
        if self.hosts[host]
            .sleep
            .as_ref()
            .is_some_and(|sleep| self.time >= sleep.until)
        {
            self.hosts[host].wake(self.time);
            self.say(host, format_args!("wakes"));
        }
        Ok(())
    }

    /// A NAT gives a new port or a new address. The host does not notice, or is told.
    pub(crate) fn change_address(&mut self, host: usize) -> Check {
        if self.hosts[host].fixed {
            return Ok(());
        }
        let ip = [198, 51, 100 + self.random.below(2) as u8, host as u8 + 1];
        let port = self.random.between(1_024, 65_535) as u16;
        self.hosts[host].address = SocketAddr::from((ip, port));
        let noticed = self.random.permille(300);
        self.say(
            host,
            format_args!("is at {ip:?}:{port} now, noticed: {noticed}"),
        );
        if noticed {
            let now = self.hosts[host].now(self.time);
            self.hosts[host].node.on_local_address_changed(now);
        }
        self.drain(host)
    }

    /// Both sides get a new preshared key, not at the same time.
    fn change_psk(&mut self, host: usize) -> Check {
        let Some(other) = self.some_partner(host) else {
            return Ok(());
        };
        let strange = |a: usize, b: usize| self.hosts[a].wanted.get(&b).is_none_or(|w| w.stranger);
        if strange(host, other) || strange(other, host) {
            return Ok(());
        }
        let epoch = self.hosts[host].wanted[&other].psk_epoch;
        let epoch = 1 + epoch.max(self.hosts[other].wanted[&host].psk_epoch);
        for (host, other) in [(host, other), (other, host)] {
            let delay = self.random.below(30 * SECOND);
            self.after(delay, Action::SetPsk { host, other, epoch });
        }
        Ok(())
    }

    pub(crate) fn on_set_psk(&mut self, host: usize, other: usize, epoch: u32) -> Check {
        let id = self.hosts[other].id;
        if let Some(wanted) = self.hosts[host].wanted.get_mut(&other) {
            wanted.psk_epoch = wanted.psk_epoch.max(epoch);
        }
        if self.time < self.chaos_end {
            self.say(host, format_args!("sets key {epoch} for {other}"));
        }
        let node = &mut self.hosts[host].node;
        if let Some(key) = node.peer_by_id(&id) {
            node.set_preshared_key(key, preshared_key(host, other, epoch), epoch);
            self.checker.on_psk(host, other, epoch);
        }
        Ok(())
    }

    pub(crate) fn remove_peer(&mut self, host: usize) -> Check {
        let Some(other) = self.some_partner(host) else {
            return Ok(());
        };
        let id = self.hosts[other].id;
        let Some(key) = self.hosts[host].node.peer_by_id(&id) else {
            return Ok(());
        };
        self.say(host, format_args!("removes {other}"));
        self.hosts[host].node.remove_peer(key);
        if self.hosts[host].wanted[&other].present {
            // At once, or after a while.
            let delay = self.random.below(2) * self.random.below(60 * SECOND);
            self.after(delay, Action::AddPeer { host, other });
        }
        self.drain(host)
    }

    pub(crate) fn on_add_peer(&mut self, host: usize, other: usize) -> Check {
        self.say(host, format_args!("adds {other}"));
        self.add_peer(host, other);
        self.drain(host)
    }

    pub(crate) fn reconnect(&mut self, host: usize) -> Check {
        let Some(other) = self.some_partner(host) else {
            return Ok(());
        };
        let (id, now) = (self.hosts[other].id, self.hosts[host].now(self.time));
        let node = &mut self.hosts[host].node;
        if let Some(key) = node.peer_by_id(&id) {
            match self.random.below(2) {
                0 => node.connect(now, key),
                _ => node.rekey(now, key),
            };
        }
        self.drain(host)
    }

    pub(crate) fn change_link(&mut self) -> Check {
        let links: Vec<(usize, usize)> = self.links.keys().copied().collect();
        let pair = links[self.random.index(links.len())];
        let profile = match self.random.below(3) {
            0 => Profile::clean(&mut self.random),
            _ => Profile::bad(&mut self.random),
        };
        self.say(pair.0, format_args!("has with {} {profile:?}", pair.1));
        self.links.insert(pair, Link::new(profile));
        Ok(())
    }

    pub(crate) fn some_partner(&mut self, host: usize) -> Option<usize> {
        let partners: Vec<usize> = self.hosts[host].wanted.keys().copied().collect();
        (!partners.is_empty()).then(|| partners[self.random.index(partners.len())])
    }

    /// Everything is put right: links, clocks, configurations.
    pub(crate) fn heal(&mut self) -> Check {
        self.say(0, format_args!("and all heals"));
        for link in self.links.values_mut() {
            *link = Link::new(Profile::clean(&mut self.random));
        }
        if self.options.mutation == Some(Mutation::LeaveLinkDown) {
            let link = self.links.values_mut().next();
            link.expect("two hosts have a link").profile.down = true;
        }
        if self.options.mutation == Some(Mutation::CutLongDatagrams) {
            let links = self.links.values_mut();
            links.for_each(|link| link.profile.mtu_bytes = 1_000);
            // What is agreed would last.
            for host in 0..self.hosts.len() {
                self.restart(host)?;
            }
        }
        if let Some(watch) = &mut self.watch {
            watch.on_healed();
        }
        for host in 0..self.hosts.len() {
            let h = &mut self.hosts[host];
            h.wake(self.time);
            h.crash_in = None;
            match self.options.control {
                true => h.wall_offset = h.wall_base,
                // A clock that was ahead once stays ahead of all timestamps that were sent.
                false => h.step_wall_ahead(120 * SECOND),
            }
            let others: Vec<usize> = h.wanted.keys().copied().collect();
            for other in others {
                // One that was removed may be back as a stranger, with less than it is owed.
                let h = &self.hosts[host];
                let key = h.node.peer_by_id(&self.hosts[other].id);
                let status = key.and_then(|key| h.node.status(h.now(self.time), key));
                let complete = status.is_some_and(|status| !status.allowed_ips.is_empty());
                if h.wanted[&other].present && !complete {
                    self.add_peer(host, other);
                }
                let theirs = self.hosts[other]
                    .wanted
                    .get(&host)
                    .map_or(0, |w| w.psk_epoch);
                let epoch = theirs.max(self.hosts[host].wanted[&other].psk_epoch);
                if epoch > 0 && !self.options.control {
                    self.on_set_psk(host, other, epoch)?;
                }
            }
            self.drain(host)?;
        }
        // What was to be done to configurations later is done.
        self.queue
            .retain(|_, action| !matches!(action, Action::AddPeer { .. } | Action::SetPsk { .. }));
        Ok(())
    }

    /// Each packet of the window arrived, and each session has the newest preshared key.
    pub(crate) fn check_healed(
        &self,
        pairs: &[(usize, usize)],
        numbers: &[Option<usize>],
    ) -> Check {
        for (n, number) in numbers.iter().enumerate() {
            let (from, to) = pairs[n % pairs.len()];
            if self.common((from, to)) == Some(Common::Nothing) {
                continue;
            }
            let arrived = number.is_some_and(|number| self.checker.packets[number].delivered);
            if !arrived {
                let detail = format!("packet {number:?} from node {from} to {to} is lost");
                return Err((Rule::TrafficHeals, detail));
            }
        }
        for (host, other) in pairs {
            let h = &self.hosts[*host];
            let key = h.node.peer_by_id(&self.hosts[*other].id);
            let status = key.and_then(|key| h.node.status(h.now(self.time), key));
            let state = status.as_ref().map(|status| status.state);
            let epoch = status.and_then(|status| status.session_psk_epoch);
            // A rekey under way that needs a cookie on both sides takes 10 s, and shows as silence.
            let alive = matches!(state, Some(PeerState::Connected | PeerState::Silent));
            let level = self.level_of((*host, *other));
            let right = match self.common((*host, *other)) {
                Some(Common::Nothing) => true,
                Some(Common::Level(owed)) => alive && level >= Some(owed),
                None if h.wanted[other].stranger => alive,
                None => alive && epoch == Some(h.wanted[other].psk_epoch),
            };
            if !right {
                let detail =
                    format!("node {host} and {other}: {state:?}, epoch {epoch:?}, {level:?}");
                return Err((Rule::TrafficHeals, detail));
            }
        }
        Ok(())
    }

    /// Nothing is said any more; in the end no session, handshake, stranger or timer is left.
    pub(crate) fn run_quiet(&mut self) -> Check {
        if self.keepalives {
            return Ok(());
        }
        self.run_until(self.time + 400 * SECOND)?;
        // A pair with nothing in common asks again and again whether that has changed.
        let stuck: Vec<usize> = self
            .pairs()
            .into_iter()
            .filter(|pair| self.common(*pair) == Some(Common::Nothing))
            .map(|(host, _)| host)
            .collect();
        let free = |(number, _): &(usize, &Host)| !stuck.contains(number);
        for (number, host) in self.hosts.iter().enumerate().filter(free) {
            let usage = host.node.usage();
            let left = usage.links
                + usage.indices
                + usage.provisional_peers
                + usage.pending_admissions
                + usage.staged_packets;
            if left != 0 || host.node.poll_timeout().is_some() {
                let detail = format!("node {number} holds {usage:?}");
                return Err((Rule::StateFreed, detail));
            }
        }
        Ok(())
    }

    /// Where a fixed host of this number is; others may have been there.
    pub(crate) fn first_address(&self, host: usize) -> SocketAddr {
        address_of(host)
    }
}
