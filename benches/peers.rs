//! What peers cost, and what they bring: hits between two processes, a hundred nodes on one machine, nodes
//! that come and go, and two halves of a net that are cut off from each other.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench")]

#[path = "corpus.rs"]
mod corpus;
#[path = "peers/halves.rs"]
mod halves;
#[path = "../tests/harness/namespaces.rs"]
mod namespaces;
#[path = "table.rs"]
mod table;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use octocache::clock::Clock;
use octocache::entry::Entry;
use octocache::partition::Partition;
use octocache::share::peers::{Peers, Settings};
use octocache::share::seal::Group;
use octocache::share::{Claim, Faith, Place, Wanted};
use octocache::stack::Stack;
use octocache::token::Secret;
use table::Table;

const NODES: usize = 100;
const WRITERS: usize = 10;
const ENTRIES: usize = 10_000;

fn member(dir: &Path, secret: &str, bootstrap: Vec<String>, partition: &Partition) -> Arc<Peers> {
    member_at("127.0.0.1", dir, secret, bootstrap, partition)
}

fn member_at(at: &str, dir: &Path, secret: &str, bootstrap: Vec<String>, partition: &Partition) -> Arc<Peers> {
    let clock = Clock::manual(corpus::NOW);
    let settings = Settings {
        listen: Some(format!("/ip4/{at}/tcp/0")),
        bootstrap,
        remembered: Vec::new(),
        mdns: false,
        partitions: vec![partition.clone()],
        families: Vec::new(),
        trust_public: true,
        read_only: false,
        writers: Vec::new(),
        timeout: Duration::from_secs(5),
        group: Arc::new(Group::read(&Secret::new(secret)).unwrap()),
        key_file: None,
        standing_file: None,
        met_file: None,
        board: None,
    };
    let peers = Arc::new(Peers::new(settings, Arc::new(Stack::new(dir, clock.clone())), clock).unwrap());
    peers.start();
    peers
}

/// Entries of 5 KB or so, each another.
fn entries(count: usize) -> Vec<Entry> {
    let mut entries = corpus::organisation(count);
    for (n, entry) in entries.iter_mut().enumerate() {
        entry.parts.path = format!("/repos/acme/r{n}");
    }
    entries
}

fn wanted(entry: &Entry) -> Wanted {
    Wanted { key: entry.key(), parts: entry.parts.clone(), known: None }
}

async fn until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_mins(3), "it never comes about");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn listening(peers: &Peers) -> String {
    until(|| !peers.standing().listening.is_empty()).await;
    peers.standing().listening[0].clone()
}

fn keep(stack_dir: &Path, entries: &[Entry]) {
    let stack = Stack::new(stack_dir, Clock::manual(corpus::NOW));
    for entry in entries {
        assert!(stack.put(entry));
    }
}

/// The other process of `hits`: has entries, says where it is, ends with its input.
async fn holder(secret: &str) {
    let dir = tempfile::tempdir().unwrap();
    let entries = entries(200);
    keep(dir.path(), &entries);
    let peers = member(dir.path(), secret, Vec::new(), &entries[0].parts.partition);
    for entry in entries {
        peers.put(&Arc::new(entry), 3_600);
    }
    println!("{}", listening(&peers).await);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

fn quantile(times: &mut [f64], q: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * q) as usize]
}

