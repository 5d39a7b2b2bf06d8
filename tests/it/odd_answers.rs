//! Odd answers of GitHub, or of something between: each ends in a stale answer or in one error that names the address and
//! what was wrong. Nothing of it is stored, and nothing that was stored is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::error::Kind;
use octocache::github::{Backoff, GitHub, Options};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::policy::{Mode, TtlTable};
use octocache::request::{Api, Request};
use octocache::stack::Stack;
use octocache::token::Token;

use crate::binary::BINARY;
use crate::flow::{HIT, ask};
use crate::harness::sim::Sim;
use crate::serve::Server;

/// A server that sends the same bytes to whoever asks, and closes.
struct Scripted {
    address: SocketAddr,
    says: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, says, asked) = (listener.local_addr().unwrap(), Arc::default(), Arc::default());
        let started = Self { address, says, asked };
        let (says, asked) = (started.says.clone(), started.asked.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let says = says.lock().unwrap().clone();
                if read_head(&mut stream) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let _gone = stream.write_all(&says);
                }
            }
        });
        started
    }

    fn say(&self, bytes: &[u8]) {
        *self.says.lock().unwrap() = bytes.to_vec();
        self.asked.store(0, Ordering::Relaxed);
    }

    fn cache(&self, dir: &Path) -> Cache {
        let api = Api::parse(&format!("http://{}", self.address)).unwrap();
        let token = Token::new("ghp_one").unwrap();
        let partition = Partition::token(&token);
        let backoff = Backoff { base: Duration::ZERO, retries: 2, ..Backoff::default() };
        let read_timeout = Duration::from_secs(5);
        let options = Options { backoff, read_timeout, ..Options::new(api.clone(), Some(token)) };
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let upstream = Arc::new(GitHub::new(options, clock.clone()));
        Cache::new(api, partition, Stack::new(dir, clock.clone()), upstream, TtlTable::default(), clock)
    }
}

fn read_head(stream: &mut TcpStream) -> bool {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).is_ok_and(|n| n == 1) { head.push(byte[0]) } else { return false }
    }
    true
}

/// A response with the length of its body.
fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// One whose body ends with the connection.
fn unmeasured(body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n", body].concat()
}

const JSON: &str = "content-type: application/json; charset=utf-8\r\n";

const GOOD: &[u8] = b"{\"good\":true}";

