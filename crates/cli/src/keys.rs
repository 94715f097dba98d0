//! Key files: the base64 text that `wg genkey` writes, readable by their owner only.
//!
//! Owns creation, the check of permissions, and where the default file is. It never prints a
//! secret and never overwrites a file.

use crate::failure::{Exit, Failure};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use wiremesh::{KeyTextError, NodeId, PresharedKey, SecretKey};
use zeroize::{Zeroize, Zeroizing};

/// Longest key file that is read; a key has 44 characters and a line feed.
const FILE_MAX_BYTES: u64 = 1024;

/// Where the key is when nobody says otherwise.
///
/// # Errors
///
/// Neither `XDG_CONFIG_HOME` nor `HOME` is set.
pub fn default_path() -> Result<PathBuf, Failure> {
    Ok(crate::folders::config()?.join("key"))
}

/// Draws a secret from the operating system.
///
/// # Errors
///
/// The operating system has no randomness to give.
pub fn generate() -> Result<SecretKey, Failure> {
    let mut bytes = [0u8; 32];
    random(&mut bytes)?;
    // The bits that X25519 sets anyway, so that the text equals what `wg` would store.
    bytes[0] &= 248;
    bytes[31] = (bytes[31] & 127) | 64;
    let key = SecretKey::from_bytes(bytes);
    bytes.zeroize();
    Ok(key)
}

/// Fills `bytes` with randomness of the operating system.
///
/// # Errors
///
/// The operating system has none to give.
pub fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|error| {
        Failure::runtime(format!("the operating system gives no randomness: {error}"))
    })
}

/// The node id of a secret.
///
/// # Errors
///
/// The secret's public key is not a valid node id; for a random one that never happens.
pub fn node_id(secret: &SecretKey) -> Result<NodeId, Failure> {
    wiremesh::node_id(secret).map_err(|error| {
        Failure::input(format!("this secret key cannot be used: {error}"))
            .fix("make another one: wiremesh key new")
    })
}

/// Writes a new key file; its folder is created for the owner only.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub fn create(path: &Path, secret: &SecretKey) -> Result<(), Failure> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        crate::folders::create_private(folder).map_err(|error| {
            Failure::runtime(format!("cannot create the folder: {error}")).at(folder.display())
        })?;
    }
    write_new(path, &secret.to_base64()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::input("a key file exists and is not overwritten")
            .at(path.display())
            .fix(format!(
                "use it, name another file with --key, or move it away:\nmv {0} {0}.old",
                path.display()
            )),
        _ => Failure::runtime(format!("cannot write the key file: {error}")).at(path.display()),
    })
}

/// Writes a new preshared key file, mode 0600.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub fn create_preshared(path: &Path, key: &PresharedKey) -> Result<(), Failure> {
    create_private_file(path, &key.to_base64())
}

/// Writes a new file that only its owner can read.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub fn create_private_file(path: &Path, text: &str) -> Result<(), Failure> {
    write_new(path, text.trim_end()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::input("the file exists and is not overwritten")
            .at(path.display())
            .fix("move it away, or use another name"),
        _ => Failure::runtime(format!("cannot write the file: {error}")).at(path.display()),
    })
}

/// The file appears whole or not at all: written beside its place, synced, then linked to its
/// name, which fails when the name is taken.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = path.with_file_name(name);
    let written = private_file(&fresh).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&fresh, path));
    let _ = fs::remove_file(&fresh);
    linked
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Reads a secret key file.
///
/// # Errors
///
/// It is missing, can be read by others, or is not a key.
pub fn read(path: &Path) -> Result<SecretKey, Failure> {
    read_secret(path, "key file", "wiremesh key new --key")
}

/// Reads a preshared key file.
///
/// # Errors
///
/// As [`read`].
pub fn read_preshared(path: &Path) -> Result<PresharedKey, Failure> {
    read_secret(path, "preshared key file", "wg genpsk >")
}

