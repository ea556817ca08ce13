//! Where blobs are: a digest gives bytes at an offset.
//!
//! Nothing here verifies content: a source only promises the bytes that its storage holds. It does
//! promise that a digest names one blob, that a blob is a regular file inside the source, and that
//! a storage which shrank or vanished meanwhile gives an error, never fewer bytes.

pub mod archive;
mod blob;
mod closed;
mod file;
pub mod layout_dir;
pub mod memory;
mod open;
pub mod registry;
pub mod watched;

pub use archive::ArchiveSource;
pub(crate) use blob::LOCAL_PIECE;
pub use blob::{BlobSource, ReadAt, Root};
pub use layout_dir::LayoutDir;
pub use memory::MemorySource;
pub use open::{Unread, open, open_with, reference_of};
pub use watched::WatchedSource;

#[cfg(test)]
mod tests;
