//! Names and numbers: one repository is one resource, whichever of its names, or its number, it is asked for by.

use octocache::cache::{Ask, Cache};
use octocache::clock::Clock;
use octocache::cutoff::{Cutoff, CutoffMode};
use octocache::event::{self, Payload};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::stack::{BundleRules, Narrow, Stack};
use octocache::token::Token;
use serde_json::json;

use crate::flow::{Fixture, HIT};
use crate::harness::sim::Doc;

const ISSUE: &str = "/repos/old/r/issues/5";

async fn get(fx: &Fixture, cache: &Cache, path: &str) -> Outcome {
    fx.clock.advance(1);
    cache.get(&fx.request(path), &Ask::default()).await.unwrap().outcome
}

/// A repository that is read, renamed behind our back, and read by its new name.
async fn renamed(fx: &Fixture) {
    for (path, body) in [
        ("/repos/old/r", json!({ "id": 7, "full_name": "old/r" })),
        (ISSUE, json!({ "n": 1 })),
        ("/repos/new/r", json!({ "id": 7, "full_name": "new/r" })),
        ("/repos/other/x", json!({ "id": 8, "full_name": "other/x" })),
    ] {
        fx.sim.put(path, Doc::json(body));
        get(fx, &fx.cache(Some("ghp_one")), path).await;
    }
}

fn write(cache: &Cache, path: &str) {
    cache.outdate(&event::outdated_by_write("PATCH", path, cache.now()));
}

#[tokio::test]
async fn a_write_to_the_new_name_is_seen_under_the_old_one() {
    let fx = Fixture::new();
    renamed(&fx).await;
    // In another process than the one that has read them.
    let cache = fx.cache(Some("ghp_one"));
    assert_eq!(get(&fx, &cache, ISSUE).await, HIT);
    write(&cache, "/repos/other/x/issues/5");
    assert_eq!(get(&fx, &cache, ISSUE).await, HIT, "that is another repository's");
    write(&cache, "/repos/NEW/r/issues/5");
    assert_eq!(get(&fx, &cache, ISSUE).await, Outcome::Revalidated);
    write(&cache, "/repositories/7/issues/5");
    assert_eq!(get(&fx, &cache, ISSUE).await, Outcome::Revalidated);
}

#[tokio::test]
async fn a_name_that_is_learned_later_counts_for_what_was_outdated_before() {
    let fx = Fixture::new();
    fx.sim.put("/repos/old/r", Doc::json(json!({ "id": 7, "full_name": "old/r" })));
    fx.sim.put("/repos/new/r", Doc::json(json!({ "id": 7, "full_name": "new/r" })));
    fx.sim.put(ISSUE, Doc::json(json!({ "n": 1 })));
    let cache = fx.cache(Some("ghp_one"));
    get(&fx, &cache, ISSUE).await;
    fx.clock.advance(1);
    write(&cache, "/repos/new/r/issues/5");
    for path in ["/repos/new/r", "/repos/old/r"] {
        get(&fx, &cache, path).await;
    }
    assert_eq!(get(&fx, &cache, ISSUE).await, Outcome::Revalidated);
}

#[tokio::test]
async fn a_bundle_carries_the_names_of_what_it_holds() {
    let fx = Fixture::new();
    renamed(&fx).await;
    let secret = fx.cache(Some("ghp_two"));
    fx.sim.put("/repos/secret/s", Doc::json(json!({ "id": 9, "full_name": "secret/s" })));
    get(&fx, &secret, "/repos/secret/s").await;
    let one = Partition::token(&Token::new("ghp_one").unwrap());
    fx.cache(Some("ghp_one")).stack().pack(&Narrow::of(one), false).unwrap();
    let bundle = octocache::bundle::Bundle::open(&fx.dir.path().join("store/bundle.tar.zst")).unwrap().unwrap();
    let carried = bundle.cutoffs().unwrap();
    let names: Vec<&str> = carried.aliases().iter().map(|alias| alias.roots().0).collect();
    assert_eq!(names, ["/repos/new/r", "/repos/old/r", "/repos/other/x"], "and nothing of other partitions");
    // On another machine, which has asked for nothing itself.
    let elsewhere = Fixture { dir: tempfile::tempdir().unwrap(), ..fx };
    let store = elsewhere.dir.path().join("store");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::copy(fx.dir.path().join("store/bundle.tar.zst"), store.join("bundle.tar.zst")).unwrap();
    let cache = elsewhere.cache(Some("ghp_one"));
    assert_eq!(get(&elsewhere, &cache, ISSUE).await, HIT);
    write(&cache, "/repos/new/r/issues/5");
    assert_eq!(get(&elsewhere, &cache, ISSUE).await, Outcome::Revalidated);
    // A further save keeps them, whether frames are copied or all is packed anew.
    for full in [false, true] {
        let one = Partition::token(&Token::new("ghp_one").unwrap());
        cache.stack().pack(&Narrow::of(one), full).unwrap();
        let bundle = octocache::bundle::Bundle::open(&store.join("bundle.tar.zst")).unwrap().unwrap();
        assert_eq!(bundle.cutoffs().unwrap().aliases(), carried.aliases(), "{full}");
    }
}

