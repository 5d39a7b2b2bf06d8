//! The proxy as clients meet it: real processes, real sockets, real gh and curl, a simulated GitHub.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::binary::BINARY;
use crate::harness::sim::{Doc, Fault, Sim};
use crate::harness::world;
use octocache::clock::Clock;
use serde_json::{Value, json};

pub const TOKEN: &str = "ghp_ClientClientClientClientClientClient";
const OTHER: &str = "ghp_OtherOtherOtherOtherOtherOtherOtherOt";

/// A server of ours before a simulated GitHub.
pub struct Server {
    pub sim: Sim,
    pub dir: tempfile::TempDir,
    child: Option<Child>,
    /// `http://127.0.0.1:PORT`.
    pub tcp: String,
    /// Where deliveries go that have an address of their own.
    pub deliveries: String,
    /// What it says on standard error.
    pub said: Arc<Mutex<Vec<String>>>,
    /// Variables that are set for it.
    pub env: Vec<(&'static str, String)>,
    /// The command that runs it, and its arguments; none for itself.
    pub through: Vec<String>,
}

impl Server {
    pub fn start(args: &[&str]) -> Self {
        let sim = Sim::start(Clock::System);
        world::organisation(&sim, 10);
        sim.token(TOKEN, "client");
        sim.token(OTHER, "other");
        let mut server = Self::before(sim);
        server.run(args);
        server
    }

