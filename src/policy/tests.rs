//! The decisions, one by one.

use super::*;
use crate::entry::tests::entry;
use crate::request::Api;
use http::{HeaderMap, StatusCode};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOUR: Lifetime = Lifetime {
    class: "repo",
    fresh_secs: 3_600,
    stale_secs: 86_400,
    private: false,
    is_set: false,
    max_age_secs: None,
};
const NOBODY: Signer = Signer { token_digest: None, predicts: true };

fn terms(mode: Mode, cutoff: CutoffTimes) -> Terms<'static> {
    Terms {
        mode,
        lifetime: &HOUR,
        cutoff,
        signer: &NOBODY,
        fields: None,
        while_revalidate_secs: 0,
        ahead: None,
        link: LinkUse::Given,
        now: NOW,
    }
}

fn fresh(age_secs: u64) -> Before {
    Before::Fresh { age_secs, proof: Proof::Lifetime }
}

fn aged(secs: u64) -> Entry {
    let mut entry = entry("/repos/o/r", b"{}");
    entry.fetched_at = NOW.minus(secs);
    entry.validated_at = NOW.minus(secs);
    entry
}

fn before(entry: &Entry, mode: Mode, cutoff: CutoffTimes) -> Before {
    before_request(Some(entry), &terms(mode, cutoff))
}

fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    Reply { status, headers: map, body: body.to_owned().into(), attempts: 1, refused: 0, rule_held: None }
}

fn after(stored: Option<Entry>, reply: Reply) -> After {
    let request = Request::get(&Api::github(), "/repos/o/r").unwrap();
    let parts = entry("/repos/o/r", b"").parts;
    after_reply(stored, &request, &parts, reply, &terms(Mode::Default, CutoffTimes::default()))
}

#[test]
fn modes_decide_what_may_answer() {
    let (young, old) = (aged(10), aged(4_000));
    let none = CutoffTimes::default();
    assert_eq!(before(&young, Mode::Default, none), fresh(10));
    assert!(matches!(before(&old, Mode::Default, none), Before::Revalidate { because: Because::Stale, .. }));
    assert!(matches!(before(&young, Mode::NoCache, none), Before::Revalidate { because: Because::Mode, .. }));
    for mode in [Mode::Reload, Mode::NoStore] {
        assert_eq!(before(&young, mode, none), Before::Fetch(Because::Mode));
    }
    for (mode, reason) in [(Mode::OnlyIfCached, StaleReason::Offline), (Mode::ForceCache, StaleReason::ForceCache)] {
        assert_eq!(before(&old, mode, none), Before::AnswerStale { age_secs: 4_000, reason });
        assert_eq!(before(&young, mode, none), fresh(10));
    }
    let missing = |mode| before_request(None, &terms(mode, none));
    assert_eq!(missing(Mode::OnlyIfCached), Before::NotCached);
    assert_eq!(missing(Mode::ForceCache), Before::Fetch(Because::NotStored));
}

#[test]
fn a_cutoff_means_revalidate_and_gone_means_absent() {
    let cutoff = CutoffTimes { revalidate: Some(NOW.minus(5)), gone: None, suspect_until: None };
    assert!(matches!(
        before(&aged(10), Mode::Default, cutoff),
        Before::Revalidate { because: Because::Invalidated, .. }
    ));
    assert!(matches!(before(&aged(4), Mode::Default, cutoff), Before::Fresh { .. }));
    let gone = CutoffTimes { revalidate: None, gone: Some(NOW.minus(5)), suspect_until: None };
    assert_eq!(before(&aged(10), Mode::Default, gone), Before::Fetch(Because::NotStored));
    assert!(!may_answer_stale(&aged(10), &HOUR, gone, LinkUse::Given, NOW));
}

#[test]
fn times_ahead_of_the_clock_and_directives() {
    let mut ahead = aged(10);
    ahead.validated_at = NOW.plus(MAX_CLOCK_SKEW_SECS);
    assert_eq!(before(&ahead, Mode::Default, CutoffTimes::default()), fresh(0));
    ahead.validated_at = NOW.plus(MAX_CLOCK_SKEW_SECS + 1);
    let decided = before(&ahead, Mode::Default, CutoffTimes::default());
    assert!(matches!(decided, Before::Revalidate { because: Because::Stale, .. }), "{decided:?}");
    assert!(!may_answer_stale(&ahead, &HOUR, CutoffTimes::default(), LinkUse::Given, NOW));
    ahead.fetched_at = ahead.validated_at;
    let gone = CutoffTimes { gone: Some(NOW.minus(5)), ..CutoffTimes::default() };
    assert_eq!(before(&ahead, Mode::Default, gone), Before::Fetch(Because::NotStored));
    let After::Freshened(confirmed) = after(Some(ahead), reply(304, &[("etag", "\"abc\"")], "")) else {
        panic!("a 304 freshens")
    };
    assert_eq!((confirmed.fetched_at, confirmed.validated_at), (NOW, NOW));
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", "private, no-cache".parse().unwrap());
    let directed = Entry { headers: StoredHeaders::of(&headers), ..aged(1) };
    assert_eq!(before(&directed, Mode::Default, CutoffTimes::default()), Before::Fetch(Because::NoCacheDirective));
}

