//! Warming a model in the background: what loaders want first, first.
//!
//! Headers of safetensors and GGUF files and small files come first, then the weights in the order
//! of their paths. Everything goes through the model, verified, into the cache of decoded chunks,
//! and stops before the cache would have to forget what was just put in. Readers come first: while
//! one waits, nothing is prefetched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::requests::Shared;
use crate::error::{Error, Result};
use crate::model::{Inode, Model};

/// Bytes at a time: as many as a reader that comes meanwhile may wait for.
const STEP_BYTES: u64 = 1 << 20;
/// How long after the last read prefetching goes on.
const QUIET: Duration = Duration::from_millis(50);
/// A file up to this size is small.
const SMALL_BYTES: u64 = 4 << 20;

/// A range of one file to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    inode: Inode,
    start: u64,
    end: u64,
}

/// A running prefetch; dropping it ends it soon.
pub(super) struct Prefetch(Arc<AtomicBool>);

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts prefetching.
pub(super) fn start(shared: Arc<Shared>) -> Result<Prefetch> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::Builder::new()
        .name("prefetch".into())
        .spawn(move || run(&shared, &stopped))
        .map_err(Error::io("start", "a thread"))?;
    Ok(Prefetch(stop))
}

fn run(shared: &Shared, stop: &AtomicBool) {
    // The decoder's own readahead needs room in the cache too.
    let bound = shared.cache_bytes / 2;
    let pieces = plan(&shared.model, bound);
    let total: u64 = pieces.iter().map(|p| p.end - p.start).sum();
    let (mut done, mut told) = (0u64, 0);
    log::info!(
        "prefetching {total} of {} bytes",
        shared.model.total_bytes()
    );
    for piece in pieces {
        let mut offset = piece.start;
        while offset < piece.end {
            while shared.in_use(QUIET) && !stop.load(Ordering::Relaxed) {
                thread::sleep(QUIET / 5);
            }
            if stop.load(Ordering::Relaxed) {
                log::debug!("prefetch stopped after {done} bytes");
                return;
            }
            let step = STEP_BYTES.min(piece.end - offset);
            if let Err(error) = shared.model.prefetch(piece.inode, offset, step as usize) {
                // The reader who wants this file will be told; the others lose nothing.
                log::warn!("prefetch: {error}");
                break;
            }
            offset += step;
            done += step;
            let tenths = done * 10 / total.max(1);
            if tenths > told {
                told = tenths;
                log::info!("prefetched {done} of {total} bytes");
            }
        }
    }
    log::info!("prefetch is complete");
}

/// What to read, in order, `bound` bytes at most.
fn plan(model: &Model, bound: u64) -> Vec<Piece> {
    let files: Vec<_> = model
        .files()
        .map(|file| (file.inode, file.path.as_str(), file.size))
        .collect();
    order(&files, bound)
}

fn order(files: &[(Inode, &str, u64)], bound: u64) -> Vec<Piece> {
    let first = |&(inode, path, size): &(Inode, &str, u64)| {
        let weights = path.ends_with(".safetensors") || path.ends_with(".gguf");
        let end = match (size <= SMALL_BYTES, weights) {
            (true, _) => size,
            (false, true) => STEP_BYTES,
            (false, false) => 0,
        };
        (inode, end, size)
    };
    let split: Vec<_> = files.iter().map(first).collect();
    let heads = split.iter().map(|&(inode, end, _)| (inode, 0, end));
    let rest = split
        .iter()
        .map(|&(inode, start, size)| (inode, start, size));
    let mut left = bound;
    let mut pieces = Vec::new();
    for (inode, start, end) in heads.chain(rest) {
        let end = end.min(start.saturating_add(left));
        if start < end {
            left -= end - start;
            pieces.push(Piece { inode, start, end });
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn piece(inode: u64, start: u64, end: u64) -> Piece {
        Piece {
            inode: Inode(inode),
            start,
            end,
        }
    }

    #[test]
    fn small_files_and_headers_come_first_and_the_bound_holds() {
        let files = [
            (Inode(2), "a.bin", 9 * MIB),
            (Inode(3), "b.safetensors", 20 * MIB),
            (Inode(4), "config.json", 7),
            (Inode(5), "empty", 0),
        ];
        assert_eq!(
            order(&files, 100 * MIB),
            [
                piece(3, 0, MIB),
                piece(4, 0, 7),
                piece(2, 0, 9 * MIB),
                piece(3, MIB, 20 * MIB),
            ]
        );
        assert_eq!(order(&files, MIB + 3), [piece(3, 0, MIB), piece(4, 0, 3)]);
        assert_eq!(order(&files, 0), []);
    }
}
