//! Clients that hang up, send too much at once, or ask for what fails: others do not feel it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::sim::{Doc, Fault};
use crate::operate::eventually;
use crate::serve::{Server, TOKEN};

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.tcp.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// The status of the first response on a connection that stays open.
fn status(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 12];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[9..]).into_owned()
}

#[test]
fn bytes_behind_a_request_keep_no_answer_back() {
    let server = Server::start(&[]);
    let started = Instant::now();
    for behind in ["\r\n", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut stream = connect(&server);
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n{behind}").as_bytes()).unwrap();
        assert_eq!(status(&mut stream), "200", "{behind:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn what_is_no_request_gets_its_status() {
    let server = Server::start(&[]);
    let many = "X-Many: 1\r\n".repeat(200);
    for (request, wanted) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(300 << 10)), "431"),
    ] {
        let mut stream = connect(&server);
        // The rest of what is too large may meet a closed socket.
        let _closed = stream.write_all(request.as_bytes());
        assert_eq!(status(&mut stream), wanted, "{}", &request[..40.min(request.len())]);
    }
}

#[test]
fn a_fetch_goes_on_without_the_client_that_began_it() {
    let server = Server::start(&[]);
    server.sim.with(|state| state.latency = Duration::from_millis(400));
    let path = "/repos/acme/repo-0001";
    for n in 0..10 {
        let mut stream = connect(&server);
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        if n == 0 {
            eventually("asked", || !server.sim.log().is_empty());
        }
    }
    assert_eq!(server.curl(path, &[]).status, 200);
    assert_eq!(server.sim.take_counts().0, 1);
}

#[test]
fn one_address_that_fails_stops_no_other() {
    let server = Server::start(&["--retries", "0"]);
    server.sim.fail_next(&[Fault::Status(502), Fault::Status(502), Fault::Status(502), Fault::Status(502)]);
    for _ in 0..4 {
        assert_eq!(server.curl("/repos/acme/repo-0001/compare/a...b", &[]).status, 502);
    }
    assert_eq!(server.curl("/repos/acme/repo-0002", &[]).status, 200);
}

#[test]
fn a_stale_answer_does_not_wait_for_a_stalled_github() {
    let server = Server::start(&["--ttl", "0s"]);
    let path = "/repos/acme/repo-0001";
    assert_eq!(server.curl(path, &[]).status, 200);
    server.sim.fail_next(&[Fault::Hang]);
    let started = Instant::now();
    let stale = server.curl(path, &[]);
    assert!(stale.status == 200 && stale.cache_status().contains("stale"), "{}", stale.head);
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

#[test]
fn a_lock_that_another_process_holds_for_ever_stops_nothing() {
    let server = Server::start(&[]);
    let path = "/repos/acme/repo-0001";
    assert_eq!(server.curl(path, &[]).status, 200);
    // As a process that is stopped would.
    let mut held = Vec::new();
    let mut dirs = vec![server.dir.path().join(".cache")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else if name == "lock" || name.ends_with(".lock") {
                let file = std::fs::File::open(entry.path()).unwrap();
                file.lock().unwrap();
                held.push(file);
            }
        }
    }
    assert!(!held.is_empty());
    let started = Instant::now();
    for n in 0..5 {
        assert_eq!(server.curl(&format!("/repos/acme/repo-000{n}"), &[]).status, 200);
        assert_eq!(server.curl("/healthz", &[]).status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // A change is in force although it cannot be written, after a bounded wait.
    server.curl(&format!("{path}/issues/1"), &["-X", "PATCH", "-d", "{}"]);
    assert!(!server.curl(path, &[]).cache_status().contains("hit"));
    assert!(started.elapsed() < Duration::from_secs(18), "{:?}", started.elapsed());
}

#[test]
fn a_reader_that_stalls_holds_no_more_than_what_is_on_its_way() {
    let server = Server::start(&[]);
    let path = "/repos/acme/repo-0001/releases/assets/1";
    let large = vec![b'x'; 64 << 20];
    server.sim.put(path, Doc::Raw { content_type: "application/octet-stream", body: large.into() });
    let peak = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
        line.trim_end_matches(" kB").parse().unwrap()
    };
    let before = peak();
    let ask = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nUser-Agent: reader\r\nAccept: application/octet-stream\r\n\r\n"
    );
    let mut readers: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut reader = TcpStream::connect(server.tcp.trim_start_matches("http://")).unwrap();
            reader.write_all(ask.as_bytes()).unwrap();
            // The first of it has come, and nothing more is read.
            reader.read_exact(&mut [0; 4_096]).unwrap();
            reader
        })
        .collect();
    // As much comes as buffers hold; the rest stays with GitHub.
    let mut last = peak();
    eventually("nothing more comes", || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut last, peak()) == last
    });
    assert!(last - before < 32 << 10, "{before} kB before, {last} kB with 4 readers of 64 MiB");
    // Another one is served meanwhile, and one that goes on gets all of it.
    assert_eq!(server.curl("/repos/acme/repo-0002", &[]).status, 200);
    let mut rest = vec![0; 1 << 20];
    let mut came = 4_096;
    while came < 64 << 20 {
        came += readers[0].read(&mut rest).unwrap();
    }
    assert!(peak() - before < 32 << 10);
}

#[test]
fn an_upload_that_stalls_gets_its_status_and_is_let_go() {
    let server = Server::start(&["--idle-timeout", "1s"]);
    let head = |host: &str, length: usize| {
        format!(
            "POST /repos/acme/repo-0001/issues HTTP/1.1\r\nHost: {host}\r\nUser-Agent: slow\r\n\
             Authorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut slow = connect(&server);
    slow.write_all(format!("{}{{\"title\":", head("localhost", 100)).as_bytes()).unwrap();
    let started = Instant::now();
    assert_eq!(status(&mut slow), "408");
    assert!(started.elapsed() >= Duration::from_secs(1) && started.elapsed() < Duration::from_secs(6));
    // One that comes in pieces, each in time, is none.
    let mut steady = connect(&server);
    let body = br#"{"title":"in pieces"}"#;
    steady.write_all(head("localhost", body.len()).as_bytes()).unwrap();
    for piece in body.chunks(5) {
        std::thread::sleep(Duration::from_millis(400));
        steady.write_all(piece).unwrap();
    }
    assert!(["201", "404"].contains(&status(&mut steady).as_str()));
}
