//! An oracle: a simulation of GitHub that knows the truth, sequences of what happens, and a judge of each answer.
//!
//! `scripts/oracle` runs it for longer, and `scripts/oracle --prove` shows that it finds faults.

#[path = "../oracle/ask.rs"]
mod ask;
#[path = "../oracle/chance.rs"]
mod chance;
#[path = "../oracle/change.rs"]
mod change;
#[path = "../oracle/judge.rs"]
mod judge;
#[path = "../oracle/machine.rs"]
pub mod machine;
#[path = "../oracle/model.rs"]
mod model;
#[path = "../oracle/op.rs"]
mod op;
#[path = "../oracle/run.rs"]
mod run;
#[path = "../oracle/shared.rs"]
mod shared;
#[path = "../oracle/truth.rs"]
mod truth;

use std::sync::atomic::{AtomicU64, Ordering};

use change::Change;
use model::Trouble;
use op::By::Name;
use op::Door::{Command, Serve};
use op::How::{NoCache, Plain};
use op::Op::{self, Behind, Read, Wait, Walk, Write};
use op::What::{Issues, Latest, Repository};
use shared::RedisServer;

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
    let server = RedisServer::start();
    let worker = |number: usize| {
        let redis = server.as_ref().map(|server| server.url(number));
        let redis = redis.as_deref();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !go_on(seed - first) {
                return;
            }
            let ops = chance::sequence(seed, LENGTH);
            match runtime.block_on(run::run(&ops, redis)) {
                Ok(sent) => _ = requests.fetch_add(sent, Ordering::Relaxed),
                Err(wrong) => {
                    let (ops, wrong) = runtime.block_on(chance::shrunk(&ops, wrong, redis));
                    let steps: Vec<String> = ops.iter().map(|op| format!("    {op:?},")).collect();
                    panic!("seed {seed}: {}\n{}", wrong.text, steps.join("\n"));
                }
            }
        }
    };
    let worker = &worker;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || worker(number))).collect();
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
    let redis = if ops.contains(&Op::Share) { RedisServer::start() } else { None };
    let redis = redis.as_ref().map(|server| server.url(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Err(wrong) = runtime.block_on(run::run(ops, redis.as_deref())) {
        panic!("at {:?}: {}", ops[wrong.at], wrong.text);
    }
}

fn trouble(kind: Trouble, times: usize) -> Op {
    Op::Trouble { kind, times }
}

fn read(door: op::Door, who: usize, what: op::What, how: op::How) -> Op {
    Read { machine: 0, door, who, at: 0, by: Name, what, how }
}

#[test]
fn a_redirect_or_refusal_that_breaks_off_is_asked_for_again() {
    let moved = Read { machine: 0, door: Serve, who: 2, at: 0, by: op::By::OldName, what: Repository, how: Plain };
    goes_right(&[Behind { at: 0, change: Change::Rename, deliver: true }, trouble(Trouble::Cut, 2), moved]);
    goes_right(&[trouble(Trouble::Cut, 1), read(Command, 0, Latest, Plain), read(Command, 0, Latest, Plain)]);
}

#[test]
fn a_stale_answer_counts_what_was_sent_in_vain() {
    for kind in [Trouble::Drop, Trouble::Broken, Trouble::Login, Trouble::BareNotModified, Trouble::Secondary] {
        let ask = || read(Command, 1, Repository, NoCache);
        goes_right(&[read(Command, 1, Repository, Plain), trouble(kind, 2), ask(), ask()]);
    }
}

#[test]
fn a_304_without_its_tag_confirms_nothing() {
    goes_right(&[
        read(Serve, 3, Repository, Plain),
        trouble(Trouble::BareNotModified, 1),
        Behind { at: 0, change: Change::OpenIssue, deliver: true },
        read(Serve, 3, Repository, Plain),
    ]);
}

#[test]
fn what_is_gone_is_not_what_a_candidate_confirms() {
    goes_right(&[
        Behind { at: 0, change: Change::Hide, deliver: true },
        read(Command, 0, Repository, Plain),
        Behind { at: 0, change: Change::OpenIssue, deliver: false },
        Wait { secs: 90_000 },
        read(Serve, 2, Repository, Plain),
        read(Command, 0, Repository, Plain),
    ]);
}

#[test]
fn a_page_behind_one_that_was_asked_for_by_number_is_outdated_by_name() {
    let page = |page| {
        let what = Issues { all: false, page };
        Read { machine: 0, door: Command, who: 2, at: 2, by: op::By::Number, what, how: Plain }
    };
    let write = |change| Write { machine: 0, at: 2, change };
    goes_right(&[page(1), write(Change::EditIssue(0)), page(1), write(Change::CloseIssue(1)), page(1), page(1)]);
}

#[test]
fn a_walk_by_a_command_is_one_moment() {
    let walk = |what| Walk { machine: 0, door: Command, who: 3, at: 1, what };
    let opened = Behind { at: 1, change: Change::OpenIssue, deliver: false };
    let issues = Issues { all: true, page: 1 };
    let first = Read { machine: 0, door: Command, who: 3, at: 1, by: Name, what: issues, how: Plain };
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

#[test]
fn a_cache_in_the_middle_hides_no_change_that_is_known() {
    for kind in [Trouble::Aged, Trouble::Deaf] {
        for door in [Serve, Command, op::Door::Plan] {
            goes_right(&[
                Write { machine: 0, at: 0, change: Change::Describe },
                trouble(kind, 1),
                read(door, 0, Repository, Plain),
                read(door, 0, Repository, Plain),
            ]);
            goes_right(&[
                read(door, 0, Repository, Plain),
                Write { machine: 0, at: 0, change: Change::Describe },
                trouble(kind, 1),
                read(door, 0, Repository, op::How::Conditional),
            ]);
        }
    }
}

#[test]
fn json_of_another_representation_that_breaks_off_is_asked_for_again() {
    goes_right(&[trouble(Trouble::Cut, 1), read(Serve, 0, op::What::FullIssue(0), Plain)]);
    goes_right(&[trouble(Trouble::Login, 1), read(Command, 0, op::What::FullIssue(0), Plain)]);
}

#[test]
fn what_a_redirect_leads_to_is_no_hit_when_the_redirect_was_asked_for() {
    let by = |door, by| Read { machine: 0, door, who: 1, at: 0, by, what: op::What::Issue(2), how: Plain };
    goes_right(&[
        Write { machine: 0, at: 0, change: Change::Rename },
        by(Command, op::By::Number),
        by(op::Door::Plan, op::By::OldName),
    ]);
}

#[test]
fn a_change_reaches_the_names_that_another_process_has_learned() {
    let old =
        || Read { machine: 0, door: op::Door::Plan, who: 2, at: 1, by: op::By::OldName, what: Repository, how: Plain };
    let write = |change| Write { machine: 0, at: 1, change };
    goes_right(&[write(Change::Rename), old(), write(Change::CloseIssue(1)), old()]);
}

#[test]
fn a_304_to_a_client_takes_its_link_back() {
    let conditional = || read(Serve, 2, Issues { all: false, page: 1 }, op::How::Conditional);
    goes_right(&[conditional(), Write { machine: 0, at: 0, change: Change::CloseIssue(6) }, conditional()]);
}

#[test]
fn a_walk_finds_the_page_that_came_behind_a_body_confirmed_alone() {
    let comments = op::What::Comments(3);
    for door in [Command, op::Door::Plan] {
        goes_right(&[
            read(Command, 0, comments, Plain),
            Behind { at: 0, change: Change::Comment(3), deliver: true },
            read(op::Door::Plan, 0, comments, Plain),
            Walk { machine: 0, door, who: 0, at: 0, what: comments },
        ]);
    }
}

#[test]
fn a_listing_by_cursors_has_its_first_page_once() {
    let alert = |deliver| Behind { at: 0, change: Change::Alert, deliver };
    let walk = |door| Walk { machine: 0, door, who: 0, at: 0, what: op::What::Alerts };
    for door in [Serve, Command, op::Door::Plan] {
        goes_right(&[alert(true), alert(false), walk(door), Op::Deliver { which: 0, lost: false }, walk(door)]);
    }
}

#[test]
fn a_suspicion_does_not_hide_what_another_machine_has_changed() {
    goes_right(&[
        Op::Share,
        Behind { at: 0, change: Change::OpenIssue, deliver: true },
        read(Command, 1, Repository, Plain),
        Write { machine: 1, at: 0, change: Change::OpenIssue },
        read(Command, 1, Repository, Plain),
    ]);
}

#[test]
fn pages_of_different_moments_are_no_listing() {
    let comments = |how| read(Command, 2, op::What::Comments(1), how);
    goes_right(&[
        comments(Plain),
        Behind { at: 0, change: Change::Comment(1), deliver: true },
        Op::Warm { machine: 0, who: 2 },
        Write { machine: 1, at: 0, change: Change::DropComment(1) },
        comments(NoCache),
        Walk { machine: 0, door: Command, who: 2, at: 0, what: op::What::Comments(1) },
    ]);
}

#[test]
fn a_link_that_is_not_known_is_not_left_out_when_nothing_can_be_asked() {
    let issues = |door, who| read(door, who, Issues { all: false, page: 1 }, Plain);
    goes_right(&[issues(Serve, 2), issues(op::Door::Plan, 2), trouble(Trouble::Broken, 2), issues(Command, 2)]);
}

#[test]
fn a_link_whose_proof_fails_is_not_believed() {
    let comments = |door, who, how| read(door, who, op::What::Comments(2), how);
    goes_right(&[
        Write { machine: 0, at: 0, change: Change::Comment(2) },
        comments(Serve, 1, Plain),
        trouble(Trouble::Cut, 2),
        Behind { at: 0, change: Change::Comment(2), deliver: true },
        comments(Command, 3, NoCache),
    ]);
}

#[test]
fn what_an_old_name_leads_to_is_outdated_by_the_new_name() {
    let old = || Read {
        machine: 0,
        door: op::Door::Plan,
        who: 3,
        at: 1,
        by: op::By::OldName,
        what: Issues { all: true, page: 1 },
        how: Plain,
    };
    let write = |change| Write { machine: 0, at: 1, change };
    goes_right(&[write(Change::Rename), old(), write(Change::OpenIssue), old()]);
}

#[test]
fn a_part_of_a_page_proves_no_link() {
    let comments = || read(Serve, 0, op::What::Comments(2), Plain);
    goes_right(&[
        Write { machine: 0, at: 0, change: Change::Comment(2) },
        comments(),
        Wait { secs: 3_601 },
        Behind { at: 0, change: Change::Comment(2), deliver: true },
        trouble(Trouble::Part, 2),
        comments(),
    ]);
}

#[test]
fn a_link_is_no_older_than_what_may_be_stale() {
    let comments = |door, how| read(door, 1, op::What::Comments(0), how);
    goes_right(&[
        comments(Command, Plain),
        Write { machine: 0, at: 0, change: Change::Comment(0) },
        Wait { secs: 90_000 },
        comments(op::Door::Plan, Plain),
        trouble(Trouble::Limited, 1),
        comments(Command, NoCache),
    ]);
}

#[test]
fn a_walk_that_cannot_look_behind_is_not_taken_for_whole() {
    for kind in [Trouble::LostAnswer, Trouble::Drop, Trouble::Cut, Trouble::Broken] {
        for door in [Command, op::Door::Plan] {
            let walk = || Walk { machine: 0, door, who: 0, at: 0, what: op::What::Comments(0) };
            goes_right(&[
                walk(),
                Behind { at: 0, change: Change::Comment(0), deliver: true },
                trouble(Trouble::Cut, 1),
                trouble(kind, 1),
                walk(),
            ]);
        }
    }
}

#[test]
fn a_304_without_the_clients_tag_is_not_handed_on() {
    let conditional =
        |machine| Read { machine, door: Serve, who: 1, at: 0, by: Name, what: Repository, how: op::How::Conditional };
    goes_right(&[
        conditional(1),
        Write { machine: 0, at: 0, change: Change::Describe },
        trouble(Trouble::BareNotModified, 2),
        conditional(0),
    ]);
}

#[test]
fn a_page_whose_link_is_not_known_proves_that_it_is_there() {
    let issues =
        |door, who, by, page| Read { machine: 0, door, who, at: 0, by, what: Issues { all: true, page }, how: Plain };
    goes_right(&[
        issues(Serve, 3, op::By::Number, 1),
        issues(Command, 3, Name, 2),
        issues(op::Door::Plan, 2, Name, 2),
        issues(op::Door::Plan, 2, Name, 1),
        issues(Serve, 3, Name, 1),
    ]);
}

#[test]
fn a_page_confirmed_now_is_not_of_the_moment_of_one_from_the_store() {
    let open = || Behind { at: 1, change: Change::OpenIssue, deliver: false };
    let walk = |door| Walk { machine: 0, door, who: 2, at: 1, what: Issues { all: false, page: 1 } };
    let what = Issues { all: false, page: 1 };
    goes_right(&[
        open(),
        walk(op::Door::Plan),
        open(),
        Wait { secs: 1_801 },
        Read { machine: 0, door: Command, who: 2, at: 1, by: Name, what, how: Plain },
        Behind { at: 1, change: Change::CloseIssue(5), deliver: false },
        walk(Command),
    ]);
}
