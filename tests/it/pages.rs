//! What `Link` says of other pages, for clients that do not walk from page to page: it is proven after each 304.

use std::sync::Arc;

use octocache::cache::{Ask, Behind, Cache};
use octocache::github::{GitHub, Options};
use octocache::key::KeyParts;
use octocache::link;
use octocache::outcome::{Outcome, Proof};
use octocache::partition::Partition;
use octocache::policy::{LinkUse, Mode, TtlTable};
use octocache::request::{Api, Request};
use octocache::stack::Stack;
use octocache::token::Token;
use serde_json::json;

use crate::flow::Fixture;
use crate::harness::sim::Doc;

const PATH: &str = "/repos/acme/app/stargazers";

fn items(count: usize) -> Doc {
    Doc::list((0..count).map(|n| json!({ "id": n })).collect())
}

/// The last page and whether there is a next one, as a client reads them.
async fn pages(cache: &Cache, request: &Request) -> (Option<String>, bool, Outcome) {
    let answer = cache.get(request, &Ask::default()).await.unwrap();
    let link = answer.entry.headers.get("link").unwrap_or_default().to_owned();
    let page = |url: &str| url.split(['?', '&']).find_map(|pair| pair.strip_prefix("page=").map(str::to_owned));
    (link::last(&link).and_then(page), link::next(&link).is_some(), answer.outcome)
}

#[tokio::test]
async fn counts_by_the_last_page_and_full_last_pages_are_right_after_a_304() {
    let fx = Fixture::new();
    let cache = fx.cache(Some("ghp_one"));
    let (one, full) = (fx.request(&format!("{PATH}?per_page=1")), fx.request(&format!("{PATH}?per_page=5")));
    fx.sim.put(PATH, items(5));
    assert_eq!(pages(&cache, &one).await.0.as_deref(), Some("5"));
    assert!(!pages(&cache, &full).await.1);
    for count in [6, 9, 3, 7] {
        fx.clock.advance(100_000);
        fx.sim.put(PATH, items(count));
        assert_eq!(pages(&cache, &one).await.0, Some(count.to_string()), "{count}");
        assert_eq!(pages(&cache, &full).await.1, count > 5, "{count}");
    }
    // Nothing has changed: each is confirmed, for free.
    fx.clock.advance(100_000);
    pages(&cache, &one).await;
    fx.clock.advance(100_000);
    fx.sim.take_counts();
    assert_eq!(pages(&cache, &one).await, (Some("7".into()), true, Outcome::Revalidated));
    let (requests, charged) = fx.sim.take_counts();
    assert!(charged == 0 && requests <= 3, "{requests} {charged}");
    assert_eq!(fx.sim.take_counts(), (0, 0));
}

#[tokio::test]
async fn a_page_that_was_guessed_to_be_empty_leads_back() {
    let fx = Fixture::new();
    let cache = fx.cache(Some("ghp_one"));
    fx.sim.put(PATH, items(5));
    let full = fx.request(&format!("{PATH}?per_page=5"));
    pages(&cache, &full).await;
    fx.clock.advance(100_000);
    // Behind the full page a guess has looked, at no charge.
    fx.sim.take_counts();
    pages(&cache, &full).await;
    assert_eq!(fx.sim.take_counts(), (2, 0));
    let behind = fx.request(&format!("{PATH}?page=2&per_page=5"));
    let answer = cache.get(&behind, &Ask::default()).await.unwrap();
    assert_eq!(&answer.entry.body[..], b"[]");
    assert!(answer.entry.headers.get("link").is_some_and(|link| link.contains("rel=\"prev\"")));
    // A page of another's as well.
    let other = fx.cache(Some("ghp_two")).get(&behind, &Ask::default()).await.unwrap();
    assert!(other.entry.headers.get("link").is_some_and(|link| link.contains("rel=\"prev\"")));
}

