//! Answers shared by Redis: a real server, a real cluster, and both behaving badly.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::Commands;
use octocache::cache::batch::Batching;
use octocache::cache::{Ask, Cache};
use octocache::cutoff::{Cutoff, CutoffMode};
use octocache::github::{Backoff, GitHub, Options};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::plan::Plan;
use octocache::plan::report::QueryReport;
use octocache::plan::run::{self, Finished, Progress};
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::share::redis::{Redis, Settings, TIMEOUT};
use octocache::share::{Place, Share, Tallied};
use octocache::stack::Stack;
use octocache::tier::TierName;
use octocache::token::{Secret, Token};
use serde_json::json;

use crate::binary::BINARY;
use crate::flow::{Fixture, HIT};
use crate::harness::relay;
use crate::harness::sim::Doc;
use crate::harness::world;
use crate::serve::{Server, has};

/// A redis-server of our own.
pub struct RedisServer {
    child: Child,
    pub port: u16,
    dir: tempfile::TempDir,
    args: Vec<String>,
}

impl RedisServer {
    /// Starts one; `None` where there is none, which is an error in CI.
    pub fn start(args: &[&str]) -> Option<Self> {
        if !has("redis-server") {
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let child = Self::spawn(port, dir.path(), &args);
        let server = Self { child, port, dir, args };
        server.wait();
        Some(server)
    }

    fn spawn(port: u16, dir: &Path, args: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(dir);
        if !args.iter().any(|arg| arg == "--port") {
            command.args(["--port", &port.to_string()]);
        }
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait(&self) {
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of the test's own.
    pub fn open(&self) -> ::redis::Connection {
        ::redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn again(&mut self) {
        self.child = Self::spawn(self.port, self.dir.path(), &self.args);
        self.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// For tests about anything but patience: other tests keep this machine busy.
fn patient(url: &str) -> Settings {
    Settings { timeout: Duration::from_secs(5), ..settings(url) }
}

fn settings(url: &str) -> Settings {
    Settings { url: Secret::new(url), timeout: TIMEOUT, read_only: false }
}

impl Fixture {
    /// A machine of its own, with a store of its own, that shares by Redis.
    fn machine(&self, name: &str, share: Arc<Share>) -> Cache {
        self.machine_of(name, Some(share), Partition::public(), None)
    }

    pub fn machine_of(&self, name: &str, share: Option<Arc<Share>>, whose: Partition, token: Option<&str>) -> Cache {
        let api = Api::parse(&self.sim.url()).unwrap();
        let mut options = Options::new(api.clone(), token.map(|token| Token::new(token).unwrap()));
        options.backoff = Backoff { base: Duration::ZERO, retries: 2, ..Backoff::default() };
        let upstream = Arc::new(GitHub::new(options, self.clock.clone()));
        let stack = Stack::new(self.dir.path().join(name), self.clock.clone());
        Cache::new(api, whose, stack, upstream, TtlTable::default(), self.clock.clone()).with_share(share)
    }

    fn shares(&self, settings: &Settings) -> Arc<Share> {
        let place: Arc<dyn Place> = Arc::new(Redis::new(settings, self.clock.clone()).unwrap());
        Arc::new(Share::new(vec![place], self.clock.clone()))
    }

    fn by(&self, redis: &RedisServer) -> Arc<Share> {
        self.shares(&patient(&redis.url()))
    }
}

fn tallied(cache: &Cache) -> Tallied {
    cache.share().unwrap().tallied()[0].1
}

#[tokio::test]
async fn what_one_machine_has_paid_for_all_have() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let path = "/repos/acme/repo-0001";
    let (one, two) = (fx.machine("one", fx.by(&redis)), fx.machine("two", fx.by(&redis)));
    let first = one.get(&fx.request(path), &Ask::default()).await.unwrap();
    one.shared().await;
    let second = two.get(&fx.request(path), &Ask::default()).await.unwrap();
    assert_eq!((second.outcome, second.tier, second.requests), (HIT, Some(TierName::Redis), 0));
    assert_eq!(second.entry, first.entry);
    assert_eq!(fx.sim.take_counts(), (1, 1));
    // From then on it has it itself.
    let third = two.get(&fx.request(path), &Ask::default()).await.unwrap();
    assert_eq!(third.tier, Some(TierName::Disk));
    assert_eq!((tallied(&two).hits, tallied(&one).written), (1, 1));
    // Under short names that expire with the stale window, and an index that outlives it.
    let mut raw = redis.open();
    let names: Vec<String> = raw.keys("*").unwrap();
    assert!(names.iter().all(|name| name.starts_with("octocache:v1:") && name.len() < 512), "{names:?}");
    let entry = names.iter().find(|name| name.contains("}:e:")).unwrap();
    let left: i64 = raw.pttl(entry).unwrap();
    let week_and_hour = (7 * 24 + 1) * 3_600_000;
    assert!((week_and_hour - 60_000..=week_and_hour).contains(&left), "{left}");
    let text: String = raw.get(entry).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["v"], &json["body"]["full_name"]), (&json!(1), &json!("acme/repo-0001")));
    let index = names.iter().find(|name| name.ends_with("}:t:repo:acme/repo-0001")).unwrap();
    let members: Vec<String> = raw.smembers(index).unwrap();
    assert_eq!(members, [first.entry.key().to_string()]);
}

#[tokio::test]
async fn what_one_confirms_is_current_for_all() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let request = fx.request("/repos/acme/repo-0000");
    let [one, two, three] = ["one", "two", "three"]
        .map(|name| fx.machine_of(name, Some(fx.by(&redis)), Partition::named("team").unwrap(), Some("ghp_one")));
    one.get(&request, &Ask::default()).await.unwrap();
    one.shared().await;
    fx.clock.advance(3_700);
    // Stale when it comes from Redis, and no fresher for having travelled: confirmed, for nothing.
    let second = two.get(&request, &Ask::default()).await.unwrap();
    assert_eq!((second.outcome, second.charged), (Outcome::Revalidated, 0));
    two.shared().await;
    let third = three.get(&request, &Ask::default()).await.unwrap();
    assert_eq!((third.outcome, third.tier), (HIT, Some(TierName::Redis)));
    // Who has an old copy of its own finds the newer one, too.
    let first = one.get(&request, &Ask::default()).await.unwrap();
    assert_eq!((first.outcome, first.tier), (HIT, Some(TierName::Redis)));
    assert_eq!(fx.sim.take_counts(), (2, 1));
}

#[tokio::test]
async fn partitions_do_not_see_each_other() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let request = fx.request("/repos/acme/repo-0000");
    let of = |name: &str, token: &'static str| {
        let whose = Partition::token(&Token::new(token).unwrap());
        fx.machine_of(name, Some(fx.by(&redis)), whose, Some(token))
    };
    let (one, two) = (of("one", "ghp_one"), of("two", "ghp_two"));
    one.get(&request, &Ask::default()).await.unwrap();
    one.shared().await;
    let other = two.get(&request, &Ask::default()).await.unwrap();
    assert!(matches!(other.outcome, Outcome::Fetched(_)), "{:?}", other.outcome);
    // A value that was moved under another partition's name is not what was asked for.
    let mut raw = redis.open();
    one.shared().await;
    two.shared().await;
    let names: Vec<String> = raw.keys("*:e:*").unwrap();
    assert_eq!(names.len(), 2);
    let moved: Vec<u8> = raw.get(&names[0]).unwrap();
    let _: () = raw.set(&names[1], &moved).unwrap();
    let mine: Vec<u8> = raw.get(&names[1]).unwrap();
    let _: () = raw.set(&names[0], &mine).unwrap();
    for (name, token) in [("three", "ghp_one"), ("four", "ghp_two")] {
        let cache = of(name, token);
        let answer = cache.get(&request, &Ask::default()).await.unwrap();
        let is_its_own = answer.entry.parts.partition == *cache.partition();
        assert!(is_its_own, "{:?} for {}", answer.entry.parts, cache.partition());
        cache.shared().await;
    }
}

