//! Policies, suites and pins as scripts and people see them.
//!
//! Owns the JSON forms (fields are added, never renamed) and the tables. It decides nothing.

use crate::table::{Cell, Table};
use crate::term::{Colour, Style};
use crate::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use wiremesh::{Level, NodeId, Pin, Policy, Stage, SuiteId, Suites};

/// The policy of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyForm {
    /// No application data flows below this level.
    pub minimum: String,
    /// The stage.
    pub stage: String,
    /// Whether L3 is offered.
    pub static_kem: bool,
    /// The suites that are offered, most preferred first.
    pub offers: Vec<String>,
    /// The level that the node promises never to go below again.
    pub promises: String,
}

impl PolicyForm {
    /// Describes a policy.
    pub fn new(policy: &Policy) -> Self {
        let suites = policy.suites();
        let offered = suites.iter().flat_map(|suites| suites.as_slice());
        Self {
            minimum: policy.minimum.to_string(),
            stage: policy.stage.to_string(),
            static_kem: policy.static_kem,
            offers: offered.map(ToString::to_string).collect(),
            promises: policy.promised().to_string(),
        }
    }

    /// Draws it for people.
    pub fn draw(&self, style: Style) -> String {
        let promises = match self.promises.as_str() {
            "L1" => "nothing; it may go back to L1".to_owned(),
            level => format!("never to go below {level} again"),
        };
        let lines = [
            ("minimum", format!("{}, for application data", self.minimum)),
            ("stage", self.stage.clone()),
            (
                "static-kem",
                (if self.static_kem { "on" } else { "off" }).to_owned(),
            ),
            ("offers", self.offers.join(", ")),
            ("promises", promises),
        ];
        let line = |(title, value): (&str, String)| {
            format!(
                "{} {value}\n",
                style.paint(Colour::Strong, &format!("{title:10}"))
            )
        };
        lines.into_iter().map(line).collect()
    }

    /// As the lines of a configuration.
    pub fn as_configuration(&self) -> String {
        format!(
            "[security]\nminimum = \"{}\"\nstage = \"{}\"\nstatic-kem = {}",
            self.minimum, self.stage, self.static_kem
        )
    }
}

/// A policy in one line.
pub fn policy_line(policy: &Policy) -> String {
    let Policy {
        minimum,
        stage,
        static_kem,
    } = policy;
    let l3 = if *static_kem { ", L3 offered" } else { "" };
    format!("minimum {minimum}, stage {stage}{l3}")
}

/// What a change of the policy asks for; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    /// The minimum.
    #[serde(default)]
    pub minimum: Option<String>,
    /// The stage.
    #[serde(default)]
    pub stage: Option<String>,
    /// Whether to offer L3.
    #[serde(default)]
    pub static_kem: Option<bool>,
}

impl PolicyChange {
    /// The policy after the change.
    ///
    /// # Errors
    ///
    /// What is no level or stage.
    pub fn applied_to(&self, mut policy: Policy) -> Result<Policy, String> {
        if let Some(minimum) = &self.minimum {
            let level: Result<Level, _> = minimum.parse();
            policy.minimum = level.map_err(|error| format!("{minimum:?}: {error}"))?;
        }
        if let Some(stage) = &self.stage {
            let stage: Result<Stage, _> = stage.parse();
            policy.stage = stage.map_err(|error| error.to_string())?;
        }
        policy.static_kem = self.static_kem.unwrap_or(policy.static_kem);
        Ok(policy)
    }
}

/// What is spoken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuitesForm {
    /// Version of this form; it changes only when a field changes its meaning.
    pub version: u32,
    /// The suites, lowest level first; those that this build does not know come last.
    pub suites: Vec<SuiteForm>,
    /// Peers that have told the running node their list; `null` when no node runs.
    pub peers: Option<u64>,
}

/// One suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteForm {
    /// Its number, such as `0x0002`.
    pub suite: String,
    /// Its level; `null` if this build does not know it.
    pub level: Option<String>,
    /// What it consists of.
    pub what: String,
    /// Whether this build speaks it.
    pub built: bool,
    /// Whether the running node offers it.
    pub offered: Option<bool>,
    /// Peers that list it.
    pub listed_by: Option<u64>,
    /// Peers that list nothing better.
    pub best_of: Option<u64>,
}

/// The suites of this build, lowest level first.
fn built() -> impl Iterator<Item = SuiteId> {
    SuiteId::KNOWN.into_iter().rev()
}

impl SuitesForm {
    /// What this build speaks.
    pub fn of_build() -> Self {
        Self {
            version: 1,
            suites: built().map(SuiteForm::new).collect(),
            peers: None,
        }
    }

