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
            let request = format!("{method} /admin HTTP/1.1\r\nHost: {host}\r\nCookie: a=b\r\nConnection: close\r\n\r\n");
            assert_eq!(raw(&server, &request).0, 400, "{method} {host}");
            assert_eq!(raw_on(UnixStream::connect(server.socket()).unwrap(), &request).0, 400, "{method} {host}");
        }
    }
    // Well-formed ones that are nobody's: the port is part of what is allowed.
    for host in [format!("a.x.example:{port}"), "x.example".into(), "one.two.y.example".into(), "[::ffff:127.0.0.1]".into()] {
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
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{head}");
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
    let send = |head: &str| raw(&server, &format!("{head}Host: localhost\r\nConnection: close\r\n\r\n")).0;
    send("OPTIONS /repos/acme/repo-0001 HTTP/1.1\r\n");
    assert_eq!(send("TRACE /repos/acme/repo-0001 HTTP/1.1\r\n"), 501);
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nAuthorization: \r\n");
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nAuthorization: Basic bWU6\r\n");
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nAuthorization: token a\r\nAuthorization: token b\r\n");
    send("GET /repos/acme/repo-0001 HTTP/1.1\r\nX-HTTP-Method-Override: DELETE\r\nCookie: a=b\r\n");
    send("GET /repos/../../acme HTTP/1.1\r\n");
    send("GET /graphql?query=mutation HTTP/1.1\r\n");
    let with_body = "GET /repos/acme/repo-0001 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    raw(&server, with_body);
    let log = server.sim.log();
    let lent = |headers: &http::HeaderMap| headers.get("authorization").is_some_and(|value| value.as_bytes().starts_with(b"Bearer ghp_Other"));
    for logged in &log {
        assert!(!lent(&logged.headers), "{} {} {:?}", logged.method, logged.target, logged.headers);
    }
    assert!(log.iter().any(|logged| logged.method == "GET") && log.iter().any(|logged| logged.method == "POST"));
    // What is understood is signed, and goes out as it was understood.
    let live = "{\"query\":\"# \\r mutation\\nquery Q { viewer { login } rateLimit { remaining } }\"}";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(post(&server, "/graphql", form, live).0, 200);
    let last = server.sim.log().pop().unwrap();
    assert!(lent(&last.headers));
    assert_eq!(last.headers["content-type"], "application/json");
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
    let settled = || (0..200).any(|_| cached() || { std::thread::sleep(Duration::from_millis(20)); false });
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
    for (what, body) in not_understood() {
        let _not_there = std::fs::remove_file(&cutoffs);
        std::fs::write(home.path().join("body"), &body).unwrap();
        let output = api(&server.sim, &home, &["graphql", "--input", "body", "--cache-dir", "store"]);
        let refused = String::from_utf8_lossy(&output.stderr).contains("HTTP 4");
        let outdated = std::fs::read_to_string(&cutoffs).is_ok_and(|text| text.contains("\"all\""));
        assert_eq!(outdated, !refused, "{what}: {output:?}");
    }
}
