//! The proxy and its tiers, side by side with nginx's `proxy_cache` as the strongest that a user could
//! write, with gh itself, and with GitHub's stand-in asked directly: `cargo bench --bench serve`, or
//! `cargo bench --bench serve -- hits crowd` for some of it.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "a bench measures real time and prints"
)]

mod corpus;
#[path = "../tests/harness.rs"]
mod harness;
mod operate;
mod table;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use octocache::cache::{Ask, Cache};
use octocache::clock::Clock;
use octocache::github::{GitHub, Options};
use octocache::policy::TtlTable;
use octocache::request::{Api, Request};
use octocache::stack::{Narrow, Stack};
use table::{Table, median, ms};

const BINARY: &str = env!("CARGO_BIN_EXE_octocache");
const TOKEN: &str = "ghp_BenchBenchBenchBenchBenchBenchBench1";
const KEYS: usize = 10_000;
const BODY: usize = 5_000;

type Part = fn(&mut Table, &Field);

fn main() {
    let mut table = Table::default();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|one| one == part);
    if is_wanted("process") {
        in_process(&mut table);
        operate::in_process(&mut table);
    }
    if ["nginx", "wrk", "taskset"].iter().all(|tool| has(tool)) {
        let field = Field::new();
        let parts: [(&str, Part); 5] = [
            ("hits", against_nginx),
            ("misses", misses),
            ("revalidation", revalidation),
            ("operate", operate::measure),
            ("crowd", crowd),
        ];
        for (_, measure) in parts.iter().filter(|(part, _)| is_wanted(part)) {
            measure(&mut table, &field);
        }
    } else {
        Table::note("nginx, wrk or taskset is missing: the proxy is not measured");
        assert!(std::env::var_os("CI").is_none(), "install nginx-light, wrk, util-linux");
    }
    if is_wanted("gh") {
        gh(&mut table);
    }
    let report_only = std::env::var_os("BENCH_REPORT_ONLY").is_some();
    assert!(report_only || table.missed == 0, "{} goals were missed", table.missed);
}

fn has(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).any(|dir| dir.join(tool).exists())
}

fn in_process(table: &mut Table) {
    Table::section("In process: Cache::get of a request that is stored (median)");
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(corpus::NOW);
    let entries = corpus::organisation(2_000);
    let api = Api::github();
    let cache = |stack: Stack| {
        let upstream = Arc::new(GitHub::new(Options::new(api.clone(), None), clock.clone()));
        Cache::new(api.clone(), entries[0].parts.partition.clone(), stack, upstream, TtlTable::default(), clock.clone())
    };
    let get = |cache: &Cache, request: &Request| {
        let ask = Ask { ttl_secs: Some(1 << 30), ..Ask::default() };
        assert!(cache.get(request, &ask).now_or_never().unwrap().is_ok());
    };
    let request = |at: usize| entries[at].parts.request(&api, None).unwrap();
    let five = (0..entries.len()).min_by_key(|at| entries[*at].body.len().abs_diff(BODY)).unwrap();
    let loose = Stack::new(dir.path().join("loose"), clock.clone());
    assert!(loose.put(&entries[five]));
    let disk = cache(Stack::new(dir.path().join("loose"), clock.clone()));
    let memory = cache(Stack::new(dir.path().join("loose"), clock.clone()).with_memory(64 << 20));
    let wanted = request(five);
    let per =
        |count: u32, run: &mut dyn FnMut()| median(31, || (0..count).for_each(|_| run())) * 1_000.0 / f64::from(count);
    get(&memory, &wanted);
    table.at_most("memory hit", per(10_000, &mut || get(&memory, &wanted)), 1.0, "µs");
    table.at_most("disk hit, 5 KB", per(200, &mut || get(&disk, &wanted)), 60.0, "µs");
    let packing = Stack::new(dir.path().join("packed"), clock.clone());
    for entry in &entries {
        assert!(packing.put(entry));
    }
    packing.pack(&Narrow::everything(), true).unwrap();
    let packed = || cache(Stack::new(dir.path().join("packed"), clock.clone()));
    let cold = median(101, || get(&packed(), &wanted)) * 1_000.0;
    table.at_most("bundle hit, store opened for it, frame decoded", cold, 1_500.0, "µs");
    let held = packed();
    get(&held, &wanted);
    table.at_most("bundle hit, frame held", per(200, &mut || get(&held, &wanted)), 60.0, "µs");
}

