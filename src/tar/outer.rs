//! Indexes an outer archive by its headers alone, without reading the data between them.
//!
//! Guarantees: every entry and its padding lie within the archive, and nothing but zeros follows the
//! end-of-archive blocks, which must be there: an archive that was cut short anywhere is refused.
//! Memory does not grow with what headers declare.

use super::BLOCK;
use super::block::Block;
use super::entry::Entry;
use super::parser::{Parser, Step};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes read at once: several headers of small entries, and little beyond one header where the
/// entries are large.
const WINDOW: usize = 16 << 10;

/// Calls `visit` with every entry of an archive of `length` bytes, in order.
///
/// `read_at` fills a buffer from an offset; it is never asked for bytes beyond `length`.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) naming the entry or offset when the archive
/// is truncated, breaks a rule of [`tar`](super), has more than
/// [`limits::MAX_ARCHIVE_ENTRIES`] entries, or goes on after its end; errors of `read_at` and `visit`
/// as they are.
pub fn scan(
    length: u64,
    read_at: impl FnMut(&mut [u8], u64) -> Result<()>,
    mut visit: impl FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let mut parser = Parser::new(Some(length));
    let mut window = Window::new(length, read_at);
    let mut entries = 0;
    loop {
        let Some(block) = window.block(parser.offset())? else {
            return Err(parser.truncated());
        };
        match parser.feed(block)? {
            Step::More => {}
            Step::Entry(entry) => {
                entries += 1;
                if entries > limits::MAX_ARCHIVE_ENTRIES {
                    return Err(Error::malformed(
                        entry.subject(),
                        format!("more than {} entries", limits::MAX_ARCHIVE_ENTRIES),
                    ));
                }
                visit(entry)?;
            }
            Step::End => return window.zeros_from(parser.offset()),
        }
    }
}

/// The entries of an archive, as [`scan`] visits them.
///
/// # Errors
/// As [`scan`].
pub fn index(length: u64, read_at: impl FnMut(&mut [u8], u64) -> Result<()>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    scan(length, read_at, |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

/// The archive through a small buffer.
struct Window<F> {
    length: u64,
    read_at: F,
    start: u64,
    bytes: Vec<u8>,
}

impl<F: FnMut(&mut [u8], u64) -> Result<()>> Window<F> {
    fn new(length: u64, read_at: F) -> Window<F> {
        Window {
            length,
            read_at,
            start: 0,
            bytes: Vec::with_capacity(WINDOW),
        }
    }

    /// The block at `offset`; `None` when the archive ends before it is whole.
    fn block(&mut self, offset: u64) -> Result<Option<&Block>> {
        if self.length.saturating_sub(offset) < BLOCK {
            return Ok(None);
        }
        let within = offset
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok())
            .filter(|at| self.bytes.len().saturating_sub(*at) >= BLOCK as usize);
        let at = match within {
            Some(at) => at,
            None => {
                self.fill(offset)?;
                0
            }
        };
        let tail = self.bytes.get(at..).unwrap_or_default();
        Ok(tail.first_chunk())
    }

    fn fill(&mut self, offset: u64) -> Result<()> {
        let left = self.length.saturating_sub(offset);
        self.bytes
            .resize(WINDOW.min(usize::try_from(left).unwrap_or(WINDOW)), 0);
        self.start = offset;
        (self.read_at)(&mut self.bytes, offset).inspect_err(|_| self.bytes.clear())
    }

    fn zeros_from(&mut self, mut offset: u64) -> Result<()> {
        let tail = self.length.saturating_sub(offset);
        if tail > limits::MAX_TAR_TAIL_BYTES {
            return Err(Error::malformed(
                format!("offset {offset}"),
                format!(
                    "{tail} bytes follow the end of the archive, the limit is {}",
                    limits::MAX_TAR_TAIL_BYTES
                ),
            ));
        }
        while offset < self.length {
            self.fill(offset)?;
            if let Some(at) = self.bytes.iter().position(|&b| b != 0) {
                return Err(after_end(offset + at as u64));
            }
            offset += self.bytes.len() as u64;
        }
        Ok(())
    }
}

/// What is wrong with a byte that is not zero at `offset`, behind the end of an archive.
pub(super) fn after_end(offset: u64) -> Error {
    Error::malformed(
        format!("offset {offset}"),
        "data after the end of the archive",
    )
}

#[cfg(test)]
mod tests;
