//! The judge of each answer.
//!
//! Knows: what an answer may be. Does not know: how it came about.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::ask::{Got, is_stale};
use super::model::AGED;
use super::op::{ACCOUNTS, Door, How, token};
use super::run::{Asked, Run};
use super::truth::Rendered;

/// How far another clock may be ahead of a machine's before its times are not believed, in seconds.
const SKEW: i64 = 60;

impl Run {
    pub(super) fn rendered(&self, version: usize, asked: &Asked) -> Rendered {
        let truth = self.wire.model().history[version].1.clone();
        truth.get(&asked.account, asked.full, &asked.path, &asked.query)
    }

    /// The same for who follows redirects, with the redirects of another moment.
    fn followed(&self, redirects: usize, version: usize, asked: &Asked) -> Rendered {
        match self.rendered(redirects, asked).location {
            Some(location) => self.rendered(version, &asked.at(&location)),
            None => self.rendered(version, asked),
        }
    }

    /// The versions that what was stored within the last `secs` may show at a machine, by any clock that was in use.
    fn moments(&self, machine: usize, secs: u64) -> Vec<usize> {
        let model = self.wire.model();
        let now = self.machines[machine].clock.now().secs();
        let oldest = now - i64::try_from(secs.min(1 << 40)).unwrap() - 1;
        let last = model.version();
        let is_possible = |version: &usize| {
            let since = model.history[*version].0.secs();
            let until = model.history.get(*version + 1).map_or(i64::MAX >> 1, |(ended, _)| ended.secs());
            *version == last || self.skews.iter().any(|skew| until + skew >= oldest && since + skew <= now + SKEW)
        };
        (0..=last).filter(is_possible).collect()
    }

    /// The oldest version that an answer may show, as far as changes are known that touched it.
    fn floor(&self, machine: usize, door: Door, shown: impl Fn(usize) -> Vec<u8>) -> usize {
        let known = self.known(machine, door).iter().rev();
        known.copied().find(|version| shown(*version) != shown(version - 1)).unwrap_or(0)
    }

    /// Whether it is known where an old name leads, if it is one.
    fn knows_redirect(&self, machine: usize, door: Door, asked: &Asked) -> bool {
        let leads_on = |version: usize| self.rendered(version, asked).location.is_some();
        let last = self.wire.model().version();
        !leads_on(last) || self.known(machine, door).iter().any(|version| leads_on(*version) && !leads_on(version - 1))
    }

    /// What an answer may be as old as, in seconds.
    fn reach(&self, asked: &Asked, stale: bool, strict: bool, aged: bool) -> u64 {
        let lifetime = self.ttls.lifetime(&asked.path, &asked.query, None, None);
        let secs = if strict && !stale { 0 } else { lifetime.fresh_secs };
        secs + if stale { lifetime.stale_secs } else { 0 } + if aged { AGED } else { 0 }
    }

    pub(super) async fn read(
        &mut self,
        machine: usize,
        door: Door,
        who: usize,
        asked: &Asked,
        how: How,
    ) -> Result<(), String> {
        let answered = self.ask(machine, door, who, asked, how).await?;
        let troubled = self.note_troubles();
        let is_offline = how == How::OnlyIfCached && door != Door::Plan;
        match answered {
            // Nothing that would do is stored.
            Err(_) if is_offline => Ok(()),
            Ok(got) if is_offline && got.seen.status == 504 => {
                if got.sent > 0 {
                    Err(format!("{} is sent though offline", asked.target()))
                } else {
                    Ok(())
                }
            }
            Err(_) if troubled => Ok(()),
            Err(failed) => Err(format!("{} fails: {failed}", asked.target())),
            Ok(got) => {
                if (is_offline || (got.hit && !got.stale)) && got.sent > 0 {
                    return Err(format!("{} comes from the store, and something was sent", asked.target()));
                }
                self.judge(machine, door, asked, &got, troubled, how)
            }
        }
    }

