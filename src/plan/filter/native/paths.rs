//! Reading, setting and deleting by path, as jq does: what is missing on the way is created.

use jaq_core::Exn;
use jaq_json::{Map, Num, Rc, Val};

use super::{Error, ValR, float, kind, text};

/// Arrays do not grow beyond this by an index.
const MAX_INDEX: usize = 1 << 24;

/// A step of a path into an array.
enum Step {
    At(usize),
    /// From the end, and before the beginning.
    Before,
    Slice(usize, usize),
}

/// The elements of a path, or the paths of a list.
pub(super) fn of(path: &Val) -> Result<&[Val], Error> {
    match path {
        Val::Arr(steps) => Ok(steps),
        other => Err(Error::str(format_args!("a path is an array, not {}", kind(other)))),
    }
}

/// The value at `path`; `null` where there is none.
pub(super) fn get_path(value: Val, path: &Val) -> ValR {
    of(path)?.iter().try_fold(value, get)
}

fn get(value: Val, step: &Val) -> ValR {
    match (&value, step) {
        (Val::Null, Val::TStr(_) | Val::BStr(_) | Val::Num(_) | Val::Obj(_)) => Ok(Val::Null),
        (Val::Obj(fields), Val::TStr(_)) => Ok(fields.get(step).cloned().unwrap_or_default()),
        (Val::Arr(items), Val::Num(_) | Val::Obj(_)) => Ok(match array_step(items.len(), step)? {
            Step::At(at) => items.get(at).cloned().unwrap_or_default(),
            Step::Before => Val::Null,
            Step::Slice(from, to) => items[from..to].iter().cloned().collect(),
        }),
        _ => Err(cannot(&value, step)),
    }
}

fn cannot(value: &Val, step: &Val) -> Error {
    Error::str(format_args!("{} has nothing at {step}", kind(value)))
}

fn array_step(len: usize, step: &Val) -> Result<Step, Error> {
    let bound = |bound: Option<&Val>, default: usize, up: bool| match bound {
        None | Some(Val::Null) => Ok(default),
        Some(Val::Num(number)) => {
            let at = float(number);
            let at = if up { at.ceil() } else { at.floor() };
            let at = if at < 0.0 { at + len as f64 } else { at };
            Ok(at.clamp(0.0, len as f64) as usize)
        }
        Some(other) => Err(Error::str(format_args!("{} is no bound of a slice", kind(other)))),
    };
    match step {
        Val::Num(number) => {
            let at = float(number).floor();
            let at = if at < 0.0 { at + len as f64 } else { at };
            Ok(if at < 0.0 { Step::Before } else { Step::At(at as usize) })
        }
        Val::Obj(fields) => {
            let from = bound(fields.get(&text("start")), 0, false)?;
            let to = bound(fields.get(&text("end")), len, true)?;
            Ok(Step::Slice(from.min(len), to.max(from).min(len)))
        }
        other => Err(Error::str(format_args!("an array has nothing at {}", kind(other)))),
    }
}

/// `value` with `new` at `path`.
pub(super) fn set_path(value: Val, path: &[Val], new: Val) -> ValR {
    let once = modify(value, path, &mut |_| Ok::<_, Exn<'_, Val>>(Some(new.clone())));
    once.map_err(|error| error.get_err().unwrap_or_else(|_| Error::str("a value cannot be set")))
}

/// `value` with each of `paths` exchanged for what `new` gives for it, or deleted where that is nothing.
pub(super) fn modified<'a>(
    mut value: Val,
    paths: Vec<Vec<Val>>,
    mut new: impl FnMut(Val) -> Result<Option<Val>, Exn<'a, Val>>,
) -> Result<Val, Exn<'a, Val>> {
    let mut empty: Vec<Val> = Vec::new();
    for path in paths {
        let mut is_gone = false;
        value = modify(value, &path, &mut |old| {
            let new = new(old)?;
            is_gone = new.is_none();
            Ok(new)
        })?;
        if is_gone {
            empty.push(path.into_iter().collect());
        }
    }
    if empty.is_empty() { Ok(value) } else { delete_paths(value, &empty).map_err(Exn::from) }
}

