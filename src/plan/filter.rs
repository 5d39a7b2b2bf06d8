//! jq filters, by jaq.
//!
//! Knows: compiling with a position in the message, running over JSON bytes. Does not know:
//! queries. Filters cannot see the environment: `env` would let a plan copy a token into a file.

use std::fmt;

use jaq_core::load::{Arena, File, Loader, span};
use jaq_core::{Ctx, Vars, data, unwrap_valr};
use jaq_json::{Val, read, write};

/// A compiled filter.
pub struct Filter {
    text: String,
    inner: jaq_core::Filter<data::JustLut<Val>>,
}

/// Formats that jq has and the library has not.
const FORMATS: &str = r#"
def @csv: [.[] | if type == "string" then "\"" + (split("\"") | join("\"\"")) + "\"" elif . == null then "" else tostring end] | join(",");
def @tsv: [.[] | if . == null then "" else tostring | split("\\") | join("\\\\") | split("\t") | join("\\t") | split("\n") | join("\\n") | split("\r") | join("\\r") end] | join("\t");
"#;

/// Outputs that one run of a filter may give.
const MAX_OUTPUTS: usize = 1_000_000;

impl Filter {
    /// Compiles a filter; the error says where in it.
    pub fn compile(text: &str) -> Result<Self, String> {
        Self::compile_but(text, &["env"])
    }

    /// The same with `env`, for whoever runs it on their own terminal.
    pub fn compile_with_environment(text: &str) -> Result<Self, String> {
        Self::compile_but(text, &[])
    }

    fn compile_but(text: &str, without: &[&str]) -> Result<Self, String> {
        let formats = jaq_core::load::parse(FORMATS, |parser| parser.defs()).unwrap_or_default();
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs()).chain(formats);
        let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let safe = funs.filter(|(name, _, _)| !without.contains(name));
        let at = |part: &str| {
            let range = span(text, part);
            text.get(..range.start).map_or(1, |before| before.chars().count() + 1)
        };
        let fail = |found: Option<(String, usize)>| {
            let (what, at) = found.unwrap_or_else(|| ("it does not parse".into(), 1));
            format!("the jq filter `{}` is wrong at character {at}: {what}", text.escape_debug())
        };
        let arena = Arena::default();
        let modules = Loader::new(defs).load(&arena, File { code: text, path: () }).map_err(|errors| {
            fail(errors.into_iter().next().and_then(|(_, error)| match error {
                jaq_core::load::Error::Lex(all) => {
                    all.first().map(|(expected, part)| (format!("expected {}", expected.as_str()), at(part)))
                }
                jaq_core::load::Error::Parse(all) => {
                    all.first().map(|(expected, part)| (format!("expected {}", expected.as_str()), at(part)))
                }
                jaq_core::load::Error::Io(_) => None,
            }))
        })?;
        let inner = jaq_core::Compiler::default().with_funs(safe).compile(modules).map_err(|errors| {
            let first = errors.into_iter().next().and_then(|(_, all)| all.into_iter().next());
            fail(first.map(|(part, undefined)| (format!("there is no {} `{part}`", undefined.as_str()), at(part))))
        })?;
        Ok(Self { text: text.to_owned(), inner })
    }

    /// Runs over one JSON text; each output is compact JSON.
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
        let input = read::parse_single(json).map_err(|error| format!("the answer is no JSON: {error}"))?;
        let context = Ctx::<data::JustLut<Val>>::new(&self.inner.lut, Vars::new([]));
        let mut count = 0;
        for output in self.inner.id.run((context, input)).map(unwrap_valr) {
            let value =
                output.map_err(|error| format!("the jq filter `{}` failed: {error}", self.text.escape_debug()))?;
            count += 1;
            if count > MAX_OUTPUTS {
                return Err(format!(
                    "the jq filter `{}` gives more than {MAX_OUTPUTS} outputs",
                    self.text.escape_debug()
                ));
            }
            let mut bytes = Vec::new();
            write::write(&mut bytes, &write::Pp::default(), 0, &value).map_err(|error| error.to_string())?;
            if !each(&bytes) {
                break;
            }
        }
        Ok(())
    }

    /// Runs and makes one JSON value of the outputs: the only one, `null` for none, else an array.
    pub fn run_to_one(&self, json: &[u8]) -> Result<Vec<u8>, String> {
        let mut outputs = self.run(json)?;
        match outputs.len() {
            0 => Ok(b"null".to_vec()),
            1 => Ok(outputs.remove(0)),
            _ => Ok([&b"["[..], &outputs.join(&b','), b"]"].concat()),
        }
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
    }

    #[test]
    fn filters_cannot_see_the_environment() {
        for text in ["env", "$ENV", "env.HOME", "$ENV.PATH"] {
            assert!(Filter::compile(text).is_err(), "{text}");
        }
    }
}
