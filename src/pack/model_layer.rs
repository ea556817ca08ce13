//! One layer, for programs.

use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::oci::{Descriptor, media_type, stated};

/// One layer of a model: which file it holds, and which blob it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLayer(Descriptor);

impl ModelLayer {
    /// A gzip tar layer that holds the file `title`; `digest` and `size` are the blob's.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when `title` is no path of a file.
    pub fn new(title: &str, digest: Digest, size: u64) -> Result<ModelLayer> {
        let title = EntryPath::new(title)?;
        let mut descriptor = Descriptor::new(media_type::LAYER_TAR_GZIP, digest, size);
        stated::name(&mut descriptor, title.as_str());
        Ok(ModelLayer(descriptor))
    }

    /// The path of the file in the model; empty when the descriptor names none.
    pub fn title(&self) -> &str {
        stated::path_of(&self.0).unwrap_or_default()
    }

    /// Digest of the blob.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Size of the blob, in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Media type of the blob.
    pub fn media_type(&self) -> &str {
        &self.0.media_type
    }

    /// The whole descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.0
    }
}

impl From<Descriptor> for ModelLayer {
    fn from(descriptor: Descriptor) -> ModelLayer {
        ModelLayer(descriptor)
    }
}

impl From<ModelLayer> for Descriptor {
    fn from(layer: ModelLayer) -> Descriptor {
        layer.0
    }
}
