//! The library's front door for reading archives.

use std::path::Path;

use super::{UnpackOptions, Unpacked, unpack};
use crate::error::Result;
use crate::model::{Model, OpenOptions};
use crate::verify::{LayerReport, verify};

/// Restores and verifies archives: the counterpart of `ModelPackager`.
#[derive(Debug, Clone, Default)]
pub struct ModelUnpackager {
    /// How archives are opened: the pinned digest, the cache.
    pub open: OpenOptions,
    /// How files are restored.
    pub options: UnpackOptions,
}

impl ModelUnpackager {
    /// An unpackager with the default options.
    pub fn new() -> ModelUnpackager {
        ModelUnpackager::default()
    }

    /// Restores the files of `archive` below `output`, which appears complete or not at all.
    ///
    /// # Errors
    /// Those of [`Model::open`] and [`unpack`].
    pub fn unpack(&self, archive: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Unpacked> {
        let model = Model::open(archive, &self.open)?;
        unpack(&model, output.as_ref(), &self.options, &|_, _| {})
    }

    /// Verifies every layer of `archive`, on all cores; one report per file, in path order.
    ///
    /// # Errors
    /// Those of [`Model::open`]. A layer that fails is no error here but in its report.
    pub fn verify_layers(&self, archive: impl AsRef<Path>) -> Result<Vec<LayerReport>> {
        let model = Model::open(archive, &self.open)?;
        Ok(verify(&model, self.options.jobs, &|_, _| {}))
    }
}
