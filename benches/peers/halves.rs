//! A hundred nodes in two network namespaces, the link between them cut and mended: two processes that are
//! told what to do by lines, and answer by lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use octocache::share::Place;
use octocache::share::peers::Peers;
use octocache::share::seal::Group;

use crate::namespaces::{ip, settle, unshared};
use crate::table::Table;
use crate::{entries, listening, member_at, until};

/// The address at which this process's half lives.
pub(crate) const HALF: &str = "BENCH_HALF";
const SECRET: &str = "BENCH_SECRET";
const INSIDE: &str = "BENCH_INSIDE";

const NODES: usize = 50;
const BEFORE: usize = 1_000;
const MEANWHILE: usize = 50;
const CUT: Duration = Duration::from_secs(30);

/// One half: makes nodes, puts entries, says how many the least informed node knows.
pub(crate) async fn half(at: &str) {
    let secret = std::env::var(SECRET).unwrap();
    let (dir, entries) = (tempfile::tempdir().unwrap(), entries(BEFORE + 2 * MEANWHILE));
    let (mut nodes, mut addresses): (Vec<Arc<Peers>>, Vec<String>) = (Vec::new(), Vec::new());
    let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = told.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["start", ref others @ ..] => {
                for n in 0..NODES {
                    let back = [1, 2, 7, 20].iter().filter_map(|back| addresses.get(n.checked_sub(*back)?).cloned());
                    let known = back.chain(others.get(n % others.len().max(1)).map(|at| (*at).to_owned())).collect();
                    let partition = &entries[0].parts.partition;
                    let node = member_at(at, &dir.path().join(format!("n{n}")), &secret, known, partition);
                    addresses.push(listening(&node).await);
                    nodes.push(node);
                }
                println!("{}", addresses[..5].join(" "));
            }
            ["put", from, to] => {
                for n in from.parse::<usize>().unwrap()..to.parse().unwrap() {
                    nodes[n % 5].put(&Arc::new(entries[n].clone()), 3_600);
                }
                println!("put");
            }
            ["know", count] => {
                let count: usize = count.parse().unwrap();
                until(|| nodes.iter().all(|node| node.standing().known >= count)).await;
                println!("{}", nodes.iter().map(|node| node.standing().known).max().unwrap());
            }
            ["meet", least] => {
                let least: usize = least.parse().unwrap();
                until(|| nodes.iter().all(|node| node.standing().peers.len() >= least)).await;
                println!("met");
            }
            // How many connections lead to addresses that begin so.
            ["to", others] => {
                let leads = |node: &Arc<Peers>| {
                    node.standing().peers.iter().filter(|peer| peer.address.starts_with(others)).count()
                };
                println!("{}", nodes.iter().map(leads).sum::<usize>());
            }
            _ => panic!("{line}"),
        }
    }
}

struct Half {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Half {
    fn start(namespace: &str, at: &str, secret: &str) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(std::env::current_exe().unwrap());
        command.env_remove(INSIDE).env(HALF, at).env(SECRET, secret);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "a half has ended");
        line.trim().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs itself in namespaces, where they are permitted.
pub(crate) fn apart(table: &mut Table) {
    let Some(mut inside) = unshared() else {
        return Table::note("no network namespaces are permitted here: a cut is not measured");
    };
    let inside = inside.env(INSIDE, "1").status();
    table.missed += usize::from(!inside.unwrap().success());
}

/// Two halves of fifty nodes, a cut of half a minute in which both go on, and how long it takes to heal.
pub(crate) fn inside(table: &mut Table) -> bool {
    if std::env::var_os(INSIDE).is_none() {
        return false;
    }
    Table::section("50 nodes here and 50 there, the link between them cut for 30 s");
    settle();
    for line in ["netns add a", "netns add b", "link add eth0 netns a type veth peer name eth0 netns b"] {
        ip(line);
    }
    for (namespace, at) in [("a", "10.78.0.1"), ("b", "10.78.0.2")] {
        ip(&format!("-n {namespace} addr add {at}/24 dev eth0"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {namespace} link set eth0 up"));
    }
    let secret = Group::generate().unwrap();
    let [mut here, mut there] = [("a", "10.78.0.1"), ("b", "10.78.0.2")].map(|(ns, at)| Half::start(ns, at, &secret));
    let addresses = here.ask("start");
    there.ask(&format!("start {addresses}"));
    for half in [&mut here, &mut there] {
        half.ask("meet 3");
    }
    here.ask(&format!("put 0 {BEFORE}"));
    for half in [&mut here, &mut there] {
        half.ask(&format!("know {BEFORE}"));
    }
    ip("-n a link set eth0 down");
    let (one, two) = (BEFORE + MEANWHILE, BEFORE + 2 * MEANWHILE);
    here.ask(&format!("put {BEFORE} {one}"));
    there.ask(&format!("put {one} {two}"));
    std::thread::sleep(CUT);
    for half in [&mut here, &mut there] {
        assert_eq!(half.ask(&format!("know {one}")), one.to_string(), "each half knows its own, no more");
    }
    Table::note(&format!("connections to the other half when the link comes back: {}", here.ask("to /ip4/10.78.0.2")));
    ip("-n a link set eth0 up");
    let healed = Instant::now();
    // Both at once.
    here.tell(&format!("know {two}"));
    there.tell(&format!("know {two}"));
    let [_, _] = [&mut here, &mut there].map(Half::hear);
    table.at_most("until every node knows everything again", healed.elapsed().as_secs_f64(), 35.0, "s");
    true
}
