//! What the helper may do: one capability, and the system calls of its work.
//!
//! Owns giving up everything else, for good. A helper that could not give it up does not run.

use rustix::fs::OFlags;
use rustix::process::{self, DumpableBehavior};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;

/// Keeps CAP_NET_ADMIN and no other capability, now and after any exec.
pub fn drop_all_but_net_admin() -> Result<(), String> {
    let only = CapabilitySet::NET_ADMIN;
    let refuse = |what| {
        Err(format!(
            "{what}\n  fix: wiremesh install --systemd --dry-run"
        ))
    };
    if process::geteuid().is_root() || process::getuid().is_root() {
        return refuse("this does not run as root, who owns every file even without a capability");
    }
    let cannot = |what: &'static str| move |error| format!("cannot {what}: {error}");
    let held = thread::capabilities(None).map_err(cannot("read the capabilities"))?;
    if !held.permitted.contains(only) {
        return refuse("CAP_NET_ADMIN is missing");
    }
    thread::set_no_new_privs(true).map_err(cannot("set no-new-privileges"))?;
    // Nobody of the same user reads its memory or steers it.
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(cannot("hide"))?;
    // The bounding set gives nothing any more: no exec gains a privilege.
    thread::clear_ambient_capability_set().map_err(cannot("clear the ambient set"))?;
    let sets = CapabilitySets {
        effective: only,
        permitted: only,
        inheritable: CapabilitySet::empty(),
    };
    thread::set_capabilities(None, sets).map_err(cannot("give up capabilities"))
}

/// System calls with any arguments: memory, the open descriptors, time, and the end.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getsockopt,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// Any other system call ends the process: no file but a device like `/dev/net/tun`, no program,
/// no socket but netlink's, no executable memory.
pub fn filter_system_calls() -> Result<(), String> {
    let load = || -> Result<(), Box<dyn std::error::Error>> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
        let open = u64::from((OFlags::RDWR | OFlags::CLOEXEC).bits());
        let open_flags = SeccompCmpOp::MaskedEq(u64::from(!OFlags::LARGEFILE.bits()));
        let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        let netlink = libc::AF_NETLINK as u64;
        let tun = u64::from(super::tun::TUNSETIFF);
        for (call, argument, operation, value) in [
            (libc::SYS_openat, 2, open_flags, open),
            (libc::SYS_fcntl, 1, SeccompCmpOp::Eq, libc::F_GETFD as u64),
            (libc::SYS_ioctl, 1, SeccompCmpOp::Eq, tun),
            (libc::SYS_socket, 0, SeccompCmpOp::Eq, netlink),
            (libc::SYS_mmap, 2, executable, 0),
        ] {
            let length = SeccompCmpArgLen::Dword;
            let condition = SeccompCondition::new(argument, length, operation, value)?;
            rules.insert(call, vec![SeccompRule::new(vec![condition])?]);
        }
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            std::env::consts::ARCH.try_into()?,
        )?;
        let program: BpfProgram = filter.try_into()?;
        Ok(seccompiler::apply_filter(&program)?)
    };
    load().map_err(|error| format!("cannot load the filter of system calls: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const TASK: &str = "WIREMESH_TEST_SYSTEM_CALL";

    /// Not a test by itself: what each process of the next one does.
    #[test]
    fn one_system_call() {
        let Ok(task) = std::env::var(TASK) else {
            return;
        };
        // Opened before, as standard error is in the helper.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        filter_system_calls().expect("seccomp");
        match task.as_str() {
            "nothing" => drop(vec![0u8; 1 << 22]),
            "read a file" => drop(std::fs::read("/etc/hostname")),
            "write a file" => drop(std::fs::write("/dev/null", "x")),
            "connect" => drop(std::net::TcpStream::connect(address)),
            "run a program" => drop(Command::new("/bin/true").status()),
            "change a capability" => drop(thread::clear_ambient_capability_set()),
            task => panic!("{task}"),
        }
        // The harness would go on with system calls of its own.
        std::process::exit(0);
    }

    #[test]
    fn other_system_calls_end_the_process() {
        for (task, signal) in [
            ("nothing", None),
            ("read a file", Some(libc::SIGSYS)),
            ("write a file", Some(libc::SIGSYS)),
            ("connect", Some(libc::SIGSYS)),
            ("run a program", Some(libc::SIGSYS)),
            ("change a capability", Some(libc::SIGSYS)),
        ] {
            let mut command = Command::new(std::env::current_exe().expect("this test"));
            command.args(["--exact", "helper::privilege::tests::one_system_call"]);
            let output = command.env(TASK, task).output().expect("it runs");
            assert_eq!(output.status.signal(), signal, "{task}: {output:?}");
        }
    }
}