#[tokio::test]
async fn one_identity_learns_nothing_of_anothers_pages() {
    for (first, second) in [("ghp_one", "ghp_two"), ("ghp_two", "ghp_one")] {
        let fx = Fixture::new();
        fx.sim.put(PATH, items(6));
        fx.sim.with(|state| {
            state.seen_by.insert(("ghp_two".to_owned(), PATH.to_owned()), items(4));
        });
        let request = fx.request(&format!("{PATH}?per_page=2"));
        let last = |token: &str| Some(if token == "ghp_one" { "3" } else { "2" }.to_owned());
        // The first pages of both are the same bytes.
        assert_eq!(pages(&fx.cache(Some(first)), &request).await.0, last(first));
        assert_eq!(pages(&fx.cache(Some(second)), &request).await.0, last(second), "after {first}");
        let walk = fx.cache(Some(second)).get_pages(&request, &Ask::default()).await.unwrap();
        assert_eq!(walk.len().to_string(), last(second).unwrap());
    }
}

#[tokio::test]
async fn a_planted_link_makes_no_token_read_something_else() {
    let fx = Fixture::new();
    fx.sim.put(PATH, items(4));
    fx.sim.put("/private/salaries", items(4));
    let request = fx.request(&format!("{PATH}?per_page=2"));
    let cache = fx.cache(Some("ghp_one"));
    let mut planted = (*cache.get(&request, &Ask::default()).await.unwrap().entry).clone();
    let url = format!("{}/private/salaries?per_page=2&page=2", fx.sim.url());
    planted.headers.set("link", format!("<{url}>; rel=\"next\", <{url}>; rel=\"last\""));
    assert!(cache.stack().put(&planted));
    assert_eq!(pages(&fx.cache(Some("ghp_two")), &request).await.0.as_deref(), Some("2"));
    assert!(fx.sim.log().iter().all(|logged| !logged.target.contains("salaries")));
}

#[tokio::test]
async fn whoever_takes_the_body_alone_pays_for_no_other_page_and_leaves_no_link_unproven() {
    let fx = Fixture::new();
    fx.sim.put(PATH, items(6));
    let unseen = Ask { link: LinkUse::Unseen, ..Ask::default() };
    let request = fx.request(&format!("{PATH}?per_page=2"));
    fx.cache(Some("ghp_one")).get(&request, &unseen).await.unwrap();
    // Its own, and another's: what the first page is costs nothing, and its end is not known yet.
    for token in ["ghp_one", "ghp_two"] {
        let cache = fx.cache(Some(token));
        fx.clock.advance(100_000);
        fx.sim.put(PATH, items(8));
        fx.sim.take_counts();
        let first = cache.get(&request, &unseen).await.unwrap();
        assert!(matches!(first.outcome, Outcome::Revalidated | Outcome::Confirmed), "{:?}", first.outcome);
        assert_eq!(fx.sim.take_counts(), (1, 0), "{token}");
        assert_eq!(cache.get(&request, &unseen).await.unwrap().charged, 0);
        // Whoever sees `Link` learns what holds, at once, and from what is stored afterwards.
        let walk = cache.get_pages(&request, &Ask::default()).await.unwrap();
        assert_eq!(walk.len(), 4, "{token}");
        assert_eq!(pages(&cache, &request).await.0.as_deref(), Some("4"), "{token}");
        fx.sim.take_counts();
        assert_eq!(pages(&cache, &request).await, (Some("4".into()), true, Outcome::Hit(Proof::Lifetime)));
        assert_eq!(fx.sim.take_counts(), (0, 0));
    }
    // A last page leads back to those before it, whoever took its body first.
    fx.sim.put(PATH, items(7));
    let last = fx.request(&format!("{PATH}?per_page=2&page=4"));
    fx.cache(Some("ghp_one")).get(&last, &unseen).await.unwrap();
    fx.sim.token("ghp_three", "user:three");
    let other = fx.cache(Some("ghp_three"));
    assert_eq!(other.get(&last, &unseen).await.unwrap().outcome, Outcome::Confirmed);
    let answer = other.get(&last, &Ask::default()).await.unwrap();
    assert!(answer.entry.headers.get("link").is_some_and(|link| link.contains("rel=\"prev\"")));
}

