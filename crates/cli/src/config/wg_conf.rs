//! Reads an existing `wg0.conf`, as `wg-quick` uses it.
//!
//! Owns the grammar of that file: sections, `key = value`, `#` comments, case-insensitive keys.
//! It never runs what such a file would run as root; it warns about every line that it ignores.

use super::{Admission, Config, DEFAULT_MTU, Log, OwnAddress, Peer, check_mtu, everywhere};
use crate::failure::{Failure, Place};
use crate::{folders, suggest};
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use wiremesh::{EgressConfig, Endpoint, IpNet, NodeId, Policy, PresharedKey, SecretKey};

const INTERFACE_KEYS: [&str; 12] = [
    "PrivateKey",
    "ListenPort",
    "Address",
    "MTU",
    "DNS",
    "Table",
    "FwMark",
    "SaveConfig",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
];

const PEER_KEYS: [&str; 5] = [
    "PublicKey",
    "PresharedKey",
    "AllowedIPs",
    "Endpoint",
    "PersistentKeepalive",
];

/// One `key = value`.
struct Line<'a> {
    key: &'static str,
    value: &'a str,
    place: Place,
}

impl Line<'_> {
    fn wrong(&self, why: impl Display) -> Failure {
        Failure::input(format!("{}: {why}", self.key)).at(&self.place)
    }

    fn parsed<T: FromStr<Err: Display>>(&self, text: &str, form: &str) -> Result<T, Failure> {
        text.parse().map_err(|error| {
            self.wrong(format_args!("{text:?}: {error}"))
                .fix(format!("it looks like this: {} = {form}", self.key))
        })
    }

    /// For keys: the error shows nothing of the value.
    fn secret<T: FromStr<Err: Display>>(&self) -> Result<T, Failure> {
        self.value.parse().map_err(|error| {
            self.wrong(error)
                .fix("it must be 44 characters of base64, as `wg` shows keys")
        })
    }

    fn items(&self) -> impl Iterator<Item = &str> {
        self.value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
    }
}

/// A section and its lines.
struct Section<'a> {
    place: Place,
    lines: Vec<Line<'a>>,
}

impl<'a> Section<'a> {
    /// The only line of a key; two are an error, where `wg` would take the last in silence.
    fn one(&self, key: &str) -> Result<Option<&Line<'a>>, Failure> {
        let mut found = self.all(key);
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            return Err(second
                .wrong(format_args!(
                    "it is there twice; the first is in line {}",
                    first.place.line
                ))
                .fix("remove one of the two"));
        }
        Ok(first)
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &Line<'a>> {
        self.lines.iter().filter(move |line| line.key == key)
    }
}

/// Parses and resolves a file.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, Failure> {
    let (interface, peers) = sections(text, path)?;
    let secret = interface.one("PrivateKey")?.ok_or_else(|| {
        Failure::input("[Interface] has no PrivateKey")
            .at(&interface.place)
            .fix("add the line PrivateKey = ... with what `wg genkey` prints")
    })?;
    let secret_key: SecretKey = secret.secret()?;
    let port = match interface.one("ListenPort")? {
        Some(line) => line.parsed(line.value, "51820")?,
        None => 0,
    };
    let mut addresses = Vec::new();
    for line in interface.all("Address") {
        for item in line.items() {
            let OwnAddress(address, net) = line.parsed(item, "10.0.0.2/24, fd00::2/64")?;
            addresses.push((address, net));
        }
    }
    let mtu_bytes = match interface.one("MTU")? {
        Some(line) => check_mtu(line.parsed(line.value, "1420")?).map_err(|why| line.wrong(why))?,
        None => DEFAULT_MTU,
    };
    Ok(Config {
        file: path.to_owned(),
        secret_key,
        listen: everywhere(port),
        network: String::new(),
        admission: Admission::AllowList,
        // The peers of such a file are stock WireGuard, at L1; there is no field for more.
        policy: Policy::default(),
        addresses,
        advertise: Vec::new(),
        mtu_bytes,
        state_dir: folders::state()?,
        control_socket: folders::control_socket()?,
        log: Log::Info,
        egress: EgressConfig::default(),
        udp_echo_port: None,
        peers: peers.iter().map(peer).collect::<Result<_, _>>()?,
        warnings: interface.lines.iter().filter_map(ignored).collect(),
    })
}

/// Says why a line has no effect.
fn ignored(line: &Line<'_>) -> Option<String> {
    let why = match line.key {
        "PreUp" | "PostUp" | "PreDown" | "PostDown" => {
            "is not run: wiremesh runs no commands of a configuration file"
        }
        "DNS" => "is ignored: a node without root changes no resolver of the system",
        "Table" => "is ignored: a node without root sets no routes of the system",
        "FwMark" => "is ignored: a node without root cannot mark its packets",
        "SaveConfig" => "is ignored: wiremesh never writes to this file",
        _ => return None,
    };
    Some(format!("{}: {} {why}", line.place, line.key))
}

