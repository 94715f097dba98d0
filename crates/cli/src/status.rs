//! What `wiremesh status` shows.
//!
//! Owns the JSON form, which scripts rely on (fields are added, never renamed), and the table for
//! people.

mod egress;

use crate::security::{PinForm, PolicyForm, ago};
use crate::table::{Cell, Table};
use crate::term::{Colour, Style};
use crate::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wiremesh::{NodeStatus, PeerState, PeerStatus};

pub use egress::{Class, Egress};

/// A running node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this form; it changes only when a field changes its meaning.
    pub version: u32,
    /// Process id.
    pub pid: u32,
    /// Seconds since the node started.
    pub uptime_seconds: u64,
    /// Its key, base64.
    pub node_id: String,
    /// Name of its network.
    pub network: String,
    /// Its ticket.
    pub ticket: String,
    /// Its security policy.
    pub policy: Option<PolicyForm>,
    /// Its addresses inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Where its UDP sockets listen.
    pub listen: Vec<SocketAddr>,
    /// `rootless`, `tun` or `kernel`: who runs WireGuard, and who can use it.
    #[serde(default)]
    pub mode: String,
    /// The interface through which the host's programs reach the peers, if there is one.
    #[serde(default)]
    pub interface: Option<String>,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Its peers.
    pub peers: Vec<Peer>,
    /// What waits before it is sent, by class.
    #[serde(default)]
    pub egress: Egress,
    /// What was dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// The latest nodes that were turned away, newest last.
    pub refused: Vec<Refused>,
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No session, none wanted.
    Idle,
    /// A handshake is under way.
    Handshaking,
    /// Its first data is awaited.
    AwaitingConfirmation,
    /// A session is live.
    Connected,
    /// Data was sent and nothing comes back.
    Silent,
    /// The last attempt was given up.
    NoAnswer,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its key, base64.
    pub node_id: String,
    /// Its name in the configuration.
    pub name: Option<String>,
    /// Whether it is a stock WireGuard peer.
    pub stock: bool,
    /// Whether it is a stranger that admission let in.
    pub provisional: bool,
    /// Its overlay address.
    pub address: IpAddr,
    /// Its further prefixes.
    pub allowed_ips: Vec<String>,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// Where it stands.
    pub state: State,
    /// Why it is not connected, or not at the level that is required.
    pub reason: Option<String>,
    /// The level at which application data travels: `L1`, `L2` or `L3`; `null` while it cannot.
    pub level: Option<String>,
    /// The suite in which it travels, such as `0x0002`.
    pub suite: Option<String>,
    /// Since when the level is reached, seconds since 1970.
    pub level_since_unix: Option<u64>,
    /// Epoch of the preshared key of the session in use; 0 is the configured one, or none.
    pub psk_epoch: Option<u32>,
    /// Whether stream packets travel without IP and UDP headers to it.
    #[serde(default)]
    pub bare_streams: bool,
    /// When that key was agreed on, seconds since 1970.
    pub last_rotation_unix: Option<u64>,
    /// The level that application data needs; `null` for a stranger that is not admitted yet.
    pub required: Option<String>,
    /// What is remembered of it for good.
    pub pin: Option<PinForm>,
    /// What it waits for to reach the level.
    pub waiting: Option<Waiting>,
    /// Age of the session.
    pub session_age_seconds: Option<f64>,
    /// Time of the last handshake, seconds since 1970.
    pub last_handshake_unix: Option<u64>,
    /// How long that took, when this node initiated it.
    pub handshake_ms: Option<f64>,
    /// Time since something authenticated came in.
    pub last_received_seconds: Option<f64>,
    /// UDP payload received.
    pub rx_bytes: u64,
    /// UDP payload sent.
    pub tx_bytes: u64,
}

/// What a peer waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// In words.
    pub reason: String,
    /// Since when, seconds since 1970.
    pub since_unix: u64,
}

/// A node that was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its key, base64.
    pub node_id: String,
    /// Where it asked from.
    pub source: SocketAddr,
    /// When, seconds since 1970.
    pub unix: u64,
    /// Why.
    pub reason: String,
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

