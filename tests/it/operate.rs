//! Running a server for a team: deliveries, numbers, the dashboard, another configuration, a schedule.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use octocache::cache::{Ask, Behind, Cache};
use octocache::event::{self, Payload};
use octocache::github::{GitHub, Options};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::stack::Stack;
use octocache::stats::Stats;
use octocache::token::Token;
use ring::hmac;
use serde_json::{Value, json};

use crate::flow::Fixture;
use crate::harness::sim::{Doc, Fault};
use crate::harness::world;
use crate::serve::{Server, TOKEN, has};

const SECRET: &str = "It's a Secret to Everybody";

/// A server that takes deliveries.
pub fn hooked(args: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secrets");
    std::fs::write(&file, format!("an older secret\n{SECRET}\n")).unwrap();
    let server = Server::start(&[&["--webhook-secret-file", file.to_str().unwrap()], args].concat());
    (server, dir)
}

fn signature(body: &[u8], secret: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    format!("sha256={}", data_encoding::HEXLOWER.encode(tag.as_ref()))
}

/// One connection to a server, for requests as they are written.
pub struct Line(pub TcpStream);

impl Line {
    pub fn to(address: &str) -> Self {
        let stream = TcpStream::connect(address.strip_prefix("http://").unwrap().trim_end_matches("/webhook")).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// Sends a head and a body; the status and the body of the answer.
    pub fn send(&mut self, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.0.write_all(&[head.as_bytes(), b"\r\n", body].concat()).unwrap();
        self.answer()
    }

    pub fn answer(&mut self) -> (u16, Vec<u8>) {
        let (mut all, mut chunk) = (Vec::new(), [0; 16 << 10]);
        loop {
            let read = self.0.read(&mut chunk).unwrap();
            assert!(read > 0, "the connection ends within an answer: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&chunk[..read]);
            let Some(at) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&all[..at]).to_ascii_lowercase();
            let length: usize =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if all.len() >= at + 4 + length {
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), all.split_off(at + 4));
            }
        }
    }

    pub fn deliver(&mut self, id: &str, event: &str, body: &[u8]) -> (u16, Value) {
        let (status, answer) = self.send(&head(id, event, body, &signature(body, SECRET)), body);
        (status, serde_json::from_slice(&answer).unwrap())
    }

    pub fn get(&mut self, path: &str) -> (u16, Vec<u8>) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"), b"")
    }
}

pub fn head(id: &str, event: &str, body: &[u8], signature: &str) -> String {
    format!(
        "POST /webhook HTTP/1.1\r\nHost: hooks.example\r\nContent-Type: application/json\r\nX-GitHub-Delivery: {id}\r\n\
         X-GitHub-Event: {event}\r\nX-Hub-Signature-256: {signature}\r\nContent-Length: {}\r\n",
        body.len()
    )
}

/// Numbers by name and labels, as Prometheus would read them, without their fractions.
fn metrics(server: &Server) -> std::collections::BTreeMap<String, u64> {
    let (status, text) = Line::to(&server.tcp).get("/metrics");
    assert_eq!(status, 200);
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.parse::<f64>().unwrap() as u64)).collect()
}

/// Tries until it is so, for a while; what takes longer has failed.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    started.elapsed()
}

pub fn opened(repo: &str, number: u64) -> Vec<u8> {
    let owner = repo.split('/').next().unwrap();
    let payload = json!({
        "action": "opened", "issue": { "number": number },
        "repository": { "full_name": repo, "owner": { "login": owner } },
    });
    payload.to_string().into_bytes()
}

#[test]
fn a_delivery_outdates_what_it_is_about_and_nothing_else() {
    let (server, _secret) = hooked(&[]);
    let paths = ["/repos/acme/repo-0001/issues", "/repos/acme/repo-0002/issues", "/users/octocat"];
    let mut line = Line::to(&server.tcp);
    for path in paths {
        assert_eq!(line.get(path).0, 200);
    }
    let hit = |path: &str| server.curl(path, &[]).cache_status().starts_with("octocache; hit");
    assert!(paths.iter().all(|path| hit(path)));
    let started = Instant::now();
    let (status, said) = line.deliver("d-1", "issues", &opened("acme/repo-0001", 7));
    let answered = started.elapsed();
    assert_eq!((status, &said["message"]), (202, &json!("accepted")));
    assert!(answered < Duration::from_millis(100), "answered after {answered:?}");
    server.sim.put("/repos/acme/repo-0001/issues", Doc::list(vec![json!({ "number": 7, "title": "new" })]));
    eventually("outdated", || !hit(paths[0]));
    assert!(server.curl(paths[0], &[]).json()[0]["title"] == "new");
    assert!(hit(paths[1]) && hit(paths[2]));
    // The same delivery again does nothing again.
    assert_eq!(line.deliver("d-1", "issues", &opened("acme/repo-0001", 7)).0, 200);
    let numbers = metrics(&server);
    assert_eq!(numbers["octocache_webhook_deliveries_total{result=\"accepted\"}"], 1);
    assert_eq!(numbers["octocache_webhook_deliveries_total{result=\"repeated\"}"], 1);
    assert_eq!(numbers["octocache_webhook_events_total{event=\"issues\"}"], 1);
}

