//! Turns runs into tables: medians over the rounds, and pairwise ratios to a reference stack.
//!
//! A ratio is taken within each round and the median of the ratios is shown, so that a change of
//! the machine's speed between rounds cancels out.

use std::fmt::Write;

use serde::Serialize;

use crate::driver::{Plan, Run};
use crate::load::{Mode, percentile};
use crate::stacks::Stack;

/// A column of a table: the name of the figure, its heading, digits after the point.
struct Column {
    metric: &'static str,
    heading: &'static str,
    digits: usize,
    /// Whether the ratio to the reference follows this column.
    ratio: bool,
}

const fn column(metric: &'static str, heading: &'static str, digits: usize) -> Column {
    Column {
        metric,
        heading,
        digits,
        ratio: false,
    }
}

const fn headline(metric: &'static str, heading: &'static str, digits: usize) -> Column {
    Column {
        metric,
        heading,
        digits,
        ratio: true,
    }
}

const BULK: &[Column] = &[
    headline("gbit_per_s", "Gbit/s", 2),
    column("client_cpu_s_per_gib", "client CPU-s/GiB", 2),
    column("server_cpu_s_per_gib", "server CPU-s/GiB", 2),
];
const REQUESTS: &[Column] = &[
    headline("requests_per_s", "requests/s", 0),
    column("p50_us", "p50 us", 0),
    column("p99_us", "p99 us", 0),
    column("client_cpu_us", "client CPU us", 1),
    column("server_cpu_us", "server CPU us", 1),
];
const CONNECT: &[Column] = &[
    headline("p50_us", "p50 us", 0),
    column("p99_us", "p99 us", 0),
    column("client_cpu_us", "client CPU us", 0),
    column("server_cpu_us", "server CPU us", 0),
    headline("parallel_per_s", "32 parallel, per s", 0),
];
const IDLE: &[Column] = &[
    headline("server_kib", "server KiB each", 1),
    column("client_kib", "client KiB each", 1),
    column("server_cpu_percent", "server CPU %", 2),
    column("count", "count", 0),
];
const IDLE_OWN: &[Column] = &[
    column("server_kib", "KiB each", 2),
    column("server_cpu_percent", "server CPU %", 2),
    column("count", "count", 0),
];

fn columns(mode: Mode) -> &'static [Column] {
    match mode {
        Mode::Bulk => BULK,
        Mode::Rr1 | Mode::Rr64 => REQUESTS,
        Mode::Connect => CONNECT,
        Mode::Idle => IDLE,
        Mode::IdleSession | Mode::IdlePeer => IDLE_OWN,
    }
}

fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Bulk => "Bulk, one stream, client to server (higher is better)",
        Mode::Rr1 => "Request/response, 64 B each on a new stream, 1 in flight (higher is better)",
        Mode::Rr64 => {
            "Request/response, 64 B each on a new stream, 64 in flight (higher is better)"
        }
        Mode::Connect => {
            "Connection set-up, from dialling to the first response (us: lower is better)"
        }
        Mode::Idle => "Idle, one open connection per peer (lower is better)",
        Mode::IdleSession => "Idle, a live session alone, no connection (lower is better)",
        Mode::IdlePeer => "Idle, a configured peer without a session (lower is better)",
    }
}

/// The median over the rounds of one figure of one stack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Mode by name.
    pub mode: String,
    /// Stack by name.
    pub stack: String,
    /// Name of the figure.
    pub metric: String,
    /// Median over the rounds.
    pub median: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Median of the ratios to the reference stack in the same round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Sums up every figure of every stack.
pub fn summarize(plan: &Plan, runs: &[Run], reference: Stack) -> Vec<Summary> {
    let mut summaries = Vec::new();
    for mode in &plan.modes {
        for stack in plan.stacks.iter().filter(|s| s.has(*mode)) {
            for column in columns(*mode) {
                summaries.extend(summarize_one(runs, *mode, *stack, column.metric, reference));
            }
        }
    }
    summaries
}

