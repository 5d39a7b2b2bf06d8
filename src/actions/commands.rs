//! The runner's files and workflow commands.
//!
//! Knows: how values are written so that they cannot be taken for something else. Does not know:
//! which values.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::text;

/// The files that the runner reads after a step.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// `GITHUB_OUTPUT`.
    pub output: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`.
    pub summary: Option<PathBuf>,
    /// `GITHUB_ENV`.
    pub env: Option<PathBuf>,
}

impl Commands {
    /// Sets outputs. Each value stands between delimiters that it cannot contain.
    pub fn set_outputs(&self, outputs: &[(&str, String)]) -> Result<()> {
        self.output.as_ref().map_or(Ok(()), |path| set(path, outputs))
    }

    /// Sets variables for the steps to come.
    pub fn set_env(&self, variables: &[(&str, String)]) -> Result<()> {
        self.env.as_ref().map_or(Ok(()), |path| set(path, variables))
    }

    /// Adds to the job summary.
    pub fn add_summary(&self, markdown: &str) -> Result<()> {
        match &self.summary {
            Some(path) => append(path, markdown),
            None => Ok(()),
        }
    }
}

fn set(path: &Path, values: &[(&str, String)]) -> Result<()> {
    let mut text = String::new();
    for (name, value) in values {
        let delimiter = format!("octocache_{}", &HEXLOWER.encode(&Sha256::digest(value))[..24]);
        text.push_str(&format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"));
    }
    append(path, &text)
}

fn append(path: &Path, text: &str) -> Result<()> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|cause| Error::io("write", path, cause))
}

/// An annotation: `level` is `error`, `warning` or `notice`.
pub fn annotation(level: &str, title: &str, text: &str) -> String {
    format!("::{level} title={}::{}", escape_property(title), escape_data(text))
}

/// Data of a workflow command, so that it cannot begin another one; control characters other than line
/// ends become visible.
pub fn escape_data(text: &str) -> String {
    text::without_controls(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out() {
        let dir = tempfile::tempdir().unwrap();
        let commands = Commands { output: Some(dir.path().join("out")), ..Commands::default() };
        commands.set_outputs(&[("a", "1\nb<<EOF\nevil\nEOF".into()), ("c", String::new())]).unwrap();
        let text = std::fs::read_to_string(dir.path().join("out")).unwrap();
        let first = text.lines().next().unwrap().split_once("<<").unwrap().1.to_owned();
        assert_eq!(text.matches(&first).count(), 2);
        assert_eq!(annotation("error", "a:b", "x\n::set-env::y"), "::error title=a%3Ab::x%0A::set-env::y");
        assert_eq!(annotation("error", "a\u{1b}", "\u{9b}\u{202e}"), "::error title=a^[::\\u{9b}\\u{202e}");
    }
}