#[test]
fn what_is_no_delivery_of_ours_is_refused_and_outdates_nothing() {
    let (server, _secret) = hooked(&["--webhook-listen", "127.0.0.1:0"]);
    assert!(server.curl("/repos/acme/repo-0001/issues", &[]).status == 200);
    let (body, other) = (opened("acme/repo-0001", 7), opened("acme/repo-0001", 8));
    let good = signature(&body, SECRET);
    let without = |name: &str| {
        let head = head("d-1", "issues", &body, &good);
        head.lines().filter(|line| !line.starts_with(name)).fold(String::new(), |all, line| all + line + "\r\n")
    };
    let cases: Vec<(String, &[u8], u16)> = vec![
        (head("d-1", "issues", &other, &good), &other, 401),
        (head("d-1", "issues", &body, &signature(&body, "not the secret")), &body, 401),
        (head("d-1", "issues", &body, &good[..good.len() - 1]), &body, 401),
        (head("d-1", "issues", &body, good.strip_prefix("sha256=").unwrap()), &body, 401),
        (head("d-1", "issues", &body, &good.replace("sha256", "sha1")), &body, 401),
        (head("d-1", "issues", &body, &format!("{good}\r\nX-Hub-Signature-256: {good}")), &body, 401),
        (head("d-1", "issues", &body, ""), &body, 401),
        (without("X-Hub-Signature-256"), &body, 401),
        (without("X-GitHub-Delivery"), &body, 400),
        (without("X-GitHub-Event"), &body, 400),
        (head("d 1", "issues", &body, &good), &body, 400),
        (head("d-1", "x\u{e9}", &body, &good), &body, 400),
        (head("d-1", "issues", &body, &good).replace("POST", "PUT"), &body, 405),
        (head("d-1", "issues", b"[1]", &signature(b"[1]", SECRET)), b"[1]", 400),
        (head("d-1", "issues", b"{", &signature(b"{", SECRET)), b"{", 400),
    ];
    for address in [&server.tcp, &server.deliveries] {
        for (head, body, want) in &cases {
            assert_eq!(Line::to(address).send(head, body).0, *want, "{head}");
        }
    }
    // Too large by its own word, and too large once it has come.
    let mut line = Line::to(&server.deliveries);
    let large = head("d-1", "issues", &body, &good);
    let large = large.replace(&format!("Content-Length: {}", body.len()), &format!("Content-Length: {}", 27 << 20));
    assert_eq!(line.send(&large, b"").0, 413);
    // The address for deliveries takes nothing else, whatever it is told.
    for path in ["/repos/acme/repo-0001/issues", "/metrics", "/_octocache/", "/graphql"] {
        assert_eq!(Line::to(&server.deliveries).get(path).0, 404, "{path}");
    }
    assert_eq!(Line::to(&server.deliveries).get("/healthz").0, 200);
    assert!(server.curl("/repos/acme/repo-0001/issues", &[]).cache_status().starts_with("octocache; hit"));
    // The older secret signs, too: both are in force while one is changed for the other.
    let older = head("d-2", "issues", &body, &signature(&body, "an older secret"));
    assert_eq!(line_of(&server).send(&older, &body).0, 202);
    // Without a secret there is no door.
    let server = Server::start(&[]);
    assert_eq!(Line::to(&server.tcp).send(&head("d-1", "issues", &body, &good), &body).0, 404);
}

fn line_of(server: &Server) -> Line {
    Line::to(&server.deliveries)
}