#[tokio::test]
async fn a_server_that_names_itself_otherwise_is_followed_at_the_address_that_was_asked() {
    let fx = Fixture::new();
    fx.sim.put(PATH, items(5));
    fx.sim.put("/other", items(5));
    for named in ["https://ghe.example/api/v3", "http://ghe.example:8080/api/v3"] {
        fx.sim.with(|state| state.named = Some(named.to_owned()));
        fx.clock.advance(100_000);
        fx.sim.put(PATH, items(if named.starts_with("https") { 5 } else { 6 }));
        let cache = fx.cache(Some("ghp_one"));
        let request = fx.request(&format!("{PATH}?per_page=2"));
        assert_eq!(cache.get_pages(&request, &Ask::default()).await.unwrap().len(), 3);
        assert!(pages(&cache, &request).await.1);
        let answer = cache.get(&request, &Ask::default()).await.unwrap();
        assert!(!answer.entry.headers.get("link").unwrap().contains("ghe.example"));
    }
    // What only looks like it is not.
    fx.sim.with(|state| state.named = Some("https://evil.example".to_owned()));
    let error = fx.cache(Some("ghp_two")).get_pages(&fx.request("/other?per_page=2"), &Ask::default()).await;
    assert!(error.unwrap_err().to_string().contains("another host"));
}

