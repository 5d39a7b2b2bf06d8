//! The grammar of Go's `text/template`.
//!
//! Knows: text, actions, trim markers, pipelines, control structures. Does not know: values, functions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Nesting of blocks and parentheses that is read.
const MAX_DEPTH: usize = 100;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    Template(String, Option<Pipe>),
    Break,
    Continue,
}

/// Commands, each handing its value to the next; and the variables that take the last one's.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pipe {
    pub(super) variables: Vec<String>,
    /// `=` rather than `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A value, and the fields that are taken from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Pipe(Pipe),
}

/// Templates by name; the main one has none.
pub(super) type Templates = BTreeMap<String, Vec<Node>>;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// `.a.b`, `.`, `$x.a`, `name`: a word with its fields.
    Word(String),
    Literal(Value),
    Sign(&'static str),
    /// A space, which tells `.a .b` from `.a.b` behind a parenthesis.
    Gap,
}

enum Piece {
    Text(String),
    Action(Vec<Token>, usize),
}

type Parsed<T> = Result<T, String>;

/// Reads a template.
pub(super) fn parse(text: &str) -> Parsed<Templates> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter().peekable(), templates: Templates::new(), depth: 0 };
    let (nodes, end) = parser.block(&[])?;
    debug_assert!(end.is_empty());
    parser.templates.insert(String::new(), nodes);
    Ok(parser.templates)
}

/// Text and actions, white space trimmed where `{{-` and `-}}` say so.
fn pieces(text: &str) -> Parsed<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut rest, mut trim, mut line) = (text, false, 1);
    loop {
        let open = rest.find("{{");
        let mut plain = &rest[..open.unwrap_or(rest.len())];
        line += plain.matches('\n').count();
        if trim {
            plain = plain.trim_start_matches([' ', '\t', '\r', '\n']);
        }
        let Some(open) = open else {
            pieces.push(Piece::Text(plain.to_owned()));
            return Ok(pieces);
        };
        let mut inner = &rest[open + 2..];
        if let Some(trimmed) = inner.strip_prefix('-').filter(|inner| inner.starts_with([' ', '\t', '\r', '\n'])) {
            plain = plain.trim_end_matches([' ', '\t', '\r', '\n']);
            inner = trimmed;
        }
        pieces.push(Piece::Text(plain.to_owned()));
        let unclosed = || format!("template: :{line}: unclosed action");
        if let Some(comment) = inner.trim_start().strip_prefix("/*") {
            let after = &comment[comment.find("*/").ok_or_else(unclosed)? + 2..];
            let close = after.find("}}").ok_or_else(unclosed)?;
            trim = after[..close].trim_end_matches('}').ends_with('-');
            rest = &after[close + 2..];
            continue;
        }
        let (tokens, used) = tokens(inner).map_err(|what| format!("template: :{line}: {what}"))?;
        line += inner[..used].matches('\n').count();
        trim =
            inner[..used].ends_with("-}}") && inner[..used].trim_end_matches("-}}").ends_with([' ', '\t', '\r', '\n']);
        pieces.push(Piece::Action(tokens, line));
        rest = &inner[used..];
    }
}

/// The tokens up to `}}`, and how many bytes they took.
fn tokens(text: &str) -> Parsed<(Vec<Token>, usize)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else { return Err("unclosed action".into()) };
        if rest.starts_with("}}") {
            return Ok((tokens, at + 2));
        }
        if rest.starts_with("-}}") {
            return Ok((tokens, at + 3));
        }
        let (token, used) = match first {
            ' ' | '\t' | '\r' | '\n' => (Token::Gap, 1),
            '"' | '\'' => quoted(rest)?,
            '`' => {
                let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                (Token::Literal(json!(rest[1..=end])), end + 2)
            }
            '0'..='9' | '+' | '-' => number(rest)?,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => number(rest)?,
            '.' | '$' => {
                let word = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$'));
                let end = rest[1..].find(word).map_or(rest.len(), |end| end + 1);
                (Token::Word(rest[..end].to_owned()), end)
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.'))).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
            _ => {
                let sign = [":=", "=", "|", "(", ")", ","].into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| format!("unexpected {first:?} in action"))?;
                (Token::Sign(sign), sign.len())
            }
        };
        if !(token == Token::Gap && tokens.last() == Some(&Token::Gap)) {
            tokens.push(token);
        }
        at += used;
    }
}

