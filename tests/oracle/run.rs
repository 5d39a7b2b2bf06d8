//! Sequences of what happens, and the judge of each answer.
//!
//! Knows: what an answer may be. Does not know: how it came about.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Method;
use octocache::cache::Ask;
use octocache::clock::{Clock, Timestamp};
use octocache::outcome::Outcome;
use octocache::policy::TtlTable;
use serde_json::{Value, json};

use super::machine::{Machine, Seen};
use super::model::{Model, ModelWire, Trouble};
use super::truth::{Change, Rendered, Told};

pub const MACHINES: usize = 2;

/// Where an answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Serve,
    Command,
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
    Issues { all: bool, page: usize },
    Issue(usize),
    Comments(usize),
    Releases { page: usize },
    Latest,
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
        control: &'static str,
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
    Trouble {
        kind: Trouble,
        times: usize,
    },
}

const ACCOUNTS: &[&str] = &["alice", "bob"];

fn token(who: usize) -> String {
    format!("ghx_{}_{}", ACCOUNTS[who % ACCOUNTS.len()], who / ACCOUNTS.len())
}

/// A fault: what happened, and what was wrong with it.
#[derive(Debug, Clone)]
pub struct Wrong {
    pub at: usize,
    pub text: String,
}

struct Pending {
    id: String,
    version: usize,
    told: Told,
}

/// One run of a sequence.
struct Run {
    clock: Clock,
    wire: ModelWire,
    machines: Vec<Machine>,
    /// Changes that each machine's server, and its commands, know of.
    by_server: Vec<BTreeSet<usize>>,
    by_commands: Vec<BTreeSet<usize>>,
    /// Changes that the last saved bundle of a machine knows of.
    packed: Vec<BTreeSet<usize>>,
    pending: Vec<Pending>,
    delivered: Vec<Pending>,
    /// Whether something may fail that was asked for rightly.
    troubled: bool,
    ttls: TtlTable,
    deliveries: usize,
}

/// What a read is, in GitHub's words.
struct Asked {
    account: String,
    path: String,
    query: String,
}

impl Asked {
    fn target(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.path, self.query)
    }
}

pub async fn run(ops: &[Op]) -> Result<u64, Wrong> {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let wire = ModelWire(Arc::new(Mutex::new(Model::new(clock.clone()))));
    let machines = (0..MACHINES).map(|_| Machine::new(wire.clone(), clock.clone())).collect();
    let mut run = Run {
        clock: clock.clone(),
        wire,
        machines,
        by_server: vec![BTreeSet::new(); MACHINES],
        by_commands: vec![BTreeSet::new(); MACHINES],
        packed: vec![BTreeSet::new(); MACHINES],
        pending: Vec::new(),
        delivered: Vec::new(),
        troubled: false,
        ttls: TtlTable::default(),
        deliveries: 0,
    };
    let mut result = Ok(());
    for (at, op) in ops.iter().enumerate() {
        clock.advance_millis(200);
        if let Err(text) = run.step(op).await {
            result = Err(Wrong { at, text });
            break;
        }
    }
    let requests = run.wire.model().requests;
    for machine in &mut run.machines {
        machine.end().await;
    }
    result.map(|()| requests)
}

