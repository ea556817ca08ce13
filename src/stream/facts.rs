//! What is taken for true of a blob: a [`Guess`] before its digest was found to be the manifest's, a
//! [`Fact`] after.
//!
//! The tree of a model is built from guesses, because mounting must not cost the data: a blob's first
//! kilobytes tell how it is packed, and where in its stream there is a file of which size, mode and
//! time. Nothing more rests on them than plans (how to decode, how far apart seek points are) and what
//! a directory shows of a file that nobody has opened. Whoever opens a file, or answers a reader, be it with a byte, with the end of the file or with nothing else than that the
//! file is empty, needs the fact, and that is had in one way: [`prove`] hashes the blob and has the
//! bytes that it hashes looked at as they were looked at when the blob was opened. (Where an index of an
//! earlier run knows the digests of the blob's blocks, [`prove_from_index`] looks at those that the first
//! bytes are in: no comparison is left to the index.) A difference is the error of the blob, for good:
//! its attributes were given out, and cannot be taken back.
//!
//! What would decide the tree itself is never a guess. A layer that holds a link, or a file of no
//! bytes (which no kernel ever asks for), is proven before the model is open. Names are those of the
//! manifest; a layer whose files have names of their own is proven as a whole before any of them is shown
//! ([`Archive::open`](crate::layer::Archive::open)).

use std::collections::VecDeque;
use std::sync::Arc;

use super::packing::Packing;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::limits;
use crate::source::ReadAt;

/// Bytes that a pass reads at once from storage that wants no more.
const BUFFER: usize = 1 << 20;

// What the first bytes say is found in one buffer.
const _: () = assert!(BUFFER as u64 >= limits::MAX_HEAD_BYTES);

/// What a compressed blob may well expand to, for each of its bytes.
const USUAL_RATIO: u64 = 4;

/// Bytes that a pass reads at once of a blob.
pub(super) fn at_once(blob: &dyn ReadAt) -> usize {
    BUFFER.max(blob.piece())
}

/// How a blob is packed, and where in its stream is what readers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) packing: Packing,
    /// Offsets in the stream of the first byte of the content,
    pub(crate) start: u64,
    /// and of the first byte behind it.
    pub(crate) end: u64,
}

impl Plan {
    /// Bytes of the content.
    pub(super) fn content(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Of a blob of `size` bytes whose content is all of its stream. Where that ends only a pass finds out:
    /// what is said here is what plans are made with.
    pub(crate) fn of_all(packing: Packing, size: u64) -> Plan {
        let end = match packing {
            Packing::Plain => size,
            Packing::Gzip | Packing::Zstd => size.saturating_mul(USUAL_RATIO),
        };
        Plan {
            packing,
            start: 0,
            end,
        }
    }
}

/// What bytes said that belong to no digest yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess<T>(T);

/// What the bytes of the manifest's digest say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact<T> {
    value: T,
    by: Proven,
}

/// The digest of a blob was found to be the manifest's, and its first bytes what they were when it was
/// opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven(());

/// Reads no byte of a blob but those of blocks whose digests were right.
pub(super) trait Verified: ReadAt {}

/// Reads a blob from its start to its end, and hands it to `each`; `confirm` is given its first bytes.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when its digest is not `expected`,
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when it cannot be read; and, if the digest
/// is right, that of `confirm`.
pub(crate) fn prove(
    blob: &dyn ReadAt,
    expected: Digest,
    subject: &str,
    confirm: impl FnOnce(&dyn ReadAt) -> Result<()>,
    mut each: impl FnMut(&Arc<Vec<u8>>),
) -> Result<Proven> {
    let mut hasher = Hasher::new(expected.algorithm());
    let mut pool: VecDeque<Arc<Vec<u8>>> = VecDeque::new();
    let mut confirm = Some(confirm);
    let mut confirmed = Ok(());
    let (mut offset, at_once) = (0, at_once(blob));
    loop {
        let left = blob.len().saturating_sub(offset);
        let len = left.min(at_once as u64) as usize;
        let mut buffer = match pool.pop_front() {
            Some(buffer) if Arc::strong_count(&buffer) == 1 => buffer,
            Some(busy) => {
                pool.push_front(busy);
                Arc::default()
            }
            None => Arc::default(),
        };
        if let Some(bytes) = Arc::get_mut(&mut buffer) {
            if bytes.is_empty() {
                *bytes = vec![0; len];
            }
            bytes.truncate(len);
            blob.read_exact_at(bytes, offset)?;
        }
        if let Some(confirm) = confirm.take() {
            confirmed = confirm(&FirstBytes {
                bytes: &buffer,
                len: blob.len(),
            });
        }
        offset += len as u64;
        each(&buffer);
        hasher.update(&buffer);
        pool.push_back(buffer);
        if offset >= blob.len() {
            break;
        }
    }
    let found = hasher.finish();
    if found != expected {
        return Err(Error::corrupt(
            subject,
            format!("the layer is {found}, the manifest says {expected}"),
        ));
    }
    confirmed.map(|()| Proven(()))
}

/// The same without a pass, where an index has the digests of all blocks of a blob that an earlier run
/// proved: `confirm` is given its first bytes, each block of which is verified as it is read.
///
/// # Errors
/// That of `confirm`, or of reading.
pub(super) fn prove_from_index(
    verified: &impl Verified,
    confirm: impl FnOnce(&dyn ReadAt) -> Result<()>,
) -> Result<Proven> {
    confirm(verified).map(|()| Proven(()))
}

/// The error when a layer is not what it was taken for.
pub(crate) fn changed(subject: &str) -> Error {
    Error::corrupt(
        subject,
        "the first bytes of the layer were others when it was opened",
    )
}

impl<T: Copy> Guess<T> {
    /// What a blob is taken for.
    pub(crate) fn of(value: T) -> Guess<T> {
        Guess(value)
    }

    /// What is probably so: to plan with, and to show to who has asked for nothing else yet; never to
    /// answer with.
    pub fn unproven(&self) -> &T {
        &self.0
    }

    /// What follows from it, as far as it is so.
    pub(crate) fn map<U: Copy>(self, follows: impl FnOnce(T) -> U) -> Guess<U> {
        Guess(follows(self.0))
    }

    /// The fact, once the blob that it was guessed of is proven.
    pub(crate) fn confirmed(&self, by: Proven) -> Fact<T> {
        Fact { value: self.0, by }
    }
}

impl<T> Fact<T> {
    /// What is so.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Why it is so.
    pub(super) fn proof(&self) -> Proven {
        self.by
    }
}

/// The first bytes of a blob, as they were hashed.
struct FirstBytes<'a> {
    bytes: &'a [u8],
    /// Of the blob.
    len: u64,
}

impl ReadAt for FirstBytes<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let from = usize::try_from(offset).ok();
        let bytes = from
            .and_then(|from| self.bytes.get(from..)?.get(..buf.len()))
            .ok_or_else(|| Error::corrupt("layer", "is read beyond its first bytes"))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}
