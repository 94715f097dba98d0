//! Words to the user on standard error, and results on standard output.
//!
//! Owns the difference between the two: standard output has only what a script would want. A
//! closed pipe is no error of ours.

use crate::failure::Failure;
use crate::qr;
use crate::term::{self, Colour, Style};
use std::io::{self, IsTerminal, Write};

/// Tells something.
pub fn note(text: impl AsRef<str>) {
    // Standard error that is gone cannot be told about.
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Warns.
pub fn warn(text: impl AsRef<str>) {
    let label = Style::stderr().paint(Colour::Doubt, "warning:");
    note(format!("{label} {}", text.as_ref()));
}

/// Prints a result. A reader that is gone has seen enough.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn print(text: impl AsRef<str>) -> Result<(), Failure> {
    print_more(text).map(drop)
}

/// Prints a part of a result that may go on for ever; whether anybody still reads.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn print_more(text: impl AsRef<str>) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_ref().as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::runtime(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}

/// Shows a ticket as a QR code when standard error is a terminal that is wide enough.
pub fn qr_code(ticket: &str, wanted: bool) {
    if !wanted || !io::stderr().is_terminal() {
        return;
    }
    match qr::draw(ticket, term::columns()) {
        Some(code) if term::stderr_redraws() => {
            // A reader needs dark on light. This is no decoration, so NO_COLOR does not count.
            code.lines()
                .for_each(|line| note(format!("\u{1b}[30;107m{line}\u{1b}[0m")));
        }
        Some(code) => note(code),
        None => note("(no QR code: the terminal is too narrow for it)"),
    }
}

/// Prints a QR code as a result.
///
/// # Errors
///
/// As [`print()`].
pub fn print_code(code: &str) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return print(format!("{code}\n"));
    }
    // A reader needs dark on light. This is no decoration, so NO_COLOR does not count.
    let lines = code
        .lines()
        .map(|line| format!("\u{1b}[30;107m{line}\u{1b}[0m\n"));
    print(lines.collect::<String>())
}

/// Quotes an argument for a shell.
pub fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,~".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// The command line of this run, to be run again.
pub fn this_command() -> String {
    let arguments = std::env::args_os().skip(1);
    let words = arguments.map(|argument| quoted(&argument.to_string_lossy()));
    std::iter::once("wiremesh".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        for (argument, expected) in [
            ("wmabc", "wmabc"),
            ("--into=/tmp/x", "--into=/tmp/x"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$(x)", "'$(x)'"),
        ] {
            assert_eq!(quoted(argument), expected);
        }
    }
}