impl Status {
    /// Takes a snapshot of the library.
    pub fn new(status: &NodeStatus, ticket: String, uptime: Duration) -> Self {
        Self {
            version: 1,
            pid: std::process::id(),
            uptime_seconds: uptime.as_secs(),
            node_id: status.node_id.to_string(),
            network: status.network.clone(),
            ticket,
            policy: Some(PolicyForm::new(&status.policy)),
            addresses: status.addresses.clone(),
            listen: status.listen.clone(),
            mode: status.mode.to_string(),
            interface: status.device.clone(),
            handshakes: status.handshakes,
            peers: status.peers.iter().map(Peer::new).collect(),
            egress: Egress::new(&status.egress),
            dropped: status
                .dropped
                .iter()
                .map(|(why, n)| ((*why).to_owned(), *n))
                .collect(),
            refused: status
                .refusals
                .iter()
                .map(|refusal| Refused {
                    node_id: refusal.node_id.to_string(),
                    source: refusal.source,
                    unix: unix(refusal.time),
                    reason: refusal.reason.clone(),
                })
                .collect(),
        }
    }

    /// Draws it for people.
    pub fn draw(&self, style: Style, now: SystemTime) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let strings = |items: &[IpAddr]| items.iter().map(ToString::to_string).collect();
        let mut text = String::new();
        let mut line = |title: &str, value: &str| {
            let title = style.paint(Colour::Strong, &format!("{title:9}"));
            text += &format!("{title} {value}\n");
        };
        line("node", &self.node_id);
        if !self.network.is_empty() {
            line("network", &self.network);
        }
        line("address", &list(strings(&self.addresses)));
        line(
            "listen",
            &list(self.listen.iter().map(ToString::to_string).collect()),
        );
        line("mode", &self.mode);
        if let Some(interface) = &self.interface {
            line("interface", interface);
        }
        let up = units::span(Duration::from_secs(self.uptime_seconds));
        line(
            "up",
            &format!(
                "{up}, {}",
                units::count(self.handshakes, "handshake", "handshakes")
            ),
        );
        if let Some(policy) = &self.policy {
            line(
                "policy",
                &format!("minimum {}, stage {}", policy.minimum, policy.stage),
            );
        }
        line("egress", &self.egress.pace());
        text.push('\n');
        if self.peers.is_empty() {
            text += "no peers\n";
        } else {
            text += &self.peer_table().draw(style);
            text.push('\n');
            text += &self.security_table(unix(now)).draw(style);
        }
        if let Some(table) = self.egress.table() {
            text += &format!("\n{}", table.draw(style));
        }
        self.draw_reasons(&mut text, unix(now));
        self.draw_refused(&mut text, style, unix(now));
        if !self.dropped.is_empty() {
            let dropped = self.dropped.iter().map(|(why, n)| format!("{why} {n}"));
            text += &format!("\ndropped: {}\n", list(dropped.collect()));
        }
        text
    }

    fn peer_table(&self) -> Table {
        let mut table = Table::new(&[
            "PEER",
            "STATE",
            "ENDPOINT",
            "HANDSHAKE",
            "RECEIVED",
            "SENT",
            "ADDRESS",
        ]);
        let ago = |peer: &Peer| match peer.session_age_seconds {
            Some(age) => format!("{} ago", units::span(Duration::from_secs(age as u64))),
            None => "-".to_owned(),
        };
        for peer in &self.peers {
            let (state, colour) = peer.state.shown();
            let endpoint = peer
                .endpoint
                .map_or("-".to_owned(), |endpoint| endpoint.to_string());
            table.row(vec![
                Cell::text(peer.label()),
                Cell::text(state).colour(colour),
                Cell::text(endpoint),
                Cell::number(ago(peer)),
                Cell::number(units::bytes(peer.rx_bytes)),
                Cell::number(units::bytes(peer.tx_bytes)),
                Cell::text(peer.shown_address()),
            ]);
        }
        table
    }

    fn security_table(&self, now: u64) -> Table {
        let mut table = Table::new(&[
            "PEER", "LEVEL", "SUITE", "SINCE", "EPOCH", "ROTATED", "NEEDS", "PROMISED",
        ]);
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let since = |then: Option<u64>| then.map_or("-".to_owned(), |then| ago(then, now));
        for peer in &self.peers {
            let level = match &peer.level {
                Some(level) => Cell::text(level.clone()).colour(Colour::Good),
                None if peer.waiting.is_some() => Cell::text("waiting").colour(Colour::Doubt),
                None => Cell::text("-"),
            };
            let epoch = peer.psk_epoch.filter(|_| peer.level.is_some());
            let promised = peer.pin.as_ref().map(|pin| pin.level.clone());
            table.row(vec![
                Cell::text(peer.label()),
                level,
                Cell::text(word(&peer.suite)),
                Cell::number(since(peer.level_since_unix)),
                Cell::number(word(&epoch.map(|epoch| epoch.to_string()))),
                Cell::number(since(peer.last_rotation_unix)),
                Cell::text(if peer.stock {
                    "L1, stock".to_owned()
                } else {
                    word(&peer.required)
                }),
                Cell::text(word(&promised)),
            ]);
        }
        table
    }

    /// Why each peer is not connected, and for how long it waits.
    fn draw_reasons(&self, text: &mut String, now: u64) {
        for peer in &self.peers {
            let (label, waiting) = (peer.label(), peer.waiting.as_ref());
            if let Some(Waiting { reason, since_unix }) = waiting {
                let span = units::span(Duration::from_secs(now.saturating_sub(*since_unix).max(1)));
                *text += &match &peer.level {
                    None => format!("{label}: no data flows, waiting for {span}: {reason}\n"),
                    Some(level) => format!("{label}: still at {level}; for {span}: {reason}\n"),
                };
            }
            let said = waiting.map(|waiting| &waiting.reason);
            if let Some(reason) = peer.reason.as_ref().filter(|reason| Some(*reason) != said) {
                *text += &format!("{label}: {reason}\n");
            }
        }
    }

    fn draw_refused(&self, text: &mut String, style: Style, now: u64) {
        if self.refused.is_empty() {
            return;
        }
        *text += "\nrefused:\n";
        let mut table = Table::new(&["NODE", "FROM", "WHEN", "WHY"]);
        for refused in self.refused.iter().rev() {
            let ago = Duration::from_secs(now.saturating_sub(refused.unix));
            table.row(vec![
                Cell::text(refused.node_id.clone()),
                Cell::text(refused.source.to_string()),
                Cell::number(format!("{} ago", units::span(ago))),
                Cell::text(refused.reason.clone()),
            ]);
        }
        *text += &table.draw(style);
    }
}

