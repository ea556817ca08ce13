//! The directories that are held, below which everything is that may be reached; and where in them
//! something is.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};

use super::beneath;

/// Directories that are held.
#[derive(Debug)]
pub(crate) struct Roots(Vec<OwnedFd>);

/// Where something is: a path without links, below one of the [`Roots`]; empty for the root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Location {
    /// The number of the root.
    pub(crate) root: usize,
    pub(crate) path: PathBuf,
}

impl Roots {
    /// These, numbered from 0.
    pub(crate) fn new(roots: impl IntoIterator<Item = OwnedFd>) -> Roots {
        Roots(roots.into_iter().collect())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(OwnedFd::as_fd)
    }

    /// One of them.
    pub(crate) fn get(&self, root: usize) -> Result<BorrowedFd<'_>> {
        self.0.get(root).map(OwnedFd::as_fd).ok_or(Errno::BADF)
    }

    /// Opens what is at a location, by way of no link.
    pub(crate) fn open(&self, location: &Location, flags: OFlags) -> Result<OwnedFd> {
        beneath::open(self.get(location.root)?, &location.path, flags)
    }
}

impl Location {
    /// A path below the first root.
    pub(crate) fn below(path: impl Into<PathBuf>) -> Location {
        Location {
            root: 0,
            path: path.into(),
        }
    }

    /// A name in the directory that is here.
    pub(crate) fn join(&self, name: &OsStr) -> Location {
        Location {
            root: self.root,
            path: self.path.join(name),
        }
    }

    /// True for `other` itself, and what is below it.
    pub(crate) fn is_in(&self, other: &Location) -> bool {
        self.root == other.root && self.path.starts_with(&other.path)
    }
}
