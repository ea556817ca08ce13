//! Panics in requests: one reader gets EIO, the mount lives.
//!
//! fuser 0.18.0 lets a panic end the event loop that it happens on, and with several loops nobody
//! notices until the last has gone and the mount hangs. So every operation runs inside
//! [`run`], and [`install_hook`] reports the panics that happen outside of it.

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

/// Logs every panic instead of writing to stderr, which may be closed or full, and calls
/// `thread_died` for each one that no guard catches.
pub(in crate::mount) fn install_hook(thread_died: impl Fn(&str) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let place = info
            .location()
            .map(|l| format!("{}:{}", l.file(), l.line()));
        log::error!(
            "bug: thread {name} panicked at {}: {}",
            place.as_deref().unwrap_or("an unknown place"),
            info.payload()
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message"),
        );
        if !GUARDED.get() {
            thread_died(name);
        }
    }));
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
