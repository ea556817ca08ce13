//! SIGINT, SIGTERM and SIGHUP while a command has something to clean up.
//!
//! The first signal only raises a flag, which the work looks at; a second one kills as usual.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    SIGNAL.store(signal, Ordering::Relaxed);
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Catches the first of each signal from now on; the flag becomes true when one arrives.
pub(crate) fn catch() -> &'static AtomicBool {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `action` is a valid, zero-initialised sigaction whose handler only stores to
        // atomics, which is async-signal-safe; a null `oldact` is allowed when installing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            // nohup and background jobs ignore a signal on purpose; that stays so.
            if libc::sigaction(signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
            {
                continue;
            }
            action = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    &INTERRUPTED
}

/// Ends the process by the signal that was caught, if one was, so that a shell sees what happened.
/// Called once everything is cleaned up.
pub(crate) fn finish() {
    let signal = SIGNAL.load(Ordering::Relaxed);
    if signal != 0 {
        // SAFETY: SA_RESETHAND has restored the default action, which terminates; `raise` has no
        // memory effects.
        unsafe {
            libc::raise(signal);
        }
    }
}