fn quoted(text: &str) -> Parsed<(Token, usize)> {
    let quote = text.chars().next().unwrap_or('"');
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => break,
            c if c == quote => {
                let literal = if quote == '"' { json!(out) } else { json!(out.chars().next().map_or(0, |c| c as u32)) };
                return Ok((Token::Literal(literal), at + 1));
            }
            '\\' => {
                let Some((_, escaped)) = chars.next() else { break };
                let mut hex = |digits: usize| {
                    let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                    u32::from_str_radix(&text, 16).ok().and_then(char::from_u32)
                };
                out.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    'x' => hex(2).ok_or("bad character in string")?,
                    'u' => hex(4).ok_or("bad character in string")?,
                    'U' => hex(8).ok_or("bad character in string")?,
                    '\\' | '"' | '\'' => escaped,
                    _ => return Err("bad escape in string".into()),
                });
            }
            c => out.push(c),
        }
    }
    Err("unterminated quoted string".into())
}

fn number(text: &str) -> Parsed<(Token, usize)> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '+' | '-' | '_'))).unwrap_or(text.len());
    // `5-}}` is a number and a trim marker only with a space between; a dash at the end is none of it.
    let digits = text[..end].trim_end_matches('-');
    let value =
        digits.parse::<i64>().map(|whole| json!(whole)).or_else(|_| digits.parse::<f64>().map(|float| json!(float)));
    Ok((Token::Literal(value.map_err(|_| format!("bad number syntax: {digits:?}"))?), digits.len()))
}

struct Parser {
    pieces: std::iter::Peekable<std::vec::IntoIter<Piece>>,
    templates: Templates,
    depth: usize,
}

impl Parser {
    /// Nodes up to one of `ends`, and the tokens of the action that ended them.
    fn block(&mut self, ends: &[&str]) -> Parsed<(Vec<Node>, Vec<Token>)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("template: the blocks nest too deeply".into());
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, line) = match piece {
                Piece::Text(text) if text.is_empty() => continue,
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, line) => (tokens, line),
            };
            let tokens: Vec<Token> = trimmed(&tokens).to_vec();
            let word = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            if ends.contains(&word.as_str()) {
                self.depth -= 1;
                return Ok((nodes, tokens));
            }
            let node = self.action(&word, &tokens).map_err(|what| {
                if what.starts_with("template:") { what } else { format!("template: :{line}: {what}") }
            })?;
            nodes.extend(node);
        }
        self.depth -= 1;
        if ends.is_empty() { Ok((nodes, Vec::new())) } else { Err("template: :1: unexpected EOF".into()) }
    }

    fn action(&mut self, word: &str, tokens: &[Token]) -> Parsed<Option<Node>> {
        let rest = trimmed(tokens.get(1..).unwrap_or_default());
        Ok(Some(match word {
            "if" => self.branch(rest, Node::If)?,
            "with" => self.branch(rest, Node::With)?,
            "range" => self.branch(rest, Node::Range)?,
            "break" => Node::Break,
            "continue" => Node::Continue,
            "define" | "block" => {
                let (name, rest) = name_of(rest)?;
                let (nodes, _) = self.block(&["end"])?;
                self.templates.insert(name.clone(), nodes);
                if word == "define" {
                    return Ok(None);
                }
                Node::Template(name, Some(pipe(rest, self.depth)?))
            }
            "template" => {
                let (name, rest) = name_of(rest)?;
                Node::Template(name, if rest.is_empty() { None } else { Some(pipe(rest, self.depth)?) })
            }
            "end" | "else" => return Err(format!("unexpected {{{{{word}}}}}")),
            _ => Node::Print(pipe(tokens, self.depth)?),
        }))
    }

    fn branch(&mut self, tokens: &[Token], node: fn(Pipe, Vec<Node>, Vec<Node>) -> Node) -> Parsed<Node> {
        let pipe = pipe(tokens, self.depth)?;
        let (body, end) = self.block(&["end", "else"])?;
        if end.first() != Some(&Token::Word("else".into())) {
            return Ok(node(pipe, body, Vec::new()));
        }
        let rest = trimmed(&end[1..]);
        let otherwise = match rest.first() {
            None => self.block(&["end"])?.0,
            // `else if` needs no end of its own.
            Some(Token::Word(word)) if word == "if" => vec![self.branch(trimmed(&rest[1..]), Node::If)?],
            Some(Token::Word(word)) if word == "with" => vec![self.branch(trimmed(&rest[1..]), Node::With)?],
            Some(_) => return Err("unexpected text after else".into()),
        };
        Ok(node(pipe, body, otherwise))
    }
}