#[tokio::test]
async fn anything_else_in_redis_is_a_miss_and_is_replaced() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    // Above 32 KB, so that it is compressed.
    let long = "y".repeat(60_000);
    fx.sim.put("/repos/acme/repo-0000", Doc::json(json!({ "x": long })));
    let request = fx.request("/repos/acme/repo-0000");
    let first = fx.machine("first", fx.by(&redis));
    first.get(&request, &Ask::default()).await.unwrap();
    first.shared().await;
    let mut raw = redis.open();
    let name = raw.keys::<_, Vec<String>>("*:e:*").unwrap().remove(0);
    let sound: Vec<u8> = raw.get(&name).unwrap();
    assert!(sound.len() < 2_000 && sound.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "{} bytes", sound.len());
    let plain = zstd::bulk::decompress(&sound, 1 << 20).unwrap();
    let text = String::from_utf8(plain.clone()).unwrap();
    let mut cut = sound.clone();
    cut.truncate(sound.len() / 2);
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 0x10;
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("cut", cut),
        ("flipped", flipped),
        ("foreign", b"hello".to_vec()),
        ("a list", b"<a list>".to_vec()),
        ("newer", text.replacen("{\"v\":1", "{\"v\":2", 1).into_bytes()),
        ("another status", text.replacen("\"status\":200", "\"status\":404", 1).into_bytes()),
        ("a bomb", zstd::bulk::compress(&vec![b'{'; 256 << 20], 3).unwrap()),
        ("huge", vec![b'{'; 30 << 20]),
    ];
    for (n, (what, value)) in bad.into_iter().enumerate() {
        let _: () = raw.del(&name).unwrap();
        match what {
            "a list" => raw.rpush::<_, _, ()>(&name, value).unwrap(),
            _ => raw.set::<_, _, ()>(&name, value).unwrap(),
        }
        let cache = fx.machine(&format!("machine-{n}"), fx.by(&redis));
        fx.sim.take_counts();
        let answer = cache.get(&request, &Ask::default()).await.unwrap();
        assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{what}: {:?}", answer.outcome);
        assert_eq!(fx.sim.take_counts(), (1, 1), "{what}");
        assert_eq!(tallied(&cache).refused, 1, "{what}");
        cache.shared().await;
        let now: Vec<u8> = raw.get(&name).unwrap();
        assert!(now.starts_with(&sound[..4]) && now.len() < 2_000, "{what} is not replaced");
    }
    // From a clock that is ahead: fresh for ever, if it were believed.
    let ahead = Fixture::with_clock(octocache::clock::Clock::manual(fx.clock.now().plus(86_400)));
    let sound = first.get(&request, &Ask::default()).await.unwrap();
    let mut entry = (*sound.entry).clone();
    entry.validated_at = ahead.clock.now();
    let _: () = raw.set(&name, entry.encode()).unwrap();
    let cache = fx.machine("later", fx.by(&redis));
    let answer = cache.get(&request, &Ask::default()).await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{:?}", answer.outcome);
    assert_eq!(tallied(&cache).refused, 1);
}

