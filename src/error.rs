//! What went wrong, where, and what to do about it, in one line for people.
//!
//! Knows: kinds of failure and whether asking again can help. Does not know: exit codes (`cli`)
//! or which entries may answer instead (`policy`).

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::clock::Timestamp;

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure; it decides retries, stale answers and exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user asked for something that cannot be: a bad flag, plan, path or filter.
    Usage,
    /// A file or directory could not be read or written.
    Io,
    /// No connection, a broken one, or a truncated answer.
    Transport,
    /// No complete answer in time; GitHub may still be at it.
    TimedOut,
    /// GitHub answered 5xx.
    Server(u16),
    /// GitHub, or something between, answered with what was not asked for: no JSON, another coding. It says nothing about
    /// the resource.
    Malformed,
    /// A primary or secondary limit, or our own `max-requests`; nothing is sent before `until`.
    Limited {
        /// When asking again makes sense, where GitHub said so.
        until: Option<Timestamp>,
        /// Whether it is a secondary limit, which clients handle in another way than an empty bucket.
        secondary: bool,
    },
    /// GitHub refused: 401, a plain 403, 406, 422 …; asking again changes nothing.
    Refused(u16),
    /// `only-if-cached` and nothing stored.
    NotCached,
    /// Stored or received bytes that are not what they claim to be.
    Corrupt,
    /// Larger than the bound for its kind.
    TooLarge,
    /// A defect in this program.
    Internal,
}

/// An error: kind, one line of text, optional advice, optional cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    text: String,
    hint: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    response: Option<Arc<Response<Bytes>>>,
    requests: u32,
    refused: u32,
}

impl Error {
    /// A new error; `text` is a lowercase fragment that says what happened and where.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            text: text.into(),
            hint: None,
            cause: None,
            response: None,
            requests: 0,
            refused: 0,
        }))
    }

    /// The user asked for something that cannot be.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    /// Stored bytes that are not what they claim to be.
    pub fn corrupt(text: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, text)
    }

    /// A file operation that failed; `doing` reads "read", "write", "open" …
    pub fn io(doing: &str, path: &Path, cause: std::io::Error) -> Self {
        Self::new(Kind::Io, format!("cannot {doing} {}", path.display())).because(cause)
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The cause, printed after the text.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// GitHub's own response, for whoever can make something of it.
    #[must_use]
    pub fn with_response(mut self, response: Response<Bytes>) -> Self {
        self.0.response = Some(Arc::new(response));
        self
    }

    /// GitHub's own response, where there was one: of a limit or a 5xx, body and headers as they came.
    pub fn response(&self) -> Option<&Response<Bytes>> {
        self.0.response.as_deref()
    }

    /// The same, and how many requests were sent before it was given up, and how many of them GitHub refused for a limit.
    #[must_use]
    pub fn with_requests(mut self, requests: u32, refused: u32) -> Self {
        (self.0.requests, self.0.refused) = (requests, refused);
        self
    }

    /// Requests that were sent in vain.
    pub fn requests(&self) -> u32 {
        self.0.requests
    }

    /// Requests that were sent in vain and counted: all but those that GitHub refused for a limit.
    pub fn charged(&self) -> u32 {
        self.0.requests - self.0.refused.min(self.0.requests)
    }

    /// Says where it happened, in front of what is there already.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.0.text = format!("{place}: {}", self.0.text);
        self
    }

    /// Says in which file it happened; a text that begins with `line:column` is joined on as
    /// compilers do, `file:line:column: …`.
    #[must_use]
    pub fn within_file(mut self, file: impl fmt::Display) -> Self {
        let gap = if self.0.text.starts_with(|c: char| c.is_ascii_digit()) { ":" } else { ": " };
        self.0.text = format!("{file}{gap}{}", self.0.text);
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The same error for a caller that shared the request: text and hint, with the cause as text. It counts no requests.
    #[must_use]
    pub fn repeated(&self) -> Self {
        let mut said = self.to_string();
        if let Some(hint) = &self.0.hint {
            said.truncate(said.len() - hint.len() - 2);
        }
        let Inner { kind, ref hint, ref response, .. } = *self.0;
        let mut repeated = Self::new(kind, said);
        (repeated.0.hint, repeated.0.response) = (hint.clone(), response.clone());
        repeated
    }

    /// Whether a stale answer may stand in (A9): limits, 5xx, transport failures and responses that are none.
    pub fn allows_stale(&self) -> bool {
        self.is_transient() || matches!(self.0.kind, Kind::Limited { .. } | Kind::TooLarge)
    }

    /// Whether the same request may be sent again soon.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, Kind::Transport | Kind::TimedOut | Kind::Server(_) | Kind::Malformed)
    }

    /// Whether the user's input is at fault.
    pub fn is_usage(&self) -> bool {
        self.0.kind == Kind::Usage
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        let mut cause = self.0.cause.as_deref().map(|cause| cause as &dyn StdError);
        let mut said = self.0.text.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {}", text.replace('\n', " "))?;
                said = text;
            }
            cause = error.source();
        }
        match &self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_place_cause_and_advice() {
        let cause = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "denied");
        let error =
            Error::io("write", Path::new("out/a.json"), cause).within("query `a`").hint("choose another --output-dir");
        assert_eq!(error.to_string(), "query `a`: cannot write out/a.json: denied; choose another --output-dir");
        assert!(!error.allows_stale());
        let repeated = error.repeated();
        assert_eq!((repeated.kind(), repeated.to_string()), (error.kind(), error.to_string()));
    }
}
