//! Entries, bundles and lists from elsewhere, and tokens that share a partition: nothing crosses, and nothing
//! planted is believed. The store, the bundle, the Redis and the upstream are each hostile in turn.

use std::sync::Arc;

use octocache::bundle::Bundle;
use octocache::cache::{Ask, Cache};
use octocache::cid::Cid;
use octocache::clock::Timestamp;
use octocache::cutoff::{Cutoff, CutoffMode, Cutoffs};
use octocache::entry::Entry;
use octocache::error::Kind;
use octocache::outcome::{NoStore, Outcome};
use octocache::partition::Partition;
use octocache::policy::Mode;
use octocache::request::Request;
use octocache::stack::{BundleRules, Narrow, Saved, Stack};
use serde_json::{Value, json};

use crate::flow::{Fixture, HIT, ask};
use crate::harness::sim::{Doc, Fault};
use crate::harness::world;

const OWN: &str = "/repos/acme/app";

fn job() -> Partition {
    Partition::repository("acme/app").unwrap()
}

/// A job token, with `releases` as it sees them.
fn job_token(fx: &Fixture, token: &str, releases: Value) {
    fx.sim.token(token, "repo:acme/app");
    let path = format!("{OWN}/releases");
    fx.sim.with(|state| {
        state.seen_by.insert((token.into(), path), Doc::list(releases.as_array().unwrap().clone()));
    });
}

fn stack_of(fx: &Fixture) -> Stack {
    Stack::new(fx.dir.path().join("store"), fx.clock.clone())
}

