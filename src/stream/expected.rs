//! What a stream asks those who know what it should hold.

use std::io::Read;

use crate::error::Result;
use crate::source::ReadAt;

/// What a blob was taken for when it was opened, and how that is compared with its bytes.
///
/// A stream knows digests and decoders; whether there is a tar in it, and which files that has, is
/// known to whoever opened it.
pub(crate) trait Expected: Send + Sync {
    /// Looks at the first bytes of the blob, as they were hashed. They are asked for up to
    /// [`MAX_HEAD_BYTES`](crate::limits::MAX_HEAD_BYTES).
    ///
    /// # Errors
    /// When they are not those of what the blob was taken for.
    fn confirm(&self, first: &dyn ReadAt) -> Result<()>;

    /// Reads all of the stream. Returns what is to be [learnt](Expected::learn) of it once the blob is
    /// proven, in this run or a later one.
    ///
    /// # Errors
    /// When it holds something else than it was taken for, or anything beside it.
    fn check(&self, stream: &mut dyn Read) -> Result<Vec<u8>>;

    /// Takes note of what a pass over the blob has found, which is proven now: what
    /// [`check`](Expected::check) returned, or an index has kept of it.
    ///
    /// # Errors
    /// When it makes no sense, or differs from what was learnt before.
    fn learn(&self, found: &[u8]) -> Result<()> {
        let _ = found;
        Ok(())
    }

    /// Reads the stream from the end of its content on.
    ///
    /// # Errors
    /// When anything follows that should not.
    fn check_rest(&self, stream: &mut dyn Read) -> Result<()>;
}