impl State {
    fn shown(self) -> (&'static str, Colour) {
        match self {
            Self::Idle => ("idle", Colour::Faint),
            Self::Handshaking => ("handshaking", Colour::Doubt),
            Self::AwaitingConfirmation => ("confirming", Colour::Doubt),
            Self::Connected => ("connected", Colour::Good),
            Self::Silent => ("silent", Colour::Bad),
            Self::NoAnswer => ("no answer", Colour::Bad),
        }
    }
}

impl From<PeerState> for State {
    fn from(state: PeerState) -> Self {
        match state {
            PeerState::Idle => Self::Idle,
            PeerState::Handshaking => Self::Handshaking,
            PeerState::AwaitingConfirmation => Self::AwaitingConfirmation,
            PeerState::Connected => Self::Connected,
            PeerState::Silent => Self::Silent,
            PeerState::NoAnswer => Self::NoAnswer,
        }
    }
}

impl Peer {
    fn new(peer: &PeerStatus) -> Self {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
        Self {
            node_id: peer.node_id.to_string(),
            name: peer.name.clone(),
            stock: peer.stock,
            provisional: peer.provisional,
            address: peer.address.into(),
            allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
            endpoint: peer.endpoint,
            state: peer.state.into(),
            reason: peer.reason.clone(),
            level: peer.level.map(|level| level.to_string()),
            suite: peer.suite.map(|suite| suite.to_string()),
            level_since_unix: peer.since.map(unix),
            psk_epoch: peer.psk_epoch,
            bare_streams: peer.bare_streams,
            last_rotation_unix: peer.last_rotation.map(unix),
            required: peer.required.map(|level| level.to_string()),
            pin: peer
                .pin
                .map(|pin| PinForm::new(peer.node_id, &pin, peer.name.clone())),
            waiting: peer.waiting.map(|(reason, since)| Waiting {
                reason: reason.to_string(),
                since_unix: unix(since),
            }),
            session_age_seconds: seconds(peer.session_age),
            last_handshake_unix: peer.last_handshake.map(unix),
            handshake_ms: peer.handshake_time.map(|time| time.as_secs_f64() * 1e3),
            last_received_seconds: seconds(peer.last_received),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        }
    }

