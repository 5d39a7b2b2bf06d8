//! The cache over real HTTP: what is asked, what is charged, what answers.

use std::sync::Arc;

use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::error::Kind;
use octocache::github::{Backoff, GitHub, Options};
use octocache::outcome::{NoStore, Outcome, Proof, StaleReason};
use octocache::partition::Partition;
use octocache::policy::{Mode, TtlTable};
use octocache::request::{Api, Request};
use octocache::stack::{Narrow, Stack};
use octocache::tag::Scope;
use octocache::tier::TierName;
use octocache::token::Token;
use serde_json::json;

use crate::harness::sim::{Doc, Fault, Sim};
use crate::harness::world;

/// Fresh by its lifetime.
pub(crate) const HIT: Outcome = Outcome::Hit(Proof::Lifetime);

pub(crate) struct Fixture {
    pub sim: Sim,
    pub clock: Clock,
    pub dir: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with_clock(Clock::manual(Timestamp::from_secs(1_800_000_000)))
    }

    pub fn with_clock(clock: Clock) -> Self {
        let sim = Sim::start(clock.clone());
        sim.token("ghp_one", "user:one");
        sim.token("ghp_two", "user:two");
        Self { sim, clock, dir: tempfile::tempdir().unwrap() }
    }

    pub fn cache(&self, token: Option<&str>) -> Cache {
        let partition = token.map_or_else(Partition::public, |token| Partition::token(&Token::new(token).unwrap()));
        self.cache_of(token, partition)
    }

    pub fn cache_of(&self, token: Option<&str>, partition: Partition) -> Cache {
        let api = Api::parse(&self.sim.url()).unwrap();
        let mut options = Options::new(api.clone(), token.map(|token| Token::new(token).unwrap()));
        options.backoff = Backoff { base: std::time::Duration::ZERO, retries: 2, ..Backoff::default() };
        options.not_ready_pauses.iter_mut().for_each(|pause| *pause = std::time::Duration::ZERO);
        let upstream = Arc::new(GitHub::new(options, self.clock.clone()));
        let stack = Stack::new(self.dir.path().join("store"), self.clock.clone());
        Cache::new(api, partition, stack, upstream, TtlTable::default(), self.clock.clone())
    }

    pub fn request(&self, path: &str) -> Request {
        Request::get(&Api::parse(&self.sim.url()).unwrap(), path).unwrap()
    }
}

pub(crate) fn ask(mode: Mode) -> Ask {
    Ask::default().mode(mode)
}

#[tokio::test]
async fn cold_fresh_stale_changed() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/acme/repo-0001");
    let first = cache.get(&request, &Ask::default()).await.unwrap();
    assert!(matches!(first.outcome, Outcome::Fetched(_)));
    let second = cache.get(&request, &Ask::default()).await.unwrap();
    assert_eq!((second.outcome, second.tier), (HIT, Some(TierName::Disk)));
    assert_eq!(second.entry.body, first.entry.body);
    assert_eq!(fx.sim.take_counts(), (1, 1));
    fx.clock.advance(3_601);
    let third = cache.get(&request, &Ask::default()).await.unwrap();
    assert_eq!((third.outcome, third.not_modified), (Outcome::Revalidated, 1));
    assert_eq!(fx.sim.take_counts(), (1, 0), "an authorised 304 is free");
    fx.sim.put("/repos/acme/repo-0001", Doc::dated(json!({ "changed": true })));
    assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().outcome, HIT);
    fx.clock.advance(3_601);
    // The date did not change but the body did: the ETag decides.
    let fourth = cache.get(&request, &Ask::default()).await.unwrap();
    assert_eq!(&fourth.entry.body[..], br#"{"changed":true}"#);
}

