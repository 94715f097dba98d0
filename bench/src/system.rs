//! What the benchmark asks of the operating system: CPU time, memory, pinning, file limits.
//!
//! It owns no state and never touches a socket. Linux only: figures come from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Pins the calling thread, and threads it starts later, to one core.
pub fn pin_to_core(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)
        .with_context(|| format!("core {core} is out of range"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot pin to core {core}"))
}

/// Raises the soft limit of open files to the hard one: an idle peer may cost two sockets.
pub fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Best effort: a run that needs more files fails with the system's own message.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// User and system time of this process so far, all threads.
pub fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage of the own process");
    to_duration(usage.user_time()) + to_duration(usage.system_time())
}

fn to_duration(time: TimeVal) -> Duration {
    let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|f| f.parse().ok())
        .expect("statm has a second number");
    pages * page_bytes()
}

fn page_bytes() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|s| u64::try_from(s).ok()).unwrap_or(4096)
}

/// Clock ticks per second of the times in `/proc`.
fn ticks_per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.map_or(100.0, |t| t as f64)
}

/// CPU time that did not go to the benchmark, up to one moment.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    at: Instant,
    others_ticks: u64,
    steal_ticks: u64,
}

impl Noise {
    /// Reads the counters now.
    ///
    /// The time of every process that is neither this one nor its child is summed together with
    /// that of the children it has reaped, so processes that end in between are not lost.
    pub fn sample() -> Self {
        let own = std::process::id();
        let mut others_ticks = 0;
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let Some((parent, ticks)) = parse_stat(&stat) else {
                continue;
            };
            if pid != own && parent != own {
                others_ticks += ticks;
            }
        }
        Self {
            at: Instant::now(),
            others_ticks,
            steal_ticks: steal_ticks(),
        }
    }

    /// The mean number of cores that other processes kept busy since `earlier`.
    pub fn others_cores_since(&self, earlier: &Self) -> f64 {
        self.cores(
            self.others_ticks.saturating_sub(earlier.others_ticks),
            earlier,
        )
    }

    /// The mean number of cores that the hypervisor took away since `earlier`.
    pub fn stolen_cores_since(&self, earlier: &Self) -> f64 {
        self.cores(
            self.steal_ticks.saturating_sub(earlier.steal_ticks),
            earlier,
        )
    }

    fn cores(&self, ticks: u64, earlier: &Self) -> f64 {
        let wall = self.at.duration_since(earlier.at).as_secs_f64().max(0.001);
        ticks as f64 / ticks_per_second() / wall
    }
}

/// Parent and total CPU ticks (own and reaped children) of one line of `/proc/PID/stat`.
fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    // The name in parentheses may hold spaces; fields count from behind it (proc(5): 3 = state).
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields
        .get(11..15)?
        .iter()
        .map(|f| f.parse::<u64>().unwrap_or(0))
        .sum();
    Some((parent, ticks))
}

fn steal_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    first
        .split_whitespace()
        .nth(8)
        .and_then(|f| f.parse().ok())
        .unwrap_or(0)
}

/// One line about the machine: processor, cores, kernel.
pub fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name").and_then(|l| l.split_once(':')))
        .map_or("unknown processor", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {} cores, Linux {}", core_count(), kernel.trim())
}

/// The number of cores this process may run on.
pub fn core_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_with_spaces_in_the_name_is_parsed() {
        let line = "7 (a b) c) S 3 7 7 0 -1 4 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(line), Some((3, 127)));
        assert_eq!(parse_stat("7 (short) S 3"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn own_figures_are_plausible() {
        assert!(resident_bytes() > 100_000);
        let before = Noise::sample();
        let after = Noise::sample();
        assert!(after.others_cores_since(&before) >= 0.0);
        assert!(after.stolen_cores_since(&before) >= 0.0);
    }
}
