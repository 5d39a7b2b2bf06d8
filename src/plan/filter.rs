//! jq filters, by jaq.
//!
//! Knows: compiling with a position in the message, running over JSON bytes, within bounds. Does not know: queries.
//!
//! What a filter takes of time, memory and stack cannot be bounded within a process. So filters that can only take in
//! proportion to their input run here (`linear`), and all others in a process of their own that can be ended
//! (`evaluator`). Filters end nothing but themselves and see nothing but their input: `halt`, `debug`, `input` and the
//! like are not there, and `env` only for who runs a filter on their own terminal.

mod evaluator;
mod linear;
mod native;
mod process;
mod rewrite;

use std::fmt;

use jaq_core::load::parse::{Def, Term};
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Ctx, Vars, data, unwrap_valr};
use jaq_json::{Val, read, write};

use crate::json;
pub use evaluator::{Evaluator, Wait};
pub use process::serve;

/// A compiled filter.
pub struct Filter {
    text: String,
    inner: jaq_core::Filter<data::JustLut<Val>>,
    /// Where it runs unless it is here.
    evaluator: Option<Evaluator>,
    /// Bytes of input up to which it runs here.
    most_here: usize,
    with_environment: bool,
}

/// Definitions beside jaq's own.
const PRELUDE: &str = include_str!("filter/prelude.jq");

/// The name of the filter that is compiled, for the module that calls it.
const MAIN: &str = "_main";

/// What ends the process, writes to its terminal, or reads what is no input of the filter.
const NOT_HERE: &[&str] = &[
    "halt",
    "halt_error",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    "input",
    "inputs",
    "input_filename",
    "input_line_number",
];

/// Outputs that one run of a filter may give.
const MAX_OUTPUTS: usize = 1_000_000;

/// Bytes that the outputs of one run may have.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// Bytes of input times the factor of a filter, up to which it runs in this process. Each of them may be a value that
/// takes some fifty bytes of memory, so that is 200 MB at most.
const MAX_WORK_HERE: usize = 4 << 20;

/// The longest filter.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// Longer filters are compiled on a stack of this size: the parser recurses.
const SHORT_TEXT_BYTES: usize = 100;
const STACK_BYTES: usize = 256 << 20;

/// Outputs, and what went wrong after them.
type Outputs = (Vec<Vec<u8>>, Option<String>);

impl Filter {
    /// Compiles a filter that this program made itself, of texts that it has checked: it runs in this process.
    pub fn compile(text: &str) -> Result<Self, String> {
        let (inner, _) = compiled(text, false)?;
        Ok(Self { text: text.to_owned(), inner, evaluator: None, most_here: usize::MAX, with_environment: false })
    }

    /// Compiles a filter made around others that are linear; what is large goes to `evaluator` all the same.
    pub fn around_linear(text: &str, evaluator: &Evaluator) -> Result<Self, String> {
        let (inner, _) = compiled(text, false)?;
        let (evaluator, most_here) = (Some(evaluator.clone()), MAX_WORK_HERE / linear::MAX_FACTOR as usize);
        Ok(Self { text: text.to_owned(), inner, evaluator, most_here, with_environment: false })
    }

    /// Compiles a filter from a plan or a command line. Errors name the position in it. `evaluator` runs what may take
    /// more than in proportion to its input.
    pub fn bounded(text: &str, evaluator: &Evaluator) -> Result<Self, String> {
        Self::bounded_with(text, evaluator, false)
    }

    /// The same with `env`, for whoever runs it on their own terminal.
    pub fn bounded_with_environment(text: &str, evaluator: &Evaluator) -> Result<Self, String> {
        Self::bounded_with(text, evaluator, true)
    }

    fn bounded_with(text: &str, evaluator: &Evaluator, with_environment: bool) -> Result<Self, String> {
        let (inner, factor) = compiled(text, with_environment)?;
        let most_here = factor.map_or(0, |factor| MAX_WORK_HERE / factor.max(1) as usize);
        Ok(Self { text: text.to_owned(), inner, evaluator: Some(evaluator.clone()), most_here, with_environment })
    }

    /// Whether it takes time and memory in proportion to its input; such a filter runs in this process unless its
    /// input is large.
    pub fn is_linear(&self) -> bool {
        self.most_here > 0
    }

