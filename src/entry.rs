//! The envelope (A3): one stored response, the same bytes as a loose file, as a member of a
//! bundle and on any other way.
//!
//! Knows: its one encoding and how to check it. Does not know: files, freshness, tiers.
//! Metadata come first and are bounded; the body comes last and is never parsed here, so reading
//! costs one small parse, two digests and no copy.

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use http::HeaderMap;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::key::{CacheKey, KeyParts};

/// The envelope's version; a newer one is a miss, never an error.
pub const VERSION: u32 = 1;

/// The largest envelope that is stored or read back.
pub const MAX_BYTES: usize = 32 << 20;

/// The largest metadata part.
const MAX_META_BYTES: usize = 16 << 10;

/// Response headers that are worth keeping. Never rate limits, cookies, dates or anything that
/// describes the moment rather than the resource.
const KEPT: &[&str] = &[
    "cache-control",
    "content-language",
    "content-type",
    "deprecation",
    "etag",
    "last-modified",
    "link",
    "location",
    "sunset",
    "vary",
    "x-accepted-github-permissions",
    "x-accepted-oauth-scopes",
    "x-github-api-version-selected",
    "x-github-media-type",
    "x-github-request-id",
    "x-oauth-scopes",
    "x-poll-interval",
];

/// Those that are about the requester or one exchange: they are not for who has another token.
const PERSONAL: &[&str] = &["x-github-request-id", "x-oauth-scopes"];

/// Those that have one value.
const SINGLE: &[&str] =
    &["content-type", "etag", "last-modified", "location", "x-github-request-id", "x-poll-interval"];

/// Whether a text is an entity tag (RFC 9110 section 8.8.3).
fn is_entity_tag(text: &str) -> bool {
    let opaque = text.strip_prefix("W/").unwrap_or(text);
    let inner = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| inner.bytes().all(|byte| byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80))
}

/// Response headers as stored: allow-listed names in lower case, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredHeaders(std::collections::BTreeMap<String, String>);

impl StoredHeaders {
    /// What is worth keeping of `headers`; repeated fields are joined as RFC 9110 section 5.3 says. A field that has one
    /// value, and comes with two different ones, is left out, as are validators that are none.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut kept = Self::default();
        for name in KEPT {
            let values: Vec<&str> = headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect();
            let [first, more @ ..] = values.as_slice() else { continue };
            let is_single = SINGLE.contains(name);
            let is_sound = match *name {
                "etag" => is_entity_tag(first),
                "last-modified" => httpdate::parse_http_date(first).is_ok(),
                _ => true,
            };
            if is_sound && (!is_single || more.iter().all(|one| one == first)) {
                let value = if is_single { (*first).to_owned() } else { values.join(", ") };
                kept.0.insert((*name).into(), value);
            }
        }
        kept
    }

    /// One value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets one value; a name that is not kept is left out.
    pub fn set(&mut self, name: &str, value: String) {
        if KEPT.contains(&name) {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Takes out what is about the one who asked before.
    pub fn forget_requester(&mut self) {
        for name in PERSONAL {
            self.remove(name);
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// As HTTP has them.
    pub fn to_http(&self) -> HeaderMap {
        let pairs = self.iter().filter_map(|(name, value)| {
            Some((http::HeaderName::try_from(name).ok()?, http::HeaderValue::try_from(value).ok()?))
        });
        pairs.collect()
    }

    /// All, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Takes over what a 304 said (RFC 9111 section 3.2); `Link`, `Content-Type` and `Location`
    /// stay, since GitHub's 304 leaves them out or empty.
    pub fn freshen(&mut self, newer: &StoredHeaders) {
        for (name, value) in &newer.0 {
            if !matches!(name.as_str(), "link" | "content-type" | "location") {
                self.0.insert(name.clone(), value.clone());
            }
        }
    }

    fn is_sound(&self) -> bool {
        self.0.iter().all(|(name, value)| {
            KEPT.contains(&name.as_str()) && value.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f))
        })
    }
}

/// One stored response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What selects it.
    pub parts: KeyParts,
    /// For a later page: the path that began its listing.
    pub listing: Option<String>,
    /// Status code.
    pub status: u16,
    /// Headers worth keeping.
    pub headers: StoredHeaders,
    /// When these bytes came from GitHub.
    pub fetched_at: Timestamp,
    /// When GitHub last said that they are current.
    pub validated_at: Timestamp,
    /// TTL class at the time of storing.
    pub class: String,
    /// Freshness lifetime at the time of storing; the asker's policy decides, this informs.
    pub ttl_secs: u64,
    /// How often in a row the answer was this negative one (404, 409); 0 for others.
    pub repeats: u32,
    /// [`Token::digest`](crate::token::Token::digest) of the token that the validators came to;
    /// `None` for a request without one.
    pub token_digest: Option<String>,
    /// The rule that explained the entity tag when it came; see
    /// [`validator`](crate::policy::validator).
    pub etag_rule: Option<EtagRule>,
    /// Digest of those fields of the parent item that this follows from (A11).
    pub fields_cid: Option<Cid>,
    /// When the first of what the body holds ends, such as a signed address: it is fresh no longer.
    pub expires_at: Option<Timestamp>,
    /// When `Link` was last proven, if that was before `validated_at`: a 304 says nothing of other pages. 1970 when it
    /// never was.
    pub link_validated_at: Option<Timestamp>,
    /// Content address of the body.
    pub cid: Cid,
    /// The body, byte for byte as GitHub sent it.
    pub body: Bytes,
}

