//! Tokens that rotate: validators that go on working, bodies of other partitions, and what happens
//! when GitHub's rule for entity tags changes.

use octocache::cache::Ask;
use octocache::outcome::{NoStore, Outcome};
use octocache::partition::Partition;
use octocache::policy::Mode;
use octocache::stats::Stats;
use serde_json::json;

use crate::flow::{Fixture, HIT, ask};
use crate::harness::sim::Doc;
use crate::harness::world;

fn job() -> Partition {
    Partition::repository("acme/app").unwrap()
}

#[tokio::test]
async fn a_new_token_each_time_and_every_revalidation_is_free() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 8);
    fx.sim.put("/old/name", Doc::Redirect("/repos/acme/repo-0003/languages".into()));
    let one = |path: &str| fx.request(path);
    let requests = [
        one("/repos/acme/repo-0003"),
        one("/repos/acme/repo-0003/languages"),
        one("/repos/acme/repo-0003/releases/latest").accepting("application/vnd.github.html+json"),
        one("/users/octocat"),
    ];
    let pages = one("/repos/acme/repo-0005/issues?per_page=100");
    let mut sent = Vec::new();
    for day in 0..4 {
        let token = format!("ghs_day{day}");
        fx.sim.token(&token, "repo:acme/app");
        let cache = fx.cache_of(Some(&token), job());
        for request in &requests {
            let answer = cache.get(request, &Ask::default()).await.unwrap();
            assert_eq!(answer.charged, u32::from(day == 0), "{}", request.target());
        }
        assert_eq!(cache.get_pages(&pages, &Ask::default()).await.unwrap().len(), 2);
        // A redirect has no validator; what it leads to has.
        cache.get(&one("/old/name"), &Ask::default()).await.unwrap();
        sent.push(fx.sim.take_counts());
        if day == 1 {
            // What a bundle holds is validated as well as what is loose.
            cache.stack().pack(&octocache::stack::Narrow::everything(), false).unwrap();
        }
        cache.flush();
        fx.clock.advance(40 * 86_400);
    }
    assert_eq!(sent, [(7, 7), (7, 1), (7, 1), (7, 1)]);
    let counts = Stats::read(&fx.dir.path().join("store"));
    assert_eq!((counts.rule_held, counts.rule_failed), (4 * 6, 0));
}

#[tokio::test]
async fn ten_tokens_read_public_facts_once_and_nobody_reads_what_he_may_not() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 40);
    fx.sim.token("ghp_three", "user:three");
    fx.sim.with(|state| {
        let path = format!("/repos/{}/languages", names[7]);
        state.visible_to.insert(path, vec!["user:one".into(), "user:two".into()]);
    });
    let mut charged = Vec::new();
    for token in ["ghp_one", "ghp_two", "ghp_three"] {
        let cache = fx.cache(Some(token));
        for (n, name) in names.iter().enumerate() {
            let answer = cache.get(&fx.request(&format!("/repos/{name}/languages")), &Ask::default()).await.unwrap();
            if token == "ghp_three" && n == 7 {
                assert_eq!(answer.entry.status, 404);
                assert!(!String::from_utf8_lossy(&answer.entry.body).contains("Rust"));
                continue;
            }
            assert_eq!(answer.outcome == Outcome::Confirmed, token != "ghp_one", "{name}");
            // From now on it is the asker's own.
            let request = fx.request(&format!("/repos/{name}/languages"));
            assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().outcome, HIT);
        }
        charged.push(fx.sim.take_counts());
    }
    assert_eq!(charged, [(40, 40), (40, 0), (40, 1)], "the refusal is the only one that is charged");
}

#[tokio::test]
async fn candidates_are_never_answered_offline_stale_or_for_private_classes() {
    let fx = Fixture::new();
    fx.sim.put("/repos/o/r/languages", Doc::json(json!({ "Rust": 1 })));
    fx.sim.put("/repos/o/r/dependabot/alerts", Doc::list(vec![json!({ "number": 1 })]));
    let one = fx.cache(Some("ghp_one"));
    let languages = fx.request("/repos/o/r/languages");
    let alerts = fx.request("/repos/o/r/dependabot/alerts");
    for request in [&languages, &alerts] {
        one.get(request, &Ask::default()).await.unwrap();
    }
    let two = fx.cache(Some("ghp_two"));
    assert!(two.get(&languages, &ask(Mode::OnlyIfCached)).await.is_err());
    fx.sim.fail_next(&[crate::harness::sim::Fault::Secondary(Some(3_000))]);
    assert!(two.get(&languages, &Ask::default()).await.is_err(), "not as a stale answer either");
    fx.clock.advance(3_001);
    fx.sim.take_counts();
    two.get(&alerts, &Ask::default()).await.unwrap();
    assert!(fx.sim.log()[0].headers.get("if-none-match").is_none(), "not even tried");
    // An answer that may not be stored is not stored by this way either.
    fx.sim.put("/repos/o/r/languages", Doc::Status(403, "{}".into()));
    let refused = two.get(&languages, &Ask::default()).await.unwrap();
    assert_eq!(refused.outcome, Outcome::NotStored(NoStore::Status(403)));
}

