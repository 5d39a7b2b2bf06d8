//! Flags of `octocache bundle`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::tag::Scope;

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Fold everything stored into the bundle; writes only when something worth saving changed
    Pack {
        /// Write it anew, without dead bytes
        #[arg(long)]
        full: bool,
        /// Entries of all partitions and of private TTL classes, too
        #[arg(long)]
        everything: bool,
        /// Only entries in this scope (repo:O/R, org:O, family:CLASS, /a/path …)
        #[arg(long, value_name = "SCOPE")]
        only: Vec<Scope>,
        /// Never entries in this scope
        #[arg(long, value_name = "SCOPE")]
        never: Vec<Scope>,
        /// Write a copy of the bundle here, too
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a bundle and put it in place; nothing is unpacked
    Restore {
        /// The bundle
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List what is in a bundle
    List(BundleFile),
    /// Check everything in a bundle: index, digests, each entry
    Verify(BundleFile),
    /// Say what a bundle holds in sum
    Info(BundleFile),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BundleFile {
    /// The bundle [default: the store's]
    pub(crate) file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