#[tokio::test]
async fn what_one_outdates_is_outdated_for_all() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let (kept, touched) = (fx.request("/repos/acme/repo-0000"), fx.request("/repos/acme/repo-0001"));
    let machine =
        |name: &str| fx.machine_of(name, Some(fx.by(&redis)), Partition::named("t").unwrap(), Some("ghp_one"));
    let (one, two) = (machine("one"), machine("two"));
    for request in [&kept, &touched] {
        one.get(request, &Ask::default()).await.unwrap();
        one.shared().await;
        two.get(request, &Ask::default()).await.unwrap();
    }
    fx.sim.take_counts();
    fx.clock.advance(10);
    one.invalidate("repo:acme/repo-0001".parse().unwrap()).unwrap();
    one.shared().await;
    two.hear().await;
    fx.clock.advance(1);
    let answer = two.get(&touched, &Ask::default()).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Revalidated);
    assert_eq!(two.get(&kept, &Ask::default()).await.unwrap().outcome, HIT);
    // Who comes only now hears of it first, and then of the confirmation.
    two.shared().await;
    let late = machine("late");
    late.hear().await;
    let answer = late.get(&touched, &Ask::default()).await.unwrap();
    assert_eq!((answer.outcome, answer.tier), (HIT, Some(TierName::Redis)));
    // Gone is gone: from Redis, too, and from its indexes; and no old copy comes back.
    fx.clock.advance(10);
    let gone = Cutoff { scope: "repo:acme/repo-0001".parse().unwrap(), at: fx.clock.now(), mode: CutoffMode::Gone };
    one.invalidate_all(&[gone]).unwrap();
    one.shared().await;
    let mut raw = redis.open();
    let left = raw.keys::<_, Vec<String>>("*:e:*").unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(raw.keys::<_, Vec<String>>("*:t:repo:acme/repo-0001").unwrap().is_empty());
    late.hear().await;
    fx.sim.take_counts();
    let answer = late.get(&touched, &Ask::default()).await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{:?}", answer.outcome);
    assert_eq!(fx.sim.take_counts(), (1, 1));
    // A list that cannot be read means that everything is looked at again.
    let _: () = raw.hset("octocache:v1:cutoffs", "list", "{\"v\":9}").unwrap();
    let _: () = raw.hincr("octocache:v1:cutoffs", "rev", 1).unwrap();
    two.hear().await;
    assert_eq!(two.get(&kept, &Ask::default()).await.unwrap().outcome, Outcome::Revalidated);
}

