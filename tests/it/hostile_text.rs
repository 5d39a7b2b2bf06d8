//! Credentials and control characters in what GitHub answers: neither gets into results, reports, logs,
//! terminals or a runner's log.

use std::process::{Command, Output, Stdio};

use crate::binary::BINARY;
use crate::flow::Fixture;
use crate::harness::sim::Doc;
use octocache::cid::Cid;
use octocache::clock::Clock;
use octocache::entry::{Entry, StoredHeaders};
use octocache::key::KeyParts;
use octocache::mask::Masker;
use octocache::partition::Partition;
use octocache::request::{Api, Request};
use octocache::stack::Stack;
use serde_json::{Value, json};

/// A token without a prefix, as GitHub Enterprise Server has them.
const OWN: &str = "0123456789abcdef0123456789abcdef01234567";

/// The Base64 of `x-access-token:` and [`OWN`].
fn basic() -> String {
    data_encoding::BASE64.encode(format!("x-access-token:{OWN}").as_bytes())
}

struct Program {
    fx: Fixture,
}

impl Program {
    fn new() -> Self {
        let fx = Fixture::with_clock(Clock::System);
        fx.sim.token(OWN, "user:own");
        std::fs::create_dir(fx.dir.path().join("work")).unwrap();
        Self { fx }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        let home = self.fx.dir.path();
        command.args(args).env_clear().env("HOME", home).env("OCTOCACHE_API_URL", self.fx.sim.url());
        command
            .current_dir(home.join("work"))
            .env("OCTOCACHE_TOKEN", OWN)
            .env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        said(&self.command(args).output().unwrap())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.fx.dir.path().join("work/.octocache").join(name)).unwrap()
    }
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn raw(body: &str) -> Doc {
    Doc::Raw { content_type: "application/json; charset=utf-8", body: body.to_owned().into() }
}

