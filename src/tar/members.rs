//! Reads the members of a tar from a stream: for layers.
//!
//! The same parser as [`outer`](super::outer), so the same reading and the same refusals; only a
//! missing end of the archive is forgiven, the padding of its last member included, because some image
//! builders write none and the stream around the tar has an end of its own. Nothing is allocated for what a header declares.
//!
//! What a few bytes of a compressed layer expand to must not keep a reader busy for ever: headers
//! that lead to no file, and zeros behind the end, are refused beyond a bound, while they are read.

use std::io::{self, Read};

use super::block::{Block, padded};
use super::outer::after_end;
use super::parser::{Parser, Step};
use super::{BLOCK, Entry, EntryKind};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes skipped at once.
const SKIP: usize = 16 << 10;

/// The members of a tar, read in order from a stream.
///
/// After an error every call returns that error again: a damaged tar never looks like a short one.
pub struct Members<R> {
    input: R,
    subject: String,
    parser: Parser,
    /// Data of the current member not yet read, and the padding behind it.
    data: u64,
    padding: u64,
    /// Bytes of blocks since the last file.
    overhead: u64,
    /// Since the last entry of any kind: who reads counts entries.
    listing: bool,
    end: End,
    failure: Option<Error>,
}

/// How far the stream was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There may be more members.
    NotReached,
    /// Both zero blocks were read.
    Archive,
    /// The stream itself ended.
    Stream,
}

impl<R: Read> Members<R> {
    /// Reads from `input`; `subject` names the layer in errors.
    pub fn new(input: R, subject: impl Into<String>) -> Members<R> {
        Members {
            input,
            subject: subject.into(),
            parser: Parser::new(None),
            data: 0,
            padding: 0,
            overhead: 0,
            listing: false,
            end: End::NotReached,
            failure: None,
        }
    }

    /// As [`new`](Members::new), for one who asks for every entry, and bounds their number.
    pub fn listing(input: R, subject: impl Into<String>) -> Members<R> {
        Members {
            listing: true,
            ..Members::new(input, subject)
        }
    }

    /// Goes on behind the data of a member that were read otherwise: `input` starts where they end,
    /// at `offset` of the tar.
    pub fn behind_data(input: R, offset: u64, subject: impl Into<String>) -> Members<R> {
        let end = padded(offset).unwrap_or(offset);
        Members {
            parser: Parser::from_offset(end),
            padding: end - offset,
            ..Members::new(input, subject)
        }
    }

