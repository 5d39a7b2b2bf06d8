//! What the documents say: every plan in them is read, every command is one, every link leads somewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use octocache::plan::Plan;

use crate::binary::BINARY;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root().join("docs")).unwrap().map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        paths.push(root().join(name));
    }
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

#[test]
fn every_plan_in_a_document_is_one() {
    let mut plans = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "yaml").into_iter().filter(|block| block.contains("version: 1")) {
            plans += 1;
            if let Err(error) = Plan::parse(block, "block", root()) {
                panic!("{}: {error}\n{block}", path.display());
            }
        }
    }
    assert!(plans >= 3, "{plans}");
    let mut examples = 0;
    for dir in std::fs::read_dir(root().join("examples")).unwrap() {
        let plan = dir.unwrap().path().join(".github/octocache.yml");
        if plan.exists() {
            Plan::load(&plan).unwrap();
            examples += 1;
        }
    }
    assert!(examples >= 7, "{examples}");
}

#[test]
fn every_workflow_in_a_document_holds_before_actionlint() {
    let path = std::env::var("PATH").unwrap_or_default();
    let home = std::env::var("HOME").unwrap_or_default();
    let path = format!("{path}:{home}/go/bin");
    let dir = tempfile::tempdir().unwrap();
    let mut workflows = 0;
    for (document, text) in documents() {
        for block in blocks(&text, "yaml").into_iter().filter(|block| block.contains("jobs:")) {
            workflows += 1;
            let on = if block.lines().any(|line| line == "on:") { "" } else { "on: push\n" };
            let file = dir.path().join(format!("{workflows}.yml"));
            std::fs::write(&file, format!("{on}{block}\n")).unwrap();
            let Ok(output) = Command::new("actionlint").env("PATH", &path).arg(&file).output() else {
                assert!(std::env::var_os("CI").is_none(), "actionlint is missing: run scripts/test");
                eprintln!("SKIPPED: actionlint is missing; run scripts/test");
                return;
            };
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}: {said}\n{block}", document.display());
        }
    }
    assert!(workflows >= 2, "{workflows}");
}

#[test]
fn every_command_in_a_document_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut commands = 0;
    for (path, text) in documents() {
        let lines = blocks(&text, "console").into_iter().flat_map(str::lines);
        for line in lines.filter_map(|line| line.strip_prefix("$ ")) {
            let line = line.split("  #").next().unwrap().trim();
            let program = line.split_whitespace().find(|word| !word.contains('=')).unwrap();
            match program {
                "octocache" => {
                    commands += 1;
                    // With --help at the end, arguments are read and nothing is done.
                    let script = format!("{} --help", line.replacen("octocache", "\"$OCTOCACHE\"", 1));
                    let output = Command::new("bash")
                        .args(["-c", &script])
                        .env_clear()
                        .env("PATH", std::env::var_os("PATH").unwrap())
                        .env("OCTOCACHE", BINARY)
                        .current_dir(dir.path())
                        .output()
                        .unwrap();
                    assert!(
                        output.status.success(),
                        "{}: {line}\n{}",
                        path.display(),
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
                script if script.starts_with("scripts/") => assert!(root().join(script).exists(), "{line}"),
                "cargo" | "curl" | "gh" => {}
                other => panic!("{}: what is `{other}`?", path.display()),
            }
        }
    }
    assert!(commands >= 15, "{commands}");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let target = path.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", path.display());
        }
    }
}

/// Rows of a table below a heading, as cells.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = text.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn every_threat_has_a_test_that_exists() {
    fn sources(dir: &Path, found: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut code = String::new();
    for dir in ["src", "tests"] {
        sources(&root().join(dir), &mut code);
    }
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let rows = rows(&text, "\n## Threats\n");
    assert!(rows.len() >= 45, "{}", rows.len());
    for row in &rows {
        assert_eq!(row.len(), 4, "{row:?}");
        let named: Vec<&str> = row[3].split(", ").map(|name| name.trim_matches('`')).collect();
        for name in named {
            let is_test = ["#[test]", "#[tokio::test"].iter().any(|attribute| {
                code.match_indices(&format!("fn {name}(")).any(|(at, _)| {
                    let before = &code[..at];
                    before[before.rfind("}\n").unwrap_or(0)..].contains(attribute)
                })
            });
            assert!(is_test, "`{name}` is no test: {row:?}");
        }
    }
    let whom: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    for who in [
        "a plan",
        "a checkout",
        "a store",
        "a bundle",
        "a Redis",
        "a peer",
        "an upstream",
        "a webhook sender",
        "a local user",
        "a client",
    ] {
        assert!(whom.contains(&who), "{who}");
    }
}