/// A rule that makes entity tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EtagRule {
    /// GitHub's.
    Github,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta<'a> {
    v: u32,
    key: std::borrow::Cow<'a, KeyParts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listing: Option<std::borrow::Cow<'a, str>>,
    status: u16,
    headers: std::borrow::Cow<'a, StoredHeaders>,
    fetched_at: Timestamp,
    validated_at: Timestamp,
    class: std::borrow::Cow<'a, str>,
    ttl_secs: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    repeats: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_digest: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag_rule: Option<EtagRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fields_cid: Option<Cid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_validated_at: Option<Timestamp>,
    cid: Cid,
    len: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Between the metadata and the body: a checksum of the metadata, so that bit rot in a time or a
/// status is noticed as surely as in the body.
const CHECK: &[u8] = b",\"check\":\"";
const CHECK_DIGITS: usize = 16;
const RAW: &[u8] = b",\"body\":";
const BASE64_BODY: &[u8] = b",\"body_base64\":\"";
/// In place of the body, where that is kept apart by its content address.
const APART: &[u8] = b",\"body_apart\":true}\n";

impl Entry {
    /// Whether it can be read back once it is written: body and metadata within their bounds, the
    /// body counted as base64, every byte of a header as one that JSON escapes.
    pub fn fits(&self) -> bool {
        let headers: usize = self.headers.iter().map(|(name, value)| 2 * value.len() + name.len() + 8).sum();
        let parts = self.parts.path.len() + self.parts.query.len() + self.parts.accept.len();
        let meta = headers + parts + self.listing.as_ref().map_or(0, String::len) + 1_024;
        meta <= MAX_META_BYTES && self.body.len() <= MAX_BYTES / 4 * 3 - 65_536
    }

    /// The key of these parts.
    pub fn key(&self) -> CacheKey {
        self.parts.key()
    }