#[tokio::test]
async fn invalidations_of_many_at_once_are_all_kept() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    let machines: Vec<Cache> = (0..8).map(|n| fx.machine(&format!("m{n}"), fx.by(&redis))).collect();
    let all = machines.iter().enumerate().map(async |(n, cache)| {
        for m in 0..5 {
            cache.invalidate(format!("repo:acme/r{n}-{m}").parse().unwrap()).unwrap();
            cache.shared().await;
        }
    });
    futures_util::future::join_all(all).await;
    let late = fx.machine("late", fx.by(&redis));
    late.hear().await;
    assert_eq!(late.stack().all_cutoffs().iter().count(), 40);
}

struct Silent;

impl Progress for Silent {
    fn more(&self, _count: usize) {}
    fn done(&self, _report: &QueryReport) {}
}

const PLAN: &str = "version: 1
queries:
  repos: { recipe: org-repos, org: acme }
  issues: { recipe: issues, repo: acme/repo-0005 }
  user: { recipe: user, user: octocat }
  languages: { recipe: languages, for-each: { query: repos, items: '.[].full_name' } }
  latest: { get: '/repos/{item}/releases/latest', for-each: { query: repos, items: '.[].full_name' } }
";

async fn run_plan(cache: &Cache, text: &str) -> Finished {
    let plan = Plan::parse(text, "plan.yml", Path::new(".")).unwrap();
    let options =
        run::Options { output_dir: None, vars: BTreeMap::new(), ask: Ask::default(), batching: Batching::default() };
    run::run(&plan, cache, &options, &Silent).await.unwrap()
}

#[tokio::test]
async fn five_runners_with_one_plan_ask_github_each_question_once() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 40);
    let runner = |name: String, share| fx.machine_of(&name, share, Partition::named("ci").unwrap(), Some("ghp_one"));
    let alone = run_plan(&runner("alone".into(), None), PLAN).await;
    assert!(alone.worst.is_none(), "{:?}", alone.index);
    let (sent, charged) = fx.sim.take_counts();
    // At once, as the jobs of a matrix start.
    let runners: Vec<Cache> = (0..5).map(|n| runner(format!("runner-{n}"), Some(fx.by(&redis)))).collect();
    let all = futures_util::future::join_all(runners.iter().map(|cache| run_plan(cache, PLAN))).await;
    let mut asked: Vec<String> = fx.sim.log().into_iter().map(|one| one.target).collect();
    asked.sort();
    assert_eq!(fx.sim.take_counts(), (sent, charged), "{asked:#?}");
    for finished in &all {
        assert!(finished.worst.is_none(), "{:?}", finished.index);
        let digests =
            |finished: &Finished| finished.index.queries.iter().map(|query| query.sha256.clone()).collect::<Vec<_>>();
        assert_eq!(digests(finished), digests(&alone));
    }
    // And one after the other, as later jobs do: all in one round trip per wave.
    let late = runner("late".into(), Some(fx.by(&redis)));
    let finished = run_plan(&late, PLAN).await;
    assert_eq!((finished.index.totals.requests, fx.sim.take_counts()), (0, (0, 0)));
}

