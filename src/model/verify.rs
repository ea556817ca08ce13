//! Verification of a whole model on all cores: every layer against everything that is stated
//! about it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{FileInfo, Model};
use crate::digest::{Algorithm, Digest};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::memory::shared_work::{Helpers, together};
use crate::systems::Parts;
use crate::work::{Progress, cores};

/// What verification found about one file and the layer that holds it.
#[derive(Debug, Clone)]
pub struct LayerReport {
    /// The file's path.
    pub path: EntryPath,
    /// The layers that hold it.
    pub parts: Parts,
    /// Size of the file, in bytes.
    pub size: u64,
    /// SHA-256 of the file; or why its layer cannot be trusted
    /// ([`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt)) or read
    /// ([`ErrorKind::Environment`](crate::ErrorKind::Environment)).
    pub outcome: Result<Digest>,
}

impl LayerReport {
    /// True when everything that the manifest says about the layer holds.
    pub fn verified(&self) -> bool {
        self.outcome.is_ok()
    }
}

/// Verifies every layer once: blob digest, chunk table against stream; then what the manifest says of
/// each file that is read from it. One report per file, in path order, whatever fails.
///
/// Works on `jobs` threads in all (0 for one per core), the calling one among them: on so many layers at
/// a time, and who finds none any more helps with those that are left. Only layers without a chunk table have
/// one more while they are gone over, up to six of them. Where the system has fewer threads, fewer do it.
/// Largest file first, so that no large one starts last. `progress` counts bytes of files.
pub fn verify(model: &Model, jobs: usize, progress: Progress<'_>) -> Vec<LayerReport> {
    verify_files(model, model.files().collect(), jobs, progress)
}

/// The same for some of its files, in path order.
pub fn verify_files(
    model: &Model,
    files: Vec<&FileInfo>,
    jobs: usize,
    progress: Progress<'_>,
) -> Vec<LayerReport> {
    let sizes = files.iter().map(|file| file.shown_size);
    let total = sizes.fold(0, u64::saturating_add);
    let Plan { first_of, layers } = Plan::of(model, &files);
    let next = AtomicUsize::new(0);
    let state = Mutex::new((0u64, vec![None; files.len()]));
    progress(0, total);
    let work = |helpers: &Helpers| {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(file) = files.get(layer.first) else {
                break;
            };
            let outcome = model.verify_layer(file.inode, &layer.stated, helpers);
            let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
            state.0 = state.0.saturating_add(layer.bytes);
            if let Some(slot) = state.1.get_mut(layer.first) {
                *slot = Some(outcome);
            }
            progress(state.0, total);
        }
    };
    together(threads(jobs), work, work);

    let (_, outcomes) = state.into_inner().unwrap_or_else(|e| e.into_inner());
    let report = |(i, (file, first)): (usize, (&&FileInfo, &usize))| {
        let outcome = outcomes.get(*first).cloned().flatten();
        let outcome =
            outcome.map(|o| o.and_then(|digests| model.verify_file(file.inode, &digests)));
        // The error names the file that the layer was opened for; this one comes first.
        let named = outcome.map(|o| match *first == i {
            true => o,
            false => o.map_err(|error| error.within(&file.path)),
        });
        LayerReport {
            path: file.path.clone(),
            parts: file.parts.clone(),
            size: file.shown_size,
            outcome: named.unwrap_or_else(|| Err(Error::corrupt(&file.path, "was not verified"))),
        }
    };
    files
        .iter()
        .zip(&first_of)
        .enumerate()
        .map(report)
        .collect()
}

/// What there is to verify, each layer once: thousands of links to a large file, or of descriptors that
/// name its blob, cost what it costs.
struct Plan {
    /// For each file, the first that is read from the same layer.
    first_of: Vec<usize>,
    /// The largest file first.
    layers: Vec<Layer>,
}

/// A layer, by the first file that is read from it.
struct Layer {
    first: usize,
    /// Bytes of all its files.
    bytes: u64,
    /// Algorithms by which the manifest states digests of them.
    stated: Vec<Algorithm>,
}

impl Plan {
    fn of(model: &Model, files: &[&FileInfo]) -> Plan {
        let mut places = HashMap::new();
        let mut layers: Vec<Layer> = Vec::new();
        let mut first_of = Vec::with_capacity(files.len());
        for (i, file) in files.iter().enumerate() {
            let place = *places
                .entry(model.content_key(file.inode))
                .or_insert_with(|| {
                    layers.push(Layer {
                        first: i,
                        bytes: 0,
                        stated: Vec::new(),
                    });
                    layers.len() - 1
                });
            let Some(layer) = layers.get_mut(place) else {
                continue;
            };
            layer.bytes = layer.bytes.saturating_add(file.shown_size);
            if let Some(algorithm) = file.digest.map(|digest| digest.algorithm())
                && !layer.stated.contains(&algorithm)
            {
                layer.stated.push(algorithm);
            }
            first_of.push(layer.first);
        }
        let size = |layer: &Layer| files.get(layer.first).map_or(0, |file| file.shown_size);
        layers.sort_by_key(|layer| (std::cmp::Reverse(size(layer)), layer.first));
        Plan { first_of, layers }
    }
}

/// Number of worker threads for `jobs`, where 0 means one per core.
pub(crate) fn threads(jobs: usize) -> usize {
    match jobs {
        0 => cores(),
        n => n,
    }
}
