//! `doctor`, completions and man pages: what a stranger meets first.

use std::process::Command;

use octocache::clock::Clock;
use serde_json::Value;

use crate::binary::BINARY;
use crate::flow::Fixture;
use crate::harness::world;

const SECRET: &str = "ghp_DoctorSecretDoctorSecretDoctorSecret";

fn run(fx: &Fixture, token: Option<&str>, url: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    command.args(args).env_clear().env("HOME", fx.dir.path()).current_dir(fx.dir.path());
    command.env("OCTOCACHE_API_URL", url).env("OCTOCACHE_RETRIES", "0");
    if let Some(token) = token {
        command.env("GH_ENTERPRISE_TOKEN", token);
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_says_what_works_what_does_not_and_what_to_do() {
    let fx = Fixture::with_clock(Clock::System);
    world::organisation(&fx.sim, 1);
    fx.sim.token(SECRET, "user:secret");
    let url = fx.sim.url();
    let (code, out, err) = run(&fx, Some(SECRET), &url, &["doctor"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for wanted in [
        "core: 1000 of 1000 left",
        "from GH_ENTERPRISE_TOKEN",
        "graphql: 1000",
        "is not there yet",
        "none here or above",
    ] {
        assert!(out.contains(wanted), "{out} lacks {wanted}");
    }
    assert_eq!(fx.sim.take_counts(), (1, 0), "asking for the limits is free");
    run(&fx, Some(SECRET), &url, &["api", "/repos/acme/repo-0000"]);
    run(&fx, Some(SECRET), &url, &["bundle", "pack"]);
    std::fs::write(fx.dir.path().join("octocache.yml"), "version: 1\nqueries: { a: { gett: /x } }\n").unwrap();
    let (_, out, _) = run(&fx, Some(SECRET), &url, &["doctor", "--json"]);
    let findings: Vec<Value> = serde_json::from_str(&out).unwrap();
    let about = |name: &str| findings.iter().find(|found| found["about"] == name).unwrap();
    assert_eq!(about("bundle")["grade"], "ok");
    assert!(about("validators")["text"].as_str().unwrap().contains("1 answers held to it, 0 did not"), "{out}");
    assert!(!out.contains("DoctorSecret"));
    // What is broken is named, with advice, and nothing else fails with it.
    let bundle = fx.dir.path().join(".cache/octocache/bundle.tar.zst");
    std::fs::write(&bundle, b"not a bundle").unwrap();
    let (code, out, _) = run(&fx, Some("ghp_expired"), &url, &["doctor"]);
    assert_eq!(code, 1);
    assert!(out.contains("the token is not valid") && out.contains("the next save writes it anew"), "{out}");
    let (code, out, _) = run(&fx, None, "http://127.0.0.1:1", &["doctor"]);
    assert!(code == 1 && out.contains("check the network") && out.contains("60 requests an hour"), "{out}");
    let (_, out, _) = run(&fx, None, "http://127.0.0.1:1", &["doctor", "--offline"]);
    assert!(out.contains("not asked"), "{out}");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let fx = Fixture::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, out, _) = run(&fx, None, "http://127.0.0.1:1", &["completions", shell]);
        assert!(code == 0 && out.contains("warm") && out.contains("doctor"), "{shell}");
    }
    assert_eq!(run(&fx, None, "http://127.0.0.1:1", &["man", "pages"]).0, 0);
    for name in ["octocache", "octocache-run", "octocache-warm", "octocache-bundle-pack", "octocache-doctor"] {
        let page = std::fs::read_to_string(fx.dir.path().join(format!("pages/{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.len() > 300, "{name}");
    }
    let script = run(&fx, None, "http://127.0.0.1:1", &["completions", "bash"]).1;
    std::fs::write(fx.dir.path().join("octocache.bash"), script).unwrap();
    let read = Command::new("bash").args(["-n", "octocache.bash"]).current_dir(fx.dir.path()).status().unwrap();
    assert!(read.success());
}