#[test]
fn five_processes_with_one_plan_ask_github_each_question_once() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let mut server = Server::start(&[]);
    server.stop();
    server.sim.take_counts();
    // They all run on this one machine, beside other tests.
    let plan =
        PLAN.replace("queries:", "share: { redis: { url: '${OCTOCACHE_TEAM_REDIS}', timeout-ms: 5000 } }\nqueries:");
    std::fs::write(server.dir.path().join("plan.yml"), plan).unwrap();
    let run = |name: String| {
        let mut octocache = Command::new(BINARY);
        octocache.args(["run", "--plan", "plan.yml", "--json", "--output-dir"]).arg(format!("out-{name}"));
        octocache.env_clear().env("HOME", server.dir.path().join(&name)).current_dir(server.dir.path());
        octocache.env("OCTOCACHE_API_URL", server.sim.url()).env("OCTOCACHE_DIR", server.dir.path().join(&name));
        octocache.env("OCTOCACHE_TEAM_REDIS", redis.url()).env("OCTOCACHE_TOKEN", crate::serve::TOKEN);
        octocache.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runners: Vec<Child> = (0..5).map(|n| run(format!("runner-{n}"))).collect();
    let mut requests = 0;
    for runner in runners {
        let output = runner.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let index: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        requests += index["totals"]["requests"].as_u64().unwrap();
    }
    let mut asked: Vec<String> = server.sim.log().into_iter().map(|one| one.target).collect();
    assert_eq!(requests, asked.len() as u64);
    asked.sort();
    let all = asked.len();
    asked.dedup();
    assert_eq!(asked.len(), all, "{asked:#?}");
    // Ten repositories, one of them with two pages of issues, a user, and languages in one batch.
    assert_eq!(asked.len(), 10 + 2 + 1 + 1 + 1, "{asked:#?}");
}

