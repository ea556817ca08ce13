//! A layer whose first bytes are damaged: its file is there, and every read of it is an error.
//!
//! What a layer without a chunk table holds is read from its first kilobytes when the model is
//! opened. When these cannot be understood, the layer's digest says who is to blame: a layer that is
//! what the manifest names is malformed, and the model is refused; one that is not was damaged, which
//! must not cost the model's other files.

use std::sync::Arc;

use bytes::Bytes;

use super::{FileAttr, FileReader, LayerSpec, Opened};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::source::ReadAt;

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

struct DamagedFile {
    size: u64,
    error: Error,
}

/// The layer that could not be opened because of `error`, as a file that cannot be read.
///
/// # Errors
/// `error` itself when the layer is what the manifest names, or when storage failed.
pub(super) fn open(blob: &dyn ReadAt, spec: &LayerSpec, error: Error) -> Result<Opened> {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Malformed)
        || blob.len() != spec.descriptor.size
    {
        return Err(error);
    }
    let stated = spec.descriptor.digest;
    let mut hasher = Hasher::new(stated.algorithm());
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    while offset < blob.len() {
        let len = PIECE.min(usize::try_from(blob.len() - offset).unwrap_or(PIECE));
        let piece = buffer.get_mut(..len).unwrap_or_default();
        blob.read_exact_at(piece, offset)?;
        hasher.update(piece);
        offset += len as u64;
    }
    let found = hasher.finish();
    if found == stated {
        return Err(error);
    }
    let file = DamagedFile {
        // Nobody knows the file's size; one of 0 would read as an empty file, without an error.
        size: blob.len().max(1),
        error: Error::corrupt(
            format!("{} ({stated})", spec.path),
            format!("the layer is {found}; damaged from its first bytes on"),
        ),
    };
    let attr = FileAttr {
        size: file.size,
        executable: false,
        mtime: 0,
    };
    Ok(Opened::File(Arc::new(file), attr))
}

impl FileReader for DamagedFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, _offset: u64, _len: usize) -> Result<Bytes> {
        Err(self.error.clone())
    }

    fn verify(&self) -> Result<Digest> {
        Err(self.error.clone())
    }
}
