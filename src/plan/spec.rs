//! The plan as it is written: one struct per YAML mapping, with the place of each value.
//!
//! Knows: keys, types and their documentation, from which the JSON Schema is made. Does not know:
//! what any of it means (`plan`).

mod whole;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

pub use whole::{BudgetSpec, BundleSpec, CacheSpec, IpfsSpec, P2pSpec, RedisSpec, ReserveSpec, ShareSpec, WarmSpec};

use super::nearest;
use crate::error::{Error, Result};
use crate::units::{Size, Span};

/// A value and where it stands; line and column count from 1, 0 where they are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site<T> {
    /// The value.
    pub value: T,
    /// Its line.
    pub line: usize,
    /// Its column.
    pub column: usize,
}

impl<T> Site<T> {
    /// A value at the beginning of a line.
    pub fn at(value: T, line: usize) -> Self {
        Self { value, line, column: 0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Site<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        let (line, column) = (spanned.referenced.line(), spanned.referenced.column());
        Ok(Self { value: spanned.value, line: line as usize, column: column as usize })
    }
}

impl<T: JsonSchema> JsonSchema for Site<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^\\s*(0|([0-9]+\\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?|w|weeks?)\\s*)+)$", "examples": ["90s", "15m", "24h", "7d"] })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^\\s*[0-9]+\\s*([kKmMgG]i?[bB]?|[bB])?\\s*$", "examples": ["512MiB", "1GiB"] })
    }
}

/// A text that may be written as a number: `number: 7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["string", "integer"] })
    }
}

/// A plan for octocache: which GitHub API queries to answer through the cache, and where the
/// results go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "octocache plan")]
pub struct PlanSpec {
    /// The format's version: 1.
    pub version: Site<u32>,
    /// Directory for the JSON results, relative to the working directory and never outside of the project.
    /// Default: .octocache
    #[serde(default)]
    pub output_dir: Option<Site<String>>,
    /// Values for placeholders in paths; `owner` and `repo` default to this repository.
    #[serde(default)]
    pub vars: IndexMap<String, String>,
    /// What holds for all queries that do not say otherwise.
    #[serde(default)]
    pub defaults: Option<DefaultsSpec>,
    /// TTLs by class, instead of the built-in ones: `issues: 2m`.
    #[serde(default)]
    pub classes: IndexMap<String, Site<Span>>,
    /// The store.
    #[serde(default)]
    pub cache: Option<CacheSpec>,
    /// Bounds on what is sent.
    #[serde(default)]
    pub budget: Option<BudgetSpec>,
    /// What `octocache warm` does.
    #[serde(default)]
    pub warm: Option<WarmSpec>,
    /// What may enter the bundle.
    #[serde(default)]
    pub bundle: Option<BundleSpec>,
    /// Where answers are shared with other machines. Default: nowhere
    #[serde(default)]
    pub share: Option<ShareSpec>,
    /// Paths (in jq's notation) that are removed from every result: `.[].author.email`.
    #[serde(default)]
    pub redact: Vec<Site<String>>,
    /// Whether strings that look like credentials stay in results; they are masked otherwise.
    #[serde(default)]
    pub keep_secrets_like: bool,
    /// The queries, by name.
    #[serde(default)]
    pub queries: IndexMap<String, Site<QuerySpec>>,
}

impl Default for PlanSpec {
    fn default() -> Self {
        Self {
            version: Site::at(1, 0),
            output_dir: None,
            vars: IndexMap::new(),
            defaults: None,
            classes: IndexMap::new(),
            cache: None,
            budget: None,
            warm: None,
            bundle: None,
            share: None,
            redact: Vec::new(),
            keep_secrets_like: false,
            queries: IndexMap::new(),
        }
    }
}

/// What holds for all queries that do not say otherwise.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DefaultsSpec {
    /// Fresh for so long, for what no TTL class knows. Default: 24h
    #[serde(default)]
    pub ttl: Option<Span>,
    /// For how long after that a stale answer may stand in when GitHub cannot answer.
    #[serde(default)]
    pub stale_if_error: Option<Span>,
}

/// One query: exactly one of `get`, `recipe` and `graphql`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuerySpec {
    /// A REST path with placeholders: `/repos/{owner}/{repo}/releases`.
    #[serde(default)]
    pub get: Option<Site<String>>,
    /// A named recipe: releases, issues, org-repos …
    #[serde(default)]
    pub recipe: Option<Site<String>>,
    /// A file with a GraphQL query, or the query itself.
    #[serde(default)]
    pub graphql: Option<Site<String>>,
    /// Variables of the GraphQL query.
    #[serde(default)]
    pub variables: serde_json::Map<String, serde_json::Value>,
    /// Runs the query once per item.
    #[serde(default)]
    pub for_each: Option<Site<ForEachSpec>>,
    /// Which API is asked. Default: auto for a repository, its languages or issues with `for-each`,
    /// else rest.
    #[serde(default)]
    pub via: Option<Site<Via>>,
    /// Whether all pages are fetched and joined.
    #[serde(default)]
    pub paginate: Option<bool>,
    /// Fresh for so long, instead of what the endpoint's class says.
    #[serde(default)]
    pub ttl: Option<Span>,
    /// For how long after that a stale answer may stand in when GitHub cannot answer.
    #[serde(default)]
    pub stale_if_error: Option<Span>,
    /// `Accept` or `X-GitHub-Api-Version`.
    #[serde(default)]
    pub headers: IndexMap<String, Site<String>>,
    /// A jq filter: the file holds its output (an array where there are several).
    #[serde(default)]
    pub jq: Option<Site<String>>,
    /// Which paths of the result count as news; default: all of it.
    #[serde(default)]
    pub watch: Vec<Site<String>>,
    /// The result's file below the output directory. Default: NAME.json, NAME/{item}.json
    #[serde(default)]
    pub output: Option<Site<String>>,
    /// Recipe: the repository, OWNER/NAME.
    #[serde(default)]
    pub repo: Option<Site<Text>>,
    /// Recipe: the organisation.
    #[serde(default)]
    pub org: Option<Site<Text>>,
    /// Recipe: the user.
    #[serde(default)]
    pub user: Option<Site<Text>>,
    /// Recipe: the tag of a release.
    #[serde(default)]
    pub tag: Option<Site<Text>>,
    /// Recipe: the number of an issue or pull request.
    #[serde(default)]
    pub number: Option<Site<Text>>,
    /// Recipe: the older side of a compare.
    #[serde(default)]
    pub base: Option<Site<Text>>,
    /// Recipe: the newer side of a compare.
    #[serde(default)]
    pub head: Option<Site<Text>>,
    /// Recipe: open, closed or all.
    #[serde(default)]
    pub state: Option<Site<Text>>,
}