fn trimmed(tokens: &[Token]) -> &[Token] {
    let mut tokens = tokens;
    while let [Token::Gap, rest @ ..] = tokens {
        tokens = rest;
    }
    while let [rest @ .., Token::Gap] = tokens {
        tokens = rest;
    }
    tokens
}

fn name_of(tokens: &[Token]) -> Parsed<(String, &[Token])> {
    match tokens {
        [Token::Literal(Value::String(name)), rest @ ..] => Ok((name.clone(), trimmed(rest))),
        _ => Err("a template's name is missing".into()),
    }
}

fn pipe(tokens: &[Token], depth: usize) -> Parsed<Pipe> {
    if depth > MAX_DEPTH {
        return Err("the parentheses nest too deeply".into());
    }
    let mut pipe = Pipe::default();
    let mut tokens = trimmed(tokens);
    if let Some(at) = tokens.iter().position(|token| matches!(token, Token::Sign(":=" | "="))) {
        pipe.assigns = tokens[at] == Token::Sign("=");
        for token in &tokens[..at] {
            match token {
                Token::Word(name) if name.starts_with('$') => pipe.variables.push(name.clone()),
                Token::Gap | Token::Sign(",") => {}
                _ => return Err("only variables can be assigned to".into()),
            }
        }
        tokens = &tokens[at + 1..];
    }
    let mut command: Vec<Operand> = Vec::new();
    let mut at = 0;
    let mut joined = false;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Gap => {
                joined = false;
                continue;
            }
            Token::Sign("|") => {
                if command.is_empty() {
                    return Err("missing value for command".into());
                }
                pipe.commands.push(std::mem::take(&mut command));
            }
            Token::Sign("(") => {
                let close = closing(&tokens[at..]).ok_or("unclosed left paren")?;
                let inner = self::pipe(&tokens[at..at + close], depth + 1)?;
                command.push(Operand { base: Base::Pipe(inner), fields: Vec::new() });
                at += close + 1;
            }
            Token::Literal(value) => command.push(Operand { base: Base::Literal(value.clone()), fields: Vec::new() }),
            // Right behind a parenthesis, fields are taken from what is in it.
            Token::Word(word) if joined && word.starts_with('.') => {
                let fields = word.split('.').filter(|field| !field.is_empty()).map(str::to_owned);
                command.last_mut().ok_or("a field of nothing")?.fields.extend(fields);
            }
            Token::Word(word) => command.push(operand(word)),
            Token::Sign(sign) => return Err(format!("unexpected {sign:?} in operand")),
        }
        joined = true;
    }
    if command.is_empty() {
        return Err("missing value for command".into());
    }
    pipe.commands.push(command);
    Ok(pipe)
}

fn operand(word: &str) -> Operand {
    let literal = match word {
        "true" => Some(json!(true)),
        "false" => Some(json!(false)),
        "nil" => Some(Value::Null),
        _ => None,
    };
    if let Some(value) = literal {
        return Operand { base: Base::Literal(value), fields: Vec::new() };
    }
    let (head, rest) = word.split_once('.').unwrap_or((word, ""));
    let fields = rest.split('.').filter(|field| !field.is_empty()).map(str::to_owned).collect();
    let base = match head {
        "" => Base::Dot,
        name if name.starts_with('$') => Base::Variable(name.to_owned()),
        name => Base::Function(name.to_owned()),
    };
    Operand { base, fields }
}

/// Where the parenthesis that is open at the beginning closes.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut open = 1;
    tokens.iter().position(|token| {
        match token {
            Token::Sign("(") => open += 1,
            Token::Sign(")") => open -= 1,
            _ => {}
        }
        open == 0
    })
}
