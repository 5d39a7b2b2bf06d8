//! Warming: what a tick asks and leaves alone, what it costs, and what readers find afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use octocache::cache::batch::Batching;
use octocache::cache::{Ask, Cache};
use octocache::clock::Clock;
use octocache::github::{GitHub, Options as GitHubOptions, Reserve};
use octocache::partition::Partition;
use octocache::plan::{Plan, run};
use octocache::policy::TtlTable;
use octocache::request::{Api, Request};
use octocache::stack::{Narrow, Stack};
use octocache::token::Token;
use octocache::warm::{Options, Tick, Verdict, horizon_secs, tick};
use serde_json::{Value, json};

use crate::binary::BINARY;
use crate::cost::{MONTH, Silent, Thousand, plan, without_issues};
use crate::flow::Fixture;
use crate::harness::world;

async fn warm(plan: &Plan, cache: &Cache, horizon_secs: u64) -> Tick {
    let run =
        run::Options { output_dir: None, vars: BTreeMap::new(), ask: Ask::default(), batching: Batching::default() };
    let options = Options { run, horizon_secs, idle_secs: 7 * 86_400 };
    let tick = tick(plan, cache, options, &Silent).await.unwrap();
    cache.stack().pack(&Narrow::everything(), false).unwrap();
    tick
}

#[tokio::test(start_paused = true)]
async fn a_thousand_entries_of_which_two_in_a_hundred_changed() {
    let mut world = Thousand::new();
    let plan = plan(&without_issues());
    let cache = world.cache(|_| {});
    let cold = warm(&plan, &cache, 3_600).await;
    assert!(cold.worst.is_none() && cold.decisions.is_empty());
    world.sim.take_counts();
    world.clock.advance(MONTH);
    let pushed = world.clock.now().minus(86_400).to_string();
    world.edit("/orgs/acme/repos", |repos| {
        repos.iter_mut().step_by(50).for_each(|repo| repo["pushed_at"] = json!(pushed));
    });
    // Another token, as in every job.
    let cache = world.cache(|options| options.reserve = Some(Reserve::Percent(10)));
    warm(&plan, &cache, 3_600).await;
    let (sent, charged) = world.sim.take_counts();
    println!("warming 2,000 entries, 2 % changed, another token: {sent} requests, {charged} charged");
    assert!(charged <= 20 + 10, "{charged} charged");
    // A reader after it sends nothing, until the horizon.
    world.clock.advance(600);
    let reader = world.cache(|_| {});
    let out = world.dir.path().join("read");
    let options = run::Options {
        output_dir: Some(&out),
        vars: BTreeMap::new(),
        ask: Ask::default(),
        batching: Batching::default(),
    };
    let read = run::run(&plan, &reader, &options, &Silent).await.unwrap();
    assert_eq!((read.index.totals.hits, world.sim.take_counts().0), (2_001, 0));
}

#[tokio::test]
async fn what_lasts_is_left_what_nobody_reads_is_left_out_and_the_rest_is_refreshed() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 6);
    let plan = Plan::parse(
        "version: 1\nqueries: { latest: { recipe: latest-release, repo: acme/repo-0001 } }\nwarm: { schedule: '0 * * * *' }\n",
        "plan.yml",
        Path::new("."),
    )
    .unwrap();
    // The end of the next hour and half an hour more.
    let horizon = horizon_secs(&plan, fx.clock.now());
    assert!((1_800..=5_400).contains(&horizon), "{horizon}");
    let reader = fx.cache(Some("ghp_one"));
    for path in [
        "/repos/acme/repo-0001",
        "/repos/acme/repo-0002/languages",
        "/users/octocat",
        "/repos/acme/repo-0001/releases/latest",
    ] {
        reader.get(&fx.request(path), &Ask::default()).await.unwrap();
    }
    reader.set("own-name", "{}", 9).unwrap();
    reader.stack().pack(&Narrow::everything(), false).unwrap();
    fx.sim.take_counts();
    fx.clock.advance(3_000);
    let worker = |fx: &Fixture| fx.cache(Some("ghp_one"));
    let first = warm(&plan, &worker(&fx), 5_400).await;
    let verdict = |tick: &Tick, target: &str| {
        tick.decisions.iter().find(|decision| decision.target == target).map(|decision| decision.verdict)
    };
    // Repository information is an hour old at the next tick, the others last a day.
    assert_eq!(verdict(&first, "/repos/acme/repo-0001"), Some(Verdict::Refresh));
    assert_eq!(verdict(&first, "/users/octocat"), Some(Verdict::Fresh));
    assert_eq!(verdict(&first, "/repos/acme/repo-0001/releases/latest"), None, "the plan has seen to it");
    assert_eq!((first.refreshed, fx.sim.take_counts()), (1, (1, 0)));
    // Ten days later only one of them has been read; the worker's own looks do not count.
    for _ in 0..10 {
        fx.clock.advance(86_400);
        let worker = fx.worker("ghp_one");
        warm(&plan, &worker, 5_400).await;
        worker.flush();
        let reader = fx.cache(Some("ghp_one"));
        reader.get(&fx.request("/users/octocat"), &Ask { ttl_secs: Some(MONTH), ..Ask::default() }).await.unwrap();
        reader.flush();
    }
    fx.sim.take_counts();
    fx.clock.advance(86_400);
    let last = warm(&plan, &fx.worker("ghp_one"), 5_400).await;
    assert_eq!(verdict(&last, "/repos/acme/repo-0001"), Some(Verdict::Unread));
    assert_eq!(verdict(&last, "/repos/acme/repo-0002/languages"), Some(Verdict::Unread));
    assert_eq!(verdict(&last, "/users/octocat"), Some(Verdict::Refresh));
    assert_eq!(verdict(&last, "own-name"), None, "it is of no host");
    assert_eq!(fx.sim.take_counts(), (2, 0), "the plan's, and the one that is read");
}