    /// What a node offers, and what its peers have told.
    pub fn of_node(policy: &Policy, known: &[(NodeId, Suites)]) -> Self {
        let offered = policy.suites().ok();
        let mut counts: BTreeMap<SuiteId, (u64, u64)> = BTreeMap::new();
        for (_, suites) in known {
            let real = suites.as_slice().iter().filter(|suite| !suite.is_grease());
            real.for_each(|suite| counts.entry(*suite).or_default().0 += 1);
            if !suites.highest().is_grease() {
                counts.entry(suites.highest()).or_default().1 += 1;
            }
        }
        let foreign = counts
            .keys()
            .filter(|suite| !SuiteId::KNOWN.contains(suite));
        let all = built().chain(foreign.copied());
        let form = |suite| {
            let (listed_by, best_of) = counts.get(&suite).copied().unwrap_or_default();
            SuiteForm {
                offered: Some(offered.is_some_and(|suites| suites.contains(suite))),
                listed_by: Some(listed_by),
                best_of: Some(best_of),
                ..SuiteForm::new(suite)
            }
        };
        Self {
            suites: all.map(form).collect(),
            peers: Some(known.len() as u64),
            ..Self::of_build()
        }
    }

    /// Draws it for people.
    pub fn draw(&self, style: Style) -> String {
        let Some(peers) = self.peers else {
            let mut table = Table::new(&["SUITE", "LEVEL", "WHAT"]);
            for suite in &self.suites {
                table.row(suite.first_cells().into());
            }
            return table.draw(style);
        };
        let header = [
            "SUITE", "LEVEL", "OFFERED", "PEERS", "SHARE", "BEST", "WHAT",
        ];
        let mut table = Table::new(&header);
        for suite in &self.suites {
            let [number, level, what] = suite.first_cells();
            let listed = suite.listed_by.unwrap_or_default();
            let share = match peers {
                0 => "-".to_owned(),
                _ => format!("{:.1} %", listed as f64 * 100.0 / peers as f64),
            };
            let offered = if suite.offered == Some(true) {
                "yes"
            } else {
                "no"
            };
            table.row(vec![
                number,
                level,
                Cell::text(offered),
                Cell::number(listed.to_string()),
                Cell::number(share),
                Cell::number(suite.best_of.unwrap_or_default().to_string()),
                what,
            ]);
        }
        let told = units::count(
            peers,
            "peer has told its list",
            "peers have told their lists",
        );
        format!("{}\n{told}\n", table.draw(style))
    }
}

impl SuiteForm {
    fn new(suite: SuiteId) -> Self {
        Self {
            suite: suite.to_string(),
            level: suite.level().map(|level| level.to_string()),
            what: suite.describe().to_owned(),
            built: suite.level().is_some(),
            offered: None,
            listed_by: None,
            best_of: None,
        }
    }

    fn first_cells(&self) -> [Cell; 3] {
        let level = self.level.clone().unwrap_or_else(|| "-".to_owned());
        [
            Cell::text(self.suite.clone()),
            Cell::text(level),
            Cell::text(self.what.clone()),
        ]
    }
}

/// What a peer has promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinForm {
    /// Its key, base64.
    pub node_id: String,
    /// Its name in the configuration.
    pub name: Option<String>,
    /// The highest level that a valid record of it has promised.
    pub level: String,
    /// The highest number among its valid records.
    pub max_seq: u64,
    /// When it was last heard with a valid record, seconds since 1970.
    pub last_seen_unix: Option<u64>,
    /// BLAKE2s-256 of its static ML-KEM key, hexadecimal.
    pub kem_pk_hash: Option<String>,
}

impl PinForm {
    /// Describes a pin.
    pub fn new(node_id: NodeId, pin: &Pin, name: Option<String>) -> Self {
        let hex = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            node_id: node_id.to_string(),
            name,
            level: pin.level.to_string(),
            max_seq: pin.max_seq,
            last_seen_unix: Some(pin.last_seen).filter(|seen| *seen > 0),
            kem_pk_hash: pin.kem_pk_hash.map(hex),
        }
    }

    /// Its name, else its key.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.node_id.clone())
    }

    /// When it was last heard.
    pub fn heard(&self, now: u64) -> String {
        match self.last_seen_unix {
            Some(seen) => ago(seen, now),
            None => "never".to_owned(),
        }
    }
}

/// Pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsForm {
    /// Version of this form; it changes only when a field changes its meaning.
    pub version: u32,
    /// The pins, by key.
    pub pins: Vec<PinForm>,
}

