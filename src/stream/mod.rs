//! Any blob as the stream that comes out of it: decompressed, verified, read at any offset.
//!
//! A stream knows digests and decoders. Whether there is a tar in it, and which files that has, is
//! known to the layer that opened it: see `expected`.

mod advance;
mod blob;
mod expected;
mod facts;
mod frontier;
mod index;
pub(crate) mod index_dir;
mod kept;
mod known;
mod on_demand;
mod packing;
mod pass;
mod reader;
mod spans;
mod store;
#[cfg(test)]
mod tests;
mod wait;

pub(crate) use advance::Advance;
pub(crate) use expected::Expected;
pub use facts::{Fact, Guess, Proven};
pub(crate) use facts::{Plan, changed, prove};
pub(crate) use on_demand::{Stream, Taken};
pub(crate) use packing::{Packing, lift, read_out, unpack};
pub(crate) use pass::Listener;
pub(crate) use spans::Tuning;
pub use wait::{Wait, Within};