#[tokio::test]
async fn a_delivery_about_the_new_name_reaches_what_was_read_by_the_old_one() {
    let fx = Fixture::new();
    fx.sim.put("/repos/old/r", Doc::json(json!({ "id": 7, "full_name": "old/r" })));
    fx.sim.put(ISSUE, Doc::json(json!({ "n": 1 })));
    let cache = fx.cache(Some("ghp_one"));
    for path in ["/repos/old/r", ISSUE] {
        get(&fx, &cache, path).await;
    }
    let payload =
        json!({ "action": "edited", "issue": { "number": 5 }, "repository": { "id": 7, "full_name": "new/r" } });
    let payload = Payload::read(payload.to_string().as_bytes()).unwrap();
    cache.stack().learn(payload.aliases());
    fx.clock.advance(1);
    cache.invalidate_all(&event::outdated("issues", &payload, cache.now())).unwrap();
    assert_eq!(get(&fx, &cache, ISSUE).await, Outcome::Revalidated);
    let renamed = json!({ "action": "renamed", "repository": { "id": 7, "full_name": "o/new" }, "changes": { "repository": { "name": { "from": "old" } } } });
    let renamed = Payload::read(renamed.to_string().as_bytes()).unwrap();
    let names: Vec<_> = renamed.aliases().iter().map(|alias| alias.roots().0.to_owned()).collect();
    assert_eq!(names, ["/repos/o/new", "/repos/o/old"]);
}

#[tokio::test]
async fn a_body_under_another_name_costs_no_charged_request() {
    let fx = Fixture::new();
    renamed(&fx).await;
    let cache = fx.cache(Some("ghp_one"));
    fx.sim.take_counts();
    for path in ["/repos/new/r/issues/5", "/repositories/7/issues/5"] {
        fx.sim.put(path, Doc::json(json!({ "n": 1 })));
        assert_eq!(get(&fx, &cache, path).await, Outcome::Confirmed, "{path}");
        // Changed under one name only: then it is another resource.
        fx.clock.advance(4_000);
        fx.sim.put(path, Doc::json(json!({ "n": 2 })));
        assert!(matches!(get(&fx, &cache, path).await, Outcome::Fetched(_)));
    }
    assert_eq!(fx.sim.take_counts(), (4, 2));
}

#[tokio::test]
async fn a_page_that_shows_its_number_answers_for_it() {
    let fx = Fixture::new();
    let items = |n: u64| (0..n).map(|n| json!({ "n": n })).collect();
    let list = |n| Doc::List { items: items(n), wrapped_in: None, numeric: Some("/repositories/7/issues".into()) };
    fx.sim.put("/repos/o/r/issues", list(90));
    fx.sim.put("/repositories/7/issues", list(90));
    fx.sim.put("/repos/o/r", Doc::json(json!({ "id": 7, "full_name": "o/r" })));
    fx.sim.put("/repos/o/r/labels", Doc::list(items(3)));
    let cache = fx.cache(Some("ghp_one"));
    for path in ["/repos/o/r", "/repos/o/r/issues?page=2", "/repos/o/r/labels"] {
        get(&fx, &cache, path).await;
    }
    fx.sim.take_counts();
    let cache = fx.cache(Some("ghp_one"));
    assert_eq!(get(&fx, &cache, "/repositories/7/issues?page=2").await, HIT);
    assert_eq!(fx.sim.take_counts(), (0, 0));
    // Nothing shows whose labels these are: the name may have been given away.
    fx.sim.put("/repositories/7/labels", Doc::list(items(4)));
    assert!(matches!(get(&fx, &cache, "/repositories/7/labels").await, Outcome::Fetched(_)));
    // And what was outdated by one name is so by the number.
    write(&cache, "/repos/o/r/issues/5");
    assert_eq!(get(&fx, &cache, "/repositories/7/issues?page=2").await, Outcome::Confirmed);
}

#[tokio::test]
async fn what_is_removed_by_name_is_removed_by_number_too() {
    let fx = Fixture::new();
    fx.sim.put("/repos/o/r", Doc::json(json!({ "id": 7, "full_name": "o/r" })));
    for path in ["/repositories/7/issues", "/repositories/77/issues"] {
        fx.sim.put(path, Doc::json(json!([])));
    }
    let cache = fx.cache(Some("ghp_one"));
    for path in ["/repos/o/r", "/repositories/7/issues", "/repositories/77/issues"] {
        get(&fx, &cache, path).await;
    }
    fx.clock.advance(1);
    assert_eq!(cache.clear(&"repo:o/r".parse().unwrap()).unwrap().removed, 2);
    assert!(cache.explain(&fx.request("/repositories/77/issues"), &Ask::default()).found.is_some());
}