impl Run {
    async fn step(&mut self, op: &Op) -> Result<(), String> {
        match *op {
            Op::Read { machine, door, who, at, by, what, control } => {
                let asked = self.asked(who, at, by, what);
                self.read(machine, door, who, &asked, control).await
            }
            Op::Walk { machine, door, who, at, what } => {
                let asked = self.asked(who, at, By::Name, what);
                self.walk(machine, door, who, &asked).await
            }
            Op::Graphql { machine, who, at } => self.graphql(machine, who, at).await,
            Op::Write { machine, at, change } => self.write(machine, at, change).await,
            Op::Behind { at, change, deliver } => {
                let told = self.wire.model().apply(at, change);
                if let Some(told) = told {
                    let version = self.wire.model().version();
                    self.deliveries += 1;
                    self.pending.push(Pending { id: format!("d{}", self.deliveries), version, told });
                    if deliver {
                        let last = self.pending.len() - 1;
                        self.deliver(last).await;
                    }
                }
                Ok(())
            }
            Op::Deliver { which, lost } => {
                if !self.pending.is_empty() {
                    let which = which % self.pending.len();
                    if lost {
                        self.pending.remove(which);
                    } else {
                        self.deliver(which).await;
                    }
                }
                Ok(())
            }
            Op::Again => {
                if let Some(Pending { id, told, .. }) = self.delivered.last() {
                    let payload = told.payload.to_string();
                    for machine in &mut self.machines {
                        machine.deliver(id, told.event, payload.as_bytes()).await;
                    }
                }
                Ok(())
            }
            Op::Wait { secs } => {
                self.clock.advance(secs);
                Ok(())
            }
            Op::Restart { machine } => {
                self.machines[machine].end().await;
                self.learn_from_disk(machine);
                Ok(())
            }
            Op::Kill { machine } => {
                self.machines[machine].kill().await;
                self.learn_from_disk(machine);
                Ok(())
            }
            Op::Pack { machine, account } => {
                self.machines[machine].pack(ACCOUNTS[account % ACCOUNTS.len()]).await;
                self.learn_from_disk(machine);
                self.packed[machine].clone_from(&self.by_commands[machine]);
                Ok(())
            }
            Op::Carry { from } => {
                let to = (from + 1) % MACHINES;
                let fresh = Machine::new(self.wire.clone(), self.clock.clone());
                let mut before = std::mem::replace(&mut self.machines[to], fresh);
                before.end().await;
                let [one, other] = self.machines.as_mut_slice() else { return Ok(()) };
                let (from_machine, to_machine) = if from == 0 { (one, other) } else { (other, one) };
                let known = if to_machine.restore(from_machine) { self.packed[from].clone() } else { BTreeSet::new() };
                self.by_server[to].clone_from(&known);
                self.by_commands[to] = known;
                Ok(())
            }
            Op::Trouble { kind, times } => {
                self.wire.model().troubles.extend(std::iter::repeat_n(kind, times));
                Ok(())
            }
        }
    }

    /// A server that begins knows what the disk knows, and commands what the server wrote.
    fn learn_from_disk(&mut self, machine: usize) {
        let commands = self.by_commands[machine].clone();
        self.by_server[machine].extend(commands);
    }

    fn asked(&self, who: usize, at: usize, by: By, what: What) -> Asked {
        let truth = self.wire.model().truth();
        let repository = &truth.repositories[at];
        let root = match by {
            By::Name => format!("/repos/{}", repository.name),
            By::OtherCase => format!("/repos/{}", repository.name.to_uppercase()),
            By::OldName => format!("/repos/{}", repository.old.first().unwrap_or(&repository.name)),
            By::Number => format!("/repositories/{}", repository.id),
        };
        let number =
            |n: usize| repository.issues.get(n % repository.issues.len().max(1)).map_or(1, |issue| issue.number);
        let (below, query) = match what {
            What::Repository => (String::new(), String::new()),
            What::Issues { all, page } => {
                let state = if all { "&state=all" } else { "" };
                let page = if page > 1 { format!("page={page}&") } else { String::new() };
                ("/issues".to_owned(), format!("{page}per_page=2{state}"))
            }
            What::Issue(n) => (format!("/issues/{}", number(n)), String::new()),
            What::Comments(n) => (format!("/issues/{}/comments", number(n)), "per_page=2".to_owned()),
            What::Releases { page } => {
                let page = if page > 1 { format!("page={page}&") } else { String::new() };
                ("/releases".to_owned(), format!("{page}per_page=2"))
            }
            What::Latest => ("/releases/latest".to_owned(), String::new()),
        };
        Asked { account: ACCOUNTS[who % ACCOUNTS.len()].to_owned(), path: format!("{root}{below}"), query }
    }

    async fn deliver(&mut self, which: usize) {
        let Pending { id, version, told } = self.pending.remove(which);
        let payload = told.payload.to_string();
        for at in 0..MACHINES {
            self.machines[at].deliver(&id, told.event, payload.as_bytes()).await;
            self.by_server[at].insert(version);
            self.by_commands[at].insert(version);
        }
        self.delivered.push(Pending { id, version, told });
    }

    async fn write(&mut self, machine: usize, at: usize, change: Change) -> Result<(), String> {
        // How GitHub would be asked for it.
        let Some(told) = (*self.wire.model().truth()).clone().apply(at, change) else { return Ok(()) };
        let before = {
            let mut model = self.wire.model();
            model.expected = Some((at, change));
            model.version()
        };
        let method = Method::from_bytes(told.method.as_bytes()).unwrap();
        let body = Bytes::from(told.body.to_string());
        self.machines[machine].ask(method, &told.path, Some(&token(0)), &[], body).await;
        self.note_troubles();
        let mut model = self.wire.model();
        model.expected = None;
        if model.version() > before {
            let version = model.version();
            drop(model);
            self.by_server[machine].insert(version);
            self.by_commands[machine].insert(version);
            self.deliveries += 1;
            self.pending.push(Pending { id: format!("d{}", self.deliveries), version, told });
        }
        Ok(())
    }

