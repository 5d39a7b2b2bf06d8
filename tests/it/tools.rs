//! Bundles and the tools that everybody has: tar, zstd, bsdtar, Python.

use std::path::Path;
use std::process::{Command, Output};

use octocache::cid::Cid;
use octocache::clock::{Clock, Timestamp};
use octocache::entry::{Entry, StoredHeaders};
use octocache::key::KeyParts;
use octocache::partition::Partition;
use octocache::request::{Api, Request};
use octocache::stack::{Narrow, Stack};

/// Runs a tool; `None` when it is not installed, which is an error in CI.
fn tool(name: &str, args: &[&str]) -> Option<Output> {
    if let Ok(output) = Command::new(name).args(args).output() {
        Some(output)
    } else {
        assert!(std::env::var_os("CI").is_none(), "{name} is missing");
        eprintln!("SKIPPED: {name} is not installed");
        None
    }
}

fn put(stack: &Stack, n: usize, round: usize) {
    let body = format!("{{\"n\":{n},\"round\":{round}}}");
    let at = Timestamp::from_secs(1_700_000_000 + round as i64);
    let request = Request::get(&Api::github(), &format!("/repos/o/r{n}")).unwrap();
    let entry = Entry {
        parts: KeyParts::of(&request, &Partition::public()),
        listing: None,
        status: 200,
        headers: StoredHeaders::default(),
        fetched_at: at,
        validated_at: at,
        class: "repo".into(),
        ttl_secs: 3_600,
        repeats: 0,
        token_digest: None,
        etag_rule: None,
        fields_cid: None,
        expires_at: None,
        link_validated_at: None,
        cid: Cid::of(body.as_bytes()),
        body: body.into(),
    };
    assert!(stack.put(&entry));
}

fn names(bundle: &Path) -> Option<Vec<String>> {
    let output = tool("tar", &["--zstd", "-tf", bundle.to_str().unwrap()])?;
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn usual_tools_read_a_bundle_also_after_ten_appends() {
    let dir = tempfile::tempdir().unwrap();
    let stack = |dir: &Path| Stack::new(dir, Clock::manual(Timestamp::from_secs(1_700_001_000)));
    let first = stack(dir.path());
    (0..1_000).for_each(|n| put(&first, n, 0));
    first.pack(&Narrow::everything(), false).unwrap();
    let bundle = first.bundle_path();
    let path = bundle.to_str().unwrap();
    if let Some(names) = names(&bundle) {
        assert_eq!(names.len(), 1_000);
        assert!(names.iter().all(|name| name.starts_with("v1/0001/") && name.ends_with(".json")));
    }
    for round in 1..=10 {
        let again = stack(dir.path());
        (0..10).for_each(|n| put(&again, round * 50 + n, round));
        again.pack(&Narrow::everything(), false).unwrap();
    }
    if let Some(mut names) = names(&bundle) {
        assert_eq!(names.len(), 1_100);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 1_100, "no name is there twice");
    }
    if let Some(output) = tool("zstd", &["-t", path]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    if let Some(output) = tool("bsdtar", &["-tf", path]) {
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1_100);
    }
    // What tar unpacks is an envelope in plain JSON.
    let out = tempfile::tempdir().unwrap();
    if let Some(output) = tool("tar", &["--zstd", "-xf", path, "-C", out.path().to_str().unwrap()]) {
        assert!(output.status.success());
        let generation = std::fs::read_dir(out.path().join("v1/0011")).unwrap().next().unwrap().unwrap().path();
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(generation).unwrap()).unwrap();
        assert_eq!((&json["v"], &json["body"]["round"]), (&1.into(), &10.into()));
    }
    let reader = stack(dir.path());
    let key = KeyParts::of(&Request::get(&Api::github(), "/repos/o/r500").unwrap(), &Partition::public()).key();
    assert_eq!(&reader.look_up(&key).unwrap().entry.body[..], b"{\"n\":500,\"round\":10}");
}
