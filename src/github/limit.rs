//! Telling a rate limit from a plain refusal, and for how long it holds (GitHub, "Rate limits for
//! the REST API", "Exceeding the rate limit").
//!
//! Knows: the marks, in the order in which they are sound; GitHub's times as our clock has them.
//! Does not know: waiting.

use chrono::DateTime;
use http::HeaderMap;

use crate::clock::Timestamp;
use crate::reply::Reply;

/// A limit that bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The bucket of this request is empty until this time.
    Primary {
        /// Nothing is sent to this bucket before.
        until: Timestamp,
    },
    /// Everything of this identity must stop.
    Secondary {
        /// For how long, where GitHub said so.
        wait_secs: Option<u64>,
    },
}

/// The wait when a primary limit names no end.
const UNNAMED_WAIT_SECS: u64 = 60;

/// No wait that a header names is believed beyond this.
const LONGEST_WAIT_SECS: u64 = 24 * 3_600;

/// The limit that `reply` reports, if it does; `graphql` says which API answered.
pub(super) fn of(reply: &Reply, graphql: bool, now: Timestamp) -> Option<Limit> {
    let retry_after = retry_after(&reply.headers, now).map(|secs| secs.min(LONGEST_WAIT_SECS));
    let primary = || {
        let reset = reset_at(reply, now).filter(|at| *at > now && at.since(now) <= LONGEST_WAIT_SECS);
        let until = retry_after.map(|secs| now.plus(secs)).or(reset).unwrap_or_else(|| now.plus(UNNAMED_WAIT_SECS));
        Some(Limit::Primary { until })
    };
    let secondary = Some(Limit::Secondary { wait_secs: retry_after });
    let exhausted = reply.header("x-ratelimit-remaining") == Some("0");
    match reply.status.as_u16() {
        403 | 429 if exhausted => primary(),
        status @ (403 | 429) => {
            if speaks_of_secondary(&reply.body) {
                return secondary;
            }
            if speaks_of_primary(&reply.body) {
                return primary();
            }
            (retry_after.is_some() || status == 429).then_some(secondary).flatten()
        }
        // GraphQL reports limits with status 200.
        200 if graphql => match graphql_limit(&reply.body)? {
            GraphqlLimit::Primary if exhausted => primary(),
            GraphqlLimit::Primary | GraphqlLimit::Secondary => secondary,
        },
        _ => None,
    }
}

fn speaks_of_secondary(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&text[..text.len().min(4_096)]).to_lowercase();
    ["secondary rate limit", "abuse detection", "#abuse-rate-limits", "secondary-rate-limits"]
        .iter()
        .any(|mark| text.contains(mark))
}

/// GitHub's words for an empty bucket, where an intermediary has taken the headers away.
fn speaks_of_primary(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&text[..text.len().min(4_096)]).to_lowercase();
    text.contains("api rate limit exceeded")
}

enum GraphqlLimit {
    Primary,
    Secondary,
}

fn graphql_limit(body: &[u8]) -> Option<GraphqlLimit> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<Problem>,
    }
    #[derive(serde::Deserialize)]
    struct Problem {
        #[serde(rename = "type")]
        kind: Option<String>,
        #[serde(default)]
        message: String,
    }
    // Most answers hold no errors at all: do not parse those.
    memchr::memmem::find(body, b"\"errors\"")?;
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.errors.iter().find_map(|problem| match problem.kind.as_deref() {
        Some("RATE_LIMIT" | "RATE_LIMITED") => Some(GraphqlLimit::Primary),
        _ if speaks_of_secondary(problem.message.as_bytes()) => Some(GraphqlLimit::Secondary),
        _ => None,
    })
}

/// `Retry-After` in seconds from now: a number, or a date (RFC 9110 section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    value.parse().ok().or_else(|| Some(ours(headers, http_date(value)?, now).since(now)))
}

/// `X-RateLimit-Reset` by our clock; some servers write milliseconds.
pub(super) fn reset_at(reply: &Reply, now: Timestamp) -> Option<Timestamp> {
    let number: i64 = reply.header("x-ratelimit-reset")?.parse().ok()?;
    let secs = if number > 99_999_999_999 { number / 1_000 } else { number };
    (secs > 0).then(|| ours(&reply.headers, Timestamp::from_secs(secs), now))
}

/// A time of GitHub's as our clock will show it: what lies between it and the reply's own `Date`
/// is what counts, however wrong either clock is.
fn ours(headers: &HeaderMap, theirs: Timestamp, now: Timestamp) -> Timestamp {
    let date = headers.get("date").and_then(|date| http_date(date.to_str().ok()?)).unwrap_or(now);
    now.plus(theirs.since(date)).minus(date.since(theirs))
}

