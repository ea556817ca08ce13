//! Chunk tables that can be read and checked again: the limiter takes the oldest when it must.

use std::collections::VecDeque;
use std::sync::Weak;

use super::limiter::Reclaim;
use super::sync::{Mutex, PoisonError};

/// Has something that it can load again.
pub(crate) trait Forget: Send + Sync {
    /// Lets go of it; who uses it now keeps it until then.
    fn forget(&self);
}

/// Those that have loaded something, oldest first.
#[derive(Default)]
pub(crate) struct Tables(Mutex<VecDeque<Weak<dyn Forget>>>);

impl Tables {
    /// Notes that `owner` has loaded it.
    pub(crate) fn loaded(&self, owner: Weak<dyn Forget>) {
        // Nothing panics while it is held.
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are gone must not pile up.
        if owners.len() == owners.capacity() {
            owners.retain(|owner| owner.strong_count() > 0);
        }
        owners.push_back(owner);
    }
}

impl Reclaim for Tables {
    fn reclaim(&self, _: u64) -> bool {
        loop {
            let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = owners.pop_front();
            drop(owners);
            match oldest.map(|owner| owner.upgrade()) {
                None => return false,
                Some(None) => {}
                Some(Some(owner)) => {
                    owner.forget();
                    return true;
                }
            }
        }
    }
}
