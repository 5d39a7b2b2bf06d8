//! What is under way in a batch: its parts, the pages that came, and how flights share documents.
//!
//! Knows: gathering. Does not know: sending, storing.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::cache::pages::MAX_PAGES;
use crate::graphql::document::{self, Connection, Part};
use crate::graphql::project::{Projector, languages};
use crate::graphql::{Facet, Item};
use crate::outcome::Because;

/// Points that one document may cost by GitHub's rule.
pub(super) const MAX_POINTS: u64 = 60;

/// Nodes that may come; GitHub's bound is 500,000.
const MAX_NODES: u64 = 200_000;

/// Something that is being fetched.
pub(super) struct Flight {
    /// Its place among what is wanted.
    pub(super) at: usize,
    pub(super) item: Item,
    /// What is still to be asked.
    pub(super) parts: Vec<Part>,
    /// Elements of its connections so far.
    pub(super) elements: HashMap<Connection, Vec<Value>>,
    /// The repository itself, where that is asked for.
    pub(super) whole: Value,
    pub(super) full_name: String,
    pub(super) pages: usize,
    pub(super) because: Because,
}

impl Flight {
    /// A flight for `item`, wanted at a place.
    pub(super) fn new(at: usize, item: Item, because: Because) -> Self {
        Self {
            at,
            parts: item.facet.parts(),
            item,
            elements: HashMap::new(),
            whole: Value::Null,
            full_name: String::new(),
            pages: 0,
            because,
        }
    }

    /// What it is about, whatever the case of its letters.
    fn name(&self) -> (String, String) {
        (self.item.owner.to_lowercase(), self.item.name.to_lowercase())
    }

    /// Whether `node` holds everything that was asked for it.
    pub(super) fn is_answered_by(&self, node: &Value) -> bool {
        // Cursors that never end are no answer, either.
        let is_bounded = self.pages < MAX_PAGES;
        is_bounded
            && self.parts.iter().all(|part| match part.connection {
                None => node["databaseId"].is_u64(),
                Some(connection) => {
                    elements(connection, node).is_some() && node[connection.name()]["pageInfo"].is_object()
                }
            })
    }

    /// Takes over what came for it; whether it is complete.
    pub(super) fn take(&mut self, node: &Value) -> bool {
        if let Some(full) = node["nameWithOwner"].as_str() {
            full.clone_into(&mut self.full_name);
        }
        self.pages += 1;
        let mut next = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            let Some(connection) = part.connection else {
                self.whole = node.clone();
                continue;
            };
            let page = &node[connection.name()];
            let elements = elements(connection, node).into_iter().flatten().filter(|element| !element.is_null());
            self.elements.entry(connection).or_default().extend(elements.cloned());
            let info = &page["pageInfo"];
            if let (Some(true), Some(after)) = (info["hasNextPage"].as_bool(), info["endCursor"].as_str()) {
                next.push(Part { connection: Some(connection), after: Some(after.to_owned()) });
            }
        }
        self.parts = next;
        self.parts.is_empty()
    }

    /// What REST would have said.
    pub(super) fn body(&self, base: &str) -> Vec<u8> {
        let projector = Projector { base };
        let of = |connection| self.elements.get(&connection).map_or(&[][..], Vec::as_slice);
        let value = match self.item.facet {
            Facet::Repo => projector.repo(&self.whole),
            Facet::Languages => languages(of(Connection::Languages)),
            Facet::OrgRepos => of(Connection::Repositories).iter().map(|node| projector.repo(node)).collect(),
            Facet::Issues(state) => {
                let issue = |node, is_pull| projector.issue(node, &self.full_name, is_pull);
                let issues = of(Connection::Issues(state)).iter().map(|node| issue(node, false));
                let pulls = of(Connection::PullRequests(state)).iter().map(|node| issue(node, true));
                let mut all: Vec<Value> = issues.chain(pulls).collect();
                // Newest first, as REST has them.
                let newest = |item: &Value| (item["created_at"].as_str().map(str::to_owned), item["number"].as_u64());
                all.sort_by_cached_key(|item| std::cmp::Reverse(newest(item)));
                Value::Array(all)
            }
        };
        serde_json::to_vec(&value).unwrap_or_default()
    }
}

/// A page of a connection.
fn elements(connection: Connection, node: &Value) -> Option<&Vec<Value>> {
    let page = &node[connection.name()];
    if connection == Connection::Languages { &page["edges"] } else { &page["nodes"] }.as_array()
}

/// Puts what is asked about one repository side by side, in the order of its first mention.
pub(super) fn by_repository(flights: &mut VecDeque<Flight>) {
    let mut ranks: HashMap<(String, String), usize> = HashMap::new();
    for flight in flights.iter() {
        let next = ranks.len();
        ranks.entry(flight.name()).or_insert(next);
    }
    flights.make_contiguous().sort_by_cached_key(|flight| ranks[&flight.name()]);
}

/// The next document's aliases: flights about one repository share one, as long as they do not ask
/// for the same connection twice.
pub(super) fn group(flights: &mut VecDeque<Flight>, size: usize) -> Vec<Vec<Flight>> {
    let mut groups: Vec<Vec<Flight>> = Vec::new();
    let (mut requests, mut nodes) = (0, 0);
    while let Some(flight) = flights.front() {
        let (more, many) = document::weight(&flight.parts);
        let full = (requests + more) / 100 > MAX_POINTS || nodes + many > MAX_NODES;
        let shares = groups.last().is_some_and(|last| last[0].name() == flight.name() && !conflict(last, flight));
        if !groups.is_empty() && (full || (!shares && groups.len() >= size)) {
            break;
        }
        (requests, nodes) = (requests + more, nodes + many);
        let Some(flight) = flights.pop_front() else { break };
        match groups.last_mut() {
            Some(last) if shares => last.push(flight),
            _ => groups.push(vec![flight]),
        }
    }
    groups
}

fn conflict(group: &[Flight], flight: &Flight) -> bool {
    let name = |part: &Part| part.connection.map(Connection::name);
    let mut taken = group.iter().flat_map(|other| other.parts.iter().map(name));
    taken.any(|taken| flight.parts.iter().any(|part| name(part) == taken))
}
