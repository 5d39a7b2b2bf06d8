//! What a plan may say, and how it is told what it may not.

use super::*;

fn parse(text: &str) -> Result<Plan> {
    Plan::parse(text, "plan.yml", Path::new("."))
}

fn error(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert!(error.is_usage(), "{error:?}");
    error.to_string()
}

#[test]
fn a_whole_plan() {
    let plan = parse(
        "version: 1
output-dir: out
vars: { owner: acme, repo: app }
defaults: { ttl: 12h, stale-if-error: 7d }
classes: { issues: 2m }
cache: { dir: .cache/x, max-size: 512MiB }
budget: { max-requests: 500 }
redact: ['.[].author.email']
bundle: { never: ['family:alerts'] }
queries:
  langs:
    recipe: languages
    for-each: { query: repos, items: '.[].full_name' }
  repos: { recipe: org-repos, org: acme }
  pull: { recipe: pull-request, number: 7, ttl: 5m, watch: [.state, .merged] }
  latest: { get: '/repos/{owner}/{repo}/releases/latest', jq: '{tag: .tag_name}', output: a/latest.json }
  each: { get: '/repos/{item}', for-each: [a/b, c/d] }
  mine: { graphql: 'query($l: String!) { user(login: $l) { id } }', variables: { l: octocat } }
",
    )
    .unwrap();
    let names: Vec<&str> = plan.queries.iter().map(|query| query.name.as_str()).collect();
    assert_eq!(names, ["repos", "pull", "latest", "each", "mine", "langs"]);
    assert_eq!(plan.ttls.classes.get("issues"), Some(&120));
    assert_eq!((plan.ttls.default_secs, plan.max_requests, plan.max_size), (Some(43_200), Some(500), Some(512 << 20)));
    assert_eq!(plan.queries[5].output.to_string(), "langs/{item}.json");
    assert!(plan.queries[0].paginate && !plan.queries[2].paginate);
}