    /// Whether something has gone wrong: it explains failures and stale answers from then on, since breakers let go by
    /// another clock than the one that stands still here. Sequences without any trouble show what has no excuse.
    fn note_troubles(&mut self) -> bool {
        self.troubled |= self.wire.model().troubled > 0;
        self.troubled
    }

    fn known(&self, machine: usize, door: Door) -> &BTreeSet<usize> {
        match door {
            Door::Serve => &self.by_server[machine],
            Door::Command => &self.by_commands[machine],
        }
    }

    /// The oldest version that an answer may show, as far as changes are known that touched it.
    fn floor(&self, machine: usize, door: Door, shown: impl Fn(usize) -> Vec<u8>) -> usize {
        let known = self.known(machine, door).iter().rev();
        known.copied().find(|version| shown(*version) != shown(version - 1)).unwrap_or(0)
    }

    /// The versions that were current at `since` or later.
    fn current_since(&self, since: Timestamp) -> std::ops::RangeInclusive<usize> {
        let model = self.wire.model();
        let first = (0..=model.version())
            .find(|version| model.history.get(version + 1).is_none_or(|(ended, _)| *ended >= since));
        first.unwrap_or_else(|| model.version())..=model.version()
    }

    fn rendered(&self, version: usize, asked: &Asked) -> Rendered {
        let truth = self.wire.model().history[version].1.clone();
        truth.get(&asked.account, &asked.path, &asked.query)
    }

    fn since(&self, asked: &Asked, stale: bool, strict: bool) -> Timestamp {
        let lifetime = self.ttls.lifetime(&asked.path, &asked.query, None, None);
        let secs = if strict { 0 } else { lifetime.fresh_secs } + if stale { lifetime.stale_secs } else { 0 };
        self.clock.now().minus(secs + 1)
    }

    async fn read(
        &mut self,
        machine: usize,
        door: Door,
        who: usize,
        asked: &Asked,
        control: &str,
    ) -> Result<(), String> {
        let before = self.wire.model().requests;
        let (seen, stale, hit) = match door {
            Door::Serve => {
                let headers: Vec<(&str, &str)> =
                    [("cache-control", control)].into_iter().filter(|(_, value)| !value.is_empty()).collect();
                let seen = self.machines[machine]
                    .ask(Method::GET, &asked.target(), Some(&token(who)), &headers, Bytes::new())
                    .await;
                let status = seen.header("cache-status");
                let (stale, hit) = (is_stale(&seen), status.contains("; hit"));
                (seen, stale, hit)
            }
            Door::Command => {
                let ask = Ask { unfollowed: true, ..Ask::default() };
                let ask = if control == "no-cache" { ask.mode(octocache::policy::Mode::NoCache) } else { ask };
                match self.machines[machine].read(&token(who), &asked.target(), &ask).await {
                    Ok(answer) => {
                        let spent = self.wire.model().requests - before;
                        if u64::from(answer.requests) != spent {
                            return Err(format!(
                                "{} says {} requests, and {spent} were sent",
                                asked.target(),
                                answer.requests
                            ));
                        }
                        let headers = answer.entry.headers.to_http();
                        let (stale, hit) =
                            (matches!(answer.outcome, Outcome::Stale(_)), matches!(answer.outcome, Outcome::Hit(_)));
                        let mut headers = headers;
                        let how = format!("{:?}, {:?}, aged {}", answer.outcome, answer.tier, answer.age_secs);
                        headers.insert("cache-status", how.parse().unwrap());
                        (Seen { status: answer.entry.status, headers, body: answer.entry.body.clone() }, stale, hit)
                    }
                    Err(error) => {
                        return if self.note_troubles() {
                            Ok(())
                        } else {
                            Err(format!("{} fails: {error}", asked.target()))
                        };
                    }
                }
            }
        };
        let troubled = self.note_troubles();
        if hit && !stale && self.wire.model().requests != before {
            return Err(format!("{} is a hit, and something was sent", asked.target()));
        }
        self.judge(machine, door, asked, &seen, stale, troubled, control == "no-cache")
    }

