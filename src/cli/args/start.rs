//! Reading the arguments.
//!
//! Knows: that one command is described faster than all of them. Does not know: any flag.

use std::ffi::OsString;

use clap::{Args as _, FromArgMatches, Parser};

use super::{ApiArgs, Args, Everywhere, ExplainArgs, RunArgs};

/// Describes the arguments of one command.
type Describe = fn(clap::Command) -> clap::Command;

/// Commands that are called often enough for their start to count.
const OFTEN: &[(&str, Describe)] =
    &[("api", ApiArgs::augment_args), ("run", RunArgs::augment_args), ("explain", ExplainArgs::augment_args)];

impl Args {
    /// Reads the process's arguments. Errors with what is to be printed: help, version, or what is wrong.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::read_from(&std::env::args_os().collect::<Vec<_>>())
    }

    /// To describe all commands takes longer than to answer from the cache. So where the first argument names a command, it alone
    /// is described; whatever that does not understand is for all of them to say.
    fn read_from(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let first = arguments.get(1).and_then(|first| first.to_str());
        if let Some((name, describe)) = OFTEN.iter().find(|(name, _)| Some(*name) == first) {
            let all = Everywhere::augment_args(clap::Command::new("octocache")).disable_help_subcommand(true);
            let matches = all.subcommand(describe(clap::Command::new(*name))).try_get_matches_from(arguments);
            if let Ok(args) = matches.and_then(|matches| Self::from_arg_matches(&matches)) {
                return Ok(args);
            }
        }
        Self::try_parse_from(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_alone_reads_what_all_of_them_read() {
        let lines = [
            "api /repos/o/r",
            "api -X PATCH /repos/o/r -f a=b -F n=1 --jq .a -q .b --paginate --slurp -H a:b --verbose",
            "api /x --offline --ttl 5m -v -v --color never --log-format json --cache-dir d --retries 2",
            "api --partition team graphql -f query={viewer{login}}",
            "run --plan p.yml --dry-run --only a --json -q --max-wait 5s",
            "run",
            "explain /repos/o/r --json",
            // What is not understood is left to all commands, as are help and version.
            "api",
            "api --nonsense /x",
            "api /x --retries many",
            "api --help",
            "run --version",
            "api help",
            "explain",
            "--quiet api /x",
            "help api",
        ];
        for line in lines {
            let arguments: Vec<OsString> = ["octocache"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            let shown = |read: Result<Args, clap::Error>| match read {
                Ok(args) => format!("{args:?}"),
                Err(error) => format!("{:?} {error}", error.kind()),
            };
            assert_eq!(shown(Args::read_from(&arguments)), shown(Args::try_parse_from(&arguments)), "{line}");
        }
    }
}