/// All that the bundle's bytes hold, decoded, dead bytes included.
fn bundle_text(stack: &Stack) -> String {
    let output = std::process::Command::new("zstd").arg("-dc").arg(stack.bundle_path()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn get(cache: &Cache, fx: &Fixture, path: &str) -> octocache::cache::Answer {
    cache.get(&fx.request(path), &Ask::default()).await.unwrap()
}

#[tokio::test]
async fn drafts_never_cross_between_job_tokens() {
    let fx = Fixture::new();
    let draft = json!([{ "id": 2, "draft": true, "body": "SECRET" }, { "id": 1, "draft": false }]);
    let public = json!([{ "id": 1, "draft": false }]);
    for (token, releases) in [("ghs_write", &draft), ("ghs_read", &public), ("ghs_again", &draft)] {
        job_token(&fx, token, releases.clone());
    }
    let path = format!("{OWN}/releases");
    // A job that may write stores its view; one that may only read gets its own, and the other way round.
    for (token, sees_draft) in [("ghs_write", true), ("ghs_read", false), ("ghs_again", true)] {
        let cache = fx.cache_of(Some(token), job());
        let answer = get(&cache, &fx, &path).await;
        assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{token}: {:?}", answer.outcome);
        assert_eq!(String::from_utf8_lossy(&answer.entry.body).contains("SECRET"), sees_draft, "{token}");
        assert_eq!(get(&cache, &fx, &path).await.outcome, HIT, "its own view answers without a request");
    }
    // GitHub unreachable, or nothing to be sent: another token's view is no stale answer either.
    let cache = fx.cache_of(Some("ghs_read"), job());
    fx.sim.fail_next(&[Fault::Drop, Fault::Drop, Fault::Drop]);
    assert_eq!(cache.get(&fx.request(&path), &Ask::default()).await.unwrap_err().kind(), Kind::Transport);
    let offline = cache.get(&fx.request(&path), &ask(Mode::OnlyIfCached)).await.unwrap_err();
    assert_eq!(offline.kind(), Kind::NotCached);
}

#[tokio::test]
async fn a_new_job_token_confirms_what_permissions_select_once_and_for_free() {
    let fx = Fixture::new();
    let own = json!({ "full_name": "acme/app", "permissions": { "push": true } });
    fx.sim.put(OWN, Doc::json(own));
    fx.sim.put(&format!("{OWN}/issues"), Doc::list(vec![json!({ "number": 1 })]));
    fx.sim.put("/repos/other/tool/releases", Doc::list(vec![json!({ "id": 9 })]));
    for (at, token) in ["ghs_one", "ghs_two", "ghs_three"].into_iter().enumerate() {
        fx.sim.token(token, "repo:acme/app");
        let cache = fx.cache_of(Some(token), job());
        for _ in 0..2 {
            for path in [OWN, "/repos/acme/app/issues", "/repos/other/tool/releases"] {
                get(&cache, &fx, path).await;
            }
        }
        // Later jobs send one request, for the repository's own object, and pay for none.
        assert_eq!(fx.sim.take_counts(), if at == 0 { (3, 3) } else { (1, 0) }, "{token}");
    }
}

#[tokio::test]
async fn a_404_of_one_job_token_is_not_anothers() {
    let fx = Fixture::new();
    for token in ["ghs_read", "ghs_write"] {
        fx.sim.token(token, "repo:acme/app");
    }
    let path = format!("{OWN}/issues/7");
    assert_eq!(get(&fx.cache_of(Some("ghs_read"), job()), &fx, &path).await.entry.status, 404);
    fx.sim.put(&path, Doc::json(json!({ "number": 7 })));
    assert_eq!(get(&fx.cache_of(Some("ghs_write"), job()), &fx, &path).await.entry.status, 200);
}

#[tokio::test]
async fn a_304_without_the_predicted_tag_releases_nothing() {
    let fx = Fixture::new();
    fx.sim.put("/private/y", Doc::json(json!({ "secret": "of one" })));
    get(&fx.cache(Some("ghp_one")), &fx, "/private/y").await;
    fx.sim.with(|state| state.visible_to.insert("/private/y".into(), vec!["user:one".into()]));
    // An intermediary that answers 304 to every condition.
    fx.sim.fail_next(&[Fault::BareNotModified]);
    let answer = get(&fx.cache(Some("ghp_two")), &fx, "/private/y").await;
    assert_eq!((answer.entry.status, answer.requests), (404, 2));
    assert!(!String::from_utf8_lossy(&answer.entry.body).contains("of one"));
}

#[tokio::test]
async fn the_response_to_a_token_never_becomes_public() {
    let fx = Fixture::new();
    fx.sim.put("/user", Doc::json(json!({ "login": "one" })));
    let cache = fx.cache_of(Some("ghp_one"), Partition::public());
    assert_eq!(get(&cache, &fx, "/user").await.outcome, Outcome::NotStored(NoStore::Identity));
    assert!(stack_of(&fx).disk().keys().is_empty());
    let output = std::process::Command::new(crate::binary::BINARY)
        .args(["api", "/user", "--partition", "public", "--api-url", &fx.sim.url()])
        .args(["--cache-dir".into(), fx.dir.path().join("cli").into_os_string()])
        .env("OCTOCACHE_TOKEN", "ghp_one")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("`public` is for requests without a token"), "{text}");
}

#[tokio::test]
async fn a_planted_redirect_is_not_followed() {
    let fx = Fixture::new();
    fx.sim.put("/repos/o/r", Doc::json(json!({ "id": 1 })));
    fx.sim.put("/private/key", Doc::json(json!({ "secret": true })));
    let victim = fx.cache(Some("ghp_one"));
    let honest = get(&victim, &fx, "/repos/o/r").await.entry;
    let mut planted = Entry { status: 301, ..Entry::clone(&honest) };
    planted.headers.set("location", format!("{}/private/key", fx.sim.url()));
    planted.body = "{}".into();
    planted.cid = Cid::of(&planted.body);
    fx.clock.advance(10);
    planted.validated_at = fx.clock.now();
    // In a bundle, as who may write the cache could put it there.
    let elsewhere = Stack::new(fx.dir.path().join("elsewhere"), fx.clock.clone());
    elsewhere.put(&planted);
    elsewhere.fold().unwrap();
    std::fs::rename(fx.dir.path().join("elsewhere/local.tar.zst"), fx.dir.path().join("planted.tar.zst")).unwrap();
    victim.clear(&"all".parse().unwrap()).unwrap();
    fx.clock.advance(1);
    let stack = stack_of(&fx);
    stack.restore(&fx.dir.path().join("planted.tar.zst")).unwrap();
    fx.sim.take_counts();
    let answer = get(&fx.cache(Some("ghp_one")), &fx, "/repos/o/r").await;
    assert_eq!((answer.entry.status, &answer.entry.body), (200, &honest.body));
    assert!(fx.sim.log().iter().all(|logged| !logged.target.contains("/private")));
}

#[tokio::test]
async fn a_redirect_from_github_itself_is_followed_and_kept() {
    let fx = Fixture::new();
    fx.sim.put("/repos/o/old", Doc::Redirect("/repos/o/new".into()));
    fx.sim.put("/repos/o/new", Doc::json(json!({ "id": 1 })));
    let cache = fx.cache(Some("ghp_one"));
    get(&cache, &fx, "/repos/o/old").await;
    assert_eq!(get(&cache, &fx, "/repos/o/old").await.outcome, HIT);
    assert_eq!(fx.sim.take_counts(), (2, 2));
    // Folding keeps it on this machine; a bundle that leaves goes without.
    let stack = stack_of(&fx);
    stack.fold().unwrap();
    stack.pack(&Narrow::of(cache.partition().clone()), false).unwrap();
    assert_eq!(Bundle::open(&stack.bundle_path()).unwrap().unwrap().totals().entries, 1);
    assert_eq!(get(&fx.cache(Some("ghp_one")), &fx, "/repos/o/old").await.outcome, HIT);
    assert_eq!(fx.sim.take_counts(), (0, 0));
}

#[tokio::test]
async fn a_bundle_carries_one_partition_loose_and_carried_entries_alike() {
    let fx = Fixture::new();
    fx.sim.token("ghs_job", "repo:acme/app");
    for path in ["/private/salaries", "/repos/x/y", "/repos/acme/app/dependabot/alerts", "/private/more"] {
        fx.sim.put(path, Doc::json(json!({ "path": path })));
    }
    let (personal, own) = (fx.cache(Some("ghp_one")), fx.cache_of(Some("ghs_job"), job()));
    get(&personal, &fx, "/private/salaries").await;
    // A save of everything, as an earlier version made it.
    let stack = stack_of(&fx);
    stack.pack(&Narrow::everything(), false).unwrap();
    assert!(bundle_text(&stack).contains("salaries"));
    for path in ["/repos/x/y", "/repos/acme/app/dependabot/alerts"] {
        get(&own, &fx, path).await;
    }
    get(&personal, &fx, "/private/more").await;
    let stack = stack_of(&fx);
    stack.pack(&Narrow::of(job()), false).unwrap();
    let text = bundle_text(&stack);
    assert!(text.contains("/repos/x/y"));
    for foreign in ["salaries", "/private/more", "token:", "dependabot"] {
        assert!(!text.contains(foreign), "{foreign}");
    }
    // Nothing stored is lost: what left the bundle still answers here.
    fx.sim.take_counts();
    for path in ["/private/salaries", "/private/more"] {
        assert_eq!(get(&fx.cache(Some("ghp_one")), &fx, path).await.outcome, HIT, "{path}");
    }
    assert_eq!(fx.sim.take_counts(), (0, 0));
    assert_eq!(stack_of(&fx).pack(&Narrow::of(job()), false).unwrap(), Saved::Unchanged);
    // A plan may wish for a private class.
    let rules = BundleRules { private: vec!["alerts".to_owned()], ..BundleRules::default() };
    stack_of(&fx).pack(&Narrow::of(job()).with(rules), false).unwrap();
    assert!(bundle_text(&stack_of(&fx)).contains("dependabot"));
}

#[tokio::test]
async fn private_classes_by_number_and_later_pages_stay_out_of_bundles() {
    let fx = Fixture::new();
    fx.sim.token("ghs_job", "repo:acme/app");
    let own = fx.cache_of(Some("ghs_job"), job());
    let runners: Vec<Value> = (0..150).map(|id| json!({ "id": id, "name": "RUNNER" })).collect();
    let path = format!("{OWN}/actions/runners");
    let numeric = Some("/repositories/7/actions/runners".to_owned());
    fx.sim.put(&path, Doc::List { items: runners.clone(), wrapped_in: Some("runners"), numeric });
    fx.sim.put(
        "/repositories/7/actions/runners",
        Doc::List { items: runners, wrapped_in: Some("runners"), numeric: None },
    );
    own.get_pages(&fx.request(&format!("{path}?per_page=100")), &Ask::default()).await.unwrap();
    get(&own, &fx, "/repositories/7/actions/runners").await;
    let stack = stack_of(&fx);
    assert_eq!(stack.pack(&Narrow::of(job()), false).unwrap(), Saved::Unchanged);
    assert!(!stack.bundle_path().exists());
}

#[tokio::test]
async fn documents_that_ask_for_alerts_stay_out_of_bundles() {
    let fx = Fixture::new();
    fx.sim.token("ghs_job", "repo:acme/app");
    fx.sim.put("/graphql", Doc::json(json!({ "data": { "repository": { "x": 1 } } })));
    let own = fx.cache_of(Some("ghs_job"), job());
    let document = |fields: &str| {
        let text = format!("query {{ repository(owner: \"acme\", name: \"app\") {{ {fields} }} }}");
        Request::graphql(own.api(), json!({ "query": text }).to_string())
    };
    for fields in ["vulnerabilityAlerts(first: 9) { totalCount }", "a: vulnerabilityAlert(number: 1) { state }"] {
        own.get(&document(fields), &Ask::default()).await.unwrap();
    }
    let stack = stack_of(&fx);
    assert_eq!(stack.disk().keys().len(), 2);
    assert_eq!(stack.pack(&Narrow::of(job()), false).unwrap(), Saved::Unchanged);
    own.get(&document("issues { totalCount }"), &Ask::default()).await.unwrap();
    assert!(matches!(stack_of(&fx).pack(&Narrow::of(job()), false).unwrap(), Saved::Written { absorbed: 1, .. }));
}

#[tokio::test]
async fn a_copy_of_the_bundle_holds_only_what_may_leave() {
    let fx = Fixture::new();
    fx.sim.put("/private/salaries", Doc::json(json!({ "n": 1 })));
    let (stack, output) = (stack_of(&fx), fx.dir.path().join("copy.tar.zst"));
    assert!(stack.export(&Narrow::of(job()), &output).is_err(), "there is none");
    get(&fx.cache(Some("ghp_one")), &fx, "/private/salaries").await;
    // Somebody else has saved everything since.
    stack_of(&fx).pack(&Narrow::everything(), false).unwrap();
    let error = stack.export(&Narrow::of(job()), &output).unwrap_err().to_string();
    assert!(error.contains("may not leave it") && !output.exists(), "{error}");
    stack.export(&Narrow::everything(), &output).unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(stack.bundle_path()).unwrap());
    // What is no bundle is not copied either.
    std::fs::write(stack.bundle_path(), "no bundle").unwrap();
    let output = fx.dir.path().join("other.tar.zst");
    assert!(stack.export(&Narrow::everything(), &output).is_err() && !output.exists());
}

