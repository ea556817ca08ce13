//! Finding out what a path leads to, or a reference to a model in a registry.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::CWD;

use super::archive::ArchiveSource;
use super::blob::BlobSource;
use super::closed;
use super::file::open_any;
use super::layout_dir::LayoutDir;
use super::registry::{self, Reference, RegistrySource};
use crate::error::{Error, Result};
use crate::files::calls;

/// Opens an archive file, an image-layout directory, or a model in a registry.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when a path leads to neither (says what was
/// expected), or to what breaks a rule of its format; FIFOs and devices are refused without blocking.
pub fn open(path: &Path) -> Result<Arc<dyn BlobSource>> {
    open_with(path, &registry::Options::default())
}

/// The same, with what there is to say about registries.
///
/// # Errors
/// As [`open`].
pub fn open_with(path: &Path, options: &registry::Options) -> Result<Arc<dyn BlobSource>> {
    Unread::open(path, options)?.read()
}

/// The reference that is meant by an argument, where there is no such path.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for one with a scheme that is none.
pub fn reference_of(path: &Path) -> Result<Option<Reference>> {
    match calls::statat(CWD, path) {
        Ok(_) => Ok(None),
        Err(_) => Reference::instead_of(path),
    }
}

/// What is at a path or in a registry, of which nothing was read yet. A process can give up rights in
/// between.
pub enum Unread {
    /// What is open.
    Path {
        /// An archive or a directory.
        file: File,
        /// As the user calls it.
        path: PathBuf,
    },
    /// What is elsewhere.
    Registry(Box<RegistrySource>),
}

impl Unread {
    /// Opens it. What exists is a path; what does not, and can be a reference, is one.
    ///
    /// # Errors
    /// Those of the system; [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a reference that is none.
    pub fn open(path: &Path, options: &registry::Options) -> Result<Unread> {
        match reference_of(path)? {
            Some(reference) => {
                let source = RegistrySource::new(reference, options)?;
                Ok(Unread::Registry(Box::new(source)))
            }
            None => Ok(Unread::Path {
                file: open_any(path)?,
                path: path.to_path_buf(),
            }),
        }
    }

    /// What is open of it.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Unread::Path { file, .. } => Some(file.as_fd()),
            Unread::Registry(_) => None,
        }
    }

    /// True for a layout directory of which root could not read some file without the capability for
    /// that; an archive is open already.
    pub fn is_closed_to_root(&self) -> bool {
        self.descriptor().is_some_and(closed::is_closed_to_root)
    }

    /// Reads what it is.
    ///
    /// # Errors
    /// As [`open`].
    pub fn read(self) -> Result<Arc<dyn BlobSource>> {
        let (file, path) = match self {
            Unread::Path { file, path } => (file, path),
            Unread::Registry(source) => return Ok(Arc::new(*source)),
        };
        let metadata =
            calls::metadata(&file).map_err(|errno| Error::io("read", &path)(errno.into()))?;
        if metadata.is_dir() {
            Ok(Arc::new(LayoutDir::from_file(file, &path)?))
        } else {
            Ok(Arc::new(ArchiveSource::from_file(file, &path)?))
        }
    }
}