    /// The one encoding: a JSON object on one line (but for the body's own line ends), body last.
    pub fn encode(&self) -> Vec<u8> {
        use std::borrow::Cow::Borrowed;
        let meta = Meta {
            v: VERSION,
            key: Borrowed(&self.parts),
            listing: self.listing.as_deref().map(Borrowed),
            status: self.status,
            headers: Borrowed(&self.headers),
            fetched_at: self.fetched_at,
            validated_at: self.validated_at,
            class: Borrowed(&self.class),
            ttl_secs: self.ttl_secs,
            repeats: self.repeats,
            token_digest: self.token_digest.as_deref().map(Borrowed),
            etag_rule: self.etag_rule,
            fields_cid: self.fields_cid,
            expires_at: self.expires_at,
            link_validated_at: self.link_validated_at,
            cid: self.cid,
            len: self.body.len() as u64,
        };
        let mut out = Vec::with_capacity(self.body.len() + 1_536);
        // Strings, numbers and maps with string keys always serialise into a Vec.
        let _infallible = serde_json::to_writer(&mut out, &meta);
        out.pop(); // the closing brace comes after the body
        let check = check_of(&out);
        out.extend_from_slice(CHECK);
        out.extend_from_slice(check.as_bytes());
        out.push(b'"');
        if is_json_text(&self.body) {
            out.extend_from_slice(RAW);
            out.extend_from_slice(&self.body);
        } else {
            out.extend_from_slice(BASE64_BODY);
            out.extend_from_slice(BASE64.encode(&self.body).as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
        out
    }

    /// The encoding in two: what is said about the body, and the body, which is the same for equal bodies.
    /// One after the other they are the envelope again.
    pub fn halves(&self) -> (Bytes, Bytes) {
        let all = Bytes::from(self.encode());
        // What was just written can be split.
        let at = Split::of(&all).map_or(all.len(), |split| split.meta + CHECK.len() + CHECK_DIGITS + 1);
        (all.slice(..at), all.slice(at..))
    }

    /// The first half as it stands where the body is kept apart. Readers of before take it for an envelope without a body,
    /// which is a miss.
    pub fn without_body(half: &[u8]) -> Vec<u8> {
        [half, APART].concat()
    }

    /// The content address of the body that is kept apart, and the first half; `None` for a whole envelope.
    pub fn apart(bytes: &[u8]) -> Option<(Cid, &[u8])> {
        let half = bytes.strip_suffix(APART)?;
        Some((Self::peek_half(half).ok()?.cid, half))
    }

    /// Reads what the first half says.
    pub fn peek_half(half: &[u8]) -> Result<Head> {
        Self::peek(&[half, RAW].concat())
    }

    /// Reads an envelope back and checks everything that it claims: version, bounds, header
    /// names, that its parts hash to `expected`, and that the body has its digest.
    ///
    /// The body shares `bytes`; nothing is copied but a base64 body.
    pub fn decode(bytes: Bytes, expected: Option<&CacheKey>) -> Result<Self> {
        let entry = Self::decode_unverified(bytes)?;
        if expected.is_some_and(|key| *key != entry.key()) {
            return Err(Error::corrupt("its key is another one"));
        }
        if Cid::of(&entry.body) != entry.cid {
            return Err(Error::corrupt("the body does not have its digest"));
        }
        Ok(entry)
    }

    fn decode_unverified(bytes: Bytes) -> Result<Self> {
        let split = Split::of(&bytes)?;
        if split.apart {
            return Err(Error::corrupt("its body is kept apart"));
        }
        if bytes.len() > MAX_BYTES || !bytes.ends_with(b"}\n") {
            return Err(Error::corrupt("it is truncated or too large"));
        }
        let meta = split.meta(&bytes)?;
        let body = if split.coded {
            if !bytes.ends_with(b"\"}\n") || bytes.len() < split.body + 3 {
                return Err(Error::corrupt("it is truncated or too large"));
            }
            let raw = BASE64
                .decode(&bytes[split.body..bytes.len() - 3])
                .map_err(|cause| Error::corrupt("its body is no base64").because(cause))?;
            Bytes::from(raw)
        } else {
            bytes.slice(split.body..(bytes.len() - 2).max(split.body))
        };
        if body.len() as u64 != meta.len {
            return Err(Error::corrupt("the body has another length than it says"));
        }
        Ok(Self {
            parts: meta.key.into_owned(),
            listing: meta.listing.map(Into::into),
            status: meta.status,
            headers: meta.headers.into_owned(),
            fetched_at: meta.fetched_at,
            validated_at: meta.validated_at.max(meta.fetched_at),
            class: meta.class.into_owned(),
            ttl_secs: meta.ttl_secs,
            repeats: meta.repeats,
            token_digest: meta.token_digest.map(Into::into),
            etag_rule: meta.etag_rule,
            fields_cid: meta.fields_cid,
            expires_at: meta.expires_at,
            link_validated_at: meta.link_validated_at,
            cid: meta.cid,
            body,
        })
    }

    /// Reads the metadata from the first bytes of an envelope, for planning; the body stays
    /// unread and unverified.
    pub fn peek(bytes: &[u8]) -> Result<Head> {
        let split = Split::of(bytes)?;
        let meta = split.meta(bytes)?;
        Ok(Head {
            parts: meta.key.into_owned(),
            listing: meta.listing.map(Into::into),
            status: meta.status,
            class: meta.class.into_owned(),
            cid: meta.cid,
            fetched_at: meta.fetched_at,
            validated_at: meta.validated_at.max(meta.fetched_at),
        })
    }
}

/// Whether a response with this status names another address to ask. Such an entry answers only on the machine
/// that got it from GitHub: one that was planted would make a token read for an attacker.
pub fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// What [`Entry::peek`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What selects the entry.
    pub parts: KeyParts,
    /// For a later page: the path that began its listing.
    pub listing: Option<String>,
    /// Status code.
    pub status: u16,
    /// Name of the TTL class that it was stored with.
    pub class: String,
    /// Content address of the body.
    pub cid: Cid,
    /// When its bytes came from GitHub.
    pub fetched_at: Timestamp,
    /// When GitHub last said that they are current.
    pub validated_at: Timestamp,
}

/// Where metadata end and the body begins.
struct Split {
    /// End of the metadata, before the checksum.
    meta: usize,
    /// First byte of the body, or of its base64.
    body: usize,
    coded: bool,
    /// Whether the body is elsewhere.
    apart: bool,
}

impl Split {
    fn of(bytes: &[u8]) -> Result<Self> {
        if !bytes.starts_with(b"{\"v\":1,") {
            return Err(Error::corrupt(match bytes.get(..5) {
                Some(b"{\"v\":") => "it has another version than this program knows",
                _ => "it is no envelope",
            }));
        }
        let head = &bytes[..bytes.len().min(MAX_META_BYTES)];
        // Inside a JSON string a quote is escaped, so the first of these is the check itself.
        let meta = memmem::find(head, CHECK).ok_or_else(|| Error::corrupt("its metadata are cut short"))?;
        let end = meta + CHECK.len() + CHECK_DIGITS + 1;
        let rest = head.get(end..).unwrap_or_default();
        let kind = [RAW, BASE64_BODY, APART].into_iter().find(|kind| rest.starts_with(kind));
        let kind = kind.ok_or_else(|| Error::corrupt("it has no body"))?;
        Ok(Self { meta, body: end + kind.len(), coded: kind == BASE64_BODY, apart: kind == APART })
    }

