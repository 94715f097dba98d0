//! `wiremesh install`: the helper, its unit, its user and group.
//!
//! Owns the texts of these files. It runs no program: what is left to do is printed as commands.

use crate::args::InstallArgs;
use crate::failure::Failure;
use crate::say;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

const HELPER: &str = "usr/local/libexec/wiremesh-netadmin";
const GROUP: &str = "wiremesh";

/// Both ways: the user, and the folder of the configuration sockets that `wg` knows.
const COMMON: [(&str, &str); 2] = [
    (
        "etc/sysusers.d/wiremesh.conf",
        "\
# Its members may use the helper; the user runs it.
u wiremesh - \"Wiremesh network helper\"
",
    ),
    (
        "etc/tmpfiles.d/wiremesh.conf",
        "\
# Where wg looks for the sockets of user-space WireGuard. Members remove only their own: wg gives
# private keys to whoever listens there.
d /run/wireguard 3770 root wiremesh -
",
    ),
];

const SYSTEM_UNIT: (&str, &str) = (
    "etc/systemd/system/wiremesh-netadmin.service",
    "\
[Unit]
Description=Network interfaces for Wiremesh nodes

[Service]
ExecStart=/usr/local/libexec/wiremesh-netadmin
User=wiremesh
Group=wiremesh
RuntimeDirectory=wiremesh
Restart=on-failure
AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
RestrictAddressFamilies=AF_UNIX AF_NETLINK
RestrictNamespaces=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
",
);

/// Without NoNewPrivileges, which would take the file capability; the helper sets it itself.
const USER_UNIT: (&str, &str) = (
    "etc/systemd/user/wiremesh-netadmin.service",
    "\
[Unit]
Description=Network interfaces for Wiremesh nodes of this user

[Service]
ExecStart=/usr/local/libexec/wiremesh-netadmin --socket %t/wiremesh-netadmin.sock
Restart=on-failure

[Install]
WantedBy=default.target
",
);

const SYSTEM_COMMANDS: &str = "\
systemd-sysusers && systemd-tmpfiles --create wiremesh.conf
systemctl daemon-reload && systemctl enable --now wiremesh-netadmin
usermod --append --groups wiremesh USER     # and log in again
";

const USER_COMMANDS: &str = "\
systemd-tmpfiles --create wiremesh.conf
usermod --append --groups wiremesh USER     # and log in again
systemctl --user enable --now wiremesh-netadmin     # as that user
";

/// One of the two ways.
struct Way {
    option: &'static str,
    unit: (&'static str, &'static str),
    /// Group and mode of the helper's file, and whether it carries the capability.
    group: &'static str,
    mode: u32,
    capability: bool,
    commands: &'static str,
}

const SYSTEM: Way = Way {
    option: "--systemd",
    unit: SYSTEM_UNIT,
    group: "root",
    mode: 0o755,
    capability: false,
    commands: SYSTEM_COMMANDS,
};

/// Set-group-id, so that the group that may connect is the same in both ways.
const FILE_CAPABILITY: Way = Way {
    option: "--file-capability",
    unit: USER_UNIT,
    group: GROUP,
    mode: 0o2750,
    capability: true,
    commands: USER_COMMANDS,
};

pub fn run(args: &InstallArgs) -> Result<(), Failure> {
    let (way, other) = match args.systemd {
        true => (SYSTEM, FILE_CAPABILITY),
        false => (FILE_CAPABILITY, SYSTEM),
    };
    if args.dry_run {
        let instead = format!("\n# or instead: wiremesh install {}\n", other.option);
        return say::print(way.describe() + &instead + &other.describe());
    }
    let helper = args.helper.clone().map_or_else(beside_this_program, Ok)?;
    let program = fs::read(&helper).map_err(|error| {
        Failure::input(format!("cannot read the helper: {error}"))
            .at(helper.display())
            .fix("build it (cargo build --release -p wiremesh-netadmin), or name it with --helper")
    })?;
    // Looked up before anything is written.
    let group = match way.capability && is_root() {
        true => Some(group_id(&args.root)?),
        false => None,
    };
    for (path, text) in COMMON.iter().chain([&way.unit]) {
        write(&args.root.join(path), text.as_bytes(), 0o644)?;
    }
    let installed = args.root.join(HELPER);
    write(&installed, &program, 0o700)?;
    // In this order: a change of the owner takes the set-group-id bit and the capability away.
    let own = || match is_root() {
        true => chown(&installed, Some(0), Some(group.unwrap_or(0))),
        false => Ok(()),
    };
    own()
        .and_then(|()| fs::set_permissions(&installed, Permissions::from_mode(way.mode)))
        .and_then(|()| {
            if way.capability {
                set_capability(&installed)
            } else {
                Ok(())
            }
        })
        .map_err(|error| cannot_write(&installed, &error))?;
    say::note("installed; to start it, as root:");
    say::print(way.commands)
}

impl Way {
    fn describe(&self) -> String {
        let capability = if self.capability {
            " cap_net_admin=ep"
        } else {
            ""
        };
        let mut text = format!(
            "# /{HELPER}: root:{} {:04o}{capability}\n",
            self.group, self.mode
        );
        for (path, content) in COMMON.iter().chain([&self.unit]) {
            text += &format!("\n# /{path}\n{content}");
        }
        text + "\n# then, as root:\n" + self.commands
    }
}

fn beside_this_program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::runtime(format!("cannot tell where this program is: {error}"))
            .fix("name the helper with --helper")
    })?;
    Ok(program.with_file_name("wiremesh-netadmin"))
}

/// Replaces a file in one step.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let new = path.with_extension("wiremesh-new");
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .and_then(|()| fs::write(&new, content))
        .and_then(|()| fs::set_permissions(&new, Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::runtime(format!("cannot install: {error}")).at(path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.fix("run it as root: sudo wiremesh install ..."),
        _ => failure.fix("make the folder writable, or install below another one with --root"),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The number of the group, from the file: it is one of the system's own.
fn group_id(root: &Path) -> Result<u32, Failure> {
    let path = root.join("etc/group");
    let groups = fs::read_to_string(&path).unwrap_or_default();
    let mut fields = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.first() == Some(&GROUP));
    found
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| {
            Failure::input(format!("there is no group {GROUP}"))
                .at(path.display())
                .fix(format!("groupadd --system {GROUP}"))
        })
}

/// `cap_net_admin=ep`: `struct vfs_cap_data`, revision 2.
#[cfg(target_os = "linux")]
fn set_capability(path: &Path) -> io::Result<()> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    const CAP_NET_ADMIN: u32 = 1 << 12;
    let words = [REVISION_2_EFFECTIVE, CAP_NET_ADMIN, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::setxattr(
        path,
        "security.capability",
        &value,
        flags,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn set_capability(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