#[test]
fn payloads_come_in_pieces_as_forms_and_large() {
    let (server, _secret) = hooked(&[]);
    let body = opened("acme/repo-0001", 7);
    let chunked = |body: &[u8], id: &str| {
        let head = head(id, "issues", body, &signature(body, SECRET));
        let head = head.replace(&format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked");
        let mut line = Line::to(&server.tcp);
        line.0.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        for piece in body.chunks(body.len() / 7 + 1) {
            line.0.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            line.0.write_all(&[piece, b"\r\n"].concat()).unwrap();
        }
        line.0.write_all(b"0\r\n\r\n").unwrap();
        line.answer().0
    };
    assert_eq!(chunked(&body, "pieces"), 202);
    // 25 MB is GitHub's own bound.
    let text = String::from_utf8(body.clone()).unwrap();
    let large = text.replacen('{', &format!("{{\"padding\":\"{}\",", "x".repeat(25 << 20)), 1).into_bytes();
    assert_eq!(chunked(&large, "large-pieces"), 202);
    // Strangers who hold the places for large ones keep no small one waiting.
    let strangers: Vec<Line> = (0..6)
        .map(|n| {
            let mut line = Line::to(&server.tcp);
            let claim = head(&format!("s-{n}"), "issues", &large, &signature(b"", "no secret"));
            line.0.write_all(format!("{claim}\r\n{{").as_bytes()).unwrap();
            line
        })
        .collect();
    let asked = Instant::now();
    assert_eq!(Line::to(&server.tcp).deliver("small", "issues", &body).0, 202);
    assert!(asked.elapsed() < Duration::from_secs(2), "it waited {:?}", asked.elapsed());
    drop(strangers);
    assert_eq!(Line::to(&server.tcp).deliver("large", "issues", &large).0, 202);
    let form = format!("payload={}", text.replace('"', "%22").replace('{', "%7B").replace('}', "%7D")).into_bytes();
    let head = head("form", "issues", &form, &signature(&form, SECRET));
    let head = head.replace("application/json", "application/x-www-form-urlencoded");
    assert_eq!(Line::to(&server.tcp).send(&head, &form).0, 202);
    // One that breaks off, and one that never comes, outdate nothing and hold nobody up.
    drop(Line::to(&server.tcp).0.write_all(format!("{head}\r\npay").as_bytes()));
    eventually("applied", || metrics(&server)["octocache_webhook_applied_total"] > 4);
}

#[test]
fn every_published_payload_is_taken() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/node/node_modules/@octokit/webhooks-examples/api.github.com/index.json");
    let Ok(text) = std::fs::read(&file) else {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", file.display());
        return eprintln!("SKIPPED: {} is missing; scripts/test installs it", file.display());
    };
    let (server, _secret) = hooked(&[]);
    let mut line = Line::to(&server.tcp);
    let events: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let mut taken = 0_u32;
    for event in &events {
        let name = event["name"].as_str().unwrap();
        for (at, example) in event["examples"].as_array().unwrap().iter().enumerate() {
            let (status, said) = line.deliver(&format!("{name}-{at}"), name, example.to_string().as_bytes());
            assert_eq!((status, &said["message"]), (202, &json!("accepted")), "{name} {at}");
            taken += 1;
        }
    }
    assert!(taken > 300, "{taken} payloads");
    let numbers = metrics(&server);
    assert_eq!(numbers["octocache_webhook_deliveries_total{result=\"accepted\"}"], u64::from(taken));
    assert!(!numbers.keys().any(|name| name.contains("event=\"other\"")), "every published event has a row");
}

#[test]
fn a_burst_of_deliveries_leaves_the_clients_their_hits() {
    let (server, _secret) = hooked(&[]);
    assert_eq!(server.curl("/users/octocat", &[]).status, 200);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut line = Line::to(&server.tcp);
                for n in 0..2_500 {
                    let body = opened(&format!("acme/burst-{:04}", n % 300), n);
                    assert_eq!(line.deliver(&format!("b-{worker}-{n}"), "issues", &body).0, 202);
                }
            });
        }
        let mut line = Line::to(&server.tcp);
        let mut slowest = Duration::ZERO;
        for _ in 0..300 {
            let asked = Instant::now();
            assert_eq!(line.get("/users/octocat").0, 200);
            slowest = slowest.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(slowest < Duration::from_secs(1), "a hit took {slowest:?}");
    });
    println!("10,000 deliveries in {:?}", started.elapsed());
    eventually("all applied", || metrics(&server)["octocache_webhook_applied_total"] >= 10_000);
    // What the burst was not about is as it was: nothing was widened to everything.
    assert!(server.curl("/users/octocat", &[]).cache_status().starts_with("octocache; hit"));
    let sent = server.sim.take_counts().0;
    assert_eq!(sent, 1, "requests to GitHub");
}

