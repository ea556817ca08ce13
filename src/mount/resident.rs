//! Memory that this process has taken.

use crate::memory::available::bytes_of;

/// Resident memory of this process, in bytes.
pub(super) fn resident() -> Option<u64> {
    bytes_of("/proc/self/status", "VmRSS:")
}

/// Memory that holds no pages of files, in bytes.
pub(super) fn anonymous() -> u64 {
    bytes_of("/proc/self/status", "RssAnon:").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
    }
}
