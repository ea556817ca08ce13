//! Processes: parting into two, what one inherits, and a child with a life of its own; which the
//! standard library and rustix have no safe interface for.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::Pid;

/// Which of two processes this is after [`fork`].
pub(crate) enum Forked {
    Parent(Pid),
    Child,
}

/// Makes two processes of one that has no other threads: locks that those held would stay locked in
/// the child for ever.
pub(crate) fn fork() -> io::Result<Forked> {
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

/// Takes over a descriptor that the starter of this process left open for it. It is closed in
/// children. Must be called before this process opens files of its own, and once per descriptor.
///
/// It is the starter's open file, with the starter's locks: who needs the file and not the descriptor
/// opens it anew, and lets this go.
pub(crate) fn inherit_fd(fd: RawFd) -> io::Result<OwnedFd> {
    if (0..=2).contains(&fd) {
        // The standard streams belong to the standard library.
        return Err(Errno::INVAL.into());
    }
    // SAFETY: fcntl with F_SETFD takes an integer; a closed descriptor is EBADF.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as fcntl has shown; the caller was told its number to take
    // it over, so nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The numbers of all open descriptors but the standard streams.
fn open_descriptors() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|fd| *fd > libc::STDERR_FILENO).collect()
}

/// Closes whatever this process has open but `kept`; of the standard streams nothing is left to read
/// or to write. Must be called while nothing else in this process owns a descriptor.
///
/// # Errors
/// When there is no `/dev/null`.
pub(crate) fn keep_only(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for stream in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        // SAFETY: both are numbers of open descriptors; the standard library takes its streams as
        // they are at each use.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    drop(null);
    let mut kept: Vec<RawFd> = kept.iter().map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    let mut from = libc::STDERR_FILENO + 1;
    for fd in kept.iter().copied().chain([RawFd::MAX]) {
        if from < fd && !close_range(from, fd - 1) {
            // For kernels that cannot close all at once.
            for fd in open_descriptors() {
                if !kept.contains(&fd) {
                    // SAFETY: nobody else owns it, as the caller has promised; one that is closed
                    // already is an error.
                    unsafe { libc::close(fd) };
                }
            }
            break;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

fn close_range(from: RawFd, to: RawFd) -> bool {
    let (from, to) = (from.cast_unsigned(), to.cast_unsigned());
    // SAFETY: nobody owns a descriptor of these, as the caller of `keep_only` has promised.
    unsafe { libc::close_range(from, to, 0) == 0 }
}

/// Leaves to children nothing of what the starter of this process has left open: they would keep its
/// locks taken and its pipes open, and write where it writes.
pub(crate) fn pass_nothing_on() {
    let from = libc::STDERR_FILENO.cast_unsigned() + 1;
    let mark = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: marks descriptors; whoever owns one can use it as before.
    if unsafe { libc::close_range(from, libc::c_uint::MAX, mark) } == 0 {
        return;
    }
    for fd in open_descriptors() {
        // SAFETY: as above; one that is closed already is an error.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Gives the child of `command` a life of its own. It leads a session without a terminal, so that
/// neither an interrupt at the terminal nor its closing reaches it. Of descriptors it gets what
/// [`keeping`] says.
pub(crate) fn on_its_own(command: &mut Command, kept: Vec<RawFd>) -> &mut Command {
    // SAFETY: setsid is a system call, and nothing else runs between fork and exec.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    keeping(command, kept)
}

/// Of the descriptors of this process the child of `command` gets the standard streams and `kept`: it
/// may outlive whoever has started us, and would keep their locks taken and their pipes open. Nor does it keep
/// their working directory.
pub(crate) fn keeping(command: &mut Command, kept: Vec<RawFd>) -> &mut Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "the root directory is nobody's to exchange"
    )]
    command.current_dir("/");
    // For kernels that cannot mark all at once. What is opened from now on is marked already.
    let open = open_descriptors();
    // SAFETY: what runs between fork and exec makes system calls only: it allocates nothing, takes
    // no lock, and the lists exist already. Numbers of closed descriptors are errors.
    unsafe {
        command.pre_exec(move || {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_streams_and_closed_descriptors_are_not_taken() {
        assert!(inherit_fd(-1).is_err());
        assert!(inherit_fd(1).is_err());
        assert!(inherit_fd(1_000_000).is_err());
    }
}
