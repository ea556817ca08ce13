//! The bytes of one file out of one layer: verified, decoded on demand, cached.
//!
//! A *chunk* is a fixed-size piece of a layer's file that is stored so that it decodes alone; a
//! *chunk table* says where each is and what the digest of its compressed bytes is, and is itself
//! pinned by the manifest. `docs/layer-format.md` specifies both.

mod archive;
mod chunked;
mod damaged;
mod file_digests;
pub mod foreign;
mod listing;
pub(crate) mod members;
mod open_layer;
mod readahead;
mod reader;

pub use archive::{Archive, MemberFile, OpenedArchive};
pub use chunked::{table, wrap};
pub use file_digests::FileDigests;
pub use listing::{Listed, ListedKind};
pub use open_layer::{LayerKey, OpenLayer, damaged as damaged_file, open};
pub use reader::{Attributes, FileAttr, FileReader, LayerSpec, LinkTarget, Opened, Reading, Whole};
