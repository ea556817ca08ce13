//! The output file: it appears under its name complete and synced, or not at all.
//!
//! Its directory is opened once and held: whoever renames or exchanges directories meanwhile leads
//! the output nowhere else. What it takes the place of is exchanged with it, so that a failure
//! after that moment can still be undone.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, Stat, Uid};
use rustix::io::Errno;

use super::calls::{self, is_unsupported};
use super::descriptor;
use super::identity::{Identity, node};
use super::place::Place;
use super::temporary::{Replaced, TemporaryFile};
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// How often a name may come and go while a file takes it.
const ATTEMPTS: u32 = 100;

/// What may have the output's name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Replace {
    /// Nothing.
    Nothing,
    /// A file or a link, whichever it is in the end.
    Anything,
    /// This version of this file alone: the output was made from it.
    Only(Identity),
}

/// Where an output will be: checked before any work is done.
#[derive(Debug)]
pub(crate) struct OutputPlace {
    place: Place,
    existing: Option<(u64, u64)>,
    replace: Replace,
}

impl OutputPlace {
    /// Checks that an output can be made at `path`.
    pub(crate) fn check(path: &Path, force: bool) -> Result<OutputPlace> {
        if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            let shown = printable_path(path);
            return Err(Error::usage(format!(
                "output \"{shown}\" is not a file name"
            )));
        }
        if descriptor::number(path).is_some() {
            let shown = printable_path(path);
            return Err(Error::usage(format!(
                "output {shown} is a descriptor; --output - writes to standard output"
            )));
        }
        let place = Place::of(path).map_err(|errno| {
            let dir = Place::dir_of(path);
            match errno {
                Errno::NOENT | Errno::NOTDIR => Error::usage(format!(
                    "output directory {} does not exist",
                    printable_path(dir)
                )),
                errno => Error::io("open", dir)(errno.into()),
            }
        })?;
        let existing = match calls::statat(&place.dir, place.name.as_os_str()) {
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed("read", path)(errno)),
            Ok(stat) => Some(stat),
        };
        if let Some(stat) = &existing {
            check_kind(stat, path)?;
            if !force {
                return Err(exists(path));
            }
        }
        Ok(OutputPlace {
            place,
            existing: existing.as_ref().map(node),
            replace: if force {
                Replace::Anything
            } else {
                Replace::Nothing
            },
        })
    }

    /// The place of a file of which `old` is to be replaced, by what is made from it.
    pub(crate) fn of(place: Place, old: Identity) -> OutputPlace {
        OutputPlace {
            place,
            existing: Some(old.node()),
            replace: Replace::Only(old),
        }
    }

    /// A place where a file, or a link, is to be replaced if there is one.
    pub(crate) fn over(place: Place) -> OutputPlace {
        OutputPlace {
            place,
            existing: None,
            replace: Replace::Anything,
        }
    }

    /// Device and inode of what has the name.
    pub(crate) fn existing(&self) -> Option<(u64, u64)> {
        self.existing
    }

    /// Device and inode of the directory.
    pub(crate) fn dir(&self) -> Result<(u64, u64)> {
        let dir = calls::fstat(&self.place.dir).map_err(failed("read", &self.place.path))?;
        Ok(node(&dir))
    }

    /// Creates the file, still without its name. Of the permissions `mode` it gets those that the
    /// user's mask allows.
    pub(crate) fn create(self, mode: u32) -> Result<OutputFile> {
        let Place { dir, name, path } = self.place;
        let above = Place::dir_of(&path).to_path_buf();
        let mode = Mode::from_raw_mode(mode & 0o777);
        let file = TemporaryFile::create(dir, mode).map_err(failed("create a file in", &above))?;
        Ok(OutputFile {
            file,
            name,
            path,
            replace: self.replace,
        })
    }
}

/// An output that has no name yet. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: TemporaryFile,
    name: OsString,
    /// In messages.
    path: PathBuf,
    replace: Replace,
}

impl OutputFile {
    /// Another handle of the file, to write to.
    pub(crate) fn handle(&self) -> Result<File> {
        let handle = self.file.file().try_clone();
        handle.map_err(Error::io("write", &self.path))
    }

