//! Opens the layers of a model's files: each blob once, however many descriptors name it.

use std::collections::hash_map;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::file::File;
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::layer::{Archive, LayerKey, LayerSpec, OpenLayer, Opened, OpenedArchive, damaged_file};
use crate::limits;
use crate::memory::context::Context;
use crate::memory::effort::Effort;
use crate::oci::Stated;
use crate::oci::stated::TablePlace;
use crate::printable::shown;
use crate::source::BlobSource;
use crate::systems::{ArchiveLayer, Entry, Part};

/// Layers opened so far.
pub(super) struct Opening<'a> {
    source: &'a dyn BlobSource,
    context: &'a Arc<Context>,
    layers: HashMap<LayerKey, OpenLayer>,
    archives: HashMap<Digest, Arc<OpenedArchive>>,
    /// The first layer that is not what its media type says, and how many more there are.
    disagreements: Option<(String, usize)>,
}

/// Memory that an open layer takes, in bytes, as measured with 60,000 of them.
const LAYER_BYTES: u64 = 1280;

/// Memory, in bytes, that the files of so many layers will take: known before any is opened.
pub(super) fn memory_of(entries: &[Entry]) -> u64 {
    let parts = || entries.iter().flat_map(|entry| entry.parts.iter());
    let blobs: HashSet<&Digest> = parts().map(|part| &part.stated.digest).collect();
    let file = size_of::<File>() + size_of::<Entry>();
    let part = size_of::<Part>() + size_of::<Stated>();
    let paths = entries.iter().map(|entry| entry.path.as_str().len());
    (blobs.len() as u64 * LAYER_BYTES)
        .saturating_add((entries.len() * file) as u64)
        .saturating_add((parts().count() * part) as u64)
        .saturating_add(paths.sum::<usize>() as u64)
}

/// What a layer holds for one file.
pub(super) struct OpenedFile {
    pub(super) opened: Opened,
    /// The layer was opened for a descriptor that states something else: whether its header says
    /// this is to be asked.
    pub(super) unconfirmed: bool,
}

impl<'a> Opening<'a> {
    /// For a manifest of so many bytes.
    pub(super) fn new(
        source: &'a dyn BlobSource,
        context: &'a Arc<Context>,
        manifest_bytes: u64,
    ) -> Opening<'a> {
        let grown = manifest_bytes.saturating_mul(limits::OPENING_BYTES_PER_MANIFEST_BYTE);
        context
            .opening
            .allow(limits::OPENING_BYTES.saturating_add(grown));
        Opening {
            source,
            context,
            layers: HashMap::new(),
            archives: HashMap::new(),
            disagreements: None,
        }
    }

    /// What opening may cost.
    pub(super) fn effort(&self) -> &'a Effort {
        &self.context.opening
    }

    /// What is worth a remark.
    pub(super) fn take_note(&mut self) -> Option<String> {
        let (first, others) = self.disagreements.take()?;
        Some(match others {
            0 => first,
            1 => format!("{first}; so is one more layer"),
            others => format!("{first}; so are {others} more layers"),
        })
    }

    /// Opens the layer of a file, unless it is open.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) for a file of several layers: no system
    /// that is read has any. Who joins them must have proven the size of each before a byte of the next
    /// is given.
    pub(super) fn open(&mut self, entry: &Entry) -> Result<OpenedFile> {
        match entry.parts.only() {
            Some(part) => self.open_part(entry, part),
            None => {
                let subject = format!("{} ({})", entry.path, entry.parts.digests());
                Err(Error::malformed(subject, "is in several layers"))
            }
        }
    }

    /// Memory that may be had at a time, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.context.limiter.limit()
    }

    /// Opens a layer of any number of files, unless it is open: reads and verifies all of it. What is in it
    /// is held on to where it is wanted again.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub(super) fn open_archive(
        &mut self,
        layer: &ArchiveLayer,
        again: bool,
    ) -> Result<Arc<OpenedArchive>> {
        let stated = &layer.part.stated;
        if let Some(open) = self.archives.get(&stated.digest) {
            let open = Arc::clone(open);
            if !again {
                self.archives.remove(&stated.digest);
            }
            return Ok(open);
        }
        let blob = self.source.blob(&stated.digest, Some(stated.size))?;
        let blob =
            blob.ok_or_else(|| Error::malformed(layer.subject(), "is not in the archive"))?;
        let held = self.archives.values().map(|open| open.list_bytes).sum();
        let open = Archive::open(blob, stated, layer.subject().into(), held, self.context)?;
        let open = Arc::new(open);
        if again {
            self.archives.insert(stated.digest, Arc::clone(&open));
        }
        Ok(open)
    }

    /// What stands at `path` for a layer that could not be opened because of `error`: see [`damaged_file`].
    ///
    /// # Errors
    /// As [`damaged_file`].
    pub(super) fn damaged(
        &self,
        layer: &ArchiveLayer,
        path: &EntryPath,
        error: Error,
    ) -> Result<OpenedFile> {
        let stated = &layer.part.stated;
        let Some(blob) = self.source.blob(&stated.digest, Some(stated.size))? else {
            return Err(error);
        };
        let spec = LayerSpec {
            stated: Arc::clone(stated),
            path: path.clone(),
            reading: layer.part.reading,
            table: None,
        };
        Ok(OpenedFile {
            opened: damaged_file(&blob, &spec, error, self.context)?,
            unconfirmed: false,
        })
    }

    fn open_part(&mut self, entry: &Entry, part: &Part) -> Result<OpenedFile> {
        // A plain layer's table is a blob of its own; without it the layer is foreign.
        let table = match &part.stated.chunks {
            Some(table) if table.place == TablePlace::Blob => {
                self.source.blob(&table.digest, None)?
            }
            _ => None,
        };
        let spec = LayerSpec {
            stated: Arc::clone(&part.stated),
            path: entry.path.clone(),
            reading: part.reading,
            table,
        };
        let open = match self.layers.entry(LayerKey::of(&spec)) {
            hash_map::Entry::Occupied(open) => open.into_mut(),
            hash_map::Entry::Vacant(slot) => {
                let digest = &part.stated.digest;
                let size = Some(part.stated.size);
                let blob = self.source.blob(digest, size)?.ok_or_else(|| {
                    let subject = format!("layer {} ({digest})", entry.path);
                    Error::malformed(subject, "is not in the archive")
                })?;
                let open = OpenLayer::open(blob, &spec, self.context)?;
                note(&mut self.disagreements, &spec, &open);
                slot.insert(open)
            }
        };
        Ok(OpenedFile {
            opened: open.entry(&spec)?,
            unconfirmed: !open.is_opened_for(&spec),
        })
    }
}

