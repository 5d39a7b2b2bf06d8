//! Functions of jq's that jaq has not, or gives otherwise than gojq does.
//!
//! Knows: paths that create what is missing, texts of values, regular expressions. Does not know: how filters call them
//! (`prelude.jq`, `rewrite`).

mod paths;
mod regex;
mod text;

use jaq_core::native::{Filter, Fun, bome, run, v};
use jaq_core::{Bind, Exn, RunPtr, data};
use jaq_json::{Num, Rc, Val};

use paths::{delete_paths, get_path, set_path};
use text::{as_text, joined, replaced, to_json};

type Error = jaq_core::Error<Val>;
type Data = data::JustLut<Val>;
type ValR = Result<Val, Error>;

/// Functions of jaq's that the prelude calls by another name.
pub(super) const RENAMED: &[(&str, &str)] = &[
    ("limit", "_limit"),
    ("indices", "_indices"),
    ("implode", "_implode"),
    ("fromjson", "_fromjson"),
    ("strftime", "_strftime"),
    ("strptime", "_strptime"),
    ("mktime", "_mktime"),
];

/// Functions and definitions of jaq's that these replace.
pub(super) const REPLACED: &[&str] = &["delpaths", "getpath", "setpath", "tojson", "tonumber", "tostring"];

fn text(value: &str) -> Val {
    Val::utf8_str(value.as_bytes().to_vec())
}

fn kind(value: &Val) -> &'static str {
    match value {
        Val::Null => "null",
        Val::Bool(_) => "boolean",
        Val::Num(_) => "number",
        Val::BStr(_) | Val::TStr(_) => "string",
        Val::Arr(_) => "array",
        Val::Obj(_) => "object",
    }
}

/// All of them.
pub(super) fn funs() -> Vec<Fun<Data>> {
    let all: Vec<Filter<RunPtr<Data>>> = vec![
        ("tojson", v(0), |cv| bome(Ok(text(&to_json(&cv.1))))),
        ("tostring", v(0), |cv| bome(Ok(as_text(cv.1)))),
        ("tonumber", v(0), |cv| bome(to_number(cv.1))),
        ("_div", v(1), |mut cv| bome(divided(cv.1, cv.0.pop_var()))),
        ("_mod", v(1), |mut cv| bome(remainder(cv.1, cv.0.pop_var()))),
        ("_join", v(1), |mut cv| bome(joined(&cv.1, &cv.0.pop_var()))),
        ("_replaced", v(2), |mut cv| {
            let (to, from) = (cv.0.pop_var(), cv.0.pop_var());
            bome(Ok(replaced(cv.1, &from, &to)))
        }),
        ("_flatten", v(1), |mut cv| bome(flattened(cv.1, &cv.0.pop_var()))),
        ("getpath", v(1), |mut cv| bome(get_path(cv.1, &cv.0.pop_var()))),
        ("setpath", v(2), |mut cv| {
            let (value, path) = (cv.0.pop_var(), cv.0.pop_var());
            bome(paths::of(&path).and_then(|path| set_path(cv.1, path, value)))
        }),
        ("delpaths", v(1), |mut cv| bome(paths::of(&cv.0.pop_var()).and_then(|paths| delete_paths(cv.1, paths)))),
        ("_match", v(2), |mut cv| {
            let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
            bome(regex::matches(&cv.1, &pattern, &flags))
        }),
        ("_pieces", v(2), |mut cv| {
            let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
            bome(regex::pieces(&cv.1, &pattern, &flags))
        }),
        ("_modify", [Bind::Fun(()), Bind::Fun(())].into(), |mut cv| {
            let ((new, new_context), (paths, paths_context)) = (cv.0.pop_fun(), cv.0.pop_fun());
            #[allow(clippy::default_trait_access, reason = "the type of the empty path has no public name")]
            let all: Result<Vec<Vec<Val>>, Exn<'_, Val>> = paths
                .paths((paths_context, (cv.1.clone(), Default::default())))
                .map(|found| {
                    let mut path: Vec<Val> = found?.1.iter().cloned().collect();
                    path.reverse();
                    Ok(path)
                })
                .collect();
            let first = |old: Val| new.run((new_context.clone(), old)).next().transpose();
            Box::new(std::iter::once(all.and_then(|all| paths::modified(cv.1, all, first))))
        }),
    ];
    all.into_iter().map(|fun| run::<Data>(fun)).collect()
}

