//! Programs of the operating system, each with an end: a time limit, or a guard that ends it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::outcome::{Outcome, fail};

/// A command with a time limit in seconds, after which it is killed and counts as failed.
pub fn limited(seconds: u32, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-k", "1", &seconds.to_string()])
        .args(words)
        .stdin(Stdio::null());
    command
}

/// Runs a command that must succeed and gives what it printed.
pub fn run(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    fail(format!("{command:?} failed: {}", text_of(&output)))
}

/// Runs a short command of the host that must succeed.
pub fn run_words(words: &[&str]) -> Outcome<String> {
    run(&mut limited(20, words))
}

/// Everything that a command printed, for messages.
pub fn text_of(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

/// The path of a program, if it is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH")?;
    std::env::split_paths(&search)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// A running program that is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program with its output in a log file.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let file = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self {
            child: command.spawn()?,
            log: log.to_owned(),
        })
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of a program that ends by itself and gives its exit code.
    pub fn wait(mut self) -> Outcome<Option<i32>> {
        Ok(self.child.wait()?.code())
    }

    /// What the program printed so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Kills the program with SIGKILL and reaps it: it gets no chance to say good-bye.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // An error means that it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
