//! What the Action is told: its inputs, and the context of the job.
//!
//! Knows: names, defaults, and when a bundle may be saved. Does not know: how anything is done.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::policy::Mode;
use crate::units::Span;

/// Which outcomes make the step fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailOn {
    /// None.
    Never,
    /// A query without an answer.
    Miss,
    /// That, or a stale answer.
    Stale,
}

/// When the bundle is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Save {
    /// In trusted runs of the default branch, with the job's own token.
    Auto,
    /// Whenever it changed.
    Always,
    /// Not at all.
    Never,
}

/// The inputs of one use of the Action.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// `plan`.
    pub plan: PathBuf,
    /// `query`: inline lines instead of a plan.
    pub query: String,
    /// `output-dir`.
    pub output_dir: Option<PathBuf>,
    /// `ttl`.
    pub ttl: Option<Span>,
    /// `stale-if-error`.
    pub stale_if_error: Option<Span>,
    /// `mode`.
    pub mode: Mode,
    /// `mode: warm`: refresh what would be stale before the next tick.
    pub warm: bool,
    /// `max-requests`.
    pub max_requests: Option<u32>,
    /// `fail-on`.
    pub fail_on: FailOn,
    /// `bundle`.
    pub bundle: PathBuf,
    /// `cache-key`.
    pub cache_key: String,
    /// `restore`.
    pub restore: bool,
    /// `save`.
    pub save: Save,
    /// `summary`.
    pub summary: bool,
    /// `api-url`.
    pub api_url: Option<String>,
}

impl Inputs {
    /// Reads the inputs; `input` gives `INPUT_…` by the input's name, empty ones as `None`.
    pub fn read<'a>(input: impl Fn(&str) -> Option<&'a str>) -> Result<Self> {
        let word = |name: &str, value: &str, known: &[&str]| {
            Error::usage(format!("input `{name}`: `{}` is not known", value.escape_debug()))
                .hint(format!("use one of {}", known.join(", ")))
        };
        let truth = |name: &'static str, default: bool| match input(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(word(name, other, &["true", "false"])),
        };
        let span = |name: &'static str| {
            input(name)
                .map(str::parse::<Span>)
                .transpose()
                .map_err(|error| error.within(format_args!("input `{name}`")))
        };
        let max_requests = input("max-requests").map(|text| {
            text.parse()
                .map_err(|_| Error::usage(format!("input `max-requests`: `{}` is no number", text.escape_debug())))
        });
        Ok(Self {
            plan: input("plan").unwrap_or(crate::plan::DEFAULT_PATH).into(),
            query: input("query").unwrap_or_default().to_owned(),
            output_dir: input("output-dir").map(PathBuf::from),
            ttl: span("ttl")?,
            stale_if_error: span("stale-if-error")?,
            mode: match input("mode").unwrap_or("auto") {
                "auto" | "warm" => Mode::Default,
                "offline" => Mode::OnlyIfCached,
                "refresh" => Mode::NoCache,
                other => return Err(word("mode", other, &["auto", "offline", "refresh", "warm"])),
            },
            warm: input("mode") == Some("warm"),
            max_requests: max_requests.transpose()?,
            fail_on: match input("fail-on").unwrap_or("miss") {
                "never" => FailOn::Never,
                "miss" => FailOn::Miss,
                "stale" => FailOn::Stale,
                other => return Err(word("fail-on", other, &["never", "miss", "stale"])),
            },
            bundle: input("bundle").unwrap_or(".cache/github/bundle.tar.zst").into(),
            cache_key: input("cache-key").unwrap_or_default().to_owned(),
            restore: truth("restore", true)?,
            save: match input("save").unwrap_or("auto") {
                "auto" => Save::Auto,
                "always" => Save::Always,
                "never" => Save::Never,
                other => return Err(word("save", other, &["auto", "always", "never"])),
            },
            summary: truth("summary", true)?,
            api_url: input("api-url").map(str::to_owned),
        })
    }
}

/// Events that run code which the default branch already has.
const TRUSTED_EVENTS: &[&str] = &["push", "schedule", "workflow_dispatch", "repository_dispatch"];

impl Save {
    /// Whether this run may save.
    ///
    /// A bundle of the default branch can be read by anyone who can open a pull request, and a
    /// bundle of a pull request would hide the default branch's from it. So by itself only a
    /// trusted run of the default branch saves, and only what the job's own token saw.
    pub fn allows(self, event: &str, on_default_branch: bool, jobs_own_token: bool) -> bool {
        match self {
            Save::Always => true,
            Save::Never => false,
            Save::Auto => TRUSTED_EVENTS.contains(&event) && on_default_branch && jobs_own_token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_mistakes() {
        let none = Inputs::read(|_| None).unwrap();
        assert_eq!((none.fail_on, none.save, none.restore, none.mode), (FailOn::Miss, Save::Auto, true, Mode::Default));
        for name in ["mode", "fail-on", "save", "restore", "ttl", "max-requests"] {
            let error = Inputs::read(|asked| (asked == name).then_some("nonsense")).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn who_may_save() {
        assert!(Save::Auto.allows("push", true, true) && Save::Auto.allows("schedule", true, true));
        for (event, default, own) in [
            ("pull_request", true, true),
            ("push", false, true),
            ("push", true, false),
            ("issue_comment", true, true),
            ("workflow_run", true, true),
        ] {
            assert!(!Save::Auto.allows(event, default, own), "{event}");
        }
        assert!(Save::Always.allows("pull_request", false, false) && !Save::Never.allows("push", true, true));
    }
}
