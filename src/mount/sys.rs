//! What the standard library and rustix have no safe interface for: signal masks, inherited
//! descriptors, and a child with a life of its own.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Pid;

/// Signals that are blocked in this thread and every thread it starts, to be waited for.
#[derive(Clone, Copy)]
pub(super) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Blocks `signals`. Must be called before other threads start: a thread inherits the mask of
    /// the one that started it. (`Command` gives children an empty mask.)
    pub(super) fn block(signals: &[libc::c_int]) -> io::Result<SignalSet> {
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
    pub(super) fn wait(&self) -> io::Result<libc::c_int> {
        let mut signal = 0;
        loop {
            // SAFETY: both point to initialised memory of their types, alive during the call.
            match unsafe { libc::sigwait(&self.0, &mut signal) } {
                0 => return Ok(signal),
                libc::EINTR => {}
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

impl SignalSet {
    /// A descriptor to poll and read them from (signalfd(2)).
    pub(super) fn descriptor(&self) -> io::Result<Signals> {
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
pub(super) struct Signals(OwnedFd);

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Signals {
    /// The next one, if there is one now.
    pub(super) fn next(&self) -> Option<libc::c_int> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.0, &mut info).ok()?;
        // `ssi_signo` is its first field (signalfd(2)).
        let number = info.get(..length)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*number).cast_signed())
    }
}

/// Which of two processes this is after [`fork`].
pub(super) enum Forked {
    Parent(Pid),
    Child,
}

/// Makes two processes of one that has no other threads: locks that those held would stay locked in
/// the child for ever.
pub(super) fn fork() -> io::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("the process has other threads already"));
    }
    // SAFETY: there is one thread, as counted, so nothing is half done in the child, which may do
    // whatever its parent could do.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .map(Forked::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Runs `start` with all signals blocked, so that the threads it starts never receive one: not even
/// when they exist before [`SignalSet::block`] is called.
pub(super) fn deaf_to_signals<T>(start: impl FnOnce() -> T) -> io::Result<T> {
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

/// Takes over a descriptor that the starter of this process left open for it. It is closed in
/// children. Must be called before this process opens files of its own, and once per descriptor.
pub(super) fn inherit_fd(fd: RawFd) -> io::Result<OwnedFd> {
    if (0..=2).contains(&fd) {
        // The standard streams belong to the standard library.
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: fcntl with F_SETFD takes an integer; a closed descriptor is EBADF.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as fcntl has shown; the caller was told its number to take
    // it over, so nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the child of `command` a life of its own. It leads a session without a terminal, so that
/// neither an interrupt at the terminal nor its closing reaches it. Of the descriptors of this
/// process it gets the standard streams and `kept`: it outlives whoever has started us, and would keep
/// their locks taken and their pipes open.
pub(super) fn on_its_own(command: &mut Command, kept: Vec<RawFd>) -> &mut Command {
    // For kernels that cannot mark all at once. What is opened from now on is marked already.
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > libc::STDERR_FILENO)
        .collect();
    // SAFETY: what runs between fork and exec makes system calls only: it allocates nothing, takes
    // no lock, and the lists exist already. Numbers of closed descriptors are errors.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            let first = libc::STDERR_FILENO as libc::c_uint + 1;
            let mark = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
            if libc::close_range(first, libc::c_uint::MAX, mark) != 0 {
                for &fd in &open {
                    libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                }
            }
            for &fd in &kept {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            Ok(())
        })
    }
}

/// Has the allocator give large blocks back to the system as soon as they are freed.
///
/// glibc would raise its threshold with the first large block that is freed, and from then on keep
/// such blocks in the heaps of as many threads as there are: memory that no bound counts.
pub(super) fn give_back_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: libc::c_int = 256 << 10;
        // SAFETY: mallopt takes two numbers, and refuses those that make no sense.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        // What is small and freed stays in the heap that it came from: let there be few.
        const HEAPS: libc::c_int = 8;
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
    }
}

/// Has the allocator give back what it keeps for later.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the allocator does that itself when it likes; it takes its own locks.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Has all threads share one heap. glibc would give each a reserve of 64 MiB of addresses, which a
/// limit of the address space counts.
pub(super) fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and refuses those that make no sense.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_standard_streams_and_closed_descriptors_are_not_taken() {
        assert!(inherit_fd(-1).is_err());
        assert!(inherit_fd(1).is_err());
        assert!(inherit_fd(1_000_000).is_err());
    }

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
