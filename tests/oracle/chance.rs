//! Sequences made from one number, and the shortest of them that still goes wrong.
//!
//! Knows: how likely each thing is. Does not know: what is wrong.

use super::change::Change;
use super::model::Trouble;
use super::op::{By, Door, How, MACHINES, Op, What};
use super::run::{Wrong, run};
use super::truth::REPOSITORIES;

/// What a sequence is mostly about: things meet only where few are asked for.
#[derive(Debug, Clone, Copy)]
struct Topic {
    who: usize,
    at: usize,
    what: What,
}

/// A small, repeatable source of chance (`SplitMix64`).
pub struct Chance {
    state: u64,
    topics: Vec<Topic>,
    clocks_jump: bool,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
        let mut chance = Self { state, topics: Vec::new(), clocks_jump: seed % 4 == 2 };
        let at = chance.below(REPOSITORIES);
        chance.topics = (0..3).map(|_| Topic { who: chance.below(4), at, what: chance.what() }).collect();
        chance
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn change(&mut self) -> Change {
        let n = self.below(8);
        match self.below(44) {
            0 | 1 => Change::Describe,
            2 => Change::Rename,
            3 => Change::TakeOldName,
            4 => Change::Hide,
            5 | 6 => Change::Show,
            7..=12 => Change::OpenIssue,
            13..=18 => Change::EditIssue(n),
            19..=21 => Change::CloseIssue(n),
            22..=25 => Change::Comment(n),
            26..=28 => Change::EditComment(n),
            29 | 30 => Change::DropComment(n),
            31..=33 => Change::Release,
            34 | 35 => Change::Draft,
            36 | 37 => Change::Publish(n),
            38 | 39 => Change::DropRelease(n),
            40..=42 => Change::Alert,
            _ => Change::Dismiss(n),
        }
    }

    /// One of what the sequence is about, on any page, or anything.
    fn topic(&mut self) -> Topic {
        if self.topics.is_empty() || self.below(10) < 2 {
            return Topic { who: self.below(4), at: self.below(REPOSITORIES), what: self.what() };
        }
        let topics = self.topics.clone();
        let topic = self.one_of(&topics);
        let page = self.one_of(&[1, 1, 1, 2, 2, 3]);
        let what = match topic.what {
            What::Issues { all, .. } => What::Issues { all, page },
            What::Releases { .. } => What::Releases { page },
            other => other,
        };
        Topic { what, ..topic }
    }

    /// A change of what the sequence is about, or of anything.
    fn change_of(&mut self, what: What) -> Change {
        if self.below(3) == 0 {
            return self.change();
        }
        let n = self.below(8);
        match what {
            What::Repository | What::Statistics => {
                self.one_of(&[Change::Describe, Change::Describe, Change::Rename, Change::OpenIssue])
            }
            What::Issues { .. } | What::Search => {
                self.one_of(&[Change::OpenIssue, Change::CloseIssue(n), Change::EditIssue(n)])
            }
            What::Issue(n) | What::FullIssue(n) => {
                self.one_of(&[Change::EditIssue(n), Change::CloseIssue(n), Change::Comment(n)])
            }
            What::Comments(n) => {
                self.one_of(&[Change::Comment(n), Change::Comment(n), Change::EditComment(n), Change::DropComment(n)])
            }
            What::Alerts => self.one_of(&[Change::Alert, Change::Alert, Change::Dismiss(n)]),
            What::Releases { .. } | What::Latest => {
                self.one_of(&[Change::Release, Change::Draft, Change::Publish(n), Change::DropRelease(n)])
            }
        }
    }

    fn what(&mut self) -> What {
        let (n, page) = (self.below(8), 1 + self.below(3));
        match self.below(32) {
            0..=3 => What::Repository,
            4..=10 => What::Issues { all: self.below(2) == 0, page },
            11..=14 => What::Issue(n),
            15 => What::FullIssue(n),
            16..=19 => What::Comments(n),
            20..=24 => What::Releases { page },
            25 | 26 => What::Latest,
            27..=29 => What::Alerts,
            30 => What::Search,
            _ => What::Statistics,
        }
    }

