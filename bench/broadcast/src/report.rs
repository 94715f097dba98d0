//! What the runs say together: a table for people, a document for programs.
//!
//! Owns medians and percentiles. Never draws.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::run::{Case, Load, Outcome, Setting};

/// All runs of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The case.
    #[serde(flatten)]
    pub case: Case,
    /// Time to reach 99 % of the nodes, over the objects of all seeds; null when that many objects
    /// did not reach them.
    pub p50_ms: Option<f64>,
    /// The same for the slowest hundredth.
    pub p99_ms: Option<f64>,
    /// The least and the most p99 of a seed.
    pub p99_range_ms: Option<(f64, f64)>,
    /// p99 in relation to the same protocol and senders without a load.
    pub p99_to_idle: Option<f64>,
    /// Part of the deliveries that happened.
    pub delivered: f64,
    /// Message bytes per byte delivered.
    pub message_overhead: f64,
    /// Wire bytes per byte delivered.
    pub wire_overhead: f64,
    /// Part of the uplinks that were saturated.
    pub saturated: f64,
    /// Bulk that an average node got, in Mbit/s.
    pub bulk_mbit: f64,
    /// Bulk message bytes per byte delivered.
    pub bulk_overhead: f64,
    /// Every hundredth of the time to reach 99 % of the nodes.
    pub reach_ms: Vec<Option<f64>>,
}

/// What [`Report::json`] writes, as far as it is read again.
#[derive(Deserialize)]
pub struct Document {
    /// What was the same in all runs.
    pub setting: Setting,
    /// Every run.
    pub runs: Vec<Outcome>,
}

/// The report.
#[derive(Serialize)]
pub struct Report {
    /// What was the same in all runs.
    pub setting: Setting,
    /// A row for each case.
    pub rows: Vec<Row>,
}

impl Report {
    /// Puts the runs together.
    pub fn new(setting: &Setting, outcomes: &[Outcome]) -> Self {
        let cases: BTreeSet<Case> = outcomes.iter().map(|outcome| outcome.case).collect();
        let mut rows: Vec<Row> = cases.iter().map(|case| row(*case, outcomes)).collect();
        let idle = rows.iter().filter(|row| row.case.load == Load::Idle);
        let idle: Vec<(Case, Option<f64>)> = idle.map(|row| (row.case, row.p99_ms)).collect();
        for row in rows.iter_mut().filter(|row| row.case.load != Load::Idle) {
            let same = |case: &Case| {
                (case.protocol, case.senders) == (row.case.protocol, row.case.senders)
            };
            let alone = idle.iter().find(|(case, _)| same(case));
            let alone = alone.and_then(|(_, p99)| *p99);
            row.p99_to_idle = row.p99_ms.zip(alone).map(|(p99, alone)| p99 / alone);
        }
        Self {
            setting: *setting,
            rows,
        }
    }