#[tokio::test]
async fn folding_keeps_other_partitions_out_of_the_bundle_that_leaves() {
    let fx = Fixture::new();
    for path in ["/private/a", "/repos/o/r"] {
        fx.sim.put(path, Doc::json(json!({ "path": path })));
    }
    get(&fx.cache(Some("ghp_one")), &fx, "/private/a").await;
    get(&fx.cache(None), &fx, "/repos/o/r").await;
    let stack = stack_of(&fx);
    assert!(matches!(stack.fold().unwrap(), Saved::Written { absorbed: 2, .. }));
    assert!(stack.disk().keys().is_empty() && !stack.bundle_path().exists());
    let stack = stack_of(&fx);
    stack.pack(&Narrow::of(Partition::public()), false).unwrap();
    let text = bundle_text(&stack);
    assert!(text.contains("/repos/o/r") && !text.contains("/private/a"), "{text}");
    fx.sim.take_counts();
    assert_eq!(get(&fx.cache(Some("ghp_one")), &fx, "/private/a").await.outcome, HIT);
    assert_eq!(get(&fx.cache(None), &fx, "/repos/o/r").await.outcome, HIT);
    assert_eq!(stack_of(&fx).pack(&Narrow::of(Partition::public()), false).unwrap(), Saved::Unchanged);
}