    /// The process that is to run it on this input, unless it is this one.
    fn elsewhere(&self, json: &[u8]) -> Option<&Evaluator> {
        // A library without a program runs what is linear here, whatever its size.
        let is_here =
            |evaluator: &Evaluator| json.len() <= self.most_here || (self.is_linear() && !evaluator.is_some());
        self.evaluator.as_ref().filter(|evaluator| !is_here(evaluator))
    }

    /// Runs over one JSON text; each output is compact JSON. A filter that runs elsewhere blocks until it ends.
    pub fn run(&self, json: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut outputs = Vec::new();
        self.run_each(json, |output| {
            outputs.push(output.to_vec());
            true
        })?;
        Ok(outputs)
    }

    /// The same one by one, while `each` says so; those before an error have had their turn.
    pub fn run_each(&self, json: &[u8], mut each: impl FnMut(&[u8]) -> bool) -> Result<(), String> {
        let Some(evaluator) = self.elsewhere(json) else { return self.run_here(json, each) };
        json::check(json)?;
        let outputs = evaluator.run_blocking(&self.text, self.with_environment, json);
        let (outputs, failed) = outputs.map_err(|why| self.failed(&why))?;
        for output in &outputs {
            if !each(output) {
                return Ok(());
            }
        }
        failed.map_or(Ok(()), |why| Err(self.failed(&why)))
    }

    /// Runs; where that takes a process of its own, it is waited for as `wait` says.
    pub async fn run_by(&self, json: &[u8], wait: Wait) -> Result<Vec<Vec<u8>>, String> {
        let Some(evaluator) = self.elsewhere(json).filter(|_| wait == Wait::Async) else { return self.run(json) };
        json::check(json)?;
        let (outputs, failed) =
            evaluator.run(&self.text, self.with_environment, json).await.map_err(|why| self.failed(&why))?;
        failed.map_or(Ok(outputs), |why| Err(self.failed(&why)))
    }

    fn run_here(&self, json: &[u8], each: impl FnMut(&[u8]) -> bool) -> Result<(), String> {
        run_compiled(&self.inner, json, each).map_err(|why| match why {
            Failure::Input(why) => why,
            Failure::Filter(why) => self.failed(&why),
        })
    }

    fn failed(&self, why: &str) -> String {
        let mut text: String = self.text.chars().take(200).collect();
        if text.len() < self.text.len() {
            text.push('…');
        }
        format!("the jq filter `{}` failed: {why}", text.escape_debug())
    }

    /// Runs and makes one JSON value of the outputs: the only one, `null` for none, else an array.
    pub fn run_to_one(&self, json: &[u8]) -> Result<Vec<u8>, String> {
        self.run(json).map(to_one)
    }

    /// The same, waited for as `wait` says.
    pub async fn run_to_one_by(&self, json: &[u8], wait: Wait) -> Result<Vec<u8>, String> {
        self.run_by(json, wait).await.map(to_one)
    }
}

fn to_one(mut outputs: Vec<Vec<u8>>) -> Vec<u8> {
    match outputs.len() {
        0 => b"null".to_vec(),
        1 => outputs.remove(0),
        _ => [&b"["[..], &outputs.join(&b','), b"]"].concat(),
    }
}

/// A filter of jaq's, and the factor of its work if it is linear.
type Compiled = (jaq_core::Filter<data::JustLut<Val>>, Option<u64>);

/// Compiles `text`, on a stack that is large enough for it.
fn compiled(text: &str, with_environment: bool) -> Result<Compiled, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("the jq filter has {} bytes, more than {MAX_TEXT_BYTES}", text.len()));
    }
    if text.len() <= SHORT_TEXT_BYTES {
        return compile_here(text, with_environment);
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, || compile_here(text, with_environment));
        thread.map_err(|error| error.to_string())?.join().unwrap_or_else(|_| Err("the jq filter cannot be read".into()))
    })
}

