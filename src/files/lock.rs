//! One process at a time changes a file: a lock that dies with its holder.
//!
//! The lock is flock(2) on the file itself. Where the file system has none, or only for those who
//! may write (NFS), the directory is locked instead: that is known on this machine alone. Where
//! even that is not possible there is no lock.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::calls;
use super::identity::node;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) enum Lock {
    /// By the file, or by its directory.
    Held(#[expect(dead_code, reason = "it is held")] OwnedFd),
    /// Nothing here can be locked.
    Impossible(Errno),
}

/// Locks an open file, which is `name` in `dir`. `None` when somebody else has the lock.
pub(crate) fn try_lock(dir: &OwnedFd, name: &std::ffi::OsStr, file: &impl AsFd) -> Option<Lock> {
    let mut failed = match try_one(file.as_fd().try_clone_to_owned().map_err(errno)) {
        Attempt::Done(lock) => return lock,
        Attempt::Failed(errno) => errno,
    };
    if failed == Errno::BADF {
        // NFS makes it a lock of bytes, which takes a descriptor that may write.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let writable = calls::openat(dir, name, flags, Mode::empty()).and_then(|writable| {
            let same = node(&calls::fstat(&writable)?) == node(&calls::fstat(file)?);
            if same {
                Ok(writable)
            } else {
                Err(Errno::STALE)
            }
        });
        failed = match try_one(writable) {
            Attempt::Done(lock) => return lock,
            Attempt::Failed(errno) => errno,
        };
    }
    log::debug!("the file cannot be locked ({failed}); its directory is locked instead");
    // Opened anew: a lock belongs to the open file description, which a clone would share.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match try_one(calls::openat(dir, ".", flags, Mode::empty())) {
        Attempt::Done(lock) => lock,
        Attempt::Failed(errno) => Some(Lock::Impossible(errno)),
    }
}

enum Attempt {
    /// There is a lock, or somebody else has it.
    Done(Option<Lock>),
    Failed(Errno),
}

fn try_one(opened: rustix::io::Result<OwnedFd>) -> Attempt {
    let locked = opened.and_then(|fd| calls::try_lock(&fd).map(|()| fd));
    match locked {
        Ok(fd) => Attempt::Done(Some(Lock::Held(fd))),
        Err(Errno::WOULDBLOCK) => Attempt::Done(None),
        Err(errno) => Attempt::Failed(errno),
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
