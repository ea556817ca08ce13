//! Memory that this process has taken.

use std::fs;

/// Resident memory of this process, in bytes.
pub(super) fn resident() -> Option<u64> {
    bytes_of("/proc/self/status", "VmRSS:")
}

/// Memory that holds no pages of files, in bytes.
pub(super) fn anonymous() -> u64 {
    bytes_of("/proc/self/status", "RssAnon:").unwrap_or(0)
}

/// The value of one line of a file in `/proc`, which counts in KiB.
pub(super) fn bytes_of(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
    }
}
