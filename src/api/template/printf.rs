//! `printf` of Go's `fmt`, for the verbs that make sense of JSON.
//!
//! Knows: flags, width, precision. Does not know: templates.

use serde_json::Value;

use super::{go, shown};

/// Width and precision beyond this are a mistake.
const MAX_WIDTH: usize = 10_000;

/// Formats `values` by `format`.
pub(super) fn format(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values_left = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "+-# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut number = || {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok().map(|n| n.min(MAX_WIDTH))
        };
        let width = number().unwrap_or(0);
        let precision = if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            Some(digits.parse::<usize>().unwrap_or(0).min(MAX_WIDTH))
        } else {
            None
        };
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values_left.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let text = one(verb, value, precision, &flags);
        let missing = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.push_str(&" ".repeat(missing));
        } else if flags.contains('0') && value.is_number() {
            let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
            out.push_str(&format!("{sign}{}{digits}", "0".repeat(missing)));
        } else {
            out.push_str(&" ".repeat(missing));
            out.push_str(&text);
        }
    }
    let extra: Vec<String> =
        values_left.map(|value| format!("{}={}", super::functions::kind(value), shown(value))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// As `strconv.Quote` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

fn one(verb: char, value: &Value, precision: Option<usize>, flags: &str) -> String {
    let cut = |text: String| precision.map_or(text.clone(), |max| text.chars().take(max).collect());
    let plus = |text: String| if flags.contains('+') && !text.starts_with('-') { format!("+{text}") } else { text };
    match (verb, value) {
        ('v', value) => shown(value),
        ('s', Value::String(text)) => cut(text.clone()),
        ('q', Value::String(text)) => quoted(text),
        ('x', Value::String(text)) => data_encoding::HEXLOWER.encode(text.as_bytes()),
        ('t', Value::Bool(yes)) => yes.to_string(),
        ('d', Value::Number(number)) if !number.is_f64() => plus(number.to_string()),
        ('f' | 'F', Value::Number(number)) if number.is_f64() => {
            plus(format!("{:.*}", precision.unwrap_or(6), go::as_float(number)))
        }
        ('e' | 'g', Value::Number(number)) if number.is_f64() => go::plain_number(go::as_float(number)),
        ('x', Value::Number(number)) if !number.is_f64() => format!("{:x}", number.as_i64().unwrap_or(0)),
        ('s', Value::Array(_) | Value::Object(_)) => shown(value),
        (_, Value::Null) => format!("%!{verb}(<nil>)"),
        _ => format!("%!{verb}({}={})", super::functions::kind(value), shown(value)),
    }
}