#[test]
fn servers_share_answers_and_invalidations_and_say_how_it_goes() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.yml");
    std::fs::write(
        &plan,
        format!(
            "version: 1\nshare:\n  redis: {{ url: '{}', timeout-ms: 5000 }}\nqueries: {{ user: {{ get: /users/octocat }} }}\n",
            redis.url()
        ),
    )
    .unwrap();
    let plan = plan.to_str().unwrap();
    let own = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let one = Server::start(&["--plan", plan, "--cache-dir", &own("one")]);
    let mut two = Server::before(one.sim.clone());
    two.run(&["--plan", plan, "--cache-dir", &own("two")]);
    one.sim.take_counts();
    let path = "/repos/acme/repo-0003";
    let status = |server: &Server| server.curl(path, &[]).cache_status().to_owned();
    let first = status(&one);
    assert!(first.contains("miss"), "{first}");
    let started = Instant::now();
    while !status(&two).contains("hit") {
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    let sent = one.sim.take_counts().0;
    assert_eq!(sent, 1, "the second server has it from the first");
    // A change through one of them is seen by the other within a second or so.
    assert_eq!(one.curl(path, &["-X", "PATCH", "-d", "{}"]).status, 200);
    let started = Instant::now();
    while status(&two).contains("hit;") && !status(&two).contains("fwd") {
        assert!(started.elapsed() < Duration::from_secs(10), "{}", status(&two));
        std::thread::sleep(Duration::from_millis(50));
    }
    let metrics = String::from_utf8(two.curl("/metrics", &[]).body).unwrap();
    assert!(metrics.contains("octocache_shared_up{tier=\"redis\"} 1"), "{metrics}");
    assert!(metrics.contains("octocache_hits_total{class=\"repo\",tier=\"redis\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_dead_paused_or_slow_redis_is_waited_for_less_than_100_ms_in_all() {
    let Some(mut redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    fx.sim.with(|state| state.limit = 1_000_000);
    world::organisation(&fx.sim, 40);
    // How much longer a run takes is measured beside others (benches/share.rs); here, what it waits.
    let waited = async |name: &str, url: &str| {
        // Other tests keep this machine busy: the best of several counts.
        let mut best = u64::MAX;
        for round in 0..5 {
            let (name, share) = (format!("{name}-{round}"), Some(fx.shares(&settings(url))));
            let cache = fx.machine_of(&name, share, Partition::named(&name).unwrap(), Some("ghp_one"));
            let finished = run_plan(&cache, PLAN).await;
            assert!(finished.worst.is_none(), "{name}: {:?}", finished.index);
            assert!(!tallied(&cache).up, "{name}: {:?}", tallied(&cache));
            best = best.min(tallied(&cache).waited_micros);
        }
        assert!(best < 100_000, "{name}: {best} µs");
    };
    let slow = relay::slow(redis.port, Duration::from_millis(30));
    waited("slow", &format!("redis://127.0.0.1:{slow}")).await;
    redis.signal("-STOP");
    waited("paused", &redis.url()).await;
    redis.signal("-CONT");
    redis.kill();
    waited("dead", &redis.url()).await;
    // Nobody answers at all: packets are lost.
    waited("lost", "redis://203.0.113.1:6379").await;
}

#[tokio::test]
async fn killed_paused_and_filled_in_the_middle_and_back_again() {
    let Some(mut redis) = RedisServer::start(&["--maxmemory-policy", "noeviction"]) else { return };
    let fx = Fixture::new();
    fx.sim.with(|state| state.limit = 1_000_000);
    world::organisation(&fx.sim, 200);
    let machine = |name: &str| {
        // A pause must be noticed soon, and a busy machine is none.
        let share = Some(fx.shares(&Settings { timeout: Duration::from_millis(300), ..settings(&redis.url()) }));
        fx.machine_of(name, share, Partition::named("t").unwrap(), Some("ghp_one"))
    };
    let cache = machine("one");
    let get = async |from: usize| {
        for n in from..from + 20 {
            let answer = cache.get(&fx.request(&format!("/repos/acme/repo-{n:04}")), &Ask::default()).await.unwrap();
            assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{n}: {:?}", answer.outcome);
        }
    };
    get(0).await;
    cache.shared().await;
    assert_eq!(tallied(&cache).written, 20);
    // Full: what is written fails, what is there answers.
    let mut raw = redis.open();
    let at_most = |raw: &mut ::redis::Connection, bytes: &str| {
        ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec(raw).unwrap();
    };
    at_most(&mut raw, "1");
    get(20).await;
    cache.shared().await;
    let full = tallied(&cache);
    assert!(full.up && full.failed > 0 && full.written == 20, "{full:?}");
    let other = machine("other");
    let answer = other.get(&fx.request("/repos/acme/repo-0003"), &Ask::default()).await.unwrap();
    assert_eq!(answer.tier, Some(TierName::Redis));
    at_most(&mut raw, "0");
    // Paused, then killed, each while it is asked.
    redis.signal("-STOP");
    let started = Instant::now();
    get(40).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!tallied(&cache).up);
    redis.signal("-CONT");
    back(&cache).await;
    get(60).await;
    cache.shared().await;
    assert!(tallied(&cache).written > 20);
    redis.kill();
    get(80).await;
    assert!(!tallied(&cache).up);
    // What was outdated while it was away is said once it is back.
    cache.invalidate("repo:acme/repo-0001".parse().unwrap()).unwrap();
    redis.again();
    back(&cache).await;
    get(100).await;
    cache.shared().await;
    let late = fx.machine("late", fx.by(&redis));
    let started = Instant::now();
    while late.stack().all_cutoffs().is_empty() {
        late.hear().await;
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until Redis is asked again.
async fn back(cache: &Cache) {
    let started = Instant::now();
    while !tallied(cache).up {
        assert!(started.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_only_reads_writes_nothing() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let writer = fx.machine("writer", fx.by(&redis));
    writer.get(&fx.request("/repos/acme/repo-0000"), &Ask::default()).await.unwrap();
    writer.shared().await;
    let before: Vec<String> = redis.open().keys("*").unwrap();
    let reader = fx.machine("reader", fx.shares(&Settings { read_only: true, ..patient(&redis.url()) }));
    let shared = reader.get(&fx.request("/repos/acme/repo-0000"), &Ask::default()).await.unwrap();
    assert_eq!(shared.tier, Some(TierName::Redis));
    reader.get(&fx.request("/repos/acme/repo-0001"), &Ask::default()).await.unwrap();
    reader.invalidate("all".parse().unwrap()).unwrap();
    reader.shared().await;
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(redis.open().keys("*").unwrap()), sorted(before));
}

#[test]
fn over_tls_with_a_user_and_a_password_and_none_of_it_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, authority.cert.pem()).unwrap();
    std::fs::write(&key, authority.signing_key.serialize_pem()).unwrap();
    let tls_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let users = dir.path().join("users.acl");
    std::fs::write(&users, "user default off\nuser octo on >hunter2hunter2 ~octocache:* +@all\n").unwrap();
    let user = ["--aclfile", users.to_str().unwrap()];
    let tls = ["--tls-port", &tls_port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no"];
    let Some(redis) = RedisServer::start(&[&tls[..], &user[..]].concat()) else { return };
    let mut server = Server::start(&[]);
    server.stop();
    std::fs::write(
        dir.path().join("plan.yml"),
        "version: 1\nshare: { redis: { url: '${OCTOCACHE_TEAM_REDIS}', timeout-ms: 5000 } }\nqueries:\n  user: { recipe: user, user: octocat }\n",
    )
    .unwrap();
    let run = |name: &str, url: &str, command: &[&str]| {
        let mut octocache = Command::new(BINARY);
        octocache.args(command).env_clear().env("HOME", dir.path().join(name)).current_dir(dir.path());
        octocache.env("OCTOCACHE_API_URL", server.sim.url()).env("OCTOCACHE_DIR", dir.path().join(name).join("store"));
        octocache.env("OCTOCACHE_TEAM_REDIS", url).env("SSL_CERT_FILE", cert).output().unwrap()
    };
    let url = format!("rediss://octo:hunter2hunter2@localhost:{tls_port}/0");
    let wrong = format!("rediss://octo:wrongwrong@localhost:{tls_port}/0");
    let plain = format!("redis://octo:hunter2hunter2@localhost:{}/0", redis.port);
    let plan = ["run", "--plan", "plan.yml", "--json", "-vv"];
    let mut said = String::new();
    for (name, url, requests) in [("a", &url, 1), ("b", &url, 0), ("c", &plain, 0), ("d", &wrong, 1)] {
        let output = run(name, url, &plan);
        let (out, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let index: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{name}: {out} {errors}"));
        assert_eq!(index["totals"]["requests"], requests, "{name}: {errors}");
        said += &(out + &errors);
    }
    for command in [&["config", "show"][..], &["doctor"], &["cache", "stats"]] {
        let output = run("a", &url, command);
        said += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    assert!(said.contains("Redis cannot be reached"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains("wrongwrong"), "{said}");
}

#[tokio::test]
async fn a_cluster_of_three_serves_as_one_does() {
    let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let nodes: Vec<RedisServer> = (0..3).map_while(|_| RedisServer::start(&cluster)).collect();
    if nodes.len() < 3 {
        return;
    }
    let mut create = Command::new("redis-cli");
    create
        .args(["--cluster-yes", "--cluster", "create"])
        .args(nodes.iter().map(|one| format!("127.0.0.1:{}", one.port)));
    let created = create.output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    let fx = Fixture::new();
    world::organisation(&fx.sim, 40);
    let parts = ["red", "green", "blue", "white"].map(|name| Partition::named(name).unwrap());
    for whose in &parts {
        let [one, two] = ["one", "two"].map(|name| {
            // Any of its nodes leads to all.
            let share = Some(fx.shares(&patient(&nodes[name.len() % 3].url())));
            fx.machine_of(&format!("{whose}-{name}").replace(':', "-"), share, whose.clone(), Some("ghp_one"))
        });
        run_plan(&one, PLAN).await;
        assert!(fx.sim.take_counts().0 > 0);
        let finished = run_plan(&two, PLAN).await;
        assert_eq!((fx.sim.take_counts(), finished.index.totals.requests), ((0, 0), 0), "{whose}");
        one.invalidate_all(&[Cutoff {
            scope: "repo:acme/repo-0005".parse().unwrap(),
            at: fx.clock.now().plus(5),
            mode: CutoffMode::Gone,
        }])
        .unwrap();
        one.shared().await;
    }
    // Each node holds some of it.
    let held: Vec<usize> =
        nodes.iter().map(|one| one.open().keys::<_, Vec<String>>("octocache:*").unwrap().len()).collect();
    assert!(held.iter().filter(|held| **held > 0).count() >= 2, "{held:?}");
}