#[tokio::test]
async fn exactly_our_headers_are_sent() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/acme/repo-0000");
    cache.get(&request, &Ask::default()).await.unwrap();
    cache.get(&request, &ask(Mode::NoCache)).await.unwrap();
    let log = fx.sim.log();
    let names = |at: usize| {
        let mut names: Vec<&str> = log[at].headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        names
    };
    let usual = ["accept", "accept-encoding", "authorization", "host", "user-agent", "x-github-api-version"];
    assert_eq!(names(0), usual);
    let mut conditional = [&usual[..], &["cache-control", "if-modified-since", "if-none-match"]].concat();
    conditional.sort_unstable();
    assert_eq!(names(1), conditional);
    let header = |name: &str| {
        log[0].headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(header("authorization"), ["Bearer ghp_one"]);
    assert_eq!(header("user-agent"), [octocache::github::AGENT]);
    assert_eq!(header("accept"), ["application/vnd.github+json"]);
    assert_eq!(header("x-github-api-version"), ["2022-11-28"]);
    assert!(log[0].body.is_empty());
}

#[tokio::test]
async fn one_partition_never_answers_another() {
    let fx = Fixture::new();
    fx.sim.put("/user", Doc::json(json!({ "login": "one" })));
    fx.cache(Some("ghp_one")).get(&fx.request("/user"), &Ask::default()).await.unwrap();
    fx.sim.put("/user", Doc::json(json!({ "login": "two" })));
    let other = fx.cache(Some("ghp_two")).get(&fx.request("/user"), &Ask::default()).await.unwrap();
    assert_eq!(&other.entry.body[..], br#"{"login":"two"}"#);
    let offline = fx.cache(None).get(&fx.request("/user"), &ask(Mode::OnlyIfCached)).await.unwrap_err();
    assert_eq!(offline.kind(), Kind::NotCached);
}

#[tokio::test]
async fn bodies_are_kept_byte_for_byte() {
    let fx = Fixture::new();
    let odd = bytes::Bytes::from_static(b"  {\"b\": 1.50,\n \"a\":\"\\u00e9 \xc3\xa9\"}\n\n");
    fx.sim.put("/odd", Doc::Raw { content_type: "application/json", body: odd.clone() });
    let binary = bytes::Bytes::from((0..=255_u8).cycle().take(5_000).collect::<Vec<u8>>());
    fx.sim.put("/binary", Doc::Raw { content_type: "application/octet-stream", body: binary.clone() });
    let cache = fx.cache(None);
    let raw = fx.request("/binary").accepting("application/vnd.github.raw");
    for (request, body) in [(fx.request("/odd"), odd), (raw, binary)] {
        assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().entry.body, body);
        let hit = cache.get(&request, &Ask::default()).await.unwrap();
        assert_eq!((hit.outcome, &hit.entry.body), (HIT, &body));
        cache.stack().pack(&Narrow::everything(), false).unwrap();
        let bundled = fx.cache(None).get(&request, &Ask::default()).await.unwrap();
        assert_eq!((bundled.tier, &bundled.entry.body), (Some(TierName::Bundle), &body));
    }
}

#[tokio::test]
async fn pages_belong_together() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 6);
    let cache = fx.cache(Some("ghp_one"));
    // 185 issues: two pages, the second under a numeric path.
    let request = fx.request("/repos/acme/repo-0005/issues?per_page=100");
    let pages = cache.get_pages(&request, &Ask::default()).await.unwrap();
    assert_eq!((pages.len(), fx.sim.take_counts()), (2, (2, 2)));
    assert_eq!(pages[1].entry.listing.as_deref(), Some("/repos/acme/repo-0005/issues"));
    cache.get_pages(&request, &Ask::default()).await.unwrap();
    assert_eq!(fx.sim.take_counts(), (0, 0));
    // One page is confirmed alone; later the listing is fresh in parts only: all of it is asked.
    fx.clock.advance(200);
    cache.get(&fx.request("/repositories/5/issues?page=2&per_page=100"), &ask(Mode::NoCache)).await.unwrap();
    assert_eq!(fx.sim.take_counts(), (1, 0));
    let pages = cache.get_pages(&request, &Ask::default()).await.unwrap();
    assert!(pages.iter().all(|page| page.entry.validated_at == fx.clock.now()));
    assert_eq!(fx.sim.take_counts(), (1, 0), "the page that was confirmed just now counts");
    // An invalidated repository touches its numeric pages, too.
    fx.clock.advance(1);
    cache.invalidate("repo:acme/repo-0005".parse().unwrap()).unwrap();
    fx.clock.advance(1);
    cache.get_pages(&request, &Ask::default()).await.unwrap();
    assert_eq!(fx.sim.take_counts(), (2, 0));
}