fn from_the_future(mode: CutoffMode) -> Vec<u8> {
    let mut list = Cutoffs::default();
    let at = Timestamp::from_secs(253_402_300_000);
    list.add(Cutoff { scope: "all".parse().unwrap(), at, mode }, at);
    list.encode()
}

#[tokio::test]
async fn one_invalidation_from_the_future_does_not_switch_caching_off() {
    for mode in [CutoffMode::Revalidate, CutoffMode::Gone] {
        let fx = Fixture::new();
        world::organisation(&fx.sim, 1);
        let path = "/repos/acme/repo-0000/languages";
        get(&fx.cache(Some("ghp_one")), &fx, path).await;
        // Written by a machine whose clock is wrong, or planted.
        std::fs::write(fx.dir.path().join("store/cutoffs.json"), from_the_future(mode)).unwrap();
        assert_eq!(stack_of(&fx).cutoffs_from_the_future(), 1);
        fx.clock.advance(1);
        assert_ne!(get(&fx.cache(Some("ghp_one")), &fx, path).await.outcome, HIT, "it counts as of now");
        fx.clock.advance(1);
        get(&fx.cache(Some("ghp_one")), &fx, path).await;
        fx.clock.advance(100);
        for _ in 0..2 {
            assert_eq!(get(&fx.cache(Some("ghp_one")), &fx, path).await.outcome, HIT, "{mode:?}");
        }
        assert_eq!(stack_of(&fx).cutoffs_from_the_future(), 0, "the list is corrected");
    }
}