#[test]
fn what_became_private_leaves_memory_and_disk() {
    let (server, _secret) = hooked(&["--max-loose", "0"]);
    // Clients that follow `Link` ask for later pages by number.
    let page = "/repositories/1/issues?page=2";
    for path in ["/repos/acme/repo-0001", "/repos/acme/repo-0001/issues", "/repos/acme/repo-0002", page] {
        assert_eq!(server.curl(path, &[]).status, 200);
    }
    let store = server.dir.path().join(".cache/octocache");
    let held = || {
        let run = Command::new(crate::binary::BINARY)
            .args(["cache", "list", "--cache-dir", store.to_str().unwrap()])
            .env("HOME", server.dir.path())
            .output()
            .unwrap();
        String::from_utf8(run.stdout).unwrap()
    };
    eventually("written", || held().matches("/repos/acme/repo-000").count() == 3 && held().contains(page));
    let payload = json!({
        "action": "privatized",
        "repository": { "id": 1, "full_name": "acme/repo-0001", "private": true, "owner": { "login": "acme" } },
    });
    assert_eq!(Line::to(&server.tcp).deliver("p", "repository", payload.to_string().as_bytes()).0, 202);
    eventually("removed", || !held().contains("repo-0001") && !held().contains(page));
    assert!(held().contains("/repos/acme/repo-0002"));
    server.sim.with(|state| {
        state.docs.retain(|path, _| !path.contains("repo-0001") && !path.starts_with("/repositories/1/"));
    });
    for path in ["/repos/acme/repo-0001", page] {
        assert_eq!(server.curl(path, &[]).status, 404, "{path}");
        let again = server.curl(path, &["-H", "Cache-Control: only-if-cached"]);
        assert_ne!(again.status, 200, "{}", again.head);
    }
}

#[test]
fn what_is_outdated_is_fetched_again_if_wanted() {
    let (server, _secret) = hooked(&["--webhook-refetch"]);
    assert_eq!(server.curl("/repos/acme/repo-0001/issues", &[]).status, 200);
    server.sim.put("/repos/acme/repo-0001/issues", Doc::list(vec![json!({ "number": 7, "title": "new" })]));
    server.sim.take_counts();
    assert_eq!(Line::to(&server.tcp).deliver("r", "issues", &opened("acme/repo-0001", 7)).0, 202);
    eventually("asked without a client", || !server.sim.log().is_empty());
    let sent = server.sim.log();
    assert!(sent[0].target.starts_with("/repos/acme/repo-0001/issues"), "{}", sent[0].target);
}

/// GitHub's own answers lag behind its events: within the minute after one, a 304 proves little.
#[tokio::test(start_paused = true)]
async fn an_event_that_comes_before_the_change_leaves_no_old_answer_behind() {
    for resident in [false, true] {
        let fixture = Fixture::new();
        let (sim, clock) = (&fixture.sim, &fixture.clock);
        world::organisation(sim, 2);
        let api = Api::parse(&sim.url()).unwrap();
        let mut options = Options::new(api.clone(), Some(Token::new("ghs_one").unwrap()));
        options.concurrency = 4;
        sim.token("ghs_one", "one");
        let github = Arc::new(GitHub::over(sim.wire(), options, clock.clone()));
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::new(dir.path(), clock.clone());
        let stack = if resident { stack.with_memory(1 << 20) } else { stack };
        let partition = Partition::named("one").unwrap();
        let cache = Cache::new(api, partition, stack, github, TtlTable::default(), clock.clone());
        let cache = if resident { cache.resident(Arc::<Stats>::default(), Behind::default()) } else { cache };
        let request = fixture.request("/repos/acme/repo-0001");
        let ask = async || cache.get(&request, &Ask::default()).await.unwrap();
        let stars = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["stargazers_count"].clone();
        assert!(matches!(ask().await.outcome, Outcome::Fetched(_)));
        clock.advance(100);
        let payload = json!({ "repository": { "full_name": "acme/repo-0001" } }).to_string();
        let payload = Payload::read(payload.as_bytes()).unwrap();
        cache.outdate(&event::outdated_on_delivery("star", &payload, clock.now()));
        let mut seen = Vec::new();
        for second in 0..=90 {
            if second == 58 {
                // Only now do GitHub's answers show it.
                let mut body = json!({});
                sim.with(|state| {
                    let Some(Doc::Json { body: old, .. }) = state.docs.get("/repos/acme/repo-0001") else { panic!() };
                    body = old.clone();
                });
                body["stargazers_count"] = json!(4_711);
                sim.put("/repos/acme/repo-0001", Doc::json(body));
            }
            let answer = ask().await;
            seen.push((second, answer.outcome.as_str(), stars(&answer.entry.body) == json!(4_711)));
            clock.advance(1);
        }
        let asked: Vec<u64> = seen.iter().filter(|(_, outcome, _)| *outcome != "hit").map(|(at, ..)| *at).collect();
        println!("resident {resident}: asked at seconds {asked:?} after the event");
        assert!(asked.len() <= 8, "looked at again and again: {asked:?}");
        assert!(seen.iter().skip(61).all(|(.., new)| *new), "the old answer stays fresh: {seen:?}");
    }
}

