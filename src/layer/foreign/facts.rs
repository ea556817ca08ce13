//! What a layer's own bytes say of its file: a [`Guess`] before the blob's digest was found to be the
//! manifest's, a [`Fact`] after.
//!
//! The tree of a model is built from guesses, because mounting must not cost the data: a layer's first
//! kilobytes give the file's packaging, size, mode and time. Nothing more rests on them than plans:
//! how to decode, how far apart seek points are. Whoever answers a reader, be it with a byte, with the
//! end of the file or with nothing else than that the file is empty, needs the fact, and that is had
//! in one way: [`prove`] hashes the blob and looks at the bytes that it hashes, as they were looked at
//! when the layer was opened, and [`Proof::confirm`] compares. A difference is the error of the layer,
//! for good: its attributes were given out, and cannot be taken back.
//!
//! What would decide the tree itself is never a guess. A layer that holds a link, or a file of no
//! bytes (which no kernel ever asks for), is proven before the model is open. A reader of layers whose
//! members are not named by the manifest belongs here too: it lists them from bytes that [`prove`] has
//! seen, before the model is open, since their names are the tree.

use std::collections::VecDeque;
use std::sync::Arc;

use super::scan::{self, Content, Look};
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::layer::{FileAttr, LayerSpec, LinkTarget};
use crate::limits;
use crate::memory::effort::Effort;
use crate::source::ReadAt;

/// Bytes that are read at once.
pub(super) const BUFFER: usize = 1 << 20;

// What the first bytes say is found in one buffer.
const _: () = assert!(BUFFER as u64 >= limits::MAX_HEAD_BYTES);

/// What bytes said that belong to no digest yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess(Content);

/// What the bytes of the manifest's digest say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fact(Content);

/// What the first bytes of a blob said whose digest is the manifest's.
pub(super) struct Proof(Result<Look>);

/// What a layer holds, as far as it must be known to build the tree.
pub(super) enum Opening {
    /// A file, if the guess is right.
    File(Guess),
    /// A link; proven.
    Link(LinkTarget),
}

/// Looks at a layer: reads its first kilobytes, or all of a small one that holds a link.
///
/// # Errors
/// As [`scan::look`]; for a link also when its layer is not the manifest's.
pub(super) fn open(
    blob: &dyn ReadAt,
    spec: &LayerSpec,
    subject: &str,
    effort: &Effort,
) -> Result<Opening> {
    match scan::look(blob, spec, subject, effort)? {
        Look::File(content) => Ok(Opening::File(Guess(content))),
        Look::Link(_) => prove_link(blob, spec, subject, effort).map(Opening::Link),
    }
}

/// Where the link that is the only member of a layer leads.
fn prove_link(
    blob: &dyn ReadAt,
    spec: &LayerSpec,
    subject: &str,
    effort: &Effort,
) -> Result<LinkTarget> {
    if blob.len() > limits::MAX_LINK_LAYER_BYTES {
        let rule = format!("holds a link, and has {} bytes", blob.len());
        return Err(Error::malformed(subject, rule));
    }
    effort.spend(blob.len())?;
    let mut bytes = Vec::new();
    let proof = prove(blob, spec, subject, |buffer| {
        bytes.extend_from_slice(buffer);
    })?;
    match proof.0? {
        Look::Link(packaging) => scan::link(&bytes, packaging, spec, subject, effort),
        Look::File(_) => Err(changed(subject)),
    }
}

/// Reads a blob from its start to its end, and hands it to `each`; at the end, its digest has been
/// found to be the manifest's.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not,
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the blob cannot be read.
pub(super) fn prove(
    blob: &dyn ReadAt,
    spec: &LayerSpec,
    subject: &str,
    mut each: impl FnMut(&Arc<Vec<u8>>),
) -> Result<Proof> {
    let expected = spec.stated.digest;
    let mut hasher = Hasher::new(expected.algorithm());
    let mut pool: VecDeque<Arc<Vec<u8>>> = VecDeque::new();
    let mut look = None;
    let mut offset = 0;
    loop {
        let left = blob.len().saturating_sub(offset);
        let len = left.min(BUFFER as u64) as usize;
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
        look.get_or_insert_with(|| {
            let first = FirstBytes {
                bytes: &buffer,
                len: blob.len(),
            };
            scan::look(&first, spec, subject, &Effort::default())
        });
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
    Ok(Proof(look.unwrap_or_else(|| Err(changed(subject)))))
}

/// The error when a layer is not what it was taken for.
pub(super) fn changed(subject: &str) -> Error {
    Error::corrupt(
        subject,
        "the first bytes of the layer were others when it was opened",
    )
}

impl Guess {
    /// What is probably so: to plan with, never to answer with.
    pub(super) fn unproven(&self) -> &Content {
        &self.0
    }

    /// The attributes that the tree shows until the layer is read.
    pub(super) fn attr(&self) -> FileAttr {
        self.0.head.attr
    }

    /// For an index that was kept for a layer of the manifest's digest, and says the same of it.
    pub(super) fn kept_in_index(&self) -> Fact {
        Fact(self.0)
    }
}

impl Fact {
    /// What is so.
    pub(super) fn content(&self) -> &Content {
        &self.0
    }
}

impl Proof {
    /// The fact, if the guess was right.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it was not.
    pub(super) fn confirm(self, guess: &Guess, subject: &str) -> Result<Fact> {
        match self.0 {
            Ok(Look::File(content)) if content == guess.0 => Ok(Fact(content)),
            _ => Err(changed(subject)),
        }
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