#[test]
fn negative_answers_are_brief_and_grow() {
    let mut missing = aged(0);
    missing.status = 404;
    let lifetimes: Vec<u64> = (0..8)
        .map(|n| {
            missing.repeats = n;
            fresh_secs(&missing, &HOUR)
        })
        .collect();
    assert_eq!(lifetimes, [60, 120, 240, 480, 600, 600, 600, 600]);
    let After::Replaced(again) = after(Some(Entry { repeats: 2, ..missing.clone() }), reply(404, &[], "{}")) else {
        panic!("a 404 is stored")
    };
    assert_eq!((again.repeats, again.ttl_secs), (3, 480));
    let After::Replaced(found) = after(Some(missing), reply(200, &[], "{}")) else { panic!("stored") };
    assert_eq!(found.repeats, 0);
}

#[test]
fn what_somebody_set_holds_for_every_status_and_the_strictest_bound_wins() {
    let of = |status, poll: &str, lifetime: &Lifetime| {
        let mut entry = Entry { status, repeats: 9, ..aged(0) };
        entry.headers.set("x-poll-interval", poll.into());
        fresh_secs(&entry, lifetime)
    };
    let set = |fresh_secs| Lifetime { fresh_secs, is_set: true, ..HOUR };
    for status in [200, 404, 409, 410, 451] {
        for secs in [0, 1, 7_200] {
            assert_eq!(of(status, "60", &set(secs)), secs, "{status}");
        }
        for lifetime in [HOUR, set(7_200)] {
            assert_eq!(of(status, "60", &lifetime.at_most(Some(0))), 0, "{status}");
        }
        assert!(of(status, "60", &HOUR.at_most(Some(86_400))) <= 3_600, "a bound makes nothing fresh for longer");
    }
    // By class: a bound for what is not there, and a floor by which GitHub wants to be polled.
    let class = Lifetime { fresh_secs: 5, ..HOUR };
    assert_eq!((of(404, "", &class), of(200, "60", &class), of(200, "9999", &class)), (5, 60, 3_600));
    let ends = Entry { expires_at: Some(NOW.plus(40)), ..aged(20) };
    assert_eq!((fresh_secs(&ends, &HOUR), fresh_secs(&ends, &set(9))), (60, 9));
}

#[test]
fn only_if_cached_of_a_client_takes_nothing_stale() {
    let decided = |entry: Option<&Entry>, while_revalidate_secs, cutoff| {
        before_request(entry, &Terms { while_revalidate_secs, ..terms(Mode::OnlyIfFresh, cutoff) })
    };
    let none = CutoffTimes::default();
    assert_eq!(decided(None, 0, none), Before::NotCached);
    assert_eq!(decided(Some(&aged(10)), 0, none), fresh(10));
    assert_eq!(decided(Some(&aged(4_000)), 0, none), Before::NotCached);
    let stale = Before::AnswerStale { age_secs: 4_000, reason: StaleReason::Offline };
    assert_eq!(decided(Some(&aged(4_000)), 401, none), stale);
    let cutoff = CutoffTimes { revalidate: Some(NOW), ..none };
    assert_eq!(decided(Some(&aged(10)), u64::MAX, cutoff), Before::NotCached, "not against an invalidation");
}

