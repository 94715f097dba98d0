//! The half of `exec` that runs inside: it makes the namespaces, and becomes the program.
//!
//! Owns the order in which that happens. It is a process of its own with one thread, as a user
//! namespace demands; its standard input is the channel to the other half until it has the
//! program's. It never returns when all goes well.

use super::channel::Channel;
use super::{Answer, Go, INTERFACE, Setup, forbidden, names};
use crate::failure::Failure;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Signal, getgid, getppid, getuid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags};
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use wiremesh_device::{Tun, TunError};
use wiremesh_netlink::interface;

/// The shell's code for a program that is there and cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// The shell's code for a program that is not there.
const NOT_FOUND: u8 = 127;

/// Where the files of names are made, out of everybody's sight, before they are put in place.
const WORKPLACE: &str = "/tmp";

/// A socket over which the C library would ask the host's cache for names.
const NAME_CACHE: &str = "/var/run/nscd/socket";

/// Runs the half. The program is `program[0]`.
pub fn main(program: &[OsString]) -> ExitCode {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let Ok(channel) = stdin.and_then(Channel::of) else {
        let failure = Failure::input("--inside is for wiremesh itself");
        return failure.fix("wiremesh exec -- PROGRAM").report();
    };
    let Err((failure, code)) = become_program(&channel, program);
    let answer = Answer::Failed {
        what: failure.what,
        place: failure.place,
        fix: failure.fix,
        code,
    };
    // The other half may be gone; then there is nobody to tell.
    let _ = channel.send(&answer, None);
    ExitCode::from(code)
}

/// Never `Ok`: the process is the program then.
fn become_program(
    channel: &Channel,
    program: &[OsString],
) -> Result<std::convert::Infallible, (Failure, u8)> {
    let failed = |failure: Failure| {
        let code = failure.exit.code();
        (failure, code)
    };
    let gone = || failed(Failure::runtime("wiremesh has ended"));
    let received = channel.receive::<Setup>().ok().flatten();
    let (setup, stdin) = received.ok_or_else(gone)?;
    rustix::stdio::dup2_stdin(stdin.ok_or_else(gone)?).map_err(|_| gone())?;
    let other_half = getppid();
    let device = make_network(&setup).map_err(failed)?;
    // Set here: new namespaces reset it. Without the other half there is no network.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if getppid() != other_half {
        return Err(gone());
    }
    let ready = channel.send(&Answer::Ready, Some(device.as_fd()));
    ready.map_err(|_| gone())?;
    drop(device);
    let go = channel.receive::<Go>().ok().flatten();
    go.ok_or_else(gone)?;
    drop_privileges().map_err(|error| failed(forbidden::namespaces("capset", &error.into())))?;
    let Some((name, arguments)) = program.split_first() else {
        return Err(failed(Failure::input("no program is named")));
    };
    let error = Command::new(name).args(arguments).exec();
    let code = if error.kind() == ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_RUNNABLE
    };
    let what = format!("cannot run {}: {error}", name.to_string_lossy());
    Err((Failure::input(what), code))
}

/// Namespaces, files of names, interface; gives the descriptor of the TUN device.
fn make_network(setup: &Setup) -> Result<OwnedFd, Failure> {
    enter_namespaces()?;
    let places = [
        ("/etc/hosts", setup.hosts.clone()),
        ("/etc/resolv.conf", names::RESOLV_CONF.to_owned()),
        (
            "/etc/nsswitch.conf",
            names::nsswitch(&fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default()),
        ),
    ];
    replace_files(&places)
        .map_err(|error| forbidden::namespaces("mounting the files of names", &error))?;
    let device = make_device(setup.mtu_bytes)?;
    configure(setup).map_err(|(step, error)| network_failure(&step, &error))?;
    // Ping sockets and low ports: nobody else's network is behind them. A read-only /proc/sys
    // leaves the kernel's defaults, with which programs work, too.
    let group = getgid().as_raw();
    let _ = fs::write(
        "/proc/sys/net/ipv4/ping_group_range",
        format!("{group} {group}"),
    );
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(device)
}