    /// The metadata, checked and parsed.
    fn meta(&self, bytes: &[u8]) -> Result<Meta<'static>> {
        let digits = self.meta + CHECK.len();
        if check_of(&bytes[..self.meta]).as_bytes() != &bytes[digits..digits + CHECK_DIGITS]
            || bytes[digits + CHECK_DIGITS] != b'"'
        {
            return Err(Error::corrupt("its metadata do not have their checksum"));
        }
        let mut json = Vec::with_capacity(self.meta + 1);
        json.extend_from_slice(&bytes[..self.meta]);
        json.push(b'}');
        let meta: Meta<'static> = serde_json::from_slice(&json)
            .map_err(|cause| Error::corrupt("its metadata do not parse").because(cause))?;
        if !meta.headers.is_sound() || !(100..600).contains(&meta.status) || meta.status == 304 {
            return Err(Error::corrupt("it holds a header or status that is never stored"));
        }
        Ok(meta)
    }
}

fn check_of(meta: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(meta)[..CHECK_DIGITS / 2])
}

fn is_json_text(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::partition::Partition;
    use crate::request::{Api, Request};
    use proptest::prelude::*;

    pub(crate) fn entry(path: &str, body: &[u8]) -> Entry {
        let request = Request::get(&Api::github(), path).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("etag", "W/\"abc\"".parse().unwrap());
        headers.insert("x-ratelimit-remaining", "0".parse().unwrap());
        headers.insert("set-cookie", "secret=1".parse().unwrap());
        Entry {
            parts: KeyParts::of(&request, &Partition::public()),
            listing: None,
            status: 200,
            headers: StoredHeaders::of(&headers),
            fetched_at: Timestamp::from_secs(1_700_000_000),
            validated_at: Timestamp::from_secs(1_700_000_060),
            class: "repo".into(),
            ttl_secs: 3_600,
            repeats: 0,
            token_digest: None,
            etag_rule: None,
            fields_cid: None,
            expires_at: None,
            link_validated_at: None,
            cid: Cid::of(body),
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn only_what_describes_the_resource_is_kept() {
        let text = String::from_utf8(entry("/repos/o/r", b"{}").encode()).unwrap();
        assert!(text.contains("etag") && !text.contains("ratelimit") && !text.contains("cookie"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["v"], 1);
        assert_eq!(json["validated_at"], "2023-11-14T22:14:20Z");
    }

    #[test]
    fn fields_that_come_twice_and_validators_that_are_none_are_left_out() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            StoredHeaders::of(&headers).iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        assert_eq!(of(&[("etag", "\"a\""), ("etag", "\"a\"")]), ["etag: \"a\""]);
        assert_eq!(of(&[("vary", "Accept"), ("vary", "Authorization")]), ["vary: Accept, Authorization"]);
        let date = "Tue, 14 Nov 2023 22:13:20 GMT";
        assert_eq!(of(&[("last-modified", date)]), [format!("last-modified: {date}")]);
        for none in [
            &[("etag", "\"a\""), ("etag", "\"b\"")][..],
            &[("location", "/a"), ("location", "/b")],
            &[("etag", "abc")],
            &[("etag", "\"")],
            &[("etag", "W/abc")],
            &[("etag", "\"a\" \"b\"")],
            &[("last-modified", "yesterday")],
        ] {
            assert!(of(none).is_empty(), "{none:?}");
        }
    }

    #[test]
    fn what_was_added_to_the_format_is_optional() {
        // Entries from before have none of it, and are read so.
        let before = entry("/repos/o/r", b"{}");
        let text = String::from_utf8(before.encode()).unwrap();
        for name in ["etag_rule", "fields_cid", "expires_at"] {
            assert!(!text.contains(name), "{text}");
        }
        assert_eq!(Entry::decode(text.into_bytes().into(), None).unwrap(), before);
        let fields_cid = Some(Cid::of(b"fields"));
        let expires_at = Some(Timestamp::from_secs(1_700_000_360));
        let now = Entry { etag_rule: Some(EtagRule::Github), fields_cid, expires_at, ..before };
        let text = String::from_utf8(now.encode()).unwrap();
        assert!(text.contains("\"etag_rule\":\"github\",\"fields_cid\":\"bafkrei"), "{text}");
        assert!(text.contains(",\"expires_at\":\"2023-11-14T22:19:20Z\","), "{text}");
        assert_eq!(Entry::decode(text.clone().into_bytes().into(), None).unwrap(), now);
        // A program from before sees a field that it does not know: a miss, as the last case below is.
        let later = text.replace("\"etag_rule\":\"github\"", "\"etag_rule\":\"another\"");
        assert!(Entry::decode(later.into_bytes().into(), None).is_err());
    }

    #[test]
    fn broken_foreign_and_newer_envelopes_are_told_apart() {
        let good = entry("/repos/o/r", b"{\"a\":1}").encode();
        let text = String::from_utf8(good.clone()).unwrap();
        // A hand that changes the metadata knows the checksum's rule, too.
        let forged = |from: &str, to: &str| {
            let text = text.replace(from, to);
            let (meta, rest) = text.split_once(",\"check\":\"").unwrap();
            format!("{meta},\"check\":\"{}{}", check_of(meta.as_bytes()), &rest[CHECK_DIGITS..]).into_bytes()
        };
        let cases = [
            (Vec::new(), "no envelope"),
            (b"{\"v\":2,\"future\":true,\"body\":1}\n".to_vec(), "another version"),
            (good[..good.len() - 5].to_vec(), "truncated"),
            (text.replace("{\"a\":1}", "{\"a\":2}").into_bytes(), "digest"),
            (text.replace("{\"a\":1}", "{\"a\":10}").into_bytes(), "length"),
            (text.replace("\"status\":200", "\"status\":404").into_bytes(), "checksum"),
            (text.replace(",\"body\":", ",\"nobody\":").into_bytes(), "no body"),
            (forged("/repos/o/r", "/repos/o/x"), "key"),
            (forged("\"etag\"", "\"set-cookie\""), "never stored"),
            (forged("W/\\\"abc", "\\r\\nx: y"), "never stored"),
            (forged("\"status\":200", "\"status\":304"), "never stored"),
            (forged("\"ttl_secs\"", "\"extra\""), "metadata"),
        ];
        let key = entry("/repos/o/r", b"").key();
        for (bytes, why) in cases {
            let error = Entry::decode(bytes.into(), Some(&key)).unwrap_err().to_string();
            assert!(error.contains(why), "{error} lacks {why}");
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_back_byte_for_byte(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let entry = entry("/x", &body);
            let back = Entry::decode(entry.encode().into(), Some(&entry.key())).unwrap();
            prop_assert_eq!(back, entry);
        }

        #[test]
        fn json_with_any_text_comes_back(text in ".*") {
            let body = format!(" {} \n", serde_json::to_string(&format!("{text},\"body\":")).unwrap());
            let entry = entry("/x", body.as_bytes());
            prop_assert!(!String::from_utf8_lossy(&entry.encode()).contains("body_base64"));
            let back = Entry::decode(entry.encode().into(), Some(&entry.key())).unwrap();
            prop_assert_eq!(back, entry);
        }

        #[test]
        fn a_flipped_bit_anywhere_is_noticed(at in 0usize..900, bit in 0u8..8) {
            let entry = entry("/repos/o/r", br#"{"full_name":"o/r","id":12345,"private":false}"#);
            let mut bytes = entry.encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Entry::decode(bytes.into(), Some(&entry.key())).is_err());
        }
    }
}