#[tokio::test]
async fn a_bundle_from_the_future_outdates_no_later_run() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let path = "/repos/acme/repo-0000/languages";
    get(&fx.cache(Some("ghp_one")), &fx, path).await;
    // The list travels in a bundle that an honest run of another version made.
    let stack = stack_of(&fx);
    stack.pack(&Narrow::everything(), false).unwrap();
    plant_cutoffs(&stack, &from_the_future(CutoffMode::Revalidate));
    fx.clock.advance(30);
    let revalidated = get(&fx.cache(Some("ghp_one")), &fx, path).await;
    assert_eq!(revalidated.outcome, Outcome::Revalidated);
    for _ in 0..3 {
        fx.clock.advance(30);
        assert_eq!(get(&fx.cache(Some("ghp_one")), &fx, path).await.outcome, HIT);
    }
    // `clear all` leaves no trace of it.
    stack_of(&fx).clear(&"all".parse().unwrap()).unwrap();
    let left: Vec<Cutoff> = stack_of(&fx).all_cutoffs().iter().cloned().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].at <= fx.clock.now());
}

/// Puts a list into the bundle, with lengths and digests that fit.
fn plant_cutoffs(stack: &Stack, cutoffs: &[u8]) {
    use sha2::{Digest, Sha256};
    let file = std::fs::read(stack.bundle_path()).unwrap();
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let index_len = number(&file, file.len() - 8);
    let (data, index) = file.split_at(file.len() - index_len);
    let old = number(index, 20);
    let mut new = index[..index_len - 40 - old].to_vec();
    new[20..24].copy_from_slice(&(cutoffs.len() as u32 + 4).to_le_bytes());
    new.extend_from_slice(cutoffs);
    new.extend_from_slice(&Sha256::digest(cutoffs)[..4]);
    let len = (new.len() + 40) as u32;
    let digest = Sha256::digest(&new);
    let mut planted = data[..data.len() - 4].to_vec();
    planted.extend_from_slice(&len.to_le_bytes());
    planted.extend_from_slice(&new);
    planted.extend_from_slice(&digest);
    planted.extend_from_slice(&len.to_le_bytes());
    planted.extend_from_slice(b"OCT1");
    std::fs::write(stack.bundle_path(), planted).unwrap();
    Bundle::open(&stack.bundle_path()).unwrap().unwrap().check_index().unwrap();
}

