//! Reads the members of a tar from a stream: for layers.

use std::io::Read;

use super::Entry;
use crate::error::Result;

/// The members of a tar, read in order from a stream.
pub struct Members<R> {
    input: R,
}

impl<R: Read> Members<R> {
    /// Reads from `input`; `subject` names the layer in errors.
    pub fn new(input: R, subject: impl Into<String>) -> Members<R> {
        let _ = subject.into();
        Members { input }
    }

    /// The next member, after skipping what is left of the current one; `None` at the end of the
    /// archive, after which [`finish`](Members::finish) may be called.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) for anything two readers could read
    /// differently; I/O errors of the stream are passed on.
    pub fn next_member(&mut self) -> Result<Option<Entry>> {
        let _ = &self.input;
        todo!()
    }

    /// Reads data of the current member; 0 at its end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize> {
        let _ = buf;
        todo!()
    }

    /// Reads to the end of the stream and checks that only zeros follow the archive's end
    /// (a missing end-of-archive is accepted at a clean end of the stream: umoci writes none).
    pub fn finish(self) -> Result<()> {
        todo!()
    }
}