#[tokio::test]
async fn renamed_repositories_are_followed_and_remembered() {
    let fx = Fixture::new();
    fx.sim.put("/repos/old/name", Doc::Redirect("/repositories/7".into()));
    fx.sim.put("/repositories/7", Doc::json(json!({ "full_name": "new/name" })));
    let cache = fx.cache(Some("ghp_one"));
    let answer = cache.get(&fx.request("/repos/old/name"), &Ask::default()).await.unwrap();
    assert_eq!((answer.entry.status, answer.requests), (200, 2));
    let again = cache.get(&fx.request("/repos/old/name"), &Ask::default()).await.unwrap();
    assert_eq!((again.outcome, again.requests), (HIT, 0));
    assert_eq!(fx.sim.take_counts().0, 2);
    // A redirect to another host is an answer, never followed: our token is not for that host.
    fx.sim.put("/archive", Doc::Elsewhere("https://elsewhere.example/x".into()));
    let away = cache.get(&fx.request("/archive"), &Ask::default()).await.unwrap();
    assert_eq!((away.entry.status, away.outcome), (302, Outcome::NotStored(NoStore::Redirect)));
    // A circle ends.
    fx.sim.put("/round", Doc::Redirect("/round".into()));
    assert!(cache.get(&fx.request("/round"), &Ask::default()).await.is_err());
    // As many redirects as are followed end where they lead.
    for n in 0..5 {
        fx.sim.put(&format!("/hop{n}"), Doc::Redirect(format!("/hop{}", n + 1)));
    }
    fx.sim.put("/hop5", Doc::json(json!({ "end": true })));
    assert_eq!(cache.get(&fx.request("/hop0"), &Ask::default()).await.unwrap().entry.status, 200);
}

#[tokio::test]
async fn a_repository_that_has_its_old_name_again_is_found() {
    let fx = Fixture::new();
    let (old, new) = ("/repos/o/old", "/repos/o/new");
    fx.sim.put(old, Doc::Redirect(new.into()));
    fx.sim.put(new, Doc::json(json!({ "name": "new" })));
    let cache = fx.cache(Some("ghp_one"));
    cache.get(&fx.request(new), &Ask::default()).await.unwrap();
    fx.clock.advance(1_800);
    let unfollowed = Ask { unfollowed: true, ..Ask::default() };
    assert_eq!(cache.get(&fx.request(old), &unfollowed).await.unwrap().entry.status, 301);
    // The redirect is fresh for half an hour more, and GitHub says the contrary.
    fx.clock.advance(1_801);
    fx.sim.put(new, Doc::Redirect(old.into()));
    fx.sim.put(old, Doc::json(json!({ "name": "old" })));
    for name in [new, old] {
        let answer = cache.get(&fx.request(name), &Ask::default()).await.unwrap();
        assert_eq!(&answer.entry.body[..], br#"{"name":"old"}"#, "{name}");
    }
    // A client that follows by itself finds it, too.
    assert_eq!(cache.get(&fx.request(new), &unfollowed).await.unwrap().entry.status, 301);
    assert_eq!(cache.get(&fx.request(old), &unfollowed).await.unwrap().entry.status, 200);
}

#[tokio::test]
async fn errors_never_replace_an_entry() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/acme/repo-0000/languages");
    let good = cache.get(&request, &Ask::default()).await.unwrap();
    for (faults, reason) in [
        (vec![Fault::Status(502); 3], StaleReason::ServerError),
        (vec![Fault::Drop; 3], StaleReason::Unreachable),
        (vec![Fault::Truncate; 3], StaleReason::Unreachable),
    ] {
        fx.sim.take_counts();
        fx.sim.fail_next(&faults);
        let stale = cache.get(&request, &ask(Mode::NoCache)).await.unwrap();
        assert_eq!((stale.outcome, stale.entry.body.clone()), (Outcome::Stale(reason), good.entry.body.clone()));
        assert_eq!(fx.sim.take_counts().0, 3, "three attempts, then the stale answer");
        assert_eq!(cache.get(&request, &ask(Mode::NoCache)).await.unwrap().outcome, Outcome::Revalidated);
    }
    // One failure is made good by the second attempt.
    fx.sim.fail_next(&[Fault::Status(500)]);
    assert_eq!(cache.get(&request, &ask(Mode::NoCache)).await.unwrap().outcome, Outcome::Revalidated);
    // After a limit nothing is sent until its time has come.
    fx.sim.fail_next(&[Fault::Secondary(Some(120))]);
    let stale = cache.get(&request, &ask(Mode::NoCache)).await.unwrap();
    assert_eq!(stale.outcome, Outcome::Stale(StaleReason::Limited));
    fx.sim.take_counts();
    let unknown = cache.get(&fx.request("/users/octocat"), &Ask::default()).await.unwrap_err();
    assert!(matches!(unknown.kind(), Kind::Limited { until: Some(at), .. } if at == fx.clock.now().plus(120)));
    assert_eq!(fx.sim.take_counts().0, 0);
    fx.clock.advance(121);
    assert_eq!(cache.get(&request, &ask(Mode::NoCache)).await.unwrap().outcome, Outcome::Revalidated);
    assert_eq!(fx.sim.take_counts(), (1, 0));
}

