//! What running a server for a team costs: numbers read while clients are served, deliveries among
//! 100,000 entries.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use octocache::cutoff::{Cutoff, CutoffMode};
use octocache::stack::Stack;

use super::corpus;
use super::table::{Table, median, ms};
use super::{Client, Field, KEYS, TOKEN, fill, middle, quiet};

const SECRET: &str = "a secret for webhooks";

/// Entries of one repository.
const OF_ONE: usize = 10_000;

/// Entries of others.
const OF_OTHERS: usize = 80_000;

/// In process: everything of one repository is outdated.
pub(super) fn in_process(table: &mut Table) {
    let dir = tempfile::tempdir().unwrap();
    let clock = octocache::clock::Clock::manual(corpus::NOW);
    let stack = Stack::new(dir.path().join("store"), clock.clone()).with_memory(256 << 20);
    let mut entries = corpus::organisation(OF_ONE);
    for (n, entry) in entries.iter_mut().enumerate() {
        entry.parts.path = format!("/repos/acme/one/issues/{n}");
        stack.keep_in_memory(&entry.key(), &std::sync::Arc::new(entry.clone()));
    }
    assert!(stack.memory_size().1 > OF_ONE * 9 / 10, "{:?}", stack.memory_size());
    let mut at = corpus::NOW;
    let took = median(51, || {
        at = at.plus(1);
        let cutoff = Cutoff { scope: "repo:acme/one".parse().unwrap(), at, mode: CutoffMode::Revalidate };
        stack.invalidate(&[cutoff]).unwrap();
    });
    table.at_most("a repository with 10,000 entries outdated, written durably", took, 10.0, "ms");
}

pub(super) fn measure(table: &mut Table, field: &Field) {
    let secret = field.dir.path().join("webhook-secret");
    std::fs::write(&secret, SECRET).unwrap();
    let secret = secret.display().to_string();
    let args = ["--ttl", "1h", "--max-memory", "512MiB", "--webhook-secret-file", &secret];
    let (port, pid) = field.ours("operate", &args);
    Table::section("100,000 entries held: deliveries and numbers while clients are served");
    fill(port);
    let mut client = Client::new(port);
    for n in 0..OF_ONE {
        assert_eq!(client.get(&format!("/repos/big/one/issues/{n}")).unwrap(), 200);
    }
    for n in 0..OF_OTHERS {
        assert_eq!(client.get(&format!("/repos/big/r{}/issues/{n}", n / 20)).unwrap(), 200);
    }
    let held = held(port);
    assert!(held >= 99_000, "{held} entries held");
    numbers(table, field, port);
    deliveries(table, port);
    page(table, port);
    field.stop(pid);
}

fn request(port: u16, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .write_all(
            format!("{head}Host: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .as_bytes(),
        )
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

fn held(port: u16) -> u64 {
    let (_, text) = request(port, "GET /metrics HTTP/1.1\r\n", "");
    let line = text.lines().find_map(|line| line.strip_prefix("octocache_tier_entries{tier=\"memory\"} "));
    line.unwrap().parse().unwrap()
}

fn numbers(table: &mut Table, field: &Field, port: u16) {
    let took = median(51, || assert_eq!(request(port, "GET /metrics HTTP/1.1\r\n", "").0, 200));
    table.at_most("/metrics, 100,000 entries held", took, 20.0, "ms");
    let took = median(31, || assert_eq!(request(port, "GET /_octocache/status HTTP/1.1\r\n", "").0, 200));
    table.at_most("the dashboard's numbers", took, 20.0, "ms");
    // Beforehand it has settled: everything is written and folded, and in memory.
    field.wrk(port, KEYS, 15);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..60 {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if round % 2 == 1 {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        assert_eq!(request(port, "GET /metrics HTTP/1.1\r\n", "").0, 200);
                        // Sixty times as often as Prometheus does by itself.
                        std::thread::sleep(Duration::from_millis(250));
                    }
                });
            }
            let figures = if round % 2 == 1 { &mut with } else { &mut without };
            figures.push(field.wrk(port, KEYS, 1).1);
            ended.store(true, Ordering::Relaxed);
        });
    }
    let (without, with) = (quiet(without), quiet(with));
    Table::note(&format!("p99 of hits {without:.2} ms, while /metrics is read four times a second {with:.2} ms"));
    table.at_most("p99 while /metrics is read, of that without", with / without, 1.2, "x");
}

fn deliveries(table: &mut Table, port: u16) {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let (mut answered, mut outdated) = (Vec::new(), Vec::new());
    for n in 1..=101 {
        let path = format!("/repos/big/r{n}/issues/{}", n * 20);
        let body = format!(
            "{{\"action\":\"edited\",\"issue\":{{\"number\":{}}},\"repository\":{{\"full_name\":\"big/r{n}\",\"owner\":{{\"login\":\"big\"}}}}}}",
            n * 20
        );
        let signature = data_encoding::HEXLOWER.encode(ring::hmac::sign(&key, body.as_bytes()).as_ref());
        let mut line = Client::new(port);
        assert!(is_hit(&mut line, &path), "{path} is not held");
        let started = Instant::now();
        let head = format!(
            "POST /webhook HTTP/1.1\r\nX-Hub-Signature-256: sha256={signature}\r\nX-GitHub-Delivery: d-{n}\r\nX-GitHub-Event: issues\r\n"
        );
        assert_eq!(request(port, &head, &body).0, 202);
        answered.push(ms(started.elapsed()));
        while is_hit(&mut line, &path) {
            assert!(started.elapsed() < Duration::from_secs(5), "{path} is not outdated");
        }
        outdated.push(ms(started.elapsed()));
    }
    table.at_most("a delivery answered", middle(answered), 100.0, "ms");
    table.at_most("from a delivery until what it touches is outdated", middle(outdated), 50.0, "ms");
}

/// The dashboard in a browser, where there is one.
fn page(table: &mut Table, port: u16) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/node/node_modules");
    let chromium = std::path::Path::new("/usr/bin/chromium");
    if !chromium.exists() || !modules.join("puppeteer-core").exists() {
        assert!(std::env::var_os("CI").is_none(), "scripts/test installs chromium and puppeteer-core");
        return Table::note("chromium or puppeteer-core is missing: the page is not measured");
    }
    let output = std::process::Command::new("node")
        .arg(root.join("tests/clients/paint.mjs"))
        .args([&modules, chromium])
        .arg(format!("http://127.0.0.1:{port}"))
        .output()
        .unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    table.at_most("the page, all of it", seen["bytes"].as_f64().unwrap() / 1_024.0, 60.0, "KiB");
    table.at_most("until it is painted, 100,000 entries held", seen["paint"].as_f64().unwrap(), 300.0, "ms");
}

fn is_hit(client: &mut Client, path: &str) -> bool {
    assert_eq!(client.get(path).unwrap(), 200);
    let head = String::from_utf8_lossy(&client.1[..client.1.len().min(2_048)]).to_ascii_lowercase();
    assert!(!head.contains(TOKEN));
    head.contains("cache-status: octocache; hit")
}
