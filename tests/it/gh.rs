//! `octocache api` beside the real gh: the same arguments, the same world, the same output.
//!
//! Debian's gh is of 2023. Where newer ones do otherwise, ours does as they do, and the case says so.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::binary::BINARY;
use crate::harness::sim::{Doc, Sim};
use crate::harness::world;
use crate::serve::has;
use octocache::clock::Clock;
use serde_json::json;

const TOKEN: &str = "ghp_ClientClientClientClientClientClient";

struct World {
    sim: Sim,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let sim = Sim::start(Clock::System);
        world::organisation(&sim, 10);
        sim.token(TOKEN, "client");
        sim.with(|state| state.limit = 100_000);
        let dir = tempfile::tempdir().unwrap();
        sim.listen_unix(&dir.path().join("sim.sock"));
        std::fs::create_dir_all(dir.path().join("gh")).unwrap();
        let config = format!("http_unix_socket: {}\n", dir.path().join("sim.sock").display());
        std::fs::write(dir.path().join("gh/config.yml"), config).unwrap();
        std::fs::write(dir.path().join("body.json"), "{\"from\": \"file\"}\n").unwrap();
        std::fs::write(dir.path().join("text.txt"), "some\ntext").unwrap();
        let numbers = r#"{"i":1,"f":1.25,"e":0.125,"big":12345678901234567890,"exp":1e21,"neg":-0.5,"zero":0,"s":"a<b>&c","n":null,"t":true,"o":{"z":1,"a":[1,2.5,{"q":null}]},"u":"\u00e9\u2028","l":["x","y"],"at":"2020-02-03T04:05:06Z"}"#;
        let json = "application/json; charset=utf-8";
        sim.put("/numbers", Doc::Raw { content_type: json, body: numbers.into() });
        sim.put("/zen", Doc::Raw { content_type: "text/plain; charset=utf-8", body: "plain\n".into() });
        sim.put("/empty", Doc::Status(204, String::new()));
        for (path, status, body) in [
            ("/e403", 403, r#"{"message":"Resource not accessible by integration"}"#),
            (
                "/e422",
                422,
                r#"{"message":"Validation Failed","errors":[{"resource":"Issue","field":"title","code":"missing"}]}"#,
            ),
            ("/e422s", 422, r#"{"message":"Bad","errors":"because of this"}"#),
            ("/e400", 400, r#"{"errors":["one",{"message":"two"}]}"#),
            ("/e451", 451, r#"{"message":"Blocked"}"#),
            ("/e410", 410, "{}"),
        ] {
            sim.put(path, Doc::Status(status, body.into()));
        }
        Self { sim, dir }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("api").args(args).env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("GH_REPO", "acme/repo-0004").env("TZ", "UTC");
        command.env("GH_TOKEN", TOKEN).env("GH_CONFIG_DIR", self.dir.path().join("gh"));
        command.env("OCTOCACHE_API_URL", self.sim.url()).env("OCTOCACHE_TOKEN", TOKEN);
        command
    }

    fn run(&self, program: &str, args: &[&str], input: &str) -> Output {
        let mut command = self.command(program, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap_or(());
        child.wait_with_output().unwrap()
    }
}

/// What is compared of stderr: gh's own words about an answer.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|line| line.starts_with("gh: ")).collect::<Vec<_>>().join("\n")
}

/// Arguments, and what stands on standard input.
const CASES: &[(&[&str], &str)] = &[
    // Paths, methods, plain output.
    (&["repos/acme/repo-0001"], ""),
    (&["/repos/acme/repo-0001"], ""),
    (&["/users/octocat"], ""),
    (&["repos/{owner}/{repo}"], ""),
    (&["repos/:owner/:repo/languages"], ""),
    (&["/numbers"], ""),
    (&["/zen"], ""),
    (&["/empty"], ""),
    (&["/users/octocat", "--silent"], ""),
    (&["-X", "GET", "/users/octocat"], ""),
    (&["/users/octocat?a=1&b=x%20y"], ""),
    // Fields.
    (&["/echo", "-f", "a=1"], ""),
    (&["/echo", "-F", "a=1"], ""),
    (&["/echo", "-F", "a=9007199254740993", "-F", "b=-9223372036854775808", "-F", "c=9223372036854775808"], ""),
    (&["-X", "GET", "/echo", "-F", "a=9007199254740993"], ""),
    (&["/echo", "-F", "a=true", "-F", "b=false", "-F", "c=null", "-F", "d=1.5", "-F", "e=-3", "-F", "f=007"], ""),
    (&["/echo", "-F", "a=+4", "-F", "b=1e3", "-F", "c=0x10", "-F", "d=True", "-F", "e="], ""),
    (&["/echo", "-f", "a=true", "-f", "b=@text.txt"], ""),
    (&["/echo", "-F", "a=@text.txt"], ""),
    (&["/echo", "-F", "a=@-"], "from standard input"),
    (&["/echo", "-F", "o={owner}", "-F", "r={repo}", "-F", "x={other}", "-f", "raw={owner}"], ""),
    (&["/echo", "-F", "o=:owner"], ""),
    (&["/echo", "-f", "a=x", "-F", "a=1"], ""),
    (&["/echo", "-F", "a=1", "-f", "a=x"], ""),
    (&["/echo", "-F", "b=2", "-F", "a=1", "-f", "c=3"], ""),
    (&["/echo", "--raw-field", "a=1", "--field", "b=2"], ""),
    // Nesting.
    (&["/echo", "-f", "a[b]=c"], ""),
    (&["/echo", "-f", "a[b][c]=d", "-F", "a[b][e]=1"], ""),
    (&["/echo", "-F", "l[]=1", "-F", "l[]=x", "-F", "l[]=true"], ""),
    (&["/echo", "-F", "l[]"], ""),
    (&["/echo", "-f", "o[][k]=1", "-f", "o[][v]=2", "-f", "o[][k]=3", "-f", "o[][v]=4"], ""),
    (&["/echo", "-f", "m[l][]=1", "-f", "m[l][]=2", "-f", "m[x][y]=3"], ""),
    (&["/echo", "-f", "a"], ""),
    (&["/echo", "-f", "a=1", "-f", "a[b]=2"], ""),
    (&["/echo", "-f", "a=1", "-f", "a[]=2"], ""),
    // Methods with fields.
    (&["-X", "GET", "/echo", "-f", "q=x y&z", "-F", "n=1", "-F", "t=true", "-F", "x=null"], ""),
    (&["-X", "GET", "/echo?a=1", "-f", "b=2"], ""),
    (&["-X", "PATCH", "/echo", "-f", "a=1"], ""),
    (&["-X", "PUT", "/echo"], ""),
    (&["-X", "DELETE", "/echo"], ""),
    (&["-X", "POST", "/echo"], ""),
    (&["--method", "PUT", "/echo", "-F", "a=1"], ""),
    // Inputs.
    (&["/echo", "--input", "body.json"], ""),
    (&["/echo", "--input", "-"], "raw body"),
    (&["/echo", "--input", "body.json", "-f", "a=1", "-F", "b=2"], ""),
    (&["-X", "PUT", "/echo", "--input", "-"], "{}"),
    (&["/echo", "--input", "nothing.json"], ""),
    // Headers.
    (&["-X", "POST", "/echo", "-H", "X-Test: one"], ""),
    (&["-X", "POST", "/echo", "-H", "X-Test:  spaces  ", "-H", "X-Test-Two: 2"], ""),
    (&["/echo", "-f", "a=1", "-H", "Content-Type: text/plain"], ""),
    (&["/echo", "-H", "no-colon"], ""),
    (&["/users/octocat", "-H", "Accept: application/vnd.github.raw"], ""),
    (&["/users/octocat", "-p", "nebula,corsair"], ""),
    // Errors.
    (&["/none"], ""),
    (&["/e403"], ""),
    (&["/e422"], ""),
    (&["/e422s"], ""),
    (&["/e400"], ""),
    (&["/e410"], ""),
    (&["/e451", "--silent"], ""),
    (&["/none", "-q", ".message"], ""),
    (&["/none", "-t", "{{.message}}"], ""),
    (&["-X", "POST", "/none"], ""),
    (&["-X", "DELETE", "/none"], ""),
    // jq.
    (&["/numbers", "-q", ".i, .f, .e, .big, .exp, .neg, .zero"], ""),
    (&["/numbers", "-q", ".s, .n, .t"], ""),
    (&["/numbers", "-q", ".o"], ""),
    (&["/numbers", "-q", ".l"], ""),
    (&["/numbers", "-q", "{s, big, f, u}"], ""),
    (&["/numbers", "-q", ".l[]"], ""),
    (&["/numbers", "-q", ".none"], ""),
    (&["/numbers", "-q", "empty"], ""),
    (&["/numbers", "-q", ".l | length"], ""),
    (&["/numbers", "-q", ".o | keys"], ""),
    (&["/numbers", "-q", "[.i, .f] | add"], ""),
    (&["/numbers", "-q", "\"\\(.i) and \\(.s)\""], ""),
    (&["/numbers", "-q", ".l | join(\"-\")"], ""),
    (&["/numbers", "-q", "to_entries | map(select(.value | type == \"string\")) | map(.key)"], ""),
    (&["/repos/acme/repo-0004/issues", "-q", ".[] | [.number, .title] | @csv"], ""),
    (&["/repos/acme/repo-0004/issues", "-q", ".[] | select(.number > 2) | .title"], ""),
    (&["/repos/acme/repo-0004/issues", "--jq", "map({number, labels: [.labels[].name]})"], ""),
    // Templates.
    (&["/numbers", "-t", "{{.i}} {{.f}} {{.e}} {{.big}} {{.exp}} {{.neg}}"], ""),
    (&["/numbers", "-t", "{{.s}}|{{.n}}|{{.t}}|{{.none}}|{{.o}}|{{.l}}"], ""),
    (&["/numbers", "-t", "{{range .l}}<{{.}}>{{end}}{{range $k, $v := .o}}{{$k}}={{$v}};{{end}}"], ""),
    (&["/numbers", "-t", "{{if .t}}yes{{else}}no{{end}} {{with .n}}x{{else}}none{{end}} {{len .l}}"], ""),
    (&["/numbers", "-t", "{{printf \"%s %v %.3f %q %5s|%-5s|\" .s .i .f .s \"ab\" \"cd\"}}"], ""),
    (&["/numbers", "-t", "{{join \", \" .l}} {{truncate 4 .s}} {{truncate 10 .n}}"], ""),
    (&["/numbers", "-t", "{{timefmt \"2006-01-02 15:04\" .at}} {{timeago .at}}"], ""),
    (&["/numbers", "-t", "{{color \"red\" .s}} {{autocolor \"green\" .i}} {{hyperlink \"https://x\" \"y\"}}"], ""),
    (&["/repos/acme/repo-0004/issues", "-t", "{{range .}}{{tablerow .number .title}}{{end}}"], ""),
    (&["/repos/acme/repo-0004/issues", "-t", "{{range .}}{{tablerow .number .title}}{{end}}{{tablerender}}end\n"], ""),
    (&["/repos/acme/repo-0004/issues", "--template", "{{range .}}{{pluck \"name\" .labels | join \",\"}};{{end}}"], ""),
    (&["/numbers", "-t", "{{index .l 1}} {{slice .s 0 3}} {{eq .s \"x\"}} {{and .t .s}} {{or .n .s}} {{not .t}}"], ""),
    (&["/numbers", "-t", "a {{- .i -}} b {{/* nothing */}}c"], ""),
    // Pages.
    (&["--paginate", "/repos/acme/repo-0005/issues", "-q", ".[].number"], ""),
    (&["--paginate", "/repos/acme/repo-0005/issues?per_page=50", "-q", "length"], ""),
    (&["--paginate", "-X", "GET", "/repos/acme/repo-0005/issues", "-F", "per_page=90", "-q", "length"], ""),
    (&["--paginate", "/repos/acme/repo-0004/issues"], ""),
    (&["--paginate", "/repos/acme/repo-0005/issues", "-t", "{{range .}}{{tablerow .number .title}}{{end}}"], ""),
    (&["--paginate", "/repos/acme/repo-0004/actions/runs", "-q", ".workflow_runs[].id"], ""),
    (&["--paginate", "/none"], ""),
    (&["--paginate", "-X", "POST", "/echo"], ""),
    // GraphQL.
    (&["graphql", "-f", "query={viewer{login}}"], ""),
    (&["graphql", "-f", "query={viewer{login}}", "-q", ".data.viewer.login"], ""),
    (
        &[
            "graphql",
            "-F",
            "owner={owner}",
            "-F",
            "name={repo}",
            "-F",
            "first=3",
            "-f",
            "query=query Q($owner: String!, $name: String!, $first: Int) { repository(owner: $owner, name: $name) { issues(first: $first) { nodes { number title } } } }",
        ],
        "",
    ),
    (
        &[
            "graphql",
            "--paginate",
            "-f",
            "query=query Q($endCursor: String) { repository(owner: \"acme\", name: \"repo-0005\") { issues(first: 60, after: $endCursor) { nodes { number } pageInfo { hasNextPage endCursor } } } }",
            "-q",
            ".data.repository.issues.nodes[].number",
        ],
        "",
    ),
    (&["graphql", "-f", "query=query Q { repository(owner: \"acme\", name: \"nope\") { name } }"], ""),
    (&["graphql", "-f", "query={ broken"], ""),
    (&["graphql", "-f", "query=mutation { addStar(input: {}) { clientMutationId } }"], ""),
];

#[test]
fn the_same_arguments_give_the_same_output() {
    if !has("gh") {
        return;
    }
    assert!(CASES.len() >= 80, "{}", CASES.len());
    let world = World::new();
    let mut wrong = Vec::new();
    for (args, input) in CASES {
        let gh = world.run("gh", args, input);
        for _hit_or_miss in 0..2 {
            let ours = world.run(BINARY, args, input);
            let (wanted, got) = (String::from_utf8_lossy(&gh.stdout), String::from_utf8_lossy(&ours.stdout));
            let codes = (gh.status.code(), ours.status.code());
            if wanted != got || codes.0 != codes.1 || said(&gh) != said(&ours) {
                let text =
                    |output: &Output| String::from_utf8_lossy(&output.stderr).chars().take(300).collect::<String>();
                wrong.push(format!(
                    "{args:?}: {codes:?}\n  gh   {wanted:.300?} {:?}\n  ours {got:.300?} {:?}",
                    text(&gh),
                    text(&ours)
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

/// gh's output spoils escapes that are escaped themselves; what it sends shows what it means.
#[test]
fn the_same_bodies_are_sent() {
    if !has("gh") {
        return;
    }
    let world = World::new();
    for args in [
        &["/echo", "-f", "a=b=c", "-f", "d=x&y z"][..],
        &["/echo", "-f", "t=<b>&\u{e9}\u{2028}\"\\", "-F", "n=-0"],
        &["graphql", "-f", "query={viewer{login}} # <&>", "-F", "n=1", "-f", "operationName=", "-F", "l[]=<"],
    ] {
        let [gh, ours] = ["gh", BINARY].map(|program| {
            world.run(program, args, "");
            let logged = world.sim.log().pop().unwrap();
            (logged.method, logged.target, logged.body)
        });
        if args[0] == "graphql" {
            // What is cached is sent in its normal form.
            assert_eq!((gh.0, gh.1), (ours.0, ours.1));
        } else {
            assert_eq!(gh, ours, "{args:?}");
        }
    }
}

/// Status line and names of headers, as far as both have them.
#[test]
fn heads_look_the_same() {
    if !has("gh") {
        return;
    }
    let world = World::new();
    for args in [
        &["-i", "/users/octocat"][..],
        &["-i", "--silent", "/repos/acme/repo-0001"],
        &["-i", "/none"],
        &["-i", "/empty"],
    ] {
        let [gh, ours] = ["gh", BINARY].map(|program| {
            let text = String::from_utf8(world.run(program, args, "").stdout).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let (status, headers) = head.split_once('\n').unwrap();
            let kept = |line: &&str| {
                ["Content-Type", "Last-Modified", "Vary", "Cache-Control", "X-Ratelimit-Resource"]
                    .iter()
                    .any(|name| line.starts_with(name))
            };
            let headers: Vec<String> = headers.split("\r\n").filter(kept).map(str::to_owned).collect();
            (status.to_owned(), headers, body.to_owned())
        });
        assert_eq!(gh, ours, "{args:?}");
    }
}

/// What Debian's gh does not know yet, by what newer ones are documented and seen to do.
#[test]
fn newer_ghs_ways() {
    let world = World::new();
    let out = |args: &[&str]| {
        let output = world.run(BINARY, args, "");
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let joined: serde_json::Value =
        serde_json::from_str(&out(&["--paginate", "/repos/acme/repo-0005/issues"]).1).unwrap();
    assert_eq!(joined.as_array().unwrap().len(), 185);
    let slurped: serde_json::Value =
        serde_json::from_str(&out(&["--paginate", "--slurp", "/repos/acme/repo-0005/issues"]).1).unwrap();
    assert_eq!(
        slurped.as_array().unwrap().iter().map(|page| page.as_array().unwrap().len()).collect::<Vec<_>>(),
        [100, 85]
    );
    let fields: serde_json::Value =
        serde_json::from_str(&out(&["-X", "get", "/echo", "-F", "l[]=1", "-F", "l[]=2", "-F", "a[b]=c"]).1).unwrap();
    assert_eq!(fields["target"], "/echo?b=c&l%5B%5D=1&l%5B%5D=2");
    let body = out(&["/echo", "-f", "o[][k]=1", "-f", "o[][t][]=a", "-f", "o[][t][]=b", "-q", ".body"]).1;
    assert_eq!(body, "{\"o\":[{\"k\":\"1\",\"t\":[\"a\",\"b\"]}]}\n");
    // Text that only looks like an escape is left alone; gh of 2023 spoils it.
    assert!(out(&["/echo", "-f", "a=<"]).1.contains("\\\\u003c"));
    assert_eq!(out(&["--slurp", "/numbers"]).0, 1);
    assert_eq!(out(&["/numbers", "-q", "{"]).0, 1);
    let odd = json!({ "a": "\u{1b}[31mred\u{7}" });
    world.sim.put("/odd", Doc::json(odd));
    assert_eq!(out(&["/odd"]).1, "{\"a\":\"^[[31mred^G\"}");
    let verbose = out(&["--verbose", "/users/octocat", "-H", &format!("Authorization: token {TOKEN}")]).1;
    assert!(verbose.starts_with("> GET /users/octocat HTTP/1.1\n") && !verbose.contains(TOKEN), "{verbose}");
    assert!(verbose.contains("< HTTP/1.1 200 OK\n"));
}

/// gh finds an extension by its name, and hands everything on.
#[test]
fn as_an_extension_of_gh() {
    if !has("gh") {
        return;
    }
    let world = World::new();
    let extension = world.dir.path().join("data/gh/extensions/gh-octocache");
    std::fs::create_dir_all(&extension).unwrap();
    std::os::unix::fs::symlink(BINARY, extension.join("gh-octocache")).unwrap();
    let run = |args: &[&str]| {
        let mut command = world.command("gh", &[]);
        let mut gh = Command::new(command.get_program());
        gh.args(["octocache", "api"]).args(args).env_clear();
        gh.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        gh.env("XDG_DATA_HOME", world.dir.path().join("data"))
            .current_dir(Path::new(command.current_dir(world.dir.path()).get_current_dir().unwrap()));
        gh.output().unwrap()
    };
    let output = run(&["/users/octocat", "-q", ".login"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "octocat\n", "{output:?}");
    assert_eq!(run(&["/none"]).status.code(), Some(1));
}

/// A clone with these remotes; `None` for one on another host.
fn clone(dir: &Path, remotes: &[(&str, &str)]) {
    std::fs::create_dir_all(dir).unwrap();
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "--quiet"]);
    for (name, url) in remotes {
        git(&["remote", "add", name, url]);
    }
}

#[test]
fn a_clones_repository_is_the_one_that_gh_takes() {
    if !has("gh") || !has("git") {
        return;
    }
    let world = World::new();
    for name in ["me/app", "acme/app", "hub/app", "zzz/app"] {
        world.sim.put(&format!("/repos/{name}"), Doc::json(json!({ "full_name": name })));
    }
    let (origin, upstream) = (("origin", "git@github.com:me/app.git"), ("upstream", "https://github.com/acme/app"));
    let (hub, other) = (("github", "https://www.github.com/hub/app"), ("a", "ssh://git@github.com/zzz/app.git"));
    let elsewhere = ("upstream", "https://gitlab.com/acme/app.git");
    let local = ("upstream", "/srv/git/app.git");
    let cases: &[&[(&str, &str)]] = &[
        &[origin],
        &[other],
        &[origin, upstream],
        &[other, origin, hub],
        &[origin, hub, upstream, other],
        &[origin, elsewhere],
        &[local, other, origin],
        &[("Upstream", "https://GitHub.com/acme/app/"), origin],
    ];
    for (n, remotes) in cases.iter().enumerate() {
        let dir = world.dir.path().join(format!("clone{n}"));
        clone(&dir, remotes);
        let mut gh = world.command("gh", &["repos/{owner}/{repo}", "-q", ".full_name"]);
        let gh = gh.env_remove("GH_REPO").current_dir(&dir).output().unwrap();
        let theirs = String::from_utf8(gh.stdout).unwrap();
        assert!(gh.status.success(), "{remotes:?}: {}", String::from_utf8_lossy(&gh.stderr));
        let mut doctor = Command::new(BINARY);
        doctor.args(["doctor", "--json", "--offline"]).env_clear().env("HOME", world.dir.path()).current_dir(&dir);
        doctor.env("PATH", std::env::var_os("PATH").unwrap()).env("GITHUB_REPOSITORY", "not/asked");
        let said = doctor.output().unwrap();
        let findings: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
        let ours = findings.iter().find(|found| found["about"] == "repository").unwrap()["text"].as_str().unwrap();
        assert!(ours.starts_with(&format!("{}, from git's remote `", theirs.trim())), "{remotes:?}: {theirs} {ours}");
    }
    // What `gh repo set-default` marks; gh of 2023 does not look at it here.
    let dir = world.dir.path().join("marked");
    clone(&dir, &[("origin", "https://github.com/me/app"), ("upstream", "https://github.com/acme/app")]);
    let mark = ["config", "remote.origin.gh-resolved", "base"];
    assert!(Command::new("git").args(mark).current_dir(&dir).status().unwrap().success());
    let mut doctor = Command::new(BINARY);
    doctor.args(["doctor", "--offline"]).env_clear().env("HOME", world.dir.path()).current_dir(&dir);
    let said = doctor.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("me/app, from git's remote `origin`, which `gh repo set-default` chose"), "{said}");
}

#[test]
fn a_host_with_more_than_a_name_is_refused_as_by_gh() {
    let world = World::new();
    for host in ["other.example/x", "https://github.com", "me@github.com"] {
        let output = world.command(BINARY, &["--hostname", host, "user"]).env("GH_ENTERPRISE_TOKEN", TOKEN).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("invalid hostname"), "{host}: {said}");
    }
}
