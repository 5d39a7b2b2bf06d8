//! `-f` and `-F`: values by name, nested by brackets.
//!
//! Knows: gh's grammar of keys and its conversions of values. Does not know: files, repositories; what
//! a value refers to is asked of whoever calls.

use serde_json::{Map, Value, json};

use super::go;
use crate::error::{Error, Result};

/// One flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `-f`: text.
    Raw(String),
    /// `-F`: numbers, booleans, `null`, `@file` and placeholders are more than text.
    Typed(String),
}

/// What typed values refer to.
pub trait Lookup {
    /// A file's text; `-` is the standard input.
    fn file(&mut self, name: &str) -> Result<String>;
    /// Text with its placeholders filled in.
    fn fill_in(&mut self, text: &str) -> Result<String>;
}

/// The values of all flags, raw ones first, as gh takes them.
pub fn read(fields: &[Field], lookup: &mut dyn Lookup) -> Result<Map<String, Value>> {
    let mut values = Map::new();
    let raw = fields.iter().filter(|field| matches!(field, Field::Raw(_)));
    let typed = fields.iter().filter(|field| matches!(field, Field::Typed(_)));
    for field in raw.chain(typed) {
        let (text, is_typed) = match field {
            Field::Raw(text) => (text, false),
            Field::Typed(text) => (text, true),
        };
        let (path, value) = split(text)?;
        let value = match value {
            None => Value::Array(Vec::new()),
            Some(text) if is_typed => typed_value(text, lookup)?,
            Some(text) => Value::String(text.to_owned()),
        };
        put(&mut values, &path, value)?;
    }
    Ok(values)
}

/// `a[b][]=c` as `a`, `b`, nothing, and `c`.
fn split(text: &str) -> Result<(Vec<&str>, Option<&str>)> {
    let invalid = || Error::usage(format!("invalid key: \"{text}\""));
    let end = text.find(['[', '=']).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut path = vec![name];
    while let Some(inner) = rest.strip_prefix('[') {
        let close = inner.find(']').ok_or_else(invalid)?;
        path.push(&inner[..close]);
        rest = &inner[close + 1..];
    }
    if name.is_empty() {
        return Err(invalid());
    }
    match rest.strip_prefix('=') {
        Some(value) => Ok((path, Some(value))),
        None if !rest.is_empty() => Err(invalid()),
        None if path.len() > 1 && path.last() == Some(&"") => {
            path.pop();
            Ok((path, None))
        }
        None => Err(Error::usage(format!("field \"{text}\" requires a value separated by an '=' sign"))),
    }
}

