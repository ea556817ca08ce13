//! What a system has to know, and be asked.

use std::fmt;

use serde_json::Value;

use super::about::About;
use super::entry::{Contents, Entry, Layer, Names, Part, Parts, name_of_layer};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::layer::Reading;
use crate::oci::{Stated, annotations, media_type};

/// What a manifest says of itself, before its layers.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its artifact type.
    pub artifact_type: Option<&'a str>,
    /// The media type of its config,
    pub config_type: &'a str,
    /// and of its first layer.
    pub layer_type: Option<&'a str>,
    /// It stands alone, without an index, in the spelling of the original Python tool.
    pub original_spelling: bool,
}

/// Reads the config of a manifest; `None` where there is none.
pub type Config<'a> = dyn Fn() -> Result<Option<Vec<u8>>> + 'a;

/// A system that ships models.
pub trait System: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// True for manifests that it wrote.
    fn recognises(&self, head: &Head<'_>) -> bool;

    /// What a manifest's layers hold: files that the manifest names, and layers whose files have names of
    /// their own. No system is given a byte of a layer: such names are proven before anybody sees them.
    /// `config` reads the manifest's config.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the layer, where one has no name or
    /// a bad one.
    fn contents(&self, layers: Vec<Layer>, config: &Config<'_>) -> Result<Contents> {
        let _ = config;
        self.each(layers)
    }

    /// What each layer holds by itself.
    ///
    /// # Errors
    /// As [`contents`](System::contents).
    fn each(&self, layers: Vec<Layer>) -> Result<Contents> {
        let holds_one =
            |layer: &&Layer| self.reading(&layer.stated, layer.path.as_deref()) != Reading::Members;
        // There may be so many that a list which grows by doubling would be too large.
        let files = layers.iter().filter(holds_one).count();
        let mut contents = Contents {
            files: Vec::with_capacity(files),
            archives: Vec::new(),
        };
        for layer in layers {
            match self.reading(&layer.stated, layer.path.as_deref()) {
                Reading::Members => contents.archives.push(layer.into_archive(Names::Root)),
                _ => contents.files.push(self.entry(layer)?),
            }
        }
        Ok(contents)
    }

    /// What the model is, by its config, if that is JSON, and the manifest's annotations.
    fn about(&self, config: &Value) -> About {
        let _ = config;
        About::default()
    }

    /// The file of a layer that holds one, under the name that it states. The one place where a layer
    /// whose file has no name is refused.
    ///
    /// # Errors
    /// As [`contents`](System::contents).
    fn entry(&self, layer: Layer) -> Result<Entry> {
        let subject = || name_of_layer(layer.number, None, &layer.stated.digest);
        let nameless = || Error::malformed(subject(), self.nameless(&layer.stated));
        let path = layer.path.as_deref().ok_or_else(nameless)?;
        let reading = self.reading(&layer.stated, Some(path));
        let path = self.path(path).map_err(|e| e.within(subject()))?;
        let Layer { number, stated, .. } = layer;
        let part = Part {
            number,
            stated,
            reading,
        };
        Ok(Entry {
            path,
            parts: Parts::from(part),
        })
    }

    /// What to say of a layer whose file has no name.
    fn nameless(&self, _stated: &Stated) -> String {
        let (filepath, title) = (annotations::MODELPACK_FILEPATH, annotations::TITLE);
        format!("has no file name: neither {filepath} nor {title} is set")
    }

    /// How a layer is read. `path` is what its annotations call its file.
    fn reading(&self, stated: &Stated, path: Option<&str>) -> Reading {
        match (media_type::names_tar(&stated.media_type), path) {
            (false, _) => Reading::File,
            (true, Some(_)) => Reading::Either,
            (true, None) => Reading::Members,
        }
    }

    /// The path of a file, as the manifest states it.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it is none.
    fn path(&self, stated: &str) -> Result<EntryPath> {
        EntryPath::new(stated)
    }

    /// Layers lie over each other, as those of an image: what a later one holds stands in place of what
    /// was there, and it can take away.
    fn overlays(&self) -> bool {
        false
    }

    /// The directory that is the model, where there is one.
    fn home(&self) -> Option<&'static str> {
        None
    }

    /// Links that lead nowhere are left out with a note, instead of being refused.
    fn leaves_out_dead_links(&self) -> bool {
        false
    }
}

impl fmt::Debug for dyn System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
