//! The output file: it appears under its name complete and synced, or not at all.
//!
//! Where the file system allows it the file has no name until it is complete (`O_TMPFILE`), so that
//! not even SIGKILL leaves anything behind; elsewhere it has a temporary name beside the output.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::walk::{Skip, node};
use crate::entry_path::printable_path;
use crate::error::{Error, Result};

const TEMPORARY_PREFIX: &str = ".modeloci-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// True for the names that this module gives to unfinished outputs.
pub(super) fn is_temporary_name(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(TEMPORARY_PREFIX.as_bytes()) && name.ends_with(TEMPORARY_SUFFIX.as_bytes())
}

/// Where an output will be: checked before any work is done.
#[derive(Debug)]
pub(super) struct OutputPlace {
    path: PathBuf,
    name: OsString,
    dir_path: PathBuf,
    dir: OwnedFd,
    dir_node: (u64, u64),
    existing: Option<(u64, u64)>,
    force: bool,
}

impl OutputPlace {
    /// Checks that an output can be made at `path`.
    pub(super) fn check(path: &Path, force: bool) -> Result<OutputPlace> {
        let shown = printable_path(path);
        let name = path
            .file_name()
            .filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/"))
            .ok_or_else(|| Error::usage(format!("output \"{shown}\" is not a file name")))?;
        let dir_path = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(dir_path, flags, Mode::empty()).map_err(|errno| match errno {
                Errno::NOENT | Errno::NOTDIR => Error::usage(format!(
                    "output directory {} does not exist",
                    printable_path(dir_path)
                )),
                errno => Error::io("open", dir_path)(errno.into()),
            })?;
        let dir_stat = rustix::fs::fstat(&dir).map_err(failed("read", dir_path))?;
        let existing = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed("read", path)(errno)),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile | FileType::Symlink => Some(node(&stat)),
                _ => return Err(Error::refused(shown, "exists and is not a regular file")),
            },
        };
        if existing.is_some() && !force {
            return Err(exists(path));
        }
        Ok(OutputPlace {
            path: path.to_path_buf(),
            name: name.to_os_string(),
            dir_path: dir_path.to_path_buf(),
            dir,
            dir_node: node(&dir_stat),
            existing,
            force,
        })
    }

    /// What a walk of the directory around the output passes over.
    pub(super) fn skip(&self) -> Skip {
        Skip {
            output: self.existing,
            output_dir: Some(self.dir_node),
        }
    }

    /// Creates the file, still without its name.
    pub(super) fn create(self) -> Result<OutputFile> {
        let unfinished = match self.create_unnamed() {
            Some(file) => Unfinished::Unnamed(file),
            None => Unfinished::Named(
                temporary()
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(&self.dir_path)
                    .map_err(Error::io("create a file in", &self.dir_path))?,
            ),
        };
        Ok(OutputFile {
            place: self,
            unfinished,
        })
    }

    /// `None` where it is not supported, or could not be given a name later.
    fn create_unnamed(&self) -> Option<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let file = File::from(rustix::fs::openat(&self.dir, ".", flags, mode).ok()?);
        fs::metadata(descriptor_path(&file)).ok()?;
        Some(file)
    }
}

/// An output that has no name yet. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct OutputFile {
    place: OutputPlace,
    unfinished: Unfinished,
}

#[derive(Debug)]
enum Unfinished {
    Unnamed(File),
    Named(NamedTempFile),
}

impl OutputFile {
    fn file(&self) -> &File {
        match &self.unfinished {
            Unfinished::Unnamed(file) => file,
            Unfinished::Named(file) => file.as_file(),
        }
    }

    /// Another handle of the file, to write to.
    pub(super) fn handle(&self) -> Result<File> {
        let handle = self.file().try_clone();
        handle.map_err(Error::io("write", &self.place.path))
    }

    /// Gives the file the permissions of the one that it replaces, and its owner where that is
    /// allowed.
    pub(super) fn take_over(&self, old: &Metadata) -> Result<()> {
        // First the owner: changing it would clear permissions.
        match fchown(self.file(), Some(old.uid()), Some(old.gid())) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
            _ => self.file().set_permissions(old.permissions()),
        }
        .map_err(Error::io("set owner and permissions of", &self.place.path))
    }

    /// Syncs the file, gives it its name, and syncs the directory.
    ///
    /// An output that appeared meanwhile is only replaced when that was asked for.
    pub(super) fn commit(self) -> Result<()> {
        let OutputFile { place, unfinished } = self;
        let path = &place.path;
        let result = match unfinished {
            Unfinished::Unnamed(file) => {
                file.sync_all().map_err(Error::io("sync", path))?;
                give_name(&file, &place)
            }
            Unfinished::Named(file) => {
                file.as_file().sync_all().map_err(Error::io("sync", path))?;
                if place.force {
                    file.persist(path).map(drop)
                } else {
                    file.persist_noclobber(path).map(drop)
                }
                .map_err(|error| error.error)
            }
        };
        result.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists if !place.force => exists(path),
            _ => Error::io("create", path)(error),
        })?;
        match rustix::fs::fsync(&place.dir) {
            // Some file systems cannot sync a directory; there is nothing more to do then.
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP | Errno::BADF) => Ok(()),
            Err(errno) => Err(failed("sync", &place.dir_path)(errno)),
        }
    }
}

/// Links an unnamed file to its name. Linking never replaces: an existing output is replaced by
/// way of a temporary name.
fn give_name(file: &File, place: &OutputPlace) -> io::Result<()> {
    let source = descriptor_path(file);
    let link = |dir: &OwnedFd, name: &OsStr| {
        rustix::fs::linkat(CWD, &source, dir, name, AtFlags::SYMLINK_FOLLOW)
    };
    match link(&place.dir, &place.name) {
        Err(Errno::EXIST) if place.force => temporary()
            .make_in(&place.dir_path, |path| {
                Ok(rustix::fs::linkat(
                    CWD,
                    &source,
                    CWD,
                    path,
                    AtFlags::SYMLINK_FOLLOW,
                )?)
            })?
            .into_temp_path()
            .persist(&place.path)
            .map_err(|error| error.error),
        result => Ok(result?),
    }
}

/// A path that leads to an open file; linking an unnamed file otherwise needs a capability.
fn descriptor_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
    builder
}

fn exists(path: &Path) -> Error {
    Error::refused(
        printable_path(path),
        "output exists; use --force to replace it",
    )
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let error = Error::io(action, path);
    move |errno| error(errno.into())
}
