//! What sharing costs, and what it brings: hits from Redis beside bare GETs of the same bytes, runs with
//! a Redis or a peer that is dead, paused or slow beside runs without one.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench")]

#[path = "corpus.rs"]
mod corpus;
#[path = "../tests/harness.rs"]
mod harness;
#[path = "table.rs"]
mod table;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::relay;
use harness::sim::Sim;
use harness::world;
use octocache::cache::batch::Batching;
use octocache::cache::{Ask, Cache};
use octocache::clock::Clock;
use octocache::github::{GitHub, Options};
use octocache::partition::Partition;
use octocache::plan::Plan;
use octocache::plan::report::QueryReport;
use octocache::plan::run::{self, Progress};
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::share::peers::{self, Peers};
use octocache::share::redis::{Redis, Settings, TIMEOUT};
use octocache::share::seal::Group;
use octocache::share::{Place, Share, Wanted};
use octocache::stack::Stack;
use octocache::token::{Secret, Token};
use table::Table;

const TOKEN: &str = "ghp_one";

/// Set for the process that is another peer.
const ANOTHER: &str = "BENCH_ANOTHER";

const PLAN: &str = "version: 1
queries:
  repos: { recipe: org-repos, org: acme }
  user: { recipe: user, user: octocat }
  languages: { recipe: languages, for-each: { query: repos, items: '.[].full_name' } }
  latest: { get: '/repos/{item}/releases/latest', for-each: { query: repos, items: '.[].full_name' } }
";

struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]).arg(dir.path());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, port, _dir: dir }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A machine that only reaches out to others, as a run does.
fn peers(at: &str, secret: &str, field: &Field) -> Arc<Share> {
    let dir = field.dir.path().join(format!("peers-{}", field.runs.get()));
    peer(None, vec![at.to_owned()], secret, field.next(), &dir, &field.clock).1
}

fn peer(
    listen: Option<String>,
    bootstrap: Vec<String>,
    secret: &str,
    whose: Partition,
    dir: &Path,
    clock: &Clock,
) -> (Arc<Peers>, Arc<Share>) {
    let settings = peers::Settings {
        listen,
        bootstrap,
        remembered: Vec::new(),
        mdns: false,
        partitions: vec![whose],
        families: Vec::new(),
        trust_public: true,
        read_only: false,
        writers: Vec::new(),
        timeout: peers::TIMEOUT,
        group: Arc::new(Group::read(&Secret::new(secret)).unwrap()),
        key_file: None,
        standing_file: None,
        met_file: None,
        board: None,
    };
    let peers = Arc::new(Peers::new(settings, Arc::new(Stack::new(dir, clock.clone())), clock.clone()).unwrap());
    (peers.clone(), Arc::new(Share::new(vec![peers], clock.clone())))
}

/// Another process that takes part: says where it is, ends with its input.
async fn another(secret: &str) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(corpus::NOW));
    let listen = Some("/ip4/127.0.0.1/tcp/0".to_owned());
    let (peers, _share) = peer(listen, Vec::new(), secret, Partition::public(), dir.path(), &clock);
    peers.start();
    while peers.standing().listening.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{}", peers.standing().listening[0]);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

fn share(url: &str, clock: &Clock) -> Arc<Share> {
    let settings = Settings { url: Secret::new(url), timeout: TIMEOUT, read_only: false };
    let place: Arc<dyn Place> = Arc::new(Redis::new(&settings, clock.clone()).unwrap());
    Arc::new(Share::new(vec![place], clock.clone()))
}

/// The value below which so many of the times lie, in milliseconds.
fn quantile(times: &mut [f64], q: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * q) as usize]
}

async fn hits(table: &mut Table, server: &Server) {
    Table::section("A hit in Redis, beside GETs of the same bytes over the same client library; entries of 5 KB");
    let clock = Clock::manual(corpus::NOW);
    let place =
        Redis::new(&Settings { url: Secret::new(server.url()), timeout: TIMEOUT, read_only: false }, clock).unwrap();
    let mut entries = corpus::organisation(2_000);
    entries.retain(|entry| (4_000..6_000).contains(&entry.body.len()));
    entries.truncate(200);
    assert!(entries.len() > 50, "{}", entries.len());
    place.cutoffs().await;
    for entry in &entries {
        place.put(&Arc::new(entry.clone()), 3_600);
    }
    place.drained().await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    let wanted: Vec<Wanted> =
        entries.iter().map(|entry| Wanted { key: entry.key(), parts: entry.parts.clone(), known: None }).collect();
    let names: Vec<String> = redis::cmd("KEYS").arg("*:e:*").query_async(&mut bare).await.unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..10_000 {
        let one = &wanted[round % wanted.len()..=round % wanted.len()];
        let started = Instant::now();
        assert!(place.look_up(one).await[0].is_some());
        ours.push(table::ms(started.elapsed()));
        let started = Instant::now();
        let got: Vec<u8> = redis::cmd("GET").arg(&names[round % names.len()]).query_async(&mut bare).await.unwrap();
        assert!(got.len() > 4_000);
        theirs.push(table::ms(started.elapsed()));
    }
    let (hit, get) = (quantile(&mut ours, 0.5), quantile(&mut theirs, 0.5));
    Table::note(&format!("a bare GET: p50 {get:.3} ms, p99 {:.3} ms", quantile(&mut theirs, 0.99)));
    Table::note(&format!("a hit: p99 {:.3} ms", quantile(&mut ours, 0.99)));
    table.at_most("a hit, verified: p50", hit, 1.0, "ms");
    table.at_most("of the time of a bare GET", hit / get, 1.5, "x");
    let started = Instant::now();
    let all = place.look_up(&wanted).await;
    let together = table::ms(started.elapsed());
    assert!(all.iter().all(Option::is_some));
    Table::note(&format!("{} entries in one go: {together:.2} ms", wanted.len()));
}

