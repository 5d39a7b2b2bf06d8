//! The bundle: many envelopes in one `tar.zst` that is read in place.
//!
//! ```text
//! bundle       data_frame*  eof_frame  index_frame
//! data_frame   one zstd frame: whole tar members, about 1 MiB of them, or one larger member
//! eof_frame    one zstd frame of 1,024 zero bytes: the end of the archive
//! index_frame  a skippable frame (RFC 8878 section 3.1.2): fixed-width sorted records and a footer
//! ```
//!
//! So `tar --zstd -tf` and `zstd -t` read it, and we find an entry with a handful of positioned
//! reads, whatever their number. **The index is a hint, the envelope the truth**: what comes out
//! is checked against the full key and the body's digest. Only two things of the index are believed,
//! the time of the last validation and the invalidations, and each carries a checksum. So a wrong
//! index can only cause a miss, and a hostile one costs a bounded number of reads.
//!
//! Knows: bytes of the format. Does not know: loose files, freshness, when to save (`stack`).

mod check;
mod frame;
mod index;
mod read;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod repair;
mod ustar;
mod write;

pub use check::Verified;
pub use index::{Record, Totals};
pub use read::Bundle;
pub use write::{Envelope, Plan, Planned, ReadEnvelope, write};

/// Uncompressed bytes of members that share a frame. Measured by `scripts/bench`: at 256 KiB a
/// bundle is 8 % larger, at 2 MiB 1 % smaller, and an answer takes four times and half as long.
const FRAME_RAW_BYTES: usize = 1 << 20;

/// A frame of several members never decodes to more than this.
const MAX_SHARED_RAW: usize = 4 << 20;

/// A frame of a single member never decodes to more than this.
const MAX_SINGLE_RAW: usize = crate::entry::MAX_BYTES + 1_024;

/// All frames together never decode to more than this.
const MAX_TOTAL_RAW: u64 = 4 << 30;

/// The compression level; above it, time grows faster than size shrinks.
const LEVEL: i32 = 6;

/// Appends before a full repack.
pub const MAX_GENERATIONS: u32 = 64;

/// Share of dead bytes (1 in so many) above which a save repacks.
pub const MAX_DEAD_SHARE: u64 = 4;
