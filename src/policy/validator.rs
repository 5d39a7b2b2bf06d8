//! Validators (RFC 9110 section 8.8), and the rule by which GitHub makes entity tags: with it, a
//! stored body can be validated under a token that has never asked for it (A6).
//!
//! Knows: the rule, when to trust it, what to send. Does not know: which token asks (`upstream`).
//!
//! The rule is observed, not documented: SHA-256, in hex, over the values of those of `Accept`,
//! `Authorization` and `Cookie` that the answer's own `Vary` names and the request had, each
//! followed by a colon, and then the body before compression. A 304 to such a tag can only mean
//! that these bytes are current for this token, whatever becomes of the rule; should it change at
//! GitHub, requests are lost, never truth. Each 200 is compared with it, so that is noticed.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::HeaderMap;
use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, VARY};
use sha2::{Digest, Sha256};

use crate::entry::{Entry, EtagRule};
use crate::token::Token;

/// Preconditions that make a request conditional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// For `If-None-Match`.
    pub etag: Option<Etag>,
    /// For `If-Modified-Since`.
    pub last_modified: Option<String>,
}

/// An entity tag to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Etag {
    /// As GitHub gave it to this token.
    Stored(String),
    /// The one that GitHub would give these bytes under the token that asks.
    Predicted {
        /// What goes into it.
        vary: Vary,
        /// The bytes.
        body: Bytes,
    },
}

/// Who asks, as far as validators depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signer {
    /// [`Token::digest`]; `None` without a token, empty while it is unknown.
    pub token_digest: Option<String>,
    /// Whether predicted tags are worth sending: the rule has not failed here.
    pub predicts: bool,
}

/// Which request headers an answer depends on, as far as the rule takes them in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vary {
    accept: bool,
    authorization: bool,
}

impl Vary {
    /// Reads a `Vary` header.
    pub fn of(header: &str) -> Self {
        let names = |wanted: &str| header.split(',').any(|name| name.trim().eq_ignore_ascii_case(wanted));
        Self { accept: names("accept"), authorization: names("authorization") }
    }

    /// The hex digits of the tag that the rule gives `body`.
    pub fn tag(self, accept: &str, token: Option<&Token>, body: &[u8]) -> String {
        let mut hash = Sha256::new();
        if self.accept {
            hash.update(accept);
            hash.update(b":");
        }
        if let Some(token) = token.filter(|_| self.authorization) {
            hash.update(token.authorization());
            hash.update(b":");
        }
        hash.update(body);
        HEXLOWER.encode(&hash.finalize())
    }
}

/// What a tag of GitHub's says without quotes and weakness, if it has the rule's form: 64 hex
/// digits. Older servers have others.
pub fn digits(etag: &str) -> Option<&str> {
    let inner = etag.trim().trim_start_matches("W/").strip_prefix('"')?.strip_suffix('"')?;
    (inner.len() == 64 && inner.bytes().all(|b| b.is_ascii_hexdigit())).then_some(inner)
}

/// Whether the rule explains the tag that came with an answer; `None` when the answer has no tag
/// of that form to compare.
pub fn rule_holds(headers: &HeaderMap, accept: &str, token: Option<&Token>, body: &[u8]) -> Option<bool> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let tag = digits(text(ETAG)?)?;
    let vary: Vec<&str> = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok()).collect();
    Some(Vary::of(&vary.join(",")).tag(accept, token, body) == tag)
}

/// Whether a 304 carries the tag that was predicted for `body`. RFC 9110 section 15.4.5 requires the tag of
/// the 200 in a 304, so one without it comes from an intermediary and confirms nothing.
pub fn confirms(headers: &HeaderMap, accept: &str, token: Option<&Token>, vary: Vary, body: &[u8]) -> bool {
    let tag = headers.get(ETAG).and_then(|value| value.to_str().ok()).and_then(digits);
    tag.is_some_and(|tag| vary.tag(accept, token, body) == tag)
}

impl Validators {
    /// What `entry` offers to `signer`.
    ///
    /// A stored tag works for the token that it came to. For another one, it is predicted where the rule explained the stored
    /// one. One of the rule's form that cannot be predicted would be asked in vain, so nothing is sent; others may not depend
    /// on the token, and are sent as they are. A date alone is sent only where there was no tag: it says less (GitHub changes
    /// bodies without it), and a tag would outrank it (RFC 9110 section 13.1.3).
    pub fn of(entry: &Entry, signer: &Signer) -> Self {
        let last_modified = entry.headers.get(LAST_MODIFIED.as_str()).map(str::to_owned);
        let Some(tag) = entry.headers.get(ETAG.as_str()) else { return Self { etag: None, last_modified } };
        if entry.token_digest == signer.token_digest {
            Self { etag: Some(Etag::Stored(tag.to_owned())), last_modified }
        } else if signer.predicts && entry.etag_rule == Some(EtagRule::Github) {
            Self { etag: Some(Self::predicted(entry, signer)), last_modified }
        } else if digits(tag).is_none() {
            Self { etag: Some(Etag::Stored(tag.to_owned())), last_modified: None }
        } else {
            Self::default()
        }
    }

    /// What a body of another partition, or one that is only guessed, offers: nothing but the
    /// prediction, whose 304 also proves that the asker may see it.
    pub fn of_candidate(candidate: &Entry, signer: &Signer) -> Self {
        Self { etag: Some(Self::predicted(candidate, signer)), last_modified: None }
    }

    fn predicted(entry: &Entry, signer: &Signer) -> Etag {
        let mut vary = entry.headers.get(VARY.as_str()).map(Vary::of).unwrap_or_default();
        // An answer to nobody does not name `Authorization`; the same answer to a token does.
        vary.authorization |= entry.token_digest.is_none() && signer.token_digest.is_some();
        Etag::Predicted { vary, body: entry.body.clone() }
    }

