//! `wiremesh install` into a folder.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

fn install(arguments: &[&str], root: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wiremesh"));
    command
        .arg("install")
        .args(arguments)
        .arg("--root")
        .arg(root);
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn dry_run_prints_both_ways_and_writes_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    for way in ["--systemd", "--file-capability"] {
        let output = install(&[way, "--dry-run"], root.path());
        assert!(output.status.success());
        let printed = text(&output.stdout);
        for line in [
            "AmbientCapabilities=CAP_NET_ADMIN",
            "CapabilityBoundingSet=CAP_NET_ADMIN",
            "NoNewPrivileges=yes",
            "# /usr/local/libexec/wiremesh-netadmin: root:root 0755",
            "# /usr/local/libexec/wiremesh-netadmin: root:wiremesh 2750 cap_net_admin=ep",
            "d /run/wireguard 3770 root wiremesh -",
        ] {
            assert!(
                printed.lines().any(|printed| printed == line),
                "{line}: {printed}"
            );
        }
    }
    assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 0);
}

#[test]
fn files_are_what_the_dry_run_shows() {
    let root = tempfile::tempdir().expect("a folder");
    let helper = root.path().join("helper");
    fs::write(&helper, "#!/bin/true\n").expect("ours");
    let output = install(
        &["--systemd", "--helper", helper.to_str().expect("text")],
        root.path(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&install(&["--systemd", "--dry-run"], root.path()).stdout);
    for path in [
        "etc/systemd/system/wiremesh-netadmin.service",
        "etc/sysusers.d/wiremesh.conf",
        "etc/tmpfiles.d/wiremesh.conf",
    ] {
        let content = fs::read_to_string(root.path().join(path)).expect("installed");
        assert!(printed.contains(&format!("# /{path}\n{content}")), "{path}");
    }
    let installed = root.path().join("usr/local/libexec/wiremesh-netadmin");
    let mode = fs::metadata(&installed)
        .expect("installed")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert_eq!(fs::read(&installed).expect("ours"), b"#!/bin/true\n");
}

#[test]
fn file_capability_is_set_for_the_group() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root sets a file capability");
        return;
    }
    let root = tempfile::tempdir().expect("a folder");
    let helper = root.path().join("helper");
    fs::write(&helper, "#!/bin/true\n").expect("ours");
    let arguments = [
        "--file-capability",
        "--helper",
        helper.to_str().expect("text"),
    ];
    let output = install(&arguments, root.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("fix: groupadd --system wiremesh"));
    assert!(!root.path().join("usr").exists(), "half-done");
    fs::create_dir(root.path().join("etc")).expect("ours");
    fs::write(
        root.path().join("etc/group"),
        "root:x:0:\nwiremesh:x:4321:me\n",
    )
    .expect("ours");
    let output = install(&arguments, root.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let installed = root.path().join("usr/local/libexec/wiremesh-netadmin");
    let metadata = fs::metadata(&installed).expect("installed");
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
        (0o2750, 0, 4321)
    );
    let shown = Command::new("getcap")
        .arg(&installed)
        .output()
        .expect("getcap of libcap2-bin");
    assert!(
        text(&shown.stdout).ends_with(" cap_net_admin=ep\n"),
        "{shown:?}"
    );
    let unit = root
        .path()
        .join("etc/systemd/user/wiremesh-netadmin.service");
    assert!(
        !fs::read_to_string(unit)
            .expect("installed")
            .contains("NoNewPrivileges")
    );
}

#[test]
fn what_is_missing_is_said_and_nothing_is_written() {
    let root = tempfile::tempdir().expect("a folder");
    let output = install(&["--systemd", "--helper", "/nowhere"], root.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read the helper"));
    assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 0);
    assert_eq!(install(&[], root.path()).status.code(), Some(2));
    assert_eq!(
        install(&["--systemd", "--file-capability"], root.path())
            .status
            .code(),
        Some(2)
    );
}

/// What systemd itself says of the unit: of its sections, keys and values.
#[test]
fn systemd_takes_the_unit() {
    let root = tempfile::tempdir().expect("a folder");
    let helper = root.path().join("helper");
    fs::copy("/bin/true", &helper).expect("a program");
    let helper = helper.to_str().expect("text");
    let output = install(&["--systemd", "--helper", helper], root.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let installed = "etc/systemd/system/wiremesh-netadmin.service";
    let content = fs::read_to_string(root.path().join(installed)).expect("installed");
    let unit = root.path().join("wiremesh-netadmin.service");
    let verify = |content: &str| {
        // The program is where this test has put it.
        let there = content.replace("/usr/local/libexec/wiremesh-netadmin", helper);
        fs::write(&unit, there).expect("ours");
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(&unit).output()
    };
    let good = match verify(&content) {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: systemd-analyze: {error}"),
    };
    assert!(good.status.success(), "{}", text(&good.stderr));
    assert_eq!(text(&good.stderr), "");
    // It looks closely: a value that is none is told.
    let bad = content.replace("ProtectSystem=strict", "ProtectSystem=stricter");
    let output = verify(&bad).expect("it is there");
    let said = text(&output.stderr);
    assert!(said.contains("stricter"), "{said}");
}
