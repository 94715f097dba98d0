//! Real processes in a home folder of their own.
#![allow(dead_code)] // each test takes what it needs

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// A home folder, and the commands that run in it.
pub struct Home {
    dir: TempDir,
}

/// A process that is killed when the test ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub fn stderr(&mut self) -> BufReader<ChildStderr> {
        BufReader::new(self.0.stderr.take().expect("piped"))
    }

    pub fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("piped"))
    }

    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .expect("runs")
                .success()
        );
    }

    pub fn code(&mut self) -> Option<i32> {
        self.0.wait().expect("waits").code()
    }
}

impl Home {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wiremesh"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("runs")
    }

    /// Runs a command that must succeed; gives its standard output.
    pub fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs a command that must fail with a code; gives its standard error.
    pub fn bad(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        stderr
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        Running(self.command(arguments).spawn().expect("starts"))
    }

    /// Starts `send`; gives it with its ticket.
    pub fn send(&self, arguments: &[&str]) -> (Running, String) {
        let fixed = ["send", "--listen", "127.0.0.1:0"];
        let mut running = self.start(&[&fixed, arguments].concat());
        let mut ticket = String::new();
        running.stdout().read_line(&mut ticket).expect("a ticket");
        (running, ticket.trim().to_owned())
    }

    /// Starts `up`; gives it once it is up.
    pub fn up(&self, config: &str) -> Running {
        let mut running = self.start(&["up", "--config", config]);
        let mut lines = running.stderr().lines();
        lines
            .by_ref()
            .map(|line| line.expect("a line"))
            .find(|line| line.starts_with("up with"));
        // What it logs later must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        running
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("written");
    }
}

/// A TCP and UDP port of loopback that nobody has. Below those that the system gives out by itself,
/// or another test could be given it before it is used.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 64;
        let port = (FIRST + number % COUNT) as u16;
        let address = (Ipv4Addr::LOCALHOST, port);
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return port;
        }
    }
}

pub fn field(text: &str, name: &str) -> String {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .expect("a line");
    line.rsplit(' ').next().expect("a word").to_owned()
}
