//! What opening a model may cost: bytes that are read and decoded before anybody has read a file.
//!
//! A manifest of some megabytes can name thousands of layers, and each may ask for a megabyte of
//! decoding until its file's header is found. So the whole of it has an end, which grows with what
//! the archive's author had to write: its manifest. Bytes are counted, not seconds: whether an archive
//! is refused does not depend on the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// What is left of the bytes that opening may read and decode.
#[derive(Debug)]
pub struct Effort {
    allowed: AtomicU64,
    left: AtomicU64,
    /// What was spent in all.
    spent: Arc<AtomicU64>,
}

impl Default for Effort {
    /// As much as it takes.
    fn default() -> Effort {
        Effort::of(u64::MAX)
    }
}

impl Effort {
    fn of(bytes: u64) -> Effort {
        Effort {
            allowed: AtomicU64::new(bytes),
            left: AtomicU64::new(bytes),
            spent: Arc::default(),
        }
    }

    /// Has what is spent counted there, too.
    pub(crate) fn count_with(&mut self, spent: Arc<AtomicU64>) {
        self.spent = spent;
    }

    /// Allows so many bytes from here on.
    pub fn allow(&self, bytes: u64) {
        self.allowed.store(bytes, Ordering::Relaxed);
        self.left.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are about to be read, or were decoded.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when there are too many.
    pub fn spend(&self, bytes: u64) -> Result<()> {
        self.spent.fetch_add(bytes, Ordering::Relaxed);
        let spent = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        if spent.is_err() {
            self.left.store(0, Ordering::Relaxed);
        }
        self.check()
    }

    /// Counts bytes of something that can also be put off; false, and nothing is counted, when there
    /// are too many.
    pub fn affords(&self, bytes: u64) -> bool {
        let spare = |left: u64| left.checked_sub(bytes).filter(|left| *left > 0);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spare)
            .is_ok()
    }

    /// Fails once too many bytes were spent, whatever became of the error that said so.
    ///
    /// # Errors
    /// As [`spend`](Effort::spend).
    pub fn check(&self) -> Result<()> {
        if self.left.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        Err(Error::malformed(
            "layers without a chunk table",
            format!(
                "to find what they hold, more than {} bytes would be read and decoded, the limit for \
                 a manifest of this size; pack the model with chunk tables",
                self.allowed.load(Ordering::Relaxed)
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l14_what_is_spent_does_not_come_back() {
        let effort = Effort::default();
        effort.allow(10);
        assert!(effort.spend(6).is_ok());
        assert!(!effort.affords(4), "something must be left");
        assert!(effort.affords(3));
        let error = effort.spend(2).unwrap_err().to_string();
        assert!(error.contains("more than 10 bytes"), "{error}");
        assert!(effort.spend(0).is_err() && effort.check().is_err());
        assert!(!effort.affords(0));
    }
}