    /// Whether there is nothing to be conditional on.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// What the tag is predicted from, where it is a prediction: the body that a 304 would be about.
    pub fn prediction(&self) -> Option<(Vary, &Bytes)> {
        match &self.etag {
            Some(Etag::Predicted { vary, body }) => Some((*vary, body)),
            _ => None,
        }
    }

    /// Writes the preconditions of a request for `accept` under `token`; a value that no header
    /// can carry is left out.
    pub fn apply(&self, headers: &mut HeaderMap, accept: &str, token: Option<&Token>) {
        let etag = self.etag.as_ref().map(|etag| match etag {
            Etag::Stored(tag) => tag.clone(),
            Etag::Predicted { vary, body } => format!("\"{}\"", vary.tag(accept, token, body)),
        });
        for (name, value) in [(IF_NONE_MATCH, etag), (IF_MODIFIED_SINCE, self.last_modified.clone())] {
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::StoredHeaders;
    use crate::entry::tests::entry;

    const AUTHORISED: &str = "Accept, Authorization, Cookie, X-GitHub-OTP,Accept-Encoding, Accept, X-Requested-With";
    const PUBLIC: &str = "Accept,Accept-Encoding, Accept, X-Requested-With";

    fn token(text: &str) -> Token {
        Token::new(text).unwrap()
    }

    fn sha256(text: &str) -> String {
        HEXLOWER.encode(&Sha256::digest(text))
    }

    #[test]
    fn the_rule_takes_in_what_vary_names() {
        let one = token("ghs_one");
        assert_eq!(Vary::of(AUTHORISED).tag("a/b", Some(&one), b"{}"), sha256("a/b:Bearer ghs_one:{}"));
        assert_eq!(Vary::of(AUTHORISED).tag("a/b", None, b"{}"), sha256("a/b:{}"));
        assert_eq!(Vary::of(PUBLIC).tag("a/b", Some(&one), b"{}"), sha256("a/b:{}"));
        assert_eq!(Vary::of("Accept-Encoding").tag("a/b", Some(&one), b"{}"), sha256("{}"));
    }

    #[test]
    fn only_tags_of_the_rules_form_are_compared() {
        let hex = sha256("a/b:Bearer ghs_one:{}");
        for good in [format!("\"{hex}\""), format!("W/\"{hex}\"")] {
            assert_eq!(digits(&good), Some(hex.as_str()));
        }
        for other in ["", "\"abc\"", "abc", "W/\"00\"", &hex] {
            assert_eq!(digits(other), None, "{other}");
        }
        let mut headers = HeaderMap::new();
        let holds = |headers: &HeaderMap| rule_holds(headers, "a/b", Some(&token("ghs_one")), b"{}");
        assert_eq!(holds(&headers), None);
        headers.insert(ETAG, format!("W/\"{hex}\"").parse().unwrap());
        headers.insert(VARY, AUTHORISED.parse().unwrap());
        assert_eq!(holds(&headers), Some(true));
        headers.insert(VARY, PUBLIC.parse().unwrap());
        assert_eq!(holds(&headers), Some(false));
    }

    #[test]
    fn another_token_gets_a_prediction_or_nothing_in_vain() {
        let signer = |digest: &str, predicts| Signer { token_digest: Some(digest.to_owned()), predicts };
        let stored = |etag: &str, dated: bool, etag_rule| {
            let mut headers = HeaderMap::new();
            headers.insert(ETAG, etag.parse().unwrap());
            headers.insert(VARY, AUTHORISED.parse().unwrap());
            if dated {
                headers.insert(LAST_MODIFIED, "Mon, 01 Jan 2024 00:00:00 GMT".parse().unwrap());
            }
            let headers = StoredHeaders::of(&headers);
            Entry { headers, token_digest: Some("one".into()), etag_rule, ..entry("/repos/o/r", b"{}") }
        };
        let hex = format!("\"{}\"", sha256("x"));
        let explained = stored(&hex, true, Some(EtagRule::Github));
        assert_eq!(Validators::of(&explained, &signer("one", true)).etag, Some(Etag::Stored(hex.clone())));
        let predicted = Validators::of(&explained, &signer("two", true));
        assert_eq!(predicted.prediction().map(|(_, body)| body), Some(&explained.body));
        let mut sent = HeaderMap::new();
        predicted.apply(&mut sent, "a/b", Some(&token("ghs_two")));
        assert_eq!(sent[IF_NONE_MATCH], format!("\"{}\"", sha256("a/b:Bearer ghs_two:{}")));
        assert!(sent.contains_key(IF_MODIFIED_SINCE));
        // The rule is switched off, or did not explain the stored tag: not even the date, since bodies change without it.
        assert!(Validators::of(&explained, &signer("two", false)).is_empty());
        assert!(Validators::of(&stored(&hex, true, None), &signer("two", true)).is_empty());
        // A tag that may not be the token's is sent, and no date beside it.
        let other = Validators::of(&stored("\"abc\"", true, None), &signer("two", true));
        assert_eq!(other, Validators { etag: Some(Etag::Stored("\"abc\"".into())), last_modified: None });
        // Without a tag, there is the date.
        let mut untagged = stored("\"abc\"", true, None);
        untagged.headers = StoredHeaders::of(
            &untagged
                .headers
                .to_http()
                .into_iter()
                .filter_map(|(name, value)| Some((name.filter(|name| *name != ETAG)?, value)))
                .collect(),
        );
        let dated = Validators::of(&untagged, &signer("two", true));
        assert!(dated.etag.is_none() && dated.last_modified.is_some());
    }
}
