//! What is settled before the first byte is read: options, config, times.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::options::PackOptions;
use crate::codec::Compression;
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::layer::table::Framing;
use crate::limits;
use crate::oci::OciConfig;
use crate::printable::{printable_bytes, printable_path};
use crate::work::cores;

/// The largest time that a ustar header holds in octal digits: the year 2242.
const MAX_MTIME: u64 = 0o777_7777_7777;
/// More threads than this gain nothing and cost memory.
const MAX_WORKERS: usize = 256;

/// Checked options.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// How chunks are compressed.
    pub compression: Compression,
    /// The stream around the chunks, which follows from the compression.
    pub framing: Framing,
    /// Bytes of a file in one chunk.
    pub chunk_size: u32,
    /// Algorithm of every digest in a chunk table.
    pub algorithm: Algorithm,
    /// Number of worker threads, at least 1.
    pub workers: usize,
    /// Number of segments that are in memory at a time.
    pub slots: usize,
    /// Time in every tar header, in seconds since the epoch.
    pub mtime: u64,
    /// Stops the work when it becomes true.
    pub cancel: Option<&'static AtomicBool>,
}

impl Settings {
    /// Checks the options and the environment.
    pub(super) fn new(options: &PackOptions) -> Result<Settings> {
        let size = options.chunk_size;
        if !size.is_power_of_two()
            || !(limits::MIN_CHUNK_BYTES..=limits::MAX_CHUNK_BYTES).contains(&size)
        {
            return Err(Error::usage(format!(
                "chunk size {size} is not a power of two from {} to {} bytes",
                limits::MIN_CHUNK_BYTES,
                limits::MAX_CHUNK_BYTES
            )));
        }
        if options.chunk_digest == Algorithm::Sha512 {
            return Err(Error::usage(
                "chunk digests cannot be sha512; use blake3 or sha256",
            ));
        }
        let workers = match options.jobs {
            0 => cores(),
            jobs => jobs,
        };
        let workers = workers.min(MAX_WORKERS);
        Ok(Settings {
            compression: options.compression,
            framing: match options.compression {
                Compression::Auto | Compression::Gzip(_) | Compression::None => Framing::Gzip,
                Compression::Zstd(_) => Framing::Zstd,
            },
            chunk_size: size,
            algorithm: options.chunk_digest,
            workers,
            slots: options.packing(workers).slots(options.memory),
            mtime: epoch(std::env::var_os("SOURCE_DATE_EPOCH").as_deref())?,
            cancel: options.cancel,
        })
    }

    /// Fails once the work is to stop; `subject` is the file in hand.
    pub(super) fn check_cancelled(&self, subject: &Path) -> Result<()> {
        match self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => {
                Err(Error::refused(printable_path(subject), "interrupted"))
            }
            _ => Ok(()),
        }
    }
}

/// The time that `SOURCE_DATE_EPOCH` asks for; 0 when it is not set or empty.
///
/// Source: reproducible-builds.org, "SOURCE_DATE_EPOCH specification": decimal seconds.
pub(super) fn epoch(value: Option<&OsStr>) -> Result<u64> {
    let bytes = value.map_or(&b""[..], OsStr::as_encoded_bytes);
    if bytes.is_empty() {
        return Ok(0);
    }
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|&seconds| seconds <= MAX_MTIME)
        .ok_or_else(|| {
            Error::usage(format!(
                "SOURCE_DATE_EPOCH \"{}\" is not a number of seconds from 0 to {MAX_MTIME}",
                printable_bytes(bytes)
            ))
        })
}

/// The config, checked as if it had been made by [`OciConfig::new`] (its fields are public), and
/// small enough for every reader.
pub(super) fn check_config(config: &OciConfig) -> Result<OciConfig> {
    let config = OciConfig::new(
        &config.model_name,
        &config.version,
        &config.framework,
        &config.architecture,
        config.metadata.clone(),
    )?;
    let size = config.to_bytes().len() as u64;
    if size > limits::MAX_CONFIG_BYTES {
        return Err(Error::usage(format!(
            "metadata makes a config of {size} bytes, the limit is {}",
            limits::MAX_CONFIG_BYTES
        )));
    }
    Ok(config)
}
