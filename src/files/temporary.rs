//! A file that is written before it has its name.
//!
//! Where the file system allows it the file has no name at all (`O_TMPFILE`), so that not even
//! SIGKILL leaves anything behind; elsewhere it has a temporary one. Everything happens in one
//! directory, which is held: nobody who renames or exchanges directories leads it elsewhere. What
//! has the temporary name is removed in the end, but only what this module put there.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, Result};

use super::calls::{self, is_unsupported};
use super::identity::node;

const PREFIX: &str = ".modeloci-";
const SUFFIX: &str = ".tmp";

/// Names that are tried before giving up; each is random.
const ATTEMPTS: u32 = 128;

/// True for the names that are given to what is not finished.
pub(crate) fn is_temporary_name(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes())
}

/// A name that nothing has.
pub(crate) fn temporary_name() -> CString {
    // A fresh RandomState is keyed by the operating system's random numbers.
    let random = RandomState::new().hash_one(std::process::id());
    CString::new(format!("{PREFIX}{random:016x}{SUFFIX}")).unwrap_or_default()
}

/// A file without its name. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    dir: OwnedFd,
    file: File,
    /// Its device and inode.
    node: (u64, u64),
    /// The temporary name, and what it leads to: this file, or what this file took the place of.
    name: Option<(CString, (u64, u64))>,
}

/// How a file was given a name that another one had.
#[derive(Debug)]
pub(crate) enum Replaced {
    /// Both exchanged their names. This was there; it is removed when the file is dropped, unless
    /// [`TemporaryFile::take_back`] is called before.
    Exchanged(Stat),
    /// The file system has no exchange: what was there is gone.
    Over,
}

impl TemporaryFile {
    /// Creates a file in `dir`, without a name where that is possible.
    pub(crate) fn create(dir: OwnedFd, mode: Mode) -> Result<TemporaryFile> {
        if let Ok(file) = unnamed(&dir, mode)
            && calls::can_link_open(&file)
        {
            return Ok(TemporaryFile {
                node: node(&calls::fstat(&file)?),
                dir,
                file,
                name: None,
            });
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let (name, fd) = with_new_name(|name| calls::openat(&dir, name, flags, mode))?;
        let file = File::from(fd);
        let made = calls::fstat(&file).inspect_err(|_| {
            let _ = calls::unlink(&dir, name.as_c_str());
        })?;
        Ok(TemporaryFile {
            dir,
            file,
            node: node(&made),
            name: Some((name, node(&made))),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The directory that the file is in.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Gives the file a name that nothing has.
    ///
    /// # Errors
    /// `EXIST` when something has it.
    pub(crate) fn appear(&mut self, name: &OsStr) -> Result<()> {
        let Some((temporary, _)) = &self.name else {
            return calls::link_open(&self.file, &self.dir, name);
        };
        let temporary = temporary.as_c_str();
        match calls::rename_with(&self.dir, temporary, name, RenameFlags::NOREPLACE) {
            Ok(()) => self.name = None,
            Err(errno) if is_unsupported(errno) => self.appear_without_flags(name)?,
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// By a hard link, which never replaces. Where there are none either, a name that appears
    /// between the look and the renaming is replaced: nothing better can be done there.
    fn appear_without_flags(&mut self, name: &OsStr) -> Result<()> {
        let Some((temporary, _)) = &self.name else {
            return Ok(());
        };
        let temporary = temporary.as_c_str();
        match calls::link(&self.dir, temporary, name) {
            Ok(()) => {
                self.discard();
                return Ok(());
            }
            Err(Errno::PERM | Errno::MLINK) => {}
            Err(errno) if is_unsupported(errno) => {}
            Err(errno) => return Err(errno),
        }
        match calls::statat(&self.dir, name) {
            Err(Errno::NOENT) => calls::rename(&self.dir, temporary, name)?,
            Err(errno) => return Err(errno),
            Ok(_) => return Err(Errno::EXIST),
        }
        self.name = None;
        Ok(())
    }

    /// Gives the file a name that something else has.
    ///
    /// # Errors
    /// `NOENT` when nothing has it any more; others as renaming fails. What had the name has it.
    pub(crate) fn replace(&mut self, name: &OsStr) -> Result<Replaced> {
        if self.name.is_none() {
            let link =
                |temporary: &CString| calls::link_open(&self.file, &self.dir, temporary.as_c_str());
            let (temporary, ()) = with_new_name(link)?;
            self.name = Some((temporary, self.node));
        }
        let Some((temporary, holds)) = &mut self.name else {
            return Err(Errno::NOENT);
        };
        match exchange(&self.dir, temporary, name) {
            Ok(displaced) => {
                *holds = node(&displaced);
                Ok(Replaced::Exchanged(displaced))
            }
            Err(errno) if is_unsupported(errno) => {
                calls::rename(&self.dir, temporary.as_c_str(), name)?;
                self.name = None;
                Ok(Replaced::Over)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Undoes [`appear`](TemporaryFile::appear), or an exchange: `name` leads to what it led to
    /// before, or to what somebody gave it meanwhile.
    pub(crate) fn take_back(&mut self, name: &OsStr) -> Result<()> {
        let Some((temporary, holds)) = &mut self.name else {
            if node(&calls::statat(&self.dir, name)?) == self.node {
                calls::unlink(&self.dir, name)?;
            }
            return Ok(());
        };
        // What comes out should be what was put in before. If it is not, somebody has replaced
        // that: theirs is newer than what has just been put back, and goes in again.
        let mut put_in = self.node;
        loop {
            let putting = *holds;
            let out = node(&exchange(&self.dir, temporary, name)?);
            *holds = out;
            if out == put_in {
                return Ok(());
            }
            put_in = putting;
        }
    }
}

impl TemporaryFile {
    /// Removes what has the temporary name.
    fn discard(&mut self) {
        let Some((name, holds)) = self.name.take() else {
            return;
        };
        let name = name.as_c_str();
        let remove = || match calls::statat(&self.dir, name) {
            Ok(stat) if node(&stat) == holds => calls::unlink(&self.dir, name),
            // Moved away, or replaced: no longer this module's.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        };
        // Once more, so that a fault that passes leaves no litter.
        if let Err(errno) = remove().or_else(|_| remove()) {
            log::warn!(
                "cannot remove the temporary file {}: {errno}",
                name.to_string_lossy()
            );
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        self.discard();
    }
}

fn unnamed(dir: &OwnedFd, mode: Mode) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    calls::openat(dir, ".", flags, mode).map(File::from)
}

/// Makes something under a temporary name that nothing has.
fn with_new_name<T>(mut make: impl FnMut(&CString) -> Result<T>) -> Result<(CString, T)> {
    for _ in 0..ATTEMPTS {
        let name = temporary_name();
        match make(&name) {
            Err(Errno::EXIST) => {}
            made => return made.map(|made| (name, made)),
        }
    }
    Err(Errno::EXIST)
}

/// Exchanges two names. Returns what has the first of them now; when that cannot be told nothing is
/// exchanged.
fn exchange(dir: &OwnedFd, temporary: &CString, name: &OsStr) -> Result<Stat> {
    let temporary = temporary.as_c_str();
    let exchange = || calls::rename_with(dir, temporary, name, RenameFlags::EXCHANGE);
    exchange()?;
    let displaced = calls::statat(dir, temporary);
    displaced.inspect_err(|_| {
        let _ = exchange();
    })
}
