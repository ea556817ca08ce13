//! Small files that are read as wholes: what a user has configured. They are opened once, without waiting
//! for the other end of a FIFO, and are no larger than a limit.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::calls;
use crate::error::{Error, Result};
use crate::printable::printable_path;

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// The bytes of a file; `None` where there is none.
///
/// # Errors
/// When it cannot be read, is no regular file, or has more than `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match calls::open(path, FLAGS) {
        Ok(fd) => whole(fd, path, limit).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Error::io("open", path)(errno.into())),
    }
}

/// The files of a directory whose names end so, by their names; none where there is no directory.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_all(dir: &Path, ending: &str, limit: u64) -> Result<Vec<(String, Vec<u8>)>> {
    let held = match calls::open(dir, FLAGS.union(OFlags::DIRECTORY)) {
        Ok(held) => held,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(errno) => return Err(Error::io("open", dir)(errno.into())),
    };
    let mut names = calls::names(&held).map_err(|e| Error::io("list", dir)(e.into()))?;
    names.sort();
    let mut files = Vec::new();
    for name in &names {
        let Some(text) = name.to_str().ok().filter(|name| name.ends_with(ending)) else {
            continue;
        };
        let path = dir.join(text);
        let fd = open_in(&held, name).map_err(|e| Error::io("open", &path)(e.into()))?;
        files.push((text.to_string(), whole(fd, &path, limit)?));
    }
    Ok(files)
}

fn open_in(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    calls::openat(dir, name, FLAGS, Mode::empty())
}

fn whole(fd: OwnedFd, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let stat = calls::fstat(&fd).map_err(|e| Error::io("read", path)(e.into()))?;
    let refuse = |why: String| Err(Error::environment(printable_path(path), why));
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse("is no regular file".into());
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > limit {
        return refuse(format!("has {size} bytes, the limit is {limit}"));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    calls::read_exact(&File::from(fd), &mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}