fn peer(section: &Section<'_>) -> Result<Peer, Failure> {
    let key = section.one("PublicKey")?.ok_or_else(|| {
        Failure::input("a [Peer] has no PublicKey")
            .at(&section.place)
            .fix("add the line PublicKey = ... with the peer's public key")
    })?;
    let node_id: NodeId = key.parsed(key.value, "44 characters, as `wg pubkey` prints")?;
    let preshared_key = match section.one("PresharedKey")? {
        Some(line) => line.secret()?,
        None => PresharedKey::default(),
    };
    let endpoints = match section.one("Endpoint")? {
        Some(line) => vec![line.parsed::<Endpoint>(line.value, "host.example:51820")?],
        None => Vec::new(),
    };
    let keepalive = match section.one("PersistentKeepalive")? {
        None => None,
        Some(line) if line.value.eq_ignore_ascii_case("off") => None,
        Some(line) => match line.parsed::<u16>(line.value, "25")? {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        },
    };
    let mut allowed_ips = Vec::new();
    for line in section.all("AllowedIPs") {
        for item in line.items() {
            let net: IpNet = line.parsed(item, "10.0.0.0/24, fd00::/64")?;
            allowed_ips.push((net, line.place.clone()));
        }
    }
    Ok(Peer {
        name: None,
        node_id,
        endpoints,
        preshared_key,
        allowed_ips,
        keepalive,
        minimum: None,
        stock: true,
        place: key.place.clone(),
    })
}

/// Splits the text into the interface and its peers.
fn sections<'a>(text: &'a str, path: &Path) -> Result<(Section<'a>, Vec<Section<'a>>), Failure> {
    let mut interface: Option<Section<'a>> = None;
    let mut peers: Vec<Section<'a>> = Vec::new();
    let mut in_peer = false;
    for (index, raw) in text.lines().enumerate() {
        let content = raw.split('#').next().unwrap_or(raw);
        let column = content.chars().take_while(|c| c.is_whitespace()).count() + 1;
        let place = Place {
            file: path.to_owned(),
            line: index + 1,
            column,
        };
        let content = content.trim();
        if content.is_empty() {
            continue;
        }
        if content.starts_with('[') {
            in_peer = section_name(content, &place)?;
            let fresh = Section {
                place,
                lines: Vec::new(),
            };
            if in_peer {
                peers.push(fresh);
            } else if let Some(first) = &interface {
                return Err(Failure::input("there is a second [Interface]")
                    .at(format!("{} and line {}", fresh.place, first.place.line))
                    .fix("put its lines under the first"));
            } else {
                interface = Some(fresh);
            }
            continue;
        }
        let section = if in_peer {
            peers.last_mut()
        } else {
            interface.as_mut()
        };
        let Some(section) = section else {
            return Err(Failure::input("there is a line before the first section")
                .at(place)
                .fix("begin with a line [Interface]"));
        };
        let known: &[&'static str] = if in_peer { &PEER_KEYS } else { &INTERFACE_KEYS };
        section.lines.push(line(content, known, place)?);
    }
    let interface = interface.ok_or_else(|| {
        Failure::input("there is no [Interface]")
            .at(path.display())
            .fix("add the line [Interface]")
    })?;
    Ok((interface, peers))
}

/// Whether a section is a peer.
fn section_name(content: &str, place: &Place) -> Result<bool, Failure> {
    if content.eq_ignore_ascii_case("[interface]") {
        return Ok(false);
    }
    if content.eq_ignore_ascii_case("[peer]") {
        return Ok(true);
    }
    Err(Failure::input(format!("unknown section {content}"))
        .at(place)
        .fix(suggest::remedy(content, &["[Interface]", "[Peer]"])))
}

fn line<'a>(content: &'a str, known: &[&'static str], place: Place) -> Result<Line<'a>, Failure> {
    // Such a line may be a pasted secret, of which base64 ends with `=`: it is not shown.
    let is_name =
        |key: &str| key.len() < 32 && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let parts = content
        .split_once('=')
        .map(|(key, value)| (key.trim(), value.trim()));
    let Some((key, value)) = parts.filter(|(key, _)| is_name(key)) else {
        return Err(Failure::input("a line is not of the form `Key = value`").at(place));
    };
    match known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
        Some(name) => Ok(Line {
            key: name,
            value,
            place,
        }),
        None => Err(Failure::input(format!("unknown field {key}"))
            .at(place)
            .fix(suggest::remedy(key, known))),
    }
}
