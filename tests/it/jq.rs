//! jq filters beside gojq, which is what gh runs: the same outputs, the same failures.
//!
//! The corpus (`tests/gojq/corpus.txt`) has one filter a line, below the input (`> JSON`) that it runs on. Filters below a
//! line `! WHY` are expected to differ, which holds until the next input.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use octocache::api::go;
use octocache::plan::Evaluator;
use octocache::plan::filter::Filter;
use serde_json::{Value, json};

use crate::binary::BINARY;

struct Case<'a> {
    input: &'a str,
    filter: &'a str,
    /// Why the outputs differ, where they do.
    differs: Option<&'a str>,
}

fn cases(corpus: &str) -> Vec<Case<'_>> {
    let (mut input, mut differs, mut all) = ("null", None, Vec::new());
    for line in corpus.lines() {
        if let Some(json) = line.strip_prefix("> ") {
            (input, differs) = (json, None);
        } else if let Some(why) = line.strip_prefix("! ") {
            differs = Some(why);
        } else {
            all.push(Case { input, filter: line, differs });
        }
    }
    all
}

/// The reference program that `scripts/test` builds.
fn reference() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/gojq/gojq");
    assert!(built.exists() || std::env::var("CI").is_err(), "{} is missing", built.display());
    built.exists().then_some(built)
}

/// What the reference prints for each case, and whether it fails.
fn expected(program: &Path, cases: &[Case<'_>]) -> Vec<(String, bool)> {
    let mut process = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let asked: String =
        cases.iter().map(|case| json!({ "filter": case.filter, "input": case.input }).to_string() + "\n").collect();
    let mut stdin = process.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(asked.as_bytes()).unwrap());
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap();
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    let answer = |line: &str| {
        let answer: Value = serde_json::from_str(line).unwrap();
        (answer["out"].as_str().unwrap().to_owned(), answer["err"] != "")
    };
    lines.map(answer).collect()
}

/// What octocache prints, and why it fails.
fn printed(evaluator: &Evaluator, case: &Case<'_>) -> (String, Option<String>) {
    let filter = match Filter::bounded_with_environment(case.filter, evaluator) {
        Ok(filter) => filter,
        Err(why) => return (String::new(), Some(why)),
    };
    let mut lines = String::new();
    let ended = filter.run_each(&go::filter_input(case.input.as_bytes()), |output| {
        lines.push_str(&go::filter_line(output, go::Style::default()));
        lines.push('\n');
        true
    });
    (lines, ended.err())
}

#[test]
fn filters_mean_what_they_mean_to_gh() {
    let Some(program) = reference() else { return };
    let corpus = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gojq/corpus.txt")).unwrap();
    let cases = cases(&corpus);
    let expected = expected(&program, &cases);
    assert_eq!(expected.len(), cases.len());
    let evaluator = Evaluator::new(BINARY.into(), &["filter-worker"], true);
    let mut wrong = String::new();
    for (case, (out, fails)) in cases.iter().zip(&expected) {
        let (ours, why) = printed(&evaluator, case);
        let same = ours == *out && why.is_some() == *fails;
        if same == case.differs.is_some() {
            let fails = if *fails { " and fails" } else { "" };
            let why = why.as_deref().unwrap_or("");
            wrong.push_str(&format!("{}\n  gh    {out:?}{fails}\n  ours  {ours:?} {why}\n", case.filter));
        }
    }
    let count = wrong.lines().count() / 3;
    assert!(wrong.is_empty(), "{count} of {} filters:\n{wrong}", cases.len());
}