fn http_date(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| Timestamp::from_secs(date.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, StatusCode};

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
    const SPENT: (&str, &str) = ("x-ratelimit-remaining", "0");
    const SOME: (&str, &str) = ("x-ratelimit-remaining", "12");

    fn limit(status: u16, headers: &[(&str, &str)], body: &str) -> Option<Limit> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        of(
            &Reply { status, headers: map, body: body.to_owned().into(), attempts: 1, refused: 0, rule_held: None },
            status == 200,
            NOW,
        )
    }

    #[allow(clippy::unnecessary_wraps, reason = "it is compared with an option")]
    fn primary(secs: u64) -> Option<Limit> {
        Some(Limit::Primary { until: NOW.plus(secs) })
    }

    #[allow(clippy::unnecessary_wraps, reason = "it is compared with an option")]
    fn secondary(wait_secs: Option<u64>) -> Option<Limit> {
        Some(Limit::Secondary { wait_secs })
    }

    #[test]
    fn limits_and_refusals_are_told_apart() {
        assert_eq!(limit(403, &[SPENT, ("x-ratelimit-reset", "1700000300")], "{}"), primary(300));
        assert_eq!(limit(429, &[SPENT, ("x-ratelimit-reset", "1700000300000")], "{}"), primary(300));
        assert_eq!(limit(403, &[SPENT, ("x-ratelimit-reset", "9")], "{}"), primary(60));
        assert_eq!(limit(403, &[SPENT, ("x-ratelimit-reset", "1700000300"), ("retry-after", "7")], "{}"), primary(7));
        assert_eq!(limit(403, &[SOME, ("retry-after", "30")], "{}"), secondary(Some(30)));
        let text = r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}"#;
        assert_eq!(limit(403, &[SOME], text), secondary(None));
        let old = r#"{"message":"You have triggered an abuse detection mechanism. Please wait a few minutes before you try again."}"#;
        assert_eq!(limit(403, &[("retry-after", "60")], old), secondary(Some(60)));
        assert_eq!(limit(403, &[SOME, ("retry-after", "999999999")], text), secondary(Some(LONGEST_WAIT_SECS)));
        assert_eq!(limit(429, &[SOME], "{}"), secondary(None));
        for refusal in ["Resource not accessible by integration", "Must have admin rights to Repository."] {
            assert_eq!(limit(403, &[SOME], &format!("{{\"message\":\"{refusal}\"}}")), None);
        }
        for garbage in ["soon", "", "-5", "1e9", "Tue, 99 Nov"] {
            assert_eq!(limit(403, &[SOME, ("retry-after", garbage)], "{}"), None, "{garbage}");
        }
    }

    #[test]
    fn graphql_reports_limits_with_200() {
        for kind in ["RATE_LIMIT", "RATE_LIMITED"] {
            let body = format!(r#"{{"errors":[{{"type":"{kind}","message":"x"}}]}}"#);
            assert_eq!(limit(200, &[SPENT, ("x-ratelimit-reset", "1700000300")], &body), primary(300));
            assert_eq!(limit(200, &[SOME], &body), secondary(None));
        }
        let body = r#"{"errors":[{"message":"You have exceeded a secondary rate limit."}]}"#;
        assert_eq!(limit(200, &[SOME, ("retry-after", "9")], body), secondary(Some(9)));
        assert_eq!(limit(200, &[SPENT], r#"{"data":{"errors":"RATE_LIMIT"}}"#), None);
        assert_eq!(limit(200, &[SPENT], "[]"), None);
    }

    #[test]
    fn clocks_that_disagree_do_not_change_the_wait() {
        // GitHub's clock is an hour behind ours, then an hour ahead.
        for (date, reset, retry) in [
            ("Tue, 14 Nov 2023 21:13:20 GMT", "1699996700", "Tue, 14 Nov 2023 21:18:20 GMT"),
            ("Tue, 14 Nov 2023 23:13:20 GMT", "1700003900", "Tue, 14 Nov 2023 23:18:20 GMT"),
        ] {
            assert_eq!(limit(403, &[SPENT, ("date", date), ("x-ratelimit-reset", reset)], "{}"), primary(300));
            assert_eq!(limit(403, &[SOME, ("date", date), ("retry-after", retry)], "{}"), secondary(Some(300)));
        }
    }
}
