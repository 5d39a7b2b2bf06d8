//! The floors of the house: a file uses only what lies below it (ARCHITECTURE.md, "Floors").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules by floor. Within a floor only the edges named below are allowed.
const FLOORS: &[&[&str]] = &[
    &["error", "clock", "units"],
    &[
        "address",
        "alias",
        "mask",
        "text",
        "token",
        "partition",
        "request",
        "key",
        "cid",
        "reply",
        "link",
        "outcome",
        "entry",
        "policy",
        "tag",
        "files",
        "graphql",
        "schedule",
        "metrics",
        "json",
    ],
    &["tier", "stack", "bundle", "cutoff", "upstream", "github", "stats", "collapse", "event", "share", "connect"],
    &["cache"],
    &["plan", "actions", "warm", "serve", "api"],
    &["config", "cli", "main", "lib", "fuzzing"],
];

/// Edges within a floor: (who, uses whom).
const EDGES: &[(&str, &str)] = &[
    ("error", "clock"),
    ("units", "error"),
    ("token", "mask"),
    ("partition", "token"),
    ("request", "address"),
    ("graphql", "request"),
    ("key", "address"),
    ("graphql", "json"),
    ("key", "partition"),
    ("key", "request"),
    ("entry", "cid"),
    ("entry", "key"),
    ("policy", "cid"),
    ("policy", "entry"),
    ("policy", "key"),
    ("policy", "outcome"),
    ("policy", "partition"),
    ("policy", "reply"),
    ("policy", "request"),
    ("policy", "token"),
    ("alias", "address"),
    ("alias", "entry"),
    ("alias", "link"),
    ("alias", "request"),
    ("tag", "address"),
    ("tag", "alias"),
    ("tag", "key"),
    ("tag", "policy"),
    ("tier", "bundle"),
    ("bundle", "cutoff"),
    ("stack", "tier"),
    ("stack", "bundle"),
    ("stack", "cutoff"),
    ("event", "cutoff"),
    ("github", "upstream"),
    ("github", "connect"),
    ("stats", "tier"),
    ("share", "tier"),
    ("share", "cutoff"),
    ("share", "stack"),
    ("share", "connect"),
    // The Action's summary renders the report of a run; it knows nothing else of plans.
    ("actions", "plan"),
    // A tick runs the plan first.
    ("warm", "plan"),
    ("cli", "config"),
    ("main", "cli"),
];

/// Non-test lines that no file exceeds.
const MAX_LINES: usize = 520;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&root).unwrap().to_owned(), text)
        })
        .collect()
}

fn module(path: &Path) -> String {
    path.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The part of a file before its tests; tests may use anything.
fn production<'a>(path: &Path, text: &'a str) -> &'a str {
    if path.ends_with("tests.rs") { "" } else { text.split("#[cfg(test)]").next().unwrap_or(text) }
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn files_use_only_the_floors_below() {
    let floor_of: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(floor, names)| names.iter().map(move |name| (*name, floor))).collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let me = module(&path);
        let my_floor = *floor_of.get(me.as_str()).unwrap_or_else(|| panic!("{} stands on no floor", path.display()));
        for line in code(production(&path, &text)) {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let used: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let Some(floor) = floor_of.get(used.as_str()) else { continue };
                let allowed = used == me
                    || *floor < my_floor
                    || (*floor == my_floor && EDGES.contains(&(me.as_str(), used.as_str())));
                if !allowed && me != "lib" {
                    wrong.push(format!("{}: {me} uses {used}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn some_things_are_known_in_one_place_only() {
    let only: &[(&str, &[&str])] = &[
        ("SystemTime::now", &["clock.rs"]),
        ("env::var", &["config/environment.rs"]),
        (
            "redis::",
            &[
                "share.rs",
                "share/redis.rs",
                "share/redis/board.rs",
                "share/redis/link.rs",
                "share/redis/write.rs",
                "config/share.rs",
            ],
        ),
        (
            "libp2p::",
            &[
                "share/peers.rs",
                "share/peers/behaviour.rs",
                "share/peers/compare.rs",
                "share/peers/handing.rs",
                "share/peers/meet.rs",
                "share/peers/node.rs",
            ],
        ),
        ("octocrab::", &["github.rs", "github/transport.rs"]),
        ("println!", &["cli/action.rs", "cli/print.rs", "cli/progress.rs"]),
        ("expose_secret", &["token.rs"]),
        ("unsafe ", &[]),
    ];
    for (path, text) in sources() {
        for (word, places) in only {
            let here = code(production(&path, &text)).any(|line| line.contains(word));
            let allowed = places.iter().any(|place| path == Path::new(place));
            assert!(!here || allowed, "{} holds `{word}`", path.display());
        }
    }
}

#[test]
fn files_are_small_and_say_what_they_are() {
    let mut lengths = Vec::new();
    for (path, text) in sources() {
        let name = path.display();
        assert!(text.starts_with("//!"), "{name} does not begin with what it is");
        assert!(!path.ends_with("mod.rs"), "{name}: x.rs beside x/, not mod.rs");
        assert!(
            !["utils", "helpers", "common", "misc"].contains(&path.file_stem().unwrap().to_str().unwrap()),
            "{name} is no noun"
        );
        let lines = production(&path, &text).lines().count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines: split it by noun");
        lengths.push(lines);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= 200, "the median file has {median} lines");
}
