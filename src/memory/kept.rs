//! Errors that are kept: a layer that was found bad stays so, and each of its readers is told why.
//!
//! An archive may have a hundred thousand of them, so the texts that are kept have a bound together, and
//! of the layers beyond it only the kind is kept. What was wrong with those is logged once.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind};

/// Bytes of texts that are kept.
const MAX_BYTES: u64 = 1 << 20;
/// What a text takes beside its bytes: of each of two strings what the allocator rounds up.
const OVERHEAD: u64 = 64;

/// How many bytes of errors are kept.
#[derive(Debug, Default)]
pub(crate) struct KeptErrors {
    bytes: AtomicU64,
}

impl KeptErrors {
    /// The error as it may be kept.
    pub(crate) fn keep(&self, error: Error) -> Error {
        let bytes = error.text_bytes() as u64 + OVERHEAD;
        let add = |kept: u64| kept.checked_add(bytes).filter(|kept| *kept <= MAX_BYTES);
        let added = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if added.is_ok() {
            return error;
        }
        log::error!("{error}");
        let (subject, problem) = ("the layer", "is bad, as was logged");
        match error.kind() {
            ErrorKind::Malformed => Error::malformed(subject, problem),
            _ => Error::corrupt(subject, problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_what_is_kept_of_bad_layers_has_a_bound() {
        let kept = KeptErrors::default();
        let name = "\u{1}".repeat(400);
        let errors = (0..4_000).map(|n| match n % 2 {
            0 => Error::corrupt(format!("{name}{n}"), &name),
            _ => Error::malformed(&name, "is a link"),
        });
        let kept: Vec<Error> = errors.map(|error| kept.keep(error)).collect();
        let bytes: usize = kept.iter().map(Error::text_bytes).sum();
        assert!(bytes < 2 << 20, "{bytes}");
        assert!(kept[0].to_string().starts_with("\\u{1}"));
        for (error, kind) in kept
            .iter()
            .zip([ErrorKind::Corrupt, ErrorKind::Malformed].iter().cycle())
        {
            assert_eq!(error.kind(), *kind);
        }
    }
}
