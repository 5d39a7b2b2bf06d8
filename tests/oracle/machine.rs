//! Machines: a store each, with a server over it and commands beside it.
//!
//! Knows: how to start, end, kill and ask. Does not know: what is true.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use octocache::cache::batch::Batching;
use octocache::cache::{Answer, Ask, Cache};
use octocache::clock::Clock;
use octocache::github::{Backoff, GitHub, Options, Wire};
use octocache::partition::Partition;
use octocache::plan::Plan;
use octocache::plan::report::QueryReport;
use octocache::plan::run::{self, Finished, Progress};
use octocache::policy::{TtlTable, Ttls};
use octocache::request::Api;
use octocache::serve::{Common, Entrance, Hosts, Keys, Listener, Live, Room, Settings, serve};
use octocache::share::Share;
use octocache::share::redis::{Redis, Settings as RedisSettings};
use octocache::stack::{Narrow, Stack};
use octocache::token::{Secret, Token};
use octocache::warm::{self, Tick};
use sha2::{Digest, Sha256};

/// What deliveries are signed with.
const SECRET: &str = "a secret of webhooks";

/// A response as a client sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

struct Served {
    client: SendRequest<Full<Bytes>>,
    end: tokio::sync::oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<octocache::error::Result<()>>,
}

/// One machine.
pub struct Machine {
    wire: Arc<dyn Wire>,
    /// Its own clock, which may be wrong.
    pub clock: Clock,
    dir: tempfile::TempDir,
    served: Option<Served>,
    /// How its server, and its commands, share.
    shares: Option<[Arc<Share>; 2]>,
    /// Servers so far; each has a socket of its own.
    started: usize,
}

impl Machine {
    pub fn new(wire: Arc<dyn Wire>, clock: Clock) -> Self {
        Self { wire, clock, dir: tempfile::tempdir().unwrap(), served: None, shares: None, started: 0 }
    }

    /// From the next start on, it shares by Redis.
    pub fn share(&mut self, url: &str) {
        // Patient: whether Redis is slow is not what is judged here.
        let settings = RedisSettings { url: Secret::new(url), timeout: Duration::from_secs(10), read_only: false };
        let share = || {
            let redis = Redis::new(&settings, self.clock.clone()).unwrap();
            Arc::new(Share::new(vec![Arc::new(redis)], self.clock.clone()))
        };
        self.shares = Some([share(), share()]);
    }

