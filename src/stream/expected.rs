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

    /// Reads all of the stream.
    ///
    /// # Errors
    /// When it holds something else than it was taken for, or anything beside it.
    fn check(&self, stream: &mut dyn Read) -> Result<()>;

    /// Reads the stream from the end of its content on.
    ///
    /// # Errors
    /// When anything follows that should not.
    fn check_rest(&self, stream: &mut dyn Read) -> Result<()>;
}
