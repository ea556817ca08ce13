//! What a system has to know, and be asked.

use std::fmt;

use super::entry::{Entry, Layer, Part, Parts, name_of_layer};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::layer::Reading;
use crate::oci::{Stated, annotations, media_type};

/// What a manifest says of itself, before its layers.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its artifact type.
    pub artifact_type: Option<&'a str>,
    /// The media type of its config.
    pub config_type: &'a str,
    /// It stands alone, without an index, in the spelling of the original Python tool.
    pub original_spelling: bool,
}

/// A system that ships models.
pub trait System: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// True for manifests that it wrote.
    fn recognises(&self, head: &Head<'_>) -> bool;

    /// The files of a manifest's layers. They are named by what the manifest states, and by nothing else:
    /// no system is given a byte of a layer, whose names would have to be proven before the model is open.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the layer, where one has no name or
    /// a bad one.
    fn entries(&self, layers: Vec<Layer>) -> Result<Vec<Entry>> {
        layers.into_iter().map(|layer| self.entry(layer)).collect()
    }

    /// The file of a layer that holds one, under the name that it states. The one place where a layer
    /// whose file has no name is refused.
    ///
    /// # Errors
    /// As [`entries`](System::entries).
    fn entry(&self, layer: Layer) -> Result<Entry> {
        let subject = || name_of_layer(layer.number, None, &layer.stated.digest);
        let nameless = || Error::malformed(subject(), self.nameless(&layer.stated));
        let path = layer.path.as_deref().ok_or_else(nameless)?;
        let reading = self.reading(&layer.stated, path);
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
    fn reading(&self, stated: &Stated, path: &str) -> Reading {
        let _ = path;
        match media_type::names_tar(&stated.media_type) {
            true => Reading::Archive,
            false => Reading::File,
        }
    }

    /// The path of a file, as the manifest states it.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it is none.
    fn path(&self, stated: &str) -> Result<EntryPath> {
        EntryPath::new(stated)
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
