//! The cache key (A1): a digest of everything that selects a stored response.
//!
//! Knows: which parts go in and how they are written down. Does not know: freshness or files.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address;
use crate::partition::Partition;
use crate::request::{Api, Method, Request};

/// The parts of a key, readable: what `explain` prints and every envelope carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyParts {
    /// `GET`, `HEAD`, `POST` (GraphQL), `GRAPHQL` (from a batch), or `NAME` for a library caller's own key.
    pub method: String,
    /// What stands for the API ([`Api::key_base`]); empty for own keys.
    pub host: String,
    /// Path below the API's prefix, or the caller's own name.
    pub path: String,
    /// Query in normal order.
    pub query: String,
    /// Media type in the normal form of its representation.
    pub accept: String,
    /// API version asked for.
    pub api_version: String,
    /// SHA-256 of the request's body in hex, for GraphQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    /// Features of GraphQL's that were asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub features: String,
    /// Whose view it is.
    pub partition: Partition,
}

impl KeyParts {
    /// The parts of a request under an identity.
    pub fn of(request: &Request, partition: &Partition) -> Self {
        Self {
            method: request.method.as_str().into(),
            host: request.host.as_ref().into(),
            path: request.path.clone(),
            query: request.query.clone(),
            accept: request.accept.clone(),
            api_version: request.api_version.clone(),
            body_sha256: match &request.method {
                Method::Graphql(body) => Some(Self::body_digest(body)),
                Method::Get | Method::Head | Method::Projected => None,
            },
            features: request.features.clone(),
            partition: partition.clone(),
        }
    }

    /// What stands for a body in a key: its SHA-256 in hex.
    pub fn body_digest(body: &[u8]) -> String {
        HEXLOWER.encode(&Sha256::digest(body))
    }

    /// The request that an entry with these parts answers, if they tell it: of a GraphQL document
    /// only the digest is kept, and own names are never asked for.
    pub fn request(&self, api: &Api, listing: Option<&str>) -> Option<Request> {
        let method = match self.method.as_str() {
            "GET" => Method::Get,
            "GRAPHQL" => Method::Projected,
            _ => return None,
        };
        // Of a credential only its mask is known.
        let plain = Request::get(api, &self.target()).ok().filter(|plain| !plain.has_credentials())?;
        Some(Request {
            method,
            accept: self.accept.clone(),
            api_version: self.api_version.clone(),
            listing: listing.map(Into::into),
            ..plain
        })
    }

    /// The parts of a library caller's own name, such as `release-v1.2`.
    pub fn named(name: &str, partition: &Partition) -> Self {
        Self {
            method: "NAME".into(),
            host: String::new(),
            path: name.into(),
            query: String::new(),
            accept: String::new(),
            api_version: String::new(),
            body_sha256: None,
            features: String::new(),
            partition: partition.clone(),
        }
    }

    /// The key: SHA-256 of the parts' JSON, in the order of the fields above.
    pub fn key(&self) -> CacheKey {
        let mut hash = HashWriter(Sha256::new());
        hash.0.update(b"octocache key v1\n");
        // Strings in a fixed order always serialise, and a digest always takes them.
        let _infallible = serde_json::to_writer(&mut hash, self);
        CacheKey(hash.0.finalize().into())
    }

    /// Path and query, for people: credentials are masked.
    pub fn target(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        address::masked(&format!("{}{mark}{}", self.path, self.query)).into_owned()
    }
}

struct HashWriter(Sha256);

impl std::io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What selects a stored response: 32 bytes, shown as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes 32 bytes for a key.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse(hex: &str) -> Option<Self> {
        HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, accept: &str, partition: &Partition) -> CacheKey {
        let request = Request::get(&Api::github(), path).unwrap().accepting(accept);
        KeyParts::of(&request, partition).key()
    }

    #[test]
    fn every_part_counts_and_spelling_does_not() {
        let public = Partition::public();
        let base = key("/x?a=1&b=2", "*/*", &public);
        assert_eq!(base, key("/x?b=2&a=1", "application/json", &public));
        assert_ne!(base, key("/x?a=1&b=3", "*/*", &public));
        assert_ne!(base, key("/x?a=1&b=2", "application/vnd.github.raw", &public));
        assert_ne!(base, key("/x?a=1&b=2", "*/*", &Partition::installation(1)));
        let [a, b] = ["{\"query\":\"{a}\"}", "{\"query\":\"{b}\"}"]
            .map(|body| KeyParts::of(&Request::graphql(&Api::github(), body), &public).key());
        assert_ne!(a, b);
    }

    #[test]
    fn parts_lead_back_to_their_request() {
        let api = Api::github();
        let request = Request::get(&api, "/repos/o/r/issues?state=all&per_page=9").unwrap().accepting("text/html");
        for request in [request.clone(), request.projected()] {
            let parts = KeyParts::of(&request, &Partition::public());
            assert_eq!(parts.request(&api, None), Some(request));
        }
        assert_eq!(KeyParts::named("x", &Partition::public()).request(&api, None), None);
        assert_eq!(KeyParts::of(&Request::graphql(&api, "{}"), &Partition::public()).request(&api, None), None);
    }

    #[test]
    fn the_digest_is_stable_across_versions_of_this_program() {
        // A change here makes every stored entry unreachable: bump the store's version with it.
        assert_eq!(
            key("/repos/o/r", "*/*", &Partition::public()).to_string(),
            "0c2f7db9b54a1347172881520c2c3baa0d6df18d041feae817e7b90de7b376ef"
        );
    }
}
