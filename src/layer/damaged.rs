//! A layer whose first bytes are damaged: its file is there, and every read of it is an error.
//!
//! What a layer without a chunk table holds is read from its first kilobytes when the model is
//! opened. When these cannot be understood, the layer's digest says who is to blame: a layer that is
//! what the manifest names is malformed, and the model is refused; one that is not was damaged, which
//! must not cost the model's other files. A layer so large that hashing it would keep the model from
//! being opened is not asked: its file cannot be read in either case.

use std::sync::Arc;

use bytes::Bytes;

use super::file_digests::FileDigests;
use super::reader::{FileAttr, FileReader, LayerSpec};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::context::Context;
use crate::memory::shared_work::Helpers;
use crate::source::ReadAt;
use crate::stream::Proven;

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

/// The file of a layer that could not be opened.
pub(super) struct DamagedFile {
    blob: Arc<dyn ReadAt>,
    digest: Digest,
    error: Error,
    /// The blob is not what its digest says.
    proven: bool,
}

/// The layer that could not be opened because of `error`, as a file that cannot be read.
///
/// # Errors
/// `error` itself when the layer is what the manifest names, or when storage failed.
pub(super) fn open(
    blob: &Arc<dyn ReadAt>,
    spec: &LayerSpec,
    error: Error,
    context: &Context,
) -> Result<DamagedFile> {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Malformed)
        || blob.len() != spec.stated.size
    {
        return Err(error);
    }
    let digest = spec.stated.digest;
    let subject = format!("{} ({digest})", spec.path);
    let proven = context.opening.affords(blob.len());
    let error = if !proven {
        Error::corrupt(
            subject,
            format!("its first bytes cannot be understood: {error}"),
        )
    } else {
        let found = hash(&**blob, digest.algorithm())?;
        if found == digest {
            return Err(error);
        }
        let problem = format!("the layer is {found}; damaged from its first bytes on");
        Error::corrupt(subject, problem)
    };
    Ok(DamagedFile {
        blob: Arc::clone(blob),
        digest,
        error: context.errors.keep(error),
        proven,
    })
}

fn hash(blob: &dyn ReadAt, algorithm: Algorithm) -> Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    while offset < blob.len() {
        let len = PIECE.min(usize::try_from(blob.len() - offset).unwrap_or(PIECE));
        let piece = buffer.get_mut(..len).unwrap_or_default();
        blob.read_exact_at(piece, offset)?;
        hasher.update(piece);
        offset += len as u64;
    }
    Ok(hasher.finish())
}

impl FileReader for DamagedFile {
    fn shown_size(&self) -> u64 {
        FileAttr::of_damaged(self.blob.len()).size
    }

    fn proof(&self) -> Option<Result<Proven>> {
        Some(Err(self.error.clone()))
    }

    fn read_at(&self, _offset: u64, _len: usize) -> Result<Bytes> {
        Err(self.error.clone())
    }

    fn verify_with(&self, _also: &[Algorithm], _helpers: &Helpers) -> Result<Vec<FileDigests>> {
        if !self.proven {
            let found = hash(&*self.blob, self.digest.algorithm())?;
            if found != self.digest {
                return Err(self.error.clone().within(format!("the layer is {found}")));
            }
        }
        Err(self.error.clone())
    }
}
