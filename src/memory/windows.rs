//! Memory of zstd decoders, which learn from a frame's header how large a window it needs.
//!
//! A frame may ask for 128 MiB, twice what a mount may take beyond its cache; and it is only known
//! once the decoder has begun. A decoder that then waited, with what it has in its hands, could wait
//! for another that does the same. So it does not wait: it gives up, what it needs is remembered for
//! its layer, and it begins anew with as much from the start.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limiter::{Limiter, Term, Unit};
use super::promise::LARGEST_DECODER;
use crate::error::Result;

/// What the largest decoder of one layer takes, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Windows(AtomicU64);

impl Windows {
    /// Notes that a decoder will take `bytes`.
    pub(crate) fn expect(&self, bytes: u64) {
        self.0.fetch_max(bytes, Ordering::Relaxed);
    }

    /// What is known.
    pub(crate) fn expected(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Runs `work` with `bytes` of memory besides what its decoder takes. It tells how much that is
    /// before it goes on, and gives up where the answer is an error; then it is run again. However
    /// soon it ends, it leaves the share of small units: what a pass was refused, no span gets.
    ///
    /// # Errors
    /// Those of `work`, and of [`Limiter::take`].
    pub(crate) fn run<T>(
        &self,
        limiter: &Arc<Limiter>,
        bytes: u64,
        term: Term,
        subject: &str,
        mut work: impl FnMut(&mut Unit, &mut Decoder) -> Result<T>,
    ) -> Result<T> {
        loop {
            // What is expected is rounded up; what is needed may fit all the same.
            let room = limiter.room(Term::Long).saturating_sub(bytes);
            let granted = self.expected().min(room);
            let mut unit = limiter.take(bytes.saturating_add(granted), term, subject)?;
            let mut decoder = Decoder {
                limiter: Arc::clone(limiter),
                more: None,
                granted,
                refused: None,
            };
            let result = work(&mut unit, &mut decoder);
            match decoder.refused {
                // Windows grow in small steps; a layer that takes them all must not begin anew for each.
                Some(size) => {
                    limiter.check(bytes.saturating_add(size), Term::Long, subject)?;
                    let next = size.checked_next_power_of_two().unwrap_or(size);
                    self.expect(next.min(LARGEST_DECODER).max(size));
                }
                None => return result,
            }
        }
    }
}

/// One decoder, that may grow.
pub(crate) struct Decoder {
    limiter: Arc<Limiter>,
    more: Option<Unit>,
    granted: u64,
    refused: Option<u64>,
}

impl Decoder {
    /// The decoder is about to use `size` bytes in all.
    ///
    /// # Errors
    /// When it must not.
    pub(crate) fn grow(&mut self, size: u64) -> io::Result<()> {
        let missing = size.saturating_sub(self.granted);
        if missing == 0 {
            return Ok(());
        }
        let grown = match &mut self.more {
            Some(more) => more.grow(missing),
            none => {
                *none = self.limiter.more(missing);
                none.is_some()
            }
        };
        if grown {
            self.granted = size;
            return Ok(());
        }
        self.refused = Some(size);
        Err(io::ErrorKind::OutOfMemory.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::error::Error;
    use crate::memory::promise::{MIB, Promise};

    /// Two thirds of the memory each: waiting for each other, they would never end.
    #[test]
    fn r16_decoders_that_grow_do_not_wait_for_each_other() {
        let limiter = Limiter::new(Promise::new(16 * MIB, 2, 0), Duration::ZERO);
        let size = limiter.limit() / 3;
        let windows: Vec<_> = (0..4).map(|_| Windows::default()).collect();
        std::thread::scope(|scope| {
            for windows in &windows {
                scope.spawn(|| {
                    let mut runs = 0;
                    let result = windows.run(&limiter, size, Term::Long, "a test", |_, decoder| {
                        runs += 1;
                        std::thread::yield_now();
                        for size in [size / 4, size / 2, size] {
                            decoder.grow(size).map_err(Error::io("grow", "a decoder"))?;
                        }
                        assert!(limiter.taken() <= limiter.limit());
                        Ok(runs)
                    });
                    assert!(result.unwrap() <= 4);
                });
            }
        });
        assert_eq!(limiter.taken(), 0);
        assert!(windows.iter().all(|w| w.expected() <= LARGEST_DECODER));
        let never = windows[0].run(&limiter, size, Term::Long, "a test", |_, decoder| {
            let grown = decoder.grow(LARGEST_DECODER);
            grown.map_err(Error::io("grow", "a decoder"))
        });
        assert!(never.unwrap_err().to_string().contains("--cache-size"));
    }
}