    /// One JSON document.
    pub fn json(&self, outcomes: &[Outcome]) -> Result<String> {
        let document = serde_json::json!({
            "setting": self.setting,
            "rows": self.rows,
            "runs": outcomes,
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    /// A table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let head = [
            "protocol",
            "transport",
            "senders",
            "load",
            "p50 ms",
            "p99 ms",
            "seeds' p99",
            "/idle",
            "sent/B",
            "wire/B",
            "reached",
            "full",
            "bulk Mbit",
            "bulk/B",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let widths: Vec<usize> = (0..head.len())
            .map(|column| lines.iter().map(|line| line[column].len()).max())
            .map(|width| width.unwrap_or(0))
            .collect();
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                let text = if column < 4 {
                    format!("{cell:<width$}  ")
                } else {
                    format!("{cell:>width$}  ")
                };
                out.push_str(&text);
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        out.push_str(LEGEND);
        out
    }
}

const LEGEND: &str = "
p50, p99   over urgent objects, the time to reach 99 % of the nodes
/idle      p99 in relation to the same protocol and senders without a load
sent/B     bytes of urgent messages, control included, per byte of an urgent object delivered
wire/B     the same on the wire: headers, acknowledgements and what was sent again
full       part of the uplinks that were busy for 90 % of a second or more
bulk       of bulk objects, where the protocol broadcasts them: what a node got, and bytes sent per byte
";

fn cells(row: &Row) -> [String; 14] {
    let ms = |value: Option<f64>| value.map_or("never".to_owned(), |ms| format!("{ms:.0}"));
    let case = row.case;
    let objects = case.load == Load::Objects;
    let bulk = |value: f64| {
        if objects {
            format!("{value:.2}")
        } else {
            "-".to_owned()
        }
    };
    [
        case.protocol.name().to_owned(),
        case.transport.name().to_owned(),
        case.senders.name().to_owned(),
        case.load.name().to_owned(),
        ms(row.p50_ms),
        ms(row.p99_ms),
        row.p99_range_ms
            .map_or("-".to_owned(), |(low, high)| format!("{low:.0}-{high:.0}")),
        row.p99_to_idle
            .map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        format!("{:.2}", row.message_overhead),
        format!("{:.2}", row.wire_overhead),
        format!("{:.2} %", row.delivered * 100.0),
        format!("{:.0} %", row.saturated * 100.0),
        bulk(row.bulk_mbit),
        bulk(row.bulk_overhead),
    ]
}

/// A run in one line.
pub fn line(outcome: &Outcome) -> String {
    let reach = sorted(&outcome.reach_ms);
    let case = outcome.case;
    let mut text = format!(
        "{} {} {} {} seed {}: ",
        case.protocol.name(),
        case.transport.name(),
        case.senders.name(),
        case.load.name(),
        outcome.seed
    );
    for (name, part) in [("p50", 0.50), ("p99", 0.99)] {
        let value = percentile(&reach, part);
        let value = value.map_or("never".to_owned(), |ms| format!("{ms:.0} ms"));
        write!(text, "{name} {value}, ").expect("a String takes everything");
    }
    write!(text, "{:.2} sent per byte", outcome.message_overhead)
        .expect("a String takes everything");
    text
}

fn row(case: Case, outcomes: &[Outcome]) -> Row {
    let mine: Vec<&Outcome> = outcomes.iter().filter(|o| o.case == case).collect();
    let all: Vec<Option<f64>> = mine.iter().flat_map(|o| o.reach_ms.clone()).collect();
    let all = sorted(&all);
    let p99s = mine.iter().map(|o| percentile(&sorted(&o.reach_ms), 0.99));
    let p99s: Option<Vec<f64>> = p99s.collect();
    let mean = |of: fn(&Outcome) -> f64| {
        mine.iter().map(|o| of(o)).sum::<f64>() / mine.len().max(1) as f64
    };
    Row {
        case,
        p50_ms: percentile(&all, 0.50),
        p99_ms: percentile(&all, 0.99),
        p99_range_ms: p99s.map(|p99s| {
            let low = p99s.iter().copied().fold(f64::INFINITY, f64::min);
            (low, p99s.iter().copied().fold(0.0, f64::max))
        }),
        p99_to_idle: None,
        delivered: mean(|o| o.delivered),
        message_overhead: mean(|o| o.message_overhead),
        wire_overhead: mean(|o| o.wire_overhead),
        saturated: mean(|o| o.saturated),
        bulk_mbit: mean(|o| o.bulk_mbit),
        bulk_overhead: mean(|o| o.bulk_overhead),
        reach_ms: (0..=100)
            .map(|part| percentile(&all, f64::from(part) / 100.0))
            .collect(),
    }
}

/// In order; what never happened comes last.
fn sorted(values: &[Option<f64>]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().map(|v| v.unwrap_or(f64::INFINITY)).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// By nearest rank.
fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    let value = sorted.get(rank.max(1) - 1)?;
    value.is_finite().then_some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank_and_tell_what_never_happened() {
        let values: Vec<Option<f64>> = (1..=100).map(|n| Some(f64::from(n))).collect();
        assert_eq!(percentile(&sorted(&values), 0.5), Some(50.0));
        assert_eq!(percentile(&sorted(&values), 0.99), Some(99.0));
        let mut values = values;
        values[3] = None;
        values[7] = None;
        assert_eq!(percentile(&sorted(&values), 0.99), None);
        assert_eq!(percentile(&sorted(&values), 0.98), Some(100.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
