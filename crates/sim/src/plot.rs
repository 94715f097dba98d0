//! A plot of an upgrade, as an SVG file in plain text.
//!
//! Owns the picture: two areas over time, nodes by stage above and links by suite below. Colours
//! are told apart by lightness as well, and text follows the colour scheme of the reader.

use crate::upgrade::{Sample, UpgradeReport};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 180.0;
const PANEL: f64 = 190.0;
const TOPS: [f64; 2] = [64.0, 318.0];
const HEIGHT: f64 = 572.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1c2330}\
.title{font-size:16px;font-weight:600}\
.quiet{fill:#5b6472}\
.grid{stroke:#8a94a3;stroke-opacity:.35}\
.edge{stroke:#8a94a3}\
.old{fill:#e0a03c}.both{fill:#5b8fd6}.new{fill:#1f7a4d}.none{fill:#b3363e}\
@media(prefers-color-scheme:dark){text{fill:#e8ecf2}.quiet{fill:#a6b0be}\
.old{fill:#d9a04a}.both{fill:#6c9fe6}.new{fill:#3fae78}.none{fill:#e0636b}}";

/// One area: its class, its name, and its part of the whole in a sample.
type Area = (&'static str, &'static str, fn(&Sample) -> f64);

fn share(counts: &[usize], place: usize) -> f64 {
    let whole: usize = counts.iter().sum();
    counts[place] as f64 / whole.max(1) as f64
}

const NODES: [Area; 4] = [
    ("old", "old only", |sample| share(&sample.nodes, 0)),
    ("both", "both", |sample| share(&sample.nodes, 1)),
    ("new", "new only", |sample| share(&sample.nodes, 2)),
    ("none", "not running", |sample| share(&sample.nodes, 3)),
];

const LINKS: [Area; 3] = [
    ("old", "0x0001: L1", |sample| share(&sample.links, 0)),
    ("new", "0x0002: L2", |sample| share(&sample.links, 1)),
    ("none", "no session", |sample| share(&sample.links, 2)),
];

/// The plot of a report.
pub fn svg(report: &UpgradeReport) -> String {
    let nodes: usize = report.samples.first().map_or(0, |s| s.nodes.iter().sum());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Upgrade of a simulated network of {nodes} nodes</title>\n\
         <style>{STYLE}</style>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"26\">Upgrade of {nodes} simulated nodes with {} \
         links, while all of them talk</text>\n",
        report.links
    );
    panel(&mut out, report, TOPS[0], "nodes by stage", &NODES);
    panel(&mut out, report, TOPS[1], "links by suite in use", &LINKS);
    let y = HEIGHT - 14.0;
    line(
        &mut out,
        format_args!(
            "<text class=\"quiet\" x=\"{LEFT}\" y=\"{y}\">minutes; one node rolled back, one \
             killed; {} messages, {} lost beside those of the killed node</text>",
            report.sent, report.lost
        ),
    );
    out.push_str("</svg>\n");
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn panel(out: &mut String, report: &UpgradeReport, top: f64, title: &str, areas: &[Area]) {
    let samples = &report.samples;
    let end = samples.last().map_or(1.0, |s| s.at.as_secs_f64()).max(1.0);
    let x = |sample: &Sample| LEFT + sample.at.as_secs_f64() / end * (WIDTH - LEFT - RIGHT);
    let y = |part: f64| top + PANEL * (1.0 - part);
    let above = top - 10.0;
    line(
        out,
        format_args!("<text x=\"{LEFT}\" y=\"{above}\">{title}</text>"),
    );
    let mut below = vec![0.0; samples.len()];
    for (n, (class, name, part)) in areas.iter().enumerate() {
        let upper: Vec<f64> = samples
            .iter()
            .zip(&below)
            .map(|(sample, below)| below + part(sample))
            .collect();
        let mut points = String::new();
        let along = samples.iter().zip(&upper);
        let back = samples.iter().zip(&below).rev();
        for (sample, part) in along.chain(back) {
            write!(points, "{:.1},{:.1} ", x(sample), y(*part)).expect("a String takes everything");
        }
        let points = points.trim_end();
        line(
            out,
            format_args!("<polygon class=\"{class}\" points=\"{points}\"/>"),
        );
        let (key_x, key_y) = (WIDTH - RIGHT + 18.0, top + 8.0 + 24.0 * n as f64);
        let (text_x, text_y) = (key_x + 20.0, key_y + 11.0);
        line(
            out,
            format_args!(
                "<rect class=\"{class}\" x=\"{key_x}\" y=\"{key_y}\" width=\"13\" height=\"13\"/>\
                 <text x=\"{text_x}\" y=\"{text_y}\">{name}</text>"
            ),
        );
        below = upper;
    }
    axes(out, top, end);
}

fn axes(out: &mut String, top: f64, end_secs: f64) {
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
    let bottom = top + PANEL;
    let minutes = (end_secs / 60.0) as u32;
    let step = (minutes / 5).max(1);
    for minute in (0..=minutes).step_by(step as usize) {
        let x = LEFT + f64::from(minute) * 60.0 / end_secs * (right - LEFT);
        let (tick, text_y) = (bottom + 5.0, bottom + 20.0);
        line(
            out,
            format_args!(
                "<line class=\"edge\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{tick}\"/>\
                 <text class=\"quiet\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{text_y}\">\
                 {minute}</text>"
            ),
        );
    }
}
