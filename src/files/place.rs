//! A name in a directory that is held: where a file is, or will be, whatever happens to the path.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

use super::calls;

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: OwnedFd,
    pub(crate) name: OsString,
    /// The path that led here, for messages.
    pub(crate) path: PathBuf,
}

impl Place {
    /// The directory part of a path, as it is opened.
    pub(crate) fn dir_of(path: &Path) -> &Path {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Opens the directory of `path`; the last component is not looked at.
    ///
    /// # Errors
    /// `ISDIR` when the path has no last component; others as opening fails.
    pub(crate) fn of(path: &Path) -> Result<Place> {
        let name = path.file_name().ok_or(Errno::ISDIR)?.to_os_string();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(Place {
            dir: calls::open(Place::dir_of(path), flags)?,
            name,
            path: path.to_path_buf(),
        })
    }

    /// The place of what `path` leads to, when its last component is a link; with what is there.
    /// Each link is read once, in the directory that holds it.
    pub(crate) fn of_target(path: &Path) -> Result<(Place, Stat)> {
        let mut place = Place::of(path)?;
        for _ in 0..=MAX_LINKS {
            let stat = calls::statat(&place.dir, place.name.as_os_str())?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Ok((place, stat));
            }
            let text = calls::readlinkat(&place.dir, place.name.as_os_str())?;
            let text = PathBuf::from(OsString::from_vec(text.into_bytes()));
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let above = Place::dir_of(&text);
            place = Place {
                dir: calls::openat(place.dir.as_fd(), above, flags, Mode::empty())?,
                name: text.file_name().ok_or(Errno::ISDIR)?.to_os_string(),
                path: Place::dir_of(&place.path).join(&text),
            };
        }
        Err(Errno::LOOP)
    }
}
