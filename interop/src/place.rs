//! A place where programs run: a network namespace of this host, or the guest with its own kernel.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use crate::guest::Guest;
use crate::netns::Namespace;
use crate::outcome::{Outcome, fail};
use crate::process::{limited, run, text_of};

/// How many pings were sent and how many came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub answered: u32,
}

/// One end of the link `link0`.
#[derive(Clone, Debug)]
pub enum Place {
    /// A namespace of the host.
    Namespace(Arc<Namespace>),
    /// The guest of the kernel lab.
    Guest(Arc<Guest>),
}

impl Place {
    /// A command that runs here, killed after a number of seconds.
    pub fn command(&self, seconds: u32, words: &[&str]) -> Command {
        match self {
            Self::Namespace(namespace) => {
                let mut all = vec!["ip", "netns", "exec", namespace.name()];
                all.extend(words);
                limited(seconds, &all)
            }
            Self::Guest(guest) => guest.command(seconds, words),
        }
    }

    /// A command that runs here without a time limit, to be held by a guard. `None` in the guest,
    /// where the guard's signal does not reach it.
    pub fn daemon(&self, program: &str, arguments: &[&str]) -> Option<Command> {
        let Self::Namespace(namespace) = self else {
            return None;
        };
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace.name(), program])
            .args(arguments);
        Some(command)
    }

    /// Runs a short command here that must succeed.
    pub fn run(&self, words: &[&str]) -> Outcome<String> {
        run(&mut self.command(30, words))
    }

    /// Whether a short command succeeds here.
    pub fn succeeds(&self, seconds: u32, words: &[&str]) -> bool {
        self.command(seconds, words)
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// The real `ping` from here; ends after `count` requests and 2 s.
    pub fn ping(&self, to: IpAddr, count: u32, interval: &str) -> Outcome<Pings> {
        let (to, text) = (to.to_string(), count.to_string());
        let words = [
            "ping", "-n", "-q", "-c", &text, "-i", interval, "-W", "2", &to,
        ];
        let seconds = interval.parse::<f32>()? * count as f32;
        let output = self
            .command((seconds * 1.25) as u32 + 30, &words)
            .output()?;
        let said = text_of(&output);
        let Some(line) = said
            .lines()
            .find(|line| line.contains("packets transmitted"))
        else {
            return fail(format!("ping said: {said}"));
        };
        let number = |part: usize| -> Outcome<u32> {
            let word = line
                .split(", ")
                .nth(part)
                .and_then(|part| part.split(' ').next());
            word.unwrap_or_default()
                .parse()
                .or_else(|_| fail(format!("ping said: {line}")))
        };
        Ok(Pings {
            sent: number(0)?,
            answered: number(1)?,
        })
    }

    /// Gives `link0` here another address with the prefix length of the lab and drops the old one.
    pub fn move_address(&self, old: &str, new: &str) -> Outcome {
        let (length, nodad): (_, &[&str]) = if new.contains(':') {
            (64, &["nodad"])
        } else {
            (24, &[])
        };
        let (old, new) = (format!("{old}/{length}"), format!("{new}/{length}"));
        self.run(&["ip", "addr", "del", &old, "dev", "link0"])?;
        let mut add = vec!["ip", "addr", "add", &new, "dev", "link0"];
        add.extend(nodad);
        self.run(&add)?;
        Ok(())
    }
}
