//! The guest with the real kernel's WireGuard, through the scripts in `lab/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::netns::{Namespace, unique_name};
use crate::outcome::{Outcome, Stop};
use crate::process::{limited, run};

/// Where the scripts keep what belongs to a running guest.
pub const FOLDER: &str = "/run/wiremesh-interop";

/// A running guest, linked to a namespace of the host; powered off on drop.
#[derive(Debug)]
pub struct Guest {
    script: PathBuf,
    environment: Vec<(String, String)>,
}

impl Guest {
    /// Boots the guest with the other end of its cable, called `link0`, in a namespace.
    /// Installs the lab first where that has not happened. Takes 5 to 40 s, at most 150.
    pub fn boot(namespace: &Namespace) -> Outcome<Self> {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
        let setup = lab.join("setup.sh");
        if let Err(Stop::Failed(reason)) = run(&mut limited(600, &[&setup.to_string_lossy()])) {
            return Err(Stop::Skipped(format!(
                "the kernel lab cannot be set up: {reason}"
            )));
        }
        let environment = [
            ("LAB_ID", unique_name()),
            ("LAB_NETNS", namespace.name().to_owned()),
            ("LAB_TAP", "link0".to_owned()),
            // Its shell has addresses of its own, because the others move.
            ("LAB_HOST4", "10.98.0.1".to_owned()),
            ("LAB_HOST6", "fd98::1".to_owned()),
            ("LAB_GUEST4", "10.98.0.2".to_owned()),
            ("LAB_GUEST6", "fd98::2".to_owned()),
        ];
        let guest = Self {
            script: lab.join("vm.sh"),
            environment: environment
                .map(|(key, value)| (key.to_owned(), value))
                .into(),
        };
        // No pipe for its output: the guest inherits it and would hold it open.
        let log = std::fs::File::create(crate::programs::scratch_folder()?.join("guest.log"))?;
        let mut up = guest.script_command(150, &["up"]);
        let status = up.stdout(log.try_clone()?).stderr(log).status()?;
        if status.success() {
            return Ok(guest);
        }
        let log = std::fs::read(crate::programs::scratch_folder()?.join("guest.log"))?;
        Err(Stop::Failed(format!(
            "no guest: {}",
            String::from_utf8_lossy(&log)
        )))
    }

    /// A command that runs in the guest, killed there and here after a number of seconds.
    pub fn command(&self, seconds: u32, words: &[&str]) -> Command {
        let mut line = format!("timeout -k 1 {seconds}");
        for word in words {
            line.push(' ');
            line.push_str(&quoted(word));
        }
        self.script_command(seconds + 10, &["exec", &line])
    }

    fn script_command(&self, seconds: u32, arguments: &[&str]) -> Command {
        let script = self.script.to_string_lossy();
        let mut words = vec![script.as_ref()];
        words.extend(arguments);
        let mut command = limited(seconds, &words);
        command
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.script_command(30, &["down"]).output();
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_quote_in_a_word_survives_the_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
