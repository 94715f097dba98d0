//! Finds what `wiremesh send FILE|FOLDER...` sends.
//!
//! Owns the walk over the sender's folders: regular files and folders; everything else is left
//! out with a warning. It reads no file contents.

use super::error::TransferError;
use super::manifest::{Entry, Kind, Manifest, Modified};
use super::names;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// What is sent: the list that the receiver sees, and where each entry lies here.
#[derive(Debug, Default)]
pub struct Source {
    /// The list.
    pub manifest: Manifest,
    /// The local path of each entry.
    pub paths: Vec<PathBuf>,
}

/// A source and what was left out of it.
#[derive(Debug)]
pub struct Walked {
    /// What is sent.
    pub source: Source,
    /// What is not, and why: one sentence each.
    pub skipped: Vec<String>,
}

/// An argument that cannot be sent.
#[derive(Debug)]
pub enum WalkError {
    /// It cannot be read.
    Unreadable {
        /// The argument.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// It is neither file nor folder.
    NeitherFileNorFolder(PathBuf),
    /// It has no name that the receiver could use.
    NoName {
        /// The argument.
        path: PathBuf,
        /// What is wrong with the name.
        why: &'static str,
    },
    /// Two arguments have the same name.
    SameName(String),
    /// More than a transfer can hold.
    TooMuch(TransferError),
}

/// Walks the arguments in their order; folders are walked in the order of names.
///
/// # Errors
///
/// [`WalkError`] for the first argument that cannot be sent. Trouble below an argument is a
/// warning in [`Walked::skipped`].
pub fn walk(arguments: &[PathBuf]) -> Result<Walked, WalkError> {
    let mut walk = Walk::default();
    for argument in arguments {
        let unreadable = |error| WalkError::Unreadable {
            path: argument.clone(),
            error,
        };
        // A link that the user names is followed; one that is found inside a folder is not.
        let metadata = fs::metadata(argument).map_err(unreadable)?;
        if !metadata.is_dir() && !metadata.is_file() {
            return Err(WalkError::NeitherFileNorFolder(argument.clone()));
        }
        let name = top_name(argument).map_err(unreadable)?;
        let no_name = |why| WalkError::NoName {
            path: argument.clone(),
            why,
        };
        let name = name.ok_or_else(|| no_name("is empty or not UTF-8"))?;
        names::check_name(&name).map_err(no_name)?;
        if walk.entries.iter().any(|entry| entry.path == name) {
            return Err(WalkError::SameName(name));
        }
        walk.add(name, argument.clone(), &metadata);
    }
    let manifest = Manifest::new(walk.entries).map_err(WalkError::TooMuch)?;
    Ok(Walked {
        source: Source {
            manifest,
            paths: walk.paths,
        },
        skipped: walk.skipped,
    })
}

/// The last name of an argument; `.` and `..` have the name of the folder that they mean.
fn top_name(argument: &Path) -> io::Result<Option<String>> {
    let name = match argument.file_name() {
        Some(name) => Some(name.to_owned()),
        None => fs::canonicalize(argument)?
            .file_name()
            .map(ToOwned::to_owned),
    };
    Ok(name.and_then(|name| name.into_string().ok()))
}

/// Size, time and mode as they go into the list.
pub(super) fn file_kind(metadata: &Metadata) -> Kind {
    Kind::File {
        size: metadata.len(),
        modified: metadata.modified().map_or(
            Modified {
                seconds: 0,
                nanos: 0,
            },
            Modified::from_system,
        ),
        executable: is_executable(metadata),
    }
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_metadata: &Metadata) -> bool {
    false
}

#[derive(Default)]
struct Walk {
    entries: Vec<Entry>,
    paths: Vec<PathBuf>,
    skipped: Vec<String>,
}

impl Walk {
    /// Adds a file or a whole folder. It keeps its own stack, so that no depth of folders can
    /// exhaust the program's.
    fn add(&mut self, name: String, path: PathBuf, metadata: &Metadata) {
        if metadata.is_file() {
            self.push(name, path, file_kind(metadata));
            return;
        }
        self.push(name.clone(), path.clone(), Kind::Folder);
        let mut folders = vec![(name, path)];
        while let Some((prefix, folder)) = folders.pop() {
            let mut inside = self.list(&folder);
            inside.sort();
            for local in inside {
                if let Some(found) = self.look(&prefix, &local) {
                    folders.push((found, local));
                }
            }
        }
    }

