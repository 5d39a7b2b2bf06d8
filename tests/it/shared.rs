//! The set-ups in `examples/shared-*`, as their files say; the office is in `hosts`.

use std::path::Path;
use std::process::Command;

use octocache::clock::Clock;
use octocache::share::seal::Group;
use serde_json::Value;

use crate::binary::BINARY;
use crate::harness::sim::Sim;
use crate::harness::world;
use crate::peers::free_port;
use crate::redis::RedisServer;
use crate::serve::Server;

/// An example's file, about what the simulated GitHub has.
fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    std::fs::read_to_string(path).unwrap().replace("acme/app", "acme/repo-0005")
}

/// A GitHub that knows jobs of the repository.
fn github() -> Sim {
    let sim = Sim::start(Clock::System);
    world::organisation(&sim, 10);
    for n in 1..=3 {
        sim.token(&format!("ghs_job{n}"), "repo:acme/repo-0005");
    }
    sim
}

/// A job on a machine of its own: what its run charged, and what it sent.
fn job(n: u8, dir: &Path, sim: &Sim, plan: &str, env: &[(&str, &str)]) -> (Value, Value) {
    let home = dir.join(format!("job{n}"));
    std::fs::create_dir_all(home.join(".github")).unwrap();
    std::fs::write(home.join(".github/octocache.yml"), plan).unwrap();
    let trust = Command::new(BINARY).arg("trust").env_clear().env("HOME", &home).current_dir(&home).output().unwrap();
    assert!(trust.status.success(), "{}", String::from_utf8_lossy(&trust.stderr));
    let mut octocache = Command::new(BINARY);
    octocache.args(["run", "--json"]).env_clear().env("HOME", &home).current_dir(&home);
    octocache.env("OCTOCACHE_API_URL", sim.url()).env("OCTOCACHE_TOKEN", format!("ghs_job{n}"));
    // As the Action says it: a job's token stands for its repository.
    octocache.env("OCTOCACHE_JOB_TOKEN", "true").env("GITHUB_REPOSITORY", "acme/repo-0005").envs(env.iter().copied());
    let output = octocache.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let index: Value = serde_json::from_slice(&output.stdout).unwrap();
    (index["totals"]["charged"].clone(), index["totals"]["requests"].clone())
}

#[test]
fn jobs_share_a_redis_and_pull_requests_only_read_it() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    // The user that the workflow speaks of.
    let workflow = example("shared-redis/.github/workflows/facts.yml");
    let rules = workflow.lines().find_map(|line| line.trim().strip_prefix("#   ACL SETUSER reader on >… ")).unwrap();
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &redis.port.to_string(), "ACL", "SETUSER", "reader", "on", ">pass"]).args(rules.split(' '));
    assert_eq!(cli.output().unwrap().stdout, b"OK\n");
    let (sim, dir) = (github(), tempfile::tempdir().unwrap());
    let plan = example("shared-redis/.github/octocache.yml");
    // They all run on this one machine, beside other tests.
    let plan = plan.replace("'${OCTOCACHE_REDIS_URL}' }", "'${OCTOCACHE_REDIS_URL}', timeout-ms: 5000 }");
    let reader = format!("redis://reader:pass@127.0.0.1:{}", redis.port);
    // A reader leaves nothing there, and is not in trouble for it.
    let (charged, _) = job(1, dir.path(), &sim, &plan, &[("OCTOCACHE_REDIS_URL", &reader)]);
    assert_ne!(charged, 0);
    assert_eq!(job(2, dir.path(), &sim, &plan, &[("OCTOCACHE_REDIS_URL", &redis.url())]).0, charged);
    let elsewhere = tempfile::tempdir().unwrap();
    for (n, url) in [(1, &reader), (3, &redis.url())] {
        assert_eq!(job(n, elsewhere.path(), &sim, &plan, &[("OCTOCACHE_REDIS_URL", url)]).0, 0);
    }
    // A fork has no secrets.
    assert_eq!(job(2, elsewhere.path(), &sim, &plan, &[]).0, charged);
}

#[test]
fn jobs_of_a_fleet_leave_what_they_have_asked_with_the_server_on_their_host() {
    let (sim, secret, port) = (github(), Group::generate().unwrap(), free_port());
    let mut server = Server::before(sim.clone());
    let store = server.dir.path().join("store").display().to_string();
    server.env = vec![("OCTOCACHE_TEAM_SECRET", secret.clone()), ("OCTOCACHE_DIR", store)];
    // The server, with the arguments of its service and a name that stands for it.
    let service = example("shared-fleet/octocache-peer.service");
    let start =
        service.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/octocache serve ")).unwrap();
    let file = server.dir.path().join("peer.yml");
    let plan = example("shared-fleet/octocache-peer.yml");
    std::fs::write(&file, plan.replace("octocache.internal/tcp/9100", &format!("localhost/tcp/{port}"))).unwrap();
    let start = start.replace("/etc/octocache/peer.yml", file.to_str().unwrap());
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    server.run(&start.split(' ').chain(["--p2p-listen", &listen]).collect::<Vec<_>>());
    let plan = example("shared-fleet/.github/octocache.yml")
        .replace("tcp/9100]", &format!("tcp/{port}]\n    timeout-ms: 5000"));
    let dir = tempfile::tempdir().unwrap();
    let env = [("OCTOCACHE_TEAM_SECRET", secret.as_str())];
    let (charged, _) = job(1, dir.path(), &sim, &plan, &env);
    assert_ne!(charged, 0);
    // The first job's machine is gone; the next one's token is another.
    assert_eq!(job(2, dir.path(), &sim, &plan, &env).0, 0);
}