#[tokio::test]
async fn refusals_are_answers_and_not_stored() {
    let fx = Fixture::new();
    fx.sim.put("/secret", Doc::Status(403, r#"{"message":"Resource not accessible by integration"}"#.into()));
    fx.sim.put("/empty", Doc::Status(204, String::new()));
    let cache = fx.cache(Some("ghp_one"));
    let refused = cache.get(&fx.request("/secret"), &Ask::default()).await.unwrap();
    assert_eq!(refused.outcome, Outcome::NotStored(NoStore::Status(403)));
    let empty = cache.get(&fx.request("/empty"), &Ask::default()).await.unwrap();
    assert_eq!((empty.entry.status, empty.entry.body.len()), (204, 0));
    assert_eq!(cache.get(&fx.request("/empty"), &Ask::default()).await.unwrap().outcome, HIT);
    // What is not there is remembered for a minute, then longer.
    fx.sim.take_counts();
    let missing = fx.request("/repos/no/where");
    assert_eq!(cache.get(&missing, &Ask::default()).await.unwrap().entry.status, 404);
    assert_eq!(cache.get(&missing, &Ask::default()).await.unwrap().outcome, HIT);
    assert_eq!(fx.sim.take_counts().0, 1);
    fx.clock.advance(61);
    cache.get(&missing, &Ask::default()).await.unwrap();
    fx.clock.advance(61);
    assert_eq!(cache.get(&missing, &Ask::default()).await.unwrap().outcome, HIT);
    let unknown = fx.cache(Some("ghp_wrong")).get(&fx.request("/user"), &Ask::default()).await.unwrap();
    assert_eq!(unknown.entry.status, 401);
}

#[tokio::test]
async fn statistics_that_are_still_computed_are_waited_for() {
    let fx = Fixture::new();
    fx.sim.put("/repos/o/r/stats/x", Doc::NotReady { left: 2, then: json!([1]) });
    let cache = fx.cache(Some("ghp_one"));
    let answer = cache.get(&fx.request("/repos/o/r/stats/x"), &Ask::default()).await.unwrap();
    assert_eq!((answer.entry.status, answer.requests), (200, 3));
    fx.sim.put("/repos/o/r/stats/y", Doc::NotReady { left: 9, then: json!([1]) });
    let never = cache.get(&fx.request("/repos/o/r/stats/y"), &Ask::default()).await.unwrap();
    assert_eq!((never.outcome, never.requests), (Outcome::NotStored(NoStore::NotReady), 3), "as often as retries say");
}

#[tokio::test]
async fn statistics_that_are_computed_anew_leave_the_old_ones() {
    let fx = Fixture::new();
    let request = fx.request("/repos/o/r/stats/contributors");
    fx.sim.put(&request.path, Doc::json(json!([1])));
    let cache = fx.cache(Some("ghp_one"));
    cache.get(&request, &Ask::default()).await.unwrap();
    fx.sim.put(&request.path, Doc::NotReady { left: 2, then: json!([2]) });
    fx.sim.take_counts();
    for _ in 0..2 {
        let stale = cache.get(&request, &ask(Mode::NoCache)).await.unwrap();
        assert_eq!((stale.outcome, stale.requests), (Outcome::Stale(StaleReason::NotReady), 1));
        assert_eq!(&stale.entry.body[..], b"[1]");
    }
    assert_eq!(fx.sim.take_counts(), (2, 2), "nobody waits who has something to show");
    let new = cache.get(&request, &ask(Mode::NoCache)).await.unwrap();
    assert_eq!(&new.entry.body[..], b"[2]");
}

#[tokio::test]
async fn a_lifetime_that_somebody_set_holds_for_what_is_not_there() {
    let fx = Fixture::new();
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/o/r/releases/tags/v1");
    let set = |secs| Ask { ttl_secs: Some(secs), ..Ask::default() };
    let bounded = Ask { max_age_secs: Some(0), ..Ask::default() };
    assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().entry.status, 404);
    fx.sim.take_counts();
    for (ask, sent) in [(Ask::default(), 0), (set(1), 0), (set(0), 1), (bounded, 1)] {
        cache.get(&request, &ask).await.unwrap();
        assert_eq!(fx.sim.take_counts().0, sent, "{ask:?}");
    }
    // However often it was asked: ten minutes, and no longer.
    for _ in 0..9 {
        cache.get(&request, &set(0)).await.unwrap();
    }
    fx.clock.advance(599);
    assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().outcome, HIT);
    fx.clock.advance(1);
    fx.sim.put(&request.path, Doc::json(json!({ "tag_name": "v1" })));
    assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().entry.status, 200);
}

