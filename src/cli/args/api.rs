//! Flags of `octocache api`, and their help.
//!
//! Knows: names and texts; they are those of `gh api`. Does not know: what the values do.

use clap::Args as ClapArgs;

use super::ModeArgs;
use crate::units::Span;

const EXAMPLE: &str = "\
Everything that `gh api` takes, answered from the cache where it is a question:
  octocache api repos/{owner}/{repo}/releases --jq '.[].tag_name'
  octocache api graphql -F owner='{owner}' -F name='{repo}' -f query='query(…) {…}'
  octocache api --paginate orgs/ORG/repos --jq '.[].full_name'

What changes something is handed through, and what it touches is asked for again:
  octocache api repos/{owner}/{repo}/issues -f title='Brand new'

As an extension of gh, named gh-octocache: gh octocache api … Exit codes are gh's: 0 done, 1 failed.
-H with other headers than Accept, X-GitHub-Api-Version and GraphQL-Features goes past the cache.";

/// Answer one request, like `gh api`, through the cache
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ApiArgs {
    /// Path such as repos/OWNER/REPO, or `graphql`; {owner}, {repo} and {branch} stand for this repository's
    pub(crate) endpoint: String,
    /// HTTP method [default: GET, or POST when there are fields or an input]
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// A parameter: numbers, true, false, null, @FILE and placeholders are more than text
    #[arg(short = 'F', long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) field: Vec<String>,
    /// A parameter that is text, whatever it looks like
    #[arg(short = 'f', long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) raw_field: Vec<String>,
    /// A header, as `name: value`
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub(crate) header: Vec<String>,
    /// The file that is the request's body; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<String>,
    /// Names of API previews, without `-preview`
    #[arg(short = 'p', long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) preview: Vec<String>,
    /// Fetch all pages; JSON arrays are joined into one
    #[arg(long)]
    pub(crate) paginate: bool,
    /// With --paginate, an array of all pages
    #[arg(long, requires = "paginate", conflicts_with_all = ["jq", "template"])]
    pub(crate) slurp: bool,
    /// Print what this jq filter gives, strings raw, one output a line
    #[arg(short = 'q', long, value_name = "FILTER", conflicts_with_all = ["silent", "template"])]
    pub(crate) jq: Option<String>,
    /// Print what this Go template gives
    #[arg(short = 't', long, value_name = "TEMPLATE", conflicts_with = "silent")]
    pub(crate) template: Option<String>,
    /// Print status line and headers, too
    #[arg(short = 'i', long)]
    pub(crate) include: bool,
    /// Print no body
    #[arg(long)]
    pub(crate) silent: bool,
    /// The host, instead of github.com
    #[arg(long, value_name = "HOST")]
    pub(crate) hostname: Option<String>,
    /// As --ttl; gh's name for it
    #[arg(long, value_name = "DURATION", conflicts_with = "ttl")]
    pub(crate) cache: Option<Span>,
    /// Say on stderr how the request was answered
    #[arg(long)]
    pub(crate) outcome: bool,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}
