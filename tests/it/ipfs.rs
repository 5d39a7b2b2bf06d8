//! Copies kept by IPFS: a real Kubo node, and a server that behaves as no node should.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use octocache::cache::{Ask, Cache};
use octocache::cid::Cid;
use octocache::cutoff::{Cutoff, CutoffMode};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::share::ipfs::{Ipfs, Settings, TIMEOUT};
use octocache::share::seal::Group;
use octocache::share::{Place, Share, Tallied};
use octocache::tier::TierName;
use octocache::token::Secret;
use serde_json::Value;

use crate::flow::{Fixture, HIT};
use crate::harness::world;

/// A node of our own, that speaks to nobody else.
struct Node {
    child: Child,
    api: String,
    dir: tempfile::TempDir,
}

/// Kubo, as `scripts/test` builds it.
fn kubo() -> Option<PathBuf> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/kubo/ipfs");
    if built.exists() {
        return Some(built);
    }
    assert!(std::env::var_os("CI").is_none(), "there is no Kubo; scripts/test builds it");
    eprintln!("SKIPPED: there is no Kubo; scripts/test builds it where Go is");
    None
}

impl Node {
    fn start() -> Option<Self> {
        let kubo = kubo()?;
        let dir = tempfile::tempdir().unwrap();
        let ipfs = |args: &[&str]| {
            let output = Command::new(&kubo).args(args).env("IPFS_PATH", dir.path()).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        ipfs(&["init", "--profile=test"]);
        ipfs(&["config", "Addresses.API", "/ip4/127.0.0.1/tcp/0"]);
        ipfs(&["config", "Addresses.Gateway", ""]);
        ipfs(&["config", "--json", "Addresses.Swarm", "[]"]);
        ipfs(&["config", "--json", "Bootstrap", "[]"]);
        let mut daemon = Command::new(&kubo);
        daemon.args(["daemon", "--offline"]).env("IPFS_PATH", dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = daemon.spawn().unwrap();
        let mut node = Self { child, api: String::new(), dir };
        let started = Instant::now();
        while node.api.is_empty() {
            assert!(started.elapsed() < Duration::from_mins(1), "Kubo does not start");
            std::thread::sleep(Duration::from_millis(20));
            let said = std::fs::read_to_string(node.dir.path().join("api")).unwrap_or_default();
            if let Some(port) = said.trim().strip_prefix("/ip4/127.0.0.1/tcp/") {
                node.api = format!("http://127.0.0.1:{port}");
            }
        }
        while !node.is_up() {
            assert!(started.elapsed() < Duration::from_mins(1), "Kubo does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(node)
    }

    fn is_up(&self) -> bool {
        Command::new("curl")
            .args(["-sf", "-X", "POST", &format!("{}/api/v0/id", self.api)])
            .output()
            .unwrap()
            .status
            .success()
    }

    fn call(&self, path: &str, args: &[&str]) -> Vec<u8> {
        let url = format!("{}/api/v0/{path}", self.api);
        let output = Command::new("curl").args(["-s", "-X", "POST"]).args(args).arg(url).output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    /// Names of all that is pinned, and what.
    fn pins(&self) -> Vec<(String, Cid)> {
        let list = self.call("pin/ls?type=direct&names=true&stream=true", &[]);
        let pins = list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
            let pin: Value = serde_json::from_slice(line).unwrap();
            (pin["Name"].as_str().unwrap().to_owned(), Cid::parse_any_base(pin["Cid"].as_str().unwrap()).unwrap())
        });
        pins.collect()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Fixture {
    fn keeping(&self, name: &str, api: &str, secret: &str, timeout: Duration) -> Cache {
        let group = Arc::new(Group::read(&Secret::new(secret)).unwrap());
        let settings = Settings { api: api.to_owned(), authorization: None, timeout, group };
        let place: Arc<dyn Place> = Arc::new(Ipfs::new(settings, self.clock.clone()).unwrap());
        let share = Arc::new(Share::new(vec![place], self.clock.clone()));
        self.machine_of(name, Some(share), Partition::named("team").unwrap(), Some("ghp_one"))
    }

    fn kept_by(&self, name: &str, node: &Node, secret: &str) -> Cache {
        self.keeping(name, &node.api, secret, Duration::from_secs(5))
    }
}

fn tallied(cache: &Cache) -> Tallied {
    cache.share().unwrap().tallied()[0].1
}

#[tokio::test]
async fn what_a_node_keeps_answers_whoever_has_the_secret() {
    let Some(node) = Node::start() else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 3);
    let secret = Group::generate().unwrap();
    let paths = ["/repos/acme/repo-0000", "/repos/acme/repo-0001", "/orgs/acme/repos"];
    let one = fx.kept_by("one", &node, &secret);
    let mut first = Vec::new();
    for path in paths {
        first.push(one.get(&fx.request(path), &Ask::default()).await.unwrap().entry);
    }
    one.shared().await;
    assert_eq!(tallied(&one).written, 3, "{:?}", tallied(&one));
    // Another machine that has nothing but the secret and the node: the node's pins are the index.
    let two = fx.kept_by("two", &node, &secret);
    fx.sim.take_counts();
    for (path, first) in paths.iter().zip(&first) {
        let answer = two.get(&fx.request(path), &Ask::default()).await.unwrap();
        assert_eq!((answer.outcome, answer.tier, &answer.entry), (HIT, Some(TierName::Ipfs), first));
    }
    assert_eq!(fx.sim.take_counts(), (0, 0));
    // The node sees nothing of it: no path, no body, no token, no partition.
    let pins = node.pins();
    assert_eq!(pins.len(), 3);
    for (name, cid) in &pins {
        let block = node.call(&format!("block/get?arg={cid}"), &[]);
        assert_eq!(Cid::of(&block), *cid);
        for word in ["acme", "repo", "full_name", "ghp_one", "team", "etag", "api"] {
            assert!(!block.windows(word.len()).any(|part| part == word.as_bytes()), "{word} in {name}");
            assert!(!name.trim_start_matches("octocache-1-").contains(word), "{name}");
        }
    }
    // Who has another secret finds nothing, and names things otherwise.
    let stranger = fx.kept_by("stranger", &node, &Group::generate().unwrap());
    let answer = stranger.get(&fx.request(paths[0]), &Ask::default()).await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Fetched(_)));
    assert_eq!((tallied(&stranger).hits, tallied(&stranger).refused), (0, 0));
}

#[tokio::test]
async fn one_copy_of_each_is_pinned_and_only_as_long_as_it_is_of_use() {
    let Some(node) = Node::start() else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let secret = Group::generate().unwrap();
    let (stays, goes) = (fx.request("/repos/acme/repo-0000"), fx.request("/repos/acme/repo-0001"));
    let one = fx.kept_by("one", &node, &secret);
    for request in [&stays, &goes] {
        one.get(request, &Ask::default()).await.unwrap();
    }
    one.shared().await;
    let before = node.pins();
    // Confirmed: the copy says so, and takes the place of the one before.
    fx.clock.advance(3_700);
    assert_eq!(one.get(&stays, &Ask::default()).await.unwrap().outcome, Outcome::Revalidated);
    one.shared().await;
    let after = node.pins();
    assert_eq!(after.len(), 2, "{after:?}");
    assert_eq!(after.iter().filter(|pin| before.contains(pin)).count(), 1);
    let two = fx.kept_by("two", &node, &secret);
    assert_eq!(two.get(&stays, &Ask::default()).await.unwrap().tier, Some(TierName::Ipfs));
    // Gone is unpinned, whatever its name does not say.
    fx.clock.advance(10);
    let gone = Cutoff { scope: "repo:acme/repo-0001".parse().unwrap(), at: fx.clock.now(), mode: CutoffMode::Gone };
    one.invalidate_all(&[gone]).unwrap();
    one.shared().await;
    assert_eq!(node.pins().len(), 1);
    // What nobody can use any more is let go by whoever looks next. Pins of others are not touched.
    std::fs::write(fx.dir.path().join("block"), b"somebody else's").unwrap();
    let file = format!("data=@{}", fx.dir.path().join("block").display());
    let put: Value = serde_json::from_slice(&node.call("block/put?cid-codec=raw", &["-F", &file])).unwrap();
    node.call(&format!("pin/add?arg={}&recursive=false&name=mine", put["Key"].as_str().unwrap()), &[]);
    fx.clock.advance(30 * 86_400);
    let late = fx.kept_by("late", &node, &secret);
    assert_eq!(late.get(&goes, &Ask::default()).await.unwrap().tier, None);
    late.shared().await;
    let left: Vec<String> = node.pins().into_iter().map(|(name, _)| name).collect();
    assert!(left.len() == 2 && left.contains(&"mine".to_owned()), "{left:?}");
}

#[tokio::test]
async fn what_is_not_what_its_name_says_is_a_miss() {
    let Some(node) = Node::start() else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let secret = Group::generate().unwrap();
    let (wanted, other) = (fx.request("/repos/acme/repo-0000"), fx.request("/repos/acme/repo-0001"));
    let one = fx.kept_by("one", &node, &secret);
    one.get(&wanted, &Ask::default()).await.unwrap();
    one.shared().await;
    let (name, sound) = node.pins().remove(0);
    one.get(&other, &Ask::default()).await.unwrap();
    one.shared().await;
    let (_, others) = node.pins().into_iter().find(|(_, cid)| *cid != sound).unwrap();
    // Another key's copy, and noise, under the name of ours.
    std::fs::write(fx.dir.path().join("block"), vec![7; 500]).unwrap();
    let file = format!("data=@{}", fx.dir.path().join("block").display());
    let noise: Value = serde_json::from_slice(&node.call("block/put?cid-codec=raw", &["-F", &file])).unwrap();
    for (n, forged) in [others.to_string(), noise["Key"].as_str().unwrap().to_owned()].into_iter().enumerate() {
        for (_, cid) in node.pins() {
            node.call(&format!("pin/rm?arg={cid}&recursive=false"), &[]);
        }
        node.call(&format!("pin/add?arg={forged}&recursive=false&name={name}"), &[]);
        let cache = fx.kept_by(&format!("reader-{n}"), &node, &secret);
        let answer = cache.get(&wanted, &Ask::default()).await.unwrap();
        assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{:?}", answer.outcome);
        assert_eq!((tallied(&cache).refused, tallied(&cache).hits), (1, 0));
    }
}

#[tokio::test]
async fn a_dead_or_paused_node_is_waited_for_less_than_200_ms_in_all() {
    let Some(mut node) = Node::start() else { return };
    let fx = Fixture::new();
    world::organisation(&fx.sim, 20);
    let secret = Group::generate().unwrap();
    let filled = fx.kept_by("filled", &node, &secret);
    let ask = async |cache: &Cache| {
        for n in 0..20 {
            cache.get(&fx.request(&format!("/repos/acme/repo-{n:04}")), &Ask::default()).await.unwrap();
        }
        cache.shared().await;
    };
    ask(&filled).await;
    // In the middle: it has the list, and then does not answer.
    let middle = fx.keeping("middle", &node.api, &secret, TIMEOUT);
    middle.get(&fx.request("/repos/acme/repo-0000"), &Ask::default()).await.unwrap();
    node.signal("-STOP");
    let paused = fx.keeping("paused", &node.api, &secret, TIMEOUT);
    for cache in [&middle, &paused] {
        ask(cache).await;
        let tallied = tallied(cache);
        assert!(!tallied.up && tallied.waited_micros < 200_000, "{tallied:?}");
    }
    node.signal("-CONT");
    node.child.kill().unwrap();
    let dead = fx.keeping("dead", &node.api, &secret, TIMEOUT);
    ask(&dead).await;
    assert!(!tallied(&dead).up && tallied(&dead).waited_micros < 200_000, "{:?}", tallied(&dead));
}

/// A server that gives everybody the same answer. Returns its address.
fn stub(answer: &'static [u8], hang: bool) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut chunk = [0; 8 << 10];
                let _head = client.read(&mut chunk);
                let _sent = client.write_all(answer);
                if hang {
                    std::thread::sleep(Duration::from_mins(1));
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn no_answer_of_a_node_breaks_anything() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 1);
    let secret = Group::generate().unwrap();
    let wrong_cid = b"HTTP/1.1 200 OK\r\nContent-Length: 76\r\nConnection: close\r\n\r\n{\"Key\":\"bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e\",\"Size\":1}";
    let cases: [(&str, &'static [u8], bool); 6] = [
        ("hangs", b"", true),
        ("hangs within", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"Cid\":", true),
        ("breaks off", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"Cid\":", false),
        ("refuses", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", false),
        ("names it otherwise", wrong_cid, false),
        ("is no server", b"SSH-2.0-OpenSSH_9.2\r\n", false),
    ];
    for (what, answer, hang) in cases {
        let cache = fx.keeping(what, &stub(answer, hang), &secret, TIMEOUT);
        let started = Instant::now();
        let answer = cache.get(&fx.request("/repos/acme/repo-0000"), &Ask::default()).await.unwrap();
        cache.shared().await;
        assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{what}");
        assert_eq!((tallied(&cache).hits, tallied(&cache).written), (0, 0), "{what}");
        assert!(started.elapsed() < Duration::from_secs(5), "{what}: {:?}", started.elapsed());
    }
}