fn compile_here(text: &str, with_environment: bool) -> Result<Compiled, String> {
    let plain = json::without_surrogates(text.as_bytes());
    let text = std::str::from_utf8(&plain).unwrap_or(text);
    let is_left_out = |name: &str| NOT_HERE.contains(&name) || (name == "env" && !with_environment);
    // What is not of this text stands nowhere in it.
    let at = |part: &str| {
        let offset = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
        let before = offset.and_then(|offset| text.get(..offset));
        before.map_or(1, |before| before.chars().count() + 1)
    };
    let fail = |found: Option<(String, usize)>| {
        let (what, at) = found.unwrap_or_else(|| ("it does not parse".into(), 1));
        format!("the jq filter `{}` is wrong at character {at}: {what}", text.escape_debug())
    };
    let term =
        parsed(text).map_err(|error| fail(error.map(|(expected, part)| (format!("expected {expected}"), at(part)))))?;
    let factor = linear::factor(&term);
    let main = Def { name: MAIN, args: Vec::new(), body: rewrite::filter(term, with_environment) };
    let prelude = load::parse(PRELUDE, |parser| parser.defs()).unwrap_or_default();
    let prelude = prelude.into_iter().map(|def| rewrite::definition(def, with_environment));
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let defs = defs.filter(|def| !is_left_out(def.name) && !native::REPLACED.contains(&def.name));
    #[allow(clippy::map_identity, reason = "makes the lifetime shorter")]
    let defs = defs.map(|def| -> Def<&str> { def }).chain(prelude).chain([main]);
    let arena = Arena::default();
    let modules = Loader::new(defs).load(&arena, File { code: MAIN, path: () }).map_err(|_| fail(None))?;
    let inner = jaq_core::Compiler::default().with_funs(funs(is_left_out)).compile(modules).map_err(|errors| {
        let first = errors.into_iter().flat_map(|(_, all)| all).next();
        fail(first.map(|(part, undefined)| (format!("there is no {} `{part}`", undefined.as_str()), at(part))))
    })?;
    Ok((inner, factor))
}

/// Native functions: jaq's, some of them under a second name for the prelude, and our own.
fn funs(is_left_out: impl Fn(&str) -> bool) -> impl Iterator<Item = jaq_core::native::Fun<data::JustLut<Val>>> {
    let theirs = || jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let renamed = theirs().filter_map(|(name, args, fun)| {
        let (_, ours) = native::RENAMED.iter().find(|(theirs, _)| *theirs == name)?;
        Some((*ours, args, fun))
    });
    let kept = theirs().filter(move |(name, _, _)| !is_left_out(name) && !native::REPLACED.contains(name));
    kept.chain(renamed).chain(native::funs())
}

/// What was expected, and what stands there instead.
type Unexpected<'a> = Option<(String, &'a str)>;

/// The term that a text is.
fn parsed(text: &str) -> Result<Term<&str>, Unexpected<'_>> {
    let lexed = load::lex::Lexer::new(text).lex();
    let tokens = lexed.map_err(|all| all.first().map(|(expected, part)| (expected.as_str().to_owned(), *part)))?;
    load::parse::Parser::new(&tokens).parse(load::parse::Parser::term).map_err(|all| {
        let first = all.into_iter().next();
        first.map(|(expected, found)| (expected.as_str().to_owned(), load::lex::Token::opt_as_str(found, text)))
    })
}

/// Whose fault it is.
enum Failure {
    Input(String),
    Filter(String),
}

fn run_compiled(
    filter: &jaq_core::Filter<data::JustLut<Val>>,
    json: &[u8],
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), Failure> {
    json::check(json).map_err(Failure::Input)?;
    let input = read::parse_single(&json::without_surrogates(json))
        .map_err(|error| Failure::Input(format!("the answer is no JSON: {error}")))?;
    let context = Ctx::<data::JustLut<Val>>::new(&filter.lut, Vars::new([]));
    let (mut count, mut left) = (0, MAX_OUTPUT_BYTES);
    for output in filter.id.run((context, input)).map(unwrap_valr) {
        let value = output.map_err(|error| Failure::Filter(shortened(&error.to_string())))?;
        count += 1;
        if count > MAX_OUTPUTS {
            return Err(Failure::Filter(format!("it gives more than {MAX_OUTPUTS} outputs")));
        }
        let bytes = written(&value, left).map_err(|error| Failure::Filter(error.to_string()))?;
        left -= bytes.len();
        if !each(&bytes) {
            break;
        }
    }
    Ok(())
}

/// Compact JSON of a value. JSON has no infinity and no NaN: they are written as the largest number and `null`, as jq does.
fn written(value: &Val, left: usize) -> std::io::Result<Vec<u8>> {
    let write = |value: &Val| {
        let mut bytes = Bounded { bytes: Vec::new(), left };
        write::write(&mut bytes, &write::Pp::default(), 0, value).map(|()| bytes.bytes)
    };
    let bytes = write(value)?;
    let is_named = [&b"NaN"[..], b"Infinity"].into_iter().any(|name| memchr::memmem::find(&bytes, name).is_some());
    if is_named { write(&native::finite(value)) } else { Ok(bytes) }
}

