//! How long a request is tried again, and when.

use std::hash::{BuildHasher as _, RandomState};
use std::thread;
use std::time::{Duration, Instant};

/// The first pause; each is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// Slower than this many bytes a second is the same as not at all.
const LEAST_RATE: u64 = 64 << 10;

/// The time that what is asked for may take, all attempts together: a while in which no byte comes, and in
/// all what the bytes take on the slowest way that is of use.
#[derive(Debug)]
pub(super) struct Patience {
    timeout: Duration,
    /// Unless a byte comes before.
    quiet: Instant,
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// For something of so many bytes.
    pub(super) fn new(timeout: Duration, bytes: u64) -> Patience {
        let moving = Duration::from_secs(bytes / LEAST_RATE);
        let now = Instant::now();
        Patience {
            timeout,
            quiet: now + timeout,
            until: now + timeout.saturating_add(moving),
            pause: FIRST.min(timeout / 20),
        }
    }

    /// Bytes have come.
    pub(super) fn moved(&mut self) {
        self.quiet = Instant::now() + self.timeout;
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        let until = self.until.min(self.quiet);
        until.saturating_duration_since(Instant::now())
    }

    /// True once there is none left.
    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Waits until the next attempt: as long as the registry has said, or else longer each time, and never as
    /// long as others wait who failed at the same moment. False when there is to be none.
    pub(super) fn wait(&mut self, asked: Option<Duration>) -> bool {
        let pause = asked.unwrap_or(self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
        // Between a half and the whole of it; of what the registry said, no less.
        let pause = match asked {
            Some(_) => pause + pause.mul_f64(chance() / 4.0),
            None => pause.mul_f64(0.5 + chance() / 2.0),
        };
        if pause >= self.left() {
            return false;
        }
        thread::sleep(pause);
        true
    }
}

/// From 0 to 1. Good enough to part those who wait.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    bits as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w4_patience_ends() {
        let mut patience = Patience::new(Duration::from_millis(700), 0);
        let start = Instant::now();
        let mut attempts = 0;
        while patience.wait(None) {
            attempts += 1;
        }
        assert!((1..=8).contains(&attempts), "{attempts}");
        assert!(start.elapsed() < Duration::from_millis(800));
        // Nobody waits an hour because a registry says so.
        assert!(!patience.wait(Some(Duration::from_secs(3600))));
        // Nor for what does not come at all, because it is large.
        let second = Duration::from_secs(1);
        let mut large = Patience::new(second, 64 << 20);
        assert!(large.left() <= second);
        thread::sleep(second / 100);
        let before = large.left();
        large.moved();
        assert!(large.left() > before);
    }
}
