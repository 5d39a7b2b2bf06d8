//! What a client's `Cache-Control` asks for (RFC 9111 section 5.2.1), and gh's own hint.
//!
//! Knows: the directives, as bounds of a fetch. Does not know: entries, lifetimes in force.

use crate::cache::Ask;
use crate::clock::Timestamp;
use crate::policy::{Ahead, Mode, delta_seconds};

/// Returns `base` with what the client asks for. The strictest bound wins: a client's bounds hold whatever lifetime the
/// server has set, and `hint_secs` (gh's `--cache`) is both a lifetime and a bound.
///
/// What the server was told for all clients (`--offline` and the like) stays.
pub(super) fn directed(base: Ask, control: &str, hint_secs: Option<u64>) -> Ask {
    if base.mode != Mode::Default {
        return base;
    }
    let control = control.to_ascii_lowercase();
    let directives: Vec<(&str, &str)> = control
        .split(',')
        .map(|one| one.split_once('=').unwrap_or((one, "")))
        .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
        .collect();
    let says = |wanted: &str| directives.iter().any(|(name, _)| *name == wanted);
    let secs = |wanted: &str| -> Vec<u64> {
        directives.iter().filter(|(name, _)| *name == wanted).filter_map(|(_, secs)| delta_seconds(secs)).collect()
    };
    let max_age_secs = secs("max-age").into_iter().chain(hint_secs).min();
    let min_fresh_secs = secs("min-fresh").into_iter().max();
    // Without a value, a stale answer of any age will do.
    let max_stale_secs = says("max-stale").then(|| secs("max-stale").into_iter().min().unwrap_or(u64::MAX));
    let mode = if says("no-store") {
        Mode::NoStore
    } else if says("only-if-cached") {
        Mode::OnlyIfFresh
    } else if says("no-cache") {
        Mode::NoCache
    } else {
        Mode::Default
    };
    let is_bounded = max_age_secs.is_some() || min_fresh_secs.is_some();
    let while_revalidate_secs = match mode {
        Mode::OnlyIfFresh => max_stale_secs.unwrap_or(0),
        _ if is_bounded && max_stale_secs.is_none() => 0,
        _ => base.while_revalidate_secs,
    };
    Ask {
        mode,
        ttl_secs: hint_secs.or(base.ttl_secs),
        max_age_secs,
        while_revalidate_secs,
        ahead: min_fresh_secs.map_or(base.ahead, |secs| Some(Ahead { secs, since: NEVER })),
        ..base
    }
}

/// Nothing was validated after this.
const NEVER: Timestamp = Timestamp::from_secs(i64::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_a_bound() {
        let base = Ask { while_revalidate_secs: 60, ttl_secs: Some(3_600), ..Ask::default() };
        let of = |control| directed(base, control, None);
        assert_eq!(of(""), base);
        assert_eq!(of("no-transform, public"), base);
        let bounded = Ask { max_age_secs: Some(0), while_revalidate_secs: 0, ..base };
        assert_eq!(of("max-age=0"), bounded);
        assert_eq!(of("Max-Age=\"0\", max-age=9"), bounded);
        assert_eq!(of("max-age=soon"), base);
        assert_eq!(of("max-age=0, max-stale=5").while_revalidate_secs, 60);
        assert_eq!(of("min-fresh=30").ahead, Some(Ahead { secs: 30, since: NEVER }));
        for (control, mode) in [
            ("no-cache", Mode::NoCache),
            ("no-store, no-cache", Mode::NoStore),
            ("only-if-cached", Mode::OnlyIfFresh),
            ("no-cache=x", Mode::NoCache),
        ] {
            assert_eq!(of(control).mode, mode, "{control}");
        }
        for (control, secs) in
            [("only-if-cached", 0), ("only-if-cached, max-stale=7", 7), ("max-stale, only-if-cached", u64::MAX)]
        {
            assert_eq!(of(control).while_revalidate_secs, secs, "{control}");
        }
        let hinted = directed(base, "max-age=60", Some(5));
        assert_eq!((hinted.ttl_secs, hinted.max_age_secs), (Some(5), Some(5)));
        let offline = Ask { mode: Mode::OnlyIfCached, ..base };
        assert_eq!(directed(offline, "no-cache, max-age=0", Some(1)), offline);
    }
}
