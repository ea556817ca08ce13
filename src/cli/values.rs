//! Single values of the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use modeloci::{Compression, Digest, limits};

/// The operand that was given, positional or as an option; clap has made sure that one was.
pub(super) fn either<'a>(positional: &'a Option<PathBuf>, option: &'a Option<PathBuf>) -> &'a Path {
    positional
        .as_deref()
        .or(option.as_deref())
        .unwrap_or(Path::new(""))
}

pub(super) fn parse_compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|e: modeloci::Error| e.to_string())
}

pub(super) fn parse_digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|e: modeloci::Error| e.to_string())
}

pub(super) fn parse_annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.into(), value.into())),
        None => Err("is not KEY=VALUE".into()),
    }
}

pub(super) fn parse_id(text: &str) -> Result<u32, String> {
    match text.parse() {
        // The largest number means "no change" to chown(2), and is no user.
        Ok(n) if n != u32::MAX => Ok(n),
        Ok(_) => Err("is no user or group".into()),
        Err(_) => Err("is not a number from 0 to 4294967294".into()),
    }
}

pub(super) fn parse_jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("not a number from 1 to 1024".into()),
    }
}

pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n @ 1..=86_400) => Ok(Duration::from_secs(n)),
        _ => Err("is not a number of seconds from 1 to 86400".into()),
    }
}

pub(super) fn parse_chunk_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    match u32::try_from(size) {
        Ok(n)
            if n.is_power_of_two()
                && (limits::MIN_CHUNK_BYTES..=limits::MAX_CHUNK_BYTES).contains(&n) =>
        {
            Ok(n)
        }
        _ => Err("not a power of two from 64KiB to 16MiB".into()),
    }
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    modeloci::byte_size::parse_size(text).map_err(str::to_string)
}