#[test]
fn a_304_freshens_and_keeps_what_it_must() {
    let old = Entry { status: 200, ..aged(5_000) };
    let confirmed = reply(304, &[("etag", "\"abc\""), ("link", ""), ("x-poll-interval", "60")], "");
    let After::Freshened(entry) = after(Some(old.clone()), confirmed) else { panic!("freshened") };
    assert_eq!((entry.validated_at, entry.fetched_at), (NOW, old.fetched_at));
    assert_eq!((entry.headers.get("etag"), entry.headers.get("x-poll-interval")), (Some("\"abc\""), Some("60")));
    assert_eq!(entry.body, old.body);
    // Without the validator it is an intermediary's, unless there is none but a date.
    assert!(matches!(after(Some(old.clone()), reply(304, &[], "")), After::AskAgain));
    let mut dated = Entry { headers: StoredHeaders::default(), ..old.clone() };
    dated.headers.set("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT".into());
    assert!(matches!(after(Some(dated.clone()), reply(304, &[], "")), After::Freshened(_)));
    let another = reply(304, &[("last-modified", "Wed, 15 Nov 2023 22:13:20 GMT")], "");
    assert!(matches!(after(Some(dated), another.clone()), After::AskAgain));
    assert!(matches!(after(Some(old), another), After::AskAgain));
    assert!(matches!(after(None, reply(304, &[], "")), After::AskAgain));
}

#[test]
fn a_304_about_other_bytes_updates_nothing() {
    for other in ["\"other\"", "W/\"other\""] {
        let said = reply(304, &[("etag", other)], "");
        assert!(matches!(after(Some(aged(5_000)), said.clone()), After::AskAgain), "{other}");
        let untagged = Entry { headers: StoredHeaders::default(), ..aged(5_000) };
        assert!(matches!(after(Some(untagged), said), After::AskAgain), "validated by a date alone: {other}");
    }
}

#[test]
fn what_another_cache_held_is_as_old_as_it_says() {
    let After::Replaced(entry) = after(None, reply(200, &[("age", "600")], "{}")) else { panic!("stored") };
    assert_eq!((entry.fetched_at, entry.validated_at), (NOW.minus(600), NOW.minus(600)));
    let After::Freshened(entry) = after(Some(aged(5_000)), reply(304, &[("age", "600"), ("etag", "\"abc\"")], ""))
    else {
        panic!("304")
    };
    assert_eq!(entry.validated_at, NOW.minus(600));
    let After::Freshened(entry) = after(Some(aged(50)), reply(304, &[("age", "600"), ("etag", "\"abc\"")], "")) else {
        panic!("304")
    };
    assert_eq!(entry.validated_at, NOW.minus(50), "what was known already stays");
    for status in ["octocache; hit; ttl=-1; detail=stale-limited", "edge; fwd=miss, octocache; ttl=-90; hit"] {
        for code in [200, 304] {
            let said = after(Some(aged(5_000)), reply(code, &[("cache-status", status), ("etag", "\"abc\"")], "{}"));
            assert!(matches!(said, After::DoNotStore(_, NoStore::StaleElsewhere)), "{code} {status}: {said:?}");
        }
    }
    for status in ["octocache; hit; ttl=5", "octocache; fwd=stale; fwd-status=304; ttl=-1"] {
        let said = after(None, reply(200, &[("cache-status", status), ("age", "soon")], "{}"));
        assert!(matches!(said, After::Replaced(entry) if entry.validated_at == NOW), "{status}");
    }
}

