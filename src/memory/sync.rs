//! The locks and threads of this room. Its files import them from here, as `super::sync`, so that the tests can
//! compile the same files with locks under a scheduler that tries orders no machine would show: see
//! `tests/scheduled.rs`.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
pub(super) use std::thread::{Scope, scope};

/// Starts a thread that ends before `scope` does; false where the system has none.
pub(super) fn start<'scope, F: FnOnce() + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: F,
) -> bool {
    thread::Builder::new().spawn_scoped(scope, work).is_ok()
}