#[test]
fn numbers_are_sound_bounded_and_agree_with_githubs_own_ledger() {
    let (server, _secret) = hooked(&["--retries", "4"]);
    for n in 0..10 {
        for _ in 0..3 {
            assert_eq!(server.curl(&format!("/repos/acme/repo-{n:04}"), &[]).status, 200);
        }
    }
    server.sim.fail_next(&[Fault::Status(502), Fault::Status(502)]);
    assert_eq!(server.curl("/repos/acme/repo-0001", &["-H", "Cache-Control: no-cache"]).status, 200);
    assert_eq!(server.curl("/repos/acme/repo-0002", &["-H", "Cache-Control: no-cache"]).status, 200);
    assert_eq!(server.curl("/repos/acme/repo-0002/zipball", &["-X", "POST", "-d", "{}"]).status, 404);
    let numbers = metrics(&server);
    let (sent, charged) = server.sim.take_counts();
    assert_eq!(numbers["octocache_upstream_requests_total"], sent as u64);
    assert_eq!(numbers["octocache_upstream_charged_total"], charged as u64);
    assert_eq!(numbers["octocache_backoff_attempts_total"], 2);
    assert_eq!(numbers["octocache_upstream_answers_total{status=\"5xx\"}"], 2);
    assert_eq!(numbers["octocache_upstream_answers_total{status=\"304\"}"], 2);
    assert_eq!(numbers["octocache_hits_total{class=\"repo\",tier=\"memory\"}"], 20);
    assert_eq!(numbers["octocache_requests_total{class=\"repo\",outcome=\"fetched\"}"], 10);
    assert_eq!(numbers["octocache_request_duration_seconds_count{outcome=\"hit\"}"], 20);
    // The two that failed count as charged to be on the safe side; here they were not.
    let left = numbers["octocache_rate_limit_remaining{account=\"client\",resource=\"core\"}"];
    assert_eq!(left, 1_000 - (charged - 2) as u64);
    assert_eq!(numbers["octocache_passed_total"], 1);
    let status = server.curl("/_octocache/status", &[]).json();
    let totals = &status["totals"];
    assert_eq!((totals["sent"].as_u64(), totals["charged"].as_u64()), (Some(sent as u64), Some(charged as u64)));
    assert_eq!((totals["hits"].as_u64(), totals["saved"].as_u64()), (Some(20), Some(22)));
    // However many addresses, names, tokens and agents there are: as many series.
    let before = numbers.len();
    for n in 0..40 {
        let token = format!("Authorization: Bearer ghp_{n:036}");
        server.curl(&format!("/repos/acme/nothing-{n}?q={n}"), &["-H", &token, "-A", &format!("agent-{n}")]);
    }
    let after = metrics(&server);
    assert!(after.len() <= before + 8, "{} series more: {:?}", after.len() - before, after.keys());
    assert!(!after.keys().any(|name| name.contains("nothing") || name.contains("agent") || name.contains("ghp_")));
}

#[test]
fn the_text_is_clean_to_prometheus_own_tool() {
    let (server, _secret) = hooked(&[]);
    server.curl("/repos/acme/repo-0001", &[]);
    let text = server.curl("/metrics", &[]);
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    if !has("promtool") {
        return eprintln!("SKIPPED: promtool is not installed");
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&text.body).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

/// Names that are exposed: in the text, and without a value yet.
fn exposed_names(server: &Server) -> Vec<String> {
    let text = String::from_utf8(server.curl("/metrics", &[]).body).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_for_grafana_asks_only_for_what_is_exposed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/grafana/octocache.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.yml");
    std::fs::write(&plan, "version: 1\nqueries: { one: { get: /users/octocat } }\nwarm: { schedule: '0 0 1 1 *' }\n")
        .unwrap();
    let (server, _secret) = hooked(&["--plan", plan.to_str().unwrap(), "--schedule"]);
    let exposed = exposed_names(&server);
    let mut asked = Vec::new();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            asked.extend(words.filter(|word| word.starts_with("octocache_")).map(str::to_owned));
        }
    }
    assert!(asked.len() > 15, "{asked:?}");
    for name in &asked {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let optional = ["octocache_warm_last_timestamp_seconds"];
        assert!(exposed.iter().any(|one| one == family) || optional.contains(&family), "{name} is not exposed");
    }
    // And what operations read about is there.
    let operations = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    for name in &exposed {
        assert!(operations.contains(name.as_str()), "docs/operations.md says nothing of {name}");
    }
}