#[test]
fn a_part_never_takes_the_place_of_the_whole() {
    let of = |body: &str| Entry { cid: Cid::of(body.as_bytes()), body: body.to_owned().into(), ..aged(5_000) };
    let (whole, part) = (of(r#"{"tree":[1,2],"truncated":false}"#), of(r#"{"tree":[1],"truncated":true}"#));
    let stores = |stored: Option<&Entry>, body: &str| match after(stored.cloned(), reply(200, &[], body)) {
        After::Replaced(_) => true,
        After::DoNotStore(_, NoStore::PartialResults) => false,
        other => panic!("{other:?}"),
    };
    let cut = r#"{"tree":[9],"truncated":true}"#;
    assert!(!stores(Some(&whole), cut));
    assert!(stores(None, cut) && stores(Some(&part), cut), "what is always a part is better than nothing");
    assert!(stores(Some(&part), r#"{"tree":[1,2,3],"truncated":false}"#));
    let hurried = r#"{"total_count":1,"incomplete_results":true,"items":[]}"#;
    assert!(!stores(None, hurried) && !stores(Some(&whole), hurried));
    let twice = [("x-github-sso", "required; url=x"), ("x-github-sso", "partial-results; organizations=1")];
    assert!(matches!(after(None, reply(200, &twice, "[]")), After::DoNotStore(_, NoStore::PartialResults)));
}

#[test]
fn what_holds_a_signed_address_is_fresh_as_long_as_that() {
    let body = r#"{"download_url":"https://raw.githubusercontent.com/o/r/main/f?token=A"}"#;
    let After::Replaced(stored) = after(None, reply(200, &[], body)) else { panic!("stored") };
    assert_eq!((stored.expires_at, stored.ttl_secs), (Some(NOW.plus(300)), 300));
    let at = |secs| Terms { now: NOW.plus(secs), ..terms(Mode::Default, CutoffTimes::default()) };
    assert!(matches!(before_request(Some(&stored), &at(299)), Before::Fresh { .. }));
    assert_eq!(before_request(Some(&stored), &at(300)), Before::Fetch(Because::Stale));
    // Unchanged fields of the parent prove nothing about an address that has ended.
    let fields = Some(Cid::of(b"fields"));
    let followed = Entry { fields_cid: fields, ..(*stored).clone() };
    for (secs, is_fresh) in [(299, true), (300, false)] {
        let decided = before_request(Some(&followed), &Terms { fields, ..at(secs) });
        assert_eq!(matches!(decided, Before::Fresh { .. }), is_fresh, "{secs}");
    }
    // GitHub says that the same bytes are current: a token that does not say when it ends is good again.
    let request = Request::get(&Api::github(), "/repos/o/r").unwrap();
    let parts = stored.parts.clone();
    let After::Freshened(again) = after_reply(Some(*stored), &request, &parts, reply(304, &[], ""), &at(1_000)) else {
        panic!("freshened")
    };
    assert_eq!(again.expires_at, Some(NOW.plus(1_300)));
    let After::Replaced(plain) = after(Some(*again), reply(200, &[], "{}")) else { panic!("stored") };
    assert_eq!(plain.expires_at, None);
}

#[test]
fn what_is_never_stored_has_a_name() {
    let cases = [
        (reply(401, &[], ""), NoStore::Status(401)),
        (reply(403, &[], ""), NoStore::Status(403)),
        (reply(422, &[], ""), NoStore::Status(422)),
        (reply(202, &[], "{}"), NoStore::NotReady),
        (reply(302, &[("location", "https://elsewhere.example/x")], ""), NoStore::Redirect),
        (reply(301, &[("location", "https://elsewhere.example/x")], ""), NoStore::Redirect),
        (reply(301, &[("location", "/repos/o/r")], ""), NoStore::Redirect),
        (reply(301, &[("location", "https://api.github.com/repos/o/r")], ""), NoStore::Redirect),
        (reply(301, &[("location", "/repositories/1"), ("location", "/repositories/2")], ""), NoStore::Redirect),
        (reply(200, &[("cache-control", "private"), ("cache-control", "no-store")], "{}"), NoStore::Directive),
        (reply(200, &[("cache-control", "no-store")], "{}"), NoStore::Directive),
        (reply(200, &[("x-github-sso", "partial-results; organizations=1")], "[]"), NoStore::PartialResults),
    ];
    for (reply, reason) in cases {
        let text = format!("{reply:?}");
        assert!(matches!(after(None, reply), After::DoNotStore(_, why) if why == reason), "{text}");
    }
    for status in [200, 204, 404, 410, 451] {
        assert!(matches!(after(None, reply(status, &[], "")), After::Replaced(_)), "{status}");
    }
    assert!(matches!(after(None, reply(301, &[("location", "/repositories/1")], "{}")), After::Replaced(_)));
}

#[test]
fn graphql_answers_with_errors_are_not_stored() {
    let request = Request::graphql(&Api::github(), "{}");
    let store = |body: &str| {
        let parts = entry("/x", b"").parts;
        let terms = terms(Mode::Default, CutoffTimes::default());
        matches!(after_reply(None, &request, &parts, reply(200, &[], body), &terms), After::Replaced(_))
    };
    assert!(store(r#"{"data":{"viewer":{"login":"x"}}}"#));
    assert!(!store(r#"{"data":null,"errors":[{"type":"RATE_LIMITED"}]}"#));
    assert!(!store("not json") && !store("{}") && !store(r#"{"data":null}"#));
}

#[test]
fn unchanged_fields_of_the_parent_outlive_any_lifetime_and_changed_ones_end_it() {
    let (one, two) = (Cid::of(b"one"), Cid::of(b"two"));
    let before = |age, entry_fields, fields, cutoff| {
        let entry = Entry { fields_cid: entry_fields, ..aged(age) };
        before_request(Some(&entry), &Terms { fields, ..terms(Mode::Default, cutoff) })
    };
    let none = CutoffTimes::default();
    assert_eq!(before(900_000, Some(one), Some(one), none), Before::Fresh { age_secs: 900_000, proof: Proof::Fields });
    let changed = before(10, Some(one), Some(two), none);
    assert!(matches!(changed, Before::Revalidate { because: Because::FieldsChanged, .. }));
    // Without a statement on either side, the lifetime decides.
    assert_eq!(before(10, None, Some(one), none), fresh(10));
    assert_eq!(before(10, Some(one), None, none), fresh(10));
    assert!(matches!(before(4_000, None, Some(one), none), Before::Revalidate { because: Because::Stale, .. }));
    let cutoff = CutoffTimes { revalidate: Some(NOW), gone: None, suspect_until: None };
    assert!(matches!(
        before(10, Some(one), Some(one), cutoff),
        Before::Revalidate { because: Because::Invalidated, .. }
    ));
}

#[test]
fn a_stale_answer_may_come_while_it_is_revalidated_but_not_against_an_invalidation() {
    let window = |age, cutoff| {
        before_request(Some(&aged(age)), &Terms { while_revalidate_secs: 60, ..terms(Mode::Default, cutoff) })
    };
    let none = CutoffTimes::default();
    assert_eq!(window(3_659, none), Before::AnswerStale { age_secs: 3_659, reason: StaleReason::WhileRevalidate });
    assert!(matches!(window(3_660, none), Before::Revalidate { .. }));
    let cutoff = CutoffTimes { revalidate: Some(NOW), gone: None, suspect_until: None };
    assert!(matches!(window(3_601, cutoff), Before::Revalidate { because: Because::Invalidated, .. }));
}

#[test]
fn who_looks_ahead_wants_it_fresh_for_longer_but_only_once() {
    let ahead = |age, secs, since| {
        let terms = terms(Mode::Default, CutoffTimes::default());
        before_request(Some(&aged(age)), &Terms { ahead: Some(Ahead { secs, since }), ..terms })
    };
    assert_eq!(ahead(1_000, 2_599, NOW), fresh(1_000));
    assert!(matches!(ahead(1_000, 2_600, NOW), Before::Revalidate { because: Because::SoonStale, .. }));
    assert!(matches!(ahead(3_600, 0, NOW), Before::Revalidate { because: Because::Stale, .. }));
    assert_eq!(ahead(5, 1_000_000, NOW.minus(5)), fresh(5), "it has had its turn in this tick");
}

#[test]
fn only_explained_bodies_are_tried_for_others_and_never_offline() {
    let explained = Entry { etag_rule: Some(EtagRule::Github), ..aged(10) };
    let none = CutoffTimes::default();
    for mode in [Mode::Default, Mode::NoCache, Mode::ForceCache] {
        assert!(may_try(&explained, &terms(mode, none)).is_some(), "{mode:?}");
    }
    for mode in [Mode::OnlyIfCached, Mode::Reload, Mode::NoStore] {
        assert_eq!(may_try(&explained, &terms(mode, none)), None, "{mode:?}");
    }
    let private = Lifetime { private: true, ..HOUR };
    let silent = Signer { predicts: false, ..NOBODY };
    let gone = CutoffTimes { revalidate: None, gone: Some(NOW), suspect_until: None };
    let default = terms(Mode::Default, none);
    assert_eq!(may_try(&explained, &Terms { lifetime: &private, ..default }), None);
    assert_eq!(may_try(&explained, &Terms { signer: &silent, ..default }), None);
    assert_eq!(may_try(&explained, &Terms { cutoff: gone, ..default }), None);
    assert_eq!(may_try(&Entry { status: 404, ..explained.clone() }, &default), None);
    assert_eq!(may_try(&Entry { etag_rule: None, ..explained }, &default), None);
}

#[test]
fn stale_answers_have_a_window() {
    let none = CutoffTimes::default();
    assert!(may_answer_stale(&aged(3_600 + 86_399), &HOUR, none, LinkUse::Given, NOW));
    assert!(!may_answer_stale(&aged(3_600 + 86_400), &HOUR, none, LinkUse::Given, NOW));
}

#[test]
fn what_could_not_be_read_back_is_not_stored() {
    let long = "x".repeat(9_000);
    let large = |reply| matches!(after(None, reply), After::DoNotStore(_, NoStore::TooLarge));
    assert!(large(reply(200, &[("link", &long)], "{}")));
    assert!(large(reply(200, &[], &"x".repeat(25 << 20))));
    let quotes = "\"".repeat(6_000);
    let After::Replaced(entry) = after(None, reply(200, &[("content-language", &quotes)], "{}")) else {
        panic!("stored")
    };
    assert_eq!(Entry::decode(entry.encode().into(), None).unwrap().headers, entry.headers);
}