/// New user, network and mount namespaces, in which the user is still the same.
fn enter_namespaces() -> Result<(), Failure> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // It is deprecated because with FILES it can hide descriptors from other threads; FILES is
    // not among the flags, and there is one thread.
    #[allow(deprecated)]
    let unshared = rustix::thread::unshare(flags);
    unshared.map_err(|error| forbidden::namespaces("unshare", &error.into()))?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid} {uid} 1")),
        ("gid_map", format!("{gid} {gid} 1")),
    ] {
        let file = format!("/proc/self/{file}");
        fs::write(&file, text)
            .map_err(|error| forbidden::namespaces(&format!("writing {file}"), &error))?;
    }
    Ok(())
}

/// Puts texts in the place of files, in this mount namespace only. A file that is not there needs
/// no replacement: nothing can be read from it.
fn replace_files(places: &[(&str, String)]) -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("wiremesh", WORKPLACE, "tmpfs", flags, None)?;
    for (number, (place, text)) in places.iter().enumerate() {
        let made = Path::new(WORKPLACE).join(number.to_string());
        fs::write(&made, text)?;
        match rustix::mount::mount_bind(&made, *place) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match rustix::mount::mount_bind("/dev/null", NAME_CACHE) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
        Err(error) => return Err(error.into()),
    }
    // What is bound elsewhere stays.
    rustix::mount::unmount(WORKPLACE, UnmountFlags::DETACH)?;
    Ok(())
}

/// The device belongs to this network namespace, whoever holds its descriptor.
fn make_device(mtu_bytes: u16) -> Result<OwnedFd, Failure> {
    let failed = |error: &io::Error| Failure::runtime(format!("no TUN device: {error}"));
    // A runtime without threads, for as long as the device is being made.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| failed(&error))?;
    let _entered = runtime.enter();
    let tun = Tun::create(Some(INTERFACE)).map_err(|error| match error {
        TunError::NoDriver => forbidden::device(&Errno::NOENT.into()),
        TunError::DriverClosed => forbidden::device(&Errno::ACCESS.into()),
        TunError::NotPermitted => forbidden::namespaces("making a TUN device", &Errno::PERM.into()),
        other => Failure::runtime(format!("no TUN device: {other}")),
    })?;
    tun.set_mtu(mtu_bytes).map_err(|error| failed(&error))?;
    let descriptor = tun.as_fd().try_clone_to_owned();
    descriptor.map_err(|error| failed(&error))
}

fn configure(setup: &Setup) -> Result<(), (String, io::Error)> {
    let at = |step: &str| {
        let step = step.to_owned();
        move |error| (step, error)
    };
    let links = interface::links().map_err(at("listing the interfaces"))?;
    let index = |name: &str| {
        let link = links.iter().find(|link| link.name == name);
        link.map(|link| link.index)
            .ok_or_else(|| (format!("finding {name}"), ErrorKind::NotFound.into()))
    };
    interface::set_up(index("lo")?).map_err(at("setting lo up"))?;
    let index = index(INTERFACE)?;
    interface::set_up(index).map_err(at("setting the interface up"))?;
    for (address, bits) in &setup.addresses {
        interface::add_address(index, *address, *bits)
            .map_err(at(&format!("adding the address {address}/{bits}")))?;
    }
    for (network, bits) in &setup.routes {
        match interface::add_route(index, *network, *bits) {
            // The network of one of our addresses.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other.map_err(at(&format!("adding the route {network}/{bits}")))?,
        }
    }
    Ok(())
}

fn network_failure(step: &str, error: &io::Error) -> Failure {
    let failure = Failure::runtime(format!("the private network fails: {step}: {error}"));
    if Path::new("/proc/net/if_inet6").exists() {
        return failure;
    }
    failure.fix("the overlay is IPv6: start the kernel without ipv6.disable=1")
}

/// The program gains nothing by what it executes, and has no power over its namespaces: it could
/// not leave them, but show itself other names. As root, too.
fn drop_privileges() -> rustix::io::Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)?;
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets)
}