#[test]
fn health_needs_no_secret_and_everything_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "a secret of sixteen bytes").unwrap();
    let mut server = Server::start(&["--secret-file", file.to_str().unwrap()]);
    for path in ["/healthz", "/readyz", "/_octocache/health"] {
        assert_eq!(server.curl(path, &[]).status, 200, "{path}");
    }
    for path in ["/metrics", "/_octocache/", "/_octocache/status", "/_octocache/events", "/_octocache/app.js"] {
        let refused = server.curl(path, &[]);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "), "{}", refused.head);
        let with = if path.ends_with("events") { continue } else { ["-u", "me:a secret of sixteen bytes"] };
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(with).arg(format!("{}{path}", server.tcp));
        assert_eq!(command.output().unwrap().stdout, b"200", "{path}");
    }
    // A page of somebody else's reads none of it, and what is not there is not asked of GitHub.
    assert_eq!(server.curl("/metrics", &["-H", "Origin: https://evil.example"]).status, 403);
    assert_eq!(server.curl("/_octocache/nope", &["-H", "X-Octocache-Secret: a secret of sixteen bytes"]).status, 404);
    assert!(server.sim.log().is_empty());
    // Somebody who looks does not keep the server from ending.
    let mut watcher = Command::new("curl")
        .args(["-sN", "-u", "me:a secret of sixteen bytes", &format!("{}/_octocache/events", server.tcp)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    watcher.stdout.take().unwrap().read_exact(&mut [0; 64]).unwrap();
    let told = Instant::now();
    assert!(server.stop().success());
    assert!(told.elapsed() < Duration::from_secs(5), "it took {:?} to end", told.elapsed());
    assert!(watcher.wait().unwrap().success(), "the stream ends as it should");
}

#[test]
fn requests_have_names_that_logs_and_failures_show() {
    let server = Server::start(&["-v"]);
    server.curl("/repos/acme/repo-0001", &["-H", "X-Request-Id: job-17.step_2"]);
    server.sim.fail_next(&vec![Fault::Status(500); 20]);
    let failed = server.curl("/repos/acme/repo-0002", &["--max-time", "60"]);
    let id = failed.header("x-request-id").unwrap().to_owned();
    let said = || server.said.lock().unwrap().join("\n");
    eventually("logged", || said().contains(&id) && said().contains("job-17.step_2"));
    assert!(said().lines().any(|line| line.contains(&id) && line.contains("WARN")), "{}", said());
    // Hits are too many for a line each: one in 64 has one.
    let mut line = Line::to(&server.tcp);
    (0..640).for_each(|_| assert_eq!(line.get("/repos/acme/repo-0001").0, 200));
    let hits = || said().matches("outcome=\"hit\"").count();
    eventually("sampled", || hits() >= 10);
    assert_eq!(hits(), 10);
    assert!(!said().contains(TOKEN));
}

#[test]
fn another_configuration_takes_effect_and_a_bad_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, secret) = (dir.path().join("plan.yml"), dir.path().join("secret"));
    let write = |file: &PathBuf, text: &str| {
        // As editors and config maps do it: another file under the same name.
        std::fs::write(file.with_extension("new"), text).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    };
    let with_ttl =
        |ttl: &str| format!("version: 1\nclasses: {{ repo: {ttl} }}\nqueries: {{ one: {{ get: /users/octocat }} }}\n");
    write(&plan, &with_ttl("10m"));
    write(&secret, "the first secret of all");
    let server = Server::start(&["-v", "--plan", plan.to_str().unwrap(), "--secret-file", secret.to_str().unwrap()]);
    let get = |secret: &str| server.curl("/repos/acme/repo-0001", &["-H", &format!("X-Octocache-Secret: {secret}")]);
    assert_eq!(get("the first secret of all").status, 200);
    // A connection that is open stays open.
    let mut line = Line::to(&server.tcp);
    let mut on_line = |secret: &str| {
        line.send(
            &format!("GET /repos/acme/repo-0001 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nX-Octocache-Secret: {secret}\r\n"),
            b"",
        )
        .0
    };
    assert_eq!(on_line("the first secret of all"), 200);
    write(&plan, &with_ttl("2h"));
    eventually("longer lifetimes", || {
        let ttl = get("the first secret of all").cache_status().split("ttl=").nth(1).unwrap().parse::<i64>().unwrap();
        ttl > 3_600
    });
    write(&secret, "the second secret of all");
    eventually("another secret", || get("the second secret of all").status == 200);
    assert_eq!(get("the first secret of all").status, 401);
    assert_eq!(on_line("the second secret of all"), 200);
    // What is not sound is refused with its reason, and the old one stays.
    write(&plan, "version: 1\nclases: {}\nqueries: { one: { get: /users/octocat } }\n");
    let said = || server.said.lock().unwrap().join("\n");
    eventually("refused", || said().contains("the old one stays"));
    assert!(said().contains("classes"), "it names the nearest key: {}", said());
    assert_eq!(get("the second secret of all").status, 200);
    let health = server.curl("/healthz", &[]).json();
    assert_eq!(health["config"]["sound"], false);
    // SIGHUP has it read again, changed or not.
    write(&plan, &with_ttl("30m"));
    eventually("taken", || server.curl("/healthz", &[]).json()["config"]["sound"] == true);
    let taken = |said: &str| said.matches("is in force").count();
    let before = taken(&said());
    Command::new("kill").args(["-HUP", &server.pid().to_string()]).status().unwrap();
    eventually("read on SIGHUP", || taken(&said()) > before);
}