struct Silent;

impl Progress for Silent {
    fn more(&self, _count: usize) {}
    fn done(&self, _report: &QueryReport) {}
}

struct Field {
    sim: Sim,
    dir: tempfile::TempDir,
    clock: Clock,
    runs: std::cell::Cell<u32>,
}

impl Field {
    /// Whose answers the next run is about.
    fn next(&self) -> Partition {
        Partition::named(&format!("run-{}", self.runs.get() + 1)).unwrap()
    }

    /// One run on a machine of its own, in milliseconds.
    async fn run(&self, share: Option<Arc<Share>>) -> f64 {
        self.runs.set(self.runs.get() + 1);
        let name = format!("run-{}", self.runs.get());
        let api = Api::parse(&self.sim.url()).unwrap();
        let options = Options::new(api.clone(), Some(Token::new(TOKEN).unwrap()));
        let upstream = Arc::new(GitHub::new(options, self.clock.clone()));
        let stack = Stack::new(self.dir.path().join(&name), self.clock.clone());
        let whose = Partition::named(&name).unwrap();
        let cache = Cache::new(api, whose, stack, upstream, TtlTable::default(), self.clock.clone()).with_share(share);
        let plan = Plan::parse(PLAN, "plan.yml", Path::new(".")).unwrap();
        let options = run::Options {
            output_dir: None,
            vars: BTreeMap::new(),
            ask: Ask::default(),
            batching: Batching::default(),
        };
        let started = Instant::now();
        let finished = run::run(&plan, &cache, &options, &Silent).await.unwrap();
        let took = table::ms(started.elapsed());
        assert!(finished.worst.is_none(), "{:?}", finished.index);
        took
    }
}

async fn bad_days(table: &mut Table, server: &Server) {
    Table::section("A run of 103 queries on an empty store, with a Redis or a peer in trouble, beside one without");
    let clock = Clock::manual(corpus::NOW);
    let sim = Sim::start(clock.clone());
    sim.token(TOKEN, "user:one");
    sim.with(|state| state.limit = 1_000_000);
    world::organisation(&sim, 50);
    let field = Field { sim, dir: tempfile::tempdir().unwrap(), clock, runs: std::cell::Cell::new(0) };
    let slow = format!("redis://127.0.0.1:{}", relay::slow(server.port, Duration::from_millis(30)));
    let lost = "redis://203.0.113.1:6379".to_owned();
    let dead = format!(
        "redis://127.0.0.1:{}",
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    );
    field.run(None).await;
    let secret = Group::generate().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap());
    let mut other = other.env(ANOTHER, &secret).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut at = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut at).unwrap();
    let at = at.trim().to_owned();
    let (tcp, port) = at.rsplit_once('/').unwrap();
    let slow_peer = format!("{tcp}/{}", relay::slow(port.parse().unwrap(), Duration::from_millis(30)));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead_peer = format!("{tcp}/{closed}");
    let stopped = |signal: &str| {
        assert!(Command::new("kill").arg(signal).arg(other.id().to_string()).status().unwrap().success());
    };
    let mut longer: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..7 {
        // In turn, so that what else this machine does hits all of them.
        let without = field.run(None).await;
        for (what, url) in
            [("Redis slow: 30 ms each", &slow), ("Redis dead", &dead), ("Redis behind lost packets", &lost)]
        {
            longer.entry(what).or_default().push(field.run(Some(share(url, &field.clock))).await - without);
        }
        server.signal("-STOP");
        longer
            .entry("Redis paused")
            .or_default()
            .push(field.run(Some(share(&server.url(), &field.clock))).await - without);
        server.signal("-CONT");
        let lost_peer = "/ip4/203.0.113.1/tcp/9100".to_owned();
        for (what, at) in [
            ("a peer that is well and has nothing", &at),
            ("a peer slow: 30 ms each", &slow_peer),
            ("a peer dead", &dead_peer),
            ("a peer behind lost packets", &lost_peer),
        ] {
            longer.entry(what).or_default().push(field.run(Some(peers(at, &secret, &field))).await - without);
        }
        stopped("-STOP");
        longer.entry("a peer paused").or_default().push(field.run(Some(peers(&at, &secret, &field))).await - without);
        stopped("-CONT");
    }
    drop(other.stdin.take());
    other.wait().unwrap();
    for (what, mut times) in longer {
        table.at_most(&format!("longer with {what}"), quantile(&mut times, 0.5), 100.0, "ms");
    }
}

fn main() {
    let mut table = Table::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Ok(secret) = std::env::var(ANOTHER) {
        return runtime.block_on(another(&secret));
    }
    let server = Server::start();
    runtime.block_on(async {
        hits(&mut table, &server).await;
        bad_days(&mut table, &server).await;
    });
    drop(server);
    assert!(table.missed == 0 || std::env::var_os("BENCH_REPORT_ONLY").is_some(), "{} figures missed", table.missed);
}
