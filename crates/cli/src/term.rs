//! What a terminal can show.
//!
//! Owns the decision for colours, and the width. Colours only go to a terminal, and never when
//! NO_COLOR is set (no-color.org).

use std::env;
use std::io::IsTerminal;

/// Width when nobody knows it, in columns.
const COLUMNS: usize = 80;

/// How text may be decorated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colours: bool,
}

/// The colours in use, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// All is well.
    Good,
    /// Something is not as it could be.
    Doubt,
    /// Something is wrong.
    Bad,
    /// Headings.
    Strong,
    /// Less important.
    Faint,
}

impl Style {
    /// No decoration.
    pub const PLAIN: Self = Self { colours: false };

    /// For standard output.
    pub fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    /// For standard error.
    pub fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            colours: terminal && !no_colour && !dumb,
        }
    }

    /// Decorates, or not.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if !self.colours || text.is_empty() {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => "32",
            Colour::Doubt => "33",
            Colour::Bad => "31",
            Colour::Strong => "1",
            Colour::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Whether standard error is a terminal that can redraw a line.
pub fn stderr_redraws() -> bool {
    std::io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Columns of the terminal at standard error.
#[cfg(unix)]
pub fn columns() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS)
}

/// Columns of the terminal at standard error.
#[cfg(not(unix))]
pub fn columns() -> usize {
    COLUMNS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_style_changes_nothing() {
        assert_eq!(Style::PLAIN.paint(Colour::Bad, "x"), "x");
        let colours = Style { colours: true };
        assert_eq!(colours.paint(Colour::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(colours.paint(Colour::Bad, ""), "");
    }
}
