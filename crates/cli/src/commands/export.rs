//! `wiremesh export`: a configuration for an unmodified WireGuard client.
//!
//! Owns the client's fresh keys, which are nowhere but in what it prints, and the section that our
//! configuration gets. Such a client is at level L1, and is marked so.

use crate::args::ExportArgs;
use crate::config::write::{self, Client, PeerText};
use crate::config::{self, Config, Peer};
use crate::failure::Failure;
use crate::{keys, qr, say, term};
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use wiremesh::address::overlay_address;
use wiremesh::{Endpoint, IpNet, PresharedKey};
use zeroize::Zeroizing;

pub fn run(args: ExportArgs) -> Result<(), Failure> {
    let path = args.config.clone().map_or_else(config::default_path, Ok)?;
    let config = config::load_toml(&path)?;
    let endpoint = endpoint(&args, &config)?;
    match config
        .peers
        .iter()
        .find(|peer| peer.name.as_ref() == Some(&args.peer))
    {
        Some(peer) => known(&args, &config, &endpoint, peer),
        None => fresh(&args, &config, &endpoint),
    }
}

fn endpoint(args: &ExportArgs, config: &Config) -> Result<Endpoint, Failure> {
    let known = args.endpoint.clone();
    known
        .or_else(|| config.advertise.first().cloned())
        .ok_or_else(|| {
            Failure::input("it is not known where a client reaches this node")
                .at(config.file.display())
                .fix("name it: --endpoint HOST:PORT, or `advertise` in the [node] section")
        })
}

/// A client that our configuration has: its key is its own.
fn known(
    args: &ExportArgs,
    config: &Config,
    endpoint: &Endpoint,
    peer: &Peer,
) -> Result<(), Failure> {
    if !peer.stock {
        return Err(Failure::input(format!(
            "{} is a node of wiremesh, no stock client",
            args.peer
        ))
        .at(&peer.place)
        .fix("give it a ticket: wiremesh ticket"));
    }
    if args.qr || !args.address.is_empty() {
        let what = match args.qr {
            true => "there is no QR code without the client's key, which only the client has",
            false => "the client is there already; its addresses are its `allowed-ips`",
        };
        return Err(Failure::input(what).at(&peer.place).fix(
            "remove its section and export it again, with fresh keys, or leave the option out",
        ));
    }
    let text = write::client(&Client {
        secret_key: None,
        addresses: write::client_addresses(overlay_address(&peer.node_id), peer),
        preshared_key: &peer.preshared_key,
        ..client_of(config, endpoint)?
    });
    give(args, &text)
}

/// A new client: keys, and a section in our configuration.
fn fresh(args: &ExportArgs, config: &Config, endpoint: &Endpoint) -> Result<(), Failure> {
    check_name(&args.peer)?;
    let secret_key = keys::generate()?;
    let node_id = keys::node_id(&secret_key)?;
    let mut drawn = Zeroizing::new([0; 32]);
    keys::random(&mut *drawn)?;
    let preshared_key = PresharedKey::from_bytes(*drawn);
    if let Some((own, _)) = config
        .addresses
        .iter()
        .find(|(own, _)| args.address.contains(own))
    {
        return Err(Failure::input(format!("{own} is this node's own address"))
            .at("the option --address")
            .fix("take another one, which nobody has"));
    }
    let further: Vec<IpNet> = args.address.iter().map(|one| IpNet::host(*one)).collect();
    let psk_name = format!("{}.psk", args.peer);
    let section = write::stock_peer(&PeerText {
        name: &args.peer,
        node_id,
        endpoints: &[],
        preshared_key_file: Some(&psk_name),
        allowed_ips: further.clone(),
        keepalive: 0,
    });
    let overlay = IpNet::from(overlay_address(&node_id));
    let text = write::client(&Client {
        secret_key: Some(&secret_key),
        addresses: std::iter::once(overlay).chain(further).collect(),
        preshared_key: &preshared_key,
        ..client_of(config, endpoint)?
    });
    let psk_file = config.file.with_file_name(&psk_name);
    keys::create_preshared(&psk_file, &preshared_key)?;
    let added = add_section(&config.file, &section).and_then(|replace| {
        give(args, &text)?;
        replace.commit()
    });
    if added.is_err() {
        let _ = fs::remove_file(&psk_file);
    }
    added?;
    say::note(format!(
        "{} has a new stock peer `{}`, at level L1; start the node anew for it",
        config.file.display(),
        args.peer
    ));
    Ok(())
}

fn client_of<'a>(config: &Config, endpoint: &'a Endpoint) -> Result<Client<'a>, Failure> {
    static NONE: PresharedKey = PresharedKey::from_bytes([0; 32]);
    let node_id = keys::node_id(&config.secret_key)?;
    Ok(Client {
        secret_key: None,
        addresses: Vec::new(),
        preshared_key: &NONE,
        node_id,
        allowed_ips: write::reachable(overlay_address(&node_id), &config.addresses),
        endpoint,
        mtu_bytes: config.mtu_bytes,
    })
}

/// It becomes a part of a file name.
fn check_name(name: &str) -> Result<(), Failure> {
    match config::toml_file::is_name(name) && !name.starts_with('.') {
        true => Ok(()),
        false => Err(Failure::input(format!("{name:?} cannot be a name"))
            .at("the option --peer")
            .fix("use 1 to 63 letters, digits and the signs - _ . (not first)")),
    }
}

/// A file that takes the place of another.
struct Replacement {
    fresh: PathBuf,
    file: PathBuf,
}

impl Replacement {
    fn commit(self) -> Result<(), Failure> {
        fs::rename(&self.fresh, &self.file).map_err(|error| cannot_write(&self.file, &error))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Gone already if all went well.
        let _ = fs::remove_file(&self.fresh);
    }
}

fn cannot_write(file: &Path, error: &std::io::Error) -> Failure {
    Failure::runtime(format!("cannot write the configuration: {error}")).at(file.display())
}

/// Prepares the configuration with one more section, once it is known to be good.
fn add_section(file: &Path, section: &str) -> Result<Replacement, Failure> {
    let failed = |error| cannot_write(file, &error);
    let file = fs::canonicalize(file).map_err(failed)?;
    let text = fs::read_to_string(&file).map_err(failed)?;
    let text = format!("{}\n{section}", text.trim_end());
    config::parse(&text, &file)?;
    let replacement = Replacement {
        fresh: file.with_extension(format!("toml.new-{}", std::process::id())),
        file,
    };
    let mode = fs::metadata(&replacement.file)
        .map_err(failed)?
        .permissions();
    fs::write(&replacement.fresh, text).map_err(failed)?;
    fs::set_permissions(&replacement.fresh, mode).map_err(failed)?;
    Ok(replacement)
}

/// Writes the client's configuration where it is wanted.
fn give(args: &ExportArgs, text: &str) -> Result<(), Failure> {
    if let Some(output) = &args.output {
        keys::create_private_file(output, text)?;
        say::note(format!("wrote {}", output.display()));
    }
    if args.qr {
        let columns = match std::io::stdout().is_terminal() {
            true => term::columns(),
            false => usize::MAX,
        };
        let code = qr::draw_exactly(text, columns).ok_or_else(|| {
            Failure::runtime("the terminal is too narrow for the QR code")
                .fix("make it wider, or write a file: --output FILE")
        })?;
        return say::print_code(&code);
    }
    match args.output {
        Some(_) => Ok(()),
        None => say::print(text),
    }
}