/// Exchanges what is at `path`; where `new` gives nothing, it stays.
fn modify<'a>(
    mut value: Val,
    path: &[Val],
    new: &mut dyn FnMut(Val) -> Result<Option<Val>, Exn<'a, Val>>,
) -> Result<Val, Exn<'a, Val>> {
    let Some((step, rest)) = path.split_first() else {
        return Ok(new(value.clone())?.unwrap_or(value));
    };
    if matches!(value, Val::Null) {
        value = match step {
            Val::TStr(_) => Val::Obj(Rc::new(Map::default())),
            Val::Num(_) | Val::Obj(_) => Val::Arr(Rc::new(Vec::new())),
            _ => return Err(cannot(&value, step).into()),
        };
    }
    match (&mut value, step) {
        (Val::Obj(fields), Val::TStr(_)) => {
            let fields = Rc::make_mut(fields);
            let old = fields.get_mut(step).map(std::mem::take);
            let was_there = old.is_some();
            let mut is_kept = true;
            let next = modify(old.unwrap_or_default(), rest, &mut |old| {
                let new = new(old)?;
                is_kept = new.is_some();
                Ok(new)
            })?;
            if was_there || is_kept {
                fields.insert(step.clone(), next);
            }
        }
        (Val::Arr(items), Val::Num(_) | Val::Obj(_)) => match array_step(items.len(), step)? {
            Step::Before => return Err(Error::str("an index lies before the beginning of its array").into()),
            Step::At(at) if at >= MAX_INDEX => return Err(Error::str("an index is too large").into()),
            Step::At(at) => {
                let items = Rc::make_mut(items);
                let old = items.get_mut(at).map(std::mem::take).unwrap_or_default();
                let mut is_kept = true;
                let next = modify(old, rest, &mut |old| {
                    let new = new(old)?;
                    is_kept = new.is_some();
                    Ok(new)
                })?;
                if at >= items.len() {
                    if !is_kept {
                        return Ok(value);
                    }
                    items.resize(at + 1, Val::Null);
                }
                items[at] = next;
            }
            Step::Slice(from, to) => {
                let old: Val = items[from..to].iter().cloned().collect();
                match modify(old, rest, new)? {
                    Val::Arr(inner) => drop(Rc::make_mut(items).splice(from..to, inner.iter().cloned())),
                    other => {
                        return Err(Error::str(format_args!("a slice becomes {}, not an array", kind(&other))).into());
                    }
                }
            }
        },
        _ => return Err(cannot(&value, step).into()),
    }
    Ok(value)
}

/// `value` without what is at `paths`; later places go first, so that earlier ones keep theirs.
pub(super) fn delete_paths(value: Val, paths: &[Val]) -> ValR {
    let mut sorted: Vec<&Val> = paths.iter().collect();
    sorted.sort();
    sorted.dedup();
    sorted.into_iter().rev().try_fold(value, |value, path| delete(value, of(path)?))
}

fn delete(mut value: Val, path: &[Val]) -> ValR {
    let Some((step, rest)) = path.split_first() else { return Ok(Val::Null) };
    match (&mut value, step) {
        (Val::Null, _) => {}
        (Val::Obj(fields), Val::TStr(_)) => {
            let fields = Rc::make_mut(fields);
            if rest.is_empty() {
                fields.shift_remove(step);
            } else if let Some(inner) = fields.get_mut(step) {
                *inner = delete(std::mem::take(inner), rest)?;
            }
        }
        (Val::Arr(items), Val::Num(Num::Int(_) | Num::Float(_) | Num::Dec(_)) | Val::Obj(_)) => {
            let step = array_step(items.len(), step)?;
            let items = Rc::make_mut(items);
            match step {
                Step::Before => {}
                Step::At(at) if at >= items.len() => {}
                Step::At(at) if rest.is_empty() => drop(items.remove(at)),
                Step::At(at) => items[at] = delete(std::mem::take(&mut items[at]), rest)?,
                Step::Slice(from, to) if rest.is_empty() => drop(items.drain(from..to)),
                Step::Slice(from, to) => {
                    let inner = delete(items[from..to].iter().cloned().collect(), rest)?;
                    if let Val::Arr(inner) = inner {
                        drop(items.splice(from..to, inner.iter().cloned()));
                    }
                }
            }
        }
        _ => return Err(cannot(&value, step)),
    }
    Ok(value)
}
