//! Threads that have nothing of their own to do help with what others have in hand.
//!
//! So the number of threads is what was asked for, whatever is done, and no processor rests while one
//! thread is left with the largest piece. Nobody waits for help: who gets none does all by itself. The
//! system may allow fewer threads (`ulimit -u`, `pids.max` of a control group); then fewer do it.

use std::sync::Arc;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError, scope, start};

/// Something that others can help with.
pub trait Help: Send + Sync {
    /// Takes part until there is nothing more to do, and never will be.
    fn help(&self);
}

/// Those who can help each other. By default nobody.
#[derive(Default)]
pub struct Helpers {
    state: Mutex<State>,
    moved: Condvar,
    /// Threads beside the one that asks.
    others: usize,
}

#[derive(Default)]
struct State {
    offers: Vec<Offer>,
    offered: u64,
    /// Threads that have work of their own, or may come to have some.
    busy: usize,
}

/// What there is to help with.
struct Offer {
    number: u64,
    what: Arc<dyn Help>,
    helping: usize,
    /// How many may.
    most: usize,
}

/// Takes an offer back when this is dropped.
pub(crate) struct Offered<'a> {
    helpers: &'a Helpers,
    number: u64,
}

/// One who has work, until this is dropped.
struct Busy<'a>(&'a Helpers);

impl Helpers {
    /// Threads beside the one that asks.
    pub(crate) fn others(&self) -> usize {
        self.others
    }

    /// Asks up to `most` others for help.
    pub(crate) fn offer(&self, what: Arc<dyn Help>, most: usize) -> Offered<'_> {
        let mut state = self.lock();
        let number = state.offered;
        state.offered += 1;
        state.offers.push(Offer {
            number,
            what,
            helping: 0,
            most,
        });
        drop(state);
        self.moved.notify_all();
        let helpers = self;
        Offered { helpers, number }
    }

    /// Helps until nobody is busy any more.
    fn help(&self) {
        let mut state = self.lock();
        loop {
            // Who has the fewest helpers gets the next.
            let free = state.offers.iter_mut().filter(|o| o.helping < o.most);
            if let Some(offer) = free.min_by_key(|offer| offer.helping) {
                offer.helping += 1;
                let (what, number) = (Arc::clone(&offer.what), offer.number);
                drop(state);
                what.help();
                drop(what);
                state = self.lock();
                // There is nothing more to do.
                state.offers.retain(|offer| offer.number != number);
            } else if state.busy == 0 {
                return;
            } else {
                let moved = self.moved.wait(state);
                state = moved.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn busy(&self) -> Busy<'_> {
        self.lock().busy += 1;
        Busy(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        let mut state = self.helpers.lock();
        state.offers.retain(|offer| offer.number != self.number);
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.moved.notify_all();
    }
}

/// Does `own` in the calling thread and `others` in so many threads less one, as far as the system has
/// them; whoever has done his helps the others.
pub(crate) fn together<T>(
    threads: usize,
    own: impl FnOnce(&Helpers) -> T,
    others: impl Fn(&Helpers) + Sync,
) -> T {
    let helpers = &Helpers {
        others: threads.saturating_sub(1),
        ..Helpers::default()
    };
    let others = &others;
    scope(|scope| {
        let own_busy = helpers.busy();
        for _ in 0..helpers.others {
            let busy = helpers.busy();
            let work = move || {
                others(helpers);
                drop(busy);
                helpers.help();
            };
            if !start(scope, work) {
                break;
            }
        }
        let result = own(helpers);
        drop(own_busy);
        helpers.help();
        result
    })
}