    /// The next member, after skipping what is left of the current one; `None` at the end of the
    /// archive, after which [`finish`](Members::finish) may be called.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) for anything two readers could read
    /// differently, and for a stream that ends inside a member. An [`Error`] inside the stream's
    /// `io::Error` is passed on; other errors of a decoder are
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), those of the operating system
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment).
    pub fn next_member(&mut self) -> Result<Option<Entry>> {
        self.checked(Self::advance)
    }

    /// Reads data of the current member; 0 at its end.
    ///
    /// # Errors
    /// As [`next_member`](Members::next_member).
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.checked(|members| members.read_some(buf))
    }

    /// Reads to the end of the stream and checks that only zeros follow the archive's end
    /// (a missing end-of-archive is accepted at a clean end of the stream: umoci writes none).
    /// Members not yet read are skipped and checked like all others.
    ///
    /// # Errors
    /// As [`next_member`](Members::next_member).
    pub fn finish(mut self) -> Result<()> {
        while self.next_member()?.is_some() {}
        self.checked(Self::drain)
    }

    /// Runs `f`, names the layer in its error, and keeps that error for every later call.
    fn checked<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        f(self).map_err(|error| {
            let error = match error {
                Error::Malformed { .. } => error.within(&self.subject),
                other => other,
            };
            self.failure = Some(error.clone());
            error
        })
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        while self.end == End::NotReached {
            let Some(block) = self.block()? else {
                self.end = End::Stream;
                break;
            };
            self.overhead = self.overhead.saturating_add(BLOCK);
            if self.overhead > limits::MAX_TAR_OVERHEAD_BYTES {
                return Err(Error::malformed(
                    format!("offset {}", self.parser.offset()),
                    format!(
                        "more than {} bytes of headers belong to no file",
                        limits::MAX_TAR_OVERHEAD_BYTES
                    ),
                ));
            }
            match self.parser.feed(&block)? {
                Step::More => {}
                Step::End => self.end = End::Archive,
                Step::Entry(entry) => {
                    self.data = entry.size;
                    if self.listing || entry.kind == EntryKind::File {
                        self.overhead = 0;
                    }
                    self.padding = padded(entry.size).unwrap_or(entry.size) - entry.size;
                    return Ok(Some(entry));
                }
            }
        }
        Ok(None)
    }

    /// The next block; `None` at an end of the stream where the tar may end.
    fn block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK as usize];
        let mut rest = &mut block[..];
        while !rest.is_empty() {
            let n = self.read(rest)?;
            if n == 0 {
                break;
            }
            rest = rest.get_mut(n..).unwrap_or_default();
        }
        match rest.len() as u64 {
            0 => Ok(Some(block)),
            BLOCK if self.parser.between_entries() => Ok(None),
            BLOCK => Err(self.parser.truncated()),
            _ => Err(Error::malformed(
                format!("offset {}", self.parser.offset()),
                "the archive ends inside a block",
            )),
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        let wanted = buf
            .len()
            .min(usize::try_from(self.data).unwrap_or(usize::MAX));
        let Some(buf) = buf.get_mut(..wanted).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let n = self.read(buf)?;
        if n == 0 {
            return Err(self.cut_short());
        }
        self.data = self.data.saturating_sub(n as u64);
        Ok(n)
    }

    /// Skips the rest of the current member. Behind the last one padding may be missing, as the end of
    /// the archive may.
    fn skip(&mut self) -> Result<()> {
        let mut left = self.data.saturating_add(self.padding);
        let mut scratch = [0; SKIP];
        while left > 0 {
            let wanted = SKIP.min(usize::try_from(left).unwrap_or(SKIP));
            let n = self.read(scratch.get_mut(..wanted).unwrap_or_default())?;
            // All of it, or none.
            if n == 0 && left != self.padding {
                return Err(self.cut_short());
            }
            if n == 0 {
                self.end = End::Stream;
                break;
            }
            left = left.saturating_sub(n as u64);
        }
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads what follows the archive's end.
    fn drain(&mut self) -> Result<()> {
        let mut tail = 0;
        let mut scratch = [0; SKIP];
        while self.end == End::Archive {
            let n = self.read(&mut scratch)?;
            let bytes = scratch.get(..n).unwrap_or_default();
            let offset = self.parser.offset().saturating_add(tail);
            if let Some(at) = bytes.iter().position(|&b| b != 0) {
                return Err(after_end(offset.saturating_add(at as u64)));
            }
            tail += n as u64;
            if tail > limits::MAX_TAR_TAIL_BYTES {
                return Err(Error::malformed(
                    format!("offset {offset}"),
                    format!(
                        "more than {} bytes follow the end of the archive",
                        limits::MAX_TAR_TAIL_BYTES
                    ),
                ));
            }
            if n == 0 {
                self.end = End::Stream;
            }
        }
        Ok(())
    }

    fn cut_short(&self) -> Error {
        Error::malformed(
            format!("offset {}", self.parser.offset()),
            "the archive ends before this, inside a member",
        )
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.input.read(buf) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.stream_error(error)),
            }
        }
    }

    /// What an error of the stream means: a decoder puts its own [`Error`] inside.
    fn stream_error(&self, error: io::Error) -> Error {
        if let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            return inner.clone();
        }
        match error.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof => {
                Error::corrupt(&self.subject, format!("cannot be decoded: {error}"))
            }
            _ => Error::failed("read", &self.subject, error),
        }
    }
}

#[cfg(test)]
mod tests;
