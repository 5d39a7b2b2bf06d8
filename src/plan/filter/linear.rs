//! Which filters take time and memory in proportion to their input, whatever it is: they need no process of their own.
//!
//! Knows: a bound on the work of each form of a filter; everything else counts as unbounded. Does not know: running.
//!
//! The work and the outputs' size of a filter are at most `factor` times the size of its input. Factors of a pipe
//! multiply. Where outputs of two parts are combined each with each (`{a: .[], b: .[]}`), that holds only if at
//! most one of them gives several.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Part, Path};

use crate::json::MAX_DEPTH;

/// The largest factor.
pub(super) const MAX_FACTOR: u64 = 256;

/// Terms within terms, so that running recurses no deeper.
const MAX_NESTING: usize = 50;

/// What a term costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    factor: u64,
    /// Whether it gives one output at most.
    single: bool,
    /// Whether its outputs have nothing of the input's size.
    constant: bool,
}

const ONE: Cost = Cost { factor: 1, single: true, constant: false };

/// How many times the size of its input `term` takes of time and outputs; `None` where that has no bound.
pub(super) fn factor(term: &Term<&str>) -> Option<u64> {
    cost(term, MAX_NESTING).map(|cost| cost.factor)
}

impl Cost {
    fn constant() -> Self {
        Self { constant: true, ..ONE }
    }

    fn with(self, factor: u64) -> Option<Self> {
        let factor = self.factor.checked_mul(factor).filter(|factor| *factor <= MAX_FACTOR)?;
        Some(Self { factor, ..self })
    }

    /// Both, one after the other.
    fn and(self, other: Self) -> Option<Self> {
        let factor = self.factor + other.factor;
        let both = Self { factor, single: self.single && other.single, constant: self.constant && other.constant };
        both.with(1)
    }

    /// Each output of one with each of the other.
    fn combined(self, other: Self) -> Option<Self> {
        let bounded = [self, other].iter().all(|part| part.single)
            || [self, other].iter().any(|part| part.single && part.constant);
        if bounded { self.and(other) } else { None }
    }
}

fn cost(term: &Term<&str>, levels: usize) -> Option<Cost> {
    let levels = levels.checked_sub(1)?;
    let of = |term: &Term<&str>| cost(term, levels);
    match term {
        Term::Id => Some(ONE),
        Term::Recurse => Some(Cost { factor: MAX_DEPTH as u64, single: false, constant: false }),
        Term::Num(_) | Term::Arr(None) => Some(Cost::constant()),
        Term::Str(format, parts) => {
            let factor = match format {
                None => 2,
                Some(format) => format_factor(format)?,
            };
            let parts = parts.iter().filter_map(|part| match part {
                StrPart::Term(term) => Some(term),
                StrPart::Str(_) | StrPart::Char(_) => None,
            });
            let mut all = Cost::constant();
            for part in parts {
                all = all.combined(of(part)?.with(factor)?)?;
            }
            Some(all)
        }
        Term::Arr(Some(inner)) => Some(Cost { single: true, ..of(inner)?.with(2)? }),
        Term::Obj(entries) => {
            let mut all = Cost::constant();
            for (key, value) in entries {
                // A key that is computed may be none.
                literal(key)?;
                all = all.combined(value.as_ref().map_or(Some(ONE), of)?)?;
            }
            Some(all)
        }
        Term::Neg(inner) => of(inner),
        Term::TryCatch(inner, catch) => {
            of(inner)?.and(catch.as_ref().map_or(Some(Cost::constant()), |catch| of(catch))?)
        }
        Term::IfThenElse(branches, otherwise) => {
            let mut all = otherwise.as_ref().map_or(Some(ONE), |otherwise| of(otherwise))?;
            for (condition, then) in branches {
                let condition = of(condition).filter(|condition| condition.single)?;
                all = all.and(Cost { constant: true, ..condition })?.and(of(then)?)?;
            }
            Some(all)
        }
        Term::BinOp(left, op, right) => binary(left, op, right, of),
        Term::Path(inner, Path(parts)) => {
            let mut all = of(inner)?;
            for (part, _) in parts {
                match part {
                    Part::Index(index) => literal(index)?,
                    Part::Range(None, None) => all.single = false,
                    Part::Range(from, to) => from.iter().chain(to).try_for_each(literal)?,
                }
            }
            Some(all)
        }
        Term::Call(name, args) => call(name, args, of),
        Term::Label(..) | Term::Break(_) | Term::Fold(..) | Term::Def(..) | Term::Var(_) => None,
    }
}

fn binary(
    left: &Term<&str>,
    op: &BinaryOp<&str>,
    right: &Term<&str>,
    of: impl Fn(&Term<&str>) -> Option<Cost>,
) -> Option<Cost> {
    let (left_cost, right_cost) = (of(left)?, of(right)?);
    match op {
        BinaryOp::Pipe(None) => {
            let single = left_cost.single && right_cost.single;
            let constant = left_cost.constant || (right_cost.constant && left_cost.single);
            Some(Cost { factor: 1, single, constant }.with(left_cost.factor)?.with(right_cost.factor)?)
        }
        BinaryOp::Comma => Some(Cost { single: false, ..left_cost.and(right_cost)? }),
        BinaryOp::Alt => left_cost.and(right_cost),
        BinaryOp::Or | BinaryOp::And | BinaryOp::Cmp(_) => {
            Some(Cost { constant: left_cost.single && right_cost.single, ..left_cost.combined(right_cost)? })
        }
        BinaryOp::Math(Math::Mul) => {
            // A text times a number is that text so many times.
            let times = [left, right].into_iter().find_map(|term| match term {
                Term::Num(number) => number.parse::<f64>().ok().filter(|number| (0.0..=256.0).contains(number)),
                _ => None,
            })?;
            left_cost.combined(right_cost)?.with((times.ceil() as u64).max(1))
        }
        BinaryOp::Math(_) => left_cost.combined(right_cost)?.with(2),
        BinaryOp::Pipe(Some(_))
        | BinaryOp::Assign
        | BinaryOp::Update
        | BinaryOp::UpdateMath(_)
        | BinaryOp::UpdateAlt => None,
    }
}

