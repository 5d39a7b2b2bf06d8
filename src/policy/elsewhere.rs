//! Other caches between us and GitHub: how old what they answer is, and when they must not.
//!
//! Knows: `Age`, `Cache-Status`, what is known to have changed. Does not know: what becomes of a response.

use super::{CutoffTimes, Etag, Mode, Validators};
use crate::clock::Timestamp;
use crate::reply::Reply;

/// Whether a cache in the middle must not answer a request: somebody wants to have it from GitHub, or something is known to
/// have changed that such a cache has not heard of.
pub fn is_end_to_end(mode: Mode, cutoff: CutoffTimes) -> bool {
    let is_outdated = cutoff.revalidate.is_some() || cutoff.gone.is_some();
    is_outdated || matches!(mode, Mode::NoCache | Mode::Reload | Mode::NoStore)
}

/// Whether another cache between answered, though it must not: with what was current before a change that is known.
pub fn is_outdated_elsewhere(reply: &Reply, cutoff: CutoffTimes, now: Timestamp) -> bool {
    let age_secs = age_secs(reply);
    age_secs > 0 && cutoff.revalidate.max(cutoff.gone) >= Some(now.minus(age_secs))
}

/// How long ago GitHub said it, where another cache between answered (RFC 9111 section 4.2.3), in seconds. Clocks of
/// other machines (`Date`) are not compared.
pub(super) fn age_secs(reply: &Reply) -> u64 {
    let first = reply.header("age").and_then(|age| age.split(',').next());
    first.and_then(delta_seconds).unwrap_or(0)
}

/// Most seconds that are told apart (RFC 9111 section 1.2.2).
const MAX_DELTA_SECONDS: u64 = 1 << 31;

/// Seconds as headers have them (RFC 9111 section 1.2.2); `None` for what is no number.
pub fn delta_seconds(text: &str) -> Option<u64> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS))
}

/// Whether another cache between answered with what is stale there: a hit with no lifetime left (RFC 9211).
pub(super) fn is_stale_elsewhere(reply: &Reply) -> bool {
    let caches = reply.headers.get_all("cache-status").iter().filter_map(|value| value.to_str().ok());
    caches.flat_map(|value| value.split(',')).any(|cache| {
        let mut params = cache.split(';').skip(1).map(str::trim);
        params.clone().any(|param| param == "hit") && params.any(|param| param.starts_with("ttl=-"))
    })
}

/// Whether a 304 is about one of the tags that were sent (RFC 9110 section 15.4.5: it carries the one that holds). One without it
/// is from an intermediary that has not understood. Of a date a 304 need not say anything.
pub fn is_about(reply: &Reply, sent: &Validators) -> bool {
    let Some(Etag::Stored(tags)) = &sent.etag else { return true };
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let said = reply.header("etag").map(opaque);
    tags.split(',').any(|tag| tag.trim() == "*" || said.as_ref() == Some(&opaque(tag)))
}
