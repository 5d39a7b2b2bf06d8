//! Functions of templates: Go's own, and gh's.
//!
//! Knows: what each does. Does not know: parsing, control flow.

use serde_json::{Value, json};

use super::parse::{Base, Node, Operand, Pipe, Templates};
use super::{Run, go, printed, printf, shown, times, truth};

/// All names; another one is an error before anything runs.
const NAMES: &[&str] = &[
    "and",
    "or",
    "not",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "html",
    "js",
    "urlquery",
    "autocolor",
    "color",
    "join",
    "pluck",
    "timeago",
    "timefmt",
    "truncate",
    "hyperlink",
    "tablerow",
    "tablerender",
];

/// Columns that keep apart.
const GAP: &str = "  ";

/// Refuses functions that are not there.
pub(super) fn check(templates: &Templates) -> Result<(), String> {
    fn pipe(pipe: &Pipe) -> Result<(), String> {
        pipe.commands.iter().flatten().try_for_each(operand)
    }
    fn operand(operand: &Operand) -> Result<(), String> {
        match &operand.base {
            Base::Function(name) if !NAMES.contains(&name.as_str()) => {
                Err(format!("template: :1: function {name:?} not defined"))
            }
            Base::Pipe(inner) => pipe(inner),
            _ => Ok(()),
        }
    }
    fn nodes(all: &[Node]) -> Result<(), String> {
        all.iter().try_for_each(|node| match node {
            Node::Print(one) | Node::Template(_, Some(one)) => pipe(one),
            Node::If(one, body, otherwise) | Node::With(one, body, otherwise) | Node::Range(one, body, otherwise) => {
                pipe(one)?;
                nodes(body)?;
                nodes(otherwise)
            }
            Node::Text(_) | Node::Template(_, None) | Node::Break | Node::Continue => Ok(()),
        })
    }
    templates.values().try_for_each(|all| nodes(all))
}

/// Go's name for a value's type.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: Vec<Value>, run: &mut Run<'_>) -> Result<Value, String> {
    let failed = |what: String| format!("error calling {name}: {what}");
    let wrong = |count: usize| Err(format!("wrong number of args for {name}: want {count} got {}", arguments.len()));
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("wrong type for value; expected string; got {}", kind(other))),
    };
    match (name, arguments.as_slice()) {
        ("not", [value]) => Ok(json!(!truth(value))),
        ("len", [value]) => match value {
            Value::String(text) => Ok(json!(text.len())),
            Value::Array(items) => Ok(json!(items.len())),
            Value::Object(fields) => Ok(json!(fields.len())),
            other => Err(failed(format!("len of type {}", kind(other)))),
        },
        ("index", [value, keys @ ..]) => index(value, keys).map_err(failed),
        ("slice", [value, bounds @ ..]) => slice(value, bounds).map_err(failed),
        ("print", all) => Ok(json!(spaced(all, false))),
        ("println", all) => Ok(json!(spaced(all, true) + "\n")),
        ("printf", [Value::String(format), rest @ ..]) => Ok(json!(printf::format(format, rest))),
        ("eq", [one, others @ ..]) if !others.is_empty() => {
            for other in others {
                if equal(one, other).map_err(failed)? {
                    return Ok(json!(true));
                }
            }
            Ok(json!(false))
        }
        ("ne", [one, other]) => Ok(json!(!equal(one, other).map_err(failed)?)),
        ("lt", [one, other]) => Ok(json!(order(one, other).map_err(failed)?.is_lt())),
        ("le", [one, other]) => Ok(json!(order(one, other).map_err(failed)?.is_le())),
        ("gt", [one, other]) => Ok(json!(order(one, other).map_err(failed)?.is_gt())),
        ("ge", [one, other]) => Ok(json!(order(one, other).map_err(failed)?.is_ge())),
        ("html", all) => Ok(json!(html(&spaced(all, false)))),
        ("js", all) => Ok(json!(
            spaced(all, false).replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\"").replace('\n', "\\u000A")
        )),
        ("urlquery", all) => Ok(json!(go::query_escape(&spaced(all, false)))),
        ("join", [separator, list]) => match list {
            Value::Null => Ok(json!("")),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(cell).collect();
                Ok(json!(items.join(&text(separator)?)))
            }
            other => Err(format!("wrong type for value; expected []interface {{}}; got {}", kind(other))),
        },
        ("pluck", [field, Value::Array(items)]) => {
            let field = text(field)?;
            Ok(items.iter().map(|item| item.get(&field).cloned().unwrap_or(Value::Null)).collect())
        }
        ("autocolor" | "color", [style, value]) => {
            let plain = cell(value);
            Ok(json!(if run.surroundings.colour { coloured(&text(style)?, &plain) } else { plain }))
        }
        ("timeago", [at]) => times::ago(&text(at)?, run.surroundings.now).map(|text| json!(text)).map_err(failed),
        ("timefmt", [layout, at]) => {
            times::formatted(&text(layout)?, &text(at)?).map(|text| json!(text)).map_err(failed)
        }
        ("truncate", [max, value]) => {
            let max = max.as_f64().unwrap_or(0.0).max(0.0) as usize;
            match value {
                Value::Null => Ok(json!("")),
                Value::String(text) => Ok(json!(truncated(text, max))),
                other => Err(failed(format!("invalid value; expected string, got {}", kind(other)))),
            }
        }
        ("hyperlink", [address, label]) => {
            let (address, label) = (text(address)?, text(label)?);
            let label = if label.is_empty() { &address } else { &label };
            Ok(json!(format!("\u{1b}]8;;{address}\u{1b}\\{label}\u{1b}]8;;\u{1b}\\")))
        }
        ("tablerow", cells) => {
            run.rows.push(cells.iter().map(cell).collect());
            Ok(json!(""))
        }
        ("tablerender", []) => Ok(json!(table(&std::mem::take(run.rows)))),
        ("not" | "len" | "timeago", _) => wrong(1),
        (
            "ne" | "lt" | "le" | "gt" | "ge" | "join" | "pluck" | "timefmt" | "truncate" | "autocolor" | "color"
            | "hyperlink",
            _,
        ) => wrong(2),
        _ => Err(failed("wrong arguments".into())),
    }
}

