//! Figures, as a table or as JSON.

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
    /// Adds one.
    pub fn add(&mut self, group: &'static str, name: &str, value: f64, unit: &'static str) {
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

    /// Writes all to standard output; as JSON if the program was called with `--json`.
    pub fn print(&self) {
        let json = std::env::args().any(|argument| argument == "--json");
        let text = match json {
            true => self.json(),
            false => self.table(),
        };
        std::io::stdout()
            .write_all(text.as_bytes())
            .expect("standard output is open");
    }
}
