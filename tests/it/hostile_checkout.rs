//! What a checkout or a shared directory brings is not believed because it is there: stores, bundles, links.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use octocache::cache::{Ask, Cache};
use octocache::clock::Clock;
use octocache::github::{GitHub, Options};
use octocache::partition::Partition;
use octocache::policy::TtlTable;
use octocache::request::{Api, Request};
use octocache::stack::{Narrow, Stack};
use octocache::token::Token;
use serde_json::{Value, json};

use crate::action::{Runner, step};
use crate::binary::BINARY;
use crate::flow::Fixture;
use crate::harness::sim::Doc;
use crate::harness::world;

const PERMISSION: &str = "/repos/acme/repo-0001/collaborators/mallory/permission";

/// What GitHub says, and what the checkout says it said.
fn truth(fx: &Fixture) {
    fx.sim.put(PERMISSION, Doc::json(json!({ "permission": "read", "user": { "login": "mallory" } })));
}

/// Writes a store in which `partition` has been answered that mallory is an admin: loose, or as a bundle.
fn plant(fx: &Fixture, dir: &Path, partition: Partition, token: &str, as_bundle: bool) {
    fx.sim.put(PERMISSION, Doc::json(json!({ "permission": "admin", "user": { "login": "mallory" } })));
    let api = Api::parse(&fx.sim.url()).unwrap();
    let upstream = Arc::new(GitHub::new(Options::new(api.clone(), Some(Token::new(token).unwrap())), Clock::System));
    let stack = Stack::new(dir, Clock::System);
    let cache = Cache::new(api.clone(), partition, stack, upstream, TtlTable::default(), Clock::System);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = Request::get(&api, PERMISSION).unwrap();
    runtime.block_on(cache.get(&request, &Ask::default())).unwrap();
    if as_bundle {
        cache.stack().pack(&Narrow::everything(), false).unwrap();
    }
    truth(fx);
    fx.sim.take_counts();
}

fn listed(bundle: &Path) -> String {
    let listed = Command::new(BINARY).args(["bundle", "list", "--json"]).arg(bundle).output().unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

fn result(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(".octocache/perm.json")).unwrap_or_default()
}

fn query() -> String {
    format!("perm = GET {PERMISSION}")
}

#[test]
fn a_store_in_the_checkout_neither_answers_in_the_action_nor_is_saved() {
    let Some(runner) = Runner::new() else { return };
    let repository = || Partition::repository("acme/repo-0001").unwrap();
    for (as_bundle, restore) in [(false, true), (true, true), (false, false), (true, false)] {
        runner.clean();
        let _none = std::fs::remove_dir_all(runner.fx.dir.path().join("cache"));
        let store = runner.workspace().join(".cache/github");
        plant(&runner.fx, &store, repository(), "ghs_job1", as_bundle);
        let done = runner.run("ghs_job2", "push", json!({ "query": query(), "restore": restore }));
        assert_eq!((&done["failed"], &done["outputs"]["cache-hit"]), (&json!(false), &json!("false")), "{done}");
        assert!(result(&runner.workspace()).contains("read"), "{done}");
        let said = step(&done, "Answer the queries")["stdout"].as_str().unwrap();
        assert!(said.contains("::notice") && said.contains("is not used"), "{said}");
        assert_eq!((runner.fx.sim.take_counts().0, runner.saved()), (1, 1), "asked, and saved");
        // The next job gets what GitHub said.
        runner.clean();
        let next = runner.run("ghs_job3", "push", json!({ "query": query() }));
        // Asked about once more, since it depends on permissions: free of charge.
        assert_eq!((&next["failed"], runner.fx.sim.take_counts()), (&json!(false), (1, 0)), "{next}");
        assert!(result(&runner.workspace()).contains("read"), "{next}");
    }
}

