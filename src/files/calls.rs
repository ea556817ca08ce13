//! The system calls by which files are reached, each in one place: an interrupted one is made
//! again, and in unit tests any of them can be made to fail ([`faults`]).
//!
//! Names are single components in a directory that is held, but where a function says otherwise.

use std::ffi::{CString, OsString};
use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, DirEntry, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    ResolveFlags, Stat, StatxFlags, Timestamps, Uid,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use super::faults::{self, Op};
use super::sync_range::{Step, sync_file_range};

/// What is copied at a time where the kernel does not.
const PIECE_BYTES: usize = 1 << 20;

/// Types of file systems (`linux/magic.h`).
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;

/// Makes a call until it is not interrupted.
fn call<T>(op: Op, mut make: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match faults::before(op).and_then(|()| make()) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens a path: what a user named, resolved this once.
pub(crate) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    call(Op::Open, || rustix::fs::open(path, flags, Mode::empty()))
}

/// openat(2).
pub(crate) fn openat(
    dir: impl AsFd,
    name: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    let op = if flags.contains(OFlags::TMPFILE) {
        Op::OpenUnnamed
    } else {
        Op::Open
    };
    let flags = flags | OFlags::CLOEXEC;
    call(op, || rustix::fs::openat(dir.as_fd(), name, flags, mode))
}

/// Opens what a handle (of `O_PATH`) is of, for more; no name is looked up again.
pub(crate) fn open_again(fd: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    let itself = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    openat(CWD, itself.as_str(), flags, Mode::empty())
}

/// openat2(2) of a path of several components.
pub(crate) fn openat2(
    root: impl AsFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    call(Op::OpenBelow, || {
        rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve)
    })
}

/// fstat(2).
pub(crate) fn fstat(fd: impl AsFd) -> Result<Stat> {
    call(Op::Stat, || rustix::fs::fstat(fd.as_fd()))
}

/// What something is that is held, as far as the system knows without asking its storage.
pub(crate) fn file_type(fd: impl AsFd) -> Result<FileType> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = call(Op::Stat, || {
        rustix::fs::statx(fd.as_fd(), c"", flags, StatxFlags::TYPE)
    })?;
    Ok(FileType::from_raw_mode(stat.stx_mode.into()))
}

