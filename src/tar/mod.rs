//! Tar headers: one parser and one reading for the outer archive and for layers.
//!
//! What two readers could take differently is refused, never resolved:
//!
//! - a checksum that is not the unsigned sum of the block;
//! - a number that is not plain octal or a positive base-256 number below 2^63;
//! - a pax `size` beside another size in the header itself. The one exception is a header that says
//!   0 beside a pax size of 8 GiB or more: ustar has no room for it, and Python's and Go's writers
//!   leave the field empty (CVE-2025-62518 is about readers that believe either of two sizes);
//! - data behind a link, directory or device;
//! - a file whose name ends in `/`, a directory to some;
//! - bytes where some readers see a ustar prefix and others do not;
//! - sparse files, multi-volume archives, unknown entry types;
//! - pax and GNU extensions that are malformed, empty, repeated, mixed or belong to no entry,
//!   or whose header is of a version in which some readers see a plain file;
//! - a single zero block with a header behind it: some readers stop there.
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

pub use block::{BLOCK, is_header};
pub use entry::{Entry, EntryKind};
pub use members::Members;
