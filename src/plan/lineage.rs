//! What an item follows from (A11): the list element of the parent's result that it was taken
//! from, and those of its fields that prove everything derived from it unchanged.
//!
//! Knows: finding the element by the path of the item within the result. Does not know: entries,
//! freshness.

use serde_json::Value;
use serde_json::value::RawValue;

use super::filter::{Evaluator, Filter, Wait};
use crate::cid::Cid;
use crate::clock::Timestamp;

/// A field that changed less than so long ago proves little yet: GitHub derives things from it
/// (languages from a push) with some delay. What was answered meanwhile is looked at once more.
const SETTLING_SECS: u64 = 600;

/// Finds the fields of each item's element.
#[derive(Debug)]
pub struct Lineage {
    /// Gives `[item, fields]` for each item, by its path within the result.
    by_path: Filter,
    /// Gives the fields of an item that is an object itself.
    of_item: Filter,
}

/// An item, and what proves that nothing derived from it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The item.
    pub value: Value,
    /// Digest of the chosen fields; `None` where they prove nothing.
    pub fields: Option<Cid>,
}

impl Lineage {
    /// For items that the filter `items` gives. All texts were compiled by themselves before.
    pub fn new(items: &str, fields: &[&str], evaluator: &Evaluator) -> Result<Self, String> {
        let mut are_linear = Filter::bounded(items, evaluator)?.is_linear();
        for field in fields {
            are_linear &= Filter::bounded(field, evaluator)?.is_linear();
        }
        // What is put around them takes no more than they do.
        let compile = |text: &str| {
            if are_linear { Filter::around_linear(text, evaluator) } else { Filter::bounded(text, evaluator) }
        };
        let fields = fields.iter().map(|field| format!("({field})")).collect::<Vec<_>>().join(", ");
        // The innermost list element on the way to the item; without one, what the item is a part of.
        let by_path = format!(
            ". as $whole | path({items}) as $path
            | ([range($path | length) | select($path[.] | type == \"number\")] | last) as $at
            | (if $at == null then $path[:-1] else $path[:$at + 1] end) as $element
            | [($whole | getpath($path)), ($whole | getpath($element) | [{fields}])]"
        );
        Ok(Self { by_path: compile(&by_path)?, of_item: compile(&format!("[{fields}]"))? })
    }

    /// The items of a result with their proofs at `now`. `plain` gives the items alone.
    pub async fn items(&self, result: &[u8], plain: &Filter, now: Timestamp, wait: Wait) -> Result<Vec<Item>, String> {
        let item = |value: &[u8], fields: Option<&[u8]>| -> Result<Item, String> {
            let value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
            Ok(Item { value, fields: fields.and_then(|fields| proof(fields, now)) })
        };
        // Items that are made rather than taken have no path; then they must carry the fields.
        let Ok(pairs) = self.by_path.run_by(result, wait).await else {
            let mut items = Vec::new();
            for value in plain.run_by(result, wait).await? {
                let fields = self.of_item.run_by(&value, wait).await.ok().and_then(|mut fields| fields.pop());
                let fields =
                    fields.ok_or("`fresh-while` finds no fields: the items are neither parts of lists nor objects")?;
                items.push(item(&value, Some(&fields))?);
            }
            return Ok(items);
        };
        pairs
            .iter()
            .map(|pair| {
                let [value, fields]: [&RawValue; 2] =
                    serde_json::from_slice(pair).map_err(|error| error.to_string())?;
                item(value.get().as_bytes(), Some(fields.get().as_bytes()))
            })
            .collect()
    }
}

/// The digest of fields, unless none of them is there; another one while a change is recent.
fn proof(fields: &[u8], now: Timestamp) -> Option<Cid> {
    let values: Vec<Value> = serde_json::from_slice(fields).ok()?;
    let unsettled = |value: &Value| {
        let at: Option<Timestamp> = serde_json::from_value(value.clone()).ok();
        at.is_some_and(|at| now.since(at) < SETTLING_SECS)
    };
    if values.iter().all(Value::is_null) {
        return None;
    }
    let state = if values.iter().any(unsettled) { &b"unsettled"[..] } else { b"" };
    Some(Cid::of(&[state, fields].concat()))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn items(filter: &str, fields: &[&str], json: &str) -> Result<Vec<(String, Option<Cid>)>, String> {
        let plain = Filter::compile(filter).unwrap();
        let lineage = Lineage::new(filter, fields, &Evaluator::default()).unwrap();
        let items = lineage.items(json.as_bytes(), &plain, NOW, Wait::Blocking).now_or_never().unwrap()?;
        Ok(items.into_iter().map(|item| (item.value.to_string(), item.fields)).collect())
    }

    #[test]
    fn fields_of_the_list_element_that_an_item_comes_from() {
        let json = r#"[{"full_name":"a/b","pushed_at":"2026-01-01T00:00:00Z"},{"full_name":"a/c","pushed_at":null}]"#;
        let digest = Some(Cid::of(br#"["2026-01-01T00:00:00Z"]"#));
        let expected = vec![("\"a/b\"".to_owned(), digest), ("\"a/c\"".to_owned(), None)];
        for filter in [".[].full_name", ".[] | .full_name", ".[] | select(.x | not) | .full_name"] {
            assert_eq!(items(filter, &[".pushed_at"], json).unwrap(), expected, "{filter}");
        }
        // Whole elements, objects made of them, and elements of lists within.
        let whole = items(".[]", &[".pushed_at"], json).unwrap();
        assert_eq!(whole[0].1, digest);
        let made = items(".[] | {n: .full_name, pushed_at}", &[".pushed_at"], json).unwrap();
        assert_eq!(made[0].1, digest);
        let nested = r#"{"runs":[{"id":1,"jobs":[{"id":7,"status":"done"}]}]}"#;
        let nested = items(".runs[].jobs[].id", &[".status"], nested).unwrap();
        assert_eq!(nested, [("7".to_owned(), Some(Cid::of(br#"["done"]"#)))]);
    }

    #[test]
    fn what_changed_just_now_settles_and_what_is_not_there_proves_nothing() {
        let at = NOW.minus(SETTLING_SECS);
        let settled = format!(r#"[{{"n":1,"at":"{at}"}}]"#);
        let digest = |now| {
            let plain = Filter::compile(".[].n").unwrap();
            let lineage = Lineage::new(".[].n", &[".at"], &Evaluator::default()).unwrap();
            let items = lineage.items(settled.as_bytes(), &plain, now, Wait::Blocking).now_or_never().unwrap();
            items.unwrap()[0].fields.unwrap()
        };
        let early = digest(at.plus(1));
        assert_eq!(early, digest(at.plus(SETTLING_SECS - 1)));
        assert_ne!(early, digest(NOW), "once settled, it is looked at again");
        assert_eq!(digest(NOW), digest(NOW.plus(1_000_000)));
        assert!(items(".[].n", &[".at", ".none"], &settled).unwrap()[0].1.is_some());
        assert_eq!(items(".[].n", &[".none"], &settled).unwrap()[0].1, None);
        assert!(items(".[] | .n + 1", &[".at"], &settled).unwrap_err().contains("neither"));
    }
}
