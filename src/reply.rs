//! What GitHub answered: status, headers, and the body's bytes, whole and uncompressed.
//!
//! Knows: reading single headers. Does not know: what to do about any of it (`policy`).

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// One answer from upstream.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: StatusCode,
    /// Headers as received, less those of the connection and of content coding.
    pub headers: HeaderMap,
    /// The body after content decoding; empty for 204, 304 and `HEAD`.
    pub body: Bytes,
    /// Requests that it took, retries included.
    pub attempts: u32,
    /// Of those, how many were refused for a limit: they are not charged.
    pub refused: u32,
    /// Whether the rule of [`validator`](crate::policy::validator) explains its entity tag; for a 304, whether
    /// it carries the tag that was predicted. `None` where there was nothing to compare.
    pub rule_held: Option<bool>,
}

impl From<Reply> for http::Response<Bytes> {
    fn from(reply: Reply) -> Self {
        let mut response = Self::new(reply.body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        response
    }
}

impl Reply {
    /// A header's value when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether it is the free "not modified".
    pub fn is_not_modified(&self) -> bool {
        self.status == StatusCode::NOT_MODIFIED
    }
}
