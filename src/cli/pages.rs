//! `octocache completions` and `octocache man`: made from the arguments themselves.

use std::path::Path;

use clap::CommandFactory;

use super::args::Args;
use super::{Exit, print};
use crate::error::{Error, Kind, Result};

/// Completions for `shell`, on stdout.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "octocache", &mut script);
    print::out(&script)?;
    Ok(Exit::Done)
}

/// One page for the program and one for each command, in `dir`.
pub(super) fn man(dir: &Path) -> Result<Exit> {
    std::fs::create_dir_all(dir).map_err(|cause| Error::io("create", dir, cause))?;
    clap_mangen::generate_to(Args::command(), dir)
        .map_err(|cause| Error::new(Kind::Io, format!("cannot write to {}", dir.display())).because(cause))?;
    Ok(Exit::Done)
}
