//! Checking a plan as it is written: everything that can be wrong is found here, with its place.
//!
//! Knows: what goes together, defaults, names that exist. Does not know: running.

mod share;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;

use super::filter::{Evaluator, Filter};
use super::lineage::Lineage;
use super::recipe::{self, Batch, Recipe};
use super::spec::{self, FreshWhileSpec, PlanSpec, QuerySpec, Site, Via};
use super::template::Template;
use super::{Destinations, ForEach, Plan, Query, Redaction, Source, Warm, graph, nearest, output};
use crate::error::{Error, Result};
use crate::github::Reserve;
use crate::graphql::operation::{self, Operation};
use crate::policy::{TtlTable, class};
use crate::schedule::Schedule;
use crate::stack::BundleRules;
pub(crate) use share::is_token_variable;

/// Checks `spec`. `name` is for messages; GraphQL documents are found beside `dir`.
pub(super) fn check(spec: &PlanSpec, name: &str, dir: &Path, evaluator: &Evaluator) -> Result<Plan> {
    Checker { name, dir, evaluator, filters: BTreeMap::new() }.plan(spec)
}

/// Checks where `spec` sends data, and nothing else of it.
pub(super) fn destinations(spec: &PlanSpec, name: &str, dir: &Path) -> Result<Destinations> {
    let checker = Checker { name, dir, evaluator: &Evaluator::default(), filters: BTreeMap::new() };
    Ok(Destinations { cache_dir: cache_dir(spec), share: checker.share(spec)? })
}

fn cache_dir(spec: &PlanSpec) -> Option<PathBuf> {
    spec.cache.as_ref().and_then(|cache| cache.dir.clone()).map(Into::into)
}