#[tokio::test]
async fn a_date_alone_proves_nothing_where_there_was_a_tag() {
    let fx = Fixture::new();
    fx.sim.with(|state| state.tag_salt = "another rule".into());
    let request = fx.request("/repos/o/r/languages");
    let read = async |token: &str| {
        let cache = fx.cache_of(Some(token), Partition::repository("o/r").unwrap());
        cache.get(&request, &ask(Mode::NoCache)).await.unwrap().entry.body.clone()
    };
    for (token, stars) in [("ghp_one", 1), ("ghp_two", 2), ("ghp_one", 3)] {
        // Another body each time, and the same date.
        let body = json!({ "stars": stars });
        fx.sim.put(&request.path, Doc::dated(body.clone()));
        assert_eq!(read(token).await, body.to_string());
    }
}

#[tokio::test]
async fn a_part_of_the_whole_is_answered_and_never_replaces_it() {
    let fx = Fixture::new();
    let cache = fx.cache(Some("ghp_one"));
    let search = fx.request("/search/issues?q=x");
    let tree = fx.request("/repos/o/r/git/trees/main?recursive=1");
    for (request, whole, part) in [
        (
            search,
            json!({ "incomplete_results": false, "items": [1, 2] }),
            json!({ "incomplete_results": true, "items": [1] }),
        ),
        (tree, json!({ "tree": [1, 2], "truncated": false }), json!({ "tree": [1], "truncated": true })),
    ] {
        fx.sim.put(&request.path, Doc::json(whole.clone()));
        cache.get(&request, &Ask::default()).await.unwrap();
        fx.sim.put(&request.path, Doc::json(part.clone()));
        let answer = cache.get(&request, &ask(Mode::NoCache)).await.unwrap();
        assert_eq!(answer.outcome, Outcome::NotStored(NoStore::PartialResults));
        assert_eq!(answer.entry.body, part.to_string());
        let stored = cache.get(&request, &ask(Mode::OnlyIfCached)).await.unwrap();
        assert_eq!(stored.entry.body, whole.to_string());
    }
}

