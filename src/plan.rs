//! The plan: which queries to answer, checked before any request.
//!
//! Knows: what a plan means and every way in which it can be wrong, with line and column. Does
//! not know: caches, files written, terminals (`run`).

pub mod document;
pub mod expand;
pub mod filter;
mod graph;
pub mod lineage;
pub mod output;
pub mod recipe;
pub(crate) mod redact;
pub mod spec;
pub mod template;

pub mod dry;
pub mod report;
pub mod run;
pub mod workspace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;

use crate::error::{Error, Kind, Result};
use crate::policy::TtlTable;
use crate::policy::class;
use crate::stack::Narrow;
use filter::Filter;
use lineage::Lineage;
use recipe::Recipe;
pub use redact::Redaction;
use spec::{FreshWhileSpec, PlanSpec, QuerySpec, Site};
use template::Template;

/// The largest plan that is read.
pub const MAX_PLAN_BYTES: u64 = 1 << 20;

/// Where a plan is looked for, below the project's root.
pub const DEFAULT_PATH: &str = ".github/octocache.yml";

/// A plan, checked: running it can fail only at GitHub or at the disk.
#[derive(Debug)]
pub struct Plan {
    /// The file's name, for messages and reports.
    pub name: String,
    /// Where results go, as written.
    pub output_dir: Option<PathBuf>,
    /// The store, as written.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that the store's loose files may take.
    pub max_size: Option<u64>,
    /// Requests that one run may send.
    pub max_requests: Option<u32>,
    /// Names for placeholders.
    pub vars: BTreeMap<String, String>,
    /// TTLs.
    pub ttls: TtlTable,
    /// What is removed from results, and whether credentials are masked.
    pub redaction: Rc<Redaction>,
    /// What may enter the bundle.
    pub narrow: Narrow,
    /// The queries, each after those whose results it needs.
    pub queries: Vec<Query>,
}

/// One query.
#[derive(Debug)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub source: Source,
    /// Once per item of this.
    pub for_each: Option<ForEach>,
    /// Whether all pages are fetched and joined.
    pub paginate: bool,
    /// Fresh for so long.
    pub ttl_secs: Option<u64>,
    /// Stale answers may stand in for so long.
    pub stale_secs: Option<u64>,
    /// Representation.
    pub accept: Option<String>,
    /// API version.
    pub api_version: Option<String>,
    /// What is made of the result.
    pub filter: Option<Rc<Filter>>,
    /// Which part of the result counts as news.
    pub watch: Option<Rc<Filter>>,
    /// The result's file.
    pub output: Template,
    /// Names for this query's placeholders.
    pub vars: BTreeMap<String, Template>,
}

