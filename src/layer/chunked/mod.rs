//! Layers with a chunk table: one file, of which each chunk is verified and decoded alone.

mod chunks;
pub(super) mod claim;
pub(super) mod file;
mod line;
pub mod table;
mod verify;
pub mod wrap;
