//! Limits, failures and many who ask at once: what is sent, who waits, who gets what.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::error::Kind;
use octocache::github::{Backoff, GitHub, Options, Reserve};
use octocache::outcome::{Outcome, StaleReason};
use octocache::partition::Partition;
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::stack::Stack;
use octocache::token::Token;

use crate::binary::BINARY;
use crate::flow::{Fixture, HIT};
use crate::harness::sim::Fault;
use crate::harness::world;

impl Fixture {
    /// A cache without sockets, so that time may stand still; its clock follows tokio's.
    fn wired(&self, token: &str, change: impl FnOnce(&mut Options)) -> Cache {
        let api = Api::parse(&self.sim.url()).unwrap();
        let mut options = Options::new(api.clone(), Some(Token::new(token).unwrap()));
        change(&mut options);
        let upstream = Arc::new(GitHub::over(self.sim.wire(), options, self.clock.clone()));
        let stack = Stack::new(self.dir.path().join("store"), self.clock.clone());
        let partition = Partition::token(&Token::new(token).unwrap());
        Cache::new(api, partition, stack, upstream, TtlTable::default(), self.clock.clone())
    }
}

fn following_tokio() -> Fixture {
    Fixture::with_clock(Clock::following_tokio(Timestamp::from_secs(1_800_000_000)))
}

