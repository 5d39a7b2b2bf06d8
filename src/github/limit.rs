//! Telling a rate limit from a plain refusal (GitHub, "Rate limits for the REST API", "Exceeding
//! the rate limit").
//!
//! Knows: the marks, in the order in which they are sound. Does not know: waiting.

use super::ledger::reset_at;
use crate::clock::Timestamp;
use crate::reply::Reply;

/// A limit that bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    secondary: bool,
    /// Nothing is sent before.
    pub(super) until: Timestamp,
}

/// The wait that GitHub asks for when it names none.
const UNNAMED_WAIT_SECS: u64 = 60;

/// No wait that a header names is believed beyond this.
const LONGEST_WAIT_SECS: u64 = 24 * 3_600;

impl Limit {
    pub(super) fn name(&self) -> &'static str {
        if self.secondary { "secondary rate limit" } else { "primary rate limit" }
    }
}

/// The limit that `reply` reports, if it does.
pub(super) fn of(reply: &Reply, now: Timestamp) -> Option<Limit> {
    let retry_after = reply.header("retry-after").and_then(|value| value.trim().parse::<u64>().ok());
    let wait = |secs: u64| now.plus(secs.min(LONGEST_WAIT_SECS));
    let until_reset = || {
        let reset = reset_at(reply).filter(|at| *at > now && at.since(now) <= LONGEST_WAIT_SECS);
        reset.unwrap_or_else(|| wait(UNNAMED_WAIT_SECS))
    };
    let exhausted = reply.header("x-ratelimit-remaining") == Some("0");
    match reply.status.as_u16() {
        403 | 429 if exhausted => Some(Limit { secondary: false, until: retry_after.map_or_else(until_reset, wait) }),
        status @ (403 | 429) => {
            let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(4_096)]).to_lowercase();
            let marks = ["secondary rate limit", "abuse detection", "#abuse-rate-limits", "secondary-rate-limits"];
            let marked = marks.iter().any(|mark| text.contains(mark));
            let secondary = marked || retry_after.is_some() || status == 429;
            secondary.then(|| Limit { secondary, until: wait(retry_after.unwrap_or(UNNAMED_WAIT_SECS)) })
        }
        200 if exhausted && is_graphql_limit(&reply.body) => Some(Limit { secondary: false, until: until_reset() }),
        _ => None,
    }
}

/// GraphQL reports its primary limit with status 200.
fn is_graphql_limit(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<Problem>,
    }
    #[derive(serde::Deserialize)]
    struct Problem {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let is_limit = |problem: &Problem| matches!(problem.kind.as_deref(), Some("RATE_LIMIT" | "RATE_LIMITED"));
    memchr::memmem::find(body, b"RATE_LIMIT").is_some()
        && serde_json::from_slice::<Answer>(body).is_ok_and(|answer| answer.errors.iter().any(is_limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, StatusCode};

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn limit(status: u16, headers: &[(&str, &str)], body: &str) -> Option<(bool, u64)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let reply = Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: body.to_owned().into(),
            attempts: 1,
        };
        of(&reply, NOW).map(|limit| (limit.secondary, limit.until.since(NOW)))
    }

    #[test]
    fn limits_and_refusals_are_told_apart() {
        let spent = ("x-ratelimit-remaining", "0");
        let some = ("x-ratelimit-remaining", "12");
        assert_eq!(limit(403, &[spent, ("x-ratelimit-reset", "1700000300")], "{}"), Some((false, 300)));
        assert_eq!(limit(429, &[spent, ("x-ratelimit-reset", "1700000300000")], "{}"), Some((false, 300)));
        assert_eq!(limit(403, &[spent, ("x-ratelimit-reset", "9")], "{}"), Some((false, 60)));
        assert_eq!(limit(403, &[some, ("retry-after", "30")], "{}"), Some((true, 30)));
        let text = r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}"#;
        assert_eq!(limit(403, &[some], text), Some((true, 60)));
        assert_eq!(limit(403, &[some, ("retry-after", "999999999")], text), Some((true, LONGEST_WAIT_SECS)));
        for refusal in ["Resource not accessible by integration", "Must have admin rights to Repository."] {
            assert_eq!(limit(403, &[some], &format!("{{\"message\":\"{refusal}\"}}")), None);
        }
        let graphql = r#"{"errors":[{"type":"RATE_LIMITED","message":"x"}]}"#;
        assert_eq!(limit(200, &[spent, ("x-ratelimit-reset", "1700000300")], graphql), Some((false, 300)));
        assert_eq!(limit(200, &[spent], r#"{"data":{"title":"RATE_LIMIT"}}"#), None);
        assert_eq!(limit(200, &[spent], "[]"), None);
    }
}
