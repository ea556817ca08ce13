//! Processes: parting into two, what one inherits, and a child with a life of its own; which the
//! standard library and rustix have no safe interface for.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
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
