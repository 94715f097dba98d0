//! A ticket, or another text, as a QR code on a terminal.
//!
//! Owns the choice of the smallest code: tickets are read in either case, and upper case fits the
//! alphanumeric mode, which needs 5.5 bits for a character and not 8.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Draws `ticket` in half blocks, to be shown black on white; `None` when it is too wide for `columns`.
pub fn draw(ticket: &str, columns: usize) -> Option<String> {
    draw_exactly(&ticket.to_ascii_uppercase(), columns)
}

/// As [`draw`], for a text whose case counts.
pub fn draw_exactly(text: &str, columns: usize) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    // Four modules of quiet zone on each side.
    if code.width() + 8 > columns {
        return None;
    }
    // Dark modules are drawn: for black on white, whatever the terminal's own colours are.
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Dark)
        .light_color(Dense1x2::Light)
        .quiet_zone(true)
        .build();
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_fits_or_is_left_out() {
        let ticket = format!("wm{}", "a2".repeat(60));
        let drawn = draw(&ticket, 80).expect("fits");
        let width = drawn
            .lines()
            .map(|line| line.chars().count())
            .max()
            .expect("lines");
        assert!(width <= 80 && width > 30, "{width}");
        assert!(draw(&ticket, 40).is_none());
        assert!(draw(&"a".repeat(5000), 500).is_none());
    }

    #[test]
    fn upper_case_makes_it_smaller() {
        let ticket = format!("wm{}", "a2".repeat(60));
        let plain = QrCode::with_error_correction_level(&ticket, EcLevel::L).expect("fits");
        let drawn = draw(&ticket, 200).expect("fits");
        let width = drawn
            .lines()
            .map(|line| line.chars().count())
            .max()
            .expect("lines");
        assert!(width < plain.width() + 8);
    }
}
