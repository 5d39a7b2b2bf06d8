//! Writing to the terminal: the only place, with `progress` and `actions`, that prints.
//!
//! Knows: colours, broken pipes, tables; that what others wrote is masked and made safe on the way. Does
//! not know: what is printed.

#![allow(clippy::print_stderr, reason = "this is where people are told")]

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use super::args::Color;
use crate::error::{Error, Kind, Result};
use crate::mask::Masker;
use crate::text;

/// One line on stderr, as compilers do.
pub(super) fn error(masker: &Masker, error: &Error) {
    let bold = stderr_has_colour(Color::Auto);
    let (on, off) = if bold { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let text = error.to_string();
    eprintln!("{on}error:{off} {}", text::line(&masker.text(&text)));
}

/// What is wrong with the arguments, or the help that was asked for.
pub(super) fn usage(error: &clap::Error) {
    let plain = error.render().to_string();
    let masked = Masker::default().text(&plain).into_owned();
    let safe = text::lines(&masked);
    if safe == plain {
        let _best_effort = error.print();
    } else {
        eprint!("{safe}");
    }
}

/// A remark on stderr, of one or more lines.
pub(super) fn note(masker: &Masker, text: &str) {
    eprintln!("{}", text::lines(&masker.text(text)));
}

/// Writes bytes to stdout as they are. A reader that went away (`| head`) is no failure.
pub(super) fn out(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|cause| Error::new(Kind::Io, "cannot write to stdout").because(cause)),
    }
}

/// Writes a line to stdout as it is.
pub(super) fn line(text: &str) -> Result<()> {
    out(format!("{text}\n").as_bytes())
}

/// Writes text for people to stdout: lines that end, with credentials masked, safe in a terminal and in a
/// runner's log.
pub(super) fn text(masker: &Masker, text: &str) -> Result<()> {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    out(format!("{}{end}", text::lines(&masker.text(text))).as_bytes())
}

/// Writes JSON to stdout, one line, with credentials masked and everything else in characters that are safe
/// to look at; its meaning stays.
pub(super) fn json(masker: &Masker, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|cause| Error::new(Kind::Internal, "the output does not serialise").because(cause))?;
    json_text(masker, &format!("{text}\n"))
}

/// Writes documents of JSON that are text already, in the same way.
pub(super) fn json_text(masker: &Masker, documents: &str) -> Result<()> {
    let masked = masker.document(documents.as_bytes()).map(|masked| String::from_utf8_lossy(&masked).into_owned());
    out(text::json(masked.as_deref().unwrap_or(documents)).as_bytes())
}

/// Writes a stored body to stdout: as it is into a pipe or file, safe to look at on a terminal.
pub(super) fn body(body: &[u8]) -> Result<()> {
    if !io::stdout().is_terminal() {
        return out(body);
    }
    out(text::lines(&String::from_utf8_lossy(body)).as_bytes())
}

/// Rows in columns, the first row a heading. Cells are one line each.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| text::line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
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