fn read_secret<T>(path: &Path, what: &str, make: &str) -> Result<T, Failure>
where
    T: FromStr<Err = KeyTextError>,
{
    let unreadable = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let failure = Failure {
            exit: Exit::Input,
            ..Failure::input(if missing {
                format!("the {what} does not exist")
            } else {
                format!("cannot read the {what}: {error}")
            })
        };
        let failure = failure.at(path.display());
        if missing {
            failure.fix(format!("make one: {make} {}", path.display()))
        } else {
            failure
        }
    };
    let file = File::open(path).map_err(unreadable)?;
    check_private(&file.metadata().map_err(unreadable)?).map_err(|mode| {
        Failure::input(format!("others can read the {what} (mode {mode:04o})"))
            .at(path.display())
            .fix(format!("chmod 600 {}", path.display()))
    })?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    file.take(FILE_MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    text.parse().map_err(|error: KeyTextError| {
        Failure::input(format!("the {what} holds no key: {error}"))
            .at(path.display())
            .fix("it must hold one line of base64, as `wg genkey` writes it")
    })
}

/// Whether only the owner may read; otherwise the mode.
#[cfg(unix)]
pub fn check_private(metadata: &fs::Metadata) -> Result<(), u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    // A pipe or a descriptor, as in <(pass show key), is the caller's own affair.
    if metadata.is_file() && mode & 0o077 != 0 {
        Err(mode)
    } else {
        Ok(())
    }
}

/// Whether only the owner may read; otherwise the mode.
#[cfg(not(unix))]
pub fn check_private(_metadata: &fs::Metadata) -> Result<(), u32> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn new_key_is_private_and_reads_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("deep/er/key");
        let secret = generate().expect("random");
        create(&path, &secret).expect("created");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        let folder = path.parent().expect("has one");
        assert_eq!(
            fs::metadata(folder).expect("there").permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::read_dir(folder).expect("lists").count(), 1);
        assert!(read(&path).expect("reads") == secret);
        let text = fs::read_to_string(&path).expect("reads");
        assert_eq!((text.len(), text.ends_with("=\n")), (45, true));
    }

    #[test]
    fn existing_file_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        fs::write(&path, "precious").expect("written");
        let failure = create(&path, &generate().expect("random")).expect_err("refuses");
        assert_eq!(failure.exit, Exit::Input);
        assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
        let dangling = dir.path().join("dangling");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &dangling).expect("linked");
        assert!(create(&dangling, &generate().expect("random")).is_err());
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn file_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        create(&path, &generate().expect("random")).expect("created");
        for mode in [0o640, 0o604, 0o666, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let failure = read(&path).expect_err("refuses");
            let fix = failure.fix.expect("a remedy");
            assert_eq!(fix, format!("chmod 600 {}", path.display()));
            assert!(failure.what.contains(&format!("{mode:o}")));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("set");
        assert!(read(&path).is_ok());
    }

    #[test]
    fn wrong_files_say_what_is_wrong_and_never_what_they_hold() {
        let dir = tempfile::tempdir().expect("a folder");
        let missing = read(&dir.path().join("missing")).expect_err("missing");
        assert!(
            missing
                .fix
                .expect("a remedy")
                .contains("wiremesh key new --key")
        );
        let path = dir.path().join("key");
        for text in [
            "",
            "hunter2hunter2",
            "hunter2 hunter2 hunter2 hunter2 hunter2 hunt",
        ] {
            let _ = fs::remove_file(&path);
            private_file(&path)
                .expect("new")
                .write_all(text.as_bytes())
                .expect("written");
            let failure = read(&path).expect_err("not a key");
            assert_eq!(failure.exit, Exit::Input);
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
        }
    }

    #[test]
    fn known_secret_has_the_public_key_that_wg_shows() {
        // RFC 7748 section 6.1, Alice.
        let secret: SecretKey = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
            .parse()
            .expect("a key");
        let id = node_id(&secret).expect("valid");
        assert_eq!(
            id.to_string(),
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
        );
    }
}