struct Checker<'a> {
    name: &'a str,
    dir: &'a Path,
    evaluator: &'a Evaluator,
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
            Some(bundle) => BundleRules {
                only: scopes(&bundle.only)?,
                never: scopes(&bundle.never)?,
                private: bundle.private.iter().map(|site| self.private_class(site)).collect::<Result<_>>()?,
            },
            None => BundleRules::default(),
        };
        Ok(Plan {
            name: self.name.to_owned(),
            output_dir: spec.output_dir.as_ref().map(|site| self.output_dir(site)).transpose()?,
            cache_dir: cache_dir(spec),
            max_size: spec.cache.as_ref().and_then(|cache| cache.max_size).map(|size| size.0),
            max_requests: spec.budget.as_ref().and_then(|budget| budget.max_requests),
            reserve: self.reserve(spec)?,
            warm: self.warm(spec)?,
            share: self.share(spec)?,
            vars: spec.vars.clone().into_iter().collect(),
            ttls,
            redaction: Rc::new(redaction),
            narrow,
            queries,
        })
    }

    fn private_class(&self, site: &Site<String>) -> Result<String> {
        let mut private = class::CLASSES.iter().filter(|class| class.private).map(|class| class.name);
        private.clone().find(|name| *name == site.value).map(str::to_owned).ok_or_else(|| {
            self.fault(site, format!("`{}` is no private TTL class", site.value.escape_debug()))
                .hint(format!("private are {}", private.by_ref().collect::<Vec<_>>().join(", ")))
        })
    }

    /// Results of a plan stay below its project; elsewhere they go by the user's word alone.
    fn output_dir(&self, site: &Site<String>) -> Result<PathBuf> {
        let dir = Path::new(&site.value);
        let stays = dir.components().all(|part| match part {
            Component::CurDir => true,
            Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => false,
        });
        if !stays || site.value.is_empty() || site.value.contains(['\\', '\0']) || site.value.starts_with('~') {
            let text = format!("`output-dir` leads out of the project: `{}`", site.value.escape_debug());
            return Err(self.fault(site, text).hint("name a directory in it; one elsewhere is given by --output-dir"));
        }
        Ok(dir.to_owned())
    }

    fn reserve(&self, spec: &PlanSpec) -> Result<Option<Reserve>> {
        let Some(site) = spec.budget.as_ref().and_then(|budget| budget.reserve.as_ref()) else { return Ok(None) };
        let text = site.value.0.0.trim();
        let percent = text.strip_suffix('%').and_then(|share| share.trim().parse().ok()).filter(|share| *share <= 100);
        let reserve = percent.map(Reserve::Percent).or_else(|| text.parse().ok().map(Reserve::Count));
        reserve.map(Some).ok_or_else(|| {
            self.fault(site, format!("`{}` is no reserve", text.escape_debug()))
                .hint("write `10%`, or a number of requests")
        })
    }

    fn warm(&self, spec: &PlanSpec) -> Result<Warm> {
        let Some(warm) = &spec.warm else { return Ok(Warm::default()) };
        let zone = warm.timezone.as_deref().unwrap_or("UTC");
        let schedule = warm
            .schedule
            .as_ref()
            .map(|site| Schedule::parse(&site.value, zone).map_err(|error| self.fault(site, error.to_string())));
        Ok(Warm {
            schedule: schedule.transpose()?,
            ahead_secs: warm.ahead.map(|span| span.0),
            idle_secs: warm.idle.map(|span| span.0),
            jitter_secs: warm.jitter.map(|span| span.0),
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
        let other_representation = accept.is_some() || api_version.is_some();
        let via = self.via(spec, &source, for_each.is_some(), other_representation)?;
        let output = match &spec.output {
            Some(output) => self.template(output)?,
            None if for_each.is_some() => Template::literal(&format!("{name}/{{item}}.json")),
            None => Template::literal(&format!("{name}.json")),
        };
        let query = Query {
            name: name.to_owned(),
            for_each,
            via,
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
                let lineage =
                    if fields.is_empty() { None } else { Some(Lineage::new(&items.value, &fields, self.evaluator)) };
                let fresh_while = lineage.transpose().map_err(|why| self.fault(&items, why))?.map(Rc::new);
                Ok(ForEach::Query { query: query.clone(), items: filter, fresh_while })
            }
        }
    }

    fn via(&self, spec: &QuerySpec, source: &Source, many: bool, other_representation: bool) -> Result<Via> {
        let batch = match source {
            Source::Recipe(recipe) => recipe.batch,
            Source::Get(_) => Batch::OnDemand,
            Source::Graphql { .. } => Batch::Never,
        };
        let Some(via) = &spec.via else {
            let auto = many && batch == Batch::Prefer && !other_representation;
            return Ok(if auto { Via::Auto } else { Via::Rest });
        };
        if via.value != Via::Rest && (batch == Batch::Never || other_representation) {
            let text = "`via` can only be rest here".to_owned();
            return Err(self.fault(via, text).hint("GraphQL batches give plain repositories, languages and issues"));
        }
        Ok(via.value)
    }

    fn graphql(&self, file: &Site<String>, spec: &QuerySpec) -> Result<Source> {
        let document = if file.value.contains('{') {
            file.value.clone()
        } else {
            let path = self.dir.parent().unwrap_or(self.dir).join(&file.value);
            let path = if path.exists() { path } else { self.dir.join(&file.value) };
            let root = self.dir.ends_with(".github").then(|| self.dir.parent()).flatten().unwrap_or(self.dir);
            let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
            if let (Ok(root), Ok(file_path)) = (root.canonicalize(), path.canonicalize())
                && !(file_path.starts_with(&root) && file_path.is_file())
            {
                return Err(self
                    .fault(file, format!("the GraphQL document {} is not in the project", path.display()))
                    .hint("its path is relative to the project"));
            }
            let bytes = crate::files::read_bounded(&path, 100 << 10).ok().flatten().ok_or_else(|| {
                self.fault(file, format!("cannot read the GraphQL document {}", path.display()))
                    .hint("its path is relative to the project")
            })?;
            String::from_utf8(bytes.into())
                .map_err(|_| self.fault(file, "the GraphQL document is not UTF-8 text".into()))?
        };
        let document = document.trim_start_matches('\u{feff}').to_owned();
        let body = serde_json::json!({ "query": document }).to_string();
        match operation::read(body.as_bytes()) {
            Some(Operation::Query(_)) => Ok(Source::Graphql { document, variables: spec.variables.clone() }),
            Some(Operation::Mutation(_) | Operation::Subscription) => {
                Err(self.fault(file, "only GraphQL queries can be cached".into()))
            }
            None => Err(self
                .fault(file, "the GraphQL document is not one well-formed query".into())
                .hint("write exactly one operation, a query, and the fragments that it uses")),
        }
    }

    fn watch(&mut self, paths: &[Site<String>]) -> Result<Rc<Filter>> {
        let joined = paths.iter().map(|path| format!("({})", path.value)).collect::<Vec<_>>().join(", ");
        self.filter(&Site { value: format!("[{joined}]"), line: paths[0].line, column: paths[0].column })
    }

    fn filter(&mut self, site: &Site<String>) -> Result<Rc<Filter>> {
        if let Some(known) = self.filters.get(&site.value) {
            return Ok(known.clone());
        }
        let filter = Filter::bounded(&site.value, self.evaluator).map(Rc::new).map_err(|why| self.fault(site, why))?;
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
            if output::is_report(&path) {
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