#[tokio::test]
async fn modes_and_own_names() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/users/octocat");
    let (cache_ref, request_ref) = (&cache, &request);
    let outcome = |mode| async move { cache_ref.get(request_ref, &ask(mode)).await };
    assert_eq!(outcome(Mode::NoStore).await.unwrap().outcome, Outcome::NotStored(NoStore::Mode));
    assert_eq!(outcome(Mode::OnlyIfCached).await.unwrap_err().kind(), Kind::NotCached);
    assert!(matches!(outcome(Mode::Reload).await.unwrap().outcome, Outcome::Fetched(_)));
    fx.clock.advance(30 * 86_400);
    assert_eq!(outcome(Mode::OnlyIfCached).await.unwrap().outcome, Outcome::Stale(StaleReason::Offline));
    assert_eq!(outcome(Mode::ForceCache).await.unwrap().outcome, Outcome::Stale(StaleReason::ForceCache));
    assert_eq!(outcome(Mode::Default).await.unwrap().outcome, Outcome::Revalidated);
    cache.set("release-v1.2", "notes", 60).unwrap();
    assert_eq!(cache.get_own("release-v1.2", &Ask::default()).unwrap().entry.body, "notes");
    fx.clock.advance(61);
    assert!(cache.get_own("release-v1.2", &Ask::default()).is_none());
    assert!(cache.touch("release-v1.2") && !cache.touch("release-v9"));
    assert!(cache.get_own("release-v1.2", &Ask::default()).is_some());
    cache.clear(&"prefix:release-".parse().unwrap()).unwrap();
    assert!(cache.get_own("release-v1.2", &ask(Mode::OnlyIfCached)).is_none());
}

#[tokio::test]
async fn many_at_once_keep_their_order() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 20);
    let cache = fx.cache(Some("ghp_one"));
    let requests: Vec<Request> = names.iter().map(|name| fx.request(&format!("/repos/{name}"))).collect();
    for expected in [20, 0] {
        let answers = cache.get_many(&requests, &Ask::default(), 8).await;
        for (name, answer) in names.iter().zip(answers) {
            let body: serde_json::Value = serde_json::from_slice(&answer.unwrap().entry.body).unwrap();
            assert_eq!(body["full_name"], name.as_str());
        }
        assert_eq!(fx.sim.take_counts().0, expected);
    }
    let counts = cache.stats().counts();
    assert_eq!((counts.asked, counts.all_hits(), counts.fetched), (40, 20, 20));
}

#[tokio::test]
async fn an_entry_that_vanished_meanwhile_is_asked_again_without_conditions() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/users/octocat");
    let first = cache.get(&request, &Ask::default()).await.unwrap();
    // Somebody breaks the stored file: the next ask is a plain miss, not a 304 without a body.
    std::fs::write(cache.stack().disk().path(&first.entry.key()), b"garbage").unwrap();
    let healed = cache.get(&request, &Ask::default()).await.unwrap();
    assert!(matches!(healed.outcome, Outcome::Fetched(_)));
    assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().outcome, HIT);
}

