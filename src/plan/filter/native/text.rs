//! Values as text, as gojq writes them: keys in order, numbers as Go does.

use std::fmt::Write;

use jaq_json::{Num, Val};

use super::{Error, ValR, float, kind, text};

/// The largest number that JSON of Go's has; infinity is written as it.
const MAX: &str = "1.7976931348623157e+308";

/// What `tojson` gives.
pub(super) fn to_json(value: &Val) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// What `tostring` gives: texts as they are.
pub(super) fn as_text(value: Val) -> Val {
    match value {
        Val::TStr(_) | Val::BStr(_) => value,
        other => text(&to_json(&other)),
    }
}

/// Elements one after the other, with `by` between: `null` is nothing.
pub(super) fn joined(value: &Val, by: &Val) -> ValR {
    let Val::Arr(items) = value else { return Err(Error::str(format_args!("{} cannot be joined", kind(value)))) };
    let by = match by {
        Val::Null => String::new(),
        Val::TStr(bytes) | Val::BStr(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        // One element, or none, is joined by nothing.
        _ if items.len() < 2 => String::new(),
        other => return Err(Error::str(format_args!("nothing is joined by {}", kind(other)))),
    };
    let mut out = String::new();
    for (at, item) in items.iter().enumerate() {
        out.push_str(if at > 0 { &by } else { "" });
        match item {
            Val::Null => {}
            Val::TStr(bytes) | Val::BStr(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
            Val::Bool(_) | Val::Num(_) => write(item, &mut out),
            Val::Arr(_) | Val::Obj(_) => return Err(Error::str(format_args!("{} cannot be joined", kind(item)))),
        }
    }
    Ok(text(&out))
}

/// A text with each `from` replaced.
pub(super) fn replaced(value: Val, from: &Val, to: &Val) -> Val {
    match (&value, from, to) {
        (Val::TStr(bytes), Val::TStr(from), Val::TStr(to)) => {
            let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            text(&lossy(bytes).replace(&lossy(from), &lossy(to)))
        }
        _ => value,
    }
}

fn write(value: &Val, out: &mut String) {
    match value {
        Val::Null => out.push_str("null"),
        Val::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Val::Num(number) => write_number(number, out),
        Val::TStr(bytes) | Val::BStr(bytes) => write_text(&String::from_utf8_lossy(bytes), out),
        Val::Arr(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Val::Obj(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn write_number(number: &Num, out: &mut String) {
    match number {
        Num::Int(int) => drop(write!(out, "{int}")),
        Num::BigInt(int) => drop(write!(out, "{int}")),
        Num::Float(_) | Num::Dec(_) => match float(number) {
            nan if nan.is_nan() => out.push_str("null"),
            infinite if infinite.is_infinite() => {
                out.push_str(if infinite < 0.0 { "-" } else { "" });
                out.push_str(MAX);
            }
            finite => out.push_str(&go_float(finite)),
        },
    }
}

/// A number as Go's `encoding/json` writes it.
fn go_float(number: f64) -> String {
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-6..21).contains(&exponent) {
        return format!("{}", if number == 0.0 { 0.0 } else { number });
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    let width = if exponent < 0 { 1 } else { 2 };
    format!("{digits}e{sign}{:0width$}", exponent.unsigned_abs())
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || c == '\u{7f}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
