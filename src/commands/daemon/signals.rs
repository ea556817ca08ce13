//! Signals that are blocked and waited for, which the standard library and rustix have no safe
//! interface for.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

/// Signals that are blocked in this thread and every thread it starts, to be waited for.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Blocks `signals`. Must be called before other threads start: a thread inherits the mask of
    /// the one that started it. (`Command` gives children an empty mask.)
    pub(crate) fn block(signals: &[libc::c_int]) -> io::Result<SignalSet> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the whole set that it is given, and is the only writer.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for &signal in signals {
            // What a terminal sends may be ignored by whoever has started us, as nohup does, and a
            // script for its background jobs. That stays so.
            if matches!(signal, libc::SIGHUP | libc::SIGINT) && is_ignored(signal) {
                continue;
            }
            // SAFETY: `set` is an initialised set; an invalid number is an error, not undefined.
            if unsafe { libc::sigaddset(&mut set, signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `set` is initialised, and the old mask may be null.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
            0 => Ok(SignalSet(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits for the next of the signals.
    pub(crate) fn wait(&self) -> io::Result<libc::c_int> {
        let mut signal = 0;
        loop {
            // SAFETY: both point to initialised memory of their types, alive during the call.
            match unsafe { libc::sigwait(&self.0, &mut signal) } {
                0 => return Ok(signal),
                error if error == Errno::INTR.raw_os_error() => {}
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

impl SignalSet {
    /// A descriptor to poll and read them from (signalfd(2)).
    pub(crate) fn descriptor(&self) -> io::Result<Signals> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is initialised; -1 makes a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &self.0, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, so nothing else owns it.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// Blocked signals that wait to be read.
pub(crate) struct Signals(OwnedFd);

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Signals {
    /// The next one, if there is one now.
    pub(crate) fn next(&self) -> Option<libc::c_int> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.0, &mut info).ok()?;
        // `ssi_signo` is its first field (signalfd(2)).
        let number = info.get(..length)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*number).cast_signed())
    }
}

/// Runs `start` with all signals blocked, so that the threads it starts never receive one: not even
/// when they exist before [`SignalSet::block`] is called.
pub(crate) fn deaf_to_signals<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises `all` before it is read, and pthread_sigmask initialises
    // `before` when it returns 0.
    let before = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        match libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) {
            0 => before.assume_init(),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    };
    let result = start();
    // SAFETY: `before` is the mask of this thread that the call above has replaced.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) } {
        0 => Ok(result),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action, sigaction only writes the current one, which is read only
    // when it says that it has.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_deaf_thread_receives_nothing() {
        let mask = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let blocked = |status: String| {
            let line = status.lines().find_map(|l| l.strip_prefix("SigBlk:\t"));
            u64::from_str_radix(line.unwrap(), 16).unwrap()
        };
        let before = blocked(mask());
        let thread = deaf_to_signals(|| std::thread::spawn(mask)).unwrap();
        let bit = |signal: i32| 1u64 << (signal - 1);
        let deaf = blocked(thread.join().unwrap());
        assert_eq!(deaf & bit(libc::SIGTERM), bit(libc::SIGTERM));
        assert_eq!(blocked(mask()), before);
    }

    #[test]
    fn blocked_signals_are_waited_for() {
        // A thread of its own: the mask must not leak into other tests.
        let signal = std::thread::spawn(|| {
            let set = SignalSet::block(&[libc::SIGUSR2]).unwrap();
            // SAFETY: raises a signal in this thread, where it is blocked.
            unsafe { libc::raise(libc::SIGUSR2) };
            set.wait().unwrap()
        });
        assert_eq!(signal.join().unwrap(), libc::SIGUSR2);
    }
}