/// The items that a client gets which follows each `Link`, or which counts pages itself.
async fn walked(cache: &Cache, first: &Request, counts: bool) -> Vec<i64> {
    let (mut request, mut items, mut number) = (first.clone(), Vec::new(), 1);
    loop {
        let answer = cache.get(&request, &Ask { ttl_secs: Some(2_000), ..Ask::default() }).await.unwrap();
        let page: Vec<serde_json::Value> = serde_json::from_slice(&answer.entry.body).unwrap();
        items.extend(page.iter().map(|item| item["id"].as_i64().unwrap()));
        let Some(next) = answer.entry.headers.get("link").and_then(link::next) else { return items };
        number += 1;
        let counted = || first.with_param("page", &number.to_string());
        let next = if counts { counted() } else { request.follow(cache.api(), next) };
        request = next.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_walks_through_a_listing_gets_one_moment_of_it() {
    let listing = |first: i64, last: i64| Doc::List {
        items: (first..=last).map(|id| json!({ "id": id })).collect(),
        wrapped_in: None,
        numeric: Some("/repositories/7/stargazers".into()),
    };
    for counts in [false, true] {
        for (age, is_changed) in [(1_500, true), (100, false)] {
            let fx = Fixture::new();
            let put = |first, last| {
                fx.sim.put(PATH, listing(first, last));
                fx.sim.put("/repositories/7/stargazers", listing(first, last));
            };
            put(2, 9);
            let cache = fx.cache(Some("ghp_one"));
            let first = fx.request(&format!("{PATH}?per_page=3"));
            // The first page is older than the others, so that it is asked for again while they are fresh.
            cache.get(&first, &Ask::default()).await.unwrap();
            fx.clock.advance(600);
            assert_eq!(walked(&cache, &first, counts).await, (2..=9).collect::<Vec<_>>());
            fx.clock.advance(age);
            // One item more at the top: each page is another.
            put(1, 9);
            let items = walked(&cache, &first, counts).await;
            let expected: Vec<i64> = (if is_changed { 1 } else { 2 }..=9).collect();
            assert_eq!(items, expected, "counts: {counts}, {age} s");
            // And as nothing changes, nothing is asked.
            fx.sim.take_counts();
            walked(&cache, &first, counts).await;
            assert_eq!(fx.sim.take_counts(), (0, 0));
            // Nor by a server that begins with what is stored.
            let server = || fx.cache(Some("ghp_one")).resident(Arc::default(), Behind::default());
            assert_eq!(walked(&server(), &first, counts).await, items);
            assert_eq!(fx.sim.take_counts(), (0, 0));
            // One that comes after another had the first page alone asked again knows that, too.
            fx.clock.advance(10);
            put(0, 9);
            fx.cache(Some("ghp_one")).get(&first, &Ask { mode: Mode::NoCache, ..Ask::default() }).await.unwrap();
            assert_eq!(walked(&server(), &first, counts).await, (0..=9).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_a_thousand_pages_is_read_and_one_that_is_too_long_costs_one_request() {
    let fx = Fixture::new();
    fx.sim.with(|state| state.limit = 100_000);
    fx.sim.put(PATH, items(1_005));
    let options = Options::new(Api::parse(&fx.sim.url()).unwrap(), Some(Token::new("ghp_one").unwrap()));
    let github = Arc::new(GitHub::over(fx.sim.wire(), options.clone(), fx.clock.clone()));
    let stack = Stack::new(fx.dir.path().join("store"), fx.clock.clone());
    let cache =
        Cache::new(options.api, Partition::named("one").unwrap(), stack, github, TtlTable::default(), fx.clock.clone());
    let one = fx.request(&format!("{PATH}?per_page=1"));
    assert_eq!(cache.get_pages(&one, &Ask::default()).await.unwrap().len(), 1_005);
    fx.sim.put("/long", items(10_001));
    fx.sim.take_counts();
    let error = cache.get_pages(&fx.request("/long?per_page=1"), &Ask::default()).await.unwrap_err();
    assert!(error.to_string().contains("more than 10000 pages"), "{error}");
    assert_eq!(fx.sim.take_counts(), (1, 1));
}

#[tokio::test]
async fn what_github_refuses_behind_the_last_page_is_asked_for_once() {
    for status in [422, 400] {
        let fx = Fixture::new();
        let cache = fx.cache(Some("ghp_one"));
        // As with events: a full last page, and no more is given.
        fx.sim.put(PATH, items(2));
        let request = fx.request(&format!("{PATH}?per_page=2"));
        cache.get_pages(&request, &Ask::default()).await.unwrap();
        fx.sim.with(|state| state.refused = Some((format!("{PATH}?page=2&per_page=2"), status)));
        let mut charged = 0;
        for _ in 0..4 {
            fx.clock.advance(3 * 3_600);
            fx.sim.take_counts();
            let pages = cache.get_pages(&request, &Ask { ttl_secs: Some(60), ..Ask::default() }).await.unwrap();
            assert_eq!(pages.len(), 1);
            charged += fx.sim.take_counts().1;
        }
        assert_eq!(charged, 1, "{status}");
    }
}

/// Processes take turns by one of 256 locks: a page and the one that proves its `Link` may share one.
#[tokio::test]
async fn proving_a_link_does_not_wait_for_its_own_turn() {
    let fx = Fixture::new();
    let cache = fx.cache(Some("ghp_one"));
    let lock_of = |request: &Request| KeyParts::of(request, cache.partition()).key().as_bytes()[0];
    let (first, _) = (0..100_000)
        .map(|n| format!("/repos/acme/app{n}/stargazers?per_page=5"))
        .map(|path| (fx.request(&path), fx.request(&format!("{path}&page=2"))))
        .find(|(first, behind)| lock_of(first) == lock_of(behind))
        .unwrap();
    fx.sim.put(&first.path, items(5));
    pages(&cache, &first).await;
    fx.clock.advance(100_000);
    let asked = tokio::time::timeout(std::time::Duration::from_secs(4), pages(&cache, &first)).await;
    assert_eq!(asked.expect("it waits for itself").2, Outcome::Revalidated);
}