#[cfg(unix)]
#[test]
fn a_store_in_the_checkout_does_not_answer_through_the_proxy() {
    let Some(runner) = Runner::new() else { return };
    for as_bundle in [false, true] {
        runner.clean();
        let _none = std::fs::remove_dir_all(runner.fx.dir.path().join("cache"));
        let store = runner.workspace().join(".cache/github");
        plant(&runner.fx, &store, Partition::repository("acme/repo-0001").unwrap(), "ghs_job1", as_bundle);
        let ask = format!(
            "curl -sSf -H 'Authorization: Bearer ${{{{ github.token }}}}' ${{{{ steps.proxy.outputs.api-url }}}}{PERMISSION}"
        );
        let done = runner.job(
            "ghs_job2",
            "push",
            &json!([
                { "name": "proxy", "id": "proxy", "uses": "./proxy", "with": { "binary": BINARY, "gh": "false" } },
                { "name": "ask", "run": ask },
                { "name": "stop", "id": "stop", "if": "always()", "uses": "./proxy/stop" },
            ]),
        );
        assert_eq!(done["failed"], false, "{done}");
        assert!(step(&done, "ask")["stdout"].as_str().unwrap().contains("read"), "{done}");
        assert_eq!(runner.saved(), 1);
        assert_eq!(listed(&store.join("bundle.tar.zst")).matches(PERMISSION).count(), 1);
    }
}

fn uses(id: &str, query: &str, with: Value) -> Value {
    let mut all = json!({ "binary": BINARY, "query": query, "output-dir": format!("out-{id}") });
    all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    json!({ "name": id, "id": id, "uses": "./", "with": all })
}

fn requests(ids: &[&str]) -> Value {
    let said: Vec<String> = ids.iter().map(|id| format!("{id}=${{{{ steps.{id}.outputs.requests }}}}")).collect();
    json!({ "name": "say", "run": format!("echo {}", said.join(" ")) })
}

#[test]
fn uses_in_one_job_share_a_store_and_identities_do_not() {
    let Some(runner) = Runner::new() else { return };
    truth(&runner.fx);
    runner.fx.sim.token("ghp_AnotherAnotherAnotherAnotherAnotherAnot", "user:else");
    // In a pull request nothing is saved, and what an older bundle brings does not replace what the first use stored.
    let users = "u = GET /users/octocat";
    assert_eq!(runner.run("ghs_job1", "push", json!({ "query": users }))["failed"], false);
    runner.clean();
    let both = format!("{users}\n{}", query());
    let steps = json!([uses("a", &both, json!({})), uses("b", &both, json!({})), requests(&["a", "b"])]);
    let done = runner.job("ghs_job2", "pull_request", &steps);
    assert_eq!(step(&done, "say")["stdout"], "a=1 b=0\n", "{done}");
    assert_eq!((&done["failed"], runner.saved()), (&json!(false), 1), "{done}");
    // Another token's answers stay out of the bundle that the job's own token saves.
    runner.clean();
    let _none = std::fs::remove_dir_all(runner.fx.dir.path().join("cache"));
    let other = json!({ "token": "ghp_AnotherAnotherAnotherAnotherAnotherAnot", "save": "never" });
    let done = runner.job("ghs_job3", "schedule", &json!([uses("a", &query(), other), uses("b", users, json!({}))]));
    assert_eq!((&done["failed"], runner.saved()), (&json!(false), 1), "{done}");
    let listed = listed(&runner.workspace().join(".cache/github/bundle.tar.zst"));
    assert!(listed.contains("/users/octocat") && !listed.contains(PERMISSION), "{listed}");
}

#[test]
fn a_bundle_outside_the_workspace_stays_on_the_runner() {
    let Some(runner) = Runner::new() else { return };
    let bundle = runner.fx.dir.path().join("kept/bundle.tar.zst");
    let ask = |token: &str| {
        let inputs = json!({ "query": "u = GET /users/octocat", "bundle": bundle, "restore": false, "save": "never" });
        runner.run(token, "push", inputs)["outputs"]["requests"].clone()
    };
    assert_eq!((ask("ghs_job1"), ask("ghs_job2")), (json!("1"), json!("0")));
}

