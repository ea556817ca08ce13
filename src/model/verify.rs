//! Verification of a whole model on all cores: every layer against everything that is stated
//! about it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{FileInfo, Model};
use crate::digest::{Algorithm, Digest};
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::memory::spare_threads::Helpers;
use crate::oci::Stated;
use crate::work::Progress;

/// What verification found about one file and the layer that holds it.
#[derive(Debug, Clone)]
pub struct LayerReport {
    /// The file's path.
    pub path: EntryPath,
    /// The layer that holds it.
    pub layer: Arc<Stated>,
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
/// a time, and where there are fewer layers, on each with several. Only layers without a chunk table have
/// one more while they are gone over, up to six of them. Where the system has fewer threads, fewer do it.
/// Largest file first, so that no large one starts last. `progress` counts bytes of files.
pub fn verify(model: &Model, jobs: usize, progress: Progress<'_>) -> Vec<LayerReport> {
    let files: Vec<&FileInfo> = model.files().collect();
    let total = model.total_bytes();
    // A layer is verified once: thousands of links to a large file, or of descriptors that name its
    // blob, cost what it costs.
    let mut firsts = HashMap::new();
    let first_of: Vec<usize> = files
        .iter()
        .enumerate()
        .map(|(i, file)| *firsts.entry(model.content_key(file.inode)).or_insert(i))
        .collect();
    let mut bytes = vec![0u64; files.len()];
    let mut stated: HashMap<usize, Vec<Algorithm>> = HashMap::new();
    for (file, first) in files.iter().zip(&first_of) {
        if let Some(algorithm) = file.digest.map(|digest| digest.algorithm()) {
            let stated = stated.entry(*first).or_default();
            if !stated.contains(&algorithm) {
                stated.push(algorithm);
            }
        }
        if let Some(bytes) = bytes.get_mut(*first) {
            *bytes = bytes.saturating_add(file.size);
        }
    }
    let mut order: Vec<usize> = firsts.into_values().collect();
    let size = |i: &usize| files.get(*i).map_or(0, |f| f.size);
    order.sort_by_key(|i| (std::cmp::Reverse(size(i)), *i));

    let next = AtomicUsize::new(0);
    let state = Mutex::new((0u64, vec![None; files.len()]));
    progress(0, total);
    let threads = threads(jobs);
    let workers = threads.min(order.len()).max(1);
    let helpers = &Helpers::beside(workers, threads);
    let work = || {
        let _working = helpers.work();
        while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(file) = files.get(i) else { break };
            let stated = stated.get(&i).map_or(&[][..], Vec::as_slice);
            let outcome = model.verify_layer(file.inode, stated, helpers);
            let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
            state.0 = state.0.saturating_add(bytes.get(i).copied().unwrap_or(0));
            if let Some(slot) = state.1.get_mut(i) {
                *slot = Some(outcome);
            }
            progress(state.0, total);
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers {
            // Without a thread the others have more to do.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });

    let (_, outcomes) = state.into_inner().unwrap_or_else(|e| e.into_inner());
    files
        .iter()
        .zip(first_of)
        .enumerate()
        .map(|(i, (file, first))| {
            let outcome = outcomes.get(first).cloned().flatten();
            let outcome =
                outcome.map(|o| o.and_then(|digests| model.verify_file(file.inode, &digests)));
            // The error names the file that the layer was opened for; this one comes first.
            let named = outcome.map(|o| match first {
                first if first == i => o,
                _ => o.map_err(|error| error.within(&file.path)),
            });
            (file, named)
        })
        .map(|(file, outcome)| LayerReport {
            path: file.path.clone(),
            layer: Arc::clone(&file.layer),
            size: file.size,
            outcome: outcome.unwrap_or_else(|| Err(Error::corrupt(&file.path, "was not verified"))),
        })
        .collect()
}

/// Number of worker threads for `jobs`, where 0 means one per core.
pub(crate) fn threads(jobs: usize) -> usize {
    match jobs {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    }
}