fn typed_value(text: &str, lookup: &mut dyn Lookup) -> Result<Value> {
    if let Some(name) = text.strip_prefix('@') {
        return lookup.file(name).map(Value::String);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && let Ok(number) = text.parse::<i64>()
    {
        return Ok(json!(number));
    }
    match text {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        "null" => Ok(Value::Null),
        _ => lookup.fill_in(text).map(Value::String),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn put(into: &mut Map<String, Value>, path: &[&str], value: Value) -> Result<()> {
    let [name, below @ ..] = path else { return Ok(()) };
    match below {
        [] => {
            into.insert((*name).to_owned(), value);
            Ok(())
        }
        // `a[]=1` appends; `a[][b]=1` fills the last object, or begins another.
        ["", below @ ..] => {
            let slot = into.entry((*name).to_owned()).or_insert_with(|| Value::Array(Vec::new()));
            let found = kind(slot);
            let Value::Array(items) = slot else {
                return Err(Error::usage(format!("expected array type under \"{name}\", got {found}")));
            };
            let Some(key) = below.first() else {
                items.push(value);
                return Ok(());
            };
            let goes_on = |last: &Value| {
                last.as_object()
                    .is_some_and(|last| last.get(*key).is_none_or(|there| there.is_array() && below.len() > 1))
            };
            if !items.last().is_some_and(goes_on) {
                items.push(Value::Object(Map::new()));
            }
            match items.last_mut() {
                Some(Value::Object(last)) => put(last, below, value),
                _ => Ok(()),
            }
        }
        _ => {
            let slot = into.entry((*name).to_owned()).or_insert_with(|| Value::Object(Map::new()));
            let found = kind(slot);
            let Value::Object(fields) = slot else {
                return Err(Error::usage(format!("expected map type under \"{name}\", got {found}")));
            };
            put(fields, below, value)
        }
    }
}

/// Values as a query, in order of name; what is nested loses the names above it, as with gh.
pub fn query(values: &Map<String, Value>) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    collect(values, &mut pairs);
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", go::query_escape(name), go::query_escape(value))).collect();
    pairs.join("&")
}

fn collect(values: &Map<String, Value>, pairs: &mut Vec<(String, String)>) {
    for (name, value) in values {
        match value {
            Value::Array(items) => items.iter().for_each(|item| pairs.push((format!("{name}[]"), plain(item)))),
            Value::Object(below) => collect(below, pairs),
            value => pairs.push((name.clone(), plain(value))),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The body of a REST request.
pub fn body(values: &Map<String, Value>) -> String {
    go::json(&Value::Object(values.clone()), go::Style { ints: true, ..go::Style::default() })
}

/// The body of a GraphQL request: everything but the document and the operation's name is a variable.
pub fn graphql_body(values: &Map<String, Value>) -> String {
    let (mut top, mut variables) = (Map::new(), Map::new());
    for (name, value) in values {
        let into = if matches!(name.as_str(), "query" | "operationName") { &mut top } else { &mut variables };
        into.insert(name.clone(), value.clone());
    }
    if !variables.is_empty() {
        top.insert("variables".into(), Value::Object(variables));
    }
    body(&top)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Lookup for Nothing {
        fn file(&mut self, name: &str) -> Result<String> {
            Ok(format!("text of {name}"))
        }
        fn fill_in(&mut self, text: &str) -> Result<String> {
            Ok(text.replace("{owner}", "o"))
        }
    }

    fn values(flags: &[(&str, &str)]) -> Result<String> {
        let fields: Vec<Field> = flags
            .iter()
            .map(|(flag, text)| if *flag == "-f" { Field::Raw((*text).into()) } else { Field::Typed((*text).into()) })
            .collect();
        read(&fields, &mut Nothing).map(|values| body(&values))
    }

    #[test]
    fn keys_nest_and_values_have_types() {
        let typed = values(&[
            ("-F", "n=007"),
            ("-F", "m=-3"),
            ("-F", "f=1.5"),
            ("-F", "t=true"),
            ("-F", "x=null"),
            ("-F", "o={owner}"),
        ]);
        assert_eq!(typed.unwrap(), r#"{"f":"1.5","m":-3,"n":7,"o":"o","t":true,"x":null}"#);
        assert_eq!(values(&[("-F", "a=@x"), ("-f", "b=@x"), ("-F", "a=1")]).unwrap(), r#"{"a":1,"b":"@x"}"#);
        let nested =
            values(&[("-f", "a[b][c]=1"), ("-f", "a[b][d]=2"), ("-F", "l[]=1"), ("-F", "l[]=x"), ("-f", "e[]")]);
        assert_eq!(nested.unwrap(), r#"{"a":{"b":{"c":"1","d":"2"}},"e":[],"l":[1,"x"]}"#);
        let objects = values(&[
            ("-f", "o[][k]=1"),
            ("-f", "o[][v]=2"),
            ("-f", "o[][k]=3"),
            ("-f", "o[][t][]=4"),
            ("-f", "o[][t][]=5"),
        ]);
        assert_eq!(objects.unwrap(), r#"{"o":[{"k":"1","v":"2"},{"k":"3","t":["4","5"]}]}"#);
        for (flags, words) in [
            (&[("-f", "a")][..], "requires a value"),
            (&[("-f", "a[b=1")], "invalid key"),
            (&[("-f", "a=1"), ("-f", "a[b]=2")], "expected map type under \"a\", got string"),
            (&[("-f", "a=1"), ("-f", "a[]=2")], "expected array type under \"a\", got string"),
        ] {
            assert!(values(flags).unwrap_err().to_string().contains(words), "{flags:?}");
        }
    }

    #[test]
    fn queries_and_graphql() {
        let fields: Vec<Field> =
            ["b=x y&z", "a=null", "l[]=1", "l[]=2", "n[m]=3"].iter().map(|text| Field::Typed((*text).into())).collect();
        let values = read(&fields, &mut Nothing).unwrap();
        assert_eq!(query(&values), "a=&b=x+y%26z&l%5B%5D=1&l%5B%5D=2&m=3");
        let fields = ["query={x}", "n=1"].map(|text| Field::Typed(text.into()));
        assert_eq!(graphql_body(&read(&fields, &mut Nothing).unwrap()), r#"{"query":"{x}","variables":{"n":1}}"#);
    }
}
