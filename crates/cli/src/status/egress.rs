//! What `wiremesh status` shows of the egress scheduler.
//!
//! Owns its JSON form and its table. docs/priority.md.

use crate::table::{Cell, Table};
use crate::units;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wiremesh::{ClassDelays, EgressStatus, Priority};

/// The scheduler of a running node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Egress {
    /// The configured pace; `null` without one.
    pub rate_bits: Option<u64>,
    /// What left under a pace, the most urgent class first.
    pub classes: Vec<Class>,
}

/// What left in one class since the node began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// `urgent`, `normal` or `bulk`.
    pub class: String,
    /// Packets that left.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Half of them waited no longer.
    pub p50_ms: f64,
    /// Of a hundred, one waited longer.
    pub p99_ms: f64,
    /// The longest wait.
    pub max_ms: f64,
    /// Dropped because their time was over.
    pub expired: u64,
    /// Dropped because too much waited already.
    pub dropped: u64,
}

impl Egress {
    pub(super) fn new(status: &EgressStatus) -> Self {
        let classes = Priority::ALL.into_iter().zip(&status.classes);
        Self {
            rate_bits: status.rate_bits,
            classes: classes.map(|(class, of)| Class::new(class, of)).collect(),
        }
    }

    /// The pace in words.
    pub(super) fn pace(&self) -> String {
        match self.rate_bits {
            Some(rate) => format!("{}, configured", units::bit_rate(rate as f64)),
            None => "no pace is configured".to_owned(),
        }
    }

    /// Nothing is to be shown of a node that never had a pace.
    pub(super) fn table(&self) -> Option<Table> {
        let quiet = |class: &Class| class.packets + class.expired + class.dropped == 0;
        if self.rate_bits.is_none() && self.classes.iter().all(quiet) {
            return None;
        }
        let mut table = Table::new(&[
            "CLASS", "PACKETS", "SENT", "P50", "P99", "MAX", "EXPIRED", "DROPPED",
        ]);
        let millis = |ms: f64| Cell::number(format!("{ms:.1} ms"));
        for class in &self.classes {
            table.row(vec![
                Cell::text(class.class.clone()),
                Cell::number(class.packets.to_string()),
                Cell::number(units::bytes(class.bytes)),
                millis(class.p50_ms),
                millis(class.p99_ms),
                millis(class.max_ms),
                Cell::number(class.expired.to_string()),
                Cell::number(class.dropped.to_string()),
            ]);
        }
        Some(table)
    }
}

impl Class {
    fn new(class: Priority, of: &ClassDelays) -> Self {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            class: class.to_string(),
            packets: of.packets,
            bytes: of.bytes,
            p50_ms: millis(of.p50),
            p99_ms: millis(of.p99),
            max_ms: millis(of.max),
            expired: of.expired,
            dropped: of.dropped,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::term::Style;

    pub(in crate::status) fn sample() -> Egress {
        Egress {
            rate_bits: Some(10_000_000),
            classes: vec![Class {
                class: "urgent".into(),
                packets: 3,
                bytes: 1536,
                p50_ms: 0.0,
                p99_ms: 1.25,
                max_ms: 2.5,
                expired: 4,
                dropped: 5,
            }],
        }
    }

    #[test]
    fn table_tells_the_delay_of_each_class() {
        let text = sample().table().expect("a table").draw(Style::PLAIN);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split("  ").collect();
        let row: Vec<&str> = row
            .into_iter()
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            row,
            [
                "urgent", "3", "1.5 KiB", "0.0 ms", "1.2 ms", "2.5 ms", "4", "5"
            ]
        );
    }

    #[test]
    fn a_node_that_never_had_a_pace_shows_no_table() {
        let mut egress = sample();
        egress.rate_bits = None;
        assert_eq!(egress.pace(), "no pace is configured");
        assert!(egress.table().is_some(), "it had one");
        egress.classes = vec![Class::new(Priority::Bulk, &ClassDelays::default())];
        assert!(egress.table().is_none());
    }
}