    /// Waits until what was put into Redis is there.
    pub async fn shared(&self) {
        for share in self.shares.iter().flatten() {
            share.drained().await;
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn options(token: Option<&str>) -> Options {
        let mut options = Options::new(Api::github(), token.map(|token| Token::new(token).unwrap()));
        // Time stands still: nothing is waited for.
        options.backoff = Backoff { base: Duration::ZERO, retries: 1, max_wait: Duration::ZERO, ..Backoff::default() };
        options.not_ready_pauses.clear();
        options
    }

    /// The cache of a command that begins now.
    pub fn cache(&self, token: &str) -> Cache {
        let account = token.split('_').nth(1).unwrap_or_default();
        let upstream = Arc::new(GitHub::over(self.wire.clone(), Self::options(Some(token)), self.clock.clone()));
        let stack = Stack::new(self.store(), self.clock.clone());
        let partition = Partition::named(account).unwrap();
        Cache::new(Api::github(), partition, stack, upstream, TtlTable::default(), self.clock.clone())
            .with_share(self.shares.as_ref().map(|[_, share]| share.clone()))
    }

    async fn client(&mut self) -> &mut SendRequest<Full<Bytes>> {
        if self.served.as_ref().is_some_and(|served| served.client.is_closed()) {
            self.end().await;
        }
        if self.served.is_none() {
            self.start().await;
        }
        &mut self.served.as_mut().unwrap().client
    }

    async fn start(&mut self) {
        self.started += 1;
        let socket = self.dir.path().join(format!("s{}", self.started));
        let listener = Listener::unix(&socket).unwrap();
        let api = Api::github();
        let stack = Stack::new(self.store(), self.clock.clone()).with_memory(8 << 20);
        let settings = Settings {
            common: Common {
                api: api.clone(),
                options: Self::options(None),
                partition: Partition::public(),
                ttls: Ttls::from(TtlTable::default()),
                stack: Arc::new(stack),
                clock: self.clock.clone(),
                share: self.shares.as_ref().map(|[share, _]| share.clone()),
                lend: false,
            },
            hosts: Hosts::new(api, &[], &[]).unwrap(),
            live: Live {
                ask: Ask::default(),
                rewrite_bodies: Vec::new(),
                secret: None,
                webhook_keys: Keys::read(SECRET),
                room: Room { max_loose: 1_000, max_bytes: 1 << 30 },
            },
            reload: None,
            max_connections: 16,
            idle: Duration::from_mins(1),
            grace: Duration::from_secs(5),
            exit_when_idle: None,
            refetch: false,
            cache_mode: false,
            ticks: None,
            statsd: None,
            wire: Some(self.wire.clone()),
        };
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let ended = async move {
            let _dropped = ended.await;
        };
        let serving = tokio::spawn(serve(settings, vec![(listener, Entrance::All)], ended));
        let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        self.served = Some(Served { client, end, serving });
    }

    /// Asks the server.
    pub async fn ask(
        &mut self,
        method: Method,
        target: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Seen {
        let mut request = Request::builder().method(method).uri(target).header("host", "api.github.com");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = self.client().await;
        client.ready().await.unwrap();
        let response = client.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Seen { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Delivers an event, and waits until it is noted.
    pub async fn deliver(&mut self, id: &str, event: &str, payload: &[u8]) {
        let signature = format!("sha256={}", hmac(SECRET.as_bytes(), payload));
        let headers = [
            ("x-github-event", event),
            ("x-github-delivery", id),
            ("x-hub-signature-256", signature.as_str()),
            ("content-type", "application/json"),
        ];
        loop {
            let seen = self.ask(Method::POST, "/webhook", None, &headers, Bytes::copy_from_slice(payload)).await;
            match seen.status {
                // Known already: it was noted.
                200 => return,
                202 => tokio::time::sleep(Duration::from_micros(300)).await,
                other => panic!("a delivery is answered {other}: {:?}", seen.body),
            }
        }
    }

    /// Ends the server as a signal does.
    pub async fn end(&mut self) {
        if let Some(Served { client, end, serving }) = self.served.take() {
            drop(client);
            let _ended = end.send(());
            serving.await.unwrap().unwrap();
        }
    }

    /// What is on disk at this moment is all that is left.
    pub async fn kill(&mut self) {
        let after = tempfile::tempdir().unwrap();
        copy(&self.store(), &after.path().join("store"));
        self.end().await;
        self.dir = after;
    }

    /// Saves the bundle of an account.
    pub async fn pack(&mut self, account: &str) {
        self.end().await;
        let _nothing_yet =
            Stack::new(self.store(), self.clock.clone()).pack(&Narrow::of(Partition::named(account).unwrap()), false);
    }

    /// Takes the bundle of another machine, as a job does whose runner has nothing yet.
    pub fn restore(&self, from: &Machine) -> bool {
        let bundle = from.store().join("bundle.tar.zst");
        if !bundle.exists() {
            return false;
        }
        std::fs::create_dir_all(self.store()).unwrap();
        std::fs::copy(bundle, self.store().join("bundle.tar.zst")).unwrap();
        true
    }

    /// What `api` does.
    pub async fn read(&self, token: &str, target: &str, accept: &str, ask: &Ask) -> octocache::error::Result<Answer> {
        let cache = self.cache(token);
        cache.hear().await;
        let request = octocache::request::Request::get(cache.api(), target)?.accepting(accept);
        let answer = cache.get(&request, ask).await;
        cache.shared().await;
        cache.flush();
        answer
    }

    /// What `api --paginate` does.
    pub async fn pages(&self, token: &str, target: &str) -> octocache::error::Result<Vec<Answer>> {
        let cache = self.cache(token);
        cache.hear().await;
        let request = octocache::request::Request::get(cache.api(), target)?;
        let answers = cache.get_pages(&request, &Ask::default()).await;
        cache.shared().await;
        cache.flush();
        answers
    }

    /// What `run` does with a plan of one query; and the file that it writes.
    pub async fn run(&self, token: &str, plan: &str) -> (Finished, Option<Bytes>) {
        let out = self.dir.path().join("out");
        let _none_yet = std::fs::remove_dir_all(&out);
        let plan = Plan::parse(plan, "plan.yml", self.dir.path()).unwrap();
        let options = run::Options { output_dir: Some(&out), ..Self::run_options() };
        let finished = run::run(&plan, &self.cache(token), &options, &Silent).await.unwrap();
        let file = finished.index.queries[0].file.as_ref().map(|file| std::fs::read(out.join(file)).unwrap().into());
        (finished, file)
    }

    /// What `warm` does at a tick.
    pub async fn warm(&self, token: &str, plan: &str) -> Tick {
        let plan = Plan::parse(plan, "plan.yml", self.dir.path()).unwrap();
        let options = warm::Options { run: Self::run_options(), horizon_secs: 900, idle_secs: warm::IDLE_SECS };
        warm::tick(&plan, &self.cache(token), options, &Silent).await.unwrap()
    }

    fn run_options<'a>() -> run::Options<'a> {
        run::Options {
            output_dir: None,
            vars: std::collections::BTreeMap::new(),
            ask: Ask::default(),
            batching: Batching { graphql: false, ..Batching::default() },
        }
    }
}

struct Silent;

impl Progress for Silent {
    fn more(&self, _: usize) {}

    fn done(&self, _: &QueryReport) {}
}

fn copy(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(to).unwrap();
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &target),
            // A file that is gone by now was a temporary one.
            _ => drop(std::fs::copy(entry.path(), target)),
        }
    }
}

/// HMAC-SHA-256 (RFC 2104), in hex.
fn hmac(key: &[u8], text: &[u8]) -> String {
    let padded = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    data_encoding::HEXLOWER.encode(&Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize())
}