/// What an open file is, as the standard library says it.
pub(crate) fn metadata(file: &File) -> Result<Metadata> {
    call(Op::Stat, || {
        let found = file.metadata();
        found.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}

/// What is at a name, a link being itself.
pub(crate) fn statat(dir: impl AsFd, name: impl Arg + Copy) -> Result<Stat> {
    call(Op::Stat, || {
        rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
    })
}

/// The target of a symbolic link.
pub(crate) fn readlinkat(dir: impl AsFd, name: impl Arg + Copy) -> Result<CString> {
    call(Op::ReadLink, || {
        rustix::fs::readlinkat(dir.as_fd(), name, Vec::new())
    })
}

/// What the kernel calls something that is open, at this moment: a guess, to be confirmed by what
/// is found there.
pub(crate) fn path_of(fd: impl AsFd) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let text = readlinkat(CWD, link.as_str())?;
    Ok(OsString::from_vec(text.into_bytes()).into())
}

/// Starts listing an open directory.
pub(crate) fn list(dir: impl AsFd) -> Result<Dir> {
    call(Op::List, || Dir::read_from(dir.as_fd()))
}

/// The next entry of a directory that is listed; `None` at its end.
pub(crate) fn next_entry(dir: &mut Dir) -> Option<Result<DirEntry>> {
    match faults::before(Op::List) {
        Ok(()) | Err(Errno::INTR) => dir.read(),
        Err(errno) => Some(Err(errno)),
    }
}

/// The names in an open directory, but for itself and the one above.
pub(crate) fn names(dir: impl AsFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    let mut entries = list(dir)?;
    while let Some(entry) = next_entry(&mut entries) {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Reads up to `buf`'s length. 0 is the end of the file.
pub(crate) fn read(file: &File, buf: &mut [u8]) -> Result<usize> {
    let length = faults::length(Op::Read, buf.len());
    let buf = buf.get_mut(..length).unwrap_or_default();
    call(Op::Read, || rustix::io::read(file, &mut *buf))
}

/// Reads up to `buf`'s length from an offset. 0 is the end of the file.
pub(crate) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> Result<usize> {
    let length = faults::length(Op::Read, buf.len());
    let buf = buf.get_mut(..length).unwrap_or_default();
    // Through the C library, where tests of whole processes put a faulty storage.
    let read = |buf: &mut [u8]| std::os::unix::fs::FileExt::read_at(file, buf, offset);
    call(Op::Read, || {
        read(buf).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}

/// Reads into several buffers in turn, from an offset, as far as one call goes. 0 is the end of the file.
pub(crate) fn read_vectored_at(
    file: &File,
    bufs: &mut [IoSliceMut<'_>],
    offset: u64,
) -> Result<usize> {
    call(Op::Read, || rustix::io::preadv(file, &mut *bufs, offset))
}

/// Fills `buf`, by as many reads as it takes.
///
/// # Errors
/// `UnexpectedEof` when the file ends before.
pub(crate) fn read_exact(file: &File, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match read(file, buf)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => buf = buf.get_mut(n..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Fills `buf` from an offset, by as many reads as it takes.
///
/// # Errors
/// `UnexpectedEof` when the file ends before.
pub(crate) fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match read_at(file, buf, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                buf = buf.get_mut(n..).unwrap_or_default();
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// Writes all of `buf` at an offset, by as many writes as it takes.
pub(crate) fn write_all_at(file: &File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let length = faults::length(Op::Write, buf.len());
        let piece = buf.get(..length).unwrap_or_default();
        match call(Op::Write, || rustix::io::pwrite(file, piece, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                offset = offset.saturating_add(n as u64);
                buf = buf.get(n..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

/// Copies up to `length` bytes from one file to another; returns how many. The kernel does it, by
/// sharing blocks where the file system can; where it does not, a piece goes through memory.
pub(crate) fn copy(from: &File, offset: u64, to: &File, at: u64, length: u64) -> io::Result<u64> {
    let (mut from_offset, mut to_offset) = (offset, at);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    let copied = call(Op::Copy, || {
        rustix::fs::copy_file_range(
            from,
            Some(&mut from_offset),
            to,
            Some(&mut to_offset),
            wanted,
        )
    });
    match copied {
        Ok(copied) => Ok(copied as u64),
        // Other file systems, old kernels, filters of system calls.
        Err(errno)
            if is_unsupported(errno)
                || matches!(
                    errno,
                    Errno::XDEV | Errno::PERM | Errno::TXTBSY | Errno::BADF
                ) =>
        {
            let mut piece = vec![0; wanted.min(PIECE_BYTES)];
            let read = read_at(from, &mut piece, offset)?;
            write_all_at(to, piece.get(..read).unwrap_or_default(), at)?;
            Ok(read as u64)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// ftruncate(2).
pub(crate) fn set_len(file: &File, length: u64) -> Result<()> {
    call(Op::Truncate, || rustix::fs::ftruncate(file, length))
}

/// fsync(2), of a file or a directory.
pub(crate) fn sync(fd: impl AsFd) -> Result<()> {
    call(Op::Sync, || rustix::fs::fsync(fd.as_fd()))
}

/// Has the kernel begin to write back what was written to a part of a file, where it can do that alone.
pub(crate) fn start_write_back(file: &File, range: &Range<u64>) -> Result<()> {
    match write_back(file, range, Step::Start) {
        Some(result) => result,
        None => Ok(()),
    }
}

/// Waits until what was written to a part of a file is written back. A crash may lose it all the same.
pub(crate) fn finish_write_back(file: &File, range: &Range<u64>) -> Result<()> {
    match write_back(file, range, Step::Finish) {
        Some(result) => result,
        None => call(Op::WriteBack, || rustix::fs::fdatasync(file)),
    }
}

/// A step of a part alone; `None` where that cannot be done.
fn write_back(file: &File, range: &Range<u64>, step: Step) -> Option<Result<()>> {
    if !has_pages_of_its_own(file) {
        return None;
    }
    match call(Op::WriteBack, || sync_file_range(file, range, step)) {
        // A filter of system calls.
        Err(Errno::PERM) => None,
        Err(errno) if is_unsupported(errno) => None,
        result => Some(result),
    }
}

/// True in file systems of which it is known that sync_file_range(2) does all. In one that is laid over
/// others (overlayfs, as in containers) it does nothing, as the pages are those of a file below.
fn has_pages_of_its_own(file: &File) -> bool {
    let kind = rustix::fs::fstatfs(file).map(|stat| stat.f_type as u64 & 0xffff_ffff);
    kind.is_ok_and(|kind| [EXT4, XFS].contains(&kind))
}

/// Makes the names in a directory durable, where the file system can.
pub(crate) fn sync_dir(dir: impl AsFd) -> Result<()> {
    match sync(dir) {
        Err(Errno::BADF) => Ok(()),
        Err(errno) if is_unsupported(errno) => Ok(()),
        result => result,
    }
}

/// Gives an open file a name in a directory, by way of /proc: without that it takes a capability.
pub(crate) fn link_open(file: &File, dir: impl AsFd, name: impl Arg + Copy) -> Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = AtFlags::SYMLINK_FOLLOW;
    call(Op::Link, || {
        rustix::fs::linkat(CWD, source.as_str(), dir.as_fd(), name, follow)
    })
}

/// True when [`link_open`] can find an open file.
pub(crate) fn can_link_open(file: &File) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    call(Op::Stat, || rustix::fs::stat(path.as_str())).is_ok()
}

/// Gives a file of a directory a further name there.
pub(crate) fn link(dir: impl AsFd, name: impl Arg + Copy, further: impl Arg + Copy) -> Result<()> {
    let dir = dir.as_fd();
    call(Op::Link, || {
        rustix::fs::linkat(dir, name, dir, further, AtFlags::empty())
    })
}

/// Renames within a directory; what has the new name is replaced.
pub(crate) fn rename(dir: impl AsFd, old: impl Arg + Copy, new: impl Arg + Copy) -> Result<()> {
    let dir = dir.as_fd();
    call(Op::Rename, || rustix::fs::renameat(dir, old, dir, new))
}

/// Renames within a directory, with flags that not every file system knows ([`is_unsupported`]).
pub(crate) fn rename_with(
    dir: impl AsFd,
    old: impl Arg + Copy,
    new: impl Arg + Copy,
    flags: RenameFlags,
) -> Result<()> {
    let dir = dir.as_fd();
    rename_between(dir, old, dir, new, flags)
}

/// Removes a name that is no directory.
pub(crate) fn unlink(dir: impl AsFd, name: impl Arg + Copy) -> Result<()> {
    call(Op::Unlink, || {
        rustix::fs::unlinkat(dir.as_fd(), name, AtFlags::empty())
    })
}

/// fchown(2).
pub(crate) fn set_owner(file: &File, owner: Uid, group: Gid) -> Result<()> {
    call(Op::Owner, || {
        rustix::fs::fchown(file, Some(owner), Some(group))
    })
}

/// fchmod(2).
pub(crate) fn set_mode(file: &File, mode: Mode) -> Result<()> {
    call(Op::Mode, || rustix::fs::fchmod(file, mode))
}

/// Locks an open file or directory against others who do the same; `WOULDBLOCK` when one has it.
pub(crate) fn try_lock(fd: impl AsFd) -> Result<()> {
    call(Op::Lock, || {
        rustix::fs::flock(fd.as_fd(), FlockOperation::NonBlockingLockExclusive)
    })
}

/// True for what a file system answers that does not know an operation or a flag of it.
pub(crate) fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)
}

/// Makes a directory.
pub(crate) fn mkdir(dir: impl AsFd, name: impl Arg + Copy, mode: Mode) -> Result<()> {
    call(Op::Make, || rustix::fs::mkdirat(dir.as_fd(), name, mode))
}

/// Removes an empty directory.
pub(crate) fn rmdir(dir: impl AsFd, name: impl Arg + Copy) -> Result<()> {
    call(Op::Unlink, || {
        rustix::fs::unlinkat(dir.as_fd(), name, AtFlags::REMOVEDIR)
    })
}

/// Renames from one directory to another, with flags that not every file system knows
/// ([`is_unsupported`]).
pub(crate) fn rename_between(
    from: impl AsFd,
    old: impl Arg + Copy,
    to: impl AsFd,
    new: impl Arg + Copy,
    flags: RenameFlags,
) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let op = match flags {
        RenameFlags::EXCHANGE => Op::Exchange,
        RenameFlags::NOREPLACE => Op::RenameNew,
        _ => Op::Rename,
    };
    call(op, || match op {
        Op::Rename => rustix::fs::renameat(from, old, to, new),
        _ => rustix::fs::renameat_with(from, old, to, new, flags),
    })
}

/// Sets the times of an open file.
pub(crate) fn set_times(file: &File, times: &Timestamps) -> Result<()> {
    call(Op::Times, || rustix::fs::futimens(file, times))
}

/// Syncs all of the file system that an open file is in.
pub(crate) fn sync_file_system(fd: impl AsFd) -> Result<()> {
    call(Op::Sync, || rustix::fs::syncfs(fd.as_fd()))
}
