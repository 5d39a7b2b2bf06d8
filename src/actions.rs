//! GitHub Actions: inputs, outputs, the job summary, annotations, and who may save.
//!
//! Knows: the runner's files and workflow commands. Does not know: plans and caches; it is handed
//! what they did (`cli::action` puts the steps together).

mod commands;
mod inputs;
mod summary;

pub use commands::{Commands, annotation, escape_data};
pub use inputs::{FailOn, Inputs, Save};
pub use summary::summary;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The prefix of all cache keys of this view: the API's base ([`key_base`](crate::request::Api::key_base)),
/// partition and the user's own part. It always ends in a hyphen, so that no prefix is another's beginning.
pub fn key_prefix(key_base: &str, partition: &str, own: &str) -> String {
    let mut hash = Sha256::new();
    for part in [key_base, partition, own] {
        hash.update(part);
        hash.update([0]);
    }
    format!("octocache-v1-{}-", &HEXLOWER.encode(&hash.finalize())[..16])
}
