//! What was measured, as a table for people and as one JSON object for programs.
//!
//! Owns names and units. Never measures.

use crate::table::{Cell, Table};
use crate::term::{Colour, Style};
use crate::units;
use serde_json::{Map, Value as Json, json};
use std::net::SocketAddr;
use std::time::Duration;
use wiremesh::{NodeId, Security};

/// A figure, or why there is none.
pub type Figure = Result<f64, String>;

/// Why there is no figure of the plain path when the user wants none.
pub const NOT_ASKED: &str = "not asked for";

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    BitsPerSecond,
    Fraction,
    Bytes,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Round trip of a datagram on an idle path, the middle one.
    IdleMedian,
    /// The same, slowest of a hundred.
    IdleSlow,
    /// Round trip over a stream, on an idle path.
    StreamMedian,
    /// One stream to the other host.
    Up,
    /// One stream from there.
    Down,
    /// Round trip of a datagram while a stream fills the path.
    LoadedMedian,
    /// The same, slowest of a hundred.
    LoadedSlow,
    /// Datagrams that arrive there.
    DatagramsUp,
    /// Those of them that do not.
    LossUp,
    /// Datagrams that arrive here.
    DatagramsDown,
    /// Those of them that do not.
    LossDown,
    /// The longest datagram that arrives.
    Largest,
    /// The longest datagram of a connection.
    LargestOfConnection,
}

impl Measure {
    /// Name for people, name for programs, unit.
    fn names(self) -> (&'static str, &'static str, Unit) {
        use Unit::{BitsPerSecond, Bytes, Fraction, Seconds};
        match self {
            Self::IdleMedian => ("round trip, UDP", "round_trip_idle_median_seconds", Seconds),
            Self::IdleSlow => ("  99th percentile", "round_trip_idle_p99_seconds", Seconds),
            Self::StreamMedian => (
                "round trip, stream/TCP",
                "round_trip_stream_median_seconds",
                Seconds,
            ),
            Self::Up => (
                "throughput up",
                "throughput_up_bits_per_second",
                BitsPerSecond,
            ),
            Self::Down => (
                "throughput down",
                "throughput_down_bits_per_second",
                BitsPerSecond,
            ),
            Self::LoadedMedian => (
                "round trip under load",
                "round_trip_loaded_median_seconds",
                Seconds,
            ),
            Self::LoadedSlow => (
                "  99th percentile",
                "round_trip_loaded_p99_seconds",
                Seconds,
            ),
            Self::DatagramsUp => (
                "datagrams up",
                "datagrams_up_bits_per_second",
                BitsPerSecond,
            ),
            Self::LossUp => ("  lost", "datagrams_up_loss_fraction", Fraction),
            Self::DatagramsDown => (
                "datagrams down",
                "datagrams_down_bits_per_second",
                BitsPerSecond,
            ),
            Self::LossDown => ("  lost", "datagrams_down_loss_fraction", Fraction),
            Self::Largest => ("largest datagram", "largest_datagram_bytes", Bytes),
            Self::LargestOfConnection => (
                "  of a connection",
                "largest_connection_datagram_bytes",
                Bytes,
            ),
        }
    }
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Self::Seconds => units::span(Duration::from_secs_f64(figure.clamp(0.0, 1e6))),
            Self::BitsPerSecond => units::bit_rate(figure),
            Self::Fraction => format!("{:.2} %", figure * 100.0),
            Self::Bytes => format!("{figure:.0} B"),
        }
    }
}

/// What was measured of one thing.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of what.
    pub measure: Measure,
    /// Inside the tunnel.
    pub tunnel: Figure,
    /// Beside it.
    pub plain: Figure,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        match (&self.tunnel, &self.plain) {
            (Ok(tunnel), Ok(plain)) if *plain > 0.0 => Some(tunnel / plain),
            _ => None,
        }
    }

    /// Why a figure is missing.
    fn reason(&self) -> String {
        match (&self.tunnel, &self.plain) {
            (Err(tunnel), Err(plain)) if tunnel != plain => format!("{tunnel}; plain: {plain}"),
            (Err(reason), _) | (_, Err(reason)) => reason.clone(),
            _ => String::new(),
        }
    }
}

