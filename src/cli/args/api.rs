//! Flags of `octocache api`, and their help.
//!
//! Knows: names and texts. Does not know: what the values do.

use clap::Args as ClapArgs;

use super::ModeArgs;

/// Answer one request, like `gh api`, through the cache
#[derive(Debug, ClapArgs)]
pub(crate) struct ApiArgs {
    /// Path such as /repos/OWNER/REPO; {owner} and {repo} stand for this repository
    pub(crate) endpoint: String,
    /// Request method
    #[arg(short = 'X', long, default_value = "GET", value_name = "METHOD")]
    pub(crate) method: String,
    /// `Accept` or `X-GitHub-Api-Version`, as `name: value`
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub(crate) header: Vec<String>,
    /// Fetch all pages; JSON arrays are joined into one
    #[arg(long)]
    pub(crate) paginate: bool,
    /// Print what this jq filter gives, strings raw, one output a line
    #[arg(short = 'q', long, value_name = "FILTER")]
    pub(crate) jq: Option<String>,
    /// Print status line and headers, too
    #[arg(short = 'i', long)]
    pub(crate) include: bool,
    /// Print nothing
    #[arg(long)]
    pub(crate) silent: bool,
    /// Say on stderr how the request was answered
    #[arg(long)]
    pub(crate) outcome: bool,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}
