//! Asks at each door, and holds what is said of the cost against what was sent.
//!
//! Knows: doors. Does not know: what an answer may be.

use bytes::Bytes;
use http::{HeaderMap, Method};
use octocache::cache::{Answer, Ask};
use octocache::outcome::{NoStore, Outcome};
use octocache::plan::report::QueryReport;
use serde_json::json;

use super::machine::Seen;
use super::op::{Door, How, token};
use super::run::{Asked, Run};

/// An answer, and what it says of itself.
#[derive(Debug)]
pub(super) struct Got {
    pub seen: Seen,
    pub stale: bool,
    pub hit: bool,
    /// It says that it is a part of the whole.
    pub part: bool,
    /// Whether something was sent for it, and whether a cache in the middle answered.
    pub sent: u64,
    pub aged: bool,
}

/// What was sent so far.
struct Ledger {
    requests: u64,
    charged: u64,
    troubled: u64,
    aged: u64,
}

pub(super) fn is_stale(seen: &Seen) -> bool {
    // Another cache's, too.
    seen.header("cache-status").contains("detail=stale")
}

fn is_stale_answer(answer: &Answer) -> bool {
    matches!(answer.outcome, Outcome::Stale(_) | Outcome::NotStored(NoStore::StaleElsewhere))
}

pub(super) fn is_part(seen: &Seen) -> bool {
    let body = &seen.body[..];
    let mark = b"\"incomplete_results\":true";
    seen.headers.contains_key("x-github-sso") || body.windows(mark.len()).any(|part| part == mark)
}

impl Run {
    fn ledger(&self) -> Ledger {
        let model = self.wire.model();
        Ledger { requests: model.requests, charged: model.charged, troubled: model.troubled, aged: model.aged }
    }

    /// What is said to have been sent must have been; what it costs, too, where nothing went wrong on the way.
    fn settle(&self, what: &str, before: &Ledger, requests: u64, charged: u64) -> Result<(), String> {
        let now = self.ledger();
        let sent = now.requests - before.requests;
        if requests != sent {
            return Err(format!("{what} says {requests} requests, and {sent} were sent"));
        }
        let counted = now.charged - before.charged;
        if now.troubled == before.troubled && charged != counted {
            return Err(format!("{what} says that {charged} requests count, and {counted} do"));
        }
        Ok(())
    }

    fn got(&self, before: &Ledger, seen: Seen, stale: bool, hit: bool, part: bool) -> Got {
        let now = self.ledger();
        Got { seen, stale, hit, part, sent: now.requests - before.requests, aged: now.aged > before.aged }
    }

    /// The answer to one question; `Err` in the inner place is a failure that the door has said.
    pub(super) async fn ask(
        &mut self,
        machine: usize,
        door: Door,
        who: usize,
        asked: &Asked,
        how: How,
    ) -> Result<Result<Got, String>, String> {
        match door {
            Door::Serve => Ok(Ok(self.ask_server(machine, who, asked, how).await)),
            Door::Command => self.ask_command(machine, who, asked, how).await,
            Door::Plan => {
                let (before, (got, report)) = (self.ledger(), self.ask_plan(machine, who, asked, false).await);
                self.settle(&asked.target(), &before, got.0, got.1)?;
                Ok(self.of_report(&before, &report.0, report.1, asked))
            }
        }
    }