/// A name or a number that stands in the filter.
fn literal(term: &Term<&str>) -> Option<()> {
    match term {
        Term::Num(_) => Some(()),
        Term::Neg(inner) if matches!(**inner, Term::Num(_)) => Some(()),
        Term::Str(None, parts) => parts.iter().all(|part| !matches!(part, StrPart::Term(_))).then_some(()),
        _ => None,
    }
}

fn format_factor(name: &str) -> Option<u64> {
    match name {
        "@text" | "@json" | "@base64" => Some(2),
        "@uri" | "@html" | "@sh" => Some(8),
        _ => None,
    }
}

fn call(name: &str, args: &[Term<&str>], of: impl Fn(&Term<&str>) -> Option<Cost>) -> Option<Cost> {
    let arg = match args {
        [] => return named(name),
        [arg] => arg,
        _ => return None,
    };
    let cost = of(arg)?;
    let single = Some(cost).filter(|cost| cost.single);
    match name {
        "map" => Some(Cost { single: true, constant: false, ..cost.with(2)? }),
        "select" => Some(Cost { single: true, constant: false, factor: single?.factor + 1 }),
        "sort_by" | "group_by" | "unique_by" | "min_by" | "max_by" => {
            Some(Cost { single: true, constant: false, ..single?.with(4)? })
        }
        "any" | "all" => Some(Cost { constant: true, ..single?.with(2)? }),
        "has" | "startswith" | "endswith" | "contains" => literal(arg).map(|()| Cost::constant()),
        "ltrimstr" | "rtrimstr" => literal(arg).map(|()| ONE),
        "split" => literal(arg).and_then(|()| ONE.with(4)),
        // What it deletes it takes out of a copy.
        "del" => Some(Cost { single: true, constant: false, factor: 1 }.with(cost.factor.checked_mul(4)?)?),
        _ => None,
    }
}

fn named(name: &str) -> Option<Cost> {
    match name {
        "null" | "true" | "false" | "empty" | "not" | "length" | "utf8bytelength" | "type" | "any" | "all" | "now" => {
            Some(Cost::constant())
        }
        "values" | "nulls" | "booleans" | "numbers" | "strings" | "arrays" | "objects" | "iterables" | "scalars"
        | "first" | "last" | "min" | "max" | "floor" | "ceil" | "round" | "abs" | "trim" | "ltrim" | "rtrim"
        | "reverse" | "ascii_downcase" | "ascii_upcase" | "todate" | "fromdate" => Some(ONE),
        "keys" | "keys_unsorted" | "tostring" | "tojson" | "sort" | "add" => ONE.with(2),
        "to_entries" | "unique" => ONE.with(4),
        format => ONE.with(format_factor(format)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(text: &str) -> bool {
        factor(&jaq_core::load::parse(text, |parser| parser.term()).unwrap_or_else(|| panic!("{text}"))).is_some()
    }

    #[test]
    fn what_plans_usually_hold_needs_no_process_of_its_own() {
        for text in [
            ".",
            ".tag_name",
            ".[].full_name",
            "[.[] | {number, title}]",
            "{queued: .[0].total_count, in_progress: .[1].total_count}",
            "{idle: [.runners[] | select(.status == \"online\" and (.busy | not))] | length, all: .total_count}",
            "[.[] | select(.pull_request == null and .comments == 0) | {number, title, author: .user.login}]",
            "[.[].author] | unique | .[]",
            ".[] | select(.archived | not) | .full_name",
            "map({number, labels: [.labels[].name]})",
            "to_entries | map(select(.value | type == \"string\")) | map(.key)",
            "\"\\(.a) and \\(.b // \"none\")\"",
            "[.a, .b] | add",
            ".[2:5] | length",
            ".. | objects | .email?",
            "if .a then .b elif .c > 3 then [.d] else empty end",
            "[.[] | .name | ascii_downcase | split(\"-\") | .[0]]",
            "[(.a), (.b)]",
            "sort_by(.created_at) | reverse | .[0].id",
            "del(.[].author.email)",
            ".n * 60",
            "try .a catch \"none\"",
        ] {
            assert!(linear(text), "{text}");
        }
    }

    #[test]
    fn what_can_grow_does() {
        for text in [
            "def f: f; f",
            "[range(1e9)]",
            "[limit(1e9; repeat(1))]",
            "\"x\" * 1e9",
            "[.[] * 1e9]",
            ".a * .b",
            "[., .] | [., .] | [., .] | [., .] | [., .] | [., .] | [., .] | [., .] | [., .]",
            "[.. | ..]",
            "{a: .[], b: .[]}",
            "[.[] as $a | .[] as $b | 1]",
            "reduce .[] as $x (.; [.])",
            "foreach .[] as $x (0; . + 1)",
            "until(false; .)",
            "while(true; .)",
            "recurse(.)",
            "[.[] + .[]]",
            ".[] == .[]",
            "[.[] | $__loc__]",
            "fromjson",
            "tonumber",
            "combinations",
            "test(\"(a*)*b\")",
            "label $x | break $x",
            ".a |= .",
            ".[.a]",
            "walk(.)",
            "input",
            "env",
            "{(.a): 1}",
        ] {
            assert!(!linear(text), "{text}");
        }
        assert!(!linear(&format!("{}.{}", "[".repeat(60), "]".repeat(60))));
    }
}