/// What comes, what the error says of it, and whether asking again may help.
fn table() -> Vec<(Vec<u8>, &'static str, bool)> {
    let ok = |headers: &str, body: &[u8]| response("200 OK", headers, body);
    let endless = [&b"HTTP/1.1 200 OK\r\nx-long: "[..], &b"x".repeat(2 << 20)].concat();
    vec![
        (ok("content-type: text/plain\r\n", b"upstream connect error"), "should be JSON", true),
        (ok("content-type: text/html\r\n", b"<html>log in</html>"), "HTML", true),
        (ok(JSON, b"<html>unicorn</html>"), "HTML", true),
        (ok(JSON, b""), "empty", true),
        (ok(JSON, b"{\"a\":1}{\"a\":2}"), "trailing characters", true),
        (ok(JSON, b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), "compressed", true),
        (response("203 Transformed", JSON, b"{\"a\":"), "breaks off", true),
        (unmeasured(b"[{\"id\":1},{\"id\""), "breaks off after 15 bytes", true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":1}".to_vec(), "no answer from GitHub", true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 7\r\n\r\n{\"a\":1}".to_vec(), "no answer", true),
        (b"HTTP/9.9 hello\r\n\r\n".to_vec(), "no answer", true),
        (Vec::new(), "no answer", true),
        (endless, "no answer", true),
        (ok("content-encoding: gzip\r\n", b"{\"a\":1}"), "truncated or broken", true),
        (ok("content-encoding: br\r\n", b"{\"a\":1}"), "coding `br`", true),
        (response("304 Not Modified", "etag: \"other\"\r\n", b""), "304 to an unconditional request", false),
        (response("502 Bad Gateway", JSON, b"{}"), "answered 502", true),
    ]
}

#[tokio::test]
async fn every_odd_answer_ends_in_a_stale_one_or_a_clear_error() {
    let server = Scripted::start();
    for (n, (odd, why, helps)) in table().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let shown = String::from_utf8_lossy(&odd[..odd.len().min(60)]).into_owned();
        // Nothing stored: an error.
        server.say(&odd);
        let cache = server.cache(dir.path());
        let request = Request::get(cache.api(), "/repos/o/r").unwrap();
        let error = cache.get(&request, &Ask::default()).await.expect_err(&shown);
        let text = error.to_string();
        assert!(text.contains("/repos/o/r") && text.contains(why) && text.lines().count() == 1, "{n} {shown}: {text}");
        assert!(helps != (server.asked.load(Ordering::Relaxed) < 3), "{n} {shown}: tried again");
        let stored = cache.get(&request, &ask(Mode::OnlyIfCached)).await;
        assert_eq!(stored.unwrap_err().kind(), Kind::NotCached, "{n} {shown}");
        // Something stored: it answers, and stays.
        server.say(&response("200 OK", &format!("{JSON}etag: \"good\"\r\n"), GOOD));
        let cache = server.cache(dir.path());
        cache.get(&request, &Ask::default()).await.unwrap();
        server.say(&odd);
        let stale = cache.get(&request, &ask(Mode::NoCache)).await.expect(&shown);
        assert!(matches!(stale.outcome, Outcome::Stale(_)), "{n} {shown}: {:?}", stale.outcome);
        assert_eq!(&stale.entry.body[..], GOOD);
        let hit = server.cache(dir.path()).get(&request, &Ask::default()).await.unwrap();
        assert_eq!((hit.outcome, &hit.entry.body[..]), (HIT, GOOD), "{n} {shown}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_are_an_error_and_lose_nothing() {
    let server = Scripted::start();
    let dir = tempfile::tempdir().unwrap();
    for (to, stored) in
        [("/repos/o/r", false), ("/repos/o/r?x=1", false), ("/repos/o/r", true), ("/repos/o/r?x=1", true)]
    {
        let cache = server.cache(dir.path());
        let request = Request::get(cache.api(), "/repos/o/r").unwrap();
        if stored {
            server.say(&response("200 OK", &format!("{JSON}etag: \"good\"\r\n"), GOOD));
            cache.get(&request, &ask(Mode::NoCache)).await.unwrap();
        }
        server.say(&response("301 Moved Permanently", &format!("{JSON}location: {to}\r\n"), b"{}"));
        let error = cache.get(&request, &ask(Mode::NoCache)).await.unwrap_err().to_string();
        assert!(error.contains("/repos/o/r leads through more than 5 redirects"), "{error}");
        let found = server.cache(dir.path()).get(&request, &ask(Mode::OnlyIfCached)).await;
        assert_eq!(found.ok().map(|answer| answer.entry.body.to_vec()), stored.then(|| GOOD.to_vec()), "{to}");
    }
}

#[tokio::test]
async fn fields_that_come_twice_are_no_reason_to_fail() {
    let server = Scripted::start();
    let dir = tempfile::tempdir().unwrap();
    let cache = server.cache(dir.path());
    for (n, headers) in [
        "etag: \"a\"\r\netag: \"b\"\r\n",
        "etag: bare\r\n",
        "etag: \"a\"\r\nlast-modified: yesterday\r\n",
        "content-type: application/json\r\ncontent-type: text/html\r\n",
        "x-ratelimit-remaining: many\r\nx-ratelimit-reset: -1\r\nage: -3\r\ndate: never\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        server.say(&response("200 OK", headers, GOOD));
        let request = Request::get(cache.api(), &format!("/repos/o/r{n}")).unwrap();
        let first = cache.get(&request, &Ask::default()).await.unwrap();
        assert_eq!(&first.entry.body[..], GOOD, "{headers}");
        assert_eq!(cache.get(&request, &Ask::default()).await.unwrap().outcome, HIT, "{headers}");
    }
}

/// A server through which clients ask what `scripted` says.
fn serving(scripted: &Scripted, args: &[&str]) -> Server {
    let mut server = Server::before(Sim::start(Clock::System));
    server.env = vec![("OCTOCACHE_API_URL", format!("http://{}", scripted.address))];
    server.run(args);
    server
}

#[test]
fn what_github_says_of_failures_and_limits_reaches_clients_as_it_is() {
    let scripted = Scripted::start();
    let server = serving(&scripted, &["--retries", "0"]);
    let id = "x-github-request-id: C0FF:EE\r\n";
    let unicorn = b"{\"message\":\"unicorn\"}";
    scripted.say(&response("503 Service Unavailable", &format!("{JSON}{id}retry-after: 7\r\n"), unicorn));
    let failed = server.curl("/repos/o/r", &[]);
    assert_eq!((failed.status, failed.body.as_slice()), (503, &unicorn[..]));
    assert_eq!((failed.header("retry-after"), failed.header("x-github-request-id")), (Some("7"), Some("C0FF:EE")));
    // GraphQL's own words for an empty bucket, in a 200.
    let limited = br#"{"errors":[{"type":"RATE_LIMIT","message":"API rate limit exceeded"}]}"#;
    let spent = "x-ratelimit-limit: 5000\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 4000000000\r\n\
                 x-ratelimit-resource: graphql\r\n";
    scripted.say(&response("200 OK", &format!("{JSON}{spent}"), limited));
    for when in ["asked", "held"] {
        let said = server.curl("/graphql", &["-d", r#"{"query":"{ viewer { login } }"}"#]);
        let kind = said.json()["errors"][0]["type"].clone();
        assert_eq!((said.status, kind.as_str()), (200, Some("RATE_LIMIT")), "{when}: {}", said.head);
        assert_eq!(said.header("x-ratelimit-remaining"), Some("0"), "{when}");
    }
    // A secondary limit is another thing to clients than an empty bucket; while it holds, too.
    let secondary = br#"{"message":"You have exceeded a secondary rate limit","documentation_url":"https://docs.github.com/x#about-secondary-rate-limits"}"#;
    let left = "x-ratelimit-limit: 5000\r\nx-ratelimit-remaining: 4000\r\nx-ratelimit-reset: 4000000000\r\n";
    scripted.say(&response("403 Forbidden", &format!("{JSON}{left}retry-after: 60\r\n"), secondary));
    for when in ["asked", "held"] {
        let said = server.curl("/repos/o/other", &[]);
        let about = said.json()["documentation_url"].as_str().unwrap_or_default().to_owned();
        assert!(said.status == 403 && about.ends_with("secondary-rate-limits"), "{when}: {}", said.head);
        assert!(said.header("x-ratelimit-remaining") != Some("0") && said.header("retry-after").is_some(), "{when}");
    }
    assert_eq!(scripted.asked.load(Ordering::Relaxed), 1);
}

#[test]
fn many_fields_and_codings_in_capitals_are_read_and_what_tickets_need_is_in_hits() {
    let scripted = Scripted::start();
    let server = serving(&scripted, &[]);
    let mut headers = format!(
        "{JSON}content-encoding: GZIP\r\nx-github-request-id: C0FF:EE\r\nx-oauth-scopes: repo, gist\r\n\
         x-accepted-oauth-scopes: repo\r\nx-accepted-github-permissions: issues=read\r\n"
    );
    (0..300).for_each(|n| headers.push_str(&format!("x-gateway-{n}: {n}\r\n")));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(GOOD).unwrap();
    scripted.say(&response("200 OK", &headers, &gzip.finish().unwrap()));
    for from in ["fwd=uri-miss", "hit"] {
        let said = server.curl("/repos/o/r", &[]);
        assert_eq!((said.status, said.body.as_slice()), (200, GOOD), "{}", said.head);
        assert!(said.cache_status().contains(from), "{}", said.head);
        for (name, value) in [
            ("x-github-request-id", "C0FF:EE"),
            ("x-oauth-scopes", "repo, gist"),
            ("x-accepted-oauth-scopes", "repo"),
            ("x-accepted-github-permissions", "issues=read"),
        ] {
            assert_eq!(said.header(name), Some(value), "{from}");
        }
    }
}

#[test]
fn a_503_is_asked_again_no_sooner_than_it_says() {
    let scripted = Scripted::start();
    let home = tempfile::tempdir().unwrap();
    let api = |retries: &str| {
        let mut command = std::process::Command::new(BINARY);
        command.args(["api", "/repos/o/r", "--retries", retries]).env_clear().env("HOME", home.path());
        command.env("OCTOCACHE_API_URL", format!("http://{}", scripted.address)).current_dir(home.path());
        command.output().unwrap()
    };
    scripted.say(&response("503 Service Unavailable", &format!("{JSON}retry-after: 2\r\n"), b"{\"message\":\"busy\"}"));
    let started = std::time::Instant::now();
    let output = api("1");
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(scripted.asked.load(Ordering::Relaxed), 2);
    // In gh's words, with GitHub's body.
    assert_eq!(output.stdout, b"{\"message\":\"busy\"}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("gh: busy (HTTP 503)"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    // Longer than anybody waits: it is not asked again.
    scripted.say(&response("503 Service Unavailable", &format!("{JSON}retry-after: 3600\r\n"), b"{}"));
    api("4");
    assert_eq!(scripted.asked.load(Ordering::Relaxed), 1);
}

#[test]
fn processes_that_wait_for_one_that_fails_fail_with_it() {
    let scripted = Scripted::start();
    let home = tempfile::tempdir().unwrap();
    scripted.say(&response("502 Bad Gateway", &format!("{JSON}retry-after: 3\r\n"), b"{}"));
    let started = std::time::Instant::now();
    let children: Vec<_> = (0..20)
        .map(|_| {
            let mut command = std::process::Command::new(BINARY);
            command.args(["api", "/repos/o/r", "--retries", "1"]).env_clear().env("HOME", home.path());
            command.env("OCTOCACHE_API_URL", format!("http://{}", scripted.address)).current_dir(home.path());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("502"), "{said}");
    }
    let asked = scripted.asked.load(Ordering::Relaxed);
    assert!(asked <= 6, "{asked} requests of 20 processes");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn clients_that_try_again_themselves_cost_no_more_than_their_own_attempts() {
    let scripted = Scripted::start();
    let server = serving(&scripted, &[]);
    for (n, failure) in
        [response("502 Bad Gateway", JSON, b"{}"), response("200 OK", JSON, b"<html>maintenance</html>")]
            .iter()
            .enumerate()
    {
        scripted.say(failure);
        for _ in 0..3 {
            assert!(server.curl(&format!("/repos/o/r{n}"), &[]).status >= 500);
        }
        assert_eq!(scripted.asked.load(Ordering::Relaxed), 3, "{n}");
    }
    // A connection that broke is no matter of the client's, once.
    let server = serving(&scripted, &[]);
    scripted.say(b"");
    assert_eq!(server.curl("/repos/o/r", &[]).status, 502);
    assert_eq!(scripted.asked.load(Ordering::Relaxed), 2);
}
