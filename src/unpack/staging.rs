//! The temporary directory beside the output, and the one rename that publishes it.

use std::ffi::CString;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::entry_path::printable_path;
use crate::error::{Error, Result};
use crate::files::beneath;

/// A temporary directory that becomes the output, or is removed when dropped.
pub(super) struct Staging {
    /// The directory that holds both names, so that its own path may change meanwhile.
    parent: OwnedFd,
    dir: OwnedFd,
    temporary: CString,
    name: CString,
    output: PathBuf,
    force: bool,
    published: bool,
}

impl Staging {
    /// Creates the temporary directory `.modeloci-XXXXXXXX.tmp` beside `output`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the output exists and `force` is not
    /// set, or cannot be replaced; [`ErrorKind::Environment`](crate::ErrorKind::Environment).
    pub(super) fn create(output: &Path, force: bool) -> Result<Staging> {
        let Some(name) = output.file_name() else {
            return Err(refused(
                output,
                "has no name that a new directory could take",
            ));
        };
        let name = CString::new(name.as_bytes())
            .map_err(|_| Error::usage("the output's name contains a NUL byte"))?;
        let above = match output.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(above, flags, Mode::empty())
            .map_err(|e| Error::io("open directory", above)(e.into()))?;
        existing(&parent, &name, output, force)?;

        let failed = |e: Errno| Error::io("create a temporary directory in", above)(e.into());
        for _ in 0..128 {
            let temporary = temporary_name();
            match rustix::fs::mkdirat(&parent, &temporary, Mode::from_raw_mode(0o777)) {
                Err(Errno::EXIST) => continue,
                result => result.map_err(failed)?,
            }
            let flags = flags | OFlags::NOFOLLOW;
            let dir = rustix::fs::openat(&parent, &temporary, flags, Mode::empty())
                .inspect_err(|_| {
                    let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::REMOVEDIR);
                })
                .map_err(failed)?;
            return Ok(Staging {
                parent,
                dir,
                temporary,
                name,
                output: output.to_path_buf(),
                force,
                published: false,
            });
        }
        Err(failed(Errno::EXIST))
    }

    /// The handle of the temporary directory.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Gives the directory its final name, and removes the tree that had it before.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the output appeared meanwhile, or
    /// when the temporary name is no longer this directory.
    pub(super) fn publish(mut self) -> Result<()> {
        if !self.is_ours(&self.temporary) {
            return Err(refused(
                &self.output,
                "the temporary directory beside it was renamed or replaced meanwhile",
            ));
        }
        let replaced = existing(&self.parent, &self.name, &self.output, self.force)?;
        if replaced {
            self.exchange()?;
        } else {
            self.rename()?;
        }
        self.published = true;
        rustix::fs::fsync(&self.parent)
            .map_err(|e| Error::io("sync the directory of", &self.output)(e.into()))?;
        if replaced {
            // The new tree is complete and in place: what is left of the old one is litter.
            if let Err(e) = beneath::remove_tree(self.parent.as_fd(), &self.temporary) {
                let left = self.temporary.to_string_lossy();
                log::warn!("cannot remove the replaced directory, now {left}: {e}");
            }
        }
        Ok(())
    }

    fn rename(&self) -> Result<()> {
        let result = self.rename_with(RenameFlags::NOREPLACE);
        match result {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(exists(&self.output)),
            // A file system without RENAME_NOREPLACE (NFS): rename(2) itself replaces nothing but
            // an empty directory.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::renameat(&self.parent, &self.temporary, &self.parent, &self.name)
                    .map_err(|e| match e {
                        Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR => exists(&self.output),
                        e => Error::io("create", &self.output)(e.into()),
                    })
            }
            Err(e) => Err(Error::io("create", &self.output)(e.into())),
        }
    }

    fn exchange(&self) -> Result<()> {
        self.rename_with(RenameFlags::EXCHANGE)
            .map_err(|e| match e {
                Errno::INVAL | Errno::NOSYS => refused(
                    &self.output,
                    "cannot be replaced at once on this file system; remove it first",
                ),
                e => Error::io("replace", &self.output)(e.into()),
            })
    }

    fn rename_with(&self, flags: RenameFlags) -> rustix::io::Result<()> {
        let (parent, temporary, name) = (&self.parent, &self.temporary, &self.name);
        rustix::fs::renameat_with(parent, temporary, parent, name, flags)
    }

    fn is_ours(&self, name: &CString) -> bool {
        let here = rustix::fs::statat(&self.parent, name, AtFlags::SYMLINK_NOFOLLOW);
        match (here, rustix::fs::fstat(&self.dir)) {
            (Ok(a), Ok(b)) => identity(&a) == identity(&b),
            _ => false,
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.published || !self.is_ours(&self.temporary) {
            return;
        }
        if let Err(e) = beneath::remove_tree(self.parent.as_fd(), &self.temporary) {
            let left = self.temporary.to_string_lossy();
            log::warn!("cannot remove the temporary directory {left}: {e}");
        }
    }
}

/// True when the output exists and may be replaced, false when it does not exist.
fn existing(parent: &OwnedFd, name: &CString, output: &Path, force: bool) -> Result<bool> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(Error::io("look up", output)(io::Error::from(e))),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            Err(refused(output, "exists and is no directory"))
        }
        Ok(_) if force => Ok(true),
        Ok(_) => Err(exists(output)),
    }
}

fn exists(output: &Path) -> Error {
    refused(output, "exists already")
}

fn refused(output: &Path, problem: &str) -> Error {
    Error::refused(printable_path(output), problem)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn temporary_name() -> CString {
    // A fresh RandomState is keyed by the operating system's random numbers.
    let random = RandomState::new().hash_one(std::process::id());
    CString::new(format!(".modeloci-{random:016x}.tmp")).unwrap_or_default()
}