#[tokio::test]
async fn rules_of_bundles_hold_for_numbers() {
    let fx = Fixture::new();
    let cache = fx.cache(Some("ghp_one"));
    let pages = ["/repositories/7/issues?page=2", "/repositories/8/issues?page=2"];
    for path in pages {
        fx.sim.put(path.split('?').next().unwrap(), Doc::list((0..90).map(|n| json!({ "n": n })).collect()));
        get(&fx, &cache, path).await;
    }
    let rules = |only: &[&str], never: &[&str]| {
        let scopes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        BundleRules { only: scopes(only), never: scopes(never), private: Vec::new() }
    };
    let held = |rules| {
        let one = Partition::token(&Token::new("ghp_one").unwrap());
        cache.stack().pack(&Narrow::of(one).with(rules), true).unwrap();
        let bundle = octocache::bundle::Bundle::open(&fx.dir.path().join("store/bundle.tar.zst")).unwrap();
        let mut paths = Vec::new();
        bundle.map(|bundle| bundle.for_each(|_, entry| paths.push(entry.parts.path)));
        paths.sort();
        paths
    };
    assert!(held(rules(&[], &["repo:o/r"])).is_empty(), "either may be that one");
    cache.stack().learn(vec![octocache::alias::Alias::of_repository(7, "o/r").unwrap()]);
    assert_eq!(held(rules(&["repo:o/r"], &[])), ["/repositories/7/issues"]);
    assert!(held(rules(&["repo:o/r"], &["repo:o/r+family:issues"])).is_empty());
    assert_eq!(held(rules(&[], &["family:releases"])).len(), 2);
}

#[test]
fn two_processes_learn_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(octocache::clock::Timestamp::from_secs(1_800_000_000));
    let (one, other) = (Stack::new(dir.path(), clock.clone()), Stack::new(dir.path(), clock.clone()));
    let pair = |id, name: &str| vec![octocache::alias::Alias::of_repository(id, name).unwrap()];
    one.learn(pair(1, "o/a"));
    other.learn(pair(7, "o/old"));
    let at = octocache::clock::Timestamp::from_secs(5);
    let cutoff = Cutoff { scope: "repo:o/old".parse().unwrap(), at, mode: CutoffMode::Revalidate };
    one.invalidate(&[cutoff]).unwrap();
    // What the one learns tells it what the other has learned, and what that outdates.
    one.learn(pair(7, "o/new"));
    assert_eq!(one.other_paths("/repos/o/new"), ["/repositories/7", "/repos/o/old"]);
    // A third one finds it in the list, without the names.
    std::fs::remove_file(dir.path().join("aliases.log")).unwrap();
    let scopes = |stack: &Stack| stack.all_cutoffs().iter().map(|cutoff| cutoff.scope.to_string()).collect::<Vec<_>>();
    assert!(scopes(&Stack::new(dir.path(), clock)).contains(&"repo:o/new".to_owned()));
}

#[test]
fn a_damaged_log_of_names_costs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(octocache::clock::Timestamp::from_secs(1_800_000_000));
    let pair = octocache::alias::Alias::of_repository(7, "o/r").unwrap();
    let stack = Stack::new(dir.path(), clock.clone());
    stack.prepare().unwrap();
    stack.learn(vec![pair, octocache::alias::Alias::of_repository(8, "o/s").unwrap()]);
    let log = dir.path().join("aliases.log");
    let whole = std::fs::read(&log).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&log, &damaged).unwrap();
        let paths = Stack::new(dir.path(), clock.clone()).other_paths("/repos/o/r/x");
        assert!(paths.is_empty() || paths == ["/repositories/7/x"], "{at}: {paths:?}");
    }
    std::fs::write(&log, vec![b'x'; 5 << 20]).unwrap();
    let stack = Stack::new(dir.path(), clock);
    assert!(stack.other_paths("/repos/o/r").is_empty());
    stack.learn(vec![octocache::alias::Alias::of_repository(7, "o/r").unwrap()]);
    assert_eq!(stack.other_paths("/repos/o/r"), ["/repositories/7"]);
    assert!(std::fs::metadata(&log).unwrap().len() < 1_000, "it is written anew");
    let scope = "repo:o/r".parse().unwrap();
    stack
        .invalidate(&[Cutoff { scope, at: octocache::clock::Timestamp::from_secs(5), mode: CutoffMode::Gone }])
        .unwrap();
    let mut scopes: Vec<String> = stack.all_cutoffs().iter().map(|cutoff| cutoff.scope.to_string()).collect();
    scopes.sort();
    assert_eq!(scopes, ["repo-id:7", "repo:o/r"]);
}
