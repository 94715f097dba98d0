//! Client of the configuration protocol of user-space WireGuard: `set=1` and `get=1` with
//! `key=value` lines over a Unix socket (wireguard.com/xplatform).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::outcome::{Outcome, fail};

/// Where user-space WireGuard programs put their sockets.
pub const FOLDER: &str = "/var/run/wireguard";

/// The socket of one interface.
pub fn socket_path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.sock"))
}

/// Sends settings; succeeds if the program answers `errno=0`.
pub fn set(interface: &str, settings: &[(&str, String)]) -> Outcome {
    let mut request = String::from("set=1\n");
    for (key, value) in settings {
        request.push_str(&format!("{key}={value}\n"));
    }
    request.push('\n');
    exchange(interface, &request).map(drop)
}

/// Asks for the whole state.
pub fn fetch(interface: &str) -> Outcome<Vec<(String, String)>> {
    exchange(interface, "get=1\n\n")
}

fn exchange(interface: &str, request: &str) -> Outcome<Vec<(String, String)>> {
    let mut stream = UnixStream::connect(socket_path(interface))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut pairs = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let Some((key, value)) = line.split_once('=') else {
            break;
        };
        if key != "errno" {
            pairs.push((key.to_owned(), value.to_owned()));
        } else if value == "0" {
            return Ok(pairs);
        } else {
            return fail(format!("{interface} refused the settings: errno={value}"));
        }
    }
    fail(format!("{interface} ended its answer without errno"))
}