/// What a query asks.
#[derive(Debug)]
pub enum Source {
    /// A REST path.
    Get(Template),
    /// A named recipe.
    Recipe(&'static Recipe),
    /// A GraphQL document with variables.
    Graphql {
        /// The document.
        document: String,
        /// Variables; strings may hold placeholders.
        variables: serde_json::Map<String, serde_json::Value>,
    },
}

/// Where items come from.
#[derive(Debug)]
pub enum ForEach {
    /// They are written down.
    List(Vec<String>),
    /// From another query's result.
    Query {
        /// The other query.
        query: String,
        /// What of its result.
        items: Rc<Filter>,
        /// Which fields of the items prove unchanged what follows from them.
        fresh_while: Option<Rc<Lineage>>,
    },
}

impl Plan {
    /// Reads and checks the plan at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = crate::files::read_bounded(path, MAX_PLAN_BYTES).map_err(|error| match error.kind() {
            Kind::TooLarge => Error::usage(format!("{name} is larger than {} MiB", MAX_PLAN_BYTES >> 20))
                .hint("a plan holds queries, not data"),
            _ => error,
        })?;
        let bytes = bytes.ok_or_else(|| {
            Error::usage(format!("there is no plan at {name}"))
                .hint("write one (see `octocache run --help`), or name another with --plan")
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::usage(format!("{name} is not UTF-8 text")))?;
        Self::parse(text, &name, path.parent().unwrap_or(Path::new(".")))
    }

    /// Checks a plan's text. `name` is for messages; GraphQL documents are found beside `dir`.
    pub fn parse(text: &str, name: &str, dir: &Path) -> Result<Self> {
        let spec = PlanSpec::parse(text).map_err(|error| error.within_file(name))?;
        Checker { name, dir, filters: BTreeMap::new() }.plan(&spec)
    }

    /// A plan of inline lines `name = GET /path`, as the Action's `query` input takes them.
    pub fn inline(lines: &str) -> Result<Self> {
        let mut spec = PlanSpec::default();
        for (at, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad = || {
                Error::usage(format!("query:{}: `{}` is no query", at + 1, line.escape_debug()))
                    .hint("write lines like `releases = GET /repos/{owner}/{repo}/releases`")
            };
            let (name, path) = line.split_once('=').ok_or_else(bad)?;
            let path = path.trim().strip_prefix("GET ").ok_or_else(bad)?.trim();
            let query = QuerySpec { get: Some(Site::at(path.to_owned(), at + 1)), ..QuerySpec::default() };
            if spec.queries.insert(name.trim().to_owned(), Site::at(query, at + 1)).is_some() {
                return Err(bad().within("the name is taken"));
            }
        }
        Checker { name: "query", dir: Path::new("."), filters: BTreeMap::new() }.plan(&spec)
    }

    /// Only the queries called so, and those that they need.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        if names.is_empty() {
            return Ok(self);
        }
        let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in names {
            if !self.queries.iter().any(|query| query.name == *name) {
                let known = self.queries.iter().map(|query| query.name.as_str());
                return Err(
                    Error::usage(format!("there is no query `{}`", name.escape_debug())).hint(nearest(name, known))
                );
            }
        }
        // Needed queries stand before those that need them.
        for query in self.queries.iter().rev() {
            if let (true, Some(ForEach::Query { query: needed, .. })) =
                (wanted.contains(&query.name.as_str()), &query.for_each)
            {
                wanted.push(needed);
            }
        }
        let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        self.queries.retain(|query| wanted.contains(&query.name));
        Ok(self)
    }
}

