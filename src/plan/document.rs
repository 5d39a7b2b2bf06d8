//! One JSON document from the pages of a listing.
//!
//! Knows: GitHub's two shapes of lists. Does not know: where pages come from.
//! Items are copied as text, so that numbers and escapes stay as GitHub wrote them.

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::value::RawValue;

/// Fields by which a page says that it is a part of the whole.
const PARTIAL_MARKS: &[&str] = &["incomplete_results", "truncated"];

/// Joins pages: arrays into one array; `{"total_count": …, "items": […]}` into one such object,
/// its lists joined and everything else as on the first page. If one page says that it is a part of the whole, so does the
/// document.
pub fn join(pages: &[Bytes]) -> Result<Bytes, String> {
    match pages {
        [] => Ok(Bytes::from_static(b"[]")),
        [one] if one.is_empty() => Ok(Bytes::from_static(b"[]")),
        [one] => Ok(one.clone()),
        [first, ..] if first.trim_ascii_start().starts_with(b"[") => join_arrays(pages),
        _ => join_objects(pages),
    }
}

fn join_arrays(pages: &[Bytes]) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(pages.iter().map(Bytes::len).sum());
    out.push(b'[');
    for page in pages {
        let inner = page.trim_ascii().strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
        let inner = inner.ok_or("a page of a list is no list")?.trim_ascii();
        if !inner.is_empty() {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(inner);
        }
    }
    out.push(b']');
    Ok(out.into())
}

fn join_objects(pages: &[Bytes]) -> Result<Bytes, String> {
    let mut whole: IndexMap<String, Box<RawValue>> = IndexMap::new();
    let mut lists: IndexMap<String, Vec<Bytes>> = IndexMap::new();
    for page in pages {
        let fields: IndexMap<String, Box<RawValue>> =
            serde_json::from_slice(page).map_err(|error| format!("a page of a list is no object: {error}"))?;
        for (name, value) in fields {
            if value.get().starts_with('[') {
                lists.entry(name.clone()).or_default().push(Bytes::copy_from_slice(value.get().as_bytes()));
            }
            if PARTIAL_MARKS.contains(&name.as_str()) && value.get() == "true" {
                whole.insert(name, value);
            } else {
                whole.entry(name).or_insert(value);
            }
        }
    }
    for (name, parts) in lists {
        let joined = String::from_utf8(join_arrays(&parts)?.into()).map_err(|error| error.to_string())?;
        whole.insert(name, RawValue::from_string(joined).map_err(|error| error.to_string())?);
    }
    serde_json::to_vec(&whole).map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pages: &[&str]) -> String {
        let pages: Vec<Bytes> = pages.iter().map(|page| Bytes::copy_from_slice(page.as_bytes())).collect();
        String::from_utf8(join(&pages).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn both_shapes_of_lists() {
        assert_eq!(joined(&["[1, 2]", " [ ] ", "[3.10]\n"]), "[1, 2,3.10]");
        assert_eq!(
            joined(&[r#"{"total_count":3,"runs":[{"id":1}]}"#, r#"{"total_count":3,"runs":[{"id":2},{"id":3}]}"#]),
            r#"{"total_count":3,"runs":[{"id":1},{"id":2},{"id":3}]}"#
        );
        assert_eq!(joined(&[r#"{"one":1}"#]), r#"{"one":1}"#);
        let page = |mark| format!(r#"{{"incomplete_results":{mark},"items":[1]}}"#);
        for (pages, mark) in [([false, true, false], true), ([true, false, false], true), ([false; 3], false)] {
            let pages = pages.map(page);
            let whole = joined(&pages.each_ref().map(String::as_str));
            assert_eq!(whole, format!(r#"{{"incomplete_results":{mark},"items":[1,1,1]}}"#));
        }
        assert_eq!((joined(&[]), joined(&[""])), ("[]".into(), "[]".into()));
        assert!(join(&["[1]".into(), "{}".into()]).is_err());
    }
}
