//! What the control protocol costs: CPU per exchange and its parts, memory per peer.
//!
//! `cargo run --release -p wiremesh-core --example cost [-- --json]`, about 10 s. Times are
//! medians of single operations on one thread, so that other load moves them little.

#[path = "cost/cpu.rs"]
mod cpu;
#[path = "cost/memory.rs"]
mod memory;
#[path = "cost/nodes.rs"]
mod nodes;

use std::io::Write;

/// One figure.
pub struct Figure {
    group: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
}

/// All figures so far.
#[derive(Default)]
pub struct Report(Vec<Figure>);

impl Report {
    fn add(&mut self, group: &'static str, name: &str, value: f64, unit: &'static str) {
        let name = name.to_owned();
        self.0.push(Figure {
            group,
            name,
            value,
            unit,
        });
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let mut group = "";
        for figure in &self.0 {
            if figure.group != group {
                group = figure.group;
                text += &format!("\n{group}\n");
            }
            let (name, value, unit) = (&figure.name, figure.value, figure.unit);
            text += &format!("  {name:<58} {value:>9.1} {unit}\n");
        }
        text
    }

    fn json(&self) -> String {
        let rows = self.0.iter().map(|figure| {
            let (group, name, value, unit) =
                (figure.group, &figure.name, figure.value, figure.unit);
            format!(
                "  {{\"group\": {group:?}, \"name\": {name:?}, \"value\": {value:.2}, \"unit\": {unit:?}}}"
            )
        });
        format!("[\n{}\n]\n", rows.collect::<Vec<_>>().join(",\n"))
    }
}

fn main() {
    let mut report = Report::default();
    memory::measure(&mut report);
    cpu::measure_parts(&mut report);
    cpu::measure_exchanges(&mut report);
    nodes::measure(&mut report);
    let json = std::env::args().any(|argument| argument == "--json");
    let text = match json {
        true => report.json(),
        false => report.table(),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .expect("standard output is open");
}
