//! Short-lived contents: addresses and tokens in a body that end long before its TTL class does.
//!
//! Knows: how GitHub and the stores behind it sign addresses, and where the signature says until when. Does not know:
//! entries, lifetimes. The scan is bounded: a few searches at the speed of memory, and a look at what they find.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use crate::clock::Timestamp;

/// How long a body is fresh that holds a token which does not say when it ends, in seconds.
const UNNAMED_SECS: u64 = 300;

/// Places that are looked at for each mark; a longer listing has the same kind of address over and over.
const MAX_PLACES: usize = 256;

/// Longest address that is read, in bytes.
const MAX_ADDRESS_BYTES: usize = 8 << 10;

/// The field of a repository that holds a token to clone it with.
const CLONE_TOKEN: &[u8] = b"\"temp_clone_token\":";

/// Reads from an address when it ends.
type Read = fn(&Address<'_>) -> Ends;

/// What a mark is found by, and what the address says there.
const MARKS: &[(&[u8], Read)] = &[
    (b"token=", |address| address.by_raw_token()),
    (b"jwt=", |address| address.by_jwt()),
    (b"sig=", |address| address.by_shared_access()),
    (b"X-Amz-Expires=", |address| address.by_span("X-Amz-Date", "X-Amz-Expires")),
    (b"X-Goog-Expires=", |address| address.by_span("X-Goog-Date", "X-Goog-Expires")),
    (b"Expires=", |address| address.by_key_pair()),
];

/// When an address ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    At(Timestamp),
    /// Soon; it does not say when.
    Unnamed,
    /// It is no signed address.
    Never,
}

/// Returns until when all that `body` holds can be used; `None` when nothing in it ends. `came_at` is when its bytes came
/// from GitHub: what had ended by then was written by a person, and says nothing. `now` is when GitHub last said that the
/// bytes are current.
pub(super) fn until(body: &[u8], came_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let unnamed = now.plus(UNNAMED_SECS);
    let found = MARKS.iter().flat_map(|(mark, read)| {
        let places = memchr::memmem::find_iter(body, mark).take(MAX_PLACES);
        places.filter_map(move |at| match read(&Address::around(body, at)?) {
            Ends::At(at) => Some(at).filter(|at| *at > came_at),
            Ends::Unnamed => Some(unnamed),
            Ends::Never => None,
        })
    });
    found.chain(holds_clone_token(body).then_some(unnamed)).min()
}

/// Whether there is a token to clone with; GitHub leaves it empty where none is needed.
fn holds_clone_token(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, CLONE_TOKEN).take(MAX_PLACES).any(|at| {
        let value = body[at + CLONE_TOKEN.len()..].trim_ascii_start();
        value.starts_with(b"\"") && !value.starts_with(b"\"\"")
    })
}

/// An address in a text, with its query.
struct Address<'a> {
    base: &'a str,
    query: &'a str,
}

impl<'a> Address<'a> {
    /// The address around a place in its query.
    fn around(body: &'a [u8], at: usize) -> Option<Self> {
        let ends = |byte: &u8| !byte.is_ascii_graphic() || b"\"'<>()`".contains(byte);
        let from = body[..at].iter().rev().take(MAX_ADDRESS_BYTES).position(ends).map_or(0, |back| at - back);
        let to = body[at..].iter().take(MAX_ADDRESS_BYTES).position(ends).map_or(body.len(), |on| at + on);
        let text = std::str::from_utf8(body.get(from..to)?).ok()?;
        let (base, query) = text.split_once('?')?;
        Some(Self { base, query }).filter(|_| base.starts_with("https://") || base.starts_with("http://"))
    }