/// All that was measured, and of what.
#[derive(Clone, Debug)]
pub struct Report {
    /// The other side.
    pub peer: NodeId,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// What protects the tunnel.
    pub security: Security,
    /// For how long each thing was measured.
    pub duration: Duration,
    /// Offered in datagrams.
    pub rate_bits_per_second: u64,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Report {
    /// For people.
    pub fn draw(&self, style: Style) -> String {
        let path = self
            .endpoint
            .map_or_else(|| "an unknown endpoint".to_owned(), |at| at.to_string());
        let level = self.security.level;
        let mut text = format!(
            "tunnel to {} at {path}, level {level}; {} per measurement; datagrams offered at {}\n\n",
            self.peer,
            units::span(self.duration),
            units::bit_rate(self.rate_bits_per_second as f64),
        );
        let mut table = Table::new(&["MEASURE", "TUNNEL", "PLAIN", "RATIO", "NOTE"]);
        for row in &self.rows {
            let (title, _, unit) = row.measure.names();
            let cell = |figure: &Figure| match figure {
                Ok(figure) => Cell::number(unit.show(*figure)),
                Err(_) => Cell::number("-").colour(Colour::Faint),
            };
            let mut note = row.reason();
            if note == NOT_ASKED {
                note.clear();
            }
            let ratio = row.ratio().map(|ratio| format!("{ratio:.2}"));
            table.row(vec![
                Cell::text(title),
                cell(&row.tunnel),
                cell(&row.plain),
                Cell::number(ratio.unwrap_or_else(|| "-".to_owned())),
                Cell::text(note).colour(Colour::Doubt),
            ]);
        }
        text += &table.draw(style);
        text
    }

    /// For programs, one line.
    pub fn json(&self) -> String {
        let mut object = Map::new();
        let mut put = |name: &str, value: Json| object.insert(name.to_owned(), value);
        put("version", json!(1));
        put("peer", json!(self.peer.to_string()));
        put("endpoint", json!(self.endpoint.map(|at| at.to_string())));
        put("level", json!(self.security.level.name()));
        put("duration_seconds", json!(self.duration.as_secs_f64()));
        put(
            "datagrams_offered_bits_per_second",
            json!(self.rate_bits_per_second),
        );
        for row in &self.rows {
            let (_, name, _) = row.measure.names();
            let mut figures = json!({
                "tunnel": row.tunnel.as_ref().ok(),
                "plain": row.plain.as_ref().ok(),
                "ratio": row.ratio(),
            });
            for (name, figure) in [("tunnel", &row.tunnel), ("plain", &row.plain)] {
                if let Err(reason) = figure {
                    figures[format!("{name}_missing")] = json!(reason);
                }
            }
            put(name, figures);
        }
        format!("{}\n", Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tunnel: Figure, plain: Figure) -> Row {
        let measure = Measure::Up;
        Row {
            measure,
            tunnel,
            plain,
        }
    }

    #[test]
    fn ratio_needs_two_figures_and_no_zero() {
        let missing = || Err("blocked".to_owned());
        assert_eq!(row(Ok(1.0), Ok(2.0)).ratio(), Some(0.5));
        assert_eq!(row(Ok(0.0), Ok(0.0)).ratio(), None);
        assert_eq!(row(Ok(1.0), missing()).ratio(), None);
        assert_eq!(row(Ok(1.0), missing()).reason(), "blocked");
        assert_eq!(row(missing(), missing()).reason(), "blocked");
        assert_eq!(
            row(Err("x".into()), missing()).reason(),
            "x; plain: blocked"
        );
    }

    #[test]
    fn figures_have_their_units() {
        for (unit, figure, text) in [
            (Unit::Seconds, 0.0123, "12.3 ms"),
            (Unit::Seconds, -1.0, "0 µs"),
            (Unit::BitsPerSecond, 9.87e6, "9.87 Mbit/s"),
            (Unit::Fraction, 0.0125, "1.25 %"),
            (Unit::Bytes, 1_372.0, "1372 B"),
        ] {
            assert_eq!(unit.show(figure), text);
        }
    }
}
