//! Inflate (RFC 1951): of one segment, strictly, and of anyone's stream, stopped and resumed anywhere.

mod bits;
mod entry;
mod kernel;
mod resumable;
mod segment;
mod state;
mod table;
mod tables;

pub(crate) use resumable::{Inflate, Output, Position, SLOP, Stop, WINDOW};
pub(super) use segment::{Inflater, LastBlock};

#[cfg(test)]
pub(crate) use resumable::tests;
