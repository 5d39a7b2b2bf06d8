//! Reference pages in Markdown, made from what the program itself reads: the plan's schema and the
//! table of TTL classes.
//!
//! Knows: tables. Does not know: what any key means.

use serde_json::Value;

use crate::plan::recipe::{Batch, RECIPES};
use crate::plan::spec::PlanSpec;
use crate::policy::class::CLASSES;
use crate::units::Span;

/// All keys of a plan, and all recipes.
pub(super) fn plan() -> String {
    let schema: Value = serde_json::from_str(&PlanSpec::schema()).unwrap_or_default();
    let mut text = String::from(
        "# The plan\n\nMade by `octocache config reference plan`; `octocache config schema` prints the same for editors.\n",
    );
    let titles = [
        ("", "Top level"),
        ("DefaultsSpec", "`defaults`"),
        ("CacheSpec", "`cache`"),
        ("BudgetSpec", "`budget`"),
        ("WarmSpec", "`warm`"),
        ("BundleSpec", "`bundle`"),
        ("ShareSpec", "`share`"),
        ("RedisSpec", "`share.redis`"),
        ("P2pSpec", "`share.p2p`"),
        ("IpfsSpec", "`share.ipfs`"),
        ("QuerySpec", "One of `queries`"),
    ];
    for (name, title) in titles {
        let object = if name.is_empty() { &schema } else { &schema["$defs"][name] };
        text.push_str(&format!("\n## {title}\n\n{}\n\n| key | value | what |\n|---|---|---|\n", prose(object)));
        for (key, value) in object["properties"].as_object().into_iter().flatten() {
            text.push_str(&format!("| `{key}` | {} | {} |\n", kind(value), prose(value)));
        }
    }
    text.push_str("\n## `for-each` over another query\n\n| key | value | what |\n|---|---|---|\n");
    let over = schema["$defs"]["ForEach"]["oneOf"].as_array().and_then(|ways| ways.last()).cloned().unwrap_or_default();
    for (key, value) in over["properties"].as_object().into_iter().flatten() {
        text.push_str(&format!("| `{key}` | {} | {} |\n", kind(value), prose(value)));
    }
    text.push_str("\n## Recipes\n\n| recipe | gives | parameters | in batches |\n|---|---|---|---|\n");
    for recipe in RECIPES {
        let needs = recipe.needs.iter().map(|name| format!("`{name}`"));
        let has = recipe.has.iter().map(|(name, value)| format!("`{name}` ({value})"));
        let batch = match recipe.batch {
            Batch::Never => "no",
            Batch::OnDemand => "with `via: graphql`",
            Batch::Prefer => "with `for-each`",
        };
        let params: Vec<String> = needs.chain(has).collect();
        text.push_str(&format!("| `{}` | {} | {} | {batch} |\n", recipe.name, recipe.about, params.join(", ")));
    }
    text
}

/// All TTL classes.
pub(super) fn ttl() -> String {
    let mut text = String::from(
        "# How long answers live\n\nMade by `octocache config reference ttl`. A plan overrides a class under `classes:`, a query with \
         `ttl:`, the environment with `OCTOCACHE_TTL_<CLASS>`, `--ttl` all of them. After its lifetime an answer is validated, which \
         is free while nothing has changed; it may stand in for GitHub for as long again as the third column says.\n\n\
         | class | fresh for | then stale, if GitHub cannot answer, for | what |\n|---|---|---|---|\n",
    );
    for class in CLASSES {
        let (fresh, stale) = (Span(class.fresh_secs), Span(class.stale_secs));
        let private = if class.private { "; never tried for another identity" } else { "" };
        text.push_str(&format!("| `{}` | {fresh} | {stale} | {}{private} |\n", class.name, class.about));
    }
    text.push_str(
        "\nA 404 or 409 is fresh for a minute, doubling to ten while it repeats, and never longer than its class; 410 and 451 for an \
         hour. Single requests (`api`) keep what no class knows for five minutes instead of a day. `X-Poll-Interval` is a floor. \
         `--ttl`, a query's `ttl` and gh's `--cache` hold for all of these as they are; a client's `max-age` is a bound on top. What \
         holds a signed address or a token is fresh no longer than that, five minutes if it does not say when it ends.\n",
    );
    text
}

fn prose(value: &Value) -> String {
    value["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

fn kind(value: &Value) -> String {
    if let Some(ways) = value["oneOf"].as_array().or_else(|| value["anyOf"].as_array()) {
        let kinds: Vec<String> = ways.iter().map(kind).filter(|kind| kind != "null").collect();
        return kinds.join(" or ");
    }
    if let Some(reference) = value["$ref"].as_str() {
        return match reference.rsplit('/').next().unwrap_or_default() {
            "Via" => "`rest`, `graphql` or `auto`".into(),
            "ForEach" => "list or mapping".into(),
            _ => "mapping".into(),
        };
    }
    let pattern = value["pattern"].as_str().unwrap_or_default();
    let of_type = |name: &str| match name {
        "string" if pattern.contains("weeks") => "duration",
        "string" if pattern.contains("[kKmMgG]") => "size",
        "string" if pattern.contains('%') => "share",
        "string" => "text",
        "integer" => "number",
        "boolean" => "true or false",
        "array" => "list",
        "object" => "mapping",
        _ => "null",
    };
    match &value["type"] {
        Value::String(name) => of_type(name).to_owned(),
        Value::Array(names) => {
            let kinds: Vec<&str> =
                names.iter().filter_map(Value::as_str).map(of_type).filter(|kind| *kind != "null").collect();
            kinds.join(" or ")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pages_in_the_repository_are_the_programs() {
        let pages = [("plan", super::plan()), ("ttl", super::ttl())];
        for (name, page) in pages {
            let path = format!("{}/docs/{name}.md", env!("CARGO_MANIFEST_DIR"));
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(there == page, "run `octocache config reference {name} > docs/{name}.md`");
        }
    }
}
