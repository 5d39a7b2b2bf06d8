//! From queries to requests: items, placeholders, recipes.
//!
//! Knows: filling in. Does not know: answers.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::Value;

use super::filter::Wait;
use super::lineage::Item;
use super::output;
use super::report::QueryReport;
use super::spec::Via;
use super::template::{Escape, Template};
use super::{ForEach, Query, Source};
use crate::cache::Ask;
use crate::cache::batch::Wanted;
use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::graphql;
use crate::policy::LinkUse;
use crate::request::{Api, Request};

/// Items that one `for-each` may have.
pub const MAX_ITEMS: usize = 100_000;

/// One thing to be asked and written.
#[derive(Debug)]
pub struct Unit<'a> {
    /// The query.
    pub query: &'a Query,
    /// Its item, as text.
    pub item: Option<String>,
    /// What is asked; several for recipes that combine answers.
    pub requests: Vec<Request>,
    /// The result's file below the output directory.
    pub file: PathBuf,
    /// Proof that the answer is unchanged, from the item's fields.
    pub fields: Option<Cid>,
    /// Whether the budget is needed for what is more urgent.
    pub held_back: bool,
}

impl Unit<'_> {
    /// Whether a batch may answer it.
    pub fn is_batched(&self) -> bool {
        self.query.via != Via::Rest
    }

    /// How its requests are to be answered, where everything is asked for as `base` says.
    pub fn ask(&self, base: &Ask) -> Ask {
        let Query { ttl_secs, stale_secs, .. } = *self.query;
        // Results are bodies.
        let link = if self.query.paginate { LinkUse::Followed } else { LinkUse::Unseen };
        Ask { ttl_secs, stale_secs, fields: self.fields, held_back: self.held_back, link, ..*base }
    }

    /// What a batch is to answer, if it may.
    pub fn wanted(&self, base: &Ask) -> Option<Wanted> {
        let request = self.requests.first().filter(|_| self.is_batched())?.clone();
        Some(Wanted { request, ask: self.ask(base), rest_if_free: self.query.via == Via::Auto })
    }

    /// The beginning of its report.
    pub fn report(&self) -> QueryReport {
        QueryReport { name: self.query.name.clone(), item: self.item.clone(), ..QueryReport::default() }
    }
}

/// Results that other queries take their items from.
#[derive(Debug, Default)]
pub struct Results(HashMap<String, Found>);

#[derive(Debug, Default)]
struct Found {
    per_item: bool,
    /// Whether any of them is older than it should be: its fields prove nothing then.
    stale: bool,
    documents: BTreeMap<usize, Bytes>,
}

impl Results {
    /// Keeps a document of `query`; `number` is its place among the query's items.
    pub fn add(&mut self, query: &Query, number: usize, document: Bytes, stale: bool) {
        let found = self.0.entry(query.name.clone()).or_default();
        found.per_item = query.for_each.is_some();
        found.stale |= stale;
        found.documents.insert(number, document);
    }

    fn is_stale(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|found| found.stale)
    }

    /// The result of the query called so: its document, or, where it ran once per item, the array
    /// of their documents in the order of the items.
    fn get(&self, name: &str) -> Option<Bytes> {
        let found = self.0.get(name)?;
        if !found.per_item {
            return found.documents.values().next().cloned();
        }
        let documents: Vec<&[u8]> = found.documents.values().map(|document| &document[..]).collect();
        Some([&b"["[..], &documents.join(&b','), b"]"].concat().into())
    }
}

/// The items of a query: one empty one without `for-each`.
pub async fn items(query: &Query, results: &Results, now: Timestamp, wait: Wait) -> Result<Vec<Option<Item>>> {
    let items: Vec<Item> = match &query.for_each {
        None => return Ok(vec![None]),
        Some(ForEach::List(list)) => {
            list.iter().map(|text| Item { value: Value::String(text.clone()), fields: None }).collect()
        }
        Some(ForEach::Query { query: other, items, fresh_while }) => {
            let failed = |why: String| Error::usage(format!("query `{}`: {why}", query.name));
            let json = results.get(other).ok_or_else(|| {
                Error::new(
                    crate::error::Kind::NotCached,
                    format!("query `{}`: `{other}` has no result to take items from", query.name),
                )
            })?;
            let lineage = fresh_while.as_ref().filter(|_| !results.is_stale(other));
            match lineage {
                Some(lineage) => lineage.items(&json, items, now, wait).await.map_err(failed)?,
                None => items
                    .run_by(&json, wait)
                    .await
                    .map_err(failed)?
                    .iter()
                    .map(|json| serde_json::from_slice(json).map(|value| Item { value, fields: None }))
                    .collect::<Result<_, _>>()
                    .map_err(|cause| failed(cause.to_string()))?,
            }
        }
    };
    if items.len() > MAX_ITEMS {
        return Err(Error::usage(format!("query `{}`: {} items are more than {MAX_ITEMS}", query.name, items.len())));
    }
    Ok(items.into_iter().map(Some).collect())
}

