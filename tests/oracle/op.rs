//! What can happen.
//!
//! Knows: the words of a sequence. Does not know: how each is carried out.

use super::change::Change;
use super::model::Trouble;

pub const MACHINES: usize = 2;

pub const ACCOUNTS: &[&str] = &["alice", "bob"];

/// Two tokens for each account.
pub fn token(who: usize) -> String {
    format!("ghx_{}_{}", ACCOUNTS[who % ACCOUNTS.len()], who / ACCOUNTS.len())
}

/// Where an answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Serve,
    /// `api`.
    Command,
    /// `run`, with a plan of one query.
    Plan,
}

/// What a repository is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Name,
    OtherCase,
    OldName,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Repository,
    Issues {
        all: bool,
        page: usize,
    },
    Issue(usize),
    /// The same with another `Accept`.
    FullIssue(usize),
    Comments(usize),
    Releases {
        page: usize,
    },
    Latest,
    /// A listing with cursors.
    Alerts,
    Search,
    /// Computed on demand: 202 at times.
    Statistics,
}

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Plain,
    NoCache,
    MaxAge0,
    OnlyIfCached,
    /// With the entity tag of the client's own copy.
    Conditional,
    Head,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Read {
        machine: usize,
        door: Door,
        who: usize,
        at: usize,
        by: By,
        what: What,
        how: How,
    },
    Walk {
        machine: usize,
        door: Door,
        who: usize,
        at: usize,
        what: What,
    },
    Graphql {
        machine: usize,
        who: usize,
        at: usize,
    },
    /// A tick of `warm` over what is there.
    Warm {
        machine: usize,
        who: usize,
    },
    /// A change by a client of a machine.
    Write {
        machine: usize,
        at: usize,
        change: Change,
    },
    /// A change that nobody here makes; `deliver`: its event comes at once, or waits.
    Behind {
        at: usize,
        change: Change,
        deliver: bool,
    },
    /// An event that waits comes to every machine, or never.
    Deliver {
        which: usize,
        lost: bool,
    },
    /// One that has come comes again.
    Again,
    Wait {
        secs: u64,
    },
    /// The clocks of all machines are set ahead by so many seconds, away from GitHub's.
    Jump {
        by: i64,
    },
    Restart {
        machine: usize,
    },
    Kill {
        machine: usize,
    },
    Pack {
        machine: usize,
        account: usize,
    },
    Carry {
        from: usize,
    },
    /// From here on the machines share by Redis.
    Share,
    Trouble {
        kind: Trouble,
        times: usize,
    },
}
