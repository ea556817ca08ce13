//! Blobs in memory: for tests, and for documents built on the fly.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::blob::{BlobSource, ReadAt, check_range, read_document};
use super::file::DOCUMENTS;
use crate::digest::Digest;
use crate::error::Result;

/// Blobs and documents in memory.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    blobs: BTreeMap<Digest, Bytes>,
    documents: BTreeMap<&'static str, Bytes>,
}

impl MemorySource {
    /// Nothing yet.
    pub fn new() -> MemorySource {
        MemorySource::default()
    }

    /// Adds a blob under its SHA-256, which is returned.
    pub fn insert(&mut self, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = Digest::sha256(&data);
        self.blobs.insert(digest, data);
        digest
    }

    /// Adds a blob under any digest, right or wrong; replaces what was there.
    pub fn insert_as(&mut self, digest: Digest, data: impl Into<Bytes>) {
        self.blobs.insert(digest, data.into());
    }

    /// Sets a root document: `oci-layout`, `index.json`, `manifest.json` or `config.json`. Other
    /// names are ignored, as every source ignores them.
    pub fn set_document(&mut self, name: &str, data: impl Into<Bytes>) {
        if let Some(name) = DOCUMENTS.iter().find(|document| **document == name) {
            self.documents.insert(name, data.into());
        }
    }
}

impl BlobSource for MemorySource {
    fn name(&self) -> String {
        "memory".into()
    }

    fn blob(&self, digest: &Digest, _: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        let data = self.blobs.get(digest).cloned();
        Ok(data.map(|data| Arc::new(MemoryBlob(data)) as Arc<dyn ReadAt>))
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let data = self.documents.get(name).cloned();
        data.map(|data| read_document(&MemoryBlob(data), name, limit))
            .transpose()
    }
}

/// Bytes that are all there.
pub struct MemoryBlob(
    /// The bytes.
    pub Bytes,
);

impl ReadAt for MemoryBlob {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range("blob in memory", self.len(), offset, buf.len())?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        if let Some(data) = self.0.get(start..end) {
            buf.copy_from_slice(data);
        }
        Ok(())
    }
}