/// A value as gh's own functions turn it into text: nothing for `null`, numbers as jq prints them.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(number) if number.is_f64() => go::line_number(go::as_float(number)),
        other => shown(other),
    }
}

/// As `fmt.Sprint` and `fmt.Sprintln` join: spaces between all, or only between what is no text.
fn spaced(values: &[Value], always: bool) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && (always || !(value.is_string() || values[at - 1].is_string())) {
            out.push(' ');
        }
        out.push_str(&if value.is_null() { "<nil>".to_owned() } else { printed(value) });
    }
    out
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value;
    for key in keys {
        value = match (value, key) {
            (Value::Object(fields), Value::String(name)) => fields.get(name).unwrap_or(&Value::Null),
            (Value::Array(items), Value::Number(at)) => {
                let at = at.as_f64().unwrap_or(-1.0);
                let found = if at >= 0.0 { items.get(at as usize) } else { None };
                found.ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::Null, _) => return Err("index of untyped nil".into()),
            (other, key) => return Err(format!("cannot index {} with {}", kind(other), kind(key))),
        };
    }
    Ok(value.clone())
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let len = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("slice of type {}", kind(other))),
    };
    let bound = |at: usize, default: usize| bounds.get(at).map_or(Some(default), |n| n.as_u64().map(|n| n as usize));
    let (Some(from), Some(to)) = (bound(0, 0), bound(1, len)) else { return Err("a bound is no number".into()) };
    if from > to || to > len {
        return Err(format!("index out of range: {}", from.max(to)));
    }
    match value {
        Value::Array(items) => Ok(Value::Array(items[from..to].to_vec())),
        Value::String(text) => Ok(json!(String::from_utf8_lossy(&text.as_bytes()[from..to]))),
        _ => Ok(Value::Null),
    }
}

fn equal(one: &Value, other: &Value) -> Result<bool, String> {
    match (one, other) {
        (Value::Null, _) | (_, Value::Null) => Ok(one.is_null() && other.is_null()),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            Err("non-comparable type".into())
        }
        _ if kind(one) != kind(other) => Err("incompatible types for comparison".into()),
        _ => Ok(one == other),
    }
}

fn order(one: &Value, other: &Value) -> Result<std::cmp::Ordering, String> {
    match (one, other) {
        _ if kind(one) != kind(other) => Err("incompatible types for comparison".into()),
        (Value::Number(one), Value::Number(other)) => {
            go::as_float(one).partial_cmp(&go::as_float(other)).ok_or_else(|| "not a number".into())
        }
        (Value::String(one), Value::String(other)) => Ok(one.cmp(other)),
        _ => Err("invalid type for comparison".into()),
    }
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// At most `max` columns, the end as an ellipsis where there is room for one.
fn truncated(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let tail = if max < 5 { "" } else { "..." };
    let kept: String = text.chars().take(max - tail.len()).collect();
    format!("{kept}{tail}")
}

/// Rows in columns.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < row.len() {
                out.push_str(&" ".repeat(widths[at].saturating_sub(width(cell))));
                out.push_str(GAP);
            }
        }
        out.push('\n');
    }
    out
}

/// `red`, `green+b`: a colour and attributes.
fn coloured(style: &str, text: &str) -> String {
    let (colour, attributes) = style.split_once('+').unwrap_or((style, ""));
    let colours = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    let attributes = attributes.split(':').next().unwrap_or_default();
    let base = if attributes.contains('h') { 90 } else { 30 };
    let code = colours.iter().position(|name| *name == colour).map_or(39, |at| base + at);
    let mut codes: Vec<String> = Vec::new();
    for (letter, number) in [('b', "1"), ('d', "2"), ('u', "4"), ('B', "5"), ('i', "7"), ('s', "9")] {
        if attributes.contains(letter) {
            codes.push(number.into());
        }
    }
    codes.push(code.to_string());
    format!("\u{1b}[{}m{text}\u{1b}[0m", codes.join(";"))
}