    fn op(&mut self) -> Op {
        let machine = self.one_of(&[0, 0, 0, 1]);
        debug_assert!(machine < MACHINES);
        let Topic { who, at, what } = self.topic();
        let door = self.one_of(&[Door::Serve, Door::Serve, Door::Serve, Door::Command, Door::Command, Door::Plan]);
        match self.below(104) {
            0..=44 => Op::Read {
                machine,
                door,
                who,
                at,
                by: self.one_of(&[By::Name, By::Name, By::Name, By::OtherCase, By::OldName, By::Number]),
                what,
                how: match self.below(14) {
                    0..=8 => How::Plain,
                    9 => How::NoCache,
                    10 => How::MaxAge0,
                    11 => How::OnlyIfCached,
                    12 => How::Conditional,
                    _ => How::Head,
                },
            },
            45..=54 => {
                let what = match what {
                    What::Issues { all, .. } => What::Issues { all, page: 1 },
                    What::Comments(n) => What::Comments(n),
                    What::Alerts => What::Alerts,
                    _ => What::Releases { page: 1 },
                };
                Op::Walk { machine, door, who, at, what }
            }
            55..=58 => Op::Graphql { machine, who, at },
            59..=66 => Op::Write { machine, at, change: self.change_of(what) },
            67..=76 => Op::Behind { at, change: self.change_of(what), deliver: self.below(2) == 0 },
            77..=80 => Op::Deliver { which: self.below(8), lost: self.below(4) == 0 },
            81 => Op::Again,
            82..=89 => Op::Wait { secs: self.one_of(&[1, 3, 11, 61, 61, 301, 301, 1_801, 3_601, 90_000]) },
            90 => Op::Restart { machine },
            91 => Op::Kill { machine },
            92 => Op::Pack { machine, account: self.below(2) },
            93 => Op::Carry { from: self.below(MACHINES) },
            94 => Op::Warm { machine, who },
            95 if self.clocks_jump => Op::Jump { by: self.one_of(&[1, 20, 100, 4_000]) },
            95 => Op::Wait { secs: 61 },
            _ => Op::Trouble {
                kind: self.one_of(&[
                    Trouble::Drop,
                    Trouble::Broken,
                    Trouble::Login,
                    Trouble::Cut,
                    Trouble::BareNotModified,
                    Trouble::Secondary,
                    Trouble::LostAnswer,
                    Trouble::Limited,
                    Trouble::Aged,
                    Trouble::Deaf,
                    Trouble::Part,
                    Trouble::Part,
                    Trouble::NotReady,
                ]),
                times: 1 + self.below(2),
            },
        }
    }
}

fn is_question(op: &Op) -> bool {
    matches!(op, Op::Read { .. } | Op::Walk { .. } | Op::Graphql { .. })
}

/// The sequence of a number; in those of even numbers nothing goes wrong on the way, in some machines share by Redis, in
/// some clocks are set ahead.
pub fn sequence(seed: u64, length: usize) -> Vec<Op> {
    let mut chance = Chance::new(seed);
    let is_calm = seed.is_multiple_of(2);
    let mut ops: Vec<Op> = Vec::with_capacity(length);
    if matches!(seed % 8, 4 | 5) {
        ops.push(Op::Share);
    }
    while ops.len() < length {
        let op = chance.op();
        // What was asked lately is asked again, as people and their programs do.
        let asked: Vec<&Op> = ops.iter().rev().filter(|op| is_question(op)).take(5).collect();
        let again = is_question(&op) && !asked.is_empty() && chance.below(2) == 0;
        let op = if again { asked[chance.below(asked.len())].clone() } else { op };
        if !is_calm || !matches!(op, Op::Trouble { .. }) {
            ops.push(op);
        }
    }
    ops
}

/// A short part of a sequence that goes wrong as well, and how.
pub async fn shrunk(ops: &[Op], wrong: Wrong, redis: Option<&str>) -> (Vec<Op>, Wrong) {
    let (mut best, mut how) = (ops[..=wrong.at].to_vec(), wrong);
    let mut chunk = best.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut shorter) = (0, false);
        while at < best.len() {
            let tried: Vec<Op> = best
                .iter()
                .enumerate()
                .filter(|(n, _)| *n < at || *n >= at + chunk)
                .map(|(_, op)| op.clone())
                .collect();
            match run(&tried, redis).await {
                Err(wrong) => {
                    best = tried[..=wrong.at].to_vec();
                    (how, shorter) = (wrong, true);
                }
                Ok(_) => at += chunk,
            }
        }
        if chunk == 1 && !shorter {
            return (best, how);
        }
        chunk = (chunk / 2).max(1);
    }
}
