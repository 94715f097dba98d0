//! Where the host does not let an ordinary user have namespaces or a TUN device: what forbids it,
//! and the remedy.
//!
//! Owns these messages. It changes nothing.

use crate::failure::Failure;
use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::io;

/// The device that TUN interfaces come from.
pub const TUN: &str = "/dev/net/tun";

/// Whether the device is there and may be opened.
pub fn check_device() -> Result<(), Failure> {
    let opened = OpenOptions::new().read(true).write(true).open(TUN);
    opened.map(drop).map_err(|error| device(&error))
}

/// What it means that the device cannot be had.
pub fn device(error: &io::Error) -> Failure {
    let failure = Failure::runtime(format!("cannot open the TUN device: {error}")).at(TUN);
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => failure.fix(
            "load the driver: sudo modprobe tun\n\
             in a container, start that one with --device /dev/net/tun",
        ),
        Some(Errno::ACCESS) => failure.fix(format!(
            "let every user open it, as udev does; alone it gives no power over the host:\n\
             sudo chmod 0666 {TUN}"
        )),
        Some(Errno::PERM) => {
            failure.fix("in a container, start that one with --device /dev/net/tun")
        }
        _ => failure,
    }
}

/// What it means that `step`, which needs a user namespace, fails.
pub fn namespaces(step: &str, error: &io::Error) -> Failure {
    let setting = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        text.trim().parse().ok()
    };
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/wiremesh".into());
    explain(step, error, setting, &program.to_string_lossy())
}

fn explain(
    step: &str,
    error: &io::Error,
    setting: impl Fn(&str) -> Option<u64>,
    program: &str,
) -> Failure {
    let failure = Failure::runtime(format!(
        "this host allows no private network: {step}: {error}"
    ));
    let limits = ["user", "net", "mnt"].map(|kind| format!("user.max_{kind}_namespaces"));
    let zero = limits.iter().find(|name| setting(name) == Some(0));
    let refused = matches!(
        Errno::from_io_error(error),
        Some(Errno::PERM | Errno::ACCESS)
    );
    if let Some(name) = zero {
        return failure
            .at(format!("the setting {name} = 0"))
            .fix(format!("allow namespaces: sudo sysctl -w {name}=15000"));
    }
    if Errno::from_io_error(error) == Some(Errno::NOSPC) {
        return failure.fix(format!("raise the limits: sysctl {}", limits.join(" ")));
    }
    let name = "kernel.unprivileged_userns_clone";
    if refused && setting(name) == Some(0) {
        return failure.at(format!("the setting {name} = 0")).fix(format!(
            "let ordinary users make namespaces: sudo sysctl -w {name}=1"
        ));
    }
    let name = "kernel.apparmor_restrict_unprivileged_userns";
    if refused && setting(name) == Some(1) {
        return failure.at(format!("the setting {name} = 1")).fix(format!(
            "give this program a profile that allows it:\n{}",
            profile(program)
        ));
    }
    if Errno::from_io_error(error) == Some(Errno::INVAL) {
        return failure.fix(
            "use a kernel with user namespaces (CONFIG_USER_NS) and networks (CONFIG_NET_NS)",
        );
    }
    if refused {
        return failure.fix(
            "a container or a seccomp filter around this shell forbids namespaces: leave it, or \
             start it\nwith less of a filter (docker run --security-opt seccomp=unconfined)",
        );
    }
    failure
}

/// An AppArmor profile that allows user namespaces and forbids nothing.
fn profile(program: &str) -> String {
    format!(
        "sudo tee /etc/apparmor.d/wiremesh <<END\n\
         abi <abi/4.0>,\n\
         profile wiremesh {program} flags=(unconfined) {{ userns, }}\n\
         END\n\
         sudo apparmor_parser -r /etc/apparmor.d/wiremesh"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(errno: Errno, name: &str, value: u64) -> String {
        let setting = |asked: &str| (asked == name).then_some(value);
        explain("unshare", &errno.into(), setting, "/opt/wiremesh").to_string()
    }

    #[test]
    fn what_forbids_namespaces_is_named_with_its_remedy() {
        for (errno, name, value, remedy) in [
            (
                Errno::PERM,
                "kernel.unprivileged_userns_clone",
                0,
                "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                Errno::NOSPC,
                "user.max_user_namespaces",
                0,
                "sudo sysctl -w user.max_user_namespaces=15000",
            ),
            (
                Errno::NOSPC,
                "user.max_net_namespaces",
                0,
                "sudo sysctl -w user.max_net_namespaces=15000",
            ),
            (
                Errno::PERM,
                "kernel.apparmor_restrict_unprivileged_userns",
                1,
                "profile wiremesh /opt/wiremesh flags=(unconfined) { userns, }",
            ),
            (Errno::PERM, "", 0, "seccomp"),
            (Errno::INVAL, "", 0, "CONFIG_USER_NS"),
            (Errno::NOSPC, "", 0, "raise the limits"),
        ] {
            let told = told(errno, name, value);
            assert!(told.contains(remedy) && told.contains(name), "{told}");
        }
    }

    #[test]
    fn settings_that_allow_it_are_not_blamed() {
        for (name, value) in [
            ("kernel.unprivileged_userns_clone", 1),
            ("user.max_user_namespaces", 9),
            ("kernel.apparmor_restrict_unprivileged_userns", 0),
        ] {
            assert!(!told(Errno::PERM, name, value).contains(name), "{name}");
        }
    }

    #[test]
    fn closed_and_missing_devices_have_different_remedies() {
        let told = |errno: Errno| device(&errno.into()).to_string();
        assert!(told(Errno::ACCESS).contains("sudo chmod 0666 /dev/net/tun"));
        assert!(told(Errno::NOENT).contains("sudo modprobe tun"));
        assert!(told(Errno::PERM).contains("--device /dev/net/tun"));
    }
}
