//! Packing: a directory becomes layers, layers become an archive.
//!
//! ```text
//! select    what is left out
//! hub       how far links of a download cache may lead
//! walk      the files of a directory, in path order, each with what it was when it was seen
//! describe  what the model is: by its user's word, or by its files (weights, card), or by a schema
//! content   what of them is unfinished or a secret, and refused
//! pipeline  reader -> workers -> composer -> writer: segments in order, whatever the threads do
//! layer     segments -> one blob with its framing, its chunk table and its descriptor
//! add_layer an archive of which one layer is added, replaced or removed
//! archive   blobs and documents -> an outer tar; output -> a file that appears complete or not
//! ```
//!
//! Guarantees: the same files and options give the same bytes for any number of threads, at any
//! time and place; every input byte is read once (but the beginnings of small files, and
//! indexes of shards, which are looked at before); memory is bounded by the number of threads times
//! the chunk size; an output appears under its name complete or not at all. Refuses what it cannot
//! pack faithfully: special files, links out of the directory
//! (but those of a snapshot into its repository), names that are no
//! [`EntryPath`](crate::entry_path::EntryPath), files that change meanwhile.

mod add_layer;
mod archive;
mod card;
mod content;
mod describe;
mod documents;
mod hub;
mod layer;
mod model_layer;
mod options;
mod packager;
mod packed;
mod pipeline;
mod plan;
mod run;
mod schema;
mod select;
mod share;
mod small;
mod tree;
mod walk;
mod weights;

#[cfg(test)]
mod tests;

pub use add_layer::{add_layer, remove_layer, replace_layer};
pub use model_layer::ModelLayer;
pub use options::{Output, PackOptions};
pub use packager::ModelPackager;
pub use packed::{Found, Packed};
pub use run::pack;
pub use select::{DEFAULT_EXCLUDES, LeftOut, LeftOutBy};

pub use crate::work::Progress;
