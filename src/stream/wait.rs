//! What a read may wait for.

use bytes::Bytes;

/// What a read may have to wait for, besides storage and the decoding of one chunk; what takes longer
/// comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Work whose end is in sight: a span is decoded, a small layer is checked.
    Work,
    /// The decoder of a layer has to get to what is read.
    Decoder,
    /// Memory that long work may hold, such as a pass: for a chunk, a table or a span that is not small.
    Memory,
    /// The first pass over a large layer.
    Pass,
}

/// What became of a read that may not wait for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Within {
    /// The bytes.
    Read(Bytes),
    /// It would have to wait for this.
    Waits(Wait),
}
