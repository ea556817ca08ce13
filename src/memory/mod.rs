//! What an open model keeps in memory beyond its tree, and who may take more of it: one limiter, which
//! knows the promise of the mount as one number, and those who ask it: the cache of decoded chunks,
//! recycled buffers, decoders and their windows, passes over whole layers.

pub(crate) mod admission;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc and /sys, which name nothing that others could change"
)]
pub(crate) mod available;
pub(crate) mod buffers;
pub mod cache;
pub mod context;
pub mod effort;
pub mod flight;
pub(crate) mod kept;
pub mod limiter;
mod pages;
pub(crate) mod pool;
pub mod promise;
pub mod room;
pub mod shared_work;
mod sync;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod threads;
pub(crate) mod turns;
pub(crate) mod units;
pub(crate) mod waiting;
pub(crate) mod windows;
