//! Answers shared between peers: real libp2p over loopback, several nodes in one process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use octocache::cache::{Ask, Cache};
use octocache::clock::Clock;
use octocache::cutoff::{Cutoff, CutoffMode};
use octocache::github::{Backoff, GitHub, Options};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::share::peers::{Peers, Settings};
use octocache::share::seal::Group;
use octocache::share::{Place, Share, Tallied};
use octocache::stack::Stack;
use octocache::tier::TierName;
use octocache::token::{Secret, Token};

use crate::binary::BINARY;
use crate::flow::{Fixture, HIT};
use crate::harness::sim::Sim;
use crate::harness::world;
use crate::redis::RedisServer;
use crate::serve::Server;

/// A machine that takes part.
pub struct Member {
    pub cache: Cache,
    pub peers: Arc<Peers>,
}

pub struct How<'a> {
    secret: &'a str,
    bootstrap: Vec<String>,
    trust_public: bool,
    read_only: bool,
    writers: Vec<String>,
    partition: Partition,
    token: Option<&'a str>,
    listens: bool,
}

impl<'a> How<'a> {
    pub fn of(secret: &'a str) -> Self {
        Self {
            secret,
            bootstrap: Vec::new(),
            trust_public: false,
            read_only: false,
            writers: Vec::new(),
            partition: Partition::named("team").unwrap(),
            token: Some("ghp_one"),
            listens: true,
        }
    }

    fn by(mut self, other: &Member) -> Self {
        self.bootstrap.push(other.address());
        self
    }
}

impl Fixture {
    pub async fn member(&self, name: &str, how: How<'_>) -> Member {
        let api = Api::parse(&self.sim.url()).unwrap();
        let mut options = Options::new(api.clone(), how.token.map(|token| Token::new(token).unwrap()));
        options.backoff = Backoff { base: Duration::ZERO, retries: 2, ..Backoff::default() };
        let upstream = Arc::new(GitHub::new(options, self.clock.clone()));
        let stack = Arc::new(Stack::new(self.dir.path().join(name), self.clock.clone()));
        let settings = Settings {
            listen: how.listens.then(|| "/ip4/127.0.0.1/tcp/0".into()),
            bootstrap: how.bootstrap,
            remembered: Vec::new(),
            mdns: false,
            partitions: vec![Partition::public(), Partition::named("team").unwrap()],
            families: Vec::new(),
            trust_public: how.trust_public,
            read_only: how.read_only,
            writers: how.writers,
            timeout: Duration::from_secs(5),
            group: Arc::new(Group::read(&Secret::new(how.secret)).unwrap()),
            key_file: None,
            standing_file: None,
            met_file: None,
            board: None,
        };
        let peers = Arc::new(Peers::new(settings, stack.clone(), self.clock.clone()).unwrap());
        peers.start();
        let place: Arc<dyn Place> = peers.clone();
        let share = Arc::new(Share::new(vec![place], self.clock.clone()));
        let cache = Cache::new(api, how.partition, stack, upstream, TtlTable::default(), self.clock.clone());
        let member = Member { cache: cache.with_share(Some(share)), peers };
        until("it listens", || !how.listens || !member.peers.standing().listening.is_empty()).await;
        member
    }
}

impl Member {
    pub fn address(&self) -> String {
        self.peers.standing().listening[0].clone()
    }

    pub fn tallied(&self) -> Tallied {
        self.peers.tallied()
    }

    pub async fn get(&self, fx: &Fixture, path: &str) -> octocache::cache::Answer {
        self.cache.get(&fx.request(path), &Ask::default()).await.unwrap()
    }

    pub async fn knows(&self, entries: usize) {
        until("it is announced", || self.peers.standing().known >= entries).await;
    }

    async fn meets(&self, others: usize) {
        until("they meet", || self.peers.standing().peers.len() >= others).await;
    }
}

pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub const PATH: &str = "/repos/acme/repo-0001";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_has_the_others_answer_once_github_has_said_that_it_is_so() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 3);
    let secret = Group::generate().unwrap();
    let one = fx.member("one", How::of(&secret)).await;
    let two = fx.member("two", How::of(&secret).by(&one)).await;
    one.meets(1).await;
    let first = one.get(&fx, PATH).await;
    two.knows(1).await;
    fx.sim.take_counts();
    // Under another token: GitHub's 304 says that it is current, and that this token may have it.
    let second = two.get(&fx, PATH).await;
    assert_eq!((second.outcome, second.charged, second.requests), (Outcome::Confirmed, 0, 1));
    assert_eq!(second.entry.body, first.entry.body);
    assert_eq!(fx.sim.take_counts(), (1, 0));
    assert_eq!(two.get(&fx, PATH).await.outcome, HIT);
    // Who comes late learns of everything at once.
    one.get(&fx, "/repos/acme/repo-0002").await;
    let late = fx.member("late", How::of(&secret).by(&two)).await;
    late.knows(2).await;
    fx.sim.take_counts();
    assert_eq!(late.get(&fx, PATH).await.outcome, Outcome::Confirmed);
    assert_eq!(fx.sim.take_counts(), (1, 0));
    // Changed meanwhile: what the peers have is not the answer any more.
    fx.sim.put("/repos/acme/repo-0002", crate::harness::sim::Doc::dated(serde_json::json!({ "changed": true })));
    let changed = late.get(&fx, "/repos/acme/repo-0002").await;
    assert_eq!(&changed.entry.body[..], br#"{"changed":true}"#);
    let served = [&one, &two].map(|member| member.peers.standing().served.0).iter().sum::<u64>();
    assert!(served >= 2, "{served}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_answers_are_trusted_where_the_operator_says_so_and_only_while_fresh() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let secret = Group::generate().unwrap();
    let public = || How { partition: Partition::public(), token: None, ..How::of(&secret) };
    let one = fx.member("one", public()).await;
    let trusting = fx.member("trusting", How { trust_public: true, ..public() }.by(&one)).await;
    one.meets(1).await;
    one.get(&fx, PATH).await;
    trusting.knows(1).await;
    fx.sim.take_counts();
    let answer = trusting.get(&fx, PATH).await;
    assert_eq!((answer.outcome, answer.tier), (HIT, Some(TierName::Peer)));
    assert_eq!(fx.sim.take_counts(), (0, 0));
    // Beyond its lifetime nothing is taken on trust.
    let other = "/repos/acme/repo-0000";
    one.get(&fx, other).await;
    trusting.knows(2).await;
    fx.clock.advance(3_700);
    fx.sim.take_counts();
    let answer = trusting.get(&fx, other).await;
    assert_eq!(answer.outcome, Outcome::Confirmed);
    assert_eq!(fx.sim.take_counts().0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_another_secret_is_not_let_in() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let (secret, other) = (Group::generate().unwrap(), Group::generate().unwrap());
    let one = fx.member("one", How::of(&secret)).await;
    let stranger = fx.member("stranger", How::of(&other).by(&one)).await;
    let member = fx.member("member", How::of(&secret).by(&one)).await;
    one.meets(1).await;
    one.get(&fx, PATH).await;
    member.knows(1).await;
    assert_eq!((stranger.peers.standing().known, stranger.peers.standing().peers.len()), (0, 0));
    assert!(matches!(stranger.get(&fx, PATH).await.outcome, Outcome::Fetched(_)));
    assert_eq!(one.peers.standing().peers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_say_nothing_and_only_writers_are_heard() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 3);
    let secret = Group::generate().unwrap();
    let writer = fx.member("writer", How::of(&secret)).await;
    let reader = fx.member("reader", How { read_only: true, ..How::of(&secret) }.by(&writer)).await;
    let picky = How { writers: vec![writer.peers.standing().me], ..How::of(&secret) };
    let picky = fx.member("picky", picky.by(&writer)).await;
    let other = fx.member("other", How::of(&secret).by(&picky)).await;
    writer.meets(2).await;
    picky.meets(2).await;
    reader.get(&fx, "/repos/acme/repo-0000").await;
    other.get(&fx, "/repos/acme/repo-0002").await;
    writer.get(&fx, PATH).await;
    for member in [&reader, &picky] {
        member.knows(1).await;
    }
    other.knows(2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(picky.peers.standing().known, 1, "of the other's nothing is taken");
    assert!(picky.tallied().refused > 0);
    assert_eq!(reader.tallied().written, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_outdates_is_outdated_for_all() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let secret = Group::generate().unwrap();
    let one = fx.member("one", How::of(&secret)).await;
    let two = fx.member("two", How::of(&secret).by(&one)).await;
    one.meets(1).await;
    one.get(&fx, PATH).await;
    two.knows(1).await;
    two.get(&fx, PATH).await;
    assert_eq!(two.get(&fx, PATH).await.outcome, HIT);
    fx.clock.advance(10);
    let gone = Cutoff { scope: "repo:acme/repo-0001".parse().unwrap(), at: fx.clock.now(), mode: CutoffMode::Gone };
    one.cache.invalidate_all(&[gone]).unwrap();
    until("it is forgotten", || two.peers.standing().known == 0).await;
    fx.clock.advance(1);
    two.cache.hear().await;
    fx.sim.take_counts();
    assert!(matches!(two.get(&fx, PATH).await.outcome, Outcome::Fetched(_)));
    assert_eq!(fx.sim.take_counts(), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_that_ask_at_once_ask_github_once() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 20);
    let secret = Group::generate().unwrap();
    let mut members = vec![fx.member("m0", How::of(&secret)).await];
    for n in 1..5 {
        let mut how = How::of(&secret);
        how.bootstrap = members.iter().map(Member::address).collect();
        members.push(fx.member(&format!("m{n}"), how).await);
    }
    for member in &members {
        member.meets(4).await;
    }
    fx.sim.take_counts();
    let all = members.iter().map(async |member| {
        for n in 0..20 {
            member.get(&fx, &format!("/repos/acme/repo-{n:04}")).await;
        }
    });
    futures_util::future::join_all(all).await;
    let (sent, charged) = fx.sim.take_counts();
    assert_eq!(charged, 20, "{sent} were sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_leaves_what_it_has_with_those_who_stay_but_not_what_must_be_gone() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 4);
    let secret = Group::generate().unwrap();
    let stays = fx.member("stays", How::of(&secret)).await;
    let guest = fx.member("guest", How { listens: false, ..How::of(&secret) }.by(&stays)).await;
    stays.meets(1).await;
    let other = "/repos/acme/repo-0002";
    for path in [PATH, other] {
        guest.get(&fx, path).await;
    }
    guest.cache.shared().await;
    drop(guest);
    until("it is missed", || stays.peers.standing().peers.is_empty()).await;
    fx.clock.advance(10);
    let gone = Cutoff { scope: "repo:acme/repo-0002".parse().unwrap(), at: fx.clock.now(), mode: CutoffMode::Gone };
    stays.peers.outdate(&[gone]);
    let late = fx.member("late", How::of(&secret).by(&stays)).await;
    late.knows(1).await;
    assert_eq!(late.get(&fx, PATH).await.outcome, Outcome::Confirmed);
    assert!(matches!(late.get(&fx, other).await.outcome, Outcome::Fetched(_)));
    late.knows(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dies_is_no_trouble() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 4);
    let secret = Group::generate().unwrap();
    let one = fx.member("one", How::of(&secret)).await;
    let two = fx.member("two", How::of(&secret).by(&one)).await;
    one.meets(1).await;
    one.get(&fx, PATH).await;
    one.get(&fx, "/repos/acme/repo-0002").await;
    two.knows(2).await;
    drop(one);
    until("it is missed", || two.peers.standing().peers.is_empty()).await;
    let started = Instant::now();
    for path in [PATH, "/repos/acme/repo-0002", "/repos/acme/repo-0003"] {
        assert!(matches!(two.get(&fx, path).await.outcome, Outcome::Fetched(_)));
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// Whatever goes through a relay to a port of loopback, in both directions. Returns its port, too.
fn tapped(port: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, heard) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<u8>>>::default());
    let tap = heard.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                let tap = tap.clone();
                std::thread::spawn(move || {
                    let mut chunk = vec![0; 16 << 10];
                    while let Ok(read @ 1..) = from.read(&mut chunk) {
                        tap.lock().unwrap().extend_from_slice(&chunk[..read]);
                        if to.write_all(&chunk[..read]).is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    (own, heard)
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that takes part, before the same GitHub as the others.
fn taking_part(sim: &Sim, secret: &str, port: u16, bootstrap: &[u16]) -> Server {
    let mut server = Server::before(sim.clone());
    server.env = vec![
        ("OCTOCACHE_TEAM_SECRET", secret.to_owned()),
        ("OCTOCACHE_DIR", server.dir.path().join("store").display().to_string()),
    ];
    let plan = server.dir.path().join("plan.yml");
    let peers: Vec<String> = bootstrap.iter().map(|port| format!("'/ip4/127.0.0.1/tcp/{port}'")).collect();
    let text = format!(
        "version: 1\nshare:\n  secret: '${{OCTOCACHE_TEAM_SECRET}}'\n  p2p: {{ trust-public: true, bootstrap: [{}], timeout-ms: 5000 }}\nqueries: {{ user: {{ get: /users/octocat }} }}\n",
        peers.join(", ")
    );
    std::fs::write(&plan, text).unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    server.run(&["--p2p", "--p2p-listen", &listen, "--plan", plan.to_str().unwrap()]);
    server
}

fn nobodys(server: &Server, path: &str) -> String {
    let url = format!("{}{path}", server.tcp);
    let output = Command::new("curl").args(["-sS", "-i", "--max-time", "20", &url]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find(|line| line.to_lowercase().starts_with("cache-status")).unwrap_or_default().to_owned()
}

#[test]
fn servers_that_take_part_a_late_one_and_a_guest_share_and_the_wire_shows_nothing() {
    let sim = Sim::start(Clock::System);
    world::organisation(&sim, 10);
    let secret = Group::generate().unwrap();
    let (one_port, two_port, late_port) = (free_port(), free_port(), free_port());
    let (tap, heard) = tapped(one_port);
    let one = taking_part(&sim, &secret, one_port, &[]);
    let two = taking_part(&sim, &secret, two_port, &[tap]);
    let shares = |server: &Server, path: &str| {
        let started = Instant::now();
        let standing = || -> serde_json::Value {
            let text = std::fs::read(server.dir.path().join("store/peers.json")).unwrap_or_default();
            serde_json::from_slice(&text).unwrap_or_default()
        };
        while standing()["peers"].as_array().is_none_or(Vec::is_empty) || standing()["known"] == 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "{path}: {}", standing());
            std::thread::sleep(Duration::from_millis(20));
        }
        nobodys(server, path)
    };
    assert!(nobodys(&one, PATH).contains("miss"));
    let (sent, _) = sim.take_counts();
    assert_eq!(sent, 1);
    let status = shares(&two, PATH);
    assert!(status.contains("hit"), "{status}");
    let late = taking_part(&sim, &secret, late_port, &[two_port]);
    let status = shares(&late, PATH);
    assert!(status.contains("hit"), "{status}");
    assert_eq!(sim.take_counts(), (0, 0));
    // A process that comes and goes reaches out to them.
    let guest = |args: &[&str]| {
        let mut octocache = Command::new(BINARY);
        octocache.args(args).env_clear().env("HOME", late.dir.path()).current_dir(late.dir.path());
        octocache.env("OCTOCACHE_API_URL", sim.url()).env("OCTOCACHE_TEAM_SECRET", &secret);
        octocache.env("OCTOCACHE_DIR", late.dir.path().join(if args[0] == "run" { "guest" } else { "store" }));
        if args[0] != "run" {
            octocache.env("OCTOCACHE_PLAN", ".github/octocache.yml");
        }
        let output = octocache.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let plan = std::fs::read_to_string(late.dir.path().join("plan.yml")).unwrap();
    std::fs::write(late.dir.path().join("guest.yml"), plan.replace("get: /users/octocat", &format!("get: {PATH}")))
        .unwrap();
    let index: serde_json::Value = serde_json::from_str(&guest(&["run", "--plan", "guest.yml", "--json"])).unwrap();
    assert_eq!((&index["totals"]["requests"], &index["totals"]["hits"]), (&0.into(), &1.into()), "{index}");
    std::fs::create_dir(late.dir.path().join(".github")).unwrap();
    std::fs::write(late.dir.path().join(".github/octocache.yml"), &plan).unwrap();
    let said = guest(&["doctor"]);
    assert!(said.contains("peers: at least one is reached"), "{said}");
    let said = guest(&["cache", "peers"]);
    assert!(said.contains("writer") && said.contains("entries are known"), "{said}");
    let metrics = String::from_utf8(two.curl("/metrics", &[]).body).unwrap();
    assert!(metrics.contains("octocache_shared_up{tier=\"peer\"} 1"), "{metrics}");
    assert!(metrics.contains("octocache_hits_total{class=\"repo\",tier=\"peer\"} 1"), "{metrics}");
    // What went over the wire: neither keys nor bodies, tokens, the secret, or what it is about.
    let heard = heard.lock().unwrap();
    assert!(heard.len() > 2_000, "{}", heard.len());
    for word in ["acme", "repo-0001", "full_name", "octocache", "etag", "application/json", &secret, &secret[6..20]] {
        assert!(!heard.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
    }
}

/// Five processes that begin at once, each with a store of its own, and one server that they all know.
fn five_runners(token: Option<&str>) -> (u64, Vec<(String, u16)>) {
    let sim = Sim::start(Clock::System);
    world::organisation(&sim, 10);
    sim.token(crate::serve::TOKEN, "user:one");
    let (secret, port) = (Group::generate().unwrap(), free_port());
    let server = taking_part(&sim, &secret, port, &[]);
    let plan = format!(
        "version: 1
share:
  secret: '${{OCTOCACHE_TEAM_SECRET}}'
  p2p: {{ trust-public: true, partitions: [public, own], bootstrap: ['/ip4/127.0.0.1/tcp/{port}'], timeout-ms: 5000 }}
queries:
  repos: {{ recipe: org-repos, org: acme }}
  issues: {{ get: '/repos/{{item}}/issues?per_page=100', for-each: {{ query: repos, items: '.[].full_name' }} }}
  languages: {{ get: '/repos/{{item}}/languages', for-each: {{ query: repos, items: '.[].full_name' }} }}
  user: {{ get: /users/octocat }}
"
    );
    std::fs::write(server.dir.path().join("five.yml"), plan).unwrap();
    sim.take_counts();
    let run = |name: String| {
        let mut octocache = Command::new(BINARY);
        octocache.args(["run", "--plan", "five.yml", "--json", "--output-dir"]).arg(format!("out-{name}"));
        octocache.env_clear().env("HOME", server.dir.path()).current_dir(server.dir.path());
        octocache.env("OCTOCACHE_API_URL", sim.url()).env("OCTOCACHE_DIR", server.dir.path().join(&name));
        octocache.envs(token.map(|token| ("OCTOCACHE_TOKEN", token))).env("OCTOCACHE_TEAM_SECRET", &secret);
        octocache.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runners: Vec<Child> = (0..5).map(|n| run(format!("runner-{n}"))).collect();
    let mut charged = 0;
    for runner in runners {
        let output = runner.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let index: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        charged += index["totals"]["charged"].as_u64().unwrap();
    }
    (charged, sim.log().into_iter().map(|one| (one.target, one.status)).collect())
}

#[test]
fn five_processes_that_nobody_can_dial_ask_github_each_question_once() {
    for token in [None, Some(crate::serve::TOKEN)] {
        let (charged, log) = five_runners(token);
        // Under a token a 304 is free, and how it is proved that a copy is current.
        let mut asked: Vec<&str> = log
            .iter()
            .filter(|(_, status)| token.is_none() || *status != 304)
            .map(|(target, _)| target.as_str())
            .collect();
        asked.sort_unstable();
        let all = asked.len();
        asked.dedup();
        assert_eq!(asked.len(), all, "{token:?}: {log:#?}");
        assert_eq!(charged, all as u64, "{token:?}: {log:#?}");
    }
}

#[test]
fn a_token_is_the_secret_only_where_somebody_says_so_and_that_is_told() {
    let sim = Sim::start(Clock::System);
    let server = Server::before(sim.clone());
    let run = |args: &[&str], share: &str, token: Option<&str>| {
        let plan = format!("version: 1\nshare: {{ {share} }}\nqueries: {{ user: {{ get: /users/octocat }} }}\n");
        std::fs::create_dir_all(server.dir.path().join(".github")).unwrap();
        std::fs::write(server.dir.path().join(".github/octocache.yml"), plan).unwrap();
        let mut octocache = Command::new(BINARY);
        octocache.args(args).env_clear().env("HOME", server.dir.path());
        octocache.current_dir(server.dir.path()).env("OCTOCACHE_API_URL", sim.url());
        octocache.env("OCTOCACHE_PLAN", ".github/octocache.yml");
        octocache.envs(token.map(|token| ("OCTOCACHE_TOKEN", token)));
        let output = octocache.output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let peers = "p2p: { bootstrap: [/ip4/127.0.0.1/tcp/9] }";
    let (show, token) = (["config", "show"], Some(crate::serve::TOKEN));
    let of_token = format!("secret-from-token: true, {peers}");
    let said = run(&show, peers, token);
    assert!(said.contains("no peers: OCTOCACHE_SHARE_SECRET is not set"), "{said}");
    let said = run(&show, &of_token, None);
    assert!(said.contains("no peers: there is no token to be it"), "{said}");
    let said = run(&show, &of_token, token);
    assert!(said.contains("others  peers") && !said.contains(crate::serve::TOKEN), "{said}");
    let said = run(&["config", "check"], &format!("{of_token}, secret: '${{A}}'"), token);
    assert!(said.contains("a variable and from the token"), "{said}");
    // It is told each time that it is used.
    let said = run(&["run"], &of_token, token);
    assert!(said.contains("is the shared secret (`secret-from-token`)"), "{said}");
}

/// A plan whose peers nobody names.
fn nameless(redis: Option<&RedisServer>) -> String {
    let redis = redis.map(|redis| format!("  redis: {{ url: '{}', timeout-ms: 5000 }}\n", redis.url()));
    format!(
        "version: 1\nshare:\n  secret: '${{OCTOCACHE_TEAM_SECRET}}'\n{}  p2p: {{ trust-public: true, timeout-ms: 5000 }}\nqueries: {{ repo: {{ get: {PATH} }} }}\n",
        redis.unwrap_or_default()
    )
}

#[test]
fn peers_find_each_other_by_notes_in_redis_and_a_run_knows_whom_an_earlier_one_met() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let sim = Sim::start(Clock::System);
    world::organisation(&sim, 10);
    let secret = Group::generate().unwrap();
    let start = || {
        let mut server = Server::before(sim.clone());
        server.env = vec![
            ("OCTOCACHE_TEAM_SECRET", secret.clone()),
            ("OCTOCACHE_DIR", server.dir.path().join("store").display().to_string()),
        ];
        let plan = server.dir.path().join("plan.yml");
        std::fs::write(&plan, nameless(Some(&redis))).unwrap();
        server.run(&["--p2p", "--p2p-listen", "/ip4/127.0.0.1/tcp/0", "--plan", plan.to_str().unwrap()]);
        server
    };
    let peers = |server: &Server| {
        let text = std::fs::read(server.dir.path().join("store/peers.json")).unwrap_or_default();
        let standing: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        standing["peers"].as_array().map_or(0, Vec::len)
    };
    // Somebody has left nonsense where notes are.
    let hour = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 3_600;
    let id = Group::read(&Secret::new(secret.as_str())).unwrap().id();
    for (hour, what) in [(hour, "/ip4/10.0.0.5\n\u{7f}\nnobody/p2p/12D3\n"), (hour + 1, "/dns4/x/tcp/1/p2p/nobody\n")] {
        let name = format!("octocache:v1:{{peers:{id}}}:{hour}");
        let mut cli = Command::new("redis-cli");
        assert!(cli.args(["-p", &redis.port.to_string(), "SET", &name, what]).status().unwrap().success());
    }
    let mut cli = Command::new("redis-cli");
    let wrong = format!("octocache:v1:{{peers:{id}}}:{}", hour - 1);
    assert!(cli.args(["-p", &redis.port.to_string(), "SADD", &wrong, "x"]).status().unwrap().success());
    let one = start();
    let noted = || {
        let mut all = String::new();
        for hour in [hour, hour + 1] {
            let name = format!("octocache:v1:{{peers:{id}}}:{hour}");
            let found = Command::new("redis-cli").args(["-p", &redis.port.to_string(), "GET", &name]).output().unwrap();
            all += &String::from_utf8_lossy(&found.stdout);
        }
        all.contains("/ip4/127.0.0.1/tcp/")
    };
    let started = Instant::now();
    while !noted() {
        assert!(started.elapsed() < Duration::from_secs(30), "no note");
        std::thread::sleep(Duration::from_millis(20));
    }
    let two = start();
    while peers(&two) == 0 {
        assert!(started.elapsed() < Duration::from_mins(1), "they do not meet");
        std::thread::sleep(Duration::from_millis(20));
    }
    nobodys(&one, PATH);
    sim.take_counts();
    // A run elsewhere finds them by Redis, and its next one without.
    let dir = tempfile::tempdir().unwrap();
    let run = |plan: String, store: &str| {
        std::fs::write(dir.path().join("plan.yml"), plan).unwrap();
        let mut octocache = Command::new(BINARY);
        octocache.args(["run", "--plan", "plan.yml", "--json"]).env_clear().env("HOME", dir.path());
        octocache.current_dir(dir.path()).env("OCTOCACHE_API_URL", sim.url()).env("OCTOCACHE_TEAM_SECRET", &secret);
        let output = octocache.env("OCTOCACHE_DIR", dir.path().join(store)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let index: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        index["totals"]["hits"] == 1 && index["totals"]["requests"] == 0
    };
    assert!(run(nameless(Some(&redis)), "a"));
    let met = std::fs::read_to_string(dir.path().join("a/met.json")).unwrap();
    assert!(met.contains("/ip4/127.0.0.1/tcp/"), "{met}");
    drop(redis);
    std::fs::create_dir_all(dir.path().join("b")).unwrap();
    std::fs::copy(dir.path().join("a/met.json"), dir.path().join("b/met.json")).unwrap();
    assert!(run(nameless(None), "b"));
    assert_eq!(sim.take_counts(), (0, 0));
}
