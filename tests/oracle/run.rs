//! Carries a sequence out.
//!
//! Knows: what each machine has been told. Does not know: what an answer may be.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Method;
use octocache::clock::{Clock, Timestamp};
use octocache::policy::TtlTable;

use super::change::{Change, Told};
use super::machine::{Machine, Seen};
use super::model::{Model, ModelWire};
use super::op::{ACCOUNTS, By, Door, MACHINES, Op, What, token};
use super::shared;

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
pub(super) struct Run {
    /// The right time.
    pub clock: Clock,
    pub wire: ModelWire,
    pub machines: Vec<Machine>,
    /// How far the machines' clocks are ahead, in seconds, and how far they have been.
    ahead: i64,
    pub skews: BTreeSet<i64>,
    /// Changes that each machine's server, and its commands, know of.
    pub by_server: Vec<BTreeSet<usize>>,
    pub by_commands: Vec<BTreeSet<usize>>,
    /// Changes that the last saved bundle of a machine knows of.
    packed: Vec<BTreeSet<usize>>,
    /// The address of Redis, if there is one; whether the machines share by it, and the changes that it knows of.
    redis: Option<String>,
    is_shared: bool,
    by_redis: BTreeSet<usize>,
    pending: Vec<Pending>,
    delivered: Vec<Pending>,
    /// What clients keep, by account, token and target.
    pub held: HashMap<(usize, String, bool), Seen>,
    /// Whether something may fail that was asked for rightly.
    pub troubled: bool,
    pub ttls: TtlTable,
    deliveries: usize,
}

/// What a read is, in GitHub's words.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub account: String,
    pub full: bool,
    pub path: String,
    pub query: String,
}

impl Asked {
    pub fn target(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.path, self.query)
    }

    /// The same for another address, as `Link` and `Location` give it.
    pub fn at(&self, target: &str) -> Self {
        let local = target.split_once("://").map_or(target, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
        let local = local.strip_prefix("{base}").unwrap_or(local);
        let (path, query) = local.split_once('?').unwrap_or((local, ""));
        Self { path: path.to_owned(), query: query.to_owned(), ..self.clone() }
    }

    pub fn accept(&self) -> &'static str {
        if self.full { "application/vnd.github.full+json" } else { "application/vnd.github+json" }
    }
}

