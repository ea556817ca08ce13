//! The packer as one object, for programs: [`ModelPackager`], and the layers it makes.

use std::path::Path;

use super::add_layer::{add_layer, remove_layer, replace_layer};
use super::documents;
use super::model_layer::ModelLayer;
use super::options::{Output, PackOptions};
use super::packed::Packed;
use super::run::pack;
use crate::error::Result;
use crate::oci::{Descriptor, OciConfig, OciManifest};

/// Packs models.
///
/// ```
/// use modeloci::{ModelPackager, OciConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dir = tempfile::tempdir()?;
/// let model = dir.path().join("model");
/// std::fs::create_dir(&model)?;
/// std::fs::write(model.join("weights.bin"), vec![0x3f; 100_000])?;
/// std::fs::write(model.join("config.json"), "{}")?;
///
/// let config = OciConfig {
///     model_name: "tiny".into(),
///     version: "1.0.0".into(),
///     framework: "pytorch".into(),
///     architecture: "transformer".into(),
///     metadata: Default::default(),
/// };
/// let archive = dir.path().join("tiny-1.0.0.tar");
/// let packed = ModelPackager::default().package(&model, &config, &archive)?;
/// assert_eq!(packed.files, 2);
/// assert_eq!(packed.archive_bytes, std::fs::metadata(&archive)?.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ModelPackager {
    /// How to pack.
    pub options: PackOptions,
}

impl ModelPackager {
    /// A packager with these options.
    pub fn new(options: PackOptions) -> ModelPackager {
        ModelPackager { options }
    }

    /// Packs `model_dir` into the archive `output`; see [`pack`](super::pack()).
    ///
    /// # Errors
    /// As [`pack`](super::pack()).
    pub fn package(
        &self,
        model_dir: impl AsRef<Path>,
        config: &OciConfig,
        output: impl AsRef<Path>,
    ) -> Result<Packed> {
        let output = Output::File(output.as_ref().to_path_buf());
        pack(
            model_dir.as_ref(),
            config,
            &output,
            &self.options,
            &|_, _| {},
        )
    }

    /// The manifest of a model made of these layers, sorted by path.
    ///
    /// ```
    /// use modeloci::{Digest, ModelLayer, ModelPackager, OciConfig};
    ///
    /// # fn main() -> modeloci::Result<()> {
    /// # let config = OciConfig {
    /// #     model_name: "tiny".into(),
    /// #     version: "1.0.0".into(),
    /// #     framework: "pytorch".into(),
    /// #     architecture: "transformer".into(),
    /// #     metadata: Default::default(),
    /// # };
    /// let layers = [
    ///     ModelLayer::new("weights.bin", Digest::sha256(b"one blob"), 8)?,
    ///     ModelLayer::new("config.json", Digest::sha256(b"another"), 7)?,
    /// ];
    /// let manifest = ModelPackager::default().create_manifest(&config, &layers);
    /// let titles: Vec<String> = manifest
    ///     .layers
    ///     .into_iter()
    ///     .map(|layer| ModelLayer::from(layer).title().to_string())
    ///     .collect();
    /// assert_eq!(titles, ["config.json", "weights.bin"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_manifest(&self, config: &OciConfig, layers: &[ModelLayer]) -> OciManifest {
        let mut layers = layers.to_vec();
        layers.sort_by(|a, b| a.title().cmp(b.title()));
        documents::manifest(
            config,
            layers.into_iter().map(Descriptor::from).collect(),
            Default::default(),
            0,
        )
    }

    /// Adds a file to an archive in place; see [`add_layer`](super::add_layer()).
    ///
    /// # Errors
    /// As [`add_layer`](super::add_layer()).
    pub fn add_layer(
        &self,
        archive: impl AsRef<Path>,
        file: impl AsRef<Path>,
        title: Option<&str>,
    ) -> Result<Packed> {
        add_layer(archive.as_ref(), file.as_ref(), title, &self.options)
    }

    /// Adds a file to an archive in place, or replaces it; see [`replace_layer`](super::replace_layer()).
    ///
    /// # Errors
    /// As [`replace_layer`](super::replace_layer()).
    pub fn replace_layer(
        &self,
        archive: impl AsRef<Path>,
        file: impl AsRef<Path>,
        title: Option<&str>,
    ) -> Result<Packed> {
        replace_layer(archive.as_ref(), file.as_ref(), title, &self.options)
    }

    /// Removes a file from an archive in place; see [`remove_layer`](super::remove_layer()).
    ///
    /// # Errors
    /// As [`remove_layer`](super::remove_layer()).
    pub fn remove_layer(&self, archive: impl AsRef<Path>, title: &str) -> Result<Packed> {
        remove_layer(archive.as_ref(), title, &self.options)
    }
}