/// An upstream with 10,000 bodies, and the two caches before it.
struct Field {
    dir: tempfile::TempDir,
    children: std::cell::RefCell<Vec<Child>>,
    upstream: u16,
    nginx: u16,
}

impl Drop for Field {
    fn drop(&mut self) {
        for child in self.children.get_mut() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Field {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        std::fs::create_dir_all(dir.path().join("www/repos/o")).unwrap();
        for n in 0..KEYS {
            let mut body = format!("{{\"id\":{n},\"full_name\":\"o/r{n}\",\"x\":\"");
            while body.len() < BODY - 2 {
                let _infallible = write!(body, "{:x}", body.len() * (n + 7));
            }
            std::fs::write(dir.path().join(format!("www/repos/o/r{n}")), body + "\"}").unwrap();
        }
        let (upstream, nginx) = (free_port(), free_port());
        let common = "worker_processes 1; daemon off; master_process off; events { worker_connections 8192; }";
        let http = format!(
            "access_log off; error_log {at}/error.log; keepalive_requests 100000000; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;"
        );
        let github = format!(
            "{common} pid {at}/up.pid; http {{ {http} server {{ listen 127.0.0.1:{upstream} backlog=8192; root {at}/www; default_type application/json; \
             location /repos/big/ {{ return 200 '[1]'; }} \
             location / {{ add_header Vary 'Accept, Authorization, Cookie, X-GitHub-OTP'; add_header Cache-Control 'private, max-age=60, s-maxage=60'; }} }} }}"
        );
        // The strongest that a user could write; see docs/migration.md.
        let proxy = format!(
            "{common} pid {at}/px.pid; http {{ {http} proxy_cache_path {at}/cache levels=1:2 keys_zone=z:64m max_size=1g inactive=7d use_temp_path=off; \
             upstream gh {{ server 127.0.0.1:{upstream}; keepalive 64; }} \
             server {{ listen 127.0.0.1:{nginx} backlog=8192; location / {{ proxy_pass http://gh; proxy_http_version 1.1; proxy_set_header Connection ''; \
             proxy_set_header Host api.github.com; proxy_cache z; proxy_cache_key '$http_authorization:$http_accept:$request_uri'; \
             proxy_ignore_headers Cache-Control Expires Vary; proxy_cache_valid 200 3600s; proxy_cache_revalidate on; proxy_cache_lock on; \
             proxy_cache_background_update on; proxy_cache_use_stale error timeout updating http_403 http_429 http_500 http_502 http_503 http_504; \
             add_header X-Cached $upstream_cache_status always; }} }} }}"
        );
        let field = Self { dir, children: Vec::new().into(), upstream, nginx };
        for (name, text, core) in [("up.conf", github, "1"), ("px.conf", proxy, "0")] {
            let path = field.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            field.run(
                "nginx",
                &["-p", &field.dir.path().display().to_string(), "-c", &path.display().to_string()],
                core,
                &[],
            );
        }
        wait_for(upstream);
        wait_for(nginx);
        field
    }

    /// Starts something on one core; its place among the children.
    fn run(&self, program: &str, args: &[&str], core: &str, env: &[(&str, &str)]) -> usize {
        let mut command = Command::new("taskset");
        command
            .args(["-c", core, program])
            .args(args)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.children.borrow_mut().push(command.spawn().unwrap());
        self.children.borrow().len() - 1
    }

    /// A server of ours with one worker; its port and process.
    fn ours(&self, name: &str, args: &[&str]) -> (u16, u32) {
        let port = free_port();
        let (store, listen) = (self.dir.path().join(name).display().to_string(), format!("127.0.0.1:{port}"));
        let base = ["serve", "--workers", "1", "--listen", &listen, "--cache-dir", &store];
        let (home, url) = (self.dir.path().display().to_string(), format!("http://127.0.0.1:{}", self.upstream));
        let env = [("HOME", home.as_str()), ("XDG_CACHE_HOME", &home), ("OCTOCACHE_API_URL", &url)];
        let at = self.run(BINARY, &[&base[..], args].concat(), "0", &env);
        wait_for(port);
        (port, self.children.borrow()[at].id())
    }

    fn stop(&self, pid: u32) {
        let mut children = self.children.borrow_mut();
        let at = children.iter().position(|child| child.id() == pid).unwrap();
        let mut child = children.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// wrk on the other core: answers a second and p99 in ms.
    fn wrk(&self, port: u16, keys: usize, secs: u32) -> (f64, f64) {
        let script = self.dir.path().join("wrk.lua");
        // Requests are made beforehand, so that the client's own work is not what is measured.
        let text = format!(
            "local h = {{ ['Authorization'] = 'Bearer {TOKEN}', ['Accept'] = 'application/vnd.github+json', ['User-Agent'] = 'bench' }}\n\
             local all, at = {{}}, 0\n\
             function init() for n = 0, {last} do all[n] = wrk.format('GET', '/repos/o/r' .. n, h) end end\n\
             function request() at = (at + 7919) % {keys} return all[at] end\n\
             function done(s, l, r) print(string.format('FIGURES %f %f %d', s.requests / s.duration * 1e6, l:percentile(99) / 1000, s.errors.status + s.errors.connect + s.errors.read + s.errors.timeout)) end\n",
            last = keys - 1
        );
        std::fs::write(&script, text).unwrap();
        let output = Command::new("taskset")
            .args(["-c", "1", "wrk", "-t1", "-c32", "--latency", "-d", &format!("{secs}s"), "-s"])
            .arg(&script)
            .arg(format!("http://127.0.0.1:{port}"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("FIGURES ")).unwrap_or_else(|| panic!("{text}"));
        let figures: Vec<f64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
        assert!(figures[2] < 0.5, "wrk saw errors: {text}");
        (figures[0], figures[1])
    }
}

fn wait_for(port: u16) {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client of one connection.
struct Client(TcpStream, Vec<u8>);

impl Client {
    fn new(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream, Vec::with_capacity(16 << 10))
    }

    /// The status, once the whole body is there.
    fn get(&mut self, path: &str) -> std::io::Result<u16> {
        write!(
            self.0,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nAccept: application/vnd.github+json\r\nUser-Agent: bench\r\n\r\n"
        )?;
        self.1.clear();
        let mut chunk = [0; 16 << 10];
        loop {
            let read = self.0.read(&mut chunk)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.1.extend_from_slice(&chunk[..read]);
            let Some(head) = self.1.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(&self.1[..head]).to_ascii_lowercase();
            let length: usize =
                text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
            if self.1.len() >= head + 4 + length {
                return Ok(text.split(' ').nth(1).unwrap().parse().unwrap());
            }
        }
    }
}

fn fill(port: u16) {
    let mut client = Client::new(port);
    (0..KEYS).for_each(|n| assert_eq!(client.get(&format!("/repos/o/r{n}")).unwrap(), 200));
}

fn resident_kib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The lower quartile: of times that the machine's own stalls lengthen by many times what is looked
/// for, the rounds that it disturbed least tell.
fn quiet(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 4]
}

fn against_nginx(table: &mut Table, field: &Field) {
    Table::section(
        "Hits of 5 KB over keep-alive, 10,000 keys, 32 connections, one worker on a core of its own each, order rotated",
    );
    let (ours, pid) = field.ours("hits", &["--ttl", "1h", "--max-memory", "512MiB"]);
    fill(ours);
    fill(field.nginx);
    let (mut of_ours, mut of_nginx) = (Vec::new(), Vec::new());
    // Beforehand both have settled: what was fetched has been written and folded, and is in memory.
    for port in [ours, field.nginx] {
        field.wrk(port, KEYS, 15);
    }
    for round in 0..21 {
        let mut turns = [(ours, &mut of_ours), (field.nginx, &mut of_nginx)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for (port, figures) in turns {
            figures.push(field.wrk(port, KEYS, 2));
        }
    }
    let rates = |figures: &[(f64, f64)]| figures.iter().map(|one| one.0).collect();
    let (rate, theirs) = (middle(rates(&of_ours)), middle(rates(&of_nginx)));
    Table::note(&format!("ours {rate:.0} answers/s, nginx {theirs:.0}; at least {:.0} hits", rate * 42.0));
    table.at_least("throughput, of nginx proxy_cache's", rate / theirs, 1.0, "x");
    let p99s = |figures: &[(f64, f64)]| figures.iter().map(|one| one.1).collect::<Vec<_>>();
    let (p99, p99_theirs) = (quiet(p99s(&of_ours)), quiet(p99s(&of_nginx)));
    let (all, all_theirs) = (middle(p99s(&of_ours)), middle(p99s(&of_nginx)));
    Table::note(&format!(
        "p99 {p99:.2} ms, nginx {p99_theirs:.2} ms in the quieter rounds; {all:.2} and {all_theirs:.2} ms over all"
    ));
    table.at_most("p99, of nginx's", p99 / p99_theirs, 1.0, "x");
    let bodies = (KEYS * BODY) as f64 / 1_024.0;
    table.at_most("memory above the bodies held", (resident_kib(pid) - bodies) / 1_024.0, 50.0, "MiB");
    field.stop(pid);
}

fn misses(table: &mut Table, field: &Field) {
    Table::section("A miss through us against the same asked directly, one connection (median)");
    let (ours, pid) = field.ours("misses", &["--ttl", "1h", "--max-memory", "512MiB"]);
    let time = |port: u16, mark: &str| {
        let mut client = Client::new(port);
        let mut times: Vec<f64> = (0..2_000)
            .map(|n| {
                let started = Instant::now();
                assert_eq!(client.get(&format!("/repos/o/r{n}?{mark}")).unwrap(), 200);
                ms(started.elapsed())
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    time(field.upstream, "warm=1");
    let bare = time(field.upstream, "a=1");
    let through = time(ours, "a=1");
    let nginx = time(field.nginx, "a=1");
    Table::note(&format!(
        "directly {:.0} µs, nginx's miss {:.0} µs, ours {:.0} µs",
        bare * 1e3,
        nginx * 1e3,
        through * 1e3
    ));
    table.at_most("added to a miss", through - bare, 1.0, "ms");
    field.stop(pid);
}

fn revalidation(table: &mut Table, field: &Field) {
    Table::section("Answers that GitHub confirms with 304 each time (TTL 0), 1,000 keys, against the upstream itself");
    let (ours, pid) = field.ours("revalidated", &["--ttl", "0s"]);
    let _warm = field.wrk(ours, 1_000, 3);
    let rounds: Vec<(f64, f64)> =
        (0..3).map(|_| (field.wrk(ours, 1_000, 4).0, field.wrk(field.upstream, 1_000, 4).0)).collect();
    let through = middle(rounds.iter().map(|round| round.0).collect());
    let bare = middle(rounds.iter().map(|round| round.1).collect());
    Table::note(&format!("ours {through:.0} answers/s, the upstream itself {bare:.0}"));
    table.at_least("rate, of the bare upstream's", through / bare, 0.5, "x");
    field.stop(pid);
}

fn crowd(table: &mut Table, field: &Field) {
    let secs = std::env::var("BENCH_CROWD_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(60_u64);
    Table::section(&format!(
        "1,000 idle and 200 busy connections, warmed up and then for {secs} s: hits, misses, slow clients"
    ));
    let (port, pid) = field.ours("crowd", &["--ttl", "1h", "--max-memory", "16MiB"]);
    fill(port);
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    let before = files();
    let idle: Vec<TcpStream> = (0..1_000).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let (ended, answers, errors) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut resident = Vec::new();
    std::thread::scope(|scope| {
        for worker in 0..200_u64 {
            let (ended, answers, errors) = (&ended, &answers, &errors);
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, move || {
                    let mut client = Client::new(port);
                    let mut n = worker * 7_919;
                    while !ended.load(Ordering::Relaxed) {
                        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let key = (n >> 33) % KEYS as u64;
                        let path = match worker % 10 {
                            0 => format!("/repos/o/r{key}?n={}", (n >> 40) % 500),
                            _ => format!("/repos/o/r{key}"),
                        };
                        match client.get(&path) {
                            Ok(200) => answers.fetch_add(1, Ordering::Relaxed),
                            _ => errors.fetch_add(1, Ordering::Relaxed),
                        };
                        let pause = if worker % 10 == 1 { 200 } else { 5 };
                        std::thread::sleep(Duration::from_millis(pause));
                    }
                })
                .unwrap();
        }
        // Warm is: memory is full, and the loose files have been folded into the bundle once.
        let bundle = field.dir.path().join("crowd/bundle.tar.zst");
        let started = Instant::now();
        while !bundle.exists() && started.elapsed() < Duration::from_secs(90) {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_secs(5));
        for _ in 0..=10 {
            resident.push(resident_kib(pid));
            std::thread::sleep(Duration::from_millis(secs * 100));
        }
        ended.store(true, Ordering::Relaxed);
    });
    drop(idle);
    std::thread::sleep(Duration::from_secs(1));
    let shown: Vec<String> = resident.iter().map(|kib| format!("{:.0}", kib / 1_024.0)).collect();
    Table::note(&format!("{} answers; resident MiB since warm: {}", answers.load(Ordering::Relaxed), shown.join(" ")));
    // It goes up and down with each folding; what counts is whether it goes on going up.
    let (sooner, later) = (middle(resident[..5].to_vec()), middle(resident[6..].to_vec()));
    table.at_most("errors", errors.load(Ordering::Relaxed) as f64, 0.0, "");
    table.at_most("growth of memory after warming up", (later - sooner) / 1_024.0, 4.0, "MiB");
    // Connections to the upstream come and go; those of clients are gone.
    table.at_most("open files more than before", files() - before, 64.0, "");
    field.stop(pid);
}

fn gh(table: &mut Table) {
    Table::section("octocache gh against gh (whole process, a hit)");
    if !has("gh") {
        Table::note("gh is not installed; not compared");
        return;
    }
    let sim = harness::sim::Sim::start(Clock::System);
    harness::world::organisation(&sim, 3);
    sim.token(TOKEN, "bench");
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&str], config: Option<&Path>| {
        let mut command = Command::new(program);
        command.args(args).args(["api", "/users/octocat"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", dir.path()).env("XDG_RUNTIME_DIR", dir.path().join("run")).env("GH_TOKEN", TOKEN);
        command.env("OCTOCACHE_API_URL", sim.url()).envs(config.map(|dir| ("GH_CONFIG_DIR", dir)));
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
    };
    run(BINARY, &["gh"], None);
    let overlay = std::fs::read_dir(dir.path().join("run/octocache")).unwrap();
    let overlay =
        overlay.flatten().find(|one| one.file_name().to_string_lossy().starts_with("gh-config")).unwrap().path();
    let through = median(31, || run(BINARY, &["gh"], None));
    let plain = median(31, || run("gh", &[], Some(&overlay)));
    table.at_most("added to gh", through - plain, 10.0, "ms");
    let _ended = Command::new("pkill").arg("-f").arg(dir.path().join("run")).status();
}