    /// Its name, else its key.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.node_id.clone())
    }

    /// A stock peer has no overlay address of its own that anything answers at.
    fn shown_address(&self) -> String {
        if self.stock {
            self.allowed_ips.join(", ")
        } else {
            self.address.to_string()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Status {
        Status {
            version: 1,
            pid: 7,
            uptime_seconds: 65,
            node_id: "NODE".into(),
            network: "home".into(),
            ticket: "wmticket".into(),
            policy: Some(PolicyForm::new(&wiremesh::Policy::default())),
            addresses: vec!["fd77:6d00::1".parse().expect("an address")],
            listen: vec!["[::]:51820".parse().expect("an address")],
            mode: "tun".into(),
            interface: Some("wm0".into()),
            handshakes: 1,
            peers: vec![Peer {
                node_id: "PEER".into(),
                name: Some("laptop".into()),
                stock: false,
                provisional: false,
                address: "fd77:6d00::2".parse().expect("an address"),
                allowed_ips: vec![],
                endpoint: None,
                state: State::NoAnswer,
                reason: Some("no endpoint is known".into()),
                level: None,
                suite: None,
                level_since_unix: None,
                psk_epoch: None,
                bare_streams: false,
                last_rotation_unix: None,
                required: Some("L2".into()),
                pin: Some(PinForm {
                    node_id: "PEER".into(),
                    name: Some("laptop".into()),
                    level: "L2".into(),
                    max_seq: 5,
                    last_seen_unix: Some(40),
                    kem_pk_hash: None,
                }),
                waiting: Some(Waiting {
                    reason: "it answers no control message".into(),
                    since_unix: 35,
                }),
                session_age_seconds: Some(3.0),
                last_handshake_unix: None,
                handshake_ms: None,
                last_received_seconds: None,
                rx_bytes: 2048,
                tx_bytes: 0,
            }],
            egress: egress::tests::sample(),
            dropped: BTreeMap::from([("replayed".to_owned(), 3)]),
            refused: vec![Refused {
                node_id: "STRANGER".into(),
                source: "192.0.2.1:5".parse().expect("an address"),
                unix: 40,
                reason: "it is not in the allow list".into(),
            }],
        }
    }

    #[test]
    fn table_tells_state_reason_and_refusals() {
        let text = sample().draw(Style::PLAIN, UNIX_EPOCH + Duration::from_secs(100));
        for part in [
            "node      NODE",
            "network   home",
            "up        1 m 05 s, 1 handshake\n",
            "laptop",
            "no answer",
            "3.0 s ago",
            "2.0 KiB",
            "laptop: no endpoint is known",
            "mode      tun",
            "egress    10.0 Mbit/s, configured\n",
            "urgent",
            "1.5 KiB",
            "interface wm0",
            "policy    minimum L2, stage both",
            "laptop  waiting",
            "laptop: no data flows, waiting for 1 m 05 s: it answers no control message\n",
            "STRANGER",
            "1 m 00 s ago",
            "it is not in the allow list",
            "dropped: replayed 3",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn table_tells_level_suite_epoch_and_rotation() {
        let mut status = sample();
        let peer = &mut status.peers[0];
        peer.level = Some("L2".into());
        peer.suite = Some("0x0002".into());
        peer.level_since_unix = Some(10);
        peer.psk_epoch = Some(7);
        peer.last_rotation_unix = Some(95);
        peer.waiting = None;
        let text = status.draw(Style::PLAIN, UNIX_EPOCH + Duration::from_secs(100));
        let row = "laptop  L2     0x0002  1 m 30 s ago      7  5.0 s ago  L2     L2";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn json_survives_and_names_states_in_words() {
        let json = serde_json::to_string(&sample()).expect("serialises");
        assert!(json.contains("\"state\":\"no-answer\""), "{json}");
        let back: Status = serde_json::from_str(&json).expect("parses");
        assert_eq!(back, sample());
    }
}
