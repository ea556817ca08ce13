//! Inflate (RFC 1951): two decoders made of the same parts, all of them safe code.
//!
//! - [`StrictInflate`] decodes one segment: whole, to a length that is known, and only what is a segment.
//! - [`Inflate`] decodes anyone's stream, as far as there is input and room, and goes on later.
//!
//! ```text
//! segment, resumable   the decoders: which blocks may follow each other, and where to stop
//! header               how a block begins
//! tables               what the next bits mean in the codes of a block
//! kernel               the inner loop, where neither input nor output is near its end
//! state                where a decoder stands; one symbol at a time, where they are
//! ```

mod header;
mod kernel;
mod resumable;
mod segment;
mod state;
mod tables;

pub(crate) use resumable::{Inflate, Output, Position, SLOP, Stop, WINDOW};
pub(super) use segment::{LastBlock, StrictInflate};

#[cfg(test)]
pub(crate) use resumable::tests;
