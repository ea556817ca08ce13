//! Content digests, and how they are computed.

mod hasher;
mod parse;
mod twin;
mod value;

pub use hasher::Hasher;
pub(crate) use twin::Sha256;
pub use value::{Algorithm, Digest};