    fn judge(
        &self,
        machine: usize,
        door: Door,
        asked: &Asked,
        got: &Got,
        troubled: bool,
        how: How,
    ) -> Result<(), String> {
        let (seen, stale) = (&got.seen, got.stale);
        let is_head = how == How::Head && door == Door::Serve;
        if stale && !troubled {
            return Err(format!("{} is stale without a reason: {:?}", asked.target(), seen.headers));
        }
        // A part says so, and is of this moment.
        if got.part {
            return if got.hit || got.sent == 0 {
                Err(format!("{} answers with a part that was stored", asked.target()))
            } else {
                Ok(())
            };
        }
        // It goes past the store, and brings what a proxy makes of it.
        if is_head && got.sent > 0 && troubled {
            return Ok(());
        }
        if matches!(seen.status, 202 | 403 | 429 | 500..) {
            let is_live = got.sent > 0 || seen.status != 202;
            return if troubled && is_live {
                Ok(())
            } else {
                Err(format!("{} is answered {}", asked.target(), seen.status))
            };
        }
        let strict = matches!(how, How::NoCache | How::MaxAge0) && door != Door::Plan;
        let moments = self.moments(machine, self.reach(asked, stale, strict, got.aged));
        let bytes_of = |rendered: &Rendered| {
            let status = rendered.status.to_string();
            match door {
                _ if is_head => format!("{status} {}", rendered.body.len()).into_bytes(),
                // A plan's result is written anew.
                Door::Plan => format!("{status} {}", value(&rendered.body)).into_bytes(),
                _ => [status.as_bytes(), &rendered.body].concat(),
            }
        };
        let bytes = |version: usize| match door {
            Door::Plan => bytes_of(&self.followed(version, version, asked)),
            _ => bytes_of(&self.rendered(version, asked)),
        };
        let answer = Rendered { status: seen.status, body: seen.body.clone(), link: None, location: None };
        let answer = if is_head {
            format!("{} {}", seen.status, seen.header("content-length")).into_bytes()
        } else {
            bytes_of(&answer)
        };
        let floor = |shown: &dyn Fn(usize) -> Vec<u8>| match () {
            // GitHub's own index lags behind.
            () if stale || asked.path.starts_with("/search/") => 0,
            // That it is another resource's old name is not known to who has not heard of it.
            () if door == Door::Plan && !self.knows_redirect(machine, door, asked) => {
                self.floor(machine, door, |version| bytes_of(&self.rendered(version, asked)))
            }
            () => self.floor(machine, door, shown),
        };
        let lowest = floor(&bytes);
        let last = self.wire.model().version();
        let allowed: Vec<usize> = moments.iter().copied().filter(|version| *version >= lowest).collect();
        let is_composed = || {
            let redirects = allowed.iter().filter(|version| self.rendered(**version, asked).location.is_some());
            let mut all = redirects.flat_map(|redirect| allowed.iter().map(move |version| (*redirect, *version)));
            door == Door::Plan
                && all.any(|(redirect, version)| bytes_of(&self.followed(redirect, version, asked)) == answer)
        };
        if !allowed.iter().any(|version| bytes(*version) == answer) && !is_composed() {
            let version = (0..=last).rev().find(|version| bytes(*version) == answer);
            return Err(format!(
                "{} for {} at {door:?} {machine} {how:?} ({}) shows {} (version {version:?}), which must be of {allowed:?}; now {}",
                asked.target(),
                asked.account,
                seen.header("cache-status"),
                String::from_utf8_lossy(&answer),
                String::from_utf8_lossy(&bytes(last)),
            ));
        }
        // What leads back from an empty page is as old as its body: GitHub's 304 says nothing of it, either.
        if seen.status != 200 || &seen.body[..] == b"[]" || door == Door::Plan {
            return Ok(());
        }
        let links = |version: usize| self.rendered(version, asked).link.unwrap_or_default().into_bytes();
        let lowest = floor(&links);
        let got = local(seen.header("link"));
        // One that a walk has added leads on, and does not say how far.
        if got.iter().any(|(rel, _)| rel == "next") && !got.iter().any(|(rel, _)| rel == "last") {
            return Ok(());
        }
        // Of a client's copy that is not ours, GitHub's 304 says what it says.
        if seen.header("cache-status").contains("fwd=uri-miss; fwd-status=304") && how == How::Conditional {
            return Ok(());
        }
        let shown = |version: usize| local(&String::from_utf8_lossy(&links(version)));
        if !moments.iter().any(|version| *version >= lowest && shown(*version) == got) {
            return Err(format!(
                "{} at {door:?} {machine} {how:?} ({}) has Link {got:?}, which none of {moments:?} since {lowest} has; now {:?}",
                asked.target(),
                seen.header("cache-status"),
                shown(last)
            ));
        }
        Ok(())
    }

    pub(super) async fn walk(&mut self, machine: usize, door: Door, who: usize, asked: &Asked) -> Result<(), String> {
        let aged = self.wire.model().aged;
        let walked = match door {
            Door::Serve => return self.walk_by_link(machine, who, asked).await,
            Door::Command => self.walk_command(machine, who, asked).await?,
            Door::Plan => self.walk_plan(machine, who, asked).await?,
        };
        let troubled = self.note_troubles();
        let (bodies, stale, part) = match walked {
            Ok(walked) => walked,
            Err(_) if troubled => return Ok(()),
            Err(failed) => return Err(failed),
        };
        if stale && !troubled {
            return Err(format!("a page of {} is stale without a reason", asked.target()));
        }
        // A listing that is partly stale is one of several moments, and says so.
        if stale || part {
            return Ok(());
        }
        let aged = self.wire.model().aged > aged;
        let moments = self.moments(machine, self.reach(asked, false, false, aged));
        let floor =
            self.floor(machine, door, |version| json!(self.listing(version, version, asked)).to_string().into_bytes());
        let got: Vec<Value> = bodies.iter().flat_map(items).collect();
        let allowed: Vec<usize> = moments.into_iter().filter(|version| *version >= floor).collect();
        let redirects = |version: usize| {
            let others = allowed.iter().copied().filter(|other| self.rendered(*other, asked).location.is_some());
            others.chain([version]).collect::<Vec<usize>>()
        };
        let is_right = allowed.iter().any(|version| {
            redirects(*version).into_iter().any(|redirect| self.listing(redirect, *version, asked) == got)
        });
        if is_right {
            return Ok(());
        }
        let last = self.wire.model().version();
        Err(format!(
            "a walk over {} for {} at {door:?} {machine} gives {}, which is no moment of {allowed:?}; now {}",
            asked.target(),
            asked.account,
            json!(got),
            json!(self.listing(last, last, asked)),
        ))
    }

