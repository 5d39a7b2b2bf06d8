//! octocache
#![allow(missing_docs)]
pub mod bundle; pub mod cid; pub mod clock; pub mod cutoff; pub mod entry; pub mod error; pub mod files; pub mod key; pub mod link; pub mod outcome; pub mod partition; pub mod policy; pub mod reply; pub mod stack; pub mod request; pub mod tag; pub mod tier; pub mod token; pub mod units;
