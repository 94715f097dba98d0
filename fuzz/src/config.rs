//! Configuration files, ours and `wg0.conf`: an error names the place and shows no secret; what
//! is accepted keeps its promises.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use wiremesh_cli::config;

/// A folder with a key file named `key`, so that inputs get past the key.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/config");
    let key = folder.join("key");
    if !key.exists() {
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        let secret = wiremesh_wire::SecretKey::from_bytes([7; 32]);
        wiremesh_cli::keys::create(&key, &secret).expect("a key file can be written");
    }
    folder
});

/// Parses a file; without an ending in its name, the first section decides about its form.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // A path to a terminal or a pipe would wait for somebody.
    if text.contains("dev") {
        return;
    }
    match config::parse(text, &FOLDER.join("config")) {
        Ok(config) => {
            assert!(config.mtu_bytes >= config::MIN_MTU);
            for peer in &config.peers {
                assert!(!peer.label().is_empty());
                let seconds = peer.keepalive.map(|every| every.as_secs());
                assert!(seconds.is_none_or(|seconds| (1..=65_535).contains(&seconds)));
            }
        }
        Err(failure) => assert!(!failure.what.is_empty() && failure.place.is_some()),
    }
}