/// Runs a sequence; requests that were sent to GitHub. Without `redis` nothing is shared.
pub async fn run(ops: &[Op], redis: Option<&str>) -> Result<u64, Wrong> {
    let start = Timestamp::from_secs(1_800_000_000);
    let clock = Clock::manual(start);
    let wire = ModelWire(Arc::new(Mutex::new(Model::new(clock.clone()))));
    let machines = (0..MACHINES).map(|_| Machine::new(Arc::new(wire.clone()), Clock::manual(start))).collect();
    let mut run = Run {
        clock,
        wire,
        machines,
        ahead: 0,
        skews: BTreeSet::from([0]),
        by_server: vec![BTreeSet::new(); MACHINES],
        by_commands: vec![BTreeSet::new(); MACHINES],
        packed: vec![BTreeSet::new(); MACHINES],
        redis: redis.map(str::to_owned),
        is_shared: false,
        by_redis: BTreeSet::new(),
        pending: Vec::new(),
        delivered: Vec::new(),
        held: HashMap::new(),
        troubled: false,
        ttls: TtlTable::default(),
        deliveries: 0,
    };
    let mut result = Ok(());
    for (at, op) in ops.iter().enumerate() {
        run.pass(200);
        if let Err(text) = run.step(op).await {
            result = Err(Wrong { at, text });
            break;
        }
        for machine in &run.machines {
            machine.shared().await;
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
            Op::Read { machine, door, who, at, by, what, how } => {
                let asked = self.asked(who, at, by, what);
                self.read(machine, door, who, &asked, how).await?;
            }
            Op::Walk { machine, door, who, at, what } => {
                let asked = self.asked(who, at, By::Name, what);
                self.walk(machine, door, who, &asked).await?;
            }
            Op::Graphql { machine, who, at } => self.graphql(machine, who, at).await?,
            Op::Warm { machine, who } => {
                self.hear(machine);
                let plan = "version: 1\nqueries:\n  q: { get: /repos/acme/r0, via: rest }\n";
                self.machines[machine].warm(&token(who), plan).await;
                self.note_troubles();
            }
            Op::Write { machine, at, change } => self.write(machine, at, change).await,
            Op::Behind { at, change, deliver } => {
                let told = self.wire.model().apply(at, change);
                if let Some(told) = told {
                    let version = self.wire.model().version();
                    self.is_pending(version, told);
                    if deliver {
                        self.deliver(self.pending.len() - 1).await;
                    }
                }
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
            }
            Op::Again => {
                if let Some(Pending { id, told, .. }) = self.delivered.last() {
                    let payload = told.payload.to_string();
                    for machine in &mut self.machines {
                        machine.deliver(id, told.event, payload.as_bytes()).await;
                    }
                }
            }
            Op::Wait { secs } => self.pass(i64::try_from(secs).unwrap() * 1_000),
            Op::Jump { by } => self.set_clocks(by),
            Op::Restart { machine } => {
                self.machines[machine].end().await;
                self.learn_from_disk(machine);
            }
            Op::Kill { machine } => {
                self.machines[machine].kill().await;
                self.learn_from_disk(machine);
            }
            Op::Pack { machine, account } => {
                self.machines[machine].pack(ACCOUNTS[account % ACCOUNTS.len()]).await;
                self.learn_from_disk(machine);
                self.packed[machine].clone_from(&self.by_commands[machine]);
            }
            Op::Carry { from } => self.carry(from).await,
            Op::Share => self.share().await,
            Op::Trouble { kind, times } => {
                self.wire.model().troubles.extend(std::iter::repeat_n(kind, times));
            }
        }
        Ok(())
    }

    /// Time passes everywhere.
    fn pass(&self, millis: i64) {
        self.clock.advance_millis(millis);
        self.machines.iter().for_each(|machine| machine.clock.advance_millis(millis));
    }

    fn set_clocks(&mut self, by: i64) {
        self.machines.iter().for_each(|machine| machine.clock.advance_millis(by * 1_000));
        self.ahead += by;
        self.skews.insert(self.ahead);
    }

    async fn share(&mut self) {
        let Some(url) = self.redis.clone().filter(|_| !self.is_shared) else { return };
        shared::clear(&url).await;
        self.is_shared = true;
        for machine in &mut self.machines {
            machine.end().await;
            machine.share(&url);
        }
    }

    /// Another machine that has nothing yet takes the bundle of this one.
    async fn carry(&mut self, from: usize) {
        let to = (from + 1) % MACHINES;
        let clock = self.machines[to].clock.clone();
        let mut fresh = Machine::new(Arc::new(self.wire.clone()), clock);
        if let Some(url) = self.redis.as_ref().filter(|_| self.is_shared) {
            fresh.share(url);
        }
        let mut before = std::mem::replace(&mut self.machines[to], fresh);
        before.end().await;
        let [one, other] = self.machines.as_mut_slice() else { return };
        let (from_machine, to_machine) = if from == 0 { (one, other) } else { (other, one) };
        let known = if to_machine.restore(from_machine) { self.packed[from].clone() } else { BTreeSet::new() };
        self.by_server[to].clone_from(&known);
        self.by_commands[to] = known;
    }

    /// A server that begins knows what the disk knows, and commands what the server wrote.
    fn learn_from_disk(&mut self, machine: usize) {
        let commands = self.by_commands[machine].clone();
        self.by_server[machine].extend(commands);
    }

    /// A command that begins hears of what others have outdated.
    pub(super) fn hear(&mut self, machine: usize) {
        self.by_commands[machine].extend(&self.by_redis);
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
        let paged = |page: usize| if page > 1 { format!("page={page}&per_page=2") } else { "per_page=2".to_owned() };
        let (below, query) = match what {
            What::Repository => (String::new(), String::new()),
            What::Issues { all, page } => {
                let state = if all { "&state=all" } else { "" };
                ("/issues".to_owned(), format!("{}{state}", paged(page)))
            }
            What::Issue(n) | What::FullIssue(n) => (format!("/issues/{}", number(n)), String::new()),
            What::Comments(n) => (format!("/issues/{}/comments", number(n)), paged(1)),
            What::Releases { page } => ("/releases".to_owned(), paged(page)),
            What::Latest => ("/releases/latest".to_owned(), String::new()),
            What::Alerts => ("/dependabot/alerts".to_owned(), paged(1)),
            What::Statistics => ("/stats/participation".to_owned(), String::new()),
            What::Search => (String::new(), format!("q=repo:{}+is:issue", repository.name)),
        };
        let path = if what == What::Search { "/search/issues".to_owned() } else { format!("{root}{below}") };
        let account = ACCOUNTS[who % ACCOUNTS.len()].to_owned();
        Asked { account, full: matches!(what, What::FullIssue(_)), path, query }
    }

    fn is_pending(&mut self, version: usize, told: Told) {
        self.deliveries += 1;
        self.pending.push(Pending { id: format!("d{}", self.deliveries), version, told });
    }

    async fn deliver(&mut self, which: usize) {
        let Pending { id, version, told } = self.pending.remove(which);
        let payload = told.payload.to_string();
        for at in 0..MACHINES {
            self.machines[at].deliver(&id, told.event, payload.as_bytes()).await;
            self.by_server[at].insert(version);
            self.by_commands[at].insert(version);
        }
        if self.is_shared {
            self.by_redis.insert(version);
        }
        self.delivered.push(Pending { id, version, told });
    }

    async fn write(&mut self, machine: usize, at: usize, change: Change) {
        // How GitHub would be asked for it.
        let Some(told) = (*self.wire.model().truth()).clone().apply(at, change) else { return };
        // Some things only GitHub does.
        if told.method.is_empty() {
            return;
        }
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
        let version = model.version();
        drop(model);
        if version > before {
            self.by_server[machine].insert(version);
            self.by_commands[machine].insert(version);
            if self.is_shared {
                self.by_redis.insert(version);
            }
            self.is_pending(version, told);
        }
    }

    /// Whether something has gone wrong: it explains failures and stale answers from then on, since breakers let go by
    /// another clock than the one that stands still here. Sequences without any trouble show what has no excuse.
    pub(super) fn note_troubles(&mut self) -> bool {
        self.troubled |= self.wire.model().troubled > 0;
        self.troubled
    }

    pub(super) fn known(&self, machine: usize, door: Door) -> &BTreeSet<usize> {
        match door {
            Door::Serve => &self.by_server[machine],
            Door::Command | Door::Plan => &self.by_commands[machine],
        }
    }
}