    fn param(&self, wanted: &str) -> Option<&'a str> {
        self.query.split('&').find_map(|pair| {
            // JSON and HTML may escape what is between.
            let pair = pair.strip_prefix("amp;").unwrap_or(pair);
            pair.split("\\u0026").find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('='))
        })
    }

    /// A file's own address (`download_url`), for a repository that is not public.
    fn by_raw_token(&self) -> Ends {
        let is_raw =
            self.base.contains("//raw.") || self.base.contains("/raw/") || self.base.contains(".githubusercontent.");
        if is_raw && self.param("token").is_some() { Ends::Unnamed } else { Ends::Never }
    }

    /// A JSON Web Token (RFC 7519 section 4.1.4), as for images of users.
    fn by_jwt(&self) -> Ends {
        #[derive(Deserialize)]
        struct Claims {
            exp: i64,
        }
        let Some(token) = self.param("jwt") else { return Ends::Never };
        let claims = token.split('.').nth(1).and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
        let claims = claims.and_then(|json| serde_json::from_slice::<Claims>(&json).ok());
        claims.map_or(Ends::Unnamed, |claims| Ends::At(Timestamp::from_secs(claims.exp)))
    }

    /// A shared access signature of Azure's blob storage: `se` is its end.
    fn by_shared_access(&self) -> Ends {
        if self.param("sig").is_none() {
            return Ends::Never;
        }
        let end = self.param("se").map(|end| end.replace("%3A", ":").replace("%3a", ":"));
        let end = end.and_then(|end| chrono::DateTime::parse_from_rfc3339(&end).ok());
        end.map_or(Ends::Unnamed, |end| Ends::At(Timestamp::from_secs(end.timestamp())))
    }

    /// A signature of S3's kind: a beginning, and for how many seconds.
    fn by_span(&self, from: &str, secs: &str) -> Ends {
        let Some(secs) = self.param(secs) else { return Ends::Never };
        let from = self.param(from).and_then(|at| chrono::NaiveDateTime::parse_from_str(at, "%Y%m%dT%H%M%SZ").ok());
        match (from, secs.parse()) {
            (Some(from), Ok(secs)) => Ends::At(Timestamp::from_secs(from.and_utc().timestamp()).plus(secs)),
            _ => Ends::Unnamed,
        }
    }

    /// A signature of `CloudFront`'s kind: seconds since 1970.
    fn by_key_pair(&self) -> Ends {
        match (self.param("Expires"), self.param("Signature")) {
            (Some(end), Some(_)) => end.parse().map_or(Ends::Unnamed, |secs| Ends::At(Timestamp::from_secs(secs))),
            _ => Ends::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2023-11-14T22:13:20Z.
    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn secs(body: &str) -> Option<u64> {
        until(body.as_bytes(), NOW, NOW).map(|at| at.since(NOW))
    }

    fn image(exp: i64) -> String {
        let part = |json: String| BASE64URL_NOPAD.encode(json.as_bytes());
        let token = format!("{}.{}.c2ln", part("{}".into()), part(format!("{{\"iat\":1,\"exp\":{exp}}}")));
        format!("{{\"body\":\"![x](https://private-user-images.githubusercontent.com/1/2.png?jwt={token})\"}}")
    }

    #[test]
    fn signed_addresses_and_tokens_end_when_they_say_or_soon() {
        for (body, end) in [
            (r#"{"download_url":"https://raw.githubusercontent.com/o/r/main/f?token=ABC"}"#, 300),
            (r#"{"download_url":"https://ghe.example/raw/o/r/main/f?a=1&token=ABC"}"#, 300),
            (r#"{"temp_clone_token":"ABC"}"#, 300),
            (r#"{"temp_clone_token": "ABC"}"#, 300),
            (r#"{"bundle_url":"https://x.blob.core.windows.net/a?se=2023-11-14T22%3A23%3A20Z&sig=abc%3D&sp=r"}"#, 600),
            (
                r#"{"bundle_url":"https://x.blob.core.windows.net/a?sp=r\u0026sig=abc\u0026se=2023-11-14T22%3A14%3A20Z"}"#,
                60,
            ),
            (r#"{"bundle_url":"https://x.blob.core.windows.net/a?sig=abc"}"#, 300),
            (r#"{"u":"https://x.s3.amazonaws.com/a?X-Amz-Date=20231114T221300Z&amp;X-Amz-Expires=120"}"#, 100),
            (r#"{"u":"https://x.example/a?Expires=1700000090&Signature=x&Key-Pair-Id=y"}"#, 90),
        ] {
            assert_eq!(secs(body), Some(end), "{body}");
        }
        assert_eq!(secs(&image(NOW.secs() + 299)), Some(299));
        let both = format!("[{},{}]", image(NOW.secs() + 299), image(NOW.secs() + 7));
        assert_eq!(secs(&both), Some(7), "what ends first");
    }

    #[test]
    fn what_does_not_end_and_what_had_ended_before_it_came_say_nothing() {
        for body in [
            "",
            r#"{"temp_clone_token":"","b":null}"#,
            r#"{"temp_clone_token":null}"#,
            r#"{"body":"https://codecov.io/gh/o/r/badge.svg?token=ABC"}"#,
            r#"{"body":"token=abc sig=1 jwt=2 Expires=3 X-Amz-Expires=4"}"#,
            r#"{"url":"https://api.github.com/x?monkey-token=1&design=2"}"#,
        ] {
            assert_eq!(secs(body), None, "{body}");
        }
        let old = image(NOW.secs() - 1);
        assert_eq!(secs(&old), None);
        // GitHub says later that the same bytes are current: what they hold has ended all the same.
        let came_at = NOW.minus(300);
        assert_eq!(until(old.as_bytes(), came_at, NOW), Some(NOW.minus(1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned(body in ".{0,40}(\\?|&)(jwt|sig|token|se|Expires|X-Amz-Expires)=.{0,40}") {
            let _any = until(body.as_bytes(), NOW, NOW);
            let _any = until(&body.as_bytes()[..body.len() / 2], NOW, NOW);
        }
    }
}