    /// One that is still to be run.
    pub fn before(sim: Sim) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            sim,
            dir,
            child: None,
            tcp: String::new(),
            deliveries: String::new(),
            said: Arc::default(),
            env: Vec::new(),
            through: Vec::new(),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    /// Starts the process; once more, after [`Server::stop`].
    pub fn run(&mut self, args: &[&str]) {
        let mut words = self.through.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["serve", "--listen", "127.0.0.1:0", "--unix"]).arg(self.socket()).args(args);
        // gh says it speaks to api.github.com, whatever is behind the socket.
        command.args(["--allow-host", "uploads.github.com"]);
        command.env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.env("OCTOCACHE_API_URL", self.sim.url()).env("OCTOCACHE_NAME", "api.github.com");
        command.env("OCTOCACHE_TOKEN", OTHER).envs(self.env.iter().map(|(name, value)| (name, value)));
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        (self.tcp, self.deliveries) = (String::new(), String::new());
        let two = args.contains(&"--webhook-listen");
        while self.tcp.is_empty() || (two && self.deliveries.is_empty()) || !self.socket().exists() {
            let said = self.said.clone();
            let Some(Ok(line)) = lines.next() else { panic!("{}: {said:?}", child.wait().unwrap()) };
            if let Some((what, address)) = line.split_once(" at http") {
                let of = if what.starts_with("serving") { &mut self.tcp } else { &mut self.deliveries };
                *of = format!("http{address}");
            }
            said.lock().unwrap().push(line);
        }
        // What it goes on to say must not fill the pipe.
        let said = self.said.clone();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line)));
        self.child = Some(child);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL: it notes nothing any more.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        child.wait().unwrap()
    }

    /// `curl ARGS` to a path at the TCP door, as a client with a token; status, headers, body.
    pub fn curl(&self, path: &str, args: &[&str]) -> Reply {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "20", "-H", &format!("Authorization: Bearer {TOKEN}")]).args(args);
        command.arg(format!("{}{path}", self.tcp));
        Reply::read(&command.output().unwrap())
    }

    pub fn gh(&self, args: &[&str]) -> Output {
        let config = self.dir.path().join("gh");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("config.yml"), format!("http_unix_socket: {}\n", self.socket().display())).unwrap();
        let mut command = Command::new("gh");
        command.args(args).env_clear().env("HOME", self.dir.path()).env("GH_CONFIG_DIR", config);
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("GH_TOKEN", TOKEN).current_dir(self.dir.path());
        command.output().unwrap()
    }

    /// gh's output; it must succeed.
    pub fn gh_says(&self, args: &[&str]) -> String {
        let output = self.gh(args);
        assert!(output.status.success(), "gh {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// What curl printed.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    fn read(output: &Output) -> Self {
        assert!(output.status.success(), "{output:?}");
        let mut rest = &output.stdout[..];
        loop {
            let at = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
            let head = String::from_utf8(rest[..at].to_vec()).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            rest = &rest[at + 4..];
            if status != 100 {
                return Self { status, head, body: rest.to_vec() };
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Real tools are there in CI, and missing elsewhere is said.
pub fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{tool} is missing");
    if !found {
        eprintln!("SKIPPED: {tool} is missing");
    }
    found
}

#[test]
fn a_hit_is_byte_exact_with_age_limits_and_cache_status() {
    let server = Server::start(&[]);
    let odd = b"{ \"a\" : 1.0,\n\"b\":\"\\u00e9\" }\n".to_vec();
    server.sim.put("/odd", Doc::Raw { content_type: "application/json; charset=utf-8", body: odd.clone().into() });
    let first = server.curl("/odd", &[]);
    assert_eq!((first.status, &first.body), (200, &odd));
    assert!(first.cache_status().starts_with("octocache; fwd=uri-miss; fwd-status=200; stored"), "{}", first.head);
    let second = server.curl("/odd", &[]);
    assert_eq!((second.status, &second.body), (200, &odd));
    assert!(second.cache_status().starts_with("octocache; hit; ttl="), "{}", second.head);
    assert!(second.header("age").is_some());
    assert_eq!(second.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(second.header("etag"), first.header("etag"));
    // Live, not those of the stored answer: another request has been charged meanwhile.
    server.curl("/users/octocat", &[]);
    let third = server.curl("/odd", &[]);
    assert_eq!(third.header("x-ratelimit-remaining"), Some("998"));
    assert_eq!(server.sim.take_counts(), (2, 2));
    // Every spelling of plain JSON, with or without GHES's prefix, is the same entry.
    for (path, accept) in
        [("/odd", "*/*"), ("/odd", "application/json"), ("/api/v3/odd", "application/vnd.github.v3+json")]
    {
        assert!(server.curl(path, &["-H", &format!("Accept: {accept}")]).cache_status().contains("hit"));
    }
    let raw = server.curl("/odd", &["-H", "Accept: application/vnd.github.raw"]);
    assert!(raw.cache_status().contains("uri-miss"));
    assert_eq!(server.sim.take_counts(), (1, 1));
}

#[test]
fn what_one_token_may_see_is_no_answer_for_another() {
    let server = Server::start(&[]);
    server.sim.put("/repos/acme/secret", Doc::json(json!({ "secret": true })));
    server.sim.with(|state| state.visible_to.insert("/repos/acme/secret".into(), vec!["client".into()]));
    assert_eq!(server.curl("/repos/acme/secret", &[]).status, 200);
    let other = format!("Authorization: token {OTHER}");
    let get = |auth: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i"]).args(auth).arg(format!("{}/repos/acme/secret", server.tcp));
        Reply::read(&command.output().unwrap())
    };
    for auth in [&["-H", &other][..], &[]] {
        let refused = get(auth);
        assert_eq!(refused.status, 404, "{}", refused.head);
        assert!(!String::from_utf8_lossy(&refused.body).contains("secret\":true"));
    }
    assert_eq!(get(&["-H", "Authorization: Bearer ghp_nobodyknows"]).status, 401);
    // In another form, the same token is the same client.
    assert!(get(&["-u", &format!("me:{TOKEN}")]).cache_status().contains("hit"));
    // An App's claim lasts minutes: handed on, never kept.
    let claim = "Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIxIn0.c2ln";
    server.sim.take_counts();
    for _ in 0..2 {
        assert!(get(&["-H", claim]).cache_status().contains("bypass"));
    }
    assert_eq!(server.sim.take_counts().0, 2);
}

#[test]
fn conditional_clients_get_304_from_the_cache_and_cold_ones_from_github() {
    let server = Server::start(&[]);
    let path = "/repos/acme/repo-0001";
    // Cold, with a validator from elsewhere: GitHub decides, and its 304 is for this client alone.
    let tag = server.curl(path, &[]).header("etag").unwrap().to_owned();
    let mut fresh = Server::before(Sim::start(Clock::System));
    fresh.sim.token(TOKEN, "client");
    let doc = server.sim.with(|state| state.docs[path].clone());
    fresh.sim.put(path, doc);
    fresh.run(&[]);
    let condition = format!("If-None-Match: {tag}");
    for _ in 0..2 {
        let not_modified = fresh.curl(path, &["-H", &condition]);
        assert_eq!((not_modified.status, not_modified.body.len()), (304, 0), "{}", not_modified.head);
    }
    assert_eq!(fresh.sim.take_counts(), (2, 0), "a 304 without a body is never stored");
    let plain = fresh.curl(path, &[]);
    assert_eq!(plain.status, 200);
    assert_eq!(fresh.sim.take_counts(), (1, 1));
    // Warm: the cache answers.
    for condition in [condition.as_str(), "If-None-Match: \"x\", *", "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT"]
    {
        let not_modified = fresh.curl(path, &["-H", condition]);
        assert_eq!((not_modified.status, not_modified.body.len()), (304, 0), "{condition}");
        assert!(not_modified.header("etag").is_some() && not_modified.cache_status().contains("hit"));
    }
    assert_eq!(fresh.curl(path, &["-H", "If-None-Match: \"other\""]).status, 200);
    assert_eq!(fresh.sim.take_counts(), (0, 0));
}

#[test]
fn clients_directives_are_obeyed() {
    let server = Server::start(&[]);
    let path = "/repos/acme/repo-0002";
    let asked = |directive: &str| {
        let reply = server.curl(path, &["-H", directive]);
        (reply.status, reply.cache_status().to_owned(), server.sim.take_counts())
    };
    assert_eq!(asked("Cache-Control: only-if-cached").0, 504);
    assert_eq!(asked("Cache-Control: max-age=60").2, (1, 1));
    assert_eq!(asked("Cache-Control: max-age=60").2, (0, 0));
    let (status, how, counts) = asked("Cache-Control: no-cache");
    assert_eq!((status, counts), (200, (1, 0)));
    assert!(how.contains("fwd=stale; fwd-status=304"), "{how}");
    let (_, how, counts) = asked("Cache-Control: no-store");
    assert!(how.contains("detail=mode") && counts == (1, 1), "{how}");
    assert_eq!(asked("Pragma: no-cache").2, (1, 0));
    assert_eq!(asked("X-GH-CACHE-TTL: 1h").2, (0, 0));
}

#[test]
fn the_strictest_bound_wins_whatever_the_server_was_told() {
    let server = Server::start(&["--ttl", "1h", "--while-revalidate", "1h"]);
    let asked = |path: &str, directive: &str| {
        let reply = server.curl(path, &["-H", directive]);
        (reply.status, server.sim.take_counts().0)
    };
    let (there, missing) = ("/repos/acme/repo-0003", "/repos/acme/repo-0003/releases/tags/v9");
    for (path, status) in [(there, 200), (missing, 404)] {
        assert_eq!(asked(path, "Cache-Control: max-age=0"), (status, 1));
        assert_eq!(asked(path, "Cache-Control: max-age=60"), (status, 0));
        assert_eq!(asked(path, "Cache-Control: max-age=0"), (status, 1), "{path}");
        assert_eq!(asked(path, "X-GH-CACHE-TTL: 0s"), (status, 1), "{path}");
        assert_eq!(asked(path, "Cache-Control: min-fresh=7200"), (status, 1), "{path}");
        assert_eq!(asked(path, "Cache-Control: only-if-cached"), (status, 0), "{path}");
        assert_eq!(asked(path, "Cache-Control: only-if-cached, max-age=0"), (504, 0), "{path}");
    }
    // Not what a change of the client's own has outdated either.
    let changed = server.curl(there, &["-X", "PATCH", "-d", "{\"description\":\"new\"}"]);
    assert_eq!((changed.status, server.sim.take_counts().0), (200, 1));
    assert_eq!(asked(there, "Cache-Control: only-if-cached, max-stale"), (504, 0));
}

#[test]
fn what_is_no_answer_is_a_clear_error_or_a_stale_answer() {
    let server = Server::start(&["--retries", "1"]);
    let path = "/repos/acme/repo-0004";
    let page = Doc::Raw { content_type: "text/html", body: "<html>log in</html>".into() };
    server.sim.put("/repos/acme/new", page.clone());
    let none = server.curl("/repos/acme/new", &[]);
    let text = String::from_utf8_lossy(&none.body).into_owned();
    assert_eq!(none.status, 502, "{text}");
    assert!(text.contains("/repos/acme/new should be JSON: it is a page of HTML"), "{text}");
    assert_eq!(server.curl(path, &[]).status, 200);
    server.sim.put(path, page);
    let stale = server.curl(path, &["-H", "Cache-Control: no-cache"]);
    assert!(stale.status == 200 && stale.cache_status().contains("detail=stale-"), "{}", stale.head);
    // Whoever wants something else than JSON gets what comes.
    let raw = server.curl(path, &["-H", "Accept: application/vnd.github.html"]);
    assert_eq!((raw.status, &raw.body[..]), (200, &b"<html>log in</html>"[..]));
}

#[test]
fn what_is_still_computed_is_handed_on_at_once_or_answered_stale() {
    let server = Server::start(&[]);
    let path = "/repos/acme/repo-0001/stats/contributors";
    server.sim.put(path, Doc::NotReady { left: 2, then: json!([1]) });
    server.sim.take_counts();
    for status in [202, 202, 200] {
        assert_eq!((server.curl(path, &[]).status, server.sim.take_counts().0), (status, 1));
    }
    server.sim.put(path, Doc::NotReady { left: 9, then: json!([2]) });
    let stale = server.curl(path, &["-H", "Cache-Control: no-cache"]);
    assert!(stale.status == 200 && stale.cache_status().contains("detail=stale-not-ready"), "{}", stale.head);
    assert_eq!(server.sim.take_counts().0, 1);
}

#[test]
fn links_and_redirects_lead_back_to_the_door() {
    let server = Server::start(&[]);
    let next = |reply: &Reply| octocache::link::next(reply.header("link").unwrap_or_default()).map(str::to_owned);
    let first = server.curl("/repos/acme/repo-0005/issues?per_page=100", &[]);
    let second = next(&first).unwrap();
    let path = second.strip_prefix(&server.tcp).unwrap();
    assert!(path.starts_with("/repositories/5/issues?"), "{second}");
    let last = server.curl(path, &[]);
    assert_eq!((last.status, last.json().as_array().unwrap().len()), (200, 85));
    let with_prefix = server.curl("/api/v3/repos/acme/repo-0005/issues?per_page=100", &[]);
    assert!(next(&with_prefix).unwrap().starts_with(&format!("{}/api/v3/repositories/5/", server.tcp)));
    server.sim.put("/repos/old/name", Doc::Redirect("/repos/acme/repo-0003".into()));
    for _ in 0..2 {
        let moved = server.curl("/repos/old/name", &[]);
        assert_eq!(
            (moved.status, moved.header("location").unwrap_or_else(|| panic!("{}", moved.head))),
            (301, &*format!("{}/repos/acme/repo-0003", server.tcp))
        );
    }
    server.sim.put("/archive", Doc::Elsewhere("https://codeload.github.com/x".into()));
    assert_eq!(server.curl("/archive", &[]).header("location"), Some("https://codeload.github.com/x"));
    // Through an HTTP proxy's form of request, addresses are such that the client can follow.
    let mut command = Command::new("curl");
    let target = format!("{}/repos/acme/repo-0005/issues", server.sim.url());
    command.args([
        "-sS",
        "-i",
        "--noproxy",
        "",
        "-x",
        &server.tcp,
        "-H",
        &format!("Authorization: token {TOKEN}"),
        &target,
    ]);
    let proxied = Reply::read(&command.output().unwrap());
    assert!(next(&proxied).is_some_and(|next| next.starts_with(&server.sim.url())), "{}", proxied.head);
}

#[test]
fn changes_pass_through_and_the_next_read_sees_them() {
    let server = Server::start(&[]);
    let list = "/repos/acme/repo-0004/issues";
    let count = |server: &Server| server.curl(list, &[]).json().as_array().unwrap().len();
    let before = count(&server);
    assert_eq!(count(&server), before);
    assert_eq!(server.sim.take_counts().0, 1);
    let created = server.curl(list, &["-X", "POST", "-d", r#"{"title":"new"}"#]);
    assert_eq!((created.status, created.json()["title"].as_str()), (201, Some("new")));
    assert!(created.cache_status().contains("fwd=method"));
    assert_eq!(count(&server), before + 1, "what was created is there at once");
    // What a refused change would have touched is confirmed, for free: it was outdated before it was sent.
    server.curl("/repos/acme/repo-0003", &[]);
    server.sim.take_counts();
    assert_eq!(server.curl("/repos/acme/repo-0003/nothing", &["-X", "PATCH", "-d", "{}"]).status, 404);
    server.sim.take_counts();
    assert!(server.curl("/repos/acme/repo-0003", &[]).cache_status().contains("fwd-status=304"));
    assert_eq!(server.sim.take_counts(), (1, 0));
    server.curl("/repos/acme/repo-0003", &["-X", "PATCH", "-d", r#"{"description":"changed"}"#]);
    assert_eq!(server.curl("/repos/acme/repo-0003", &[]).json()["description"], "changed");
    assert_eq!(server.curl("/repos/acme/repo-0003", &["-X", "DELETE"]).status, 204);
    assert_eq!(server.curl("/repos/acme/repo-0003", &[]).status, 404);
}

#[test]
fn graphql_questions_are_cached_and_changes_are_not() {
    let server = Server::start(&[]);
    let ask = |document: &str, variables: Value| {
        let body = json!({ "query": document, "variables": variables }).to_string();
        server.curl("/graphql", &["-d", &body])
    };
    let document = "query Q($o: String!, $n: String!) { repository(owner: $o, name: $n) { name } }";
    let first = ask(document, json!({ "o": "acme", "n": "repo-0001" }));
    assert_eq!(first.json()["data"]["repository"]["name"], "repo-0001");
    let again = ask(
        "# the same\nquery Q($o:String!,$n:String!){repository(owner:$o name:$n){name}}",
        json!({ "n": "repo-0001", "o": "acme" }),
    );
    assert!(again.cache_status().contains("hit"), "{}", again.head);
    assert_eq!(again.body, first.body);
    assert!(!ask(document, json!({ "o": "acme", "n": "repo-0002" })).cache_status().contains("hit"));
    assert_eq!(server.sim.take_counts().0, 2);
    for (document, sent) in [
        ("query Q { viewer { login } rateLimit { remaining } }", 2),
        ("query Q { repository(owner: \"acme\", name: \"none\") { name } }", 2),
        ("{ broken", 2),
        ("query Q { viewer { login } }", 1),
    ] {
        ask(document, json!({}));
        ask(document, json!({}));
        assert_eq!(server.sim.take_counts().0, sent, "{document}");
    }
    // A mutation goes through each time, and what was asked before is asked again.
    for _ in 0..2 {
        assert_eq!(ask("mutation { addStar(input: {}) { clientMutationId } }", json!({})).status, 200);
    }
    assert!(!ask(document, json!({ "o": "acme", "n": "repo-0001" })).cache_status().contains("hit"));
    assert_eq!(server.sim.take_counts().0, 3);
    // Features are part of the question.
    let body = json!({ "query": document, "variables": { "o": "acme", "n": "repo-0001" } }).to_string();
    let featured = server.curl("/graphql", &["-d", &body, "-H", "GraphQL-Features: merge_queue"]);
    assert!(!featured.cache_status().contains("hit"));
    assert_eq!(server.sim.log().last().unwrap().headers["graphql-features"], "merge_queue");
}

#[test]
fn a_client_with_a_newer_copy_than_ours_is_charged_nothing() {
    let server = Server::start(&["--ttl", "0s"]);
    let path = "/repos/acme/repo-0001/issues/1";
    let put = |n: u64| server.sim.put(path, Doc::json(json!({ "n": n })));
    let conditional = |tag: &str| server.curl(path, &["-H", &format!("If-None-Match: {tag}")]);
    put(1);
    let first = server.curl(path, &[]).header("etag").unwrap().to_owned();
    put(2);
    // It was asked for around us.
    let around = |args: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "-H", &format!("Authorization: Bearer {TOKEN}")]).args(args);
        Reply::read(&curl.arg(format!("{}{path}", server.sim.url())).output().unwrap())
    };
    let newer = around(&["-H", "Accept: application/vnd.github+json"]).header("etag").unwrap().to_owned();
    assert_ne!(newer, first);
    server.sim.take_counts();
    assert_eq!(conditional(&newer).status, 304);
    assert_eq!(server.sim.take_counts(), (1, 0));
    // A fresh answer is given at once, whatever the client has.
    let hits = Server::start(&["--ttl", "1h"]);
    hits.sim.put(path, Doc::json(json!({ "n": 1 })));
    hits.curl(path, &[]);
    hits.sim.take_counts();
    assert_eq!(hits.curl(path, &["-H", "If-None-Match: \"another\""]).json(), json!({ "n": 1 }));
    assert_eq!(hits.sim.take_counts(), (0, 0));
    // Once we have it, too, an older copy is known to be one.
    assert_eq!(server.curl(path, &[]).json(), json!({ "n": 2 }));
    server.sim.take_counts();
    assert_eq!(conditional(&first).json(), json!({ "n": 2 }));
    assert_eq!(server.sim.take_counts(), (1, 0));
    assert_eq!(conditional("\"never-seen\"").json(), json!({ "n": 2 }));
    assert_eq!(server.sim.take_counts(), (1, 1), "as it would be without us");
}

#[test]
fn errors_of_graphql_lie_where_the_client_wrote_them() {
    let server = Server::start(&[]);
    let document =
        "# a comment\nquery Q {\n  viewer { login },\n\n    repository(owner: \"acme\", name: \"none\") { name }\n}";
    let body = json!({ "query": document }).to_string();
    let through = server.curl("/graphql", &["-d", &body]).json();
    assert_eq!(through["errors"][0]["locations"], json!([{ "line": 5, "column": 5 }]), "{through}");
    // The same question, written in another way.
    let document = "query Q{viewer{login}repository(owner:\"acme\" name:\"none\"){name}}";
    let body = json!({ "query": document }).to_string();
    let through = server.curl("/graphql", &["-d", &body]).json();
    assert_eq!(through["errors"][0]["locations"], json!([{ "line": 1, "column": 22 }]), "{through}");
    let mut api = Command::new(BINARY);
    api.env_clear()
        .env("HOME", server.dir.path())
        .env("OCTOCACHE_API_URL", server.sim.url())
        .env("OCTOCACHE_TOKEN", TOKEN);
    api.current_dir(server.dir.path());
    let document = "query Q {\n repository(owner: \"acme\", name: \"none\") { name } }";
    api.args(["api", "graphql", "-f", &format!("query={document}")]);
    let out = api.output().unwrap();
    let printed: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(printed["errors"][0]["locations"], json!([{ "line": 2, "column": 2 }]), "{printed}");
}

#[test]
fn nobody_gets_in_or_on_who_should_not() {
    let server = Server::start(&[]);
    let status = |args: &[&str]| server.curl("/users/octocat", args).status;
    assert_eq!(status(&["-H", "Host: evil.example"]), 421);
    assert_eq!(status(&["-H", "Host: 127.0.0.1.evil.example"]), 421);
    assert_eq!(status(&["-H", "Origin: https://evil.example"]), 403);
    assert_eq!(status(&["-H", "Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(status(&["-H", "Upgrade: websocket", "-H", "Connection: upgrade"]), 501);
    assert_eq!(server.sim.take_counts().0, 0);
    let mut raw = UnixStream::connect(server.socket()).unwrap();
    raw.write_all(b"GET /x HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("--allow-host"), "{answer}");
    // A head without end is cut off.
    let mut raw = UnixStream::connect(server.socket()).unwrap();
    raw.write_all(b"GET /x HTTP/1.1\r\n").unwrap();
    let endless = format!("x: {}\r\n", "y".repeat(1_000));
    while raw.write_all(endless.as_bytes()).is_ok() {}
    // And the server is there after all that.
    assert_eq!(status(&[]), 200);
    let mode = std::fs::metadata(server.socket()).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}

#[test]
fn a_listener_beyond_this_machine_needs_a_flag_and_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let serve = |args: &[&str]| {
        let mut command = Command::new(BINARY);
        command
            .args(["serve", "--listen", "0.0.0.0:0"])
            .args(args)
            .env_clear()
            .env("HOME", dir.path())
            .current_dir(dir.path());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    std::fs::write(&secret, "short").unwrap();
    let path = secret.to_str().unwrap();
    for (args, words) in [
        (&[][..], "--allow-remote"),
        (&["--allow-remote"], "--secret-file"),
        (&["--allow-remote", "--secret-file", "/none"], "no file"),
        (&["--allow-remote", "--secret-file", path], "shorter than 16"),
    ] {
        let (code, said) = serve(args);
        assert!(code == 2 && said.contains(words), "{args:?}: {code} {said}");
    }
    std::fs::write(&secret, "a secret that is long enough\n").unwrap();
    let server = Server::start(&["--secret-file", path]);
    assert_eq!(server.curl("/users/octocat", &[]).status, 401);
    assert_eq!(server.curl("/users/octocat", &["-H", "X-Octocache-Secret: wrong"]).status, 401);
    assert_eq!(server.curl("/users/octocat", &["-H", "X-Octocache-Secret: a secret that is long enough"]).status, 200);
    let sent = server.sim.log();
    assert!(sent.iter().all(|logged| !logged.headers.contains_key("x-octocache-secret")));
}

#[test]
fn a_lent_token_reads_and_changes_nothing() {
    let server = Server::start(&["--lend-token"]);
    server.sim.put("/secret", Doc::json(json!({ "secret": 1 })));
    server.sim.with(|state| state.visible_to.insert("/secret".into(), vec!["other".into()]));
    let ask = |args: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i"]).args(args).arg(format!("{}{path}", server.tcp));
        Reply::read(&command.output().unwrap())
    };
    assert_eq!(ask(&[], "/secret").status, 200, "the server's own token may see it");
    assert_eq!(server.curl("/secret", &[]).status, 404, "a client's may not");
    ask(&["-X", "PATCH", "-d", "{}"], "/secret");
    ask(&["-d", r#"{"query":"mutation { addStar(input: {}) { id } }"}"#], "/graphql");
    // Nobody has no points to spend on GraphQL: GitHub's answer to the first says so, and the second stays here.
    ask(&["-d", r#"[{"query":"mutation { addStar(input: {}) { id } }"}]"#], "/graphql");
    ask(&["-d", r#"{"query":"query Q { viewer { login } }"}"#], "/graphql");
    let signed: Vec<bool> =
        server.sim.log().iter().map(|logged| logged.headers.contains_key("authorization")).collect();
    assert_eq!(signed, [true, true, false, false, true]);
}

#[test]
fn failures_are_answered_as_githubs_clients_expect_and_stale_answers_stand_in() {
    let server = Server::start(&["--retries", "0", "--ttl", "0s"]);
    let path = "/repos/acme/repo-0001";
    let good = server.curl(path, &[]);
    server.sim.fail_next(&[Fault::Status(500)]);
    let stale = server.curl(path, &[]);
    assert_eq!((stale.status, &stale.body), (200, &good.body));
    assert!(stale.cache_status().contains("detail=stale-server-error"), "{}", stale.head);
    server.sim.fail_next(&[Fault::Drop]);
    assert_eq!(server.curl("/repos/acme/repo-0002", &[]).status, 502);
    // Three in a row would be taken for an outage.
    assert_eq!(server.curl("/repos/acme/repo-0003", &[]).status, 200);
    server.sim.fail_next(&[Fault::Status(503)]);
    assert_eq!(server.curl("/repos/acme/repo-0002", &[]).status, 503);
    server.sim.fail_next(&[Fault::Secondary(Some(77))]);
    let limited = server.curl("/repos/acme/repo-0002", &[]);
    assert_eq!(limited.status, 403);
    // As GitHub said it: this is how clients tell the two kinds apart.
    assert_ne!(limited.header("x-ratelimit-remaining"), Some("0"));
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((75..=77).contains(&wait), "{wait}");
    assert!(limited.json()["message"].as_str().unwrap().contains("rate limit"));
    // While it lasts, nothing of that client's goes up.
    server.sim.take_counts();
    assert!(server.curl(path, &[]).cache_status().contains("stale-limited"));
    assert_eq!(server.curl("/repos/acme/repo-0003", &["-X", "PATCH", "-d", "{}"]).status, 403);
    assert_eq!(server.sim.take_counts().0, 0);
}

#[test]
fn bodies_stream_and_what_is_unusual_passes() {
    let server = Server::start(&[]);
    let big = vec![b'x'; 30 << 20];
    server
        .sim
        .put("/repos/acme/big/asset", Doc::Raw { content_type: "application/octet-stream", body: big.clone().into() });
    let asset = server.curl("/repos/acme/big/asset", &["-H", "Accept: application/octet-stream"]);
    assert_eq!((asset.status, asset.body.len()), (200, big.len()));
    assert!(asset.cache_status().contains("fwd=bypass"));
    let head = server.curl("/users/octocat", &["-I"]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.header("content-length").is_some());
    let range = server.curl("/users/octocat", &["-H", "Range: bytes=0-3"]);
    assert!(range.cache_status().contains("bypass"));
    // A large upload goes through in one piece, with its length.
    let file = server.dir.path().join("upload");
    std::fs::write(&file, vec![b'u'; 5 << 20]).unwrap();
    let up = server.curl("/echo/upload", &["-X", "PUT", "--data-binary", &format!("@{}", file.display())]);
    assert_eq!((up.status, up.json()["body"].as_str().unwrap().len()), (200, 5 << 20));
    assert_eq!(server.sim.log().last().unwrap().headers["content-length"], (5 << 20).to_string());
}

#[test]
fn it_ends_when_it_is_told_to_and_begins_where_it_was() {
    let mut server = Server::start(&[]);
    for n in 0..10 {
        server.curl(&format!("/repos/acme/repo-{n:04}"), &[]);
    }
    server.sim.take_counts();
    assert!(server.stop().success());
    assert!(!server.socket().exists());
    server.run(&[]);
    for n in 0..10 {
        assert!(server.curl(&format!("/repos/acme/repo-{n:04}"), &[]).cache_status().contains("hit"));
    }
    assert_eq!(server.sim.take_counts(), (0, 0));
    // A second one on the same socket is refused; the socket of a killed one is replaced.
    let mut second = Command::new(BINARY);
    second.args(["serve", "--unix"]).arg(server.socket()).env_clear().env("HOME", server.dir.path());
    let second = second.current_dir(server.dir.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process serves"), "{second:?}");
    let mut child = server.child.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(server.socket().exists());
    server.run(&[]);
    assert_eq!(server.curl("/users/octocat", &[]).status, 200);
}

#[test]
fn the_real_gh_asks_once_and_sees_its_own_changes() {
    if !has("gh") {
        return;
    }
    let server = Server::start(&[]);
    let actions = "/repos/acme/repo-0004/actions";
    let none = Doc::List { items: vec![], wrapped_in: Some("workflows"), numeric: None };
    server.sim.put(&format!("{actions}/workflows"), none);
    server.sim.put(&format!("{actions}/workflows/0"), Doc::json(json!({ "id": 0, "name": "ci" })));
    let script: &[&[&str]] = &[
        &["issue", "list", "-R", "acme/repo-0004"],
        &["release", "list", "-R", "acme/repo-0004"],
        &["run", "list", "-R", "acme/repo-0004"],
        &["api", "--paginate", "/repos/acme/repo-0005/issues"],
        &["api", "graphql", "-f", "query={viewer{login}}"],
        &["repo", "view", "acme/repo-0004"],
    ];
    let once: Vec<String> = script.iter().map(|args| server.gh_says(args)).collect();
    let first = server.sim.log();
    server.sim.take_counts();
    let twice: Vec<String> = script.iter().map(|args| server.gh_says(args)).collect();
    assert_eq!(once, twice);
    let second: Vec<String> =
        server.sim.log().iter().map(|logged| format!("{} {}", logged.method, logged.target)).collect();
    assert_eq!(second, Vec::<String>::new(), "the first time it were {}", first.len());
    assert!(once[0].contains("acme/repo-0004: issue 3"), "{}", once[0]);
    let created = server.gh_says(&["api", "-X", "POST", "/repos/acme/repo-0004/issues", "-f", "title=Brand new"]);
    assert!(created.contains("Brand new"));
    let list = server.gh_says(&["issue", "list", "-R", "acme/repo-0004"]);
    assert!(list.contains("Brand new"), "{list}");
}

/// `octocache gh` in a home of its own, before a simulated GitHub.
struct Home {
    sim: Sim,
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let sim = Sim::start(Clock::System);
        world::organisation(&sim, 10);
        sim.token(TOKEN, "client");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".config/gh")).unwrap();
        std::fs::write(dir.path().join(".config/gh/config.yml"), "git_protocol: ssh\n").unwrap();
        Self { sim, dir }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.dir.path()).env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("GH_TOKEN", TOKEN).current_dir(self.dir.path());
        command.env("OCTOCACHE_API_URL", self.sim.url());
        command
    }

    fn gh(&self, args: &[&str]) -> Output {
        self.command(BINARY).arg("gh").args(args).output().unwrap()
    }

    /// Processes behind sockets of this home.
    fn servers(&self) -> Vec<String> {
        let output = Command::new("pgrep").arg("-f").arg(self.dir.path().join("run")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for pid in self.servers() {
            let _ended = Command::new("kill").args(["-9", &pid]).status();
        }
    }
}

#[test]
fn octocache_gh_shares_one_process_and_never_breaks_gh() {
    if !has("gh") {
        return;
    }
    let home = Home::new();
    let list = ["issue", "list", "-R", "acme/repo-0004"];
    // Twenty at once, on a cold cache and with nothing running.
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..20).map(|_| scope.spawn(|| home.gh(&list))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for output in &outputs {
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, outputs[0].stdout);
    }
    let log = home.sim.log();
    let mut bodies: Vec<_> = log.iter().map(|logged| (&logged.target, &logged.body)).collect();
    bodies.dedup();
    assert_eq!(bodies.len(), log.len(), "each distinct request goes up once");
    assert_eq!(home.servers().len(), 1);
    // gh's own configuration is as it was, and so are commands about it.
    let config = home.dir.path().join(".config/gh/config.yml");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "git_protocol: ssh\n");
    assert!(home.gh(&["config", "set", "editor", "vi"]).status.success());
    assert!(std::fs::read_to_string(&config).unwrap().contains("editor: vi"));
    assert_eq!(home.gh(&["api", "/none"]).status.code(), Some(1));
    // Killed: the next call starts another.
    home.sim.take_counts();
    for pid in home.servers() {
        Command::new("kill").args(["-9", &pid]).status().unwrap();
    }
    let again = home.gh(&list);
    assert_eq!(again.stdout, outputs[0].stdout, "{again:?}");
    assert_eq!(home.sim.take_counts().0, 0, "what it had is on disk");
    // No place for a socket: gh runs as it is, and asks GitHub itself (which is not there).
    let output = home.command(BINARY).args(["gh", "--version"]).env("XDG_RUNTIME_DIR", "/proc/none").output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with("gh version"));
    let output = home
        .command(BINARY)
        .args(["gh", "api", "/users/octocat"])
        .env("XDG_RUNTIME_DIR", "/proc/none")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("gh runs without the cache") && said.contains("api.github.com"), "{said}");
}

#[test]
fn a_script_stands_in_for_gh_and_is_taken_back() {
    if !has("gh") {
        return;
    }
    let home = Home::new();
    let shims = home.dir.path().join("shims");
    let setup =
        |undo: &[&str]| home.command(BINARY).args(["setup", "gh", "--shim"]).arg(&shims).args(undo).output().unwrap();
    assert!(setup(&[]).status.success());
    let path = format!("{}:{}", shims.display(), std::env::var("PATH").unwrap());
    let run =
        || home.command("gh").args(["api", "/users/octocat", "-q", ".login"]).env("PATH", &path).output().unwrap();
    for _ in 0..2 {
        assert_eq!(String::from_utf8_lossy(&run().stdout), "octocat\n");
    }
    assert_eq!(home.sim.take_counts().0, 1);
    assert!(setup(&["--undo"]).status.success() && !shims.join("gh").exists());
    std::fs::write(shims.join("gh"), "#!/bin/sh\necho mine\n").unwrap();
    assert_eq!(setup(&[]).status.code(), Some(2), "what is somebody else's stays");
    // Without a service manager, the other way says so and changes nothing.
    let output = home.command(BINARY).args(["setup", "gh"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--shim"), "{output:?}");
}

/// As systemd does it: the socket is there before the process, and outlives it.
#[test]
fn a_socket_of_the_service_manager_is_taken_over() {
    let tool = "systemd-socket-activate";
    if !has(tool) {
        return;
    }
    let home = Home::new();
    let socket = home.dir.path().join("held.sock");
    let mut manager = home.command(tool);
    manager.arg("--listen").arg(&socket).args([
        "-E",
        "HOME",
        "-E",
        "OCTOCACHE_API_URL",
        "-E",
        "PATH",
        BINARY,
        "serve",
        "--exit-when-idle",
        "1h",
    ]);
    let mut manager = manager.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(manager.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let ask = || {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "-H", &format!("Authorization: token {TOKEN}"), "--unix-socket"]).arg(&socket);
        Reply::read(&command.arg("http://localhost/users/octocat").output().unwrap())
    };
    assert_eq!(ask().status, 200, "{line}");
    assert!(ask().cache_status().contains("hit"));
    Command::new("kill").arg(manager.id().to_string()).status().unwrap();
    manager.wait().unwrap();
}

/// What a client's script prints, asking at `base`.
fn script(command: &[&str], base: &str) -> String {
    let mut script = Command::new(command[0]);
    script.args(&command[1..]).args([base, TOKEN]).env("NODE_PACKAGES", node_packages());
    let output = script.env_remove("GITHUB_API_URL").output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn node_packages() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules")
}

#[test]
fn octokit_and_pygithub_see_the_same_and_spend_nothing_twice() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    let (octokit, pygithub) = (root.join("tests/clients/octokit.mjs"), root.join("tests/clients/pygithub.py"));
    let scripts: [(&str, &[&str], bool); 2] = [
        ("octokit", &["node", octokit.to_str().unwrap()], node_packages().join("@octokit/rest").exists()),
        (
            "PyGithub",
            &[python.to_str().unwrap(), pygithub.to_str().unwrap()],
            std::fs::read_dir(root.join("target/python/lib"))
                .is_ok_and(|mut libs| libs.any(|lib| lib.unwrap().path().join("site-packages/github").exists())),
        ),
    ];
    for (name, command, is_there) in scripts {
        if !is_there {
            assert!(std::env::var_os("CI").is_none(), "{name} is missing: scripts/test installs it");
            eprintln!("SKIPPED: {name} is missing");
            continue;
        }
        let server = Server::start(&[]);
        let organisation = json!({ "login": "acme", "id": 1, "url": format!("{}/orgs/acme", server.sim.url()) });
        server.sim.put("/orgs/acme", Doc::json(organisation));
        let direct = script(command, &server.sim.url());
        server.sim.take_counts();
        let first = script(command, &server.tcp);
        assert_eq!(first, direct, "{name} sees the same objects");
        let (sent, _) = server.sim.take_counts();
        let second = script(command, &server.tcp);
        assert_eq!((second, server.sim.take_counts().0), (first, 0), "{name}: the first time {sent} were sent");
    }
}

#[test]
fn what_is_under_way_ends_before_the_server_does() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0"]).env_clear().env("HOME", dir.path()).current_dir(dir.path());
    command.env("OCTOCACHE_API_URL", format!("http://{}", upstream.local_addr().unwrap()));
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(server.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    let tcp = line.trim().rsplit(' ').next().unwrap().to_owned();
    let client = Command::new("curl")
        .args(["-sS", "-i", "-H", &format!("Authorization: token {TOKEN}"), &format!("{tcp}/repos/o/r")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asked, _) = upstream.accept().unwrap();
    let mut head = [0; 4_096];
    assert!(asked.read(&mut head).unwrap() > 0);
    // The request is at GitHub; now the server is told to end.
    Command::new("kill").arg(server.id().to_string()).status().unwrap();
    while std::net::TcpStream::connect(tcp.trim_start_matches("http://")).is_ok() {
        std::thread::yield_now();
    }
    asked
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"id\": 1}")
        .unwrap();
    let reply = Reply::read(&client.wait_with_output().unwrap());
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"{\"id\": 1}"[..]));
    assert!(server.wait().unwrap().success());
    // And what it brought is stored.
    let mut offline = Command::new(BINARY);
    offline.args(["api", "/repos/o/r", "--offline"]).env_clear().env("HOME", dir.path()).current_dir(dir.path());
    offline
        .env("OCTOCACHE_API_URL", format!("http://{}", upstream.local_addr().unwrap()))
        .env("OCTOCACHE_TOKEN", TOKEN);
    assert_eq!(offline.output().unwrap().stdout, b"{\"id\": 1}");
}

#[test]
fn a_clients_own_conditional_request_costs_no_more_than_at_github() {
    for (args, control) in [(&["--no-cache"][..], ""), (&["--force-refresh"], ""), (&[], "no-cache"), (&[], "no-store")]
    {
        let server = Server::start(args);
        let path = "/repos/acme/repo-0001";
        let etag = {
            let direct = server.curl(path, &["-H", "Cache-Control: no-store"]);
            direct.header("etag").unwrap().to_owned()
        };
        server.sim.take_counts();
        let control = format!("Cache-Control: {control}");
        let said = server.curl(path, &["-H", &format!("If-None-Match: {etag}"), "-H", &control]);
        assert_eq!((said.status, server.sim.take_counts()), (304, (1, 0)), "{args:?} {control}: {}", said.head);
        // Another one's is no copy of it.
        let said = server.curl(path, &["-H", "If-None-Match: \"other\"", "-H", &control]);
        assert_eq!((said.status, server.sim.take_counts()), (200, (1, 1)), "{args:?} {control}");
    }
}

#[test]
fn what_is_too_large_to_be_kept_is_handed_through_in_little_memory() {
    let server = Server::start(&[]);
    let path = "/repos/acme/repo-0001/git/blobs/large";
    let body = [b"\"", "x".repeat(101 << 20).as_bytes(), b"\""].concat();
    let size = body.len();
    server.sim.put(path, Doc::Raw { content_type: "application/json; charset=utf-8", body: body.into() });
    for requests in [2, 1] {
        server.sim.take_counts();
        let said = server.curl(path, &[]);
        assert_eq!((said.status, said.body.len()), (200, size), "{}", said.head);
        assert_eq!(server.sim.take_counts().0, requests);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // What is compressed is known to be too large once so much of it is undone; no more is held.
    assert!(peak < 170 << 10, "{peak} kB for a body of {size} bytes");
    // By `api` as well, where gh gives it.
    let mut api = Command::new(BINARY);
    api.args(["api", path]).env_clear().env("HOME", server.dir.path()).current_dir(server.dir.path());
    api.env("OCTOCACHE_API_URL", server.sim.url()).env("OCTOCACHE_TOKEN", TOKEN);
    assert_eq!(api.output().unwrap().stdout.len(), size);
}
