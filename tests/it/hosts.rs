//! Peers on several hosts: network namespaces on one bridge, each with a server of its own.
//!
//! Where namespaces are not permitted this says so; what does not need them is in `peers`.

use std::process::Command;
use std::time::{Duration, Instant};

use octocache::clock::Clock;
use octocache::share::seal::Group;

use crate::harness::namespaces::{ip, settle, unshared};
use crate::harness::sim::Sim;
use crate::harness::{relay, world};
use crate::peers::PATH;
use crate::serve::{Server, has};

/// Set where this program runs in namespaces of its own.
const INSIDE: &str = "OCTOCACHE_TEST_HOSTS";

/// Where GitHub is, as the hosts see it.
const GITHUB: &str = "10.77.0.1";

/// A net that was in two is one again within so long.
const HEALED: Duration = Duration::from_secs(35);

/// A host on the bridge, with a server that takes part and finds others by itself.
struct Host {
    n: u8,
    server: Server,
}

impl Host {
    fn start(n: u8, sim: &Sim, github: u16, secret: &str) -> Self {
        ip(&format!("netns add h{n}"));
        ip(&format!("link add v{n} type veth peer name eth0 netns h{n}"));
        ip(&format!("link set v{n} master br0 up"));
        ip(&format!("-n h{n} addr add {}/24 dev eth0", Self::address(n)));
        ip(&format!("-n h{n} link set lo up"));
        ip(&format!("-n h{n} link set eth0 up"));
        ip(&format!("-n h{n} route add 224.0.0.0/4 dev eth0"));
        let mut server = Server::before(sim.clone());
        server.through = ["ip", "netns", "exec", &format!("h{n}")].map(str::to_owned).into();
        server.env = vec![
            ("PATH", std::env::var("PATH").unwrap()),
            ("OCTOCACHE_TEAM_SECRET", secret.to_owned()),
            ("OCTOCACHE_API_URL", format!("http://{GITHUB}:{github}")),
            ("OCTOCACHE_DIR", server.dir.path().join("store").display().to_string()),
        ];
        let plan = server.dir.path().join("plan.yml");
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shared-office/.github/octocache.yml");
        let text = std::fs::read_to_string(example).unwrap();
        // They all run on this one machine, beside other tests.
        std::fs::write(&plan, text.replace("mdns: true", "mdns: true\n    timeout-ms: 5000")).unwrap();
        server.run(&["--p2p", "--plan", plan.to_str().unwrap()]);
        Self { n, server }
    }

    fn address(n: u8) -> String {
        format!("10.77.0.{}", 10 + n)
    }

    /// Lets nothing go to another host, or lets it again.
    fn cut(&self, verb: &str, other: &Host) {
        ip(&format!("-n h{} route {verb} blackhole {}", self.n, Self::address(other.n)));
    }

    /// Who is around, as `cache peers` says it.
    fn standing(&self) -> serde_json::Value {
        let text = std::fs::read(self.server.dir.path().join("store/peers.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn peers(&self) -> usize {
        self.standing()["peers"].as_array().map_or(0, Vec::len)
    }

    fn known(&self) -> u64 {
        self.standing()["known"].as_u64().unwrap_or(0)
    }

    /// What is answered to somebody without a token.
    fn get(&self, path: &str) -> (String, String) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "--max-time", "30", "--unix-socket"]).arg(self.server.socket());
        let output = curl.arg(format!("http://api.github.com{path}")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let status = text.lines().find(|line| line.to_lowercase().starts_with("cache-status")).unwrap_or(&text);
        (status.to_owned(), text.split("\r\n\r\n").last().unwrap().to_owned())
    }
}

fn until(what: &str, within: Duration, holds: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}

#[test]
fn hosts_find_each_other_and_what_falls_apart_comes_together_again() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if !has("unshare") || !has("ip") {
        return;
    }
    let Some(mut inside) = unshared() else {
        eprintln!("SKIPPED: no network namespaces are permitted here");
        return;
    };
    let own = "hosts::hosts_find_each_other_and_what_falls_apart_comes_together_again";
    let inside = inside.args([own, "--exact", "--nocapture"]).env(INSIDE, "1");
    assert!(inside.status().unwrap().success());
}

/// The test, where it has namespaces of its own.
fn inside() {
    settle();
    ip("link set lo up");
    ip("link add br0 type bridge mcast_snooping 0");
    ip(&format!("addr add {GITHUB}/24 dev br0"));
    ip("link set br0 up");
    let sim = Sim::start(Clock::System);
    world::organisation(&sim, 10);
    let behind = sim.url().rsplit_once(':').unwrap().1.parse().unwrap();
    let github = relay::at(GITHUB, behind, Duration::ZERO);
    let secret = Group::generate().unwrap();
    let start = |n| Host::start(n, &sim, github, &secret);

    // Nobody was told where the others are.
    let [one, two, three] = [1, 2, 3].map(start);
    for host in [&one, &two, &three] {
        until("they find each other", Duration::from_mins(1), || host.peers() == 2);
    }
    let path = |n: u8| format!("/repos/acme/repo-{n:04}");
    let asks = |host: &Host, n: u8| {
        let (status, _) = host.get(&path(n));
        assert!(status.contains("miss"), "{status}");
    };
    let shares = |host: &Host, n: u8, known: u64| {
        until("it is announced", HEALED, || host.known() >= known);
        let (status, body) = host.get(&path(n));
        assert!(status.contains("hit") && body.contains(&format!("acme/repo-{n:04}")), "h{}: {status}", host.n);
    };
    asks(&one, 1);
    shares(&two, 1, 1);
    shares(&three, 1, 1);
    assert_eq!(sim.take_counts().0, 1, "{PATH} was asked for once");

    // The third host is cut off, and both sides go on.
    for other in [&one, &two] {
        three.cut("add", other);
        other.cut("add", &three);
    }
    until("it is noticed", Duration::from_mins(1), || three.peers() == 0 && one.peers() == 1);
    asks(&one, 2);
    asks(&three, 3);
    shares(&two, 2, 2);
    until("it notes down its own", Duration::from_secs(30), || three.known() == 2);
    assert_eq!(sim.take_counts().0, 2);
    for other in [&one, &two] {
        three.cut("del", other);
        other.cut("del", &three);
    }
    let healed = Instant::now();
    for host in [&one, &two, &three] {
        until("it is one net again", HEALED.saturating_sub(healed.elapsed()), || host.known() == 3);
    }
    eprintln!("healed after {:.1} s", healed.elapsed().as_secs_f64());
    shares(&three, 2, 3);
    shares(&two, 3, 3);

    // One leaves without a word, another comes.
    drop(one);
    let four = start(4);
    for n in [1, 2, 3] {
        shares(&four, n, 3);
    }
    until("the dead are not counted", Duration::from_mins(1), || two.peers() == 2 && three.peers() == 2);
    assert_eq!(sim.take_counts(), (0, 0));
}
