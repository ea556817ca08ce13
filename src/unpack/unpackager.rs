//! The library's front door for reading archives.

use std::path::Path;

use super::{UnpackOptions, Unpacked, unpack};
use crate::error::Result;
use crate::model::verify::{LayerReport, verify};
use crate::model::{Model, OpenOptions};

/// Restores and verifies archives: the counterpart of [`ModelPackager`](crate::pack::ModelPackager).
///
/// ```
/// # use modeloci::{oci::OciConfig, pack};
/// use modeloci::ModelUnpackager;
///
/// # let dir = tempfile::tempdir()?;
/// # let (archive, output) = (dir.path().join("m.tar"), dir.path().join("restored"));
/// # std::fs::create_dir(dir.path().join("m"))?;
/// # std::fs::write(dir.path().join("m/weights.bin"), b"weights")?;
/// # let config = OciConfig {
/// #     model_name: "m".into(),
/// #     version: "1.0.0".into(),
/// #     framework: "pytorch".into(),
/// #     architecture: "transformer".into(),
/// #     metadata: Default::default(),
/// # };
/// # let to = pack::Output::File(archive.clone());
/// # pack::pack(&dir.path().join("m"), &config, &to, &Default::default(), &|_, _| {})?;
/// let unpackager = ModelUnpackager::new();
/// for layer in unpackager.verify_layers(&archive)? {
///     println!("{}: {}", layer.path, layer.outcome?);
/// }
/// let unpacked = unpackager.unpack(&archive, &output)?;
/// assert_eq!(unpacked.files, 1);
/// assert_eq!(std::fs::read(output.join("weights.bin"))?, b"weights");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