    fn push(&mut self, name: String, path: PathBuf, kind: Kind) {
        self.entries.push(Entry { path: name, kind });
        self.paths.push(path);
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.skipped
            .push(format!("{} is not sent: it {why}", path.display()));
    }

    fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        let listed = fs::read_dir(folder)
            .and_then(|items| items.map(|item| item.map(|item| item.path())).collect());
        listed.unwrap_or_else(|error| {
            self.skip(folder, &format!("cannot be read ({error})"));
            Vec::new()
        })
    }

    /// Adds one item of a folder; gives its path in the list when it is a folder itself.
    fn look(&mut self, prefix: &str, local: &Path) -> Option<String> {
        let Some(name) = local.file_name().and_then(|name| name.to_str()) else {
            self.skip(local, "has a name that is not UTF-8");
            return None;
        };
        let path = format!("{prefix}/{name}");
        if let Err(why) = names::check_path(&path) {
            self.skip(local, why);
            return None;
        }
        let metadata = match fs::symlink_metadata(local) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.skip(local, &format!("cannot be read ({error})"));
                return None;
            }
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            self.skip(local, "is a symbolic link");
        } else if kind.is_file() {
            self.push(path, local.to_owned(), file_kind(&metadata));
        } else if kind.is_dir() {
            self.push(path.clone(), local.to_owned(), Kind::Folder);
            return Some(path);
        } else {
            self.skip(local, "is neither a file nor a folder");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(walked: &Walked) -> Vec<&str> {
        walked
            .source
            .manifest
            .entries()
            .iter()
            .map(|entry| entry.path.as_str())
            .collect()
    }

    #[test]
    fn folders_are_walked_in_the_order_of_names() {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("b/deep")).expect("created");
        fs::create_dir(top.join("empty")).expect("created");
        for file in ["c", "a", "b/deep/x", "b/y"] {
            fs::write(top.join(file), file).expect("written");
        }
        fs::write(dir.path().join("single"), "12345").expect("written");
        let walked = walk(&[top, dir.path().join("single")]).expect("walks");
        assert_eq!(
            paths(&walked),
            [
                "top",
                "top/a",
                "top/b",
                "top/c",
                "top/empty",
                "top/b/deep",
                "top/b/y",
                "top/b/deep/x",
                "single"
            ]
        );
        assert_eq!(walked.source.manifest.files(), 5);
        assert!(walked.skipped.is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_sockets_and_unusable_names_are_left_out_with_a_warning() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().join("top");
        fs::create_dir(&top).expect("created");
        std::os::unix::fs::symlink("/etc/passwd", top.join("link")).expect("linked");
        std::os::unix::fs::symlink("..", top.join("loop")).expect("linked");
        let _socket = std::os::unix::net::UnixListener::bind(top.join("sock")).expect("bound");
        fs::write(top.join(std::ffi::OsStr::from_bytes(b"\xff")), "").expect("written");
        fs::write(top.join("a\nb"), "").expect("written");
        fs::write(top.join(".x.wiremesh-part"), "").expect("written");
        fs::write(top.join("good"), "").expect("written");
        let walked = walk(std::slice::from_ref(&top)).expect("walks");
        assert_eq!(paths(&walked), ["top", "top/good"]);
        assert_eq!(walked.skipped.len(), 6, "{:#?}", walked.skipped);
    }

    #[test]
    fn arguments_that_cannot_be_sent_are_errors() {
        let dir = tempfile::tempdir().expect("a folder");
        let one = dir.path().join("one");
        fs::create_dir_all(one.join("same")).expect("created");
        fs::create_dir(dir.path().join("same")).expect("created");
        let missing = walk(&[dir.path().join("missing")]);
        assert!(matches!(missing, Err(WalkError::Unreadable { .. })));
        let twice = walk(&[one.join("same"), dir.path().join("same")]);
        assert!(matches!(twice, Err(WalkError::SameName(name)) if name == "same"));
        let device = walk(&["/dev/null".into()]);
        assert!(matches!(device, Err(WalkError::NeitherFileNorFolder(_))));
        assert!(matches!(walk(&["/".into()]), Err(WalkError::NoName { .. })));
    }

    #[test]
    fn dots_have_the_name_of_the_folder_that_they_mean() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("outer/inner")).expect("created");
        let walked = walk(&[dir.path().join("outer/inner/..")]).expect("walks");
        assert_eq!(paths(&walked), ["outer", "outer/inner"]);
    }
}
