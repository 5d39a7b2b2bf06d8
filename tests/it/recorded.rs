//! GitHub's own recorded answers, replayed through the program: bytes kept, pages and renames
//! followed, and a second run that asks nothing, since every recording answers only once.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::action::node_dir;
use crate::binary::BINARY;

struct Recorded {
    child: Child,
    url: String,
}

impl Recorded {
    fn start() -> Option<Self> {
        let node = node_dir()?;
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/action/recorded.mjs"), node.join("recorded.mjs"))
            .unwrap();
        let mut child = Command::new("node")
            .arg(node.join("recorded.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Some(Self { child, url: url.trim().to_owned() })
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

const PLAN: &str = "version: 1
vars: { owner: octokit-fixture-org, repo: hello-world }
queries:
  repository: { recipe: repo }
  organisation: { get: /orgs/octokit-fixture-org, jq: '{login, public_repos}' }
  issues: { get: '/repos/octokit-fixture-org/paginate-issues/issues?per_page=3', paginate: true }
  renamed: { get: /repos/octokit-fixture-org/rename-repository }
  release: { recipe: release-by-tag, repo: octokit-fixture-org/release-assets, tag: v1.0.0 }
";

#[test]
fn recorded_answers_are_answered_once_and_for_all() {
    let Some(recorded) = Recorded::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".github")).unwrap();
    std::fs::write(dir.path().join(".github/octocache.yml"), PLAN).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(args).env_clear().env("HOME", dir.path()).env("OCTOCACHE_API_URL", &recorded.url);
        command.env("OCTOCACHE_TOKEN", "0000000000000000000000000000000000000001").current_dir(dir.path());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, err) = run(&["run", "--json"]);
    assert_eq!(code, 0, "{}{err}", String::from_utf8_lossy(&out));
    let index: Value = serde_json::from_slice(&out).unwrap();
    // Five pages of issues, two steps to the renamed repository, one for each of the other three.
    assert_eq!((&index["totals"]["requests"], &index["totals"]["failed"]), (&10.into(), &0.into()), "{index}");
    let file = |name: &str| std::fs::read(dir.path().join(".octocache").join(name)).unwrap();
    let json = |name: &str| serde_json::from_slice::<Value>(&file(name)).unwrap();
    assert_eq!(json("issues.json").as_array().unwrap().len(), 13);
    assert_eq!(json("renamed.json")["name"], "rename-repository-newname");
    assert_eq!(json("release.json")["tag_name"], "v1.0.0");
    let first = file("repository.json");
    let (code, out, err) = run(&["run", "--json"]);
    assert_eq!(code, 0, "{err}{}", String::from_utf8_lossy(&out));
    let index: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&index["totals"]["requests"], &index["totals"]["hits"]), (&0.into(), &5.into()), "{index}");
    assert!(file("repository.json") == first, "bytes are kept");
    let (code, body, _) = run(&["api", "/repos/octokit-fixture-org/hello-world", "--offline"]);
    assert!(code == 0 && body == first, "the result is the answer's own bytes");
    // GitHub marked its search `no-cache`: it is kept, but never answers without being asked about.
    let search = "/search/issues?q=sesame%20repo%3Aoctokit-fixture-org%2Fsearch-issues";
    assert_eq!(run(&["api", search]).0, 0);
    let (_, explained, _) = run(&["explain", search]);
    assert!(String::from_utf8(explained).unwrap().contains("(no-cache)"));
    // The bundle answers the same.
    assert_eq!(run(&["bundle", "pack"]).0, 0);
    let (_, body, _) = run(&["api", "/repos/octokit-fixture-org/hello-world", "--offline"]);
    assert!(body == first);
}