/// "did you mean" for a word, or what there is.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let distance = |a: &str, b: &str| -> usize {
        let mut row: Vec<usize> = (0..=b.chars().count()).collect();
        for (i, x) in a.chars().enumerate() {
            let mut corner = std::mem::replace(&mut row[0], i + 1);
            for (j, y) in b.chars().enumerate() {
                let step = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
                corner = std::mem::replace(&mut row[j + 1], step);
            }
        }
        row.pop().unwrap_or(0)
    };
    let word: String = word.chars().take(64).collect();
    match known.iter().map(|name| (distance(&word, name), *name)).min() {
        Some((far, name)) if far <= (word.len() / 2).max(2) => format!("did you mean `{name}`?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

struct Checker<'a> {
    name: &'a str,
    dir: &'a Path,
    /// Compiled filters by their text: many queries share a few.
    filters: BTreeMap<String, Rc<Filter>>,
}

impl Checker<'_> {
    fn plan(mut self, spec: &PlanSpec) -> Result<Plan> {
        if spec.version.value != 1 {
            return Err(self
                .fault(&spec.version, format!("version {} is not known", spec.version.value))
                .hint("this program knows version 1"));
        }
        if spec.queries.is_empty() {
            return Err(Error::usage(format!("{}: there are no queries", self.name))
                .hint("add `queries:` with at least one `name: { get: /path }`"));
        }
        let mut ttls = TtlTable::default();
        if let Some(defaults) = &spec.defaults {
            ttls.default_secs = defaults.ttl.map(|span| span.0);
            ttls.stale_secs = defaults.stale_if_error.map(|span| span.0);
        }
        for (name, ttl) in &spec.classes {
            let class = class::by_name(name).ok_or_else(|| {
                self.fault(ttl, format!("there is no TTL class `{}`", name.escape_debug()))
                    .hint(nearest(name, class::CLASSES.iter().map(|class| class.name)))
            })?;
            ttls.classes.insert(class.name, ttl.value.0);
        }
        let queries =
            spec.queries.iter().map(|(name, query)| self.query(name, query, &spec.vars)).collect::<Result<Vec<_>>>()?;
        let queries = graph::order(queries, |name, what| self.fault(&spec.queries[name], what))?;
        self.check_outputs(&queries, &spec.queries)?;
        let redact: Vec<String> = spec.redact.iter().map(|path| path.value.clone()).collect();
        let redaction = Redaction::new(&redact, spec.keep_secrets_like).map_err(|error| {
            spec.redact.first().map_or_else(|| Error::usage(error.clone()), |first| self.fault(first, error.clone()))
        })?;
        let scopes = |texts: &[Site<String>]| {
            texts
                .iter()
                .map(|text| text.value.parse().map_err(|error: Error| self.fault(text, error.to_string())))
                .collect::<Result<Vec<_>>>()
        };
        let narrow = match &spec.bundle {
            Some(bundle) => Narrow { only: scopes(&bundle.only)?, never: scopes(&bundle.never)? },
            None => Narrow::default(),
        };
        Ok(Plan {
            name: self.name.to_owned(),
            output_dir: spec.output_dir.clone().map(Into::into),
            cache_dir: spec.cache.as_ref().and_then(|cache| cache.dir.clone()).map(Into::into),
            max_size: spec.cache.as_ref().and_then(|cache| cache.max_size).map(|size| size.0),
            max_requests: spec.budget.as_ref().and_then(|budget| budget.max_requests),
            vars: spec.vars.clone().into_iter().collect(),
            ttls,
            redaction: Rc::new(redaction),
            narrow,
            queries,
        })
    }

    fn query(&mut self, name: &str, site: &Site<QuerySpec>, vars: &IndexMap<String, String>) -> Result<Query> {
        let at = |text: String| format!("query `{}`: {text}", name.escape_debug());
        let spec = &site.value;
        if name.is_empty()
            || name.len() > 100
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(self.fault(site, at("a name has 1 to 100 letters, digits and -_.".into())));
        }
        let source = match (&spec.get, &spec.recipe, &spec.graphql) {
            (Some(path), None, None) => Source::Get(self.template(path)?),
            (None, Some(recipe), None) => Source::Recipe(recipe::by_name(&recipe.value).ok_or_else(|| {
                self.fault(recipe, at(format!("there is no recipe `{}`", recipe.value.escape_debug())))
                    .hint(nearest(&recipe.value, recipe::RECIPES.iter().map(|recipe| recipe.name)))
            })?),
            (None, None, Some(file)) => self.graphql(file, spec)?,
            _ => return Err(self.fault(site, at("exactly one of `get`, `recipe` and `graphql` is needed".into()))),
        };
        let recipe = if let Source::Recipe(recipe) = &source { Some(*recipe) } else { None };
        let for_each = spec.for_each.as_ref().map(|site| self.for_each(site, recipe)).transpose()?;
        let mut own = BTreeMap::new();
        for (param, value) in spec.params() {
            let Source::Recipe(recipe) = &source else {
                return Err(self
                    .fault(&value, at(format!("`{param}` goes with `recipe`")))
                    .hint("write it into the path, or as {placeholder} with `vars`"));
            };
            if !recipe.params().any(|known| known == param) {
                return Err(self
                    .fault(&value, at(format!("the recipe {} has no `{param}`", recipe.name)))
                    .hint(format!("it takes {}", recipe.params().collect::<Vec<_>>().join(", "))));
            }
            own.insert(param.to_owned(), self.template(&value)?);
        }
        let paginate = spec.paginate.unwrap_or(match &source {
            Source::Recipe(recipe) => recipe.paginate,
            Source::Get(_) | Source::Graphql { .. } => false,
        });
        let filter = match (&spec.jq, &source) {
            (Some(jq), _) => Some(self.filter(jq)?),
            (None, Source::Recipe(Recipe { jq: Some(jq), .. })) => Some(self.filter(&Site::at((*jq).to_owned(), 0))?),
            (None, _) => None,
        };
        let (mut accept, mut api_version) = (None, None);
        for (header, value) in &spec.headers {
            match header.to_ascii_lowercase().as_str() {
                "accept" => accept = Some(value.value.clone()),
                "x-github-api-version" => api_version = Some(value.value.clone()),
                _ => {
                    return Err(self
                        .fault(value, at(format!("the header `{}` cannot be set", header.escape_debug())))
                        .hint("Accept and X-GitHub-Api-Version can; others do not change what GitHub answers"));
                }
            }
        }
        let output = match &spec.output {
            Some(output) => self.template(output)?,
            None if for_each.is_some() => Template::literal(&format!("{name}/{{item}}.json")),
            None => Template::literal(&format!("{name}.json")),
        };
        let query = Query {
            name: name.to_owned(),
            for_each,
            paginate,
            ttl_secs: spec.ttl.map(|span| span.0),
            stale_secs: spec.stale_if_error.map(|span| span.0),
            accept,
            api_version,
            filter,
            watch: if spec.watch.is_empty() { None } else { Some(self.watch(&spec.watch)?) },
            output,
            vars: own,
            source,
        };
        self.check_placeholders(&query, site, vars)?;
        Ok(query)
    }

    fn for_each(&mut self, site: &Site<spec::ForEachSpec>, recipe: Option<&Recipe>) -> Result<ForEach> {
        match &site.value {
            spec::ForEachSpec::List(list) => Ok(ForEach::List(list.clone())),
            spec::ForEachSpec::Query { query, items, fresh_while } => {
                let items = items.clone().unwrap_or_else(|| Site::at(".[]".to_owned(), 0));
                let fields: Vec<Site<String>> = match fresh_while {
                    None => Vec::new(),
                    Some(FreshWhileSpec::Fields(fields)) if fields.is_empty() => {
                        return Err(self.fault(site, "`fresh-while` names no field".into()).hint("leave it out"));
                    }
                    Some(FreshWhileSpec::Fields(fields)) => fields.clone(),
                    Some(FreshWhileSpec::Usual(usual)) if !usual.value => Vec::new(),
                    Some(FreshWhileSpec::Usual(_)) => {
                        let known = recipe.map_or(&[][..], |recipe| recipe.fresh_while);
                        if known.is_empty() {
                            let text = "no field of an item is known to prove this unchanged".into();
                            return Err(self.fault(site, text).hint("name fields: `fresh-while: [.updated_at]`"));
                        }
                        known.iter().map(|field| Site::at((*field).to_owned(), 0)).collect()
                    }
                };
                for field in &fields {
                    self.filter(field)?;
                }
                let filter = self.filter(&items)?;
                let fields: Vec<&str> = fields.iter().map(|field| field.value.as_str()).collect();
                let lineage = if fields.is_empty() { None } else { Some(Lineage::new(&items.value, &fields)) };
                let fresh_while = lineage.transpose().map_err(|why| self.fault(&items, why))?.map(Rc::new);
                Ok(ForEach::Query { query: query.clone(), items: filter, fresh_while })
            }
        }
    }

    fn graphql(&self, file: &Site<String>, spec: &QuerySpec) -> Result<Source> {
        let document = if file.value.contains('{') {
            file.value.clone()
        } else {
            let path = self.dir.parent().unwrap_or(self.dir).join(&file.value);
            let path = if path.exists() { path } else { self.dir.join(&file.value) };
            let bytes = crate::files::read_bounded(&path, 100 << 10).ok().flatten().ok_or_else(|| {
                self.fault(file, format!("cannot read the GraphQL document {}", path.display()))
                    .hint("its path is relative to the project")
            })?;
            String::from_utf8(bytes.into())
                .map_err(|_| self.fault(file, "the GraphQL document is not UTF-8 text".into()))?
        };
        if document.trim_start().starts_with("mutation") || document.trim_start().starts_with("subscription") {
            return Err(self.fault(file, "only GraphQL queries can be cached".into()));
        }
        Ok(Source::Graphql { document, variables: spec.variables.clone() })
    }

    fn watch(&mut self, paths: &[Site<String>]) -> Result<Rc<Filter>> {
        let joined = paths.iter().map(|path| format!("({})", path.value)).collect::<Vec<_>>().join(", ");
        self.filter(&Site { value: format!("[{joined}]"), line: paths[0].line, column: paths[0].column })
    }

    fn filter(&mut self, site: &Site<String>) -> Result<Rc<Filter>> {
        if let Some(known) = self.filters.get(&site.value) {
            return Ok(known.clone());
        }
        let filter = Filter::compile(&site.value).map(Rc::new).map_err(|why| self.fault(site, why))?;
        self.filters.insert(site.value.clone(), filter.clone());
        Ok(filter)
    }

    fn template(&self, site: &Site<String>) -> Result<Template> {
        Template::parse(&site.value).map_err(|why| self.fault(site, why))
    }

    /// Every placeholder must have a value by the time it is filled in.
    fn check_placeholders(&self, query: &Query, site: &Site<QuerySpec>, vars: &IndexMap<String, String>) -> Result<()> {
        let mut templates: Vec<&Template> = query.vars.values().collect();
        templates.push(&query.output);
        if let Source::Get(path) = &query.source {
            templates.push(path);
        }
        for name in templates.iter().flat_map(|template| template.names()) {
            let known = matches!(name, "owner" | "repo")
                || vars.contains_key(name)
                || (query.for_each.is_some() && (name == "item" || name.starts_with("item.")));
            if !known {
                return Err(self
                    .fault(site, format!("query `{}`: the placeholder {{{name}}} has no value", query.name))
                    .hint("set it under `vars:`, or use {item} with `for-each`"));
            }
        }
        if let Source::Recipe(recipe) = &query.source {
            for param in recipe.needs {
                let given = query.vars.contains_key(*param)
                    || (*param == "repo")
                    || (query.for_each.is_some() && recipe.item_is == *param);
                if !given {
                    return Err(
                        self.fault(site, format!("query `{}`: the recipe {} needs `{param}`", query.name, recipe.name))
                    );
                }
            }
        }
        Ok(())
    }

    /// Two queries that write one file would overwrite each other.
    fn check_outputs(&self, queries: &[Query], sites: &IndexMap<String, Site<QuerySpec>>) -> Result<()> {
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for query in queries {
            let site = &sites[&query.name];
            let Some(file) = query.output.as_literal() else {
                if query.for_each.is_none() {
                    continue;
                }
                // Which items there are is known later; but the same template cannot be shared.
                let text = query.output.to_string().to_lowercase();
                if let Some(other) = taken.insert(text, &query.name) {
                    return Err(
                        self.fault(site, format!("the queries `{other}` and `{}` write the same files", query.name))
                    );
                }
                continue;
            };
            let path =
                output::safe_path(&file).map_err(|why| self.fault(site, format!("query `{}`: {why}", query.name)))?;
            if query.for_each.is_some() {
                return Err(self
                    .fault(site, format!("query `{}`: all items would write {file}", query.name))
                    .hint("put {item} into `output`"));
            }
            if path.as_os_str().eq_ignore_ascii_case(output::INDEX_NAME) {
                return Err(self
                    .fault(site, format!("query `{}`: {} is the report's own name", query.name, output::INDEX_NAME)));
            }
            // `a` cannot be a file while `a/b` needs it to be a directory.
            let lower = file.to_lowercase();
            let mut ancestors = lower.match_indices('/').map(|(at, _)| &lower[..at]);
            let above = ancestors.find_map(|dir| taken.get_key_value(dir));
            let inside = format!("{lower}/");
            let below = taken.range(inside.clone()..).next().filter(|(other, _)| other.starts_with(&inside));
            let nested = above.or(below);
            if let Some((path, other)) = nested {
                let text =
                    format!("the queries `{other}` and `{}` write {path} and {file}, one inside the other", query.name);
                return Err(self.fault(site, text).hint("give one of them another `output`"));
            }
            if let Some(other) = taken.insert(lower, &query.name) {
                return Err(self
                    .fault(site, format!("the queries `{other}` and `{}` both write {file}", query.name))
                    .hint("give one of them another `output`"));
            }
        }
        Ok(())
    }

    fn fault<T>(&self, site: &Site<T>, text: String) -> Error {
        let place = match (site.line, site.column) {
            (0, _) => self.name.to_owned(),
            (line, 0) => format!("{}:{line}", self.name),
            (line, column) => format!("{}:{line}:{column}", self.name),
        };
        Error::usage(text).within(place)
    }
}

#[cfg(test)]
mod tests;