/// Which of GitHub's APIs is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// REST, one request each: everything that REST has, validated for nothing.
    Rest,
    /// GraphQL, many in one request; the fields that both APIs have.
    Graphql,
    /// Whichever costs least; the fields that both APIs have.
    Auto,
}

impl QuerySpec {
    /// The recipe's parameters that are given.
    pub fn params(&self) -> impl Iterator<Item = (&'static str, Site<String>)> {
        let all = [
            ("repo", &self.repo),
            ("org", &self.org),
            ("user", &self.user),
            ("tag", &self.tag),
            ("number", &self.number),
            ("base", &self.base),
            ("head", &self.head),
            ("state", &self.state),
        ];
        all.into_iter().filter_map(|(name, site)| {
            let site = site.as_ref()?;
            Some((name, Site { value: site.value.0.clone(), line: site.line, column: site.column }))
        })
    }
}

/// Where the items of `for-each` come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForEachSpec {
    /// They are written down.
    List(Vec<String>),
    /// From another query's result.
    Query {
        /// That query's name.
        query: String,
        /// A jq filter that gives the items; default: `.[]`.
        items: Option<Site<String>>,
        /// Which fields of the item prove the answer unchanged.
        fresh_while: Option<FreshWhileSpec>,
    },
}

/// Which fields of a parent item prove what follows from it unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreshWhileSpec {
    /// `true`: those that the recipe's table names; `false`: none.
    Usual(Site<bool>),
    /// These paths.
    Fields(Vec<Site<String>>),
}

impl<'de> Deserialize<'de> for FreshWhileSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = FreshWhileSpec;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of paths such as [.pushed_at], or true")
            }

            fn visit_bool<E: serde::de::Error>(self, usual: bool) -> Result<Self::Value, E> {
                Ok(FreshWhileSpec::Usual(Site::at(usual, 0)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = seq.next_element()? {
                    fields.push(field);
                }
                Ok(FreshWhileSpec::Fields(fields))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for ForEachSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ForEachSpec;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of items, or `query` with `items`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element::<Text>()? {
                    list.push(item.0);
                }
                Ok(ForEachSpec::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut query, mut items, mut fresh_while) = (None, None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "query" => query = Some(map.next_value()?),
                        "items" => items = Some(map.next_value()?),
                        "fresh-while" => fresh_while = Some(map.next_value()?),
                        other => return Err(A::Error::unknown_field(other, &["query", "items", "fresh-while"])),
                    }
                }
                let query = query.ok_or_else(|| A::Error::missing_field("query"))?;
                Ok(ForEachSpec::Query { query, items, fresh_while })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for ForEachSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ForEach".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "A list of items, or the items of another query's result.",
            "oneOf": [
                { "type": "array", "items": { "type": ["string", "integer"] } },
                {
                    "type": "object",
                    "properties": {
                        "query": { "type": "string", "description": "The other query's name." },
                        "items": { "type": "string", "description": "A jq filter that gives the items; default: .[]" },
                        "fresh-while": {
                            "description": "Answers stay fresh, whatever their TTL, while these fields of the item they follow from are unchanged, and are revalidated when they have changed. true: the fields that the recipe knows to suffice.",
                            "oneOf": [
                                { "type": "array", "minItems": 1, "items": { "type": "string" }, "examples": [[".pushed_at"]] },
                                { "type": "boolean" }
                            ]
                        }
                    },
                    "required": ["query"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

impl PlanSpec {
    /// Reads a plan's text. Errors begin with `line:column`, where a place is known.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(Error::usage("the plan is empty").hint("a plan begins with `version: 1` and has `queries:`"));
        }
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| describe(&error))
    }

    /// The plan's JSON Schema, as text that ends in a newline.
    pub fn schema() -> String {
        let schema = schemars::schema_for!(PlanSpec);
        let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn describe(error: &serde_saphyr::Error) -> Error {
    let error = error.without_snippet();
    let place = error.location().map(|at| (at.line(), at.column()));
    let (text, hint) = match error {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
            (format!("there is no key `{}` here", field.escape_debug()), nearest(field, expected.iter().copied()))
        }
        serde_saphyr::Error::SerdeMissingField { field, .. } => (format!("`{field}` is missing"), "add it".to_owned()),
        other => {
            let text = other.to_string();
            let text = text.lines().next().unwrap_or_default();
            let text = text.split(" at line ").next().unwrap_or(text);
            let text = text.strip_prefix("error: ").unwrap_or(text);
            (text.to_owned(), "see `octocache config schema` for what a plan may hold".to_owned())
        }
    };
    let error = Error::usage(text).hint(hint);
    match place {
        Some((line, column)) => error.within(format_args!("{line}:{column}")),
        None => error,
    }
}
