//! `gh api` as a door: what its flags mean, and what it prints of an answer.
//!
//! Knows: gh's behaviour, which is the contract here. Does not know: the command line, standard output.

mod caller;
pub mod fields;
pub mod go;
pub mod pretty;
pub mod response;
pub mod template;

pub use caller::{Answered, Call, Caller};
