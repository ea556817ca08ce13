//! What a mount has done: kept by the serving process, read through the mount itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::at::mountinfo::{self, FS_TYPE};
use super::at::place;
use super::requests::{STATUS_XATTR, Shared};
use super::resident::resident;
use super::sandbox::Protections;
use crate::entry_path::{printable, printable_path};
use crate::error::{Error, Result};

/// Counters of a mount. All but the memory, the cache and the reads in flight only grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the serving program.
    pub modeloci: String,
    /// The process that keeps the mount: signals are for it, and it ends when all has ended.
    pub pid: u32,
    /// The process that serves it, which has no rights but to that; the same where there is but one.
    #[serde(default)]
    pub server_pid: u32,
    /// What the serving process has given up; `None` when nothing.
    #[serde(default)]
    pub sandbox: Option<Protections>,
    /// What is mounted.
    pub archive: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// The digest of its manifest.
    pub manifest_digest: String,
    /// Seconds since it was mounted.
    pub uptime_seconds: u64,
    /// Files of the model.
    pub files: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Requests of any kind that reached the process.
    pub requests: u64,
    /// Of these, reads of file content.
    pub read_requests: u64,
    /// Reads being answered now.
    pub reads_in_flight: u64,
    /// Requests that panicked.
    pub panics: u64,
    /// Bytes handed to readers.
    pub bytes_served: u64,
    /// Bytes read ahead of them, by `--prefetch`.
    #[serde(default)]
    pub prefetched_bytes: u64,
    /// Chunks (or spans) whose compressed bytes were checked against their digest.
    pub chunks_verified: u64,
    /// Chunks (or spans) decoded.
    pub chunks_decoded: u64,
    /// Reads answered from the cache.
    pub cache_hits: u64,
    /// Reads that waited for a decode another reader had begun.
    pub waits: u64,
    /// Reads that failed.
    pub failures: u64,
    /// The last of them, the newest first, one of each file.
    #[serde(default)]
    pub last_failures: Vec<Failure>,
    /// Bytes of decoded chunks kept now.
    pub cache_used_bytes: u64,
    /// Bytes of decoded chunks that may be kept.
    pub cache_size_bytes: u64,
    /// Resident memory of the serving process.
    pub memory_bytes: u64,
}

/// How many failures a status tells of: so many that it fits into an extended attribute.
pub(super) const MAX_FAILURES: usize = 8;
/// Longest text of a failure, in characters.
const MAX_TEXT: usize = 400;

/// A read that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The file, or the end of its path.
    pub path: String,
    /// Where it was read, in bytes.
    pub offset: u64,
    /// When, in seconds since the epoch.
    pub time: u64,
    /// Why, shortened when it is long.
    pub error: String,
}

impl Failure {
    pub(super) fn new(path: &str, offset: u64, time: u64, error: &Error) -> Failure {
        let path = printable(path);
        let from = path.char_indices().rev().nth(MAX_TEXT - 1);
        Failure {
            path: path[from.map_or(0, |(at, _)| at)..].to_string(),
            offset,
            time,
            error: error.to_string().chars().take(MAX_TEXT).collect(),
        }
    }
}

/// Where models are mounted, as far as this process can see.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the mount table cannot be read.
pub fn mountpoints() -> Result<Vec<PathBuf>> {
    let mounts = mountinfo::read()?.into_iter();
    let models = mounts.filter(|mount| mount.fs_type == FS_TYPE);
    Ok(models.map(|mount| mount.mount_point).collect())
}

/// Asks the mount at `mountpoint`.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when no model is mounted there, or
/// its process does not answer this user.
pub fn status(mountpoint: &Path) -> Result<Status> {
    let (_, held) = place::mounted(mountpoint)?;
    let path = held.path().map_err(Error::io("ask", mountpoint))?;
    let fail = |problem: &str| Error::environment(printable_path(&path), problem);
    let mut buf = vec![0u8; 64 << 10];
    let len =
        rustix::fs::getxattr(held.through(), STATUS_XATTR, &mut buf[..]).map_err(|e| match e {
            Errno::NOTCONN | Errno::CONNABORTED => {
                fail("its process is gone; unmount it, or mount again on the same directory")
            }
            Errno::ACCESS | Errno::PERM => {
                fail("was mounted by another user without --allow-other")
            }
            Errno::NODATA | Errno::OPNOTSUPP => fail("its process keeps no status"),
            e => Error::io("ask", &path)(e.into()),
        })?;
    serde_json::from_slice(buf.get(..len).unwrap_or_default())
        .map_err(|_| fail("its process is of another version"))
}

impl Status {
    pub(super) fn of(shared: &Shared, uptime: Duration) -> Status {
        let model = &shared.model;
        let stats = model.stats();
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            modeloci: env!("CARGO_PKG_VERSION").to_string(),
            pid: shared.process.keeper.unwrap_or_else(std::process::id),
            server_pid: std::process::id(),
            sandbox: shared.process.sandbox.clone(),
            archive: printable(&model.name()),
            mountpoint: printable_path(&shared.mountpoint),
            manifest_digest: model.manifest_digest().to_string(),
            uptime_seconds: uptime.as_secs(),
            files: model.files().len() as u64,
            total_bytes: model.total_bytes(),
            requests: get(&shared.counters.requests),
            read_requests: get(&shared.counters.reads),
            reads_in_flight: (shared.counters.reading.load(Ordering::Relaxed)
                + shared.counters.reading_ahead.load(Ordering::Relaxed))
                as u64,
            panics: get(&shared.counters.panics),
            bytes_served: get(&stats.bytes_served),
            chunks_verified: get(&stats.chunks_verified),
            chunks_decoded: get(&stats.chunks_decoded),
            cache_hits: get(&stats.cache_hits),
            waits: get(&stats.waits),
            failures: get(&stats.failures),
            last_failures: shared.failures(),
            cache_used_bytes: model.cache_used(),
            cache_size_bytes: shared.cache_bytes,
            prefetched_bytes: get(&model.stats().bytes_prefetched),
            memory_bytes: resident().unwrap_or(0),
        }
    }

    /// All counts, on one line.
    pub fn summary(&self) -> String {
        format!(
            "up {} s, {} files, {} bytes served in {} reads, {} in flight, {} bytes prefetched, \
             {} chunks verified, {} decoded, {} cache hits, {} waits, {} failures, {} panics, \
             {} requests, cache {} of {} bytes, memory {} bytes",
            self.uptime_seconds,
            self.files,
            self.bytes_served,
            self.read_requests,
            self.reads_in_flight,
            self.prefetched_bytes,
            self.chunks_verified,
            self.chunks_decoded,
            self.cache_hits,
            self.waits,
            self.failures,
            self.panics,
            self.requests,
            self.cache_used_bytes,
            self.cache_size_bytes,
            self.memory_bytes,
        )
    }
}
