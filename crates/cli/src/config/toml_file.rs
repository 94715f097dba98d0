//! Our own configuration file.
//!
//! Owns the names of its fields and where each value stands, for errors with line and column.
//! A field that it does not know is an error, since a misspelt one would be a default in silence.

use super::{
    Admission, Config, DEFAULT_MTU, DEFAULT_PORT, DEFAULT_PROVISIONAL_MAX, Log, OwnAddress, Peer,
    check_mtu, everywhere,
};
use crate::failure::{Failure, Place};
use crate::units::{BIT_RATE_FORM, BitRate};
use crate::{folders, keys, suggest};
use serde::Deserialize;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use toml::Spanned;
use wiremesh::{
    EgressConfig, IpNet, Level, NodeId, Policy, PolicyError, PresharedKey, Priority, Stage, Ticket,
    network_id,
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Node,
    #[serde(default)]
    security: Security,
    #[serde(default)]
    egress: Egress,
    #[serde(default)]
    echo: Echo,
    #[serde(default)]
    peer: Vec<Spanned<RawPeer>>,
}

type Text = Spanned<String>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Node {
    key: Option<Text>,
    listen: Option<Vec<Text>>,
    network: Option<Text>,
    admission: Option<Text>,
    provisional_max: Option<Spanned<u32>>,
    addresses: Option<Vec<Text>>,
    advertise: Option<Vec<Text>>,
    mtu: Option<Spanned<u64>>,
    state_dir: Option<Text>,
    control_socket: Option<Text>,
    log: Option<Log>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Security {
    minimum: Option<Text>,
    stage: Option<Text>,
    static_kem: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Egress {
    rate: Option<Text>,
    shares: Option<Spanned<Shares>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Shares {
    urgent: Option<Spanned<u64>>,
    normal: Option<Spanned<u64>>,
    bulk: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Echo {
    udp_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawPeer {
    name: Option<Text>,
    id: Option<Text>,
    ticket: Option<Text>,
    endpoint: Option<Text>,
    preshared_key_file: Option<Text>,
    allowed_ips: Option<Vec<Text>>,
    keepalive: Option<Spanned<u64>>,
    minimum: Option<Text>,
    #[serde(default)]
    stock: bool,
}

/// Parses and resolves a file; reads the key files that it names.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, Failure> {
    let file: File = toml::from_str(text).map_err(|error| toml_failure(&error, text, path))?;
    Resolve { text, path }.config(file)
}

/// Turns an error of the TOML library into one of ours.
fn toml_failure(error: &toml::de::Error, text: &str, path: &Path) -> Failure {
    let message = error.message();
    let at = error.span().map_or(0, |span| span.start);
    let failure = Failure::input(message.lines().next().unwrap_or(message))
        .at(Place::of_byte(path, text, at));
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(word) = quoted.next()
    {
        let known: Vec<&str> = quoted.collect();
        return Failure {
            what: format!("unknown field `{word}`"),
            ..failure
        }
        .fix(suggest::remedy(word, &known));
    }
    if message.starts_with("unknown variant")
        && let Some(word) = quoted.next()
    {
        let known: Vec<&str> = quoted.collect();
        return Failure {
            what: format!("`{word}` is not possible here"),
            ..failure
        }
        .fix(suggest::remedy(word, &known));
    }
    failure.fix("wiremesh config prints a file with every field and its form")
}

/// How to mend a policy that contradicts itself.
pub(crate) fn policy_remedy(error: PolicyError) -> &'static str {
    match error {
        PolicyError::NothingListed { .. } => {
            "to speak with old nodes set minimum = \"L1\"; else set stage = \"both\""
        }
        PolicyError::NoStaticKey => "add static-kem = true to [security]",
        _ => "wiremesh config prints a file with every field and its form",
    }
}

/// Whether a peer can be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=63).contains(&name.len()) && name.bytes().all(fits)
}

struct Resolve<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Resolve<'_> {
    fn place<T>(&self, value: &Spanned<T>) -> Place {
        Place::of_byte(self.path, self.text, value.span().start)
    }

    fn wrong<T>(&self, field: &str, value: &Spanned<T>, why: impl Display) -> Failure {
        Failure::input(format!("`{field}`: {why}")).at(self.place(value))
    }

    fn parsed<T>(&self, field: &str, value: &Text, form: &str) -> Result<T, Failure>
    where
        T: FromStr<Err: Display>,
    {
        let text = value.get_ref();
        text.parse().map_err(|error| {
            self.wrong(field, value, format_args!("{text:?}: {error}"))
                .fix(format!("it looks like this: {form}"))
        })
    }

    fn list<T>(&self, field: &str, values: Option<&[Text]>, form: &str) -> Result<Vec<T>, Failure>
    where
        T: FromStr<Err: Display>,
    {
        let values = values.unwrap_or_default();
        values
            .iter()
            .map(|value| self.parsed(field, value, form))
            .collect()
    }

    /// Adds the line to an error of a file that this file names.
    fn named_in(&self, value: &Text) -> impl Fn(Failure) -> Failure {
        let here = self.place(value);
        move |failure| {
            let place = failure.place.clone().unwrap_or_default();
            failure.at(format!("{place}, named in {here}"))
        }
    }

    /// The name of a file with a key; a key that stands there itself is shown nowhere.
    fn secret_file(&self, value: &Text) -> Result<PathBuf, Failure> {
        match value.get_ref().parse::<PresharedKey>() {
            Ok(_) => Err(
                Failure::input("a key is here, and not the name of its file")
                    .at(self.place(value))
                    .fix("write the key to a file that only you can read, and name that"),
            ),
            Err(_) => Ok(folders::resolve(value.get_ref(), self.path)),
        }
    }

    fn file(&self, value: Option<&Text>) -> Option<PathBuf> {
        value.map(|value| folders::resolve(value.get_ref(), self.path))
    }

    fn config(&self, file: File) -> Result<Config, Failure> {
        let node = file.node;
        let secret_key = match &node.key {
            Some(value) => {
                let path = self.secret_file(value)?;
                keys::read(&path).map_err(self.named_in(value))?
            }
            None => keys::read(&keys::default_path()?)?,
        };
        let network = node
            .network
            .as_ref()
            .map(|name| name.get_ref().clone())
            .unwrap_or_default();
        let listen: Vec<SocketAddr> = self.list(
            "listen",
            node.listen.as_deref(),
            "\"0.0.0.0:51820\", \"[::]:51820\"",
        )?;
        let policy = self.policy(&file.security)?;
        let mut warnings = Vec::new();
        let mut peers = Vec::new();
        for raw in file.peer {
            peers.push(self.peer(raw, &network, policy, &mut warnings)?);
        }
        let mtu_bytes = match &node.mtu {
            None => DEFAULT_MTU,
            Some(mtu) => check_mtu(*mtu.get_ref()).map_err(|why| self.wrong("mtu", mtu, why))?,
        };
        let control_socket = match self.file(node.control_socket.as_ref()) {
            Some(path) => path,
            None => folders::control_socket()?,
        };
        let state_dir = match self.file(node.state_dir.as_ref()) {
            Some(path) => path,
            None => folders::state()?,
        };
        Ok(Config {
            file: self.path.to_owned(),
            secret_key,
            listen: if listen.is_empty() {
                everywhere(DEFAULT_PORT)
            } else {
                listen
            },
            admission: self.admission(&node)?,
            addresses: self.addresses(&node)?,
            advertise: self.list(
                "advertise",
                node.advertise.as_deref(),
                "\"host.example:51820\"",
            )?,
            network,
            policy,
            mtu_bytes,
            state_dir,
            control_socket,
            log: node.log.unwrap_or(Log::Info),
            egress: self.egress(&file.egress)?,
            udp_echo_port: file.echo.udp_port.filter(|port| *port != 0),
            peers,
            warnings,
        })
    }

    fn egress(&self, given: &Egress) -> Result<EgressConfig, Failure> {
        let mut egress = EgressConfig::default();
        if let Some(rate) = &given.rate {
            let rate: BitRate = self.parsed("rate", rate, BIT_RATE_FORM)?;
            egress.rate_bits = Some(rate.0);
        }
        let Some(shares) = &given.shares else {
            return Ok(egress);
        };
        let Shares {
            urgent,
            normal,
            bulk,
        } = shares.get_ref();
        for (class, share) in Priority::ALL.into_iter().zip([urgent, normal, bulk]) {
            let Some(share) = share else { continue };
            let percent = u8::try_from(*share.get_ref()).ok().filter(|p| *p <= 100);
            egress.shares_percent[class.index()] = percent.ok_or_else(|| {
                self.wrong(class.name(), share, "a share is from 0 to 100 percent")
                    .fix("shares = { normal = 10, bulk = 5 }")
            })?;
        }
        egress.check().map_err(|_| {
            let [urgent, normal, bulk] = egress.shares_percent;
            let sum = format_args!("{urgent} + {normal} + {bulk} percent are more than there is");
            self.wrong("shares", shares, sum)
                .fix("give classes that are not named here a share too, together at most 100")
        })?;
        Ok(egress)
    }

    fn policy(&self, given: &Security) -> Result<Policy, Failure> {
        let mut policy = Policy {
            static_kem: given.static_kem.unwrap_or_default(),
            ..Policy::default()
        };
        if let Some(minimum) = &given.minimum {
            policy.minimum = self.level("minimum", minimum)?;
        }
        if let Some(value) = &given.stage {
            let word = value.get_ref();
            policy.stage = word.parse().map_err(|_| {
                let known = Stage::ALL.map(Stage::name);
                self.wrong("stage", value, format_args!("{word:?} is no stage"))
                    .fix(suggest::remedy(word, &known))
            })?;
        }
        policy.suites().map_err(|error| {
            let (field, value) = match error {
                PolicyError::NothingListed { .. } => ("stage", given.stage.as_ref()),
                _ => ("minimum", given.minimum.as_ref()),
            };
            let failure = match value.or(given.minimum.as_ref()) {
                Some(value) => self.wrong(field, value, error),
                None => Failure::input(error.to_string()).at(self.path.display()),
            };
            failure.fix(policy_remedy(error))
        })?;
        Ok(policy)
    }

    fn level(&self, field: &str, value: &Text) -> Result<Level, Failure> {
        let text = value.get_ref();
        text.parse().map_err(|error| {
            self.wrong(field, value, format_args!("{text:?}: {error}"))
                .fix("\"L1\" is WireGuard as it is, \"L2\" post-quantum, \"L3\" with static keys too")
        })
    }

    /// The least level of a peer's own, which can only be above the node's.
    fn peer_minimum(
        &self,
        raw: &RawPeer,
        policy: Policy,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Level>, Failure> {
        let Some(value) = &raw.minimum else {
            return Ok(None);
        };
        let level = self.level("minimum", value)?;
        if raw.stock && level > Level::Classical {
            return Err(self
                .wrong("minimum", value, "a stock WireGuard peer reaches L1 only")
                .fix("remove `minimum`, or `stock = true`"));
        }
        let own = Policy {
            minimum: policy.minimum.max(level),
            ..policy
        };
        own.suites().map_err(|error| {
            self.wrong("minimum", value, error)
                .fix(policy_remedy(error))
        })?;
        if level < policy.minimum && !raw.stock {
            warnings.push(format!(
                "{}: minimum = \"{level}\" has no effect: the node demands {} of every peer that is \
                 not marked as stock",
                self.place(value),
                policy.minimum
            ));
        }
        Ok(Some(level))
    }

    fn addresses(&self, node: &Node) -> Result<Vec<(IpAddr, IpNet)>, Failure> {
        let own: Vec<OwnAddress> =
            self.list("addresses", node.addresses.as_deref(), "\"10.0.0.2/24\"")?;
        Ok(own
            .into_iter()
            .map(|OwnAddress(address, net)| (address, net))
            .collect())
    }

    fn admission(&self, node: &Node) -> Result<Admission, Failure> {
        let known = ["allow-list", "allow-all"];
        let provisional_max = node
            .provisional_max
            .as_ref()
            .map_or(DEFAULT_PROVISIONAL_MAX, |max| *max.get_ref());
        match node
            .admission
            .as_ref()
            .map(|value| (value, value.get_ref().as_str()))
        {
            None | Some((_, "allow-list")) => match &node.provisional_max {
                Some(max) => Err(self
                    .wrong(
                        "provisional-max",
                        max,
                        "it has a meaning only with `allow-all`",
                    )
                    .fix("remove it, or set admission = \"allow-all\"")),
                None => Ok(Admission::AllowList),
            },
            Some((_, "allow-all")) => Ok(Admission::AllowAll { provisional_max }),
            Some((value, word)) => Err(self
                .wrong("admission", value, format_args!("{word:?} is not possible"))
                .fix(suggest::remedy(word, &known))),
        }
    }

    fn peer(
        &self,
        spanned: Spanned<RawPeer>,
        network: &str,
        policy: Policy,
        warnings: &mut Vec<String>,
    ) -> Result<Peer, Failure> {
        let place = self.place(&spanned);
        let raw = spanned.into_inner();
        let id: Option<NodeId> = match &raw.id {
            None => None,
            Some(id) => Some(self.parsed("id", id, "44 characters, as `wg pubkey` shows")?),
        };
        let mut endpoints = Vec::new();
        if let Some(endpoint) = &raw.endpoint {
            endpoints.push(self.parsed("endpoint", endpoint, "\"host.example:51820\"")?);
        }
        let mut ticket_id = None;
        if let Some(text) = &raw.ticket {
            let ticket: Ticket = self.ticket(text)?;
            if ticket.network != network_id(network) {
                return Err(self
                    .wrong("ticket", text, "it is for another network than this node's")
                    .fix("set [node] network to the name of the ticket's network"));
            }
            if id.is_some_and(|id| id != ticket.node_id) {
                return Err(self
                    .wrong("ticket", text, "it is for another node than `id` says")
                    .fix("remove `id`; the ticket is enough"));
            }
            ticket_id = Some(ticket.node_id);
            endpoints.extend(ticket.endpoints.iter().cloned());
        }
        let Some(node_id) = id.or(ticket_id) else {
            return Err(Failure::input("a peer has neither `id` nor `ticket`")
                .at(place)
                .fix("add id = \"...\" (its public key) or ticket = \"wm...\""));
        };
        let preshared_key = match &raw.preshared_key_file {
            None => PresharedKey::default(),
            Some(value) => {
                keys::read_preshared(&self.secret_file(value)?).map_err(self.named_in(value))?
            }
        };
        Ok(Peer {
            name: self.name(raw.name.as_ref())?,
            node_id,
            endpoints,
            preshared_key,
            allowed_ips: self.allowed_ips(raw.allowed_ips.as_deref().unwrap_or_default())?,
            keepalive: self.keepalive(raw.keepalive.as_ref())?,
            minimum: self.peer_minimum(&raw, policy, warnings)?,
            stock: raw.stock,
            place,
        })
    }

    /// The error shows no part of the ticket: it may hold a secret.
    fn ticket(&self, text: &Text) -> Result<Ticket, Failure> {
        text.get_ref().parse().map_err(|error| {
            self.wrong("ticket", text, error)
                .fix("copy it again from `wiremesh ticket`")
        })
    }

    fn name(&self, name: Option<&Text>) -> Result<Option<String>, Failure> {
        let Some(value) = name else { return Ok(None) };
        let name = value.get_ref();
        if is_name(name) {
            return Ok(Some(name.clone()));
        }
        Err(self
            .wrong("name", value, format_args!("{name:?} cannot be a name"))
            .fix("use 1 to 63 letters, digits and the signs - _ ."))
    }

    fn allowed_ips(&self, values: &[Text]) -> Result<Vec<(IpNet, Place)>, Failure> {
        let form = "[\"10.0.0.0/24\", \"fd00::/64\"]";
        values
            .iter()
            .map(|value| Ok((self.parsed("allowed-ips", value, form)?, self.place(value))))
            .collect()
    }

    fn keepalive(&self, seconds: Option<&Spanned<u64>>) -> Result<Option<Duration>, Failure> {
        match seconds.map(|value| (value, *value.get_ref())) {
            None | Some((_, 0)) => Ok(None),
            Some((_, seconds @ 1..=65_535)) => Ok(Some(Duration::from_secs(seconds))),
            Some((value, _)) => Err(self
                .wrong(
                    "keepalive",
                    value,
                    "it must be from 1 to 65535 seconds, or 0 for off",
                )
                .fix("25 keeps most NATs open")),
        }
    }
}
