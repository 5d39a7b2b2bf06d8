//! Clients, senders of deliveries and answers that mean harm to the proxy or to `api`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use octocache::clock::Clock;
use serde_json::json;

use crate::binary::BINARY;
use crate::harness::sim::{Doc, Sim};
use crate::harness::world;
use crate::operate::{Line, eventually, head, hooked, opened};
use crate::serve::{Server, TOKEN};

/// Writes `request` as it is and reads until the server closes; the status and everything else.
fn raw_on(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn raw(server: &Server, request: &str) -> (u16, String) {
    raw_on(connect(&server.tcp), request)
}

/// A service beside the server that only the server's own machine should reach.
struct Decoy(TcpListener);

impl Decoy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn was_reached(&self) -> bool {
        self.0.accept().is_ok()
    }
}

#[test]
fn a_host_that_is_no_authority_reaches_nothing() {
    let decoy = Decoy::new();
    let server = Server::start(&["--allow-host", "*.x.example,one*.y.example"]);
    let port = decoy.port();
    let hosts = [
        format!("127.0.0.1:{port}/latest/meta-data?.x.example"),
        format!("127.0.0.1:{port}/.x.example"),
        format!("127.0.0.1:{port}#.x.example"),
        format!("127.0.0.1:{port}\\.x.example"),
        format!("a@127.0.0.1:{port}"),
        format!("a.x.example@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}%2f.x.example"),
        format!("127.0.0.1:{port},a.x.example"),
        format!("one127.0.0.1:{port}/.y.example"),
        format!("127.1:{port}"),
        format!("0x7f.1:{port}"),
        format!("2130706433:{port}"),
        format!("[::1%25lo]:{port}"),
        "localhost.".into(),
        "localhost:".into(),
        "localhost:0".into(),
        "localhost:99999".into(),
        String::new(),
    ];
    for host in &hosts {
        for method in ["GET", "DELETE", "POST"] {
            let request =
                format!("{method} /admin HTTP/1.1\r\nHost: {host}\r\nCookie: a=b\r\nConnection: close\r\n\r\n");
            assert_eq!(raw(&server, &request).0, 400, "{method} {host}");
            assert_eq!(raw_on(UnixStream::connect(server.socket()).unwrap(), &request).0, 400, "{method} {host}");
        }
    }
    // Well-formed ones that are nobody's: the port is part of what is allowed.
    for host in
        [format!("a.x.example:{port}"), "x.example".into(), "one.two.y.example".into(), "[::ffff:127.0.0.1]".into()]
    {
        let request = format!("GET /admin HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(raw(&server, &request).0, 421, "{host}");
    }
    assert!(!decoy.was_reached());
    assert_eq!(server.sim.take_counts().0, 0);
}

#[test]
fn a_request_has_one_host_and_a_path() {
    let server = Server::start(&[]);
    let authorization = format!("Authorization: token {TOKEN}\r\nConnection: close\r\n\r\n");
    let status = |head: &str| raw(&server, &format!("{head}\r\n{authorization}")).0;
    assert_eq!(status("GET /users/octocat HTTP/1.1\r\nHost: localhost"), 200);
    assert_eq!(status("GET /users/octocat HTTP/1.1\r\nHost: localhost\r\nHost: localhost"), 400);
    assert_eq!(status("GET /users/octocat HTTP/1.1\r\nHost: localhost\r\nHost: evil.example"), 400);
    assert_eq!(status("GET /users/octocat HTTP/1.1\r\nAccept: */*"), 400);
    // The target in absolute form counts, and a malformed `Host` is refused beside it, too.
    assert_eq!(status("GET http://localhost/users/octocat HTTP/1.1\r\nHost: evil.example"), 200);
    assert_eq!(status("GET http://evil.example/users/octocat HTTP/1.1\r\nHost: localhost"), 421);
    assert_eq!(status("GET http://user@localhost/users/octocat HTTP/1.1\r\nHost: localhost"), 400);
    assert_eq!(status("GET http://localhost/users/octocat HTTP/1.1\r\nHost: a/b"), 400);
    assert_eq!(status("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80"), 501);
    assert_eq!(status("CONNECT user@localhost:80 HTTP/1.1\r\nHost: localhost:80"), 400);
    server.sim.take_counts();
    assert_eq!(status("OPTIONS * HTTP/1.1\r\nHost: localhost"), 400);
    assert_eq!(status("TRACE /users/octocat HTTP/1.1\r\nHost: localhost"), 501);
    assert_eq!(server.sim.take_counts().0, 0);
}

/// Bodies of which it is not known what they ask for. Each holds a mutation, in a way that only some readers see.
fn not_understood() -> Vec<(&'static str, String)> {
    let mutation = r#"mutation{addStar(input:{starrableId:\"x\"}){clientMutationId}}"#;
    let padding = " ".repeat(300 << 10);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    vec![
        ("escapes and extensions", format!(r#"{{"query":"\u006d{}","extensions":{{}}}}"#, &mutation[1..])),
        ("two queries", format!(r#"{{"query":"query Q{{viewer{{login}}}}","query":"{mutation}"}}"#)),
        ("two queries, one escaped", format!(r#"{{"query":"query Q{{viewer{{login}}}}","q\u0075ery":"{mutation}"}}"#)),
        (
            "two operation names",
            r#"{"query":"query A{viewer{login}} \u006dutation B{addStar{id}}","operationName":"A","operationName":"B"}"#.into(),
        ),
        (
            "one name for two operations",
            r#"{"query":"query A{viewer{login}} \u006dutation A{addStar{id}}","operationName":"A"}"#.into(),
        ),
        ("two variables", r#"{"query":"query Q{viewer{login}}","variables":{},"variables":{"a":1}}"#.into()),
        ("a variable twice", r#"{"query":"query Q{viewer{login}}","variables":{"a":{"b":1,"b":2}}}"#.into()),
        ("a list", format!(r#"[{{"query":"{mutation}"}}]"#)),
        ("a large body", format!(r#"{{"query":"{mutation}"{padding}}}"#)),
        ("a large body, escaped", format!(r#"{{"query":"\u006d{}"{padding}}}"#, &mutation[1..])),
        ("a persisted query", r#"{"id":"abc","variables":{}}"#.into()),
        ("a byte order mark", format!("\u{feff}{{\"query\":\"{mutation}\"}}")),
        ("trailing text", format!(r#"{{"query":"query Q{{viewer{{login}}}}"}}{{"query":"{mutation}"}}"#)),
        ("deep variables", format!(r#"{{"query":"query Q{{viewer{{login}}}}","variables":{{"a":{deep}}}}}"#)),
        ("a document that does not parse", r#"{"query":"query Q{viewer{login}} \u006dutation"}"#.into()),
    ]
}

fn post(server: &Server, target: &str, head: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nConnection: close\r\nContent-Length: {length}\r\n{head}"
    );
    raw(server, &format!("{head}\r\n{body}"))
}

#[test]
fn a_lent_token_signs_only_what_was_understood_as_reading() {
    let server = Server::start(&["--lend-token"]);
    for (what, body) in not_understood() {
        assert_ne!(post(&server, "/graphql", "", &body).0, 0, "{what}");
    }
    let mutation = r#"{"query":"mutation { addStar(input: {}) { id } }"}"#;
    post(&server, "/graphql", "", mutation);
    post(&server, "/graphql?x=1", "", mutation);
    post(&server, "/%67raphql", "", mutation);
    post(&server, "/graphql", "Content-Encoding: gzip\r\n", r#"{"query":"query Q{viewer{login}}"}"#);
    post(&server, "/repos/acme/repo-0001/issues", "", "{}");
    let send =
        |head: &str| raw(&server, &format!("{head}Host: localhost\r\nUser-Agent: test\r\nConnection: close\r\n\r\n")).0;
    send("OPTIONS /repos/acme/repo-0001 HTTP/1.1\r\n");
    assert_eq!(send("TRACE /repos/acme/repo-0001 HTTP/1.1\r\n"), 501);
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nAuthorization: \r\n");
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nAuthorization: Basic bWU6\r\n");
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nAuthorization: token a\r\nAuthorization: token b\r\n");
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nX-HTTP-Method-Override: DELETE\r\nCookie: a=b\r\n");
    send("GET /repos/../../acme HTTP/1.1\r\n");
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nX_HTTP_Method_Override: DELETE\r\nCookie: a=b\r\n");
    for path in ["/graphql", "/%67raphql", "//graphql", "/graphql/", "/GraphQL", "/api/graphql", "/api/v3/graphql"] {
        send(&format!("GET {path}?query=mutation HTTP/1.1\r\n"));
        send(&format!("HEAD {path}?query=mutation HTTP/1.1\r\n"));
    }
    let with_body =
        "GET /repos/acme/repo-0001 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    raw(&server, with_body);
    let log = server.sim.log();
    let lent = |headers: &http::HeaderMap| {
        headers.get("authorization").is_some_and(|value| value.as_bytes().starts_with(b"Bearer ghp_Other"))
    };
    for logged in &log {
        assert!(!lent(&logged.headers), "{} {} {:?}", logged.method, logged.target, logged.headers);
    }
    assert!(log.iter().any(|logged| logged.method == "GET") && log.iter().any(|logged| logged.method == "POST"));
    // What is understood is signed, and goes out as it was understood.
    let live = "{\"query\":\"# mutation\\nquery Q { viewer { login } rateLimit { remaining } }\"}";
    let form = "Content-Type: application/x-www-form-urlencoded\r\nCookie: a=b\r\nX_HTTP_Method: DELETE\r\n";
    let (status, answer) = post(&server, "/graphql", form, live);
    assert_eq!(status, 200, "{answer}");
    let last = server.sim.log().pop().unwrap();
    assert!(lent(&last.headers));
    assert_eq!(last.headers["content-type"], "application/json");
    assert!(["cookie", "x_http_method"].iter().all(|name| !last.headers.contains_key(*name)), "{:?}", last.headers);
    let sent = r#"{"query":"query Q { viewer { login } rateLimit { remaining } }"}"#;
    assert_eq!(last.body, sent.as_bytes());
    assert_eq!(send("HEAD /repos/acme/repo-0001 HTTP/1.1\r\n"), 200);
    assert!(lent(&server.sim.log().pop().unwrap().headers));
}

#[test]
fn what_is_not_understood_counts_as_a_change() {
    let server = Server::start(&[]);
    let own = format!("Authorization: token {TOKEN}\r\n");
    let path = "/repos/acme/repo-0001";
    let cached = || server.curl(path, &[]).cache_status().contains("octocache; hit");
    // What is read in the second of a change is asked for again.
    let settled = || {
        (0..200).any(|_| {
            cached() || {
                std::thread::sleep(Duration::from_millis(20));
                false
            }
        })
    };
    for (what, body) in not_understood().into_iter().step_by(3) {
        assert!(settled(), "before {what}");
        let (status, answer) = post(&server, "/graphql", &own, &body);
        // A refusal changes nothing.
        assert_eq!(cached(), (400..500).contains(&status), "{what}: {answer}");
    }
    // Nor does it matter by what the client shows who it is.
    let octets = "Authorization: Basic bWU6MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nw==\r\n";
    assert!(settled());
    let (status, _) = post(&server, "/graphql", octets, "[]");
    assert_eq!(cached(), (400..500).contains(&status));
}

/// `octocache api` as a user calls it.
fn api(sim: &Sim, home: &tempfile::TempDir, args: &[&str]) -> std::process::Output {
    let mut command = Command::new(BINARY);
    command.arg("api").args(args).env_clear().env("HOME", home.path()).current_dir(home.path());
    command.env("OCTOCACHE_API_URL", sim.url()).env("OCTOCACHE_TOKEN", TOKEN);
    command.output().unwrap()
}

#[test]
fn api_takes_what_it_does_not_understand_for_a_change() {
    let server = Server::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let cutoffs = home.path().join("store/cutoffs.json");
    // Of what no reader of GraphQL understands, the answer says that nothing was executed.
    let never_executed = ["deep variables", "a document that does not parse"];
    for (what, body) in not_understood() {
        let _not_there = std::fs::remove_file(&cutoffs);
        std::fs::write(home.path().join("body"), &body).unwrap();
        let output = api(&server.sim, &home, &["graphql", "--input", "body", "--cache-dir", "store"]);
        let refused = String::from_utf8_lossy(&output.stderr).contains("HTTP 4");
        let outdated = std::fs::read_to_string(&cutoffs).is_ok_and(|text| text.contains("\"all\""));
        assert_eq!(outdated, !refused && !never_executed.contains(&what), "{what}: {output:?}");
    }
}

#[test]
fn a_delivery_sent_again_as_something_else_removes_nothing() {
    let (mut server, secret) = hooked(&[]);
    let path = "/repos/acme/repo-0001/issues";
    assert_eq!(server.curl(path, &[]).status, 200);
    let repository = json!({ "full_name": "acme/repo-0001", "owner": { "login": "acme" } });
    let comment = json!({
        "action": "deleted", "issue": { "number": 3 }, "comment": { "id": 1 }, "repository": repository,
        "sender": { "login": "mona" },
    });
    let comment = comment.to_string().into_bytes();
    let mut line = Line::to(&server.tcp);
    assert_eq!(line.deliver("genuine", "issue_comment", &comment).0, 202);
    for (id, event) in [("r-1", "repository"), ("r-2", "repository"), ("r-3", "installation"), ("r-4", "unheard_of")] {
        assert_eq!(line.deliver(id, event, &comment).0, 202, "{event}");
    }
    let applied = |many: u64| {
        eventually("applied", || {
            let (_, text) = Line::to(&server.tcp).get("/metrics");
            String::from_utf8(text).unwrap().contains(&format!("octocache_webhook_applied_total {many}"))
        });
    };
    applied(5);
    assert!(!server.said.lock().unwrap().iter().any(|line| line.contains("removed")));
    server.sim.take_counts();
    assert_eq!(server.curl(path, &[]).status, 200);
    let last = server.sim.log().pop();
    assert_eq!(server.sim.take_counts(), (1, 0), "it is still there, and confirmed for free: {last:?}");
    // What removes does so once, whatever id it comes under.
    let gone = json!({ "action": "privatized", "repository": repository, "sender": { "login": "mona" } });
    let gone = gone.to_string().into_bytes();
    assert_eq!(line.deliver("gone", "repository", &gone).0, 202);
    applied(6);
    server.curl(path, &[]);
    assert_eq!(server.sim.take_counts(), (1, 1));
    let cutoffs = server.dir.path().join(".cache/octocache/cutoffs.json");
    let removals = || {
        let text = std::fs::read(&cutoffs).unwrap();
        let list: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let gone = list["cutoffs"].as_array().unwrap().iter().filter(|one| one["mode"] == "gone");
        gone.cloned().collect::<Vec<_>>()
    };
    let before = removals();
    assert!(!before.is_empty() && before.iter().all(|one| one["scope"] == before[0]["scope"]), "{before:?}");
    assert_eq!(line.deliver("gone-again", "repository", &gone).0, 202);
    applied(7);
    assert_eq!(removals(), before);
    // Nor once the server has been started anew.
    server.stop();
    server.run(&["--webhook-secret-file", secret.path().join("secrets").to_str().unwrap()]);
    assert_eq!(Line::to(&server.tcp).deliver("gone-later", "repository", &gone).0, 202);
    eventually("applied", || {
        let (_, text) = Line::to(&server.tcp).get("/metrics");
        String::from_utf8(text).unwrap().contains("octocache_webhook_applied_total 1")
    });
    assert_eq!(removals(), before);
}

#[test]
fn senders_that_hold_connections_keep_nobody_waiting() {
    let (server, _secret) = hooked(&["--webhook-listen", "127.0.0.1:0", "--max-connections", "40"]);
    let address = server.deliveries.trim_end_matches("/webhook").to_owned();
    let body = opened("acme/repo-0001", 7);
    // Some say nothing, some begin a payload that nobody signed and never end it.
    let idle: Vec<TcpStream> = (0..60).map(|_| connect(&address)).collect();
    let slow: Vec<TcpStream> = (0..30)
        .map(|n| {
            let mut stream = connect(&address);
            let claim = head(&format!("s-{n}"), "issues", &body, &format!("sha256={}", "0".repeat(64)));
            stream.write_all(format!("{claim}\r\n{{").as_bytes()).unwrap();
            stream
        })
        .collect();
    let asked = Instant::now();
    assert_eq!(server.curl("/users/octocat", &[]).status, 200);
    assert_eq!(Line::to(&address).deliver("genuine", "issues", &body).0, 202);
    assert_eq!(Line::to(&server.tcp).deliver("another", "issues", &opened("acme/repo-0001", 8)).0, 202);
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());
    drop((idle, slow));
}

#[cfg(target_os = "linux")]
#[test]
fn stalled_uploads_hold_no_more_than_their_bound() {
    let server = Server::start(&[]);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned();
        line.trim_end_matches(" kB").trim().parse::<u64>().unwrap() >> 10
    };
    assert_eq!(server.curl("/users/octocat", &[]).status, 200);
    let before = resident();
    let begun =
        format!("POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{{\"query\":\"", 4 << 20);
    let part = "x".repeat(3 << 20);
    let stalled: Vec<TcpStream> = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..60)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = connect(&server.tcp);
                    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                    stream.write_all(begun.as_bytes()).unwrap();
                    // It is taken as far as there is room.
                    let _not_all = stream.write_all(part.as_bytes());
                    stream
                })
            })
            .collect();
        uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    let during = resident();
    assert!(during < before + 70, "{before} MiB before, {during} MiB with 180 MiB on their way");
    // Others are answered meanwhile.
    assert_eq!(server.curl("/users/octocat", &[]).status, 200);
    drop(stalled);
    let small = r#"{"query":"query Q { viewer { login } }"}"#;
    eventually("there is room again", || post(&server, "/graphql", "", small).0 != 503);
}

#[test]
fn what_carries_a_credential_is_stored_nowhere_and_shown_nowhere() {
    let server = Server::start(&["-vv"]);
    let secret = "hunter2hunter2";
    for (n, query) in
        ["access_token", "client_id=1&client_secret", "acc%65ss_token", "TOKEN", "sig", "a=1;jwt", "password", "code"]
            .iter()
            .enumerate()
    {
        let path = format!("/users/octocat?{query}={secret}&n={n}");
        server.sim.take_counts();
        for _ in 0..2 {
            let answer = server.curl(&path, &[]);
            assert!(answer.cache_status().contains("fwd=bypass"), "{query}: {}", answer.head);
        }
        assert_eq!(server.sim.take_counts().0, 2, "{query}");
    }
    let status = Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(server.socket())
        .arg("http://localhost/_octocache/status")
        .output()
        .unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("/users/octocat?") && status.contains("***") && !status.contains(secret), "{status}");
    // The same for a run of the program itself.
    let home = tempfile::tempdir().unwrap();
    let path = format!("/users/octocat?access_token={secret}");
    for _ in 0..2 {
        let output = api(&server.sim, &home, &[&path, "--outcome", "--cache-dir", "store"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("not-stored (credentials)"), "{said}");
        assert!(!said.contains(secret), "{said}");
    }
    let offline = api(&server.sim, &home, &[&path, "--offline", "--cache-dir", "store"]);
    let said = String::from_utf8_lossy(&offline.stderr).into_owned();
    assert!(offline.status.code() == Some(3) && said.contains("access_token=***") && !said.contains(secret), "{said}");
    for dir in [home.path(), server.dir.path()] {
        let found = Command::new("grep").args(["-rlaF", secret]).arg(dir).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
    let said = server.said.lock().unwrap().join("\n");
    assert!(said.contains("/users/octocat?") && !said.contains(secret), "{said}");
}

#[test]
fn one_request_in_several_spellings_is_one_entry() {
    let server = Server::start(&[]);
    assert_eq!(server.curl("/repos/acme/repo-0001", &[]).status, 200);
    let again = server.curl("/repos/acme/%72epo%2D0001", &[]);
    assert!(again.cache_status().contains("octocache; hit"), "{}", again.head);
    // A change under either spelling outdates both.
    server.sim.put("/repos/acme/%72epo-0001", Doc::json(json!({ "id": 1 })));
    assert_eq!(server.curl("/repos/acme/%72epo-0001", &["-X", "PATCH", "-d", "{}"]).status, 200);
    assert!(!server.curl("/repos/acme/repo-0001", &[]).cache_status().contains("octocache; hit"));
    server.sim.take_counts();
    for query in ["%61=1&a=2", "a=2&%61=1"] {
        assert!(!server.curl(&format!("/repos/acme/repo-0002?{query}"), &[]).cache_status().contains("hit"), "{query}");
    }
    assert_eq!(server.sim.take_counts().0, 2);
    let dots = raw(&server, "GET /repos/%2e%2e/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(!dots.1.contains("octocache; hit"));
}

#[test]
fn the_page_names_what_clients_ask_for_only_to_those_who_may_know() {
    let server = Server::start(&[]);
    let path = "/repos/acme/repo-0001";
    assert_eq!(server.curl(path, &[]).status, 200);
    assert_eq!(server.curl("/repos/acme/none", &[]).status, 404);
    for page in ["/_octocache/status", "/metrics"] {
        let shown = String::from_utf8(server.curl(page, &[]).body).unwrap();
        assert!(!shown.contains("acme") && !shown.contains("repo-0001"), "{shown}");
    }
    let totals = server.curl("/_octocache/status", &[]).json();
    assert_eq!(
        (&totals["totals"]["asked"], &totals["details"], &totals["lines"]),
        (&json!(2), &json!(false), &json!([]))
    );
    let events = Command::new("curl")
        .args(["-sN", "--max-time", "2"])
        .arg(format!("{}/_octocache/events", server.tcp))
        .output()
        .unwrap();
    let events = String::from_utf8(events.stdout).unwrap();
    assert!(events.contains("\"totals\"") && !events.contains("repo-0001"), "{events}");
    let own = Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(server.socket())
        .arg("http://localhost/_octocache/status")
        .output()
        .unwrap();
    assert!(String::from_utf8(own.stdout).unwrap().contains(path));
}

/// An upstream that answers each request with the same head and body, and what it was asked.
fn upstream(head: String) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut all, mut chunk) = (Vec::new(), [0; 4_096]);
            while !all.windows(4).any(|four| four == b"\r\n\r\n") {
                match stream.read(&mut chunk) {
                    Ok(read) if read > 0 => all.extend_from_slice(&chunk[..read]),
                    _ => break,
                }
            }
            let _gone = tell.send(String::from_utf8_lossy(&all).into_owned());
            let body = "[]";
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n{head}content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn pages_are_followed_on_their_own_origin_only() {
    let (thief, stolen) = upstream(String::new());
    for link in [format!("{thief}/x"), format!("{}/x", thief.replace("http:", "")), "https://127.0.0.1:1/x".into()] {
        let (address, asked) = upstream(format!("link: <{link}>; rel=\"next\"\r\n"));
        let home = tempfile::tempdir().unwrap();
        // At the API past the cache, and at an address of its own.
        for target in ["/x".to_owned(), format!("{}/x", address.replace("127.0.0.1", "localhost"))] {
            let mut command = Command::new(BINARY);
            command.args(["api", "--paginate", &target, "-H", "Authorization: token s3cret", "-H", "Cookie: a=b"]);
            command.env_clear().env("HOME", home.path()).current_dir(home.path()).env("OCTOCACHE_API_URL", &address);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && said.contains("not followed"), "{link} {target}: {said}");
            assert!(asked.try_recv().is_ok() && asked.try_recv().is_err(), "one request: {link} {target}");
        }
    }
    assert!(stolen.try_recv().is_err());
    // On the same origin they are, whichever way they are written.
    let sim = Sim::start(Clock::System);
    world::organisation(&sim, 10);
    sim.token(TOKEN, "client");
    let home = tempfile::tempdir().unwrap();
    let output = api(&sim, &home, &["--paginate", "/repos/acme/repo-0005/issues?per_page=100", "-H", "X-Own: 1"]);
    assert!(output.status.success(), "{output:?}");
    let issues: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(issues.as_array().unwrap().len(), 185);
}

#[test]
fn addresses_with_passwords_are_not_repeated_and_a_broken_proxy_is_not_passed_by() {
    let home = tempfile::tempdir().unwrap();
    let run = |name: &str, value: &str| {
        let mut command = Command::new(BINARY);
        command.args(["api", "/users/octocat"]).env_clear().env("HOME", home.path()).current_dir(home.path());
        let output = command.env(name, value).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["OCTOCACHE_API_URL", "GITHUB_API_URL"] {
        for url in
            ["https://me:hunter2@ghe.example/api/v3", "ftp://me:hunter2@x", "https://x/?token=hunter2", "me:hunter2@x"]
        {
            let (code, said) = run(name, url);
            assert!(code != Some(0) && !said.contains("hunter2"), "{name}={url}: {said}");
        }
    }
    for name in ["HTTPS_PROXY", "ALL_PROXY"] {
        for url in ["http://me:hunter2@", "http://me:hunter2@proxy:99999", "not hunter2", "socks5://me:hunter2@proxy:1"]
        {
            let (code, said) = run(name, url);
            assert!(code != Some(0) && said.contains("PROXY") && !said.contains("hunter2"), "{name}={url}: {said}");
        }
    }
}
