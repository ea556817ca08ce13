//! Defaults that follow what there is: the cache is smaller where a control group has no room for
//! the usual one.

use super::options::MountOptions;
use crate::error::{Error, Result};
use crate::memory::available;
use crate::memory::promise::{BESIDE, HEADROOM, LEAST_CACHE, MIB};

/// The smallest group in which a mount with defaults has room.
const LEAST_GROUP: u64 = LEAST_CACHE + HEADROOM + BESIDE;

impl MountOptions {
    /// Makes the cache fit into the control groups that this process is in.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when even the smallest does not fit.
    pub fn fit_memory(&mut self) -> Result<()> {
        if let Some(limit) = available::limit() {
            self.cache_bytes = fitting(self.cache_bytes, limit)?;
        }
        Ok(())
    }

    /// What to say of a cache that does not fit into them.
    pub fn memory_warning(&self) -> Option<String> {
        warning(self.cache_bytes, available::limit()?)
    }
}

/// A cache of at most `usual` bytes for a group of `limit` bytes.
fn fitting(usual: u64, limit: u64) -> Result<u64> {
    if limit < LEAST_GROUP {
        return Err(Error::environment(
            "the memory control group",
            format!(
                "has {} MiB, a mount needs {}; give it more, or try --cache-size {}MiB",
                limit / MIB,
                LEAST_GROUP / MIB,
                LEAST_CACHE / MIB
            ),
        ));
    }
    Ok(usual.min(limit - HEADROOM - BESIDE))
}

/// What to say of a cache that was asked for.
fn warning(cache: u64, limit: u64) -> Option<String> {
    let needed = cache.max(LEAST_CACHE).saturating_add(HEADROOM);
    (needed > limit).then(|| {
        format!(
            "a cache of {} MiB may take {} MiB of memory, the control group has {}; reads may end \
             because the process is killed",
            cache / MIB,
            needed.div_ceil(MIB),
            limit / MIB
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn r16_the_default_cache_fits_into_the_group() {
        let usual = 256 * MIB;
        for (group, cache) in [(96, 16), (128, 48), (200, 120), (336, 256), (4096, 256)] {
            assert_eq!(fitting(usual, group * MIB).unwrap(), cache * MIB, "{group}");
            assert_eq!(warning(cache * MIB, group * MIB), None);
        }
        let error = fitting(usual, 95 * MIB).unwrap_err().to_string();
        assert!(error.contains("has 95 MiB, a mount needs 96"), "{error}");
    }

    #[test]
    fn r16_a_cache_that_was_asked_for_and_does_not_fit_is_a_warning() {
        assert_eq!(warning(16 * MIB, 80 * MIB), None, "just what is promised");
        let text = warning(256 * MIB, 128 * MIB).unwrap();
        assert!(text.contains("may take 320 MiB"), "{text}");
        assert!(warning(0, 79 * MIB).is_some());
    }
}
