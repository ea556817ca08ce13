//! Panics in requests: one reader gets EIO, the mount lives.
//!
//! fuser 0.18.0 lets a panic end the event loop that it happens on, and with several loops nobody
//! notices until the last has gone and the mount hangs. So every operation runs inside
//! [`run`]. A panic that happens outside of it only a panic hook can notice, and that is the
//! program's.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::Errno;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs one operation; a panic in it becomes EIO, is counted, and is logged by the hook.
pub(super) fn run<T>(
    panics: &AtomicU64,
    operation: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    GUARDED.set(true);
    // What the operations share is atomics and the model, whose locks recover from poisoning.
    let result = panic::catch_unwind(AssertUnwindSafe(operation));
    GUARDED.set(false);
    result.unwrap_or_else(|_| {
        panics.fetch_add(1, Ordering::Relaxed);
        Err(Errno::EIO)
    })
}

/// For a panic hook: whether the panic on this thread becomes an error of one request.
pub fn is_contained() -> bool {
    GUARDED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7_a_panic_is_one_eio() {
        let panics = AtomicU64::new(0);
        let failed = run(&panics, || -> Result<(), Errno> { panic!("on purpose") });
        assert_eq!(failed, Err(Errno::EIO));
        assert_eq!(panics.load(Ordering::Relaxed), 1);
        assert_eq!(run(&panics, || Ok(7)), Ok(7));
        assert_eq!(
            run(&panics, || Err::<(), _>(Errno::EROFS)),
            Err(Errno::EROFS)
        );
        assert_eq!(panics.load(Ordering::Relaxed), 1);
        assert!(!GUARDED.get());
    }
}