/// A number as Go's float64 or a whole number, whichever it is.
pub(super) fn number(value: f64) -> Val {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        Val::Num(Num::Int(value as isize))
    } else {
        Val::Num(Num::Float(value))
    }
}

/// The same value with numbers that JSON has.
pub(super) fn finite(value: &Val) -> Val {
    match value {
        Val::Num(Num::Float(float)) if float.is_nan() => Val::Null,
        Val::Num(Num::Float(float)) if float.is_infinite() => Val::Num(Num::Float(f64::MAX.copysign(*float))),
        Val::Arr(items) => items.iter().map(finite).collect(),
        Val::Obj(fields) => Val::Obj(Rc::new(fields.iter().map(|(key, value)| (key.clone(), finite(value))).collect())),
        other => other.clone(),
    }
}

fn float(number: &Num) -> f64 {
    match number {
        Num::Int(int) => *int as f64,
        Num::BigInt(int) => int.to_string().parse().unwrap_or(f64::NAN),
        Num::Float(float) => *float,
        Num::Dec(text) => text.parse().unwrap_or(f64::NAN),
    }
}

fn to_number(value: Val) -> ValR {
    let fail = |value: &Val| Err(Error::str(format_args!("{value} cannot be parsed as a number")));
    let bytes = match &value {
        Val::Num(_) => return Ok(value),
        Val::TStr(bytes) | Val::BStr(bytes) => bytes,
        _ => return fail(&value),
    };
    let of_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| of_number(&b)));
    match text.and_then(|text| text.parse::<f64>().ok().map(|float| (text, float))) {
        None => fail(&value),
        Some((text, _)) if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
            Ok(Num::from_str_radix(text, 10).map_or(Val::Null, Val::Num))
        }
        Some((_, float)) => Ok(number(float)),
    }
}

fn divided(left: Val, right: Val) -> ValR {
    match (&left, &right) {
        (Val::Num(_), Val::Num(by)) if float(by) == 0.0 => {
            Err(Error::str(format_args!("{left} cannot be divided by {right}: it is zero")))
        }
        (Val::Num(Num::Int(left)), Val::Num(Num::Int(by))) if left.checked_rem(*by) == Some(0) => {
            Ok(Val::Num(Num::Int(left / by)))
        }
        (Val::Num(left), Val::Num(by)) => Ok(number(float(left) / float(by))),
        (Val::TStr(whole), Val::TStr(by)) if whole.is_empty() && !by.is_empty() => Ok([text("")].into_iter().collect()),
        _ => left / right,
    }
}

/// Of the whole parts of both, as jq does.
fn remainder(left: Val, right: Val) -> ValR {
    let (Val::Num(a), Val::Num(b)) = (&left, &right) else { return left % right };
    let (a, b) = (float(a), float(b));
    if a.is_nan() || b.is_nan() {
        return Ok(Val::Num(Num::Float(f64::NAN)));
    }
    let (a, b) = (a.trunc() as i64, b.trunc() as i64);
    match a.checked_rem(b) {
        Some(rest) => Ok(Val::Num(Num::Int(rest as isize))),
        None if b == -1 => Ok(Val::Num(Num::Int(0))),
        None => Err(Error::str(format_args!("{left} cannot be divided by {right}: it is zero"))),
    }
}

fn flattened(value: Val, depth: &Val) -> ValR {
    fn into(items: &[Val], depth: f64, out: &mut Vec<Val>) {
        for item in items {
            match item {
                Val::Arr(inner) if depth >= 1.0 => into(inner, depth - 1.0, out),
                Val::Arr(inner) if depth > 0.0 => out.extend(inner.iter().cloned()),
                other => out.push(other.clone()),
            }
        }
    }
    let Val::Num(depth) = depth else { return Err(Error::str("flatten takes a number")) };
    let mut out = Vec::new();
    match &value {
        Val::Arr(items) => into(items, float(depth), &mut out),
        Val::Obj(fields) => into(&fields.values().cloned().collect::<Vec<_>>(), float(depth), &mut out),
        other => return Err(Error::str(format_args!("{} cannot be flattened", kind(other)))),
    }
    Ok(out.into_iter().collect())
}
