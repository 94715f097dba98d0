//! Where the program keeps things: the XDG folders, and folders that only their owner may enter.
//!
//! Owns the rules for paths in configuration files (`~/` and paths relative to the file).

use crate::failure::Failure;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const NAME: &str = "wiremesh";

/// `$XDG_CONFIG_HOME/wiremesh`, by default `~/.config/wiremesh`.
///
/// # Errors
///
/// No home folder is known.
pub fn config() -> Result<PathBuf, Failure> {
    xdg("XDG_CONFIG_HOME", ".config")
}

/// `$XDG_STATE_HOME/wiremesh`, by default `~/.local/state/wiremesh`.
///
/// # Errors
///
/// No home folder is known.
pub fn state() -> Result<PathBuf, Failure> {
    xdg("XDG_STATE_HOME", ".local/state")
}

/// The control socket: in `$XDG_RUNTIME_DIR/wiremesh` when there is one, else in the state folder.
///
/// # Errors
///
/// Neither is known.
pub fn control_socket() -> Result<PathBuf, Failure> {
    let folder = match absolute("XDG_RUNTIME_DIR") {
        Some(folder) => folder.join(NAME),
        None => state()?,
    };
    Ok(folder.join("control.sock"))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

fn xdg(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    let base = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)));
    base.map(|base| base.join(NAME)).ok_or_else(|| {
        Failure::input(format!("neither {variable} nor HOME is set"))
            .fix("set HOME, or name the files with options")
    })
}

/// A path of a configuration file: `~/` is the home folder, a relative path begins at the folder
/// of the file.
pub fn resolve(text: &str, file: &Path) -> PathBuf {
    let home = || absolute("HOME");
    if let Some(rest) = text.strip_prefix("~/")
        && let Some(home) = home()
    {
        return home.join(rest);
    }
    file.parent().unwrap_or(Path::new("")).join(text)
}

/// Creates a folder and its parents, entered by their owner only.
///
/// # Errors
///
/// As [`fs::create_dir_all`].
pub fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_begin_at_the_folder_of_the_file() {
        let file = Path::new("/etc/wm/node.toml");
        assert_eq!(resolve("key", file), Path::new("/etc/wm/key"));
        assert_eq!(resolve("/abs", file), Path::new("/abs"));
        assert_eq!(resolve("key", Path::new("node.toml")), Path::new("key"));
    }
}
