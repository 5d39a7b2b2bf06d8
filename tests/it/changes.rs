//! Changes and what is read after them: never the state before a change that this program knew of.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use octocache::cache::{Ask, Cache, Change, Ended, Said};
use octocache::clock::Clock;
use octocache::cutoff::{Cutoff, CutoffMode};
use octocache::error::Result;
use octocache::github::{GitHub, Options};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::policy::{Etag, Signer, TtlTable, Validators};
use octocache::reply::Reply;
use octocache::request::{Api, Request};
use octocache::stack::Stack;
use octocache::token::Token;
use octocache::upstream::{BoxFuture, Conditions, RateLimit, Upstream};
use serde_json::json;

use crate::flow::{Fixture, HIT};
use crate::harness::sim::{Doc, Fault};
use crate::harness::world;
use crate::operate::eventually;
use crate::serve::{Server, TOKEN};

const ISSUE: &str = "/repos/acme/repo-0001/issues/1";

/// Begins a `PATCH` to which GitHub says nothing; returns once GitHub has it.
fn unanswered(server: &Server) -> TcpStream {
    server.sim.take_counts();
    server.sim.fail_next(&[Fault::Hang]);
    let mut client = TcpStream::connect(server.tcp.trim_start_matches("http://")).unwrap();
    let head = format!(
        "PATCH {ISSUE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    client.write_all(head.as_bytes()).unwrap();
    eventually("sent", || server.sim.log().iter().any(|logged| logged.method == "PATCH"));
    client
}

#[test]
fn a_change_whose_client_goes_away_is_seen_by_the_next_read() {
    let server = Server::start(&[]);
    server.sim.put(ISSUE, Doc::json(json!({ "n": 1 })));
    assert_eq!(server.curl(ISSUE, &[]).body, br#"{"n":1}"#);
    let client = unanswered(&server);
    // GitHub has carried it out, and nobody knows.
    server.sim.put(ISSUE, Doc::json(json!({ "n": 2 })));
    assert_eq!(server.curl(ISSUE, &[]).body, br#"{"n":2}"#);
    // It takes effect after that read, and the client gives up: what was read is asked again.
    server.sim.put(ISSUE, Doc::json(json!({ "n": 3 })));
    drop(client);
    eventually("suspected", || server.curl(ISSUE, &[]).body == br#"{"n":3}"#);
}

#[test]
fn a_change_under_way_when_the_server_is_killed_is_seen_by_the_next_one() {
    let mut server = Server::start(&[]);
    server.sim.put(ISSUE, Doc::json(json!({ "n": 1 })));
    server.curl(ISSUE, &[]);
    let _client = unanswered(&server);
    server.kill();
    server.sim.put(ISSUE, Doc::json(json!({ "n": 2 })));
    server.run(&[]);
    assert_eq!(server.curl(ISSUE, &[]).body, br#"{"n":2}"#);
}

#[tokio::test]
async fn a_change_without_an_answer_leaves_a_suspicion_and_a_refused_one_nothing() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let cache = Arc::new(fx.cache(Some("ghp_one")));
    let request = fx.request("/repos/acme/repo-0001");
    let get = || async { cache.get(&request, &Ask::default()).await.unwrap().outcome };
    get().await;
    let outdates = || octocache::event::outdated_by_write("PATCH", "/repos/acme/repo-0001/issues/1", cache.now());
    fx.clock.advance(5);
    Change::begin(&cache, outdates()).await.end(Ended::Refused).await;
    fx.clock.advance(1);
    assert_eq!((get().await, get().await), (Outcome::Revalidated, HIT));
    let change = Change::begin(&cache, outdates()).await;
    fx.clock.advance(5);
    change.end(Ended::Unknown).await;
    fx.clock.advance(1);
    assert_eq!((get().await, get().await), (Outcome::Revalidated, HIT));
    fx.clock.advance(60);
    assert_eq!((get().await, get().await), (Outcome::Revalidated, HIT), "once more when the time has come");
    // Dropped: by a client that went away, or a task that was ended.
    drop(Change::begin(&cache, outdates()).await);
    fx.clock.advance(61);
    eventually("noted", || cache.stack().all_cutoffs().iter().any(|cutoff| cutoff.at.secs() % 10 > 0));
    assert_eq!(get().await, Outcome::Revalidated);
}

/// An upstream during whose answer something changes.
#[derive(Debug)]
struct Racing {
    inner: GitHub,
    stack: Arc<Stack>,
    clock: Clock,
}

impl Upstream for Racing {
    fn fetch<'a>(&'a self, request: &'a Request, conditions: &'a Conditions) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(async move {
            let reply = self.inner.fetch(request, conditions).await;
            self.clock.advance(2);
            let scope = "repo:acme/repo-0001".parse().unwrap();
            self.stack.invalidate(&[Cutoff { scope, at: self.clock.now(), mode: CutoffMode::Revalidate }]).unwrap();
            self.clock.advance(2);
            reply
        })
    }

    fn signer(&self) -> Signer {
        self.inner.signer()
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.inner.rate_limit()
    }

    fn allowance(&self, request: &Request) -> Option<u64> {
        self.inner.allowance(request)
    }

    fn sent(&self) -> u32 {
        self.inner.sent()
    }
}

#[tokio::test]
async fn what_was_sent_before_a_change_is_not_newer_than_it() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let stack = Arc::new(Stack::new(fx.dir.path().join("store"), fx.clock.clone()));
    let api = Api::parse(&fx.sim.url()).unwrap();
    let token = Token::new("ghp_one").unwrap();
    let racing = Racing {
        inner: GitHub::new(Options::new(api.clone(), Some(token.clone())), fx.clock.clone()),
        stack: stack.clone(),
        clock: fx.clock.clone(),
    };
    let partition = Partition::token(&token);
    let cache = Cache::new(api, partition, stack, Arc::new(racing), TtlTable::default(), fx.clock.clone());
    let request = fx.request("/repos/acme/repo-0001");
    // A client's own condition, and the plain way.
    let theirs = Validators { etag: Some(Etag::Stored("\"theirs\"".into())), last_modified: None };
    let said = cache.ask_with(&request, &Ask::default(), theirs).await.unwrap();
    assert!(matches!(said, Said::Answer(_)));
    assert_ne!(cache.get(&request, &Ask::default()).await.unwrap().outcome, HIT);
    assert_ne!(cache.get(&request, &Ask::default()).await.unwrap().outcome, HIT);
}

#[tokio::test]
async fn an_invalidation_that_cannot_be_written_is_in_force_and_written_later() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let cache = fx.cache(Some("ghp_one"));
    let request = fx.request("/repos/acme/repo-0001");
    let get = || async { cache.get(&request, &Ask::default()).await.unwrap().outcome };
    get().await;
    fx.clock.advance(5);
    // Something stands where the new list has to be written: as good as a full disk, also for root.
    let partial = fx.dir.path().join("store/partial");
    std::fs::remove_dir_all(&partial).unwrap();
    std::fs::write(&partial, "").unwrap();
    cache.invalidate("repo:acme/repo-0001".parse().unwrap()).unwrap_err();
    assert_eq!(get().await, Outcome::Revalidated, "in force in this process");
    std::fs::remove_file(&partial).unwrap();
    cache.stack().look_again();
    let other = Stack::new(fx.dir.path().join("store"), fx.clock.clone());
    assert_eq!(other.all_cutoffs().iter().count(), 1, "written once that is possible");
}