#[tokio::test]
async fn an_empty_listing_costs_nothing_even_the_first_time() {
    let fx = Fixture::new();
    fx.sim.put("/repos/o/r/issues", Doc::list(vec![]));
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/o/r/issues?per_page=100");
    let pages = cache.get_pages(&request, &Ask::default()).await.unwrap();
    assert_eq!((&pages[0].entry.body[..], pages[0].outcome), (&b"[]"[..], Outcome::Confirmed));
    assert_eq!(pages[0].entry.headers.get("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(fx.sim.take_counts(), (1, 0));
    assert_eq!(cache.get_pages(&request, &Ask::default()).await.unwrap()[0].outcome, HIT);
    assert_eq!(fx.sim.take_counts(), (0, 0));
}

#[tokio::test]
async fn a_page_that_came_after_a_full_last_one_is_found() {
    let fx = Fixture::new();
    let items = |count: usize| Doc::list((0..count).map(|n| json!({ "number": n })).collect());
    fx.sim.put("/repos/o/r/issues", items(200));
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/o/r/issues?per_page=100");
    assert_eq!(cache.get_pages(&request, &Ask::default()).await.unwrap().len(), 2);
    assert_eq!(fx.sim.take_counts(), (2, 2));
    fx.clock.advance(86_400);
    assert_eq!(cache.get_pages(&request, &Ask::default()).await.unwrap().len(), 2);
    assert_eq!(fx.sim.take_counts(), (3, 0), "the look behind is free");
    // Items added at the end change no page that is known, so their tags go on matching.
    fx.sim.put("/repos/o/r/issues", items(230));
    fx.clock.advance(86_400);
    let pages = cache.get_pages(&request, &Ask::default()).await.unwrap();
    assert_eq!(pages.len(), 3);
    assert_eq!(fx.sim.take_counts(), (3, 1));
    let again = cache.get_pages(&request, &Ask::default()).await.unwrap();
    assert_eq!((again.len(), fx.sim.take_counts()), (3, (0, 0)), "and stays found");
}

#[tokio::test]
async fn a_change_of_the_rule_costs_requests_never_truth_and_is_noticed() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 20);
    let mut sent = Vec::new();
    for day in 0..4 {
        let token = format!("ghs_day{day}");
        fx.sim.token(&token, "repo:acme/app");
        if day == 1 {
            fx.sim.with(|state| state.tag_salt = "another rule".into());
        }
        let cache = fx.cache_of(Some(&token), job());
        for name in &names {
            let request = fx.request(&format!("/repos/{name}/languages"));
            let answer = cache.get(&request, &Ask::default()).await.unwrap();
            assert!(String::from_utf8_lossy(&answer.entry.body).contains("Rust"));
        }
        let conditional = fx.sim.log().iter().filter(|logged| logged.headers.contains_key("if-none-match")).count();
        sent.push((conditional, fx.sim.take_counts()));
        cache.flush();
        fx.clock.advance(40 * 86_400);
    }
    // Three predictions fail on equal bytes, then no more are sent; and who knows that the rule
    // does not hold for an entry does not ask in vain again.
    assert_eq!(sent, [(0, (20, 20)), (3, (20, 20)), (0, (20, 20)), (0, (20, 20))]);
    let counts = Stats::read(&fx.dir.path().join("store"));
    assert_eq!((counts.rule_held, counts.rule_failed), (20, 60));
    // Under the token that a tag came to, it works by itself.
    let cache = fx.cache_of(Some("ghs_day3"), job());
    cache.get(&fx.request("/repos/acme/repo-0001/languages"), &Ask::default()).await.unwrap();
    assert_eq!(fx.sim.take_counts(), (1, 0));
}

#[tokio::test]
async fn what_was_read_without_a_token_is_tried_with_one() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 5);
    for (token, charged) in [(None, 5), (Some("ghp_one"), 0), (Some("ghp_two"), 0)] {
        let cache = fx.cache(token);
        for name in &names {
            cache.get(&fx.request(&format!("/repos/{name}/languages")), &Ask::default()).await.unwrap();
        }
        assert_eq!(fx.sim.take_counts(), (5, charged), "{token:?}");
    }
}

#[tokio::test]
async fn what_one_of_a_thousand_tokens_asked_last_is_free_for_the_next_one() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 40);
    let token = |n: usize| {
        let token = format!("ghs_{n:04}");
        fx.sim.token(&token, &format!("repo:acme/{n}"));
        token
    };
    let ask = async |n: usize, repo: &str| {
        let request = fx.request(&format!("/repos/{repo}/languages"));
        fx.cache(Some(&token(n))).get(&request, &Ask::default()).await.unwrap().charged
    };
    // As a server sees the jobs of a year: each token asks once, and for something else than the one before.
    for n in 0..1_000 {
        assert_eq!(ask(n, &names[n % 40]).await, u32::from(n < 40), "{n}");
    }
}