#[cfg(unix)]
#[test]
fn a_link_in_the_checkout_leads_the_bundle_nowhere() {
    let Some(runner) = Runner::new() else { return };
    let elsewhere = runner.fx.dir.path().join("elsewhere");
    let cache = runner.workspace().join(".cache");
    for (link, target) in [(cache.clone(), elsewhere.clone()), (cache.join("github"), elsewhere.clone())] {
        runner.clean();
        let _none = std::fs::remove_file(&cache);
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, &link).unwrap();
        let done = runner.run("ghs_job1", "push", json!({ "query": "u = GET /users/octocat" }));
        assert_eq!((&done["failed"], runner.saved()), (&json!(true), 0), "{done}");
        assert!(step(&done, "Check the inputs")["stdout"].as_str().unwrap().contains("is a symbolic link"), "{done}");
        assert!(std::fs::read_dir(&elsewhere).unwrap().next().is_none());
    }
    runner.clean();
    let _none = std::fs::remove_file(&cache);
    for bundle in ["../oc/bundle.tar.zst", "a/../../bundle.tar.zst"] {
        let done = runner.run("ghs_job1", "push", json!({ "query": "u = GET /users/octocat", "bundle": bundle }));
        assert_eq!(done["failed"], true, "{bundle}");
    }
}

const TOKEN: &str = "ghp_SecretSecretSecretSecretSecretSecret";

/// A clone with a plan, in a directory with a home.
struct Checkout {
    fx: Fixture,
}

impl Checkout {
    fn new() -> Self {
        let fx = Fixture::with_clock(Clock::System);
        fx.sim.token(TOKEN, "user:secret");
        world::organisation(&fx.sim, 2);
        truth(&fx);
        let clone = Self { fx };
        let plan = format!("version: 1\nqueries: {{ perm: {{ get: {PERMISSION} }} }}\n");
        std::fs::create_dir_all(clone.path(".github")).unwrap();
        std::fs::create_dir_all(clone.fx.dir.path().join("home")).unwrap();
        std::fs::write(clone.path(".github/octocache.yml"), plan).unwrap();
        clone
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.fx.dir.path().join("clone").join(name)
    }

    fn plant(&self, dir: &Path, as_bundle: bool) {
        plant(&self.fx, dir, Partition::token(&Token::new(TOKEN).unwrap()), TOKEN, as_bundle);
    }

