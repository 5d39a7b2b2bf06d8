//! Filters as gojq would read them: terms that jaq understands otherwise, written as calls.
//!
//! Knows: assignments that create what is missing, numbers' division, texts within texts. Does not know: what the calls do
//! (`prelude.jq`, `native`).

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Opt, Part, Path};

/// A value that a rewritten term binds; no filter of a person's has this name.
const BOUND: &str = "$__value";

type T<'a> = Term<&'a str>;

/// Rewrites the body of a definition.
pub(super) fn definition<'a>(def: Def<&'a str, T<'a>>, with_environment: bool) -> Def<&'a str, T<'a>> {
    Def { body: Rewrite { with_environment }.term(def.body), ..def }
}

/// Rewrites a filter.
pub(super) fn filter(term: T<'_>, with_environment: bool) -> T<'_> {
    Rewrite { with_environment }.term(term)
}

#[derive(Clone, Copy)]
struct Rewrite {
    with_environment: bool,
}

impl Rewrite {
    #[allow(clippy::boxed_local, reason = "terms hold boxes")]
    fn boxed(self, term: Box<T<'_>>) -> Box<T<'_>> {
        Box::new(self.term(*term))
    }

    fn all(self, terms: Vec<T<'_>>) -> Vec<T<'_>> {
        terms.into_iter().map(|term| self.term(term)).collect()
    }

    fn term(self, term: T<'_>) -> T<'_> {
        match term {
            Term::BinOp(left, op, right) => self.binary(*left, op, *right),
            Term::Str(format, parts) => {
                Term::Str(format, parts.into_iter().map(|part| self.part(format, part)).collect())
            }
            Term::Path(inner, Path(parts)) => self.path(*inner, parts),
            Term::Var("$ENV") if self.with_environment => call("env", Vec::new()),
            Term::Id | Term::Recurse | Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => term,
            Term::Arr(Some(inner)) => Term::Arr(Some(self.boxed(inner))),
            Term::Obj(entries) => {
                let entry = |(key, value): (_, Option<_>)| (self.term(key), value.map(|value| self.term(value)));
                Term::Obj(entries.into_iter().map(entry).collect())
            }
            Term::Neg(inner) => Term::Neg(self.boxed(inner)),
            Term::Label(name, inner) => Term::Label(name, self.boxed(inner)),
            Term::Fold(name, source, pattern, terms) => {
                Term::Fold(name, self.boxed(source), self.pattern(pattern), self.all(terms))
            }
            Term::TryCatch(inner, catch) => Term::TryCatch(self.boxed(inner), catch.map(|catch| self.boxed(catch))),
            Term::IfThenElse(branches, otherwise) => {
                let branch = |(condition, then)| (self.term(condition), self.term(then));
                let branches = branches.into_iter().map(branch).collect();
                Term::IfThenElse(branches, otherwise.map(|otherwise| self.boxed(otherwise)))
            }
            Term::Def(defs, inner) => {
                let defs = defs.into_iter().map(|def| definition(def, self.with_environment)).collect();
                Term::Def(defs, self.boxed(inner))
            }
            Term::Call(name, args) => Term::Call(name, self.all(args)),
        }
    }

    /// A value within a text is written as `tostring` writes it.
    fn part<'a>(self, format: Option<&str>, part: StrPart<&'a str, T<'a>>) -> StrPart<&'a str, T<'a>> {
        match part {
            StrPart::Term(term) if format.is_none() => {
                StrPart::Term(pipe(self.term(term), call("tostring", Vec::new())))
            }
            StrPart::Term(term) => StrPart::Term(self.term(term)),
            other => other,
        }
    }

    fn pattern(self, pattern: Pattern<&str>) -> Pattern<&str> {
        match pattern {
            Pattern::Var(_) => pattern,
            Pattern::Arr(items) => Pattern::Arr(items.into_iter().map(|item| self.pattern(item)).collect()),
            Pattern::Obj(entries) => {
                let entry = |(key, value)| (self.term(key), self.pattern(value));
                Pattern::Obj(entries.into_iter().map(entry).collect())
            }
        }
    }

    fn binary<'a>(self, left: T<'a>, op: BinaryOp<&'a str>, right: T<'a>) -> T<'a> {
        let (left, right) = (self.term(left), self.term(right));
        match op {
            BinaryOp::Assign => bind(right, call("_modify", vec![left, Term::Var(BOUND)])),
            BinaryOp::Update => call("_modify", vec![left, right]),
            BinaryOp::UpdateMath(op) => {
                bind(right, call("_modify", vec![left, arithmetic(Term::Id, op, Term::Var(BOUND))]))
            }
            BinaryOp::UpdateAlt => {
                let value = Term::BinOp(Box::new(Term::Id), BinaryOp::Alt, Box::new(Term::Var(BOUND)));
                bind(right, call("_modify", vec![left, value]))
            }
            // Of several values on both sides, those on the right come one by one.
            BinaryOp::Math(op) if !is_single(&left) && !is_single(&right) => {
                bind(right, arithmetic(left, op, Term::Var(BOUND)))
            }
            BinaryOp::Math(op) => arithmetic(left, op, right),
            BinaryOp::Cmp(_) if !is_single(&left) && !is_single(&right) => {
                bind(right, Term::BinOp(Box::new(left), op, Box::new(Term::Var(BOUND))))
            }
            BinaryOp::Pipe(Some(pattern)) => {
                Term::BinOp(Box::new(left), BinaryOp::Pipe(Some(self.pattern(pattern))), Box::new(right))
            }
            BinaryOp::Pipe(None)
            | BinaryOp::Comma
            | BinaryOp::Alt
            | BinaryOp::Or
            | BinaryOp::And
            | BinaryOp::Cmp(_) => Term::BinOp(Box::new(left), op, Box::new(right)),
        }
    }

    /// A part of `null` is `null`: `.body[:80]` where there is no body.
    fn path<'a>(self, inner: T<'a>, parts: Vec<(Part<T<'a>>, Opt)>) -> T<'a> {
        let (mut term, mut before) = (self.term(inner), Vec::new());
        for (part, opt) in parts {
            match part {
                Part::Range(from, to)
                    if (from.is_some() || to.is_some()) && [&from, &to].into_iter().flatten().all(is_bound) =>
                {
                    let whole = if before.is_empty() {
                        term
                    } else {
                        Term::Path(Box::new(term), Path(std::mem::take(&mut before)))
                    };
                    let slice = Term::Path(Box::new(Term::Id), Path(vec![(Part::Range(from, to), opt)]));
                    term = pipe(whole, unless_null(slice));
                }
                Part::Range(from, to) => {
                    before.push((Part::Range(from.map(|from| self.term(from)), to.map(|to| self.term(to))), opt));
                }
                Part::Index(index) => before.push((Part::Index(self.term(index)), opt)),
            }
        }
        if before.is_empty() { term } else { Term::Path(Box::new(term), Path(before)) }
    }
}

fn call<'a>(name: &'a str, args: Vec<T<'a>>) -> T<'a> {
    Term::Call(name, args)
}

fn pipe<'a>(left: T<'a>, right: T<'a>) -> T<'a> {
    Term::BinOp(Box::new(left), BinaryOp::Pipe(None), Box::new(right))
}

/// `value as $__value | body`
fn bind<'a>(value: T<'a>, body: T<'a>) -> T<'a> {
    Term::BinOp(Box::new(value), BinaryOp::Pipe(Some(Pattern::Var(BOUND))), Box::new(body))
}

/// `if . == null then . else term end`
fn unless_null(term: T<'_>) -> T<'_> {
    let is_null =
        Term::BinOp(Box::new(Term::Id), BinaryOp::Cmp(jaq_core::ops::Cmp::Eq), Box::new(call("null", Vec::new())));
    Term::IfThenElse(vec![(is_null, Term::Id)], Some(Box::new(term)))
}

fn arithmetic<'a>(left: T<'a>, op: Math, right: T<'a>) -> T<'a> {
    match op {
        Math::Div => pipe_call(left, "_div", right),
        Math::Rem => pipe_call(left, "_mod", right),
        Math::Add | Math::Sub | Math::Mul => Term::BinOp(Box::new(left), BinaryOp::Math(op), Box::new(right)),
    }
}

/// `right as $__value | left | name($__value)`
fn pipe_call<'a>(left: T<'a>, name: &'a str, right: T<'a>) -> T<'a> {
    bind(right, pipe(left, call(name, vec![Term::Var(BOUND)])))
}

/// Whether a term has one output at most, as far as its form tells.
fn is_single(term: &T<'_>) -> bool {
    match term {
        Term::Id | Term::Num(_) | Term::Var(_) | Term::Arr(_) => true,
        Term::Str(_, parts) => parts.iter().all(|part| !matches!(part, StrPart::Term(_))),
        Term::Neg(inner) => is_single(inner),
        Term::Path(inner, Path(parts)) => {
            is_single(inner) && parts.iter().all(|(part, _)| !matches!(part, Part::Range(None, None)))
        }
        _ => false,
    }
}

/// A bound that stands in the filter, so that it is the same whatever it is evaluated on.
fn is_bound(term: &T<'_>) -> bool {
    match term {
        Term::Num(_) | Term::Var(_) => true,
        Term::Neg(inner) => is_bound(inner),
        _ => false,
    }
}
