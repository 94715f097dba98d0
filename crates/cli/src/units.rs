//! Sizes, rates and times as people read them.

use std::time::Duration;

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
