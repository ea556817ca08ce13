//! The parser of header blocks, shared by [`outer`](super::outer) and [`members`](super::members).
//!
//! `Parser` is fed one 512-byte block at a time and says what follows; who feeds it decides where
//! the blocks come from. It guarantees that an [`Entry`] lies where every reader of tar finds it
//! (see [`tar`](super)).

use super::BLOCK;
use super::block::{Block, padded, verify_checksum};
use super::entry::Entry;
use super::extension::{Extension, Pending};
use super::header::{Header, Kind, resolve};
use crate::error::{Error, Result};

/// What a block was.
#[derive(Debug)]
pub(super) enum Step {
    /// Part of something: feed the block at [`Parser::offset`].
    More,
    /// The last header of an entry. Its data follow; [`Parser::offset`] is behind them.
    Entry(Entry),
    /// The second zero block: the end of the archive.
    End,
}

/// Turns header blocks into entries.
#[derive(Debug)]
pub(super) struct Parser {
    /// Offset of the block to feed next.
    offset: u64,
    /// Length of the tar, where it is known.
    length: Option<u64>,
    /// Extensions of the entry to come.
    pending: Pending,
    /// The extension whose data are being read.
    body: Option<Extension>,
    /// The last block was a zero block.
    zero: bool,
}

impl Parser {
    /// A parser at the start of a tar. With a `length`, entries that run past it are refused.
    pub(super) fn new(length: Option<u64>) -> Parser {
        Parser {
            offset: 0,
            length,
            pending: Pending::default(),
            body: None,
            zero: false,
        }
    }

    /// A parser between two entries of a tar of unknown length.
    pub(super) fn from_offset(offset: u64) -> Parser {
        Parser {
            offset,
            ..Parser::new(None)
        }
    }

    /// Offset of the block to feed next, in bytes of the tar.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What went wrong when the tar ends before the next block.
    pub(super) fn truncated(&self) -> Error {
        Error::malformed(
            format!("offset {}", self.offset),
            if self.body.is_some() || !self.pending.is_empty() {
                "the archive ends inside an entry's extension headers"
            } else {
                "the archive is truncated: it ends without the two zero blocks of its end"
            },
        )
    }

    /// True where a tar may end when its end-of-archive blocks are missing.
    pub(super) fn between_entries(&self) -> bool {
        self.body.is_none() && self.pending.is_empty()
    }

    /// Takes the block at [`offset`](Parser::offset).
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the entry or the offset.
    pub(super) fn feed(&mut self, block: &Block) -> Result<Step> {
        let offset = self.offset;
        self.offset = self.advanced(BLOCK, || format!("header at offset {offset}"))?;
        if let Some(body) = &mut self.body {
            if body.feed(block) {
                let body = self.body.take();
                body.map_or(Ok(()), |body| body.apply(&mut self.pending))
                    .map_err(|rule| at(offset, rule))?;
            }
            return Ok(Step::More);
        }
        if block.iter().all(|&b| b == 0) {
            return self.zero_block(offset);
        }
        if self.zero {
            return Err(at(offset, "data after the zero block that ends an archive"));
        }
        verify_checksum(block).map_err(|rule| at(offset, rule))?;
        let header = Header::parse(block).map_err(|rule| at(offset, rule))?;
        match header.kind {
            Kind::Extension(kind) => {
                let padded = padded(header.size).unwrap_or(u64::MAX);
                let body = self
                    .pending
                    .begin(kind, header.size, offset)
                    .map_err(|rule| at(offset, rule))?;
                self.fits(padded, || format!("extension header at offset {offset}"))?;
                self.body = Some(body);
                Ok(Step::More)
            }
            Kind::Entry(kind) => {
                let pending = std::mem::take(&mut self.pending);
                let entry = resolve(header, kind, pending, offset, self.offset)?;
                let padded = padded(entry.size).unwrap_or(u64::MAX);
                self.offset = self.advanced(padded, || entry.subject())?;
                Ok(Step::Entry(entry))
            }
        }
    }

    fn zero_block(&mut self, offset: u64) -> Result<Step> {
        if !self.pending.is_empty() {
            return Err(at(offset, "an extension header that no entry follows"));
        }
        if self.zero {
            return Ok(Step::End);
        }
        self.zero = true;
        Ok(Step::More)
    }

    /// The offset `bytes` further on, which must lie within the tar.
    fn advanced(&self, bytes: u64, subject: impl Fn() -> String) -> Result<u64> {
        self.fits(bytes, &subject)?;
        self.offset
            .checked_add(bytes)
            .ok_or_else(|| Error::malformed(subject(), "lies beyond every possible offset"))
    }

    fn fits(&self, bytes: u64, subject: impl Fn() -> String) -> Result<()> {
        let Some(length) = self.length else {
            return Ok(());
        };
        let left = length.saturating_sub(self.offset);
        if bytes <= left {
            return Ok(());
        }
        Err(Error::malformed(
            subject(),
            format!("needs {bytes} bytes, but the archive ends after {left}"),
        ))
    }
}

fn at(offset: u64, rule: impl std::fmt::Display) -> Error {
    Error::malformed(format!("header at offset {offset}"), rule)
}

#[cfg(test)]
mod tests;