#[test]
fn clients_and_a_schedule_in_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.yml");
    let with = |schedule: &str| {
        format!(
            "version: 1\nqueries: {{ one: {{ get: /users/octocat }} }}\nwarm: {{ schedule: '{schedule}', jitter: 0s }}\n"
        )
    };
    std::fs::write(&plan, with("0 0 1 1 *")).unwrap();
    let server = Server::start(&["--plan", plan.to_str().unwrap(), "--schedule"]);
    let health = || server.curl("/healthz", &[]).json();
    eventually("announced", || health()["warm"]["next"].as_str().is_some_and(|next| next.contains("-01-01T00:00:00Z")));
    // Another schedule is in force without a restart; its tick comes within the minute.
    std::fs::write(&plan, with("* * * * *")).unwrap();
    eventually("another schedule", || !health()["warm"]["next"].as_str().unwrap().contains("-01-01T00:00:00Z"));
    let status = server.curl("/_octocache/status", &[]).json();
    assert_eq!(status["warm"]["next"], health()["warm"]["next"]);
}

#[test]
fn statsd_is_told() {
    let listener = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let server = Server::start(&["--statsd", &listener.local_addr().unwrap().to_string()]);
    server.curl("/repos/acme/repo-0001", &[]);
    let mut bytes = [0; 2_000];
    let mut told = String::new();
    while !told.contains("octocache.upstream_requests:1|c") {
        let read = listener.recv(&mut bytes).unwrap();
        told.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        told.push('\n');
    }
    assert!(told.contains("octocache.requests.repo.fetched:1|c"), "{told}");
    assert!(told.lines().all(|line| line.ends_with("|c") || line.ends_with("|g")), "{told}");
}

#[test]
fn clients_of_ghproxy_are_told_in_its_words() {
    let server = Server::start(&["--cache-mode"]);
    let mode = |args: &[&str], path: &str| server.curl(path, args).header("x-cache-mode").unwrap().to_owned();
    assert_eq!(mode(&[], "/repos/acme/repo-0001"), "MISS");
    assert_eq!(mode(&[], "/repos/acme/repo-0001"), "REVALIDATED");
    assert_eq!(mode(&["-H", "Cache-Control: no-cache"], "/repos/acme/repo-0001"), "REVALIDATED");
    assert_eq!(mode(&["-H", "Cache-Control: no-store"], "/repos/acme/repo-0001"), "NO-STORE");
    assert_eq!(mode(&["-X", "OPTIONS"], "/repos/acme/repo-0001"), "SKIP");
    let server = Server::start(&[]);
    assert_eq!(server.curl("/repos/acme/repo-0001", &[]).header("x-cache-mode"), None);
}

