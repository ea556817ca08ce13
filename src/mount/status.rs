//! What a mount has done: kept by the serving process, read through the mount itself.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::printable::printable;

/// The extended attribute that holds a [`Status`]; not listed, because its value is never the same
/// twice.
pub(super) const STATUS_XATTR: &str = "user.modeloci.status";

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

impl Status {
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

/// What holds of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protections {
    /// No program that it could start would have more rights.
    pub no_new_privs: bool,
    /// The capabilities that it has: `none`, `dac_read_search`, or `kept`.
    pub capabilities: String,
    /// The version of Landlock that confines it; 0 for none.
    pub landlock: i32,
    /// System calls that it never needs fail.
    pub system_calls: bool,
    /// It leaves no core dump with content of the model.
    pub no_core_dump: bool,
}

impl Protections {
    /// In words: `no new privileges, no capabilities, Landlock 7, …`.
    pub fn summary(&self) -> String {
        let landlock = format!("Landlock {}", self.landlock);
        let parts = [
            (self.no_new_privs, "no new privileges"),
            (self.capabilities == "none", "no capabilities"),
            (
                self.capabilities == "dac_read_search",
                "no capability but to read files",
            ),
            (self.landlock > 0, &landlock),
            (self.system_calls, "system calls filtered"),
            (self.no_core_dump, "no core dump"),
        ];
        let holding = parts.iter().filter(|(holds, _)| *holds);
        let text: Vec<_> = holding.map(|(_, what)| *what).collect();
        match text.is_empty() {
            true => "none".to_string(),
            false => text.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e18_what_holds_is_said_in_words() {
        let mut holds = Protections {
            no_new_privs: true,
            capabilities: "none".into(),
            landlock: 7,
            system_calls: true,
            no_core_dump: true,
        };
        assert_eq!(
            holds.summary(),
            "no new privileges, no capabilities, Landlock 7, system calls filtered, no core dump"
        );
        holds.landlock = 0;
        holds.capabilities = "kept".into();
        assert_eq!(
            holds.summary(),
            "no new privileges, system calls filtered, no core dump"
        );
    }
}