impl PinsForm {
    /// Draws them for people.
    pub fn draw(&self, style: Style, now: u64) -> String {
        if self.pins.is_empty() {
            return "no pins\n".to_owned();
        }
        let mut table = Table::new(&["PEER", "PROMISED", "HEARD", "RECORD", "STATIC KEY"]);
        for pin in &self.pins {
            let key = pin.kem_pk_hash.as_ref();
            let key = key.map_or("-", |hash| hash.get(..16).unwrap_or(hash));
            table.row(vec![
                Cell::text(pin.label()),
                Cell::text(pin.level.clone()),
                Cell::number(pin.heard(now)),
                Cell::number(pin.max_seq.to_string()),
                Cell::text(key),
            ]);
        }
        table.draw(style)
    }
}

/// How long ago a moment was, both in seconds since 1970, for people.
pub fn ago(then: u64, now: u64) -> String {
    match now.saturating_sub(then) {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", units::span(Duration::from_secs(seconds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(secret: u8) -> NodeId {
        wiremesh::node_id(&wiremesh::SecretKey::from_bytes([secret; 32])).expect("valid")
    }

    #[test]
    fn shares_are_counted_per_suite_and_grease_is_not() {
        let list = |numbers: &[u16]| {
            Suites::new(numbers.iter().map(|n| SuiteId(*n))).expect("a valid list")
        };
        let known = [
            (node(1), list(&[2, 1, 0x1a2a])),
            (node(2), list(&[2])),
            (node(3), list(&[1])),
            (node(4), list(&[0x0101, 2])),
        ];
        let form = SuitesForm::of_node(&Policy::default(), &known);
        let counts: Vec<_> = form
            .suites
            .iter()
            .map(|s| (s.suite.as_str(), s.offered, s.listed_by, s.best_of))
            .collect();
        assert_eq!(
            counts,
            [
                ("0x0001", Some(false), Some(2), Some(1)),
                ("0x0002", Some(true), Some(3), Some(3)),
                ("0x0003", Some(false), Some(0), Some(0)),
                ("0x0101", Some(false), Some(1), Some(0)),
            ]
        );
        let text = form.draw(Style::PLAIN);
        assert!(text.contains("75.0 %") && text.contains("50.0 %"), "{text}");
        assert!(text.contains("4 peers have told"), "{text}");
        let none = SuitesForm::of_node(&Policy::default(), &[]).draw(Style::PLAIN);
        assert!(none.contains("0 peers") && !none.contains('%'), "{none}");
        let build = SuitesForm::of_build().draw(Style::PLAIN);
        assert_eq!(build.lines().count(), 4, "{build}");
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let policy = Policy::default();
        let unchanged = PolicyChange::default().applied_to(policy);
        assert_eq!(unchanged, Ok(policy));
        let change = PolicyChange {
            stage: Some("new-only".into()),
            ..PolicyChange::default()
        };
        let changed = change.applied_to(policy).expect("good");
        assert_eq!(
            (changed.minimum, changed.stage),
            (policy.minimum, Stage::NewOnly)
        );
        for wrong in ["L5", ""] {
            let change = PolicyChange {
                minimum: Some(wrong.into()),
                ..PolicyChange::default()
            };
            assert!(
                change
                    .applied_to(policy)
                    .expect_err("no level")
                    .contains("L1")
            );
        }
    }

    #[test]
    fn a_policy_reads_back_from_its_configuration() {
        let form = PolicyForm::new(&Policy::at(Stage::NewOnly));
        assert_eq!(form.offers, ["0x0002"]);
        assert!(form.draw(Style::PLAIN).contains("never to go below L2"));
        assert_eq!(
            form.as_configuration(),
            "[security]\nminimum = \"L2\"\nstage = \"new-only\"\nstatic-kem = false"
        );
        let old = PolicyForm::new(&Policy::at(Stage::Both)).draw(Style::PLAIN);
        assert!(
            old.contains("0x0002, 0x0001") && old.contains("may go back"),
            "{old}"
        );
    }

    #[test]
    fn pins_are_drawn_with_name_and_age() {
        let pin = Pin {
            level: Level::PostQuantum,
            max_seq: 77,
            kem_pk_hash: Some([0xab; 32]),
            last_seen: 1_000,
        };
        let form = PinsForm {
            version: 1,
            pins: vec![
                PinForm::new(node(1), &pin, Some("laptop".into())),
                PinForm::new(node(2), &Pin::default(), None),
            ],
        };
        let text = form.draw(Style::PLAIN, 1_065);
        for part in [
            "laptop",
            "L2",
            "1 m 05 s ago",
            "77",
            "abababababababab",
            "never",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.contains(&node(2).to_string()), "{text}");
    }
}