async fn hits(table: &mut Table) {
    Table::section("A hit at another process over loopback, entries of an organisation");
    let secret = Group::generate().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let mut child = child.env("BENCH_HOLDER", &secret).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut at = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut at).unwrap();
    let (dir, entries) = (tempfile::tempdir().unwrap(), entries(200));
    let peers = member(dir.path(), &secret, vec![at.trim().to_owned()], &entries[0].parts.partition);
    until(|| peers.standing().known == entries.len()).await;
    let all: Vec<Wanted> = entries.iter().map(wanted).collect();
    let mut times = Vec::new();
    for round in 0..5_000 {
        let one = &all[round % all.len()..=round % all.len()];
        let started = Instant::now();
        assert!(peers.look_up(one).await[0].is_some());
        times.push(table::ms(started.elapsed()));
    }
    table.at_most("a hit, joined and verified: p50", quantile(&mut times, 0.5), 3.0, "ms");
    table.at_most("p99", quantile(&mut times, 0.99), 10.0, "ms");
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Bytes that went over loopback so far.
fn loopback_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with("lo:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn resident_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

async fn hundred(table: &mut Table) {
    Table::section("100 nodes on this machine, 10,000 entries of 10 of them");
    let secret = Group::generate().unwrap();
    let (dir, entries) = (tempfile::tempdir().unwrap(), entries(ENTRIES));
    let whose = entries[0].parts.partition.clone();
    let per_writer = ENTRIES / WRITERS;
    for (n, some) in entries.chunks(per_writer).enumerate() {
        keep(&dir.path().join(format!("n{n}")), some);
    }
    let before = resident_mb();
    let mut nodes: Vec<Arc<Peers>> = Vec::new();
    let mut addresses: Vec<String> = Vec::new();
    for n in 0..NODES {
        // Each knows a few that were there before it.
        let known = [1, 2, 7, 20].iter().filter_map(|back| addresses.get(n.checked_sub(*back)?).cloned()).collect();
        let node = member(&dir.path().join(format!("n{n}")), &secret, known, &whose);
        addresses.push(listening(&node).await);
        nodes.push(node);
    }
    until(|| nodes.iter().all(|node| node.standing().peers.len() >= 3)).await;
    // Meshes take some heartbeats.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let bytes = loopback_bytes();
    let started = Instant::now();
    for (n, some) in entries[..ENTRIES - 50].chunks(per_writer).enumerate() {
        for entry in some {
            nodes[n].put(&Arc::new(entry.clone()), 3_600);
        }
    }
    until(|| nodes.iter().all(|node| node.standing().known >= ENTRIES - 50)).await;
    let all = table::ms(started.elapsed());
    let each = (loopback_bytes() - bytes) as f64 / (ENTRIES - 50) as f64 / NODES as f64;
    Table::note(&format!("all of them known everywhere after {:.1} s", all / 1e3));
    table.at_most("announced per entry and node, all that went over the wire", each, 1_200.0, "B");
    // One at a time: until 99 of 100 know it.
    let mut times = Vec::new();
    for (n, entry) in entries[ENTRIES - 50..].iter().enumerate() {
        let started = Instant::now();
        nodes[WRITERS - 1].put(&Arc::new(entry.clone()), 3_600);
        let known = ENTRIES - 50 + n + 1;
        until(|| nodes.iter().filter(|node| node.standing().known >= known).count() >= NODES * 99 / 100).await;
        times.push(table::ms(started.elapsed()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Table::note(&format!("one announcement: p50 {:.0} ms", quantile(&mut times, 0.5)));
    table.at_most("one announcement at 99 % of the nodes: p99", quantile(&mut times, 0.99), 1_000.0, "ms");
    until(|| nodes.iter().all(|node| node.standing().known == ENTRIES)).await;
    table.at_most("memory of a node", (resident_mb() - before) / NODES as f64, 40.0, "MB");
    let started = Instant::now();
    let mut times = Vec::new();
    let found = everywhere(&nodes, &entries, &mut times).await;
    table.at_most("of a million look-ups, each entry from each node: not found", missing(found), 0.0, "");
    Table::note(&format!(
        "found in {:.1} ms (p50), {:.1} ms (p99); all of them in {:.0} s",
        quantile(&mut times, 0.5),
        quantile(&mut times, 0.99),
        started.elapsed().as_secs_f64()
    ));
    coming_and_going(table, &mut nodes, &entries, &addresses, &secret, dir.path()).await;
}

fn missing(found: usize) -> f64 {
    (ENTRIES * NODES - found) as f64
}

fn is_right(found: Option<&(Entry, Faith)>, entry: &Entry) -> bool {
    found.is_some_and(|(found, _)| found.body == entry.body && found.key() == entry.key())
}

/// How many of all entries are found, each from each node; and how long some took, one at a time.
async fn everywhere(nodes: &[Arc<Peers>], entries: &[Entry], times: &mut Vec<f64>) -> usize {
    let mut found = 0;
    for (n, node) in nodes.iter().enumerate() {
        for entry in entries.iter().skip(n).step_by(NODES * 7) {
            let started = Instant::now();
            let one = node.look_up(&[wanted(entry)]).await;
            // What a node has itself is not looked for at others.
            assert!(n < WRITERS || is_right(one[0].as_ref(), entry));
            times.push(table::ms(started.elapsed()));
        }
        let own = if n < WRITERS { n * ENTRIES / WRITERS..(n + 1) * ENTRIES / WRITERS } else { 0..0 };
        for (at, some) in entries.chunks(50).enumerate() {
            let wanted: Vec<Wanted> = some.iter().map(wanted).collect();
            let all = node.look_up(&wanted).await;
            let is_there = |m: usize| own.contains(&(at * 50 + m)) || is_right(all[m].as_ref(), &some[m]);
            found += (0..some.len()).filter(|m| is_there(*m)).count();
        }
    }
    found
}

/// A minute in which, each second, one leaves without a word and another comes, while all ask.
async fn coming_and_going(
    table: &mut Table,
    nodes: &mut Vec<Arc<Peers>>,
    entries: &[Entry],
    addresses: &[String],
    secret: &str,
    dir: &Path,
) {
    let whose = &entries[0].parts.partition;
    let (mut asked, mut wrong, mut lost, mut first) = (0_u32, 0_u32, 0_u32, Vec::new());
    for second in 0..60 {
        let started = Instant::now();
        // Those that hold entries stay: what nobody has can be found nowhere.
        nodes.remove(WRITERS + second % (NODES - WRITERS - 1));
        let known = [second % WRITERS, (second + 3) % WRITERS].map(|at| addresses[at].clone());
        let newcomer = member(&dir.join(format!("late-{second}")), secret, known.to_vec(), whose);
        nodes.push(newcomer);
        let mut ask = async |node: &Arc<Peers>, entry: &Entry| {
            asked += 1;
            // As a cache does it that would have to ask GitHub otherwise.
            match node.claim(&wanted(entry)).await {
                Some(Claim::Answered(copy)) => {
                    wrong += u32::from(copy.entry.body != entry.body || copy.entry.key() != entry.key());
                }
                Some(Claim::Ours(_)) | None => lost += 1,
            }
        };
        // The newcomer asks in the moment in which it comes.
        let at = Instant::now();
        ask(&nodes[NODES - 1], &entries[second * 97 % ENTRIES]).await;
        first.push(table::ms(at.elapsed()));
        for n in 0..40 {
            let node = &nodes[WRITERS + (second * 7 + n * 13) % (NODES - WRITERS)];
            ask(node, &entries[(second * 1_009 + n * 211) % ENTRIES]).await;
        }
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(started.elapsed())).await;
    }
    Table::note(&format!("nodes join and leave at 1 a second for a minute; {asked} look-ups meanwhile"));
    Table::note(&format!("a newcomer's first look-up: p50 {:.0} ms", quantile(&mut first, 0.5)));
    table.at_most("wrong answers", f64::from(wrong), 0.0, "");
    table.at_most("lost answers", f64::from(lost), 0.0, "");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(secret) = std::env::var("BENCH_HOLDER") {
        runtime.block_on(holder(&secret));
        return;
    }
    if let Ok(at) = std::env::var(halves::HALF) {
        runtime.block_on(halves::half(&at));
        return;
    }
    let mut table = Table::default();
    if !halves::inside(&mut table) {
        runtime.block_on(async {
            hits(&mut table).await;
            hundred(&mut table).await;
        });
        // What is left of the nodes must not compete with those to come.
        drop(runtime);
        halves::apart(&mut table);
    }
    assert!(table.missed == 0 || std::env::var_os("BENCH_REPORT_ONLY").is_some(), "{} figures missed", table.missed);
}
