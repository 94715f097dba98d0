//! Sizes, rates and times as people read and write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use wiremesh::{EgressConfig, InvalidEgress};

/// Bytes in binary units: `512 B`, `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024 is 1 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes per second.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", bytes(bytes_per_second.max(0.0) as u64))
}

/// Bits per second in decimal units, as networks are sold: `9.87 Mbit/s`.
pub fn bit_rate(bits_per_second: f64) -> String {
    let mut value = bits_per_second.max(0.0);
    for unit in ["bit/s", "kbit/s", "Mbit/s"] {
        // What would be shown as 1000 is 1 of the next unit.
        if value < 999.5 {
            let decimals = if value < 9.995 {
                2
            } else {
                usize::from(value < 99.95)
            };
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1e3;
    }
    format!("{value:.2} Gbit/s")
}

/// A pace, as a person writes it: `10Mbit`, `2.5 Gbit/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRate(pub u64);

/// How a pace is written.
pub const BIT_RATE_FORM: &str = "\"10Mbit\", \"2.5Gbit\", \"800kbit\"";

/// Why a text is no pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBitRate {
    /// It does not begin with a number.
    Number,
    /// What follows the number is no unit.
    Unit,
    /// No node can keep it.
    Range(InvalidEgress),
}

impl fmt::Display for NoBitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number => write!(f, "it does not begin with a number"),
            Self::Unit => write!(f, "the unit must be bit, kbit, Mbit or Gbit (per second)"),
            Self::Range(_) => write!(f, "it must be from 8kbit to 1000Gbit"),
        }
    }
}

impl std::error::Error for NoBitRate {}

impl FromStr for BitRate {
    type Err = NoBitRate;

    fn from_str(text: &str) -> Result<Self, NoBitRate> {
        let text = text.trim();
        let digits = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let end = text.bytes().take_while(|byte| digits(*byte)).count();
        let (number, unit) = text.split_at(end);
        let number: f64 = number.parse().map_err(|_| NoBitRate::Number)?;
        let unit = unit.trim_start().to_ascii_lowercase();
        let factor = match unit.strip_suffix("/s").unwrap_or(&unit) {
            "bit" => 1.0,
            "kbit" => 1e3,
            "mbit" => 1e6,
            "gbit" => 1e9,
            _ => return Err(NoBitRate::Unit),
        };
        // A float that is too large becomes the largest integer, which is out of range.
        let rate_bits = (number * factor).round() as u64;
        let config = EgressConfig {
            rate_bits: Some(rate_bits),
            ..EgressConfig::default()
        };
        config.check().map_err(NoBitRate::Range)?;
        Ok(Self(rate_bits))
    }
}

/// A span in two units at most: `3.2 s`, `4 m 05 s`, `2 h 10 m`, `5 d 03 h`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time < Duration::from_millis(1) => format!("{} µs", time.as_micros()),
        0 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `1 file`, `2 files`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (512 << 20, "512.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (bits, text) in [
            (0.0, "0.00 bit/s"),
            (999.4, "999 bit/s"),
            (999.6, "1.00 kbit/s"),
            (12_345.0, "12.3 kbit/s"),
            (9.87e6, "9.87 Mbit/s"),
            (1.234e9, "1.23 Gbit/s"),
            (1e13, "10000.00 Gbit/s"),
            (f64::NAN, "0.00 bit/s"),
        ] {
            assert_eq!(bit_rate(bits), text);
        }
        assert_eq!(rate(-1.0), "0 B/s");
        assert_eq!(rate(f64::INFINITY), "16.0 EiB/s");
    }

    #[test]
    fn paces_are_read() {
        for (text, rate) in [
            ("10Mbit", Ok(10_000_000)),
            (" 2.5 Gbit/s ", Ok(2_500_000_000)),
            ("8kbit", Ok(8_000)),
            ("8000bit", Ok(8_000)),
            ("1000gbit", Ok(1_000_000_000_000)),
            ("10", Err(NoBitRate::Unit)),
            ("10 MB/s", Err(NoBitRate::Unit)),
            ("10Mbit/h", Err(NoBitRate::Unit)),
            ("", Err(NoBitRate::Number)),
            ("fast", Err(NoBitRate::Number)),
            ("-1Mbit", Err(NoBitRate::Number)),
            ("1.2.3Mbit", Err(NoBitRate::Number)),
        ] {
            assert_eq!(text.parse().map(|BitRate(bits)| bits), rate, "{text}");
        }
        for text in ["0bit", "7.9kbit", "1001Gbit", &"9".repeat(400)] {
            let text = format!("{}bit", text.trim_end_matches("bit"));
            assert!(text.parse::<BitRate>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        for (millis, text) in [
            (0, "0 µs"),
            (1, "1.0 ms"),
            (1500, "1.5 s"),
            (59_900, "59 s"),
            (65_000, "1 m 05 s"),
            (7_800_000, "2 h 10 m"),
            (442_800_000, "5 d 03 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }
}