/// Whether text holds what a terminal or a runner acts on.
fn is_safe(text: &str) -> bool {
    let acts = |c: char| {
        (c.is_control() && c != '\n')
            || ('\u{2028}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    !text.chars().any(acts) && !text.contains("##[") && !text.lines().any(|line| line.trim_start().starts_with("::"))
}

#[test]
fn tokens_are_masked_wherever_they_begin_and_end() {
    let program = Program::new();
    let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiIxNTM2OCJ9abc.c2lnbmF0dXJlLXNpZ25hdHVyZS1zaWduYXR1cmU";
    let classic = format!("ghp_{}", "a1B2".repeat(9));
    let body = format!(
        r#"{{"a":"log:\n{classic}","b":"\t{classic}","c":"\u00e9{classic}","d":"ghs_15368_{jwt} end","e":"{jwt}","f":"https://raw.example/x?token=GHSAT0AAAAAACABCDE","{classic}":1,"g":[1.50,2e3],"temp_clone_token":"ABC","h":"{hex}","i":"{classic_escaped}"}}"#,
        hex = "f".repeat(40),
        classic_escaped = classic.replace('_', "\\u005f"),
    );
    program.fx.sim.put("/body", raw(&body));
    assert_eq!(program.run(&["run", "--query", "x = GET /body"]).0, 0);
    let expected = format!(
        r#"{{"a":"log:\n***","b":"\t***","c":"\u00e9***","d":"*** end","e":"***","f":"https://raw.example/x?token=***","***":1,"g":[1.50,2e3],"temp_clone_token":"***","h":"{}","i":"***"}}"#,
        "f".repeat(40)
    );
    assert_eq!(program.file("x.json").trim_end(), expected);
}

#[test]
fn the_own_token_is_masked_by_value_everywhere() {
    let program = Program::new();
    let echoed = format!("you sent Bearer {OWN} and Basic {}", basic());
    program.fx.sim.put("/refused", Doc::Status(403, json!({ "message": echoed }).to_string()));
    program.fx.sim.put("/body", Doc::json(json!({ "echo": echoed, "other": "f".repeat(40) })));
    let plan = "version: 1\nkeep-secrets-like: true\nqueries:\n  refused: { get: /refused }\n  body: { get: /body }\n";
    let work = program.fx.dir.path().join("work");
    std::fs::create_dir(work.join(".github")).unwrap();
    std::fs::write(work.join(".github/octocache.yml"), plan).unwrap();
    let leaks = |text: &str| text.contains(OWN) || text.contains(&basic()[24..60]);
    for args in [
        &["run"][..],
        &["run", "--json"],
        &["-v", "run"],
        &["api", "/refused"],
        &["api", "/refused", "--silent"],
        &["--log-format", "json", "-v", "run"],
        &["doctor"],
        &["warm"],
        &["cache", "list"],
    ] {
        let (_, out, err) = program.run(args);
        let is_gh = args[0] == "api";
        assert!(!leaks(&err) && (is_gh || !leaks(&out)), "{args:?}: {out}{err}");
    }
    assert!(program.run(&["api", "/refused"]).2.contains("gh: you sent Bearer *** and Basic "));
    let (body, index) = (program.file("body.json"), program.file("index.json"));
    assert!(!leaks(&body) && body.contains("***") && body.contains(&"f".repeat(40)), "{body}");
    assert!(!leaks(&index) && index.contains("***"), "{index}");
    let mut command = program.command(&["action", "run"]);
    for (name, value) in [
        ("INPUT_QUERY", "refused = GET /refused"),
        ("INPUT_API_URL", &program.fx.sim.url()),
        ("GITHUB_OUTPUT", "output"),
        ("GITHUB_STEP_SUMMARY", "summary"),
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "o/r"),
        ("RUNNER_TEMP", "temp"),
    ] {
        command.env(name, value);
    }
    let (_, out, err) = said(&command.output().unwrap());
    let summary = std::fs::read_to_string(work.join("summary")).unwrap();
    let output = std::fs::read_to_string(work.join("output")).unwrap();
    for text in [&out, &err, &summary, &output] {
        assert!(!leaks(text), "{text}");
    }
    assert!(out.contains("::error") && summary.contains("403"), "{out}{summary}");
}

#[test]
fn the_log_of_a_server_holds_no_credentials() {
    let mut server = crate::serve::Server::before(crate::harness::sim::Sim::start(Clock::System));
    server.sim.token(crate::serve::TOKEN, "client");
    server.sim.put("/a", Doc::json(json!({ "a": 1 })));
    server.env.push(("OCTOCACHE_TOKEN", OWN.to_owned()));
    let file = server.dir.path().join("secret");
    std::fs::write(&file, "the secret of the server").unwrap();
    server.run(&["-v", "--secret-file", file.to_str().unwrap()]);
    let shown = ["-H", "X-Octocache-Secret: the secret of the server"];
    let secret = format!("ghp_{}", "S1s2".repeat(9));
    let path = format!("/a?token={secret}&x={OWN}&access_token=abcdef%C2%9B&y=%E2%80%AE");
    server.curl(&path, &shown);
    let status = server.curl("/_octocache/status", &shown).body;
    let text = || server.said.lock().unwrap().join("\n");
    while !text().contains("target=/a") {
        std::thread::yield_now();
    }
    for text in [text(), String::from_utf8_lossy(&status).into_owned()] {
        assert!(!text.contains(&secret) && !text.contains(OWN) && !text.contains("abcdef"), "{text}");
        assert!(text.contains("/a?token=***&x=***&access_token=***"), "{text}");
    }
}

#[test]
fn control_characters_and_workflow_commands_reach_no_terminal() {
    let program = Program::new();
    let evil = "x\n::warning title=evil::INJECTED\r\n##[error]y \u{1b}]52;c;eA==\u{7} \u{9b}31m \u{202e}z\u{2028}";
    program.fx.sim.put("/refused", Doc::Status(404, json!({ "message": evil }).to_string()));
    program.fx.sim.put("/items", Doc::json(json!([evil, "::stop-commands::t", "##[group]g"])));
    let plan = "version: 1\nqueries:\n  refused: { get: /refused }\n  items: { get: /items }\n  each: { get: '/x/{item}', for-each: { query: items, items: '.[]' } }\n";
    let work = program.fx.dir.path().join("work");
    std::fs::create_dir(work.join(".github")).unwrap();
    std::fs::write(work.join(".github/octocache.yml"), plan).unwrap();
    for args in [
        &["run"][..],
        &["-vv", "run"],
        &["--log-format", "json", "-vv", "run"],
        &["run", "--json"],
        &["run", "--dry-run"],
    ] {
        let (_, out, err) = program.run(args);
        assert!(is_safe(&out) && is_safe(&err), "{args:?}: {out:?}{err:?}");
    }
    let (code, out, err) = program.run(&["api", "/refused"]);
    assert_eq!(code, 1);
    assert!(is_safe(&err) && err.starts_with("gh: x\n\\u{3a}:warning title=evil::INJECTED"), "{err:?}");
    assert!(!out.contains('\u{1b}'), "{out:?}");
    let (_, out, err) = program.run(&["action", "run"]);
    assert!(out.lines().all(|line| line.starts_with("::error")) && is_safe(&err), "{out:?}{err:?}");
}

/// gh cleans the response, so filters and templates see no control characters.
#[test]
fn filters_and_templates_see_what_gh_shows_them() {
    let program = Program::new();
    program.fx.sim.put("/odd", raw("{\"t\":\"a\\u001b]52;c\\u0007b\\n\\u009b31m\u{9b}\",\"k\\u001b\":1}"));
    let expected = "a^[]52;c^Gb\n^[31m^[";
    assert_eq!(program.run(&["api", "/odd", "--jq", ".t"]).1, format!("{expected}\n"));
    assert_eq!(program.run(&["api", "/odd", "-t", "{{.t}}"]).1, expected);
    assert_eq!(program.run(&["api", "/odd", "--jq", "keys[]"]).1, "k^[\nt\n");
    assert_eq!(program.run(&["api", "/odd"]).1, "{\"t\":\"a^[]52;c^Gb\\n^[31m^[\",\"k^[\":1}");
    if crate::serve::has("gh") {
        let socket = program.fx.dir.path().join("sim.sock");
        program.fx.sim.listen_unix(&socket);
        let config = program.fx.dir.path().join("gh");
        std::fs::create_dir(&config).unwrap();
        std::fs::write(config.join("config.yml"), format!("http_unix_socket: {}\n", socket.display())).unwrap();
        program.fx.sim.put("/plain", raw("{\"t\":\"a\\u001b]52;c\\u0007b\\u0000\\u001c\\u001f\"}"));
        for args in [&["/plain", "--jq", ".t"][..], &["/plain", "-t", "{{.t}}"], &["/plain"]] {
            let mut gh = Command::new("gh");
            gh.arg("api").args(args).env_clear().env("HOME", program.fx.dir.path()).env("GH_CONFIG_DIR", &config);
            gh.env("GH_TOKEN", OWN).env("PATH", std::env::var_os("PATH").unwrap());
            let ours = program.run(&[&["api"], args].concat());
            assert_eq!(said(&gh.output().unwrap()).1, ours.1, "{args:?}");
        }
    }
}

#[test]
fn stored_paths_and_bodies_are_shown_safely() {
    let program = Program::new();
    let path = "/a%0A::warning::x?q=\u{9b}31m\u{202e}";
    let secret = "/a?access_token=s3cr3t";
    program.fx.sim.put("/a%0A::warning::x", Doc::json(json!({ "t": "\u{9b}\u{202e} ##[error]x" })));
    let (code, body, err) = program.run(&["api", path]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(program.run(&["bundle", "pack"]).0, 0);
    for args in [
        &["cache", "list"][..],
        &["cache", "list", "--json"],
        &["bundle", "list"],
        &["bundle", "list", "--json"],
        &["explain", path],
        &["explain", path, "--json"],
        &["explain", secret],
        &["config", "show"],
        &["doctor", "--offline"],
    ] {
        let (_, out, err) = program.run(args);
        assert!(is_safe(&out) && is_safe(&err) && !out.contains("s3cr3t"), "{args:?}: {out:?}{err:?}");
    }
    let listed: Value = serde_json::from_str(&program.run(&["cache", "list", "--json"]).1).unwrap();
    let (_, shown, _) = program.run(&["cache", "show", listed["key"].as_str().unwrap(), "--body"]);
    assert_eq!(shown, "{\"t\":\"\u{9b}\u{202e} ##[error]x\"}", "a pipe gets the body as it is");
    assert_eq!(body, shown.replace('\u{9b}', "^["), "gh shows C1 control characters so");
    let (_, shown, _) = program.run(&["cache", "show", listed["key"].as_str().unwrap()]);
    assert!(is_safe(&shown) && shown.contains("\\u{9b}"), "{shown:?}");
}

/// A bundle that others wrote may hold any text as a path.
#[test]
fn paths_of_hostile_bundles_are_shown_safely() {
    let program = Program::new();
    let dir = program.fx.dir.path().join("work");
    let stack = Stack::new(dir.join("store"), Clock::System);
    let now = Clock::System.now();
    let mut parts = KeyParts::of(&Request::get(&Api::github(), "/a").unwrap(), &Partition::public());
    parts.path = "/a\u{1b}]52;c;eA==\u{7}\n::error::x\u{202e}##[group]".into();
    let mut entry = Entry {
        parts,
        listing: None,
        status: 200,
        headers: StoredHeaders::default(),
        fetched_at: now,
        validated_at: now,
        class: "repo".into(),
        ttl_secs: 3_600,
        repeats: 0,
        token_digest: None,
        etag_rule: None,
        fields_cid: None,
        expires_at: None,
        link_validated_at: None,
        cid: Cid::of(b"{}"),
        body: "{}".into(),
    };
    entry.class = "issue\u{1b}[31m".into();
    assert!(stack.put(&entry));
    for args in [&["cache", "list"][..], &["cache", "list", "--json"]] {
        let (code, out, err) = program.run(&[&["--cache-dir", "store"], args].concat());
        assert!(code == 0 && !out.is_empty() && is_safe(&out) && is_safe(&err), "{args:?}: {out:?}{err:?}");
        assert_eq!(out.lines().count(), 1, "{out:?}");
    }
}

#[test]
fn arguments_come_back_safely() {
    let program = Program::new();
    let secret = format!("ghp_{}", "a1B2".repeat(9));
    for args in [
        &["run", "--ttl", "x\u{1b}[31m\n::error::y"][..],
        &["api", "/x", "--ttl", &secret],
        &["--api-url", "https://user:hunter2@exa mple/", "api", "/x"],
        &["cache", "show", "/a\u{1b}[31m"],
    ] {
        let (code, out, err) = program.run(args);
        assert!(code != 0 && is_safe(&err) && out.is_empty(), "{args:?}: {err:?}");
        assert!(!err.contains(&secret) && !err.contains("hunter2"), "{args:?}: {err}");
    }
}

#[test]
fn tokens_may_be_as_long_as_a_header() {
    let program = Program::new();
    let long = format!("ghs_{}", "a1B2c3D4".repeat(400));
    program.fx.sim.token(&long, "user:long");
    program.fx.sim.put("/user", Doc::json(json!({ "login": "long" })));
    let run = |token: &str| {
        let mut command = program.command(&["api", "/user", "-q", ".login"]);
        said(&command.env("OCTOCACHE_TOKEN", token).stdin(Stdio::null()).output().unwrap())
    };
    assert_eq!(run(&long), (0, "long\n".into(), String::new()));
    let (code, _, err) = run(&"x".repeat(20_000));
    assert!(code == 1 && err.contains("16384"), "{err}");
}

/// Recorded answers of GitHub hold nothing that is masked but the clone tokens.
#[test]
fn recorded_answers_stay_as_they_are() {
    let Some(node) = crate::action::node_dir() else { return };
    let scenarios = node.join("node_modules/@octokit/fixtures/scenarios/api.github.com");
    let (mut answers, mut masked, mut bytes) = (0, Vec::new(), 0);
    for scenario in std::fs::read_dir(scenarios).unwrap().flatten() {
        for file in std::fs::read_dir(scenario.path()).unwrap().flatten() {
            if file.path().extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let fixture: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
            let exchanges = fixture.as_array().cloned().unwrap_or_else(|| vec![fixture]);
            for exchange in exchanges {
                let answer = exchange["response"].to_string();
                (answers, bytes) = (answers + 1, bytes + answer.len());
                if let Some(out) = Masker::default().document(answer.as_bytes()) {
                    masked.push(format!("{}: {}", scenario.file_name().display(), String::from_utf8(out).unwrap()));
                }
            }
        }
    }
    assert!(answers > 40 && bytes > 50_000, "{answers} answers, {bytes} bytes");
    assert!(masked.iter().all(|text| text.contains("\"temp_clone_token\":\"***\"")), "{masked:#?}");
    assert!(
        masked.iter().all(|text| text.matches("***").count() == text.matches("_token\":\"***\"").count()),
        "{masked:#?}"
    );
}