#[test]
fn later_pages_by_number_are_outdated_by_changes_by_name() {
    let server = Server::start(&[]);
    let (first, second) = ("/repos/acme/repo-0001/issues?per_page=2", "/repositories/1/issues?page=2&per_page=2");
    for (path, n) in [("/repos/acme/repo-0001/issues", 1), ("/repositories/1/issues", 2), ("/organizations/9/repos", 3)]
    {
        server.sim.put(path, Doc::list(vec![json!({ "n": n })]));
    }
    let pages = [first, second, "/organizations/9/repos?page=2"];
    let read = |pages: &[&str]| {
        for page in pages {
            assert_eq!(server.curl(page, &[]).status, 200, "{page}");
        }
    };
    read(&pages);
    server.sim.take_counts();
    read(&pages);
    assert_eq!(server.sim.take_counts().0, 0, "all are fresh");
    // In another spelling, as GitHub takes it.
    server.curl("/repos/Acme/Repo-0001/issues", &["-X", "POST", "-d", "{}"]);
    server.sim.take_counts();
    read(&pages[..2]);
    assert_eq!(server.sim.take_counts().0, 2, "both pages are asked again");
    server.curl("/orgs/acme/repos", &["-X", "POST", "-d", "{}"]);
    server.sim.take_counts();
    read(&pages[2..]);
    assert_eq!(server.sim.take_counts().0, 1);
}

#[test]
fn an_asset_that_is_sent_to_the_host_of_uploads_is_seen_in_its_release() {
    let uploads = crate::harness::sim::Sim::start(Clock::System);
    let host = uploads.url().trim_start_matches("http://").to_owned();
    let server = Server::start(&["--allow-host", &host]);
    let assets = "/repos/acme/repo-0001/releases/1/assets";
    server.sim.put(assets, Doc::list(vec![]));
    server.sim.put("/repos/acme/repo-0002", Doc::json(json!({ "n": 1 })));
    for path in [assets, "/repos/acme/repo-0002"] {
        server.curl(path, &[]);
        assert!(server.curl(path, &[]).cache_status().contains("hit"));
    }
    for prefix in ["", "/api/uploads"] {
        let host = format!("Host: {host}");
        server.curl(&format!("{prefix}{assets}?name=a.zip"), &["-X", "POST", "-d", "zip", "-H", &host]);
        assert_eq!(uploads.take_counts().0, 1);
        assert!(!server.curl(assets, &[]).cache_status().contains("hit"), "{prefix}");
        assert!(server.curl(assets, &[]).cache_status().contains("hit"), "{prefix}");
    }
    assert!(server.curl("/repos/acme/repo-0002", &[]).cache_status().contains("hit"));
}
