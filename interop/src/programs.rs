//! Where the programs are that the laboratory needs, and what to do where one is missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netns::unique_name;
use crate::outcome::{Outcome, Stop, fail, skip};
use crate::process::{find_program, run, text_of};

/// Packages of a Debian system that hold what every test here needs.
const PACKAGES: &str = "wireguard-go wireguard-tools iproute2 iputils-ping tcpdump";

/// Checks that this process may make namespaces and that the common programs are installed.
pub fn check_basics() -> Outcome {
    if run(Command::new("id").arg("-u"))?.trim() != "0" {
        return skip("needs root: it makes network namespaces and TUN devices");
    }
    for program in ["ip", "wg", "ping", "tcpdump", "timeout"] {
        if find_program(program).is_none() {
            return skip(format!(
                "{program} is missing; apt-get install -y {PACKAGES}"
            ));
        }
    }
    Ok(())
}

/// The path of the real wireguard-go.
pub fn wireguard_go() -> Outcome<PathBuf> {
    let missing = || Stop::Skipped(format!("no wireguard-go; apt-get install -y {PACKAGES}"));
    find_program("wireguard-go").ok_or_else(missing)
}

/// The path of the real boringtun; built from crates.io into the cache where it is missing, which
/// takes a few minutes once.
pub fn boringtun() -> Outcome<PathBuf> {
    if let Some(path) = find_program("boringtun-cli") {
        return Ok(path);
    }
    let cache = cache_folder();
    let path = cache.join("bin").join("boringtun-cli");
    if path.is_file() {
        return Ok(path);
    }
    println!(
        "building boringtun-cli from crates.io into {}, once",
        cache.display()
    );
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["install", "boringtun-cli", "--locked", "--root"])
        .arg(&cache)
        .output()?;
    if path.is_file() {
        return Ok(path);
    }
    skip(format!(
        "boringtun-cli cannot be built: {}",
        text_of(&output)
    ))
}

/// Where downloads and builds are kept between runs.
fn cache_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("WIREMESH_INTEROP_CACHE") {
        return folder.into();
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home);
    base.unwrap_or_else(std::env::temp_dir)
        .join("wiremesh-interop")
}

/// A folder of this run for logs, captures and configurations.
pub fn scratch_folder() -> Outcome<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| std::env::temp_dir().join(unique_name()));
    std::fs::create_dir_all(folder)?;
    Ok(folder.clone())
}

/// A new file name in the folder of this run.
pub fn scratch_file(name: &str) -> Outcome<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Ok(scratch_folder()?.join(format!("{name}.{}", NEXT.fetch_add(1, Ordering::Relaxed))))
}

/// The product's binary: `WIREMESH_BIN`, or what cargo builds now in the profile of this test.
pub fn wiremesh() -> Outcome<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os("WIREMESH_BIN") {
        return Ok(path.into());
    }
    let built = BUILT.get_or_init(|| match build("wiremesh-cli", "wiremesh") {
        Ok(path) => Ok(path),
        Err(Stop::Failed(reason) | Stop::Skipped(reason)) => Err(reason),
    });
    built.clone().map_err(Stop::Failed)
}

/// The helper's binary: `WIREMESH_NETADMIN_BIN`, or built by cargo beside the product's.
pub fn netadmin() -> Outcome<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os("WIREMESH_NETADMIN_BIN") {
        return Ok(path.into());
    }
    let built = BUILT.get_or_init(|| match build("wiremesh-netadmin", "wiremesh-netadmin") {
        Ok(path) => Ok(path),
        Err(Stop::Failed(reason) | Stop::Skipped(reason)) => Err(reason),
    });
    built.clone().map_err(Stop::Failed)
}

fn build(package: &str, binary: &str) -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "-q", "-p", package, "--bin", binary]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    run(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    beside(binary)
}

/// A program of this workspace that cargo has built already.
pub fn beside(binary: &str) -> Outcome<PathBuf> {
    // Tests run from <target>/<profile>/deps.
    let test = std::env::current_exe()?;
    match test
        .parent()
        .and_then(Path::parent)
        .map(|folder| folder.join(binary))
    {
        Some(path) if path.is_file() => Ok(path),
        _ => fail(format!("{binary} is not beside {}", test.display())),
    }
}
