//! The packer as one object, for programs: [`ModelPackager`], and the layers it makes.

use std::path::Path;

use super::{Output, PackOptions, Packed, documents};
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::Result;
use crate::oci::{Descriptor, OciConfig, OciManifest, annotations, media_type};

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
        for key in [annotations::TITLE, annotations::MODELPACK_FILEPATH] {
            descriptor
                .annotations
                .insert(key.into(), title.as_str().into());
        }
        Ok(ModelLayer(descriptor))
    }

    /// The path of the file in the model; empty when the descriptor names none.
    pub fn title(&self) -> &str {
        let name = |key| self.0.annotation(key);
        name(annotations::MODELPACK_FILEPATH)
            .or_else(|| name(annotations::MODELPACK_OLD_FILEPATH))
            .or_else(|| name(annotations::TITLE))
            .unwrap_or_default()
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
        super::pack(
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
        super::add_layer(archive.as_ref(), file.as_ref(), title, &self.options)
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
        super::replace_layer(archive.as_ref(), file.as_ref(), title, &self.options)
    }

    /// Removes a file from an archive in place; see [`remove_layer`](super::remove_layer()).
    ///
    /// # Errors
    /// As [`remove_layer`](super::remove_layer()).
    pub fn remove_layer(&self, archive: impl AsRef<Path>, title: &str) -> Result<Packed> {
        super::remove_layer(archive.as_ref(), title, &self.options)
    }
}