    /// Gives the file the permissions of the one that it replaces, and its owner where that is
    /// allowed.
    pub(crate) fn take_over(&self, old: &Stat) -> Result<()> {
        let failed = || failed("set owner and permissions of", &self.path);
        // First the owner: changing it would clear permissions.
        let (owner, group) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
        match calls::set_owner(self.file.file(), owner, group) {
            Err(Errno::PERM | Errno::ACCESS) => {}
            Err(errno) if is_unsupported(errno) => {}
            changed => changed.map_err(failed())?,
        }
        let mode = Mode::from_raw_mode(old.st_mode & 0o7777);
        let Err(errno) = calls::set_mode(self.file.file(), mode) else {
            return Ok(());
        };
        // Where permissions cannot be set they are mostly the same for all files.
        let now = calls::fstat(self.file.file()).map_err(failed())?;
        if Mode::from_raw_mode(now.st_mode & 0o7777) == mode {
            return Ok(());
        }
        Err(failed()(errno))
    }

    /// Syncs the file, gives it its name, and syncs the directory.
    ///
    /// An output that appeared meanwhile is only replaced when that was asked for.
    pub(crate) fn commit(mut self) -> Result<()> {
        calls::sync(self.file.file()).map_err(failed("sync", &self.path))?;
        for _ in 0..ATTEMPTS {
            match (self.take_name(), self.replace) {
                (Ok(Some(taken)), _) => return self.settle(taken),
                (Ok(None), Replace::Only(_)) => break,
                // What has the name came, or went.
                (Ok(None), _) => {}
                (Err(Errno::EXIST), Replace::Nothing) => return Err(exists(&self.path)),
                (Err(errno), _) => return Err(failed("create", &self.path)(errno)),
            }
        }
        Err(changed(&self.path))
    }

    /// Tries to take the name. `None` when what has it is not there, or may not be replaced.
    fn take_name(&mut self) -> rustix::io::Result<Option<Taken>> {
        let name = self.name.as_os_str();
        match self.replace {
            Replace::Nothing => return self.file.appear(name).map(|()| Some(Taken::New)),
            Replace::Anything => match self.file.appear(name) {
                Err(Errno::EXIST) => {}
                appeared => return appeared.map(|()| Some(Taken::New)),
            },
            // Mostly a change is found here; what happens from now on is found by the exchange.
            Replace::Only(old) => match calls::statat(self.file.dir(), name) {
                Ok(stat) if Identity::of(&stat) == old => {}
                Ok(_) | Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno),
            },
        }
        match self.file.replace(name) {
            Ok(Replaced::Exchanged(displaced)) => Ok(Some(Taken::Exchanged(displaced))),
            Ok(Replaced::Over) => Ok(Some(Taken::Over)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Makes it last, or undoes it.
    fn settle(mut self, taken: Taken) -> Result<()> {
        let checked = match (&taken, self.replace) {
            (Taken::Exchanged(displaced), Replace::Only(old)) => {
                match Identity::of(displaced).is_same_version(&old) {
                    true => Ok(()),
                    false => Err(changed(&self.path)),
                }
            }
            (Taken::Exchanged(displaced), _) => check_kind(displaced, &self.path),
            (Taken::New | Taken::Over, _) => Ok(()),
        };
        let synced = checked.and_then(|()| match calls::sync(self.file.dir()) {
            // Some file systems cannot sync a directory; there is nothing more to do then.
            Err(Errno::BADF) => Ok(()),
            Err(errno) if is_unsupported(errno) => Ok(()),
            synced => synced.map_err(failed("sync the directory of", &self.path)),
        });
        let Err(error) = synced else { return Ok(()) };
        // What is gone cannot be brought back: the new file stays, whole.
        if !matches!(taken, Taken::Over)
            && let Err(errno) = self.file.take_back(&self.name)
        {
            let path = printable_path(&self.path);
            log::warn!("{path} could not be taken back ({errno}): it is the new file");
        }
        Err(error)
    }
}

/// How a name was taken.
enum Taken {
    New,
    Exchanged(Stat),
    Over,
}

fn check_kind(existing: &Stat, path: &Path) -> Result<()> {
    match FileType::from_raw_mode(existing.st_mode) {
        FileType::RegularFile | FileType::Symlink => Ok(()),
        _ => Err(Error::refused(
            printable_path(path),
            "exists and is not a regular file",
        )),
    }
}

fn exists(path: &Path) -> Error {
    Error::refused(
        printable_path(path),
        "output exists; use --force to replace it",
    )
}

fn changed(path: &Path) -> Error {
    Error::refused(
        printable_path(path),
        "was changed by somebody else meanwhile, and is left as it is now; try again",
    )
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let error = Error::io(action, path);
    move |errno| error(errno.into())
}
