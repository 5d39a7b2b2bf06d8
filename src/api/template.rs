//! Go templates as `gh api --template` takes them: `text/template` over JSON, with gh's own functions.
//!
//! Knows: running a parsed template. Does not know: where JSON comes from.

mod functions;
mod parse;
mod printf;
mod times;

use std::fmt::Write;

use serde_json::Value;

use super::go;
use crate::clock::Timestamp;
use parse::{Base, Node, Operand, Pipe, Templates};

/// Output of one run is not grown beyond this.
const MAX_OUTPUT_BYTES: usize = 256 << 20;

/// Templates that call each other are followed this deep.
const MAX_DEPTH: usize = 200;

/// A template, and the table that its rows go into.
#[derive(Debug)]
pub struct Template {
    templates: Templates,
    rows: Vec<Vec<String>>,
    /// What functions may look at.
    surroundings: Surroundings,
}

/// What templates depend on beside their input.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    /// The time, for `timeago`.
    pub now: Timestamp,
    /// Whether to write colours.
    pub colour: bool,
}

/// Why a list of nodes ended early.
enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    templates: &'a Templates,
    rows: &'a mut Vec<Vec<String>>,
    surroundings: Surroundings,
    variables: Vec<(String, Value)>,
    out: String,
    depth: usize,
}

impl Template {
    /// Reads a template; the error says where it is wrong.
    pub fn parse(text: &str, surroundings: Surroundings) -> Result<Self, String> {
        let templates = parse::parse(text)?;
        functions::check(&templates)?;
        Ok(Self { templates, rows: Vec::new(), surroundings })
    }

    /// Runs over one JSON text. Rows of a table wait for [`Template::finish`].
    pub fn run(&mut self, json: &[u8]) -> Result<String, String> {
        let mut input: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        floats(&mut input);
        let mut run = Run {
            templates: &self.templates,
            rows: &mut self.rows,
            surroundings: self.surroundings,
            variables: vec![("$".to_owned(), input.clone())],
            out: String::new(),
            depth: 0,
        };
        let main = self.templates.get("").map(Vec::as_slice).unwrap_or_default();
        run.nodes(main, &input)?;
        Ok(run.out)
    }

    /// The rows that are left, as a table.
    pub fn finish(&mut self) -> String {
        functions::table(&std::mem::take(&mut self.rows))
    }
}

/// Go reads every number of JSON as a float64.
fn floats(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = serde_json::Number::from_f64(go::as_float(number)) {
                *number = float;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(floats),
        Value::Object(fields) => fields.values_mut().for_each(floats),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Whether a value counts as true: not zero, not empty.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => go::as_float(number) != 0.0,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as `{{.}}` prints it.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        value => shown(value),
    }
}

/// A value as `%v` prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) if number.is_f64() => go::plain_number(go::as_float(number)),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let pairs = go::sorted(fields).into_iter().map(|(name, value)| format!("{name}:{}", shown(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
    }
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            match self.node(node, dot)? {
                Flow::Next => {}
                early => return Ok(early),
            }
            if self.out.len() > MAX_OUTPUT_BYTES {
                return Err("the template's output is too large".into());
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        let before = self.variables.len();
        let flow = match node {
            Node::Text(text) => {
                self.out.push_str(text);
                return Ok(Flow::Next);
            }
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    let _infallible = self.out.write_str(&printed(&value));
                }
                // A variable that is declared here stays to the end of the block.
                return Ok(Flow::Next);
            }
            Node::If(pipe, body, otherwise) => {
                let value = self.pipe(pipe, dot)?;
                self.nodes(if truth(&value) { body } else { otherwise }, dot)?
            }
            Node::With(pipe, body, otherwise) => {
                let value = self.pipe(pipe, dot)?;
                if truth(&value) { self.nodes(body, &value)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range(pipe, body, otherwise) => {
                self.range(pipe, body, otherwise, dot)?;
                Flow::Next
            }
            Node::Template(name, pipe) => {
                let value = pipe.as_ref().map_or(Ok(Value::Null), |pipe| self.pipe(pipe, dot))?;
                let templates = self.templates;
                let nodes = templates.get(name).ok_or_else(|| format!("template: no template {name:?}"))?;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err("template: exceeded maximum template depth".into());
                }
                let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), value.clone())]);
                self.nodes(nodes, &value)?;
                self.variables = outer;
                self.depth -= 1;
                Flow::Next
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        };
        self.variables.truncate(before);
        Ok(flow)
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<(), String> {
        let over = self.commands(&pipe.commands, dot)?;
        let items: Vec<(Value, Value)> = match &over {
            Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.into(), item.clone())).collect(),
            Value::Object(fields) => {
                go::sorted(fields).into_iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect()
            }
            Value::Null => Vec::new(),
            other => return Err(format!("range can't iterate over {}", shown(other))),
        };
        if items.is_empty() {
            self.nodes(otherwise, dot)?;
            return Ok(());
        }
        let before = self.variables.len();
        for (key, item) in items {
            match pipe.variables.as_slice() {
                [] => {}
                [one] => self.variables.push((one.clone(), item.clone())),
                [name, value, ..] => {
                    self.variables.push((name.clone(), key));
                    self.variables.push((value.clone(), item.clone()));
                }
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(before);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(())
    }

    /// A pipeline's value; its variables take it.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let value = self.commands(&pipe.commands, dot)?;
        for name in &pipe.variables {
            if pipe.assigns {
                let slot = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                slot.ok_or_else(|| format!("undefined variable {name:?}"))?.1 = value.clone();
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &[Vec<Operand>], dot: &Value) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for command in commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &[Operand], last: Option<Value>, dot: &Value) -> Result<Value, String> {
        let [first, arguments @ ..] = command else { return Ok(Value::Null) };
        let Base::Function(name) = &first.base else {
            if !arguments.is_empty() || last.is_some() {
                return Err("can't give argument to non-function".into());
            }
            return self.operand(first, dot);
        };
        // `and` and `or` look no further than they must.
        if matches!(name.as_str(), "and" | "or") {
            let mut value = Value::Null;
            for argument in arguments {
                value = self.operand(argument, dot)?;
                if truth(&value) == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(argument, dot)?);
        }
        values.extend(last);
        let value = functions::call(name, values, self)?;
        fields(value, &first.fields)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let base = match &operand.base {
            Base::Dot => return field_of(dot, &operand.fields),
            Base::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| format!("undefined variable {name:?}"))?;
                return field_of(value, &operand.fields);
            }
            Base::Literal(value) => value.clone(),
            Base::Function(name) => functions::call(name, Vec::new(), self)?,
            Base::Pipe(pipe) => self.pipe(pipe, dot)?,
        };
        fields(base, &operand.fields)
    }
}

fn fields(value: Value, names: &[String]) -> Result<Value, String> {
    if names.is_empty() { Ok(value) } else { field_of(&value, names) }
}

fn field_of(value: &Value, names: &[String]) -> Result<Value, String> {
    let mut value = value;
    for name in names {
        value = match value {
            Value::Object(fields) => fields.get(name).unwrap_or(&Value::Null),
            Value::Null => return Err(format!("nil data; no entry for key {name:?}")),
            other => return Err(format!("can't evaluate field {name} in {}", functions::kind(other))),
        };
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests;