fn summarize_one(
    runs: &[Run],
    mode: Mode,
    stack: Stack,
    metric: &str,
    reference: Stack,
) -> Option<Summary> {
    let (mode, stack, reference) = (mode.name(), stack.name(), reference.name());
    let of = |stack: &str| -> Vec<(usize, f64)> {
        let matching = runs.iter().filter(|r| r.mode == mode && r.stack == stack);
        matching
            .filter_map(|r| Some((r.round, *r.metrics.get(metric)?)))
            .collect()
    };
    let own = of(&stack);
    let base = of(&reference);
    let ratios: Vec<f64> = own
        .iter()
        .filter_map(|(round, value)| {
            let (_, base) = base.iter().find(|(r, _)| r == round)?;
            Some(value / base).filter(|ratio| ratio.is_finite())
        })
        .collect();
    let mut values: Vec<f64> = own.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    Some(Summary {
        median: median(&values)?,
        min: *values.first()?,
        max: *values.last()?,
        ratio: median(&ratios),
        mode,
        stack,
        metric: metric.to_owned(),
    })
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (n > 0).then(|| (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0)
}

/// Renders one table per mode.
pub fn tables(plan: &Plan, runs: &[Run], summaries: &[Summary], reference: Stack) -> String {
    let mut out = String::new();
    for &mode in &plan.modes {
        let rows: Vec<Vec<String>> = plan
            .stacks
            .iter()
            .filter(|stack| stack.has(mode))
            .map(|stack| row(mode, *stack, runs, summaries, reference))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let mut heading = vec!["stack".to_owned()];
        for column in columns(mode) {
            heading.push(column.heading.to_owned());
            if column.ratio {
                heading.extend(["min-max".to_owned(), "ratio".to_owned()]);
            }
        }
        heading.push("others busy".to_owned());
        let _ = writeln!(out, "\n{}\n\n{}", title(mode), align(&heading, &rows));
    }
    out
}

fn row(
    mode: Mode,
    stack: Stack,
    runs: &[Run],
    summaries: &[Summary],
    reference: Stack,
) -> Vec<String> {
    let (mode_name, stack_name) = (mode.name(), stack.name());
    let mut cells = vec![stack_name.clone()];
    for column in columns(mode) {
        let summary = summaries
            .iter()
            .find(|s| s.mode == mode_name && s.stack == stack_name && s.metric == column.metric);
        let digits = column.digits;
        cells.push(summary.map_or("failed".into(), |s| format!("{:.digits$}", s.median)));
        if column.ratio {
            let range = summary.map(|s| format!("{:.digits$}-{:.digits$}", s.min, s.max));
            cells.push(range.unwrap_or_else(|| "-".into()));
            let ratio = summary.filter(|_| stack != reference).and_then(|s| s.ratio);
            cells.push(ratio.map_or("-".into(), |r| format!("{r:.2}")));
        }
    }
    let own = runs
        .iter()
        .filter(|r| r.mode == mode_name && r.stack == stack_name);
    let mut noise: Vec<f64> = own.map(|r| r.others_cores + r.stolen_cores).collect();
    noise.sort_by(f64::total_cmp);
    cells.push(format!("{:.2}", percentile(&noise, 1.0)));
    cells
}

/// Aligns cells as a Markdown table: the first column left, the others right.
fn align(heading: &[String], rows: &[Vec<String>]) -> String {
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].len());
        cells.chain([heading[i].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut line = format!("| {:<w$} |", cells[0], w = widths[0]);
        for (cell, w) in cells.iter().zip(&widths).skip(1) {
            let _ = write!(line, " {cell:>w$} |");
        }
        line
    };
    let mut rule = format!("|{:-<w$}|", "", w = widths[0] + 2);
    for w in &widths[1..] {
        let _ = write!(rule, "{:->w$}:|", "", w = w + 1);
    }
    let mut lines = vec![line(heading), rule];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

/// A figure that wiremesh has to reach.
struct Target {
    mode: Mode,
    metric: &'static str,
    text: &'static str,
    /// Whether the ratio counts, and not the figure itself.
    of_reference: bool,
    limit: f64,
    at_least: bool,
}

const TARGETS: &[Target] = &[
    Target {
        mode: Mode::Bulk,
        metric: "gbit_per_s",
        text: "bulk at least 0.80 of the reference",
        of_reference: true,
        limit: 0.8,
        at_least: true,
    },
    Target {
        mode: Mode::Idle,
        metric: "server_kib",
        text: "at most 64 KiB per peer with an open connection",
        of_reference: false,
        limit: 64.0,
        at_least: false,
    },
    Target {
        mode: Mode::IdleSession,
        metric: "server_kib",
        text: "at most 4 KiB per peer with a live session alone",
        of_reference: false,
        limit: 4.0,
        at_least: false,
    },
    Target {
        mode: Mode::IdlePeer,
        metric: "server_kib",
        text: "at most 1 KiB per configured peer",
        of_reference: false,
        limit: 1.0,
        at_least: false,
    },
];

/// Says for each target that was measured whether it is met; empty when none was.
pub fn targets(summaries: &[Summary], stack: &str) -> String {
    let mut out = String::new();
    for target in TARGETS {
        let mode = target.mode.name();
        let found = summaries
            .iter()
            .find(|s| s.mode == mode && s.stack == stack && s.metric == target.metric);
        let value = found.and_then(|s| {
            if target.of_reference {
                s.ratio
            } else {
                Some(s.median)
            }
        });
        let Some(value) = value else { continue };
        let met = if target.at_least {
            value >= target.limit
        } else {
            value <= target.limit
        };
        let verdict = if met { "met    " } else { "NOT MET" };
        let _ = writeln!(out, "{verdict} {}: {value:.2}", target.text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::metrics;

    fn run(round: usize, stack: Stack, value: f64) -> Run {
        Run {
            round,
            mode: Mode::Bulk.name(),
            stack: stack.name(),
            metrics: metrics([("gbit_per_s", value)]),
            others_cores: 0.0,
            stolen_cores: 0.0,
            error: None,
        }
    }

    #[test]
    fn ratio_is_taken_within_a_round() {
        let (own, base) = (Stack::Iroh, Stack::QuinnRustlsRing);
        // The machine halves its speed in round 2; the ratio does not notice.
        let runs = [
            run(1, own, 8.0),
            run(1, base, 10.0),
            run(2, own, 4.0),
            run(2, base, 5.0),
        ];
        let summary =
            summarize_one(&runs, Mode::Bulk, own, "gbit_per_s", base).expect("has values");
        assert_eq!(summary.ratio, Some(0.8));
        assert_eq!((summary.median, summary.min, summary.max), (6.0, 4.0, 8.0));
    }

    #[test]
    fn failed_round_is_left_out_of_the_ratio() {
        let (own, base) = (Stack::Iroh, Stack::QuinnRustlsRing);
        let mut failed = run(1, base, 0.0);
        failed.metrics.clear();
        let runs = [run(1, own, 8.0), failed];
        let summary =
            summarize_one(&runs, Mode::Bulk, own, "gbit_per_s", base).expect("has values");
        assert_eq!(summary.ratio, None);
        assert_eq!(
            summarize_one(&runs, Mode::Bulk, base, "gbit_per_s", base),
            None
        );
    }

    #[test]
    fn table_columns_line_up() {
        let text = align(
            &["stack".into(), "Gbit/s".into()],
            &[
                vec!["a".into(), "1.00".into()],
                vec!["longer name".into(), "10000.00".into()],
            ],
        );
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(widths, vec![widths[0]; 4]);
    }

    #[test]
    fn targets_are_judged_on_both_sides_of_the_limit() {
        let summary = |median| Summary {
            mode: Mode::Idle.name(),
            stack: "wiremesh".into(),
            metric: "server_kib".into(),
            median,
            min: median,
            max: median,
            ratio: None,
        };
        assert!(targets(&[summary(64.0)], "wiremesh").starts_with("met"));
        assert!(targets(&[summary(64.1)], "wiremesh").starts_with("NOT MET"));
        assert!(targets(&[], "wiremesh").is_empty());
    }
}
