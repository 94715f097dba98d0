//! A plot of a report, as an SVG file in plain text.
//!
//! Owns the picture: for one sender and for random ones, the part of the objects that had reached
//! 99 % of the nodes, over time; a colour for each protocol, dashes under load. Text follows the
//! colour scheme of the reader.

use std::fmt::{Arguments, Write};

use crate::protocols::Protocol;
use crate::report::{Report, Row};
use crate::run::{Load, Senders};
use crate::transport::Transport;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 310.0;
const PANEL: f64 = 210.0;
const TOP: f64 = 76.0;
const PANEL_EVERY: f64 = 290.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1c2330}\
.title{font-size:16px;font-weight:600}\
.quiet{fill:#5b6472}\
.grid{stroke:#8a94a3;stroke-opacity:.35}\
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}\
.load{stroke-dasharray:7 4}\
.wiremesh{stroke:#1f7a4d}.iroh{stroke:#d08a1d}.gossipsub{stroke:#3f6fc4}\
@media(prefers-color-scheme:dark){text{fill:#e8ecf2}.quiet{fill:#a6b0be}\
.wiremesh{stroke:#3fae78}.iroh{stroke:#e0a94f}.gossipsub{stroke:#86aef0}}";

/// The plot of a report: each protocol over its own transport, alone and under the first load.
pub fn svg(report: &Report) -> String {
    let panels: Vec<(Senders, Vec<&Row>)> = [Senders::One, Senders::Random]
        .into_iter()
        .map(|senders| (senders, rows(report, senders)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let height = TOP + PANEL_EVERY * panels.len().max(1) as f64 - 20.0;
    let setting = &report.setting;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Time to reach 99 % of {nodes} simulated nodes</title>\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"26\">Objects of {bytes} bytes that have reached \
         99 % of {nodes} nodes</text>\n",
        nodes = setting.nodes,
        bytes = setting.object_bytes,
    );
    let rows = panels.iter().flat_map(|(_, rows)| rows);
    let last = rows.flat_map(|row| row.reach_ms.iter().flatten());
    let end = last.copied().fold(100.0, f64::max);
    for (place, (senders, rows)) in panels.iter().enumerate() {
        let top = TOP + PANEL_EVERY * place as f64;
        let name = match senders {
            Senders::One => "one node publishes",
            Senders::Random => "another node publishes each time",
        };
        line(
            &mut out,
            format_args!("<text x=\"{LEFT}\" y=\"{}\">{name}</text>", top - 14.0),
        );
        axes(&mut out, top, end);
        for (n, row) in rows.iter().enumerate() {
            curve(&mut out, top, end, n, row);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn rows(report: &Report, senders: Senders) -> Vec<&Row> {
    let own = |row: &&Row| {
        let own = match row.case.protocol {
            Protocol::Wiremesh => Transport::Classes,
            Protocol::Iroh | Protocol::Gossipsub => Transport::Fifo,
        };
        row.case.transport == own && row.case.senders == senders
    };
    report.rows.iter().filter(own).collect()
}

fn line(out: &mut String, text: Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn curve(out: &mut String, top: f64, end: f64, n: usize, row: &Row) {
    let right = WIDTH - RIGHT;
    let mut points = String::new();
    for (part, ms) in row.reach_ms.iter().enumerate() {
        if let Some(ms) = ms {
            let x = LEFT + ms / end * (right - LEFT);
            let y = top + PANEL * (1.0 - part as f64 / 100.0);
            write!(points, "{x:.1},{y:.1} ").expect("a String takes everything");
        }
    }
    let (color, name) = match row.case.protocol {
        Protocol::Wiremesh => ("wiremesh", "Wiremesh"),
        Protocol::Iroh => ("iroh", "iroh-gossip"),
        Protocol::Gossipsub => ("gossipsub", "gossipsub"),
    };
    let (load, beside) = match row.case.load {
        Load::Idle => ("", "alone"),
        Load::Streams | Load::Objects => (" load", "beside bulk"),
    };
    let p99 = row
        .p99_ms
        .map_or("never".to_owned(), |ms| format!("{ms:.0} ms"));
    let (x, y) = (right + 18.0, top + 10.0 + 26.0 * n as f64);
    line(
        out,
        format_args!(
            "<polyline class=\"curve {color}{load}\" points=\"{}\"/>\
             <line class=\"curve {color}{load}\" x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text x=\"{}\" y=\"{}\">{name} {beside}: p99 {p99}</text>",
            points.trim_end(),
            x + 26.0,
            x + 34.0,
            y + 4.0
        ),
    );
}

fn axes(out: &mut String, top: f64, end: f64) {
    let right = WIDTH - RIGHT;
    for percent in [0, 25, 50, 75, 100] {
        let y = top + PANEL * (1.0 - f64::from(percent) / 100.0);
        let (text_x, text_y) = (LEFT - 8.0, y + 4.0);
        line(
            out,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>\
                 <text class=\"quiet\" text-anchor=\"end\" x=\"{text_x}\" y=\"{text_y}\">\
                 {percent} %</text>"
            ),
        );
    }
    let step = [50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0];
    let step = step.into_iter().find(|step| end / step <= 9.0);
    let step = step.unwrap_or(10_000.0);
    let bottom = top + PANEL;
    for n in 0..=(end / step) as u32 {
        let ms = f64::from(n) * step;
        let x = LEFT + ms / end * (right - LEFT);
        let unit = if n == 0 { " ms" } else { "" };
        line(
            out,
            format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
                 <text class=\"quiet\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{ms}{unit}\
                 </text>",
                bottom + 5.0,
                bottom + 20.0
            ),
        );
    }
}