/// Takes note of a layer that is not what its media type says: however many there are, that is one
/// remark.
fn note(disagreements: &mut Option<(String, usize)>, spec: &LayerSpec, open: &OpenLayer) {
    let Some(found) = open.disagreement() else {
        return;
    };
    match disagreements {
        Some((_, others)) => *others += 1,
        None => {
            let media_type = shown(&spec.stated.media_type);
            let first = format!(
                "{}: is {found}, not the {media_type} that it is said to be",
                spec.path
            );
            *disagreements = Some((first, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry_path::EntryPath;
    use crate::error::ErrorKind;
    use crate::layer::Reading;
    use crate::memory::cache::LruChunkCache;
    use crate::oci::Descriptor;
    use crate::oci::stated::MediaTypes;
    use crate::source::memory::MemorySource;
    use crate::systems::Parts;

    /// No byte of the second is given where the size of the first may be wrong.
    #[test]
    fn l9_a_file_of_several_layers_is_refused_with_the_digests_of_all() {
        let mut source = MemorySource::new();
        let mut part = |number, bytes: &'static [u8]| {
            source.insert(bytes);
            let descriptor = Descriptor::of("application/octet-stream", bytes);
            Part {
                number,
                stated: Arc::new(Stated::of(&descriptor, &mut MediaTypes::default()).unwrap()),
                reading: Reading::File,
            }
        };
        let (one, other) = (part(0, b"one"), part(1, b"other"));
        let context = Arc::new(Context::new(Arc::new(LruChunkCache::new(1 << 20)), None, 0));
        let mut opening = Opening::new(&source, &context, 0);
        let mut open = |parts| {
            let path = EntryPath::new("f").unwrap();
            opening.open(&Entry { path, parts })
        };
        assert!(open(Parts::from(one.clone())).is_ok());
        let digests = [one.stated.digest, other.stated.digest];
        let error = open(Parts::new(one, vec![other])).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let [first, second] = digests;
        assert_eq!(
            error.to_string(),
            format!("f ({first}, {second}): is in several layers")
        );
    }
}