/// What to ask for one item of a query.
pub fn unit<'a>(query: &'a Query, item: Option<&Item>, vars: &BTreeMap<String, String>, api: &Api) -> Result<Unit<'a>> {
    let fields = item.and_then(|item| item.fields);
    let item = item.map(|item| &item.value);
    let values = Values { query, item, vars };
    let fail = |name: String| {
        let hint = match name.as_str() {
            "owner" | "repo" | "name" => {
                "set `owner` and `repo` under `vars:`, or GITHUB_REPOSITORY, or run inside a clone".to_owned()
            }
            name if name.starts_with("item") => "the item has no such field, or is no text or number".to_owned(),
            name => format!("set `{name}` under `vars:`"),
        };
        Error::usage(format!("query `{}`: the placeholder {{{name}}} has no value", query.name)).hint(hint)
    };
    let place = |error: Error| error.within(format_args!("query `{}`", query.name));
    let file = query.output.fill(Escape::File, |name| values.get(name)).map_err(fail)?;
    let file = output::safe_path(&file).map_err(|why| Error::usage(format!("query `{}`: {why}", query.name)))?;
    let mut requests = match &query.source {
        Source::Get(path) => vec![get(api, path, &values, fail).map_err(place)?],
        Source::Recipe(recipe) => {
            let templates = recipe.paths.iter().map(|path| Template::literal(path));
            templates.map(|path| get(api, &path, &values, fail).map_err(place)).collect::<Result<_>>()?
        }
        Source::Graphql { document, variables } => {
            let mut filled = Value::Object(variables.clone());
            values.fill_in(&mut filled).map_err(fail)?;
            let body = serde_json::json!({ "query": document, "variables": filled });
            vec![Request::graphql(api, body.to_string())]
        }
    };
    for request in &mut requests {
        if let Some(accept) = &query.accept {
            *request = request.clone().accepting(accept);
        }
        if let Some(version) = &query.api_version {
            *request = request.clone().version(version);
        }
        if query.paginate {
            *request = request.clone().with_default_param("per_page", "100");
        }
    }
    if query.via != Via::Rest
        && let Some(request) = requests.iter().find(|request| graphql::Item::of(request).is_none())
    {
        return Err(Error::usage(format!("query `{}`: GraphQL cannot give {}", query.name, request.target()))
            .hint("use `via: rest`"));
    }
    let item = item.map(|item| match item {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    Ok(Unit { query, item, requests, file, fields, held_back: false })
}

fn get(api: &Api, path: &Template, values: &Values<'_>, fail: impl Fn(String) -> Error) -> Result<Request> {
    Request::get(api, &path.fill(Escape::Url, |name| values.get(name)).map_err(fail)?)
}

/// Where the values of placeholders come from.
struct Values<'a> {
    query: &'a Query,
    item: Option<&'a Value>,
    vars: &'a BTreeMap<String, String>,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<String> {
        if let Some(path) = name.strip_prefix("item") {
            let item = self.item?;
            let value = path.split('.').skip(1).try_fold(item, |value, field| value.get(field))?;
            return scalar(value);
        }
        if let Source::Recipe(recipe) = &self.query.source {
            if matches!(name, "owner" | "name") {
                let full = self.recipe_param("repo", recipe.item_is == "repo");
                let full = full.or_else(|| Some(format!("{}/{}", self.vars.get("owner")?, self.vars.get("repo")?)))?;
                let (owner, repo) = full.split_once('/')?;
                return Some(if name == "owner" { owner } else { repo }.to_owned());
            }
            let default = || recipe.has.iter().find(|(param, _)| *param == name).map(|(_, value)| (*value).to_owned());
            if let Some(value) = self.recipe_param(name, recipe.item_is == name).or_else(default) {
                return Some(value);
            }
        }
        self.vars.get(name).cloned()
    }

    /// A recipe's parameter: as given, else the item where it stands for it.
    fn recipe_param(&self, name: &str, is_item: bool) -> Option<String> {
        match self.query.vars.get(name) {
            Some(template) => template.fill(Escape::None, |inner| self.plain(inner)).ok(),
            None if is_item => scalar(self.item?),
            None => None,
        }
    }

    /// A placeholder within a parameter: an item or a variable, never another parameter.
    fn plain(&self, name: &str) -> Option<String> {
        match name.strip_prefix("item") {
            Some(_) => self.get(name),
            None => self.vars.get(name).cloned(),
        }
    }

    fn fill_in(&self, value: &mut Value) -> Result<(), String> {
        match value {
            Value::String(text) if text.contains('{') => {
                let Ok(template) = Template::parse(text) else { return Ok(()) };
                *text = template.fill(Escape::None, |name| self.get(name))?;
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.fill_in(item))?,
            Value::Object(fields) => fields.values_mut().try_for_each(|field| self.fill_in(field))?,
            _ => {}
        }
        Ok(())
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