    /// All items of a listing at one moment.
    fn listing(&self, redirects: usize, version: usize, asked: &Asked) -> Vec<Value> {
        let mut all = Vec::new();
        let mut page = self.followed(redirects, version, asked);
        while page.status == 200 && all.len() < 500 {
            all.extend(items(&page.body));
            let links = page.link.as_deref().map(local).unwrap_or_default();
            let Some((_, next)) = links.into_iter().find(|(rel, _)| rel == "next") else { break };
            page = self.rendered(version, &asked.at(&next));
        }
        all
    }

    /// Who walks himself may have had the first pages from the store: those behind are no older, and the last one is the
    /// last of its moment.
    async fn walk_by_link(&mut self, machine: usize, who: usize, first: &Asked) -> Result<(), String> {
        let (mut asked, mut at_least) = (first.clone(), 0);
        for number in 0..50 {
            let got = self.ask_server(machine, who, &asked, How::Plain).await;
            let (seen, troubled) = (&got.seen, self.note_troubles());
            if got.stale && !troubled {
                return Err(format!("page {number} of {} is stale without a reason", first.target()));
            }
            // What is no longer there ends a walk, as it does at GitHub; what says of itself that it is stale or a part, too.
            if matches!(seen.status, 301 | 404) || got.stale || got.part {
                return Ok(());
            }
            if seen.status != 200 {
                let text = format!("{} is answered {}", asked.target(), seen.status);
                return if troubled { Ok(()) } else { Err(text) };
            }
            let next = local(seen.header("link")).into_iter().find(|(rel, _)| rel == "next");
            let shown = |version: usize| self.rendered(version, &asked).body.to_vec();
            let floor = self.floor(machine, Door::Serve, shown).max(at_least);
            let moments = self.moments(machine, self.reach(&asked, false, false, got.aged));
            let fits = |version: &usize| {
                let rendered = self.rendered(*version, &asked);
                let leads_on = rendered.link.is_some_and(|link| link.contains("rel=\"next\""));
                *version >= floor && rendered.body == seen.body && (next.is_some() || !leads_on)
            };
            match moments.iter().copied().find(fits) {
                Some(version) => at_least = version,
                None => {
                    return Err(format!(
                        "page {number} of a walk over {} for {} ({}) is {:?} with {next:?}, which is no moment of {moments:?} since {floor}",
                        first.target(),
                        first.account,
                        seen.header("cache-status"),
                        seen.body,
                    ));
                }
            }
            match next {
                Some((_, next)) => asked = asked.at(&next),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) async fn graphql(&mut self, machine: usize, who: usize, at: usize) -> Result<(), String> {
        let name = self.wire.model().truth().repositories[at].name.clone();
        let (owner, name) = name.split_once('/').unwrap_or_default();
        let variables = json!({ "o": owner, "n": name });
        let query = "query Q($o: String!, $n: String!) { repository(owner: $o, name: $n) { description issue: issues(last: 1) { title } } }";
        let body = json!({ "query": query, "variables": variables }).to_string();
        let aged = self.wire.model().aged;
        let seen = self.machines[machine]
            .ask(Method::POST, "/graphql", Some(&token(who)), &[("content-type", "application/json")], body.into())
            .await;
        let aged = self.wire.model().aged > aged;
        let (troubled, stale) = (self.note_troubles(), is_stale(&seen));
        // A limit is said in GraphQL's own way.
        if seen.status != 200 || seen.body.starts_with(b"{\"errors\":[{\"type\":\"RATE_LIMIT\"") {
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
        let stale_secs = if stale { lifetime.stale_secs.max(86_400) } else { 0 };
        let moments = self.moments(machine, lifetime.fresh_secs.max(300) + stale_secs + if aged { AGED } else { 0 });
        let lowest = if stale { 0 } else { self.floor(machine, Door::Serve, shown) };
        if moments.iter().any(|version| *version >= lowest && shown(*version) == seen.body) {
            return Ok(());
        }
        Err(format!(
            "GraphQL for {account} at {machine} shows {:?}, which must be {lowest} or later of {moments:?}",
            seen.body
        ))
    }
}

fn items(body: &Bytes) -> Vec<Value> {
    serde_json::from_slice(body).unwrap_or_default()
}

fn value(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

/// Relations of a `Link`, with paths and queries alone, in order.
pub(super) fn local(link: &str) -> Vec<(String, String)> {
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