    pub(super) async fn ask_server(&mut self, machine: usize, who: usize, asked: &Asked, how: How) -> Got {
        let (before, target, token) = (self.ledger(), asked.target(), token(who));
        let held = self.held.get(&(who, target.clone(), asked.full)).filter(|_| how == How::Conditional).cloned();
        let tag = held.as_ref().map(|held| held.header("etag").to_owned()).unwrap_or_default();
        let control = match how {
            How::NoCache => "no-cache",
            How::MaxAge0 => "max-age=0",
            How::OnlyIfCached => "only-if-cached",
            How::Plain | How::Conditional | How::Head => "",
        };
        let accept = if asked.full { asked.accept() } else { "" };
        let headers: Vec<(&str, &str)> =
            [("cache-control", control), ("if-none-match", tag.as_str()), ("accept", accept)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect();
        let method = if how == How::Head { Method::HEAD } else { Method::GET };
        let mut seen = self.machines[machine].ask(method, &target, Some(&token), &headers, Bytes::new()).await;
        if let Some(held) = held.filter(|_| seen.status == 304) {
            // As a client does (RFC 9111 section 4.3.4).
            seen.status = held.status;
            seen.body = held.body;
            for (name, value) in &held.headers {
                if !seen.headers.contains_key(name) {
                    seen.headers.insert(name, value.clone());
                }
            }
        }
        if seen.status == 200 && how != How::Head && !seen.header("etag").is_empty() {
            self.held.insert((who, target, asked.full), seen.clone());
        }
        let (stale, part) = (is_stale(&seen), is_part(&seen));
        let hit = seen.header("cache-status").contains("; hit");
        self.got(&before, seen, stale, hit, part)
    }

    async fn ask_command(
        &mut self,
        machine: usize,
        who: usize,
        asked: &Asked,
        how: How,
    ) -> Result<Result<Got, String>, String> {
        self.hear(machine);
        let ask = Ask { unfollowed: true, ..Ask::default() };
        let ask = match how {
            How::NoCache | How::MaxAge0 => ask.mode(octocache::policy::Mode::NoCache),
            How::OnlyIfCached => ask.mode(octocache::policy::Mode::OnlyIfFresh),
            How::Plain | How::Conditional | How::Head => ask,
        };
        let (before, target) = (self.ledger(), asked.target());
        match self.machines[machine].read(&token(who), &target, asked.accept(), &ask).await {
            Ok(answer) => {
                self.settle(&target, &before, answer.requests.into(), answer.charged.into())?;
                let (seen, stale, hit) = of_answer(&answer);
                let part = is_partial(&answer) || is_part(&seen);
                Ok(Ok(self.got(&before, seen, stale, hit, part)))
            }
            Err(error) => {
                self.settle(&target, &before, error.requests().into(), error.charged().into())?;
                Ok(Err(error.to_string()))
            }
        }
    }

    /// What a plan's one query gives: requests and those that count, the report and the file.
    #[allow(clippy::type_complexity, reason = "two pairs")]
    pub(super) async fn ask_plan(
        &mut self,
        machine: usize,
        who: usize,
        asked: &Asked,
        paginate: bool,
    ) -> ((u64, u64), (QueryReport, Option<Bytes>)) {
        self.hear(machine);
        let mut query = json!({ "get": asked.target(), "paginate": paginate, "via": "rest" });
        if asked.full {
            query["headers"] = json!({ "Accept": asked.accept() });
        }
        let plan = json!({ "version": 1, "queries": { "q": query } }).to_string();
        let (finished, file) = self.machines[machine].run(&token(who), &plan).await;
        let totals = &finished.index.totals;
        ((totals.requests.into(), totals.charged.into()), (finished.index.queries[0].clone(), file))
    }

    fn of_report(
        &self,
        before: &Ledger,
        report: &QueryReport,
        file: Option<Bytes>,
        asked: &Asked,
    ) -> Result<Got, String> {
        let mut headers = HeaderMap::new();
        let how = format!("{}, {:?}, aged {}", report.outcome, report.reason, report.age_secs);
        headers.insert("cache-status", how.parse().unwrap());
        let (status, body) = match (report.status, file) {
            (Some(status), Some(file)) => (status, file),
            // The body of a refusal is not written.
            (Some(404), None) => (404, self.rendered(0, &asked.at("/none")).body),
            _ => return Err(format!("{:?}", report.error)),
        };
        let part = report.reason.as_deref() == Some(NoStore::PartialResults.as_str());
        let seen = Seen { status, headers, body };
        let part = part || is_part(&seen);
        let stale = report.stale_reason.is_some() || report.reason.as_deref() == Some(NoStore::StaleElsewhere.as_str());
        Ok(self.got(before, seen, stale, report.outcome == "hit", part))
    }

    /// All pages by a command: bodies, whether one is stale, whether one says that it is a part.
    pub(super) async fn walk_command(
        &mut self,
        machine: usize,
        who: usize,
        asked: &Asked,
    ) -> Result<Result<(Vec<Bytes>, bool, bool), String>, String> {
        self.hear(machine);
        let (before, target) = (self.ledger(), asked.target());
        match self.machines[machine].pages(&token(who), &target).await {
            Ok(pages) => {
                let sum = |of: fn(&Answer) -> u32| pages.iter().map(|page| u64::from(of(page))).sum();
                self.settle(&target, &before, sum(|page| page.requests), sum(|page| page.charged))?;
                let stale = pages.iter().any(is_stale_answer);
                let part = pages.iter().any(is_partial);
                let pages = pages.into_iter().filter(|page| page.entry.status == 200);
                Ok(Ok((pages.map(|page| page.entry.body.clone()).collect(), stale, part)))
            }
            Err(error) => Ok(Err(format!("{target} fails: {error}"))),
        }
    }

    /// The same by a plan: one body.
    pub(super) async fn walk_plan(
        &mut self,
        machine: usize,
        who: usize,
        asked: &Asked,
    ) -> Result<Result<(Vec<Bytes>, bool, bool), String>, String> {
        let (before, (sums, (report, file))) = (self.ledger(), self.ask_plan(machine, who, asked, true).await);
        self.settle(&asked.target(), &before, sums.0, sums.1)?;
        Ok(self
            .of_report(&before, &report, file, asked)
            .map(|got| (if got.seen.status == 200 { vec![got.seen.body] } else { Vec::new() }, got.stale, got.part)))
    }
}

fn is_partial(answer: &Answer) -> bool {
    answer.outcome == Outcome::NotStored(NoStore::PartialResults)
}

fn of_answer(answer: &Answer) -> (Seen, bool, bool) {
    let mut headers = answer.entry.headers.to_http();
    let how = format!("{:?}, {:?}, aged {}", answer.outcome, answer.tier, answer.age_secs);
    headers.insert("cache-status", how.parse().unwrap());
    let (stale, hit) = (is_stale_answer(answer), matches!(answer.outcome, Outcome::Hit(_)));
    (Seen { status: answer.entry.status, headers, body: answer.entry.body.clone() }, stale, hit)
}
