//! The order of queries: each after those whose results it needs.
//!
//! Knows: sorting and finding cycles. Does not know: what queries do.

use std::collections::HashMap;

use super::{ForEach, Query, nearest};
use crate::error::{Error, Result};

/// Sorts queries so that none stands before what it needs, otherwise in the order written.
/// `fault` makes an error at a query's place.
pub(super) fn order(queries: Vec<Query>, fault: impl Fn(&str, String) -> Error) -> Result<Vec<Query>> {
    let names: Vec<String> = queries.iter().map(|query| query.name.clone()).collect();
    let needs: HashMap<String, String> = queries
        .iter()
        .filter_map(|query| match &query.for_each {
            Some(ForEach::Query { query: needed, .. }) => Some((query.name.clone(), needed.clone())),
            _ => None,
        })
        .collect();
    let mut depths = HashMap::new();
    for name in &names {
        let mut chain = vec![name.as_str()];
        while let Some(needed) = chain.last().and_then(|last| needs.get(*last)) {
            if !names.contains(needed) {
                let at = chain.last().copied().unwrap_or(name);
                return Err(fault(
                    at,
                    format!("`for-each` names the query `{}`, which there is not", needed.escape_debug()),
                )
                .hint(nearest(needed, names.iter().map(String::as_str))));
            }
            if chain.contains(&needed.as_str()) {
                chain.push(needed);
                return Err(fault(name, format!("queries wait for each other: {}", chain.join(" → "))));
            }
            chain.push(needed);
        }
        depths.insert(name.clone(), chain.len());
    }
    let mut sorted = queries;
    sorted.sort_by_key(|query| depths[&query.name]);
    Ok(sorted)
}
