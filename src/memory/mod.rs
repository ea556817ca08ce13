//! What an open model keeps in memory beyond its tree, and who may take more of it: the cache of
//! decoded chunks, recycled buffers, and the bounds on what is decoded at once.

pub(crate) mod admission;
pub(crate) mod budget;
pub(crate) mod buffers;
pub mod cache;
pub mod flight;
mod pages;
pub(crate) mod pool;
mod sync;
#[cfg(test)]
mod tests;
pub(crate) mod turns;
pub(crate) mod windows;
