//! Tar headers: one parser and one reading for the outer archive and for layers.
//!
//! Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual,
//! "Basic Tar Format" (base-256 numbers, long names).

mod block;
mod entry;
mod extension;
mod header;
pub mod members;
pub mod outer;
mod parser;
pub mod write;

#[cfg(test)]
pub(crate) mod raw;

pub use block::is_header;
pub use entry::{Entry, EntryKind};
pub use members::Members;

/// Size of a tar block, in bytes.
pub const BLOCK: u64 = 512;