/// An error of jaq's may hold a whole value.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(500).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Bytes up to a bound.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| {
            std::io::Error::other(format!("its outputs have more than {} MiB", MAX_OUTPUT_BYTES >> 20))
        })?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_keeps_numbers_as_they_are() {
        let filter = Filter::compile(".[] | {n: .id, b: .big}").unwrap();
        let out = filter.run(br#"[{"id":1,"big":12345678901234567890}, {"id":2,"big":1.50}]"#).unwrap();
        assert_eq!(out[0], br#"{"n":1,"b":12345678901234567890}"#);
        assert_eq!(filter.run_to_one(b"[]").unwrap(), b"null");
        assert_eq!(Filter::compile(".[]").unwrap().run_to_one(b"[1,2]").unwrap(), b"[1,2]");
    }

    #[test]
    fn errors_say_where() {
        let error = Filter::compile(".a | nosuch(1)").unwrap_err();
        assert!(error.contains("character 6") && error.contains("nosuch"), "{error}");
        assert!(Filter::compile(".a | }").unwrap_err().contains("character 6"));
        let failed = Filter::compile(".a.b").unwrap().run(b"[1]").unwrap_err();
        assert!(failed.contains("`.a.b` failed"), "{failed}");
        // An error does not repeat a large value.
        let large = format!("[\"{}\"]", "x".repeat(100_000));
        assert!(Filter::compile(".a").unwrap().run(large.as_bytes()).unwrap_err().len() < 1_000);
    }

    #[test]
    fn filters_see_and_end_nothing_but_themselves() {
        for text in ["env", "$ENV", "env.HOME", "$ENV.PATH"] {
            assert!(Filter::compile(text).is_err(), "{text}");
        }
        let evaluator = Evaluator::default();
        for text in [
            "halt",
            "halt(1)",
            "halt_error",
            "halt_error(1)",
            "debug",
            "debug(1)",
            "stderr",
            "input",
            "inputs",
            "debug_empty",
            "stderr_empty",
            "input_filename",
            "import \"a\" as a; 1",
            "include \"a\"; 1",
        ] {
            assert!(Filter::bounded(text, &evaluator).is_err(), "{text}");
            assert!(Filter::bounded_with_environment(text, &evaluator).is_err(), "{text}");
        }
        assert!(Filter::bounded_with_environment("env.HOME", &evaluator).is_ok());
        assert!(Filter::bounded("now", &evaluator).unwrap().is_linear());
    }

    #[test]
    fn without_an_evaluator_what_is_not_bounded_is_refused() {
        let filter = Filter::bounded("def f: f; f", &Evaluator::default()).unwrap();
        assert!(!filter.is_linear());
        assert!(filter.run(b"1").unwrap_err().contains("process of its own"));
    }

    #[test]
    fn texts_of_any_shape_are_read_or_refused() {
        let evaluator = Evaluator::default();
        for part in
            ["[", "{", "(", "-", "if ", "try ", ".a|", "def f: ", ". as $x | ", "\"\\(", "reduce . as $x (", "..", "["]
        {
            let _either = Filter::bounded(&part.repeat(MAX_TEXT_BYTES / part.len()), &evaluator);
        }
        let nested = format!("{}.{}", "[".repeat(8_000), "]".repeat(8_000));
        assert!(!Filter::bounded(&nested, &evaluator).unwrap().is_linear());
        assert!(Filter::bounded(&".".repeat(MAX_TEXT_BYTES + 1), &evaluator).unwrap_err().contains("more than"));
    }

    #[test]
    fn inputs_and_outputs_are_bounded() {
        let deep = "[".repeat(30_000) + &"]".repeat(30_000);
        for text in [".", ".[]", "..", "length"] {
            let error = Filter::compile(text).unwrap().run(deep.as_bytes()).unwrap_err();
            assert!(error.contains("deeper than 100 levels"), "{error}");
        }
        let mut bounded = Bounded { bytes: Vec::new(), left: 5 };
        std::io::Write::write_all(&mut bounded, b"abcd").unwrap();
        assert!(std::io::Write::write_all(&mut bounded, b"ef").unwrap_err().to_string().contains("64 MiB"));
        assert_eq!(bounded.bytes, b"abcd");
    }
}
