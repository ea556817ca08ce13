//! Rules for units of decoding: a chunk, or a span of a stream.

use super::cache::{ChunkCache, ChunkKey};

/// True when more reads will follow one of `len` bytes: it is as long as those of readahead, and the
/// chunk before its own was read, too.
pub(crate) fn is_part_of_a_stream(
    cache: &dyn ChunkCache,
    len: usize,
    before: Option<ChunkKey>,
) -> bool {
    len >= 64 << 10 && before.is_some_and(|key| cache.get(key).is_some())
}

/// True when a chunk (or span) of so many bytes, decoded before somebody wants it, pushes nothing out
/// of the cache that is wanted now.
pub(crate) fn can_wait_in(cache: &dyn ChunkCache, bytes: u64) -> bool {
    bytes <= cache.capacity() / 4
}
