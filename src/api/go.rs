//! JSON and numbers as programs in Go write them, which is what gh's users see.
//!
//! Knows: `encoding/json`, `fmt` and `net/url` of Go as far as gh's output goes through them. Does not
//! know: where values come from.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::json::without_surrogates;

/// A number with its shortest digits, and an exponent below and from these powers of ten on.
fn float(number: f64, below: i32, from: i32) -> (String, bool) {
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent >= below && exponent < from {
        return (format!("{number}"), false);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    (format!("{digits}e{sign}{:02}", exponent.unsigned_abs()), true)
}

/// A number within JSON.
pub fn json_number(number: f64) -> String {
    match float(number, -6, 21) {
        // The one place where an exponent loses its leading zero.
        (text, true) => text.replace("e-0", "e-"),
        (text, false) => text,
    }
}

/// A number as `%v` of `fmt` prints it, in a template's output.
pub fn plain_number(number: f64) -> String {
    float(number, -4, 6).0
}

/// A number on a line of its own, as gh's jq prints it: whole ones in full, others with two decimals.
pub fn line_number(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// What a JSON number is to Go: a float64.
pub fn as_float(number: &serde_json::Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

/// How [`json`] writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Two spaces a level instead of none at all.
    pub indent: bool,
    /// Integers are Go's `int`, not numbers of a JSON document: every digit is written.
    pub ints: bool,
}

/// A value as `json.Marshal` writes it: keys in order, `<`, `>` and `&` escaped.
pub fn json(value: &Value, style: Style) -> String {
    let mut out = String::new();
    write_value(value, style, 0, &mut out);
    out
}

fn break_line(style: Style, depth: usize, out: &mut String) {
    if style.indent {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    }
}

fn write_value(value: &Value, style: Style, depth: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) if style.ints && (number.is_i64() || number.is_u64()) => {
            out.push_str(&number.to_string());
        }
        Value::Number(number) => out.push_str(&json_number(as_float(number))),
        Value::String(text) => write_string(text, out),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                break_line(style, depth + 1, out);
                write_value(item, style, depth + 1, out);
            }
            break_line(style, depth, out);
            out.push(']');
        }
        Value::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Value::Object(fields) => {
            out.push('{');
            for (at, (name, value)) in sorted(fields).into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                break_line(style, depth + 1, out);
                write_string(name, out);
                out.push_str(if style.indent { ": " } else { ":" });
                write_value(value, style, depth + 1, out);
            }
            break_line(style, depth, out);
            out.push('}');
        }
    }
}

/// JSON as gh gives it to its filters: to Go, objects are maps, in order of their keys from the start.
pub fn filter_input(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Value>(&without_surrogates(body)) {
        Ok(value) => json(&value, Style::default()).into_bytes(),
        Err(_) => body.to_vec(),
    }
}

/// An output of a filter as gh prints it: strings raw, numbers as Go's `fmt` has them, other values as its JSON.
pub fn filter_line(output: &[u8], style: Style) -> String {
    match serde_json::from_slice::<Value>(output) {
        Ok(Value::String(text)) => text,
        Ok(Value::Number(number)) => line_number(as_float(&number)),
        Ok(Value::Null) => String::new(),
        Ok(other) => json(&other, style),
        Err(_) => String::from_utf8_lossy(output).into_owned(),
    }
}

/// Fields in order of name, by bytes.
pub fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    fields
}

fn write_string(text: &str, out: &mut String) {
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
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _infallible = write!(out, "\\u{:04x}", c as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Text for a query, as `url.QueryEscape` writes it.
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            other => {
                let _infallible = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_those_of_go() {
        // As `fmt.Printf("%v")` and `json.Marshal` of Go 1.22 gave them.
        for (number, plain, in_json) in [
            (0.0, "0", "0"),
            (1500.0, "1500", "1500"),
            (1_234_567.0, "1.234567e+06", "1234567"),
            (1e20, "1e+20", "100000000000000000000"),
            (1e21, "1e+21", "1e+21"),
            (1.25, "1.25", "1.25"),
            (1e-5, "1e-05", "0.00001"),
            (1.5e-7, "1.5e-07", "1.5e-7"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17", "123456789012345680"),
            (100_000.0, "100000", "100000"),
            (-3.0, "-3", "-3"),
            (1e-4, "0.0001", "0.0001"),
        ] {
            assert_eq!((plain_number(number), json_number(number)), (plain.into(), in_json.into()));
        }
        assert_eq!([12_345_678.0, 0.125, 2.0].map(line_number), ["12345678", "0.12", "2"]);
    }

    #[test]
    fn json_has_its_keys_in_order_and_markup_escaped() {
        let value = json!({ "b": [1, { "z": null }], "a": "<&>\u{7}\u{2028}é\"", "c": {}, "d": [] });
        let compact = json(&value, Style::default());
        assert_eq!(compact, r#"{"a":"\u003c\u0026\u003e\u0007\u2028é\"","b":[1,{"z":null}],"c":{},"d":[]}"#);
        let indented = json(&json!({ "a": [1], "b": {} }), Style { indent: true, ..Style::default() });
        assert_eq!(indented, "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
        assert_eq!(query_escape("x y&z/é"), "x+y%26z%2F%C3%A9");
    }
}
