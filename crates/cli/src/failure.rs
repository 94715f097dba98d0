//! What goes wrong, told to a person: what, where, and how to fix it.
//!
//! Owns the exit codes: 0 done, 1 failed at run time, 2 wrong input, 130 interrupted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The input was good and something failed: code 1.
    Runtime,
    /// An argument, ticket, key, configuration line or protocol name is wrong: code 2.
    Input,
    /// Ctrl-C or a termination signal: code 130.
    Interrupted,
}

impl Exit {
    /// The number for the shell.
    pub fn code(self) -> u8 {
        match self {
            Self::Runtime => 1,
            Self::Input => 2,
            Self::Interrupted => 130,
        }
    }
}

/// A place in a file that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Place {
    /// The place of a byte in a text.
    pub fn of_byte(file: &Path, text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// An error as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of end.
    pub exit: Exit,
    /// What is wrong.
    pub what: String,
    /// Where: file and line, or field.
    pub place: Option<String>,
    /// How to fix it.
    pub fix: Option<String>,
}

impl Failure {
    /// Wrong input.
    pub fn input(what: impl Into<String>) -> Self {
        Self {
            exit: Exit::Input,
            what: what.into(),
            place: None,
            fix: None,
        }
    }

    /// A failure at run time.
    pub fn runtime(what: impl Into<String>) -> Self {
        Self {
            exit: Exit::Runtime,
            ..Self::input(what)
        }
    }

    /// The user stopped it.
    pub fn interrupted() -> Self {
        Self {
            exit: Exit::Interrupted,
            ..Self::input("interrupted")
        }
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, place: impl ToString) -> Self {
        self.place = Some(place.to_string());
        self
    }

    /// Adds the remedy.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Writes it to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        // Standard error that is gone is no reason for a second error.
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{self}"));
        ExitCode::from(self.exit.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            Exit::Interrupted => writeln!(f, "{}", self.what)?,
            Exit::Runtime | Exit::Input => writeln!(f, "error: {}", self.what)?,
        }
        if let Some(place) = &self.place {
            writeln!(f, "   at: {place}")?;
        }
        if let Some(fix) = &self.fix {
            let mut label = "  fix: ";
            for line in fix.lines() {
                writeln!(f, "{label}{line}")?;
                label = "       ";
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_what_where_and_fix() {
        let failure = Failure::input("bad").at("x.toml:3:4").fix("one\ntwo");
        assert_eq!(
            failure.to_string(),
            "error: bad\n   at: x.toml:3:4\n  fix: one\n       two\n"
        );
        assert_eq!(failure.exit.code(), 2);
        assert_eq!(Failure::interrupted().to_string(), "interrupted\n");
        assert_eq!(Failure::runtime("x").exit.code(), 1);
        assert_eq!(Failure::interrupted().exit.code(), 130);
    }

    #[test]
    fn bytes_become_lines_and_columns() {
        let text = "ab\nçd\n";
        let at = |byte| {
            let place = Place::of_byte(Path::new("f"), text, byte);
            (place.line, place.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(1), (1, 2));
        assert_eq!(at(3), (2, 1));
        assert_eq!(at(5), (2, 2));
        assert_eq!(at(7), (3, 1));
        assert_eq!(at(99), (3, 1));
    }
}