#[tokio::test]
async fn two_apis_behind_one_gateway_never_answer_each_other() {
    let fx = Fixture::new();
    for tenant in ["a", "b"] {
        fx.sim.put(&format!("/tenant-{tenant}/user"), Doc::json(json!({ "tenant": tenant })));
    }
    let cli = |tenant: &str| {
        let output = std::process::Command::new(crate::binary::BINARY)
            .args(["api", "/user", "--api-url", &format!("{}/tenant-{tenant}", fx.sim.url())])
            .args(["--cache-dir".into(), fx.dir.path().join("cli").into_os_string()])
            .env("OCTOCACHE_TOKEN", "ghp_one")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!((cli("a").trim(), cli("b").trim()), (r#"{"tenant":"a"}"#, r#"{"tenant":"b"}"#));
}

#[cfg(unix)]
mod by_redis {
    use super::*;
    use crate::redis::RedisServer;
    use ::redis::Commands;
    use octocache::share::redis::{Redis, Settings};
    use octocache::share::{Place, Share};
    use octocache::token::Secret;

    fn share(fx: &Fixture, redis: &RedisServer) -> Arc<Share> {
        let timeout = std::time::Duration::from_secs(5);
        let settings = Settings { url: Secret::new(redis.url()), timeout, read_only: false };
        let place: Arc<dyn Place> = Arc::new(Redis::new(&settings, fx.clock.clone()).unwrap());
        Arc::new(Share::new(vec![place], fx.clock.clone()))
    }

    #[tokio::test]
    async fn a_redirect_planted_in_redis_is_not_followed() {
        let Some(redis) = RedisServer::start(&[]) else { return };
        let fx = Fixture::new();
        fx.sim.put("/repos/o/r", Doc::json(json!({ "id": 1 })));
        fx.sim.put("/private/key", Doc::json(json!({ "secret": true })));
        let partition = fx.cache(Some("ghp_one")).partition().clone();
        let machine = |name: &str| fx.machine_of(name, Some(share(&fx, &redis)), partition.clone(), Some("ghp_one"));
        let one = machine("one");
        let honest = get(&one, &fx, "/repos/o/r").await.entry;
        one.shared().await;
        let mut raw = redis.open();
        let names: Vec<String> = raw.keys("*").unwrap();
        let name = names.iter().find(|name| name.contains("}:e:")).unwrap();
        let mut planted = Entry { status: 301, ..Entry::clone(&honest) };
        planted.headers.set("location", format!("{}/private/key", fx.sim.url()));
        let _: () = raw.set(name, planted.encode()).unwrap();
        fx.sim.take_counts();
        let answer = get(&machine("two"), &fx, "/repos/o/r").await;
        assert_eq!(answer.entry.status, 200);
        assert!(fx.sim.log().iter().all(|logged| !logged.target.contains("/private")));
        // Nor does a redirect from GitHub itself travel.
        fx.sim.put("/repos/o/old", Doc::Redirect("/repos/o/r".into()));
        let one = machine("one");
        get(&one, &fx, "/repos/o/old").await;
        one.shared().await;
        let values: Vec<String> = raw.keys("*}:e:*").unwrap();
        for name in values {
            let text: Vec<u8> = raw.get(&name).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains("/repos/o/old"), "{name}");
        }
    }

    #[tokio::test]
    async fn an_invalidation_from_the_future_in_redis_is_corrected() {
        let Some(redis) = RedisServer::start(&[]) else { return };
        let fx = Fixture::new();
        world::organisation(&fx.sim, 1);
        let path = "/repos/acme/repo-0000/languages";
        let mut raw = redis.open();
        let list = from_the_future(CutoffMode::Gone);
        let _: () = raw.hset_multiple("octocache:v1:cutoffs", &[("list", &list[..]), ("rev", b"7")]).unwrap();
        let machine = || fx.machine_of("one", Some(share(&fx, &redis)), Partition::public(), None);
        let first = machine();
        first.hear().await;
        first.shared().await;
        for round in 0..20 {
            fx.clock.advance(30);
            let cache = machine();
            cache.hear().await;
            let answer = get(&cache, &fx, path).await;
            cache.shared().await;
            assert_eq!(answer.outcome == HIT, round > 0, "{round}: {:?}", answer.outcome);
        }
        let text: Vec<u8> = raw.hget("octocache:v1:cutoffs", "list").unwrap();
        assert_eq!(Cutoffs::decode(&text).unwrap().from_the_future(fx.clock.now()), 0);
    }
}
