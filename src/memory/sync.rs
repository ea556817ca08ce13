//! The locks of this room. Its files import them from here, as `super::sync`, so that the tests can
//! compile the same files with locks under a scheduler that tries orders no machine would show: see
//! `tests/scheduled.rs`.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