#[test]
fn mistakes_are_named_with_place_and_advice() {
    for (text, wanted) in [
        ("", &["empty"][..]),
        ("version: 2\nqueries: { a: { get: /x } }\n", &["plan.yml:1:10", "version 2"]),
        ("version: 1\n", &["no queries"]),
        ("version: 1\nquerys: {}\n", &["plan.yml:2:1", "`querys`", "did you mean `queries`?"]),
        ("version: 1\nqueries:\n  a: { get: /x, tll: 5m }\n", &["plan.yml:3:17", "`tll`", "did you mean `ttl`?"]),
        ("version: 1\nqueries:\n  a: { get: /x, ttl: soon }\n", &["plan.yml:3:22", "`soon` is no duration", "90s"]),
        ("version: 1\nqueries:\n  a: { get: [1] }\n", &["plan.yml:3:"]),
        ("version: 1\nqueries:\n  a: { get: /x, recipe: user }\n", &["plan.yml:3:6", "exactly one of"]),
        ("version: 1\nqueries:\n  a: { recipe: relaeses }\n", &["plan.yml:3:16", "did you mean `releases`?"]),
        (
            "version: 1\nqueries:\n  a: { recipe: releases, tag: v1 }\n",
            &["plan.yml:3:31", "has no `tag`", "it takes repo"],
        ),
        ("version: 1\nqueries:\n  a: { recipe: release-by-tag }\n", &["needs `tag`"]),
        ("version: 1\nqueries:\n  a: { get: /x, jq: '.a | nope' }\n", &["plan.yml:3:21", "character 6", "nope"]),
        ("version: 1\nqueries:\n  a: { get: '/x/{who}' }\n", &["{who} has no value", "vars"]),
        ("version: 1\nqueries:\n  a: { get: /x, output: ../y }\n", &["leads out"]),
        ("version: 1\nqueries:\n  a: { get: /x, output: /etc/x }\n", &["leads out"]),
        ("version: 1\nqueries:\n  a: { get: /x, output: index.json }\n", &["the report's own name"]),
        (
            "version: 1\nqueries:\n  a: { get: /x, output: z.json }\n  b: { get: /y, output: Z.json }\n",
            &["plan.yml:4:6", "both write"],
        ),
        (
            "version: 1\nqueries:\n  a: { get: /x, output: z }\n  b: { get: /y, output: Z/y.json }\n",
            &["plan.yml:4:6", "one inside the other"],
        ),
        (
            "version: 1\nqueries:\n  a: { get: /x, output: z/a/y }\n  b: { get: /y, output: z/a }\n",
            &["plan.yml:4:6", "one inside the other"],
        ),
        (
            "version: 1\nqueries:\n  a: { get: '/x/{item}', for-each: [1, 2], output: z.json }\n",
            &["{item} into `output`"],
        ),
        (
            "version: 1\nqueries:\n  a: { get: /x, for-each: { query: b } }\n  b: { get: /x, for-each: { query: a } }\n",
            &["a → b → a"],
        ),
        ("version: 1\nqueries:\n  a: { get: /x, for-each: { query: ab } }\n", &["`ab`", "did you mean `a`?"]),
        ("version: 1\nqueries:\n  a: { get: /x, for-each: { quary: b } }\n", &["`quary`", "did you mean `query`?"]),
        ("version: 1\nqueries:\n  a: { get: /x, headers: { Authorization: x } }\n", &["`Authorization` cannot be set"]),
        (
            "version: 1\nclasses: { isues: 5m }\nqueries: { a: { get: /x } }\n",
            &["plan.yml:2:19", "did you mean `issues`?"],
        ),
        ("version: 1\nqueries: { a: { get: /x } }\nqueries: { b: { get: /x } }\n", &["plan.yml:3:", "queries"]),
        ("version: 1\nqueries: { a: { graphql: 'mutation { x }' } }\n", &["only GraphQL queries"]),
        ("version: 1\nredact: ['}']\nqueries: { a: { get: /x } }\n", &["plan.yml:2:10"]),
        (
            "version: 1\nbundle: { only: ['repo:x'] }\nqueries: { a: { get: /x } }\n",
            &["plan.yml:2:18", "repo:OWNER/NAME"],
        ),
        (
            "version: 1\nshare: { redis: { url: 'redis://:hunter2@h' } }\nqueries: { a: { get: /x } }\n",
            &["plan.yml:2:24", "${OCTOCACHE_REDIS_URL}"],
        ),
        ("version: 1\nshare: { redis: { url: 'http://h' } }\nqueries: { a: { get: /x } }\n", &["none of Redis's"]),
        ("version: 1\nshare: { redis: { url: '${a-b}' } }\nqueries: { a: { get: /x } }\n", &["names no variable"]),
        (
            "version: 1\nshare: { redis: { url: '${A}', timeout-ms: 0 } }\nqueries: { a: { get: /x } }\n",
            &["plan.yml:2:44", "from 1 to 10,000 ms"],
        ),
        (
            "version: 1\nshare: { secret: octo1-hunter2 }\nqueries: { a: { get: /x } }\n",
            &["plan.yml:2:18", "the secret does not belong into a plan"],
        ),
        ("version: 1\nshare: { ipfs: { api: '127.0.0.1:5001' } }\nqueries: { a: { get: /x } }\n", &["plan.yml:2:23"]),
        (
            "version: 1\nshare: { ipfs: { api: 'http://h', authorization: 'Bearer hunter2' } }\nqueries: { a: { get: /x } }\n",
            &["the authorization does not belong into a plan", "${OCTOCACHE_NAME}"],
        ),
        ("version: yes\nqueries: { a: { get: /x } }\n", &["plan.yml:1:10"]),
    ] {
        let error = error(text);
        assert!(!error.contains("hunter2"), "{error}");
        for part in wanted {
            assert!(error.contains(part), "{text}\n  gives: {error}\n  lacks: {part}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn bombs_are_refused_quickly() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        let refs = vec![format!("*a{}", n - 1); 10].join(",");
        bomb.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    let deep = format!("version: {}", "[".repeat(100_000));
    for text in [bomb, format!("version: 1\nqueries:\n  a: {{ get: {} }}\n", "{x: ".repeat(50_000)), deep] {
        error(&text);
    }
}

#[test]
fn a_plan_that_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.yml");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(100 << 20).unwrap();
    assert!(Plan::load(&path).unwrap_err().to_string().contains("larger than 1 MiB"));
    let missing = Plan::load(&dir.path().join("none.yml")).unwrap_err().to_string();
    assert!(missing.contains("there is no plan at"), "{missing}");
}

#[test]
fn inline_queries_and_selections() {
    let plan = Plan::inline("a = GET /x\n\n b= GET /repos/{owner}/{repo}\n").unwrap();
    assert_eq!(plan.queries.len(), 2);
    for bad in ["a", "a = POST /x", "a = GET /x\na = GET /y", "a b = GET /x"] {
        assert!(Plan::inline(bad).is_err(), "{bad}");
    }
    let text =
        "version: 1\nqueries:\n  x: { get: '/{item}', for-each: { query: y } }\n  y: { get: /y }\n  z: { get: /z }\n";
    let names = |only: &[&str]| {
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        let plan = parse(text).unwrap().only(&only).unwrap();
        plan.queries.iter().map(|query| query.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["x"]), ["y", "x"]);
    assert_eq!(names(&[]).len(), 3);
    assert!(parse(text).unwrap().only(&["xx".into()]).unwrap_err().to_string().contains("did you mean `x`?"));
}

#[test]
fn the_schema_in_the_repository_is_the_programs() {
    let kept =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.schema.json")).unwrap_or_default();
    assert_eq!(kept, spec::PlanSpec::schema(), "run `octocache config schema > docs/plan.schema.json`");
}
