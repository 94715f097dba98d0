//! `wiremesh import`: an existing `wg0.conf` becomes a configuration of our own.
//!
//! Owns the new files: all of them or none. It runs nothing of the old file, and says so.

use crate::args::ImportArgs;
use crate::config::write::{self, PeerText};
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::{folders, keys, say, units};
use std::fs;
use std::path::{Path, PathBuf};

pub fn run(args: ImportArgs) -> Result<(), Failure> {
    let config = config::load_wg_conf(&args.file)?;
    let folder = args.into.map_or_else(folders::config, Ok)?;
    for warning in &config.warnings {
        say::warn(warning);
    }
    let mut written = Written::default();
    write_all(&config, &folder, &mut written)?;
    written.0.clear();
    let peers = units::count(config.peers.len() as u64, "peer", "peers");
    let file = folder.join("config.toml");
    say::note(format!(
        "wrote {} with {peers}, all stock WireGuard, at level L1",
        file.display()
    ));
    let file = say::quoted(&file.to_string_lossy());
    say::note(format!("check it: wiremesh up --check --config {file}"));
    Ok(())
}

/// New files, removed again unless everything goes well.
#[derive(Default)]
struct Written(Vec<PathBuf>);

impl Drop for Written {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

fn write_all(config: &Config, folder: &Path, written: &mut Written) -> Result<(), Failure> {
    let file = folder.join("config.toml");
    if fs::symlink_metadata(&file).is_ok() {
        return Err(
            Failure::input("there is a configuration already, which is not overwritten")
                .at(file.display())
                .fix("name another folder: --into FOLDER"),
        );
    }
    let key = folder.join("key");
    keys::create(&key, &config.secret_key)?;
    written.0.push(key);
    let mut text = write::node(config);
    for (index, peer) in config.peers.iter().enumerate() {
        let name = format!("peer{}", index + 1);
        let psk = format!("{name}.psk");
        let has_psk = !peer.preshared_key.is_zero();
        if has_psk {
            keys::create_preshared(&folder.join(&psk), &peer.preshared_key)?;
            written.0.push(folder.join(&psk));
        }
        text.push_str(&write::stock_peer(&PeerText {
            name: &name,
            node_id: peer.node_id,
            endpoints: &peer.endpoints,
            preshared_key_file: has_psk.then_some(psk.as_str()),
            allowed_ips: peer.allowed_ips.iter().map(|(net, _)| *net).collect(),
            keepalive: peer.keepalive.unwrap_or_default().as_secs(),
        }));
    }
    keys::create_private_file(&file, &text)?;
    written.0.push(file.clone());
    config::load(&file).map(drop)
}