#[test]
fn the_page_shows_it_all_in_a_browser() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/node/node_modules");
    if !has("chromium") || !modules.join("puppeteer-core").exists() {
        assert!(std::env::var_os("CI").is_none(), "puppeteer-core is missing");
        return eprintln!("SKIPPED: chromium or puppeteer-core is missing; scripts/test installs them");
    }
    let plan_dir = tempfile::tempdir().unwrap();
    let plan = plan_dir.path().join("plan.yml");
    let nobody = "share: { redis: { url: 'redis://127.0.0.1:1' } }";
    std::fs::write(&plan, format!("version: 1\n{nobody}\nqueries: {{ one: {{ get: /users/octocat }} }}\n")).unwrap();
    let (secret, shown) = (plan_dir.path().join("secret"), "a secret of sixteen bytes");
    std::fs::write(&secret, shown).unwrap();
    let (server, _secret) = hooked(&["--plan", plan.to_str().unwrap(), "--secret-file", secret.to_str().unwrap()]);
    let header = format!("X-Octocache-Secret: {shown}");
    for _ in 0..5 {
        assert_eq!(server.curl("/repos/acme/repo-0001", &["-H", &header]).status, 200);
    }
    // Text of others' that is markup elsewhere: in a configuration that is refused, in an address.
    std::fs::write(&plan, "version: 1\n<img src=x onerror=alert(1)>: 1\n").unwrap();
    assert_eq!(server.curl("/repos/acme/'%3Cimg%20src=x%3E", &["--globoff", "-H", &header]).status, 404);
    let shots = root.join("target/dashboard");
    std::fs::create_dir_all(&shots).unwrap();
    let output = Command::new("node")
        .arg(root.join("tests/clients/dashboard.mjs"))
        .args([&modules, Path::new("chromium")].map(which))
        .args([&server.tcp, "/repos/acme/repo-0003"])
        .arg(&shots)
        .arg(shown)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((&seen["errors"], &seen["injected"]), (&json!([]), &json!(0)), "{seen}");
    assert_eq!(seen["before"], json!({ "saved": "4", "sent": "2", "charged": "2" }));
    assert_eq!(seen["after"], json!({ "saved": "4", "sent": "3", "charged": "3" }));
    assert!(text("lines").contains("/repos/acme/repo-0003"));
    assert!(text("problem").contains("<img src=x onerror=alert(1)>"), "{seen}");
    assert!(text("busiest").contains("/repos/acme/'%3Cimg%20src=x%3E"), "{seen}");
    assert!(text("limits").contains("core") && text("tiers").contains("memory"));
    assert!(text("shared").starts_with("redis: left alone for the moment; 0 of "), "{seen}");
    assert_ne!(seen["light"], seen["dark"]);
    assert_eq!((&seen["widest"], &seen["widestOnPhone"]), (&json!(0), &json!(0)), "nothing sticks out");
    assert_eq!((seen["firstStop"].as_str(), seen["pressed"].as_str()), (Some("Skip to the numbers"), Some("true")));
    assert!((10_000..=60_000).contains(&seen["bytes"].as_u64().unwrap()), "{}", seen["bytes"]);
    let own = seen["requests"].as_array().unwrap().iter().all(|url| url.as_str().unwrap().starts_with(&server.tcp));
    assert!(own, "assets of others: {}", seen["requests"]);
    println!("the page: {} bytes, first paint after {} ms", seen["bytes"], seen["paint"]);
}

/// A program by its path; anything else as it is.
fn which(name: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

#[test]
fn service_files_are_sound() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (root, dir) = (examples.join("service"), tempfile::tempdir().unwrap());
    let peer = examples.join("shared-fleet/octocache-peer.service");
    for file in [root.join("octocache.service"), root.join("octocache.socket"), peer.clone()] {
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("/usr/local/bin/octocache", crate::binary::BINARY);
        std::fs::write(dir.path().join(file.file_name().unwrap()), text).unwrap();
    }
    if has("systemd-analyze") {
        let units = ["octocache.service", "octocache.socket", "octocache-peer.service"];
        let units = units.map(|name| dir.path().join(name));
        let output = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("octocache"), "{said}");
    }
    let plist =
        "import plistlib, sys; p = plistlib.load(open(sys.argv[1], 'rb')); print(' '.join(p['ProgramArguments']))";
    let output =
        Command::new("python3").args(["-c", plist]).arg(root.join("io.github.octocache.plist")).output().unwrap();
    assert_eq!(output.stdout, b"/usr/local/bin/octocache serve --listen 127.0.0.1:8420\n", "{output:?}");
    // What the service is started with is what the program takes.
    for file in [root.join("octocache.service"), peer] {
        let service = std::fs::read_to_string(file).unwrap();
        let start = service.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/octocache ")).unwrap();
        let output = Command::new(crate::binary::BINARY).args(start.split(' ')).arg("--help").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
