//! Where the log goes: standard error, with credentials masked and control characters made visible.
//!
//! Knows: that one write is one event. Does not know: events.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::mask::Masker;
use crate::text;

/// Levels as they begin a line, and their colours.
const LEVELS: &[(&str, &str)] =
    &[("ERROR", "\x1b[31m"), (" WARN", "\x1b[33m"), (" INFO", "\x1b[32m"), ("DEBUG", "\x1b[34m")];

/// Writes events to standard error.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    masker: Masker,
    is_json: bool,
    colour: bool,
}

impl Writer {
    pub(super) fn new(masker: Masker, is_json: bool, colour: bool) -> Self {
        Self { masker, is_json, colour }
    }

    /// The line of an event as it is written.
    fn line(&self, event: &[u8]) -> String {
        let event = event.strip_suffix(b"\n").unwrap_or(event);
        let mut line = if self.is_json {
            let masked = self.masker.document(event);
            let masked = String::from_utf8_lossy(masked.as_deref().unwrap_or(event)).into_owned();
            text::json(&masked).into_owned()
        } else {
            text::line(&self.masker.text(&String::from_utf8_lossy(event))).into_owned()
        };
        let level = LEVELS.iter().find(|(level, _)| self.colour && line.starts_with(level));
        if let Some((level, colour)) = level {
            line = format!("{colour}{level}\x1b[0m{}", &line[level.len()..]);
        }
        line.push('\n');
        line
    }
}

impl Write for Writer {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(self.line(event).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Writer;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_safe_line_without_credentials() {
        let masker = Masker::default();
        masker.add("own-secret");
        let text = Writer::new(masker.clone(), false, false);
        let event = format!(
            " INFO answered target=/a?token=ghp_{}&s=own-secret\u{9b}\n::warning::x \u{202e}\x1b[31m\n",
            "a1".repeat(18)
        );
        assert_eq!(
            text.line(event.as_bytes()),
            " INFO answered target=/a?token=***&s=***\\u{9b}^J::warning::x \\u{202e}^[[31m\n"
        );
        let json = Writer::new(masker, true, false);
        let event = "{\"fields\":{\"target\":\"/a?token=abc\\n\u{9b}\",\"s\":\"own-secret ##[error]\"}}\n";
        assert_eq!(
            json.line(event.as_bytes()),
            "{\"fields\":{\"target\":\"/a?token=***\\n\\u009b\",\"s\":\"*** \\u0023#[error]\"}}\n"
        );
        let coloured = Writer::new(Masker::default(), false, true);
        assert_eq!(coloured.line(b" WARN x\x1b[1m\n"), "\x1b[33m WARN\x1b[0m x^[[1m\n");
    }
}