    #[allow(clippy::too_many_arguments, reason = "each is a fact about the answer")]
    fn judge(
        &self,
        machine: usize,
        door: Door,
        asked: &Asked,
        seen: &Seen,
        stale: bool,
        troubled: bool,
        strict: bool,
    ) -> Result<(), String> {
        if stale && !troubled {
            return Err(format!("{} is stale without a reason: {:?}", asked.target(), seen.headers));
        }
        if matches!(seen.status, 403 | 429 | 500..) {
            return if troubled { Ok(()) } else { Err(format!("{} is answered {}", asked.target(), seen.status)) };
        }
        let allowed = self.current_since(self.since(asked, stale, strict && !stale));
        let bytes = |version: usize| {
            let rendered = self.rendered(version, asked);
            [rendered.status.to_string().as_bytes(), &rendered.body].concat()
        };
        let links = |version: usize| self.rendered(version, asked).link.unwrap_or_default().into_bytes();
        let floor = |shown: &dyn Fn(usize) -> Vec<u8>| if stale { 0 } else { self.floor(machine, door, shown) };
        let got = [seen.status.to_string().as_bytes(), &seen.body].concat();
        let lowest = floor(&bytes).max(*allowed.start());
        if !(lowest..=*allowed.end()).any(|version| bytes(version) == got) {
            let version = (0..=*allowed.end()).rev().find(|version| bytes(*version) == got);
            let now = String::from_utf8(bytes(*allowed.end())).unwrap_or_default();
            return Err(format!(
                "{} for {} at {door:?} {machine} ({}) shows {} (version {version:?}), which must be {lowest} or later of {}; now {now}",
                asked.target(),
                asked.account,
                seen.header("cache-status"),
                String::from_utf8_lossy(&got),
                allowed.end(),
            ));
        }
        // What leads back from an empty page is as old as its body: GitHub's 304 says nothing of it, either.
        if seen.status != 200 || &seen.body[..] == b"[]" {
            return Ok(());
        }
        let got = local(seen.header("link"));
        // One that a walk has added leads on, and does not say how far.
        if got.iter().any(|(rel, _)| rel == "next") && !got.iter().any(|(rel, _)| rel == "last") {
            return Ok(());
        }
        let lowest = floor(&links).max(*allowed.start());
        if !(lowest..=*allowed.end()).any(|version| local(&String::from_utf8_lossy(&links(version))) == got) {
            return Err(format!(
                "{} at {door:?} {machine} ({}) has Link {got:?}, which none since {lowest} has; now {:?}",
                asked.target(),
                seen.header("cache-status"),
                local(&String::from_utf8_lossy(&links(*allowed.end())))
            ));
        }
        Ok(())
    }

    async fn walk(&mut self, machine: usize, door: Door, who: usize, asked: &Asked) -> Result<(), String> {
        let (mut bodies, mut stale) = (Vec::new(), false);
        let failed = match door {
            Door::Serve => {
                let mut target = asked.target();
                loop {
                    let seen =
                        self.machines[machine].ask(Method::GET, &target, Some(&token(who)), &[], Bytes::new()).await;
                    stale |= is_stale(&seen);
                    // What is no longer there in the middle of a walk ends it, as it does at GitHub.
                    if matches!(seen.status, 301 | 404) && !bodies.is_empty() {
                        return Ok(());
                    }
                    if seen.status != 200 {
                        break (seen.status != 404 && seen.status != 301)
                            .then(|| format!("{target} is answered {}", seen.status));
                    }
                    bodies.push(seen.body.clone());
                    match local(seen.header("link")).into_iter().find(|(rel, _)| rel == "next") {
                        Some((_, next)) if bodies.len() < 50 => target = next,
                        _ => break None,
                    }
                }
            }
            Door::Command => match self.machines[machine].pages(&token(who), &asked.target()).await {
                Ok(pages) => {
                    stale = pages.iter().any(|page| matches!(page.outcome, Outcome::Stale(_)));
                    let pages = pages.into_iter().filter(|page| page.entry.status == 200);
                    bodies.extend(pages.map(|page| page.entry.body.clone()));
                    None
                }
                Err(error) => Some(format!("{} fails: {error}", asked.target())),
            },
        };
        let troubled = self.note_troubles();
        if let Some(failed) = failed {
            return if troubled { Ok(()) } else { Err(failed) };
        }
        if stale && !troubled {
            return Err(format!("a page of {} is stale without a reason", asked.target()));
        }
        let items = |bodies: &[Bytes]| {
            let lists = bodies.iter().map(|body| serde_json::from_slice::<Vec<Value>>(body).unwrap_or_default());
            lists.flatten().collect::<Vec<Value>>()
        };
        let pages = |version: usize| -> Vec<Vec<Value>> {
            let mut all = Vec::new();
            for number in 1..60 {
                let query = format!("{}&page={number}", asked.query);
                let page = Asked { account: asked.account.clone(), path: asked.path.clone(), query };
                let rendered = self.rendered(version, &page);
                if rendered.status != 200 {
                    break;
                }
                all.push(items(std::slice::from_ref(&rendered.body)));
                if rendered.link.is_none_or(|link| !link.contains("rel=\"next\"")) {
                    break;
                }
            }
            all
        };
        // A listing that is partly stale is one of several moments, and says so.
        if stale {
            return Ok(());
        }
        let allowed = self.current_since(self.since(asked, stale, false));
        let floor = self.floor(machine, door, |version| json!(pages(version)).to_string().into_bytes());
        let lowest = floor.max(*allowed.start());
        let got: Vec<Vec<Value>> = bodies.iter().map(|body| items(std::slice::from_ref(body))).collect();
        let versions: Vec<(usize, Vec<Vec<Value>>)> =
            (lowest..=*allowed.end()).map(|version| (version, pages(version))).collect();
        let is_right = match door {
            Door::Command => versions.iter().any(|(_, whole)| whole.concat() == got.concat()),
            // Who walks himself may have had the first pages from the store: those behind are no older, and the last one is
            // the last of its moment.
            Door::Serve => {
                let mut at_least = 0;
                let last = got.len().saturating_sub(1);
                got.iter().enumerate().all(|(number, page)| {
                    let fits = |whole: &Vec<Vec<Value>>| {
                        let is_last = whole.len() <= number + 1;
                        (whole.get(number) == Some(page) || (whole.len() <= number && page.is_empty()))
                            && (number < last || is_last)
                    };
                    let found = versions.iter().position(|(version, whole)| *version >= at_least && fits(whole));
                    found.inspect(|at| at_least = versions[*at].0).is_some()
                })
            }
        };
        if is_right || (got.is_empty() && versions.iter().any(|(_, whole)| whole.is_empty())) {
            return Ok(());
        }
        Err(format!(
            "a walk over {} for {} at {door:?} {machine} gives {}, which is no moment since {lowest}; now {}",
            asked.target(),
            asked.account,
            json!(got),
            json!(pages(*allowed.end())),
        ))
    }

