//! octocache
#![allow(missing_docs)]
pub mod actions; pub mod cli; pub mod config; pub mod bundle; pub mod cache; pub mod github; pub mod stats; pub mod upstream; pub mod cid; pub mod clock; pub mod cutoff; pub mod entry; pub mod error; pub mod files; pub mod key; pub mod link; pub mod outcome; pub mod partition; pub mod plan; pub mod policy; pub mod reply; pub mod stack; pub mod request; pub mod tag; pub mod tier; pub mod token; pub mod units;