    fn octocache(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(BINARY);
        command.args(args).env_clear().env("HOME", self.fx.dir.path().join("home")).current_dir(self.path(""));
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("OCTOCACHE_API_URL", self.fx.sim.url());
        let output = command.env("OCTOCACHE_TOKEN", TOKEN).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Runs the plan; what was written, and what was said.
    fn run(&self, args: &[&str]) -> (String, String) {
        let (code, said) = self.octocache(&[&["run"], args].concat());
        assert_eq!(code, 0, "{said}");
        (result(&self.path("")), said)
    }

    fn git(&self, args: &[&str]) -> bool {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args).current_dir(self.path(""));
        git.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

#[test]
fn a_store_that_git_tracks_is_not_used_and_another_one_is() {
    let clone = Checkout::new();
    if !clone.git(&["init", "-q"]) {
        return eprintln!("SKIPPED: git is not installed");
    }
    let store = clone.path(".cache/github");
    for as_bundle in [false, true] {
        let _none = std::fs::remove_dir_all(&store);
        clone.plant(&store, as_bundle);
        assert!(clone.git(&["add", "-f", ".cache"]));
        let (result, said) = clone.run(&[]);
        assert!(result.contains("read"), "{said}");
        assert!(said.contains("is not used: git tracks files in it"), "{said}");
        assert!(clone.fx.sim.take_counts().0 <= 1);
        // The store that is used instead keeps what it is given.
        let (result, _) = clone.run(&[]);
        assert!(result.contains("read") && clone.fx.sim.take_counts().0 == 0);
        for named in [&["--cache-dir", ".cache/github"][..], &["--cache-dir", "./.cache/../.cache/github/"]] {
            let (result, said) = clone.run(named);
            assert!(result.contains("read") && said.contains("git tracks files in it"), "{said}");
        }
        let (_, said) = clone.octocache(&["api", PERMISSION]);
        assert!(said.contains("git tracks files in it"), "{said}");
        clone.fx.sim.take_counts();
    }
}

#[cfg(unix)]
#[test]
fn a_store_of_ones_own_goes_on_and_is_private_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let clone = Checkout::new();
    let store = clone.path(".cache/github");
    let has_git = clone.git(&["init", "-q"]);
    assert_eq!(has_git, clone.git(&["add", "."]));
    // As any earlier version has left it: without a mark.
    clone.plant(&store, false);
    let (result, said) = clone.run(&[]);
    assert!(result.contains("admin") && !said.contains("not used"), "{said}");
    assert_eq!(clone.fx.sim.take_counts().0, 0);
    // A placeholder in git, and a commit of everything that is not ignored.
    assert_eq!(has_git, clone.git(&["add", "-f", ".cache/github/.gitignore"]) && clone.git(&["commit", "-qm", "x"]));
    assert_eq!((clone.run(&[]).0.contains("admin"), clone.fx.sim.take_counts().0), (true, 0));
    std::fs::remove_dir_all(clone.path(".cache")).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 0; exec \"$0\" run", BINARY]).current_dir(clone.path("")).env("OCTOCACHE_TOKEN", TOKEN);
    shell.env("OCTOCACHE_API_URL", clone.fx.sim.url()).env("HOME", clone.fx.dir.path().join("home"));
    assert!(shell.output().unwrap().status.success());
    for name in [".gitignore", "CACHEDIR.TAG", "v1", "partial", "stats.log"] {
        let mode = std::fs::metadata(store.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

#[cfg(unix)]
#[test]
fn a_store_that_others_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let clone = Checkout::new();
    let chmod = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let (found, named) = (clone.path(".cache/github"), clone.fx.dir.path().join("shared"));
    for store in [&found, &named] {
        clone.plant(store, false);
        chmod(store, 0o777);
    }
    let named = named.to_str().unwrap();
    for args in [&[][..], &["--cache-dir", named]] {
        let (result, said) = clone.run(args);
        assert!(result.contains("read") && said.contains("other users can write to it"), "{said}");
        assert_eq!(clone.fx.sim.take_counts().0, 1);
        assert!(clone.run(args).0.contains("read"));
        assert_eq!(clone.fx.sim.take_counts().0, 0, "the store instead of it answers");
    }
    // Modes that git and archives give: nothing that this program has written.
    chmod(&found, 0o755);
    chmod(&found.join("v1"), 0o755);
    let (result, said) = clone.run(&[]);
    assert!(result.contains("read") && said.contains("this program did not write it"), "{said}");
    chmod(&found.join("v1"), 0o700);
    // Of another user, beside a plan that was found.
    if std::os::unix::fs::chown(&found, Some(65_534), None).is_ok() {
        let (result, said) = clone.run(&[]);
        assert!(result.contains("read") && said.contains("another user (uid 65534)"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_server_does_not_use_such_a_store_either() {
    let clone = Checkout::new();
    if !clone.git(&["init", "-q"]) {
        return eprintln!("SKIPPED: git is not installed");
    }
    clone.plant(&clone.path(".cache/github"), true);
    assert!(clone.git(&["add", "-f", ".cache"]));
    let (code, said) = clone.octocache(&["doctor"]);
    assert!(code <= 1 && said.contains("git tracks files in it"), "{said}");
    let mut serve = Command::new(BINARY);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--ready-file"]).arg(clone.path("ready.json"));
    serve.env_clear().env("HOME", clone.fx.dir.path().join("home")).current_dir(clone.path(""));
    serve.env("PATH", std::env::var_os("PATH").unwrap()).env("OCTOCACHE_API_URL", clone.fx.sim.url());
    let mut serve = serve.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = std::io::BufReader::new(serve.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut said).unwrap();
    let _ended = serve.kill();
    serve.wait().unwrap();
    assert!(said.contains("git tracks files in it"), "{said}");
}