#[tokio::test(start_paused = true)]
async fn failures_are_waited_out_within_bounds() {
    let fx = following_tokio();
    world::organisation(&fx.sim, 1);
    let cache = fx.wired("ghp_one", |_| {});
    let request = fx.request("/repos/acme/repo-0000");
    fx.sim.fail_next(&[Fault::Status(500), Fault::Drop, Fault::Truncate, Fault::Status(503)]);
    let started = tokio::time::Instant::now();
    let answer = cache.get(&request, &Ask::default()).await.unwrap();
    assert_eq!((answer.requests, answer.entry.status), (5, 200));
    assert!(started.elapsed() <= Duration::from_millis(500 + 1_000 + 2_000 + 4_000));
    // The fifth failure in a row is the last.
    fx.sim.take_counts();
    fx.sim.fail_next(&vec![Fault::Status(500); 9]);
    let error = cache.get(&fx.request("/users/octocat"), &Ask::default()).await.unwrap_err();
    assert_eq!((error.kind(), fx.sim.take_counts().0), (Kind::Server(500), 5));
    fx.sim.with(|state| state.faults.clear());
    // Switched off, there is one attempt.
    let impatient = fx.wired("ghp_one", |options| options.backoff = Backoff::off());
    fx.sim.fail_next(&[Fault::Drop]);
    assert!(impatient.get(&fx.request("/users/octocat"), &Ask::default()).await.is_err());
    assert_eq!(fx.sim.take_counts().0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_waited_out_by_who_has_nothing_and_answered_stale_by_who_has_something() {
    let fx = following_tokio();
    world::organisation(&fx.sim, 2);
    let cache = fx.wired("ghp_one", |_| {});
    let known = fx.request("/repos/acme/repo-0000");
    cache.get(&known, &Ask::default()).await.unwrap();
    tokio::time::advance(Duration::from_hours(2)).await;
    // GitHub's clock is ten minutes ahead of ours: what counts is the time between its times.
    fx.sim.with(|state| state.clock_ahead_secs = 600);
    fx.sim.take_counts();
    fx.sim.fail_next(&[Fault::Secondary(Some(30))]);
    let started = tokio::time::Instant::now();
    let stale = cache.get(&known, &Ask::default()).await.unwrap();
    assert_eq!((stale.outcome, started.elapsed()), (Outcome::Stale(StaleReason::Limited), Duration::ZERO));
    let fetched = cache.get(&fx.request("/repos/acme/repo-0001"), &Ask::default()).await.unwrap();
    assert!(matches!(fetched.outcome, Outcome::Fetched(_)));
    assert!((30..=33).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(fx.sim.take_counts().0, 2, "nothing was sent in between");
    // What was stored is still validated for nothing.
    assert_eq!(cache.get(&known, &Ask::default()).await.unwrap().outcome, Outcome::Revalidated);
    assert_eq!(fx.sim.take_counts(), (1, 0));
    // A limit that lasts too long is an error at once.
    fx.sim.fail_next(&[Fault::Secondary(Some(3_000))]);
    let error = cache.get(&fx.request("/users/octocat"), &Ask::default()).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Limited { until: Some(_), .. }), "{error}");
    assert!(error.to_string().contains("nothing is sent before"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_primary_limit_stops_its_bucket_before_github_has_to() {
    let fx = following_tokio();
    let names = world::organisation(&fx.sim, 30);
    fx.sim.with(|state| state.limit = 20);
    let cache = fx.wired("ghp_one", |_| {});
    let requests: Vec<_> = names.iter().map(|name| fx.request(&format!("/repos/{name}"))).collect();
    let answers = cache.get_many(&requests, &Ask::default(), 8).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 20);
    let log = fx.sim.log();
    assert!(log.iter().all(|logged| logged.status == 200), "nothing was refused");
    assert_eq!(log.len(), 20);
    // An hour later only what is missing is sent.
    tokio::time::advance(Duration::from_secs(3_599)).await;
    fx.sim.take_counts();
    let ask = Ask { ttl_secs: Some(86_400), ..Ask::default() };
    assert!(cache.get_many(&requests, &ask, 8).await.iter().all(Result::is_ok));
    assert_eq!(fx.sim.take_counts(), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn a_reserve_is_left_to_others() {
    let fx = following_tokio();
    let names = world::organisation(&fx.sim, 30);
    fx.sim.with(|state| state.limit = 20);
    let warming = fx.wired("ghp_one", |options| options.reserve = Some(Reserve::Percent(25)));
    let requests: Vec<_> = names.iter().map(|name| fx.request(&format!("/repos/{name}"))).collect();
    let answers = warming.get_many(&requests, &Ask::default(), 8).await;
    assert_eq!((answers.iter().filter(|answer| answer.is_ok()).count(), fx.sim.take_counts().0), (15, 15));
    let error = answers.into_iter().find_map(Result::err).unwrap().to_string();
    assert!(error.contains("reserved for others"), "{error}");
    assert!(fx.wired("ghp_one", |_| {}).get(&requests[29], &Ask::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn processes_of_one_identity_share_what_they_know_of_limits() {
    let fx = following_tokio();
    world::organisation(&fx.sim, 3);
    let limits = fx.dir.path().join("limits");
    let of = |token: &str| fx.wired(token, |options| options.limits_dir = Some(limits.clone()));
    let (one, other, stranger) = (of("ghp_one"), of("ghp_one"), of("ghp_two"));
    fx.sim.fail_next(&[Fault::Secondary(Some(900))]);
    assert!(one.get(&fx.request("/repos/acme/repo-0000"), &Ask::default()).await.is_err());
    let told = other.get(&fx.request("/repos/acme/repo-0001"), &Ask::default()).await.unwrap_err();
    assert!(matches!(told.kind(), Kind::Limited { .. }));
    assert_eq!(fx.sim.take_counts().0, 1, "the other process did not even ask");
    assert!(stranger.get(&fx.request("/repos/acme/repo-0002"), &Ask::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn five_thousand_asks_of_fifty_processes_in_an_hour_are_a_handful_of_requests() {
    let fx = following_tokio();
    world::organisation(&fx.sim, 1);
    let processes: Vec<Cache> = (0..50).map(|_| fx.wired("ghp_one", |_| {})).collect();
    let request = fx.request("/repos/acme/repo-0000");
    let ask = Ask { ttl_secs: Some(600), ..Ask::default() };
    for _ in 0..100 {
        let asks = processes.iter().map(|cache| cache.get(&request, &ask));
        assert!(futures_util::future::join_all(asks).await.iter().all(Result::is_ok));
        tokio::time::advance(Duration::from_secs(36)).await;
    }
    let (sent, charged) = fx.sim.take_counts();
    assert!(sent <= 10 && charged == 1, "{sent} sent, {charged} charged");
}

#[tokio::test(start_paused = true)]
async fn a_resident_process_answers_at_once_and_revalidates_behind() {
    let fx = following_tokio();
    world::organisation(&fx.sim, 1);
    let cache = Arc::new(fx.wired("ghp_one", |_| {}));
    let request = fx.request("/repos/acme/repo-0000");
    let ask = Ask { ttl_secs: Some(60), while_revalidate_secs: 600, ..Ask::default() };
    cache.get_soon(&request, &ask).await.unwrap();
    tokio::time::advance(Duration::from_secs(90)).await;
    fx.sim.take_counts();
    let stale = cache.get_soon(&request, &ask).await.unwrap();
    assert_eq!((stale.outcome, stale.age_secs), (Outcome::Stale(StaleReason::WhileRevalidate), 90));
    let also = cache.get_soon(&request, &ask).await.unwrap();
    assert_eq!(also.outcome, Outcome::Stale(StaleReason::WhileRevalidate));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fx.sim.take_counts(), (1, 0), "one revalidation, behind both");
    let fresh = cache.get_soon(&request, &ask).await.unwrap();
    assert_eq!((fresh.outcome, fresh.age_secs), (HIT, 1));
    // Beyond the window it waits like everybody else.
    tokio::time::advance(Duration::from_secs(700)).await;
    assert_eq!(cache.get_soon(&request, &ask).await.unwrap().outcome, Outcome::Revalidated);
}

#[tokio::test(start_paused = true)]
async fn another_process_that_takes_its_time_keeps_nobody_long() {
    let fx = following_tokio();
    world::organisation(&fx.sim, 1);
    let cache = fx.wired("ghp_one", |_| {});
    let request = fx.request("/repos/acme/repo-0000");
    for (known, longest) in [(false, 60), (true, 5)] {
        let key = cache.explain(&request, &Ask::default()).key;
        std::fs::create_dir_all(fx.dir.path().join("store/turns")).unwrap();
        let path = fx.dir.path().join(format!("store/turns/{:02x}", key.as_bytes()[0]));
        let held = std::fs::File::create(path).unwrap();
        held.lock().unwrap();
        let started = tokio::time::Instant::now();
        cache.get(&request, &Ask::default()).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), longest, "a stale copy at hand: {known}");
        tokio::time::advance(Duration::from_hours(2)).await;
    }
}

#[test]
fn fifty_processes_with_one_cold_key_send_one_request() {
    let fx = Fixture::with_clock(Clock::System);
    world::organisation(&fx.sim, 1);
    let api = |path: &str| {
        let mut command = Command::new(BINARY);
        command.args(["api", path]).env_clear().env("HOME", fx.dir.path()).current_dir(fx.dir.path());
        command.env("OCTOCACHE_API_URL", fx.sim.url()).env("GH_ENTERPRISE_TOKEN", "ghp_one");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let many: Vec<_> = (0..50).map(|_| api("/repos/acme/repo-0000")).collect();
    for process in many {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.starts_with(b"{\"id\":0"));
    }
    assert_eq!(fx.sim.take_counts(), (1, 1));
    // A leader that dies in the middle leaves its turn to the next at once.
    fx.sim.with(|state| state.faults.push(Fault::Hang));
    let mut leader = api("/users/octocat");
    while fx.sim.log().is_empty() {
        std::thread::yield_now();
    }
    let follower = api("/users/octocat");
    leader.kill().unwrap();
    leader.wait().unwrap();
    let started = tokio::time::Instant::now();
    assert!(follower.wait_with_output().unwrap().status.success());
    assert!(started.elapsed() < Duration::from_secs(2));
}
