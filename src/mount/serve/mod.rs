//! Answering the kernel.
//!
//! ```text
//! adapter     one short function per FUSE operation
//! filesystem  what the operations answer: attributes, directories, bytes, the status
//! xattrs      extended attributes
//! activity    what readers do, and what a prefetch does
//! loops       where reads run, so that none keeps others waiting
//! waits       reads that have to wait for something slow, in lanes
//! requester   whether who asked still waits
//! guard       panics end no event loop
//! errno       errors as the kernel knows them
//! ```

pub(super) mod activity;
pub(super) mod adapter;
mod errno;
pub(super) mod filesystem;
pub(super) mod guard;
mod lane;
mod loops;
mod requester;
mod waits;
mod xattrs;
