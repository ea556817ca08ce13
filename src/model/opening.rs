//! Opens the layers of a model's files: each blob once, however many descriptors name it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::entry::FileLayer;
use super::file::File;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::{LayerKey, LayerSpec, OpenLayer, Opened};
use crate::limits;
use crate::memory::context::Context;
use crate::oci::Stated;
use crate::oci::stated::TablePlace;
use crate::printable::printable;
use crate::source::BlobSource;

/// Layers opened so far.
pub(super) struct Opening<'a> {
    source: &'a dyn BlobSource,
    context: &'a Arc<Context>,
    layers: HashMap<LayerKey, OpenLayer>,
    /// The first layer that is not what its media type says, and how many more there are.
    disagreements: Option<(String, usize)>,
}

/// Memory that an open layer takes, in bytes, as measured with 60,000 of them.
const LAYER_BYTES: u64 = 1280;

/// Memory, in bytes, that the files of so many layers will take: known before any is opened.
pub(super) fn memory_of(layers: &[FileLayer]) -> u64 {
    let blobs: HashSet<&Digest> = layers.iter().map(|layer| &layer.stated.digest).collect();
    let file = size_of::<File>() + size_of::<FileLayer>() + size_of::<Stated>();
    let paths = layers.iter().map(|layer| layer.path.as_str().len());
    (blobs.len() as u64 * LAYER_BYTES)
        .saturating_add((layers.len() * file) as u64)
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
            disagreements: None,
        }
    }

    /// What is worth a remark.
    pub(super) fn into_note(self) -> Option<String> {
        let (first, others) = self.disagreements?;
        Some(match others {
            0 => first,
            1 => format!("{first}; so is one more layer"),
            others => format!("{first}; so are {others} more layers"),
        })
    }

    /// Opens the layer of one file, unless it is open.
    pub(super) fn open(&mut self, layer: &FileLayer) -> Result<OpenedFile> {
        // A plain layer's table is a blob of its own; without it the layer is foreign.
        let table = match &layer.stated.chunks {
            Some(table) if table.place == TablePlace::Blob => self.source.blob(&table.digest)?,
            _ => None,
        };
        let spec = LayerSpec {
            stated: Arc::clone(&layer.stated),
            path: layer.path.clone(),
            reading: layer.reading,
            table,
        };
        let open = match self.layers.entry(LayerKey::of(&spec)) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(slot) => {
                let digest = &layer.stated.digest;
                let blob = self.source.blob(digest)?.ok_or_else(|| {
                    let subject = format!("layer {} ({digest})", layer.path);
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
            let media_type: String = printable(&spec.stated.media_type)
                .chars()
                .take(128)
                .collect();
            let first = format!(
                "{}: is {found}, not the {media_type} that it is said to be",
                spec.path
            );
            *disagreements = Some((first, 0));
        }
    }
}