#[tokio::test]
async fn an_installation_mints_its_tokens_and_renews_them() {
    use octocache::github::{App, Identity};
    let fx = Fixture::new();
    let Ok(openssl) = std::process::Command::new("openssl").args(["genrsa", "2048"]).output() else {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing");
        return;
    };
    let app = App::new("1234", 77, &openssl.stdout).unwrap();
    assert!(App::new("1234", 77, b"no key").is_err());
    assert!(!format!("{app:?}").contains("PRIVATE"));
    let mint = |token: &str| {
        fx.sim.token(token, "installation:77");
        let body = json!({ "token": token, "expires_at": fx.clock.now().plus(3_600).to_string() });
        fx.sim.put("/app/installations/77/access_tokens", Doc::json(body));
    };
    mint("ghs_first");
    fx.sim.put("/x", Doc::dated(json!({ "x": 1 })));
    let api = Api::parse(&fx.sim.url()).unwrap();
    let options = Options { identity: Identity::Installation(app), ..Options::new(api.clone(), None) };
    let upstream = Arc::new(GitHub::new(options, fx.clock.clone()));
    let stack = Stack::new(fx.dir.path().join("store"), fx.clock.clone());
    let cache = Cache::new(api, Partition::installation(77), stack, upstream, TtlTable::default(), fx.clock.clone());
    let requests = vec![fx.request("/x"), fx.request("/x?a=1"), fx.request("/x?a=2")];
    let answers = cache.get_many(&requests, &Ask::default(), 8).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().entry.status == 200));
    let log = fx.sim.log();
    let minted: Vec<_> = log.iter().filter(|logged| logged.target.starts_with("/app/")).collect();
    assert_eq!((log.len(), minted.len(), minted[0].method.as_str()), (4, 1, "POST"));
    // The claim is the App's own, signed, and short-lived.
    let bearer = minted[0].headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let part = |n: usize| data_encoding::BASE64URL_NOPAD.decode(bearer.split('.').nth(n).unwrap().as_bytes()).unwrap();
    let claim: serde_json::Value = serde_json::from_slice(&part(1)).unwrap();
    let now = fx.clock.now().secs();
    assert_eq!(claim, json!({ "iat": now - 60, "exp": now + 540, "iss": "1234" }));
    assert_eq!(part(2).len(), 256);
    assert_eq!(log[1].headers["authorization"], "Bearer ghs_first");
    // An hour later the token has ended: another is minted, and what is unchanged stays free.
    mint("ghs_second");
    fx.clock.advance(30 * 86_400);
    fx.sim.take_counts();
    let again = cache.get(&fx.request("/x"), &Ask::default()).await.unwrap();
    assert_eq!(again.outcome, Outcome::Revalidated);
    assert_eq!(fx.sim.log().last().unwrap().headers["authorization"], "Bearer ghs_second");
}

#[tokio::test]
async fn a_stale_loose_entry_gives_way_to_a_newer_bundle() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let request = fx.request("/users/octocat");
    let cache = fx.cache(Some("ghp_one"));
    cache.get(&request, &Ask::default()).await.unwrap();
    let loose = cache.stack().disk().path(&cache.explain(&request, &Ask::default()).key);
    let old = std::fs::read(&loose).unwrap();
    // A warmer's bundle, made a month later, is restored over what this machine still has.
    fx.clock.advance(30 * 86_400);
    cache.get(&request, &Ask::default()).await.unwrap();
    cache.stack().pack(&Narrow::everything(), false).unwrap();
    std::fs::write(&loose, old).unwrap();
    fx.sim.take_counts();
    let reader = fx.cache(Some("ghp_one"));
    let answer = reader.get(&request, &Ask::default()).await.unwrap();
    assert_eq!((answer.outcome, answer.tier), (HIT, Some(TierName::Bundle)));
    assert_eq!(fx.sim.take_counts().0, 0);
    // Nor does the next save let the old one win.
    reader.stack().pack(&Narrow::everything(), false).unwrap();
    assert!(!loose.exists());
    assert_eq!(fx.cache(Some("ghp_one")).get(&request, &Ask::default()).await.unwrap().outcome, HIT);
}

#[tokio::test]
async fn what_is_fetched_within_the_second_of_an_invalidation_is_newer_than_it() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/acme/repo-0001");
    let outcome = async || cache.get(&request, &Ask::default()).await.unwrap().outcome;
    outcome().await;
    for clear in [false, true] {
        fx.clock.advance_millis(10);
        if clear {
            cache.clear(&Scope::All).unwrap();
        } else {
            cache.invalidate(Scope::All).unwrap();
        }
        fx.clock.advance_millis(10);
        assert_ne!(outcome().await, HIT, "clear: {clear}");
        assert_eq!(outcome().await, HIT, "clear: {clear}");
        // Another process reads it from the disk.
        assert_eq!(fx.cache(Some("ghp_one")).get(&request, &Ask::default()).await.unwrap().outcome, HIT);
    }
}
