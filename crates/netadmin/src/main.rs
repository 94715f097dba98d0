//! `wiremesh-netadmin`: makes network interfaces for nodes that run without privilege.

#![deny(missing_docs)]

#[cfg(target_os = "linux")]
mod helper;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    helper::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: wiremesh-netadmin is for Linux");
    std::process::exit(2);
}
