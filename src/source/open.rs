//! Finding out what a path leads to.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::ArchiveSource;
use super::blob::BlobSource;
use super::closed;
use super::file::open_any;
use super::layout_dir::LayoutDir;
use crate::error::{Error, Result};
use crate::files::calls;

/// Opens an archive file or an image-layout directory.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when it is neither (says what was
/// expected), or breaks a rule of its format; FIFOs and devices are refused without blocking.
pub fn open(path: &Path) -> Result<Arc<dyn BlobSource>> {
    Unread::open(path)?.read()
}

/// What is at a path, of which nothing was read yet. A process can give up rights in between.
pub struct Unread {
    file: File,
    path: PathBuf,
}

impl Unread {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> Result<Unread> {
        Ok(Unread {
            file: open_any(path)?,
            path: path.to_path_buf(),
        })
    }

    /// True for a layout directory of which root could not read some file without the capability for
    /// that; an archive is open already.
    pub fn is_closed_to_root(&self) -> bool {
        closed::is_closed_to_root(self.as_fd())
    }

    /// Reads what it is.
    ///
    /// # Errors
    /// As [`open`].
    pub fn read(self) -> Result<Arc<dyn BlobSource>> {
        let Unread { file, path } = self;
        let metadata =
            calls::metadata(&file).map_err(|errno| Error::io("read", &path)(errno.into()))?;
        if metadata.is_dir() {
            Ok(Arc::new(LayoutDir::from_file(file, &path)?))
        } else {
            Ok(Arc::new(ArchiveSource::from_file(file, &path)?))
        }
    }
}

impl AsFd for Unread {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