impl Fixture {
    fn worker(&self, token: &str) -> Cache {
        self.cache_in(&self.dir.path().join("store"), token, &self.clock, Stack::unobserved)
    }

    fn cache_in(&self, dir: &Path, token: &str, clock: &Clock, change: impl FnOnce(Stack) -> Stack) -> Cache {
        let api = Api::parse(&self.sim.url()).unwrap();
        let token = Token::new(token).unwrap();
        let options = GitHubOptions::new(api.clone(), Some(token.clone()));
        let upstream = Arc::new(GitHub::new(options, clock.clone()));
        let stack = change(Stack::new(dir, clock.clone()));
        Cache::new(api, Partition::token(&token), stack, upstream, TtlTable::default(), clock.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn the_reserve_is_left_and_what_is_most_needed_comes_first() {
    let mut world = Thousand::new();
    world.sim.with(|state| state.limit = 40);
    let names: Vec<String> = (0..60).map(|n| format!("acme/repo-{n:04}")).collect();
    let plan = plan(&format!("  languages: {{ recipe: languages, via: rest, for-each: [{}] }}\n", names.join(", ")));
    let cache = world.cache(|options| options.reserve = Some(Reserve::Percent(25)));
    let tick = warm(&plan, &cache, 3_600).await;
    assert_eq!(world.sim.take_counts().1, 30, "a quarter of forty is left");
    assert_eq!((tick.index.totals.fetched, tick.index.totals.failed), (30, 30));
    let reader = world.cache(|_| {});
    let request = Request::get(&Api::parse(&world.sim.url()).unwrap(), "/repos/acme/repo-0059/languages").unwrap();
    assert!(reader.get(&request, &Ask::default()).await.is_ok(), "which a reader can use");
}

#[test]
fn the_program_warms_once_or_stays_until_it_is_told_to_end() {
    let fx = Fixture::with_clock(Clock::System);
    world::organisation(&fx.sim, 3);
    std::fs::create_dir_all(fx.dir.path().join(".github")).unwrap();
    let text = "version: 1\nwarm: { schedule: '@yearly', timezone: Europe/Berlin }\nqueries:\n  releases: { recipe: releases, repo: acme/repo-0002 }\n";
    std::fs::write(fx.dir.path().join(".github/octocache.yml"), text).unwrap();
    let octocache = |args: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(args).env_clear().env("HOME", fx.dir.path()).current_dir(fx.dir.path());
        command.env("OCTOCACHE_API_URL", fx.sim.url()).env("GH_ENTERPRISE_TOKEN", "ghp_one");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let run = |args: &[&str]| {
        let output = octocache(args).wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = run(&["warm"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("the plan: 0 fresh, 0 validated, 1 fetched") && out.contains("the bundle is saved"), "{out}");
    assert!(fx.dir.path().join(".cache/github/bundle.tar.zst").exists());
    // Somebody asked for something else an hour ago.
    let an_hour_ago = Clock::manual(fx.clock.now().minus(3_600));
    let cache = fx.cache_in(&fx.dir.path().join(".cache/github"), "ghp_one", &an_hour_ago, |stack| stack);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        cache.get(&fx.request("/users/octocat"), &Ask::default()).await.unwrap();
    });
    fx.sim.take_counts();
    let (_, out, _) = run(&["warm", "--explain"]);
    assert!(out.contains("/users/octocat") && out.contains("would be stale before the next tick"), "{out}");
    assert_eq!(fx.sim.take_counts().1, 0);
    let (_, out, _) = run(&["warm", "--json", "--explain"]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["left"], &line["decisions"][0]["target"]), (&json!(0), &json!("/users/octocat")));
    assert!(line["next"].as_str().unwrap().ends_with("-12-31T23:00:00Z"));
    for bad in [&["warm", "--schedule", "61 * * * *"][..], &["warm", "--schedule", "@daily", "--timezone", "Nowhere"]] {
        assert_eq!(run(bad).0, 2);
    }
    #[cfg(unix)]
    {
        // Told to end, it ends, and says when it would have ticked.
        let mut stays = octocache(&["warm", "--schedule"]);
        let mut said = String::new();
        let mut stderr = std::io::BufReader::new(stays.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut stderr, &mut said).unwrap();
        assert!(said.contains("next tick at 20") && said.contains("-12-31T23:00:00Z"), "{said}");
        Command::new("kill").args(["-TERM", &stays.id().to_string()]).status().unwrap();
        assert_eq!(stays.wait().unwrap().code(), Some(0));
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        assert!(said.contains("told to end"), "{said}");
    }
}
