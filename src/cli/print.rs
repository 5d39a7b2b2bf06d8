//! Writing to the terminal: the only place, with `progress` and `actions`, that prints.
//!
//! Knows: colours, broken pipes, tables. Does not know: what is printed.

#![allow(clippy::print_stderr, reason = "this is where people are told")]

use std::io::{self, IsTerminal, Write};

use super::args::Color;
use crate::error::{Error, Kind, Result};
use crate::plan::redact;

/// One line on stderr, as compilers do.
pub(super) fn error(error: &Error) {
    let bold = stderr_has_colour(Color::Auto);
    let (on, off) = if bold { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    // GitHub's own words may be in it, and in them whatever somebody wrote.
    eprintln!("{on}error:{off} {}", redact::mask_text(&error.to_string()));
}

/// A remark on stderr.
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// Writes to stdout. A reader that went away (`| head`) is no failure.
pub(super) fn out(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|cause| Error::new(Kind::Io, "cannot write to stdout").because(cause)),
    }
}

/// Writes a line to stdout.
pub(super) fn line(text: &str) -> Result<()> {
    out(format!("{text}\n").as_bytes())
}

/// Writes JSON to stdout, one line.
pub(super) fn json(value: &impl serde::Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|cause| Error::new(Kind::Internal, "the output does not serialise").because(cause))?;
    bytes.push(b'\n');
    out(&bytes)
}

/// Rows in columns, the first row a heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Whether stdout is a terminal, and whether to write colours to it, as gh decides.
pub(super) fn stdout_looks(color: Color, environment: &crate::config::Environment) -> (bool, bool) {
    let terminal = io::stdout().is_terminal() || environment.get("GH_FORCE_TTY").is_some();
    let wanted = environment.get("NO_COLOR").is_none() && environment.get("CLICOLOR") != Some("0");
    let forced = environment.get("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    let colour = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => forced || (terminal && wanted),
    };
    (terminal, colour)
}

/// All of standard input, at most `max` bytes of it.
pub(super) fn read_stdin(max: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let failed = |cause| Error::new(Kind::Io, "cannot read standard input").because(cause);
    io::stdin().lock().take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(Error::new(Kind::TooLarge, "standard input is too large"));
    }
    Ok(bytes)
}

pub(super) fn stderr_has_colour(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && crate::config::Environment::of_process().get("NO_COLOR").is_none(),
    }
}
