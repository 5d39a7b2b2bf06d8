//! An oracle: a simulation of GitHub that knows the truth, sequences of what happens, and a judge of each answer.
//!
//! `scripts/oracle` runs it for longer, and `scripts/oracle --prove` shows that it finds faults.

#[path = "../oracle/chance.rs"]
mod chance;
#[path = "../oracle/machine.rs"]
mod machine;
#[path = "../oracle/model.rs"]
mod model;
#[path = "../oracle/run.rs"]
mod run;
#[path = "../oracle/truth.rs"]
mod truth;

use std::sync::atomic::{AtomicU64, Ordering};

use model::Trouble;
use run::By::Name;
use run::Door::{Command, Serve};
use run::Op::{self, Behind, Read, Wait, Walk, Write};
use run::What::{Issues, Latest, Repository};
use truth::Change;

/// Things that happen in one sequence.
const LENGTH: usize = 100;

/// Sequences at once: most of the time they wait for servers that start and end.
const WORKERS: usize = 6;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs sequences from `first` on until `go_on` says no; panics with the shortest part that goes wrong.
fn sequences(first: u64, go_on: impl Fn(u64) -> bool + Sync) -> u64 {
    let (next, requests) = (AtomicU64::new(first), AtomicU64::new(0));
    let worker = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !go_on(seed - first) {
                return;
            }
            let ops = chance::sequence(seed, LENGTH);
            match runtime.block_on(run::run(&ops)) {
                Ok(sent) => _ = requests.fetch_add(sent, Ordering::Relaxed),
                Err(wrong) => {
                    let (ops, wrong) = runtime.block_on(chance::shrunk(&ops, wrong));
                    let steps: Vec<String> = ops.iter().map(|op| format!("    {op:?},")).collect();
                    panic!("seed {seed}: {}\n{}", wrong.text, steps.join("\n"));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        let failed: Vec<_> = workers.into_iter().filter_map(|worker| worker.join().err()).collect();
        if let Some(panic) = failed.into_iter().next() {
            std::panic::resume_unwind(panic);
        }
    });
    requests.into_inner()
}

#[test]
fn no_sequence_gives_an_answer_that_is_wrong() {
    let (first, count) = (number("ORACLE_SEED").unwrap_or(1), number("ORACLE_SEEDS").unwrap_or(60));
    let minutes = number("ORACLE_MINUTES");
    let started = std::time::Instant::now();
    let requests = sequences(first, |done| match minutes {
        Some(minutes) => started.elapsed().as_secs() < minutes * 60,
        None => done < count,
    });
    println!("oracle: {} requests to GitHub, {:?}", requests, started.elapsed());
}

/// Runs a sequence that went wrong once.
fn goes_right(ops: &[Op]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Err(wrong) = runtime.block_on(run::run(ops)) {
        panic!("at {:?}: {}", ops[wrong.at], wrong.text);
    }
}

fn trouble(kind: Trouble, times: usize) -> Op {
    Op::Trouble { kind, times }
}

fn read(door: run::Door, who: usize, what: run::What, control: &'static str) -> Op {
    Read { machine: 0, door, who, at: 0, by: Name, what, control }
}

#[test]
fn a_redirect_or_refusal_that_breaks_off_is_asked_for_again() {
    let moved = Read { machine: 0, door: Serve, who: 2, at: 0, by: run::By::OldName, what: Repository, control: "" };
    goes_right(&[Behind { at: 0, change: Change::Rename, deliver: true }, trouble(Trouble::Cut, 2), moved]);
    goes_right(&[trouble(Trouble::Cut, 1), read(Command, 0, Latest, ""), read(Command, 0, Latest, "")]);
}

#[test]
fn a_stale_answer_counts_what_was_sent_in_vain() {
    for kind in [Trouble::Drop, Trouble::Broken, Trouble::Login, Trouble::BareNotModified, Trouble::Secondary] {
        let ask = || read(Command, 1, Repository, "no-cache");
        goes_right(&[read(Command, 1, Repository, ""), trouble(kind, 2), ask(), ask()]);
    }
}

#[test]
fn a_304_without_its_tag_confirms_nothing() {
    goes_right(&[
        read(Serve, 3, Repository, ""),
        trouble(Trouble::BareNotModified, 1),
        Behind { at: 0, change: Change::OpenIssue, deliver: true },
        read(Serve, 3, Repository, ""),
    ]);
}

#[test]
fn what_is_gone_is_not_what_a_candidate_confirms() {
    goes_right(&[
        Behind { at: 0, change: Change::Hide, deliver: true },
        read(Command, 0, Repository, ""),
        Behind { at: 0, change: Change::OpenIssue, deliver: false },
        Wait { secs: 90_000 },
        read(Serve, 2, Repository, ""),
        read(Command, 0, Repository, ""),
    ]);
}

#[test]
fn a_page_behind_one_that_was_asked_for_by_number_is_outdated_by_name() {
    let page = |page| {
        let what = Issues { all: false, page };
        Read { machine: 0, door: Command, who: 2, at: 2, by: run::By::Number, what, control: "" }
    };
    let write = |change| Write { machine: 0, at: 2, change };
    goes_right(&[page(1), write(Change::EditIssue(0)), page(1), write(Change::CloseIssue(1)), page(1), page(1)]);
}

#[test]
fn a_walk_by_a_command_is_one_moment() {
    let walk = |what| Walk { machine: 0, door: Command, who: 3, at: 1, what };
    let opened = Behind { at: 1, change: Change::OpenIssue, deliver: false };
    let issues = Issues { all: true, page: 1 };
    let first = Read { machine: 0, door: Command, who: 3, at: 1, by: Name, what: issues, control: "" };
    goes_right(&[first, opened, walk(issues)]);
}

#[test]
fn a_walk_shows_what_was_written_before_it() {
    let walk = |door| Walk { machine: 0, door, who: 0, at: 0, what: Issues { all: true, page: 1 } };
    for door in [Serve, Command] {
        goes_right(&[
            walk(door),
            Write { machine: 0, at: 0, change: Change::OpenIssue },
            walk(door),
            walk(Serve),
            walk(Command),
        ]);
    }
}