    async fn graphql(&mut self, machine: usize, who: usize, at: usize) -> Result<(), String> {
        let name = self.wire.model().truth().repositories[at].name.clone();
        let (owner, name) = name.split_once('/').unwrap_or_default();
        let variables = json!({ "o": owner, "n": name });
        let query = "query Q($o: String!, $n: String!) { repository(owner: $o, name: $n) { description issue: issues(last: 1) { title } } }";
        let body = json!({ "query": query, "variables": variables }).to_string();
        let seen = self.machines[machine]
            .ask(Method::POST, "/graphql", Some(&token(who)), &[("content-type", "application/json")], body.into())
            .await;
        let (troubled, stale) = (self.note_troubles(), is_stale(&seen));
        if seen.status != 200 {
            return if troubled { Ok(()) } else { Err(format!("GraphQL is answered {}", seen.status)) };
        }
        if stale && !troubled {
            return Err("GraphQL is stale without a reason".to_owned());
        }
        let account = ACCOUNTS[who % ACCOUNTS.len()];
        let shown = |version: usize| {
            let truth = self.wire.model().history[version].1.clone();
            truth.graphql(account, &variables).to_string().into_bytes()
        };
        let lifetime = self.ttls.lifetime("/graphql", "", None, None);
        let secs = lifetime.fresh_secs.max(300) + if stale { lifetime.stale_secs.max(86_400) } else { 0 };
        let allowed = self.current_since(self.clock.now().minus(secs + 1));
        let lowest = if stale { 0 } else { self.floor(machine, Door::Serve, shown) }.max(*allowed.start());
        if (lowest..=*allowed.end()).any(|version| shown(version) == seen.body) {
            return Ok(());
        }
        Err(format!(
            "GraphQL for {account} at {machine} shows {:?}, which must be {lowest} or later of {}",
            seen.body,
            allowed.end()
        ))
    }
}

fn is_stale(seen: &Seen) -> bool {
    let status = seen.header("cache-status");
    status.contains("detail=stale")
}

/// Relations of a `Link`, with paths and queries alone, in order.
fn local(link: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = link
        .split('<')
        .skip(1)
        .filter_map(|rest| {
            let (target, params) = rest.split_once('>')?;
            let rel = params.split("rel=\"").nth(1)?.split('"').next()?;
            let path = target.split_once("://").map_or(target, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
            let path = path.strip_prefix("{base}").unwrap_or(path);
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let mut pairs: Vec<&str> = query.split('&').collect();
            pairs.sort_unstable();
            Some((rel.to_owned(), format!("{path}?{}", pairs.join("&"))))
        })
        .collect();
    found.sort();
    found
}
