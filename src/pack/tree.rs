//! The files to pack, and how each is opened: below a held root, and only as what the walk saw.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::files::calls;
use crate::files::identity::Identity;
use crate::files::place::Place;
use crate::files::roots::{Location, Roots};
use crate::printable::printable_path;

/// The files of a directory, and where to open them.
#[derive(Debug)]
pub(super) struct Tree {
    /// The directories below which every `location` is.
    pub roots: Roots,
    /// The model's path, for messages.
    pub root_path: PathBuf,
    /// What a single file was named as, which may have another path in the model.
    pub named: Option<PathBuf>,
    /// Sorted by the bytes of their paths.
    pub files: Vec<InputFile>,
    /// What has a layer, and is no file; sorted likewise.
    pub others: Vec<Other>,
    /// Files of unfinished downloads in a directory that is left out.
    pub unfinished: Vec<String>,
    /// What was left by an interrupted run, and the like.
    pub warnings: Vec<String>,
}

impl Tree {
    /// A tree of the one file at `place`, which has the path `title` in the model. Messages call it
    /// what it was `named` as.
    pub(super) fn of_file(place: Place, stat: &Stat, title: EntryPath, named: &Path) -> Tree {
        Tree {
            roots: Roots::new([place.dir]),
            root_path: Place::dir_of(named).to_path_buf(),
            named: Some(named.to_path_buf()),
            files: vec![InputFile {
                path: title,
                location: Location::below(place.name),
                executable: stat.st_mode & 0o111 != 0,
                identity: Identity::of(stat),
            }],
            others: Vec::new(),
            unfinished: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let sizes = self.files.iter().map(|file| file.identity.size);
        sizes.fold(0, u64::saturating_add)
    }

    /// Number of files, and of links to them, and the bytes that they have together.
    pub(super) fn totals(&self) -> (u64, u64) {
        let links = self.others.iter().filter_map(|other| match &other.kind {
            OtherKind::Link { size, .. } => Some(*size),
            OtherKind::Directory => None,
        });
        let (mut count, mut bytes) = (self.files.len() as u64, self.bytes());
        for size in links {
            (count, bytes) = (count + 1, bytes.saturating_add(size));
        }
        (count, bytes)
    }

    /// Opens a file where it is, without following a link or waiting for a FIFO that took its
    /// place.
    pub(super) fn open(&self, file: &InputFile) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = self.roots.open(&file.location, flags);
        let input = File::from(opened.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => self.changed(file, "vanished while it was packed"),
            Errno::LOOP | Errno::NXIO => self.changed(file, "changed while it was packed"),
            errno => self.failed(file, "open", errno.into()),
        })?);
        self.check(file, &input)?;
        Ok(input)
    }

    /// Refuses a file that is not what the walk saw.
    pub(super) fn check(&self, file: &InputFile, input: &File) -> Result<()> {
        let stat = calls::fstat(input);
        let now = Identity::of(&stat.map_err(|errno| self.failed(file, "read", errno.into()))?);
        let was = file.identity;
        if now == was {
            return Ok(());
        }
        Err(self.changed(
            file,
            if !now.is_same_file(&was) || now.size == was.size {
                "changed while it was packed"
            } else if now.size > was.size {
                "grew while it was packed"
            } else {
                "shrank while it was packed"
            },
        ))
    }

    /// The error for a file that is not what it was.
    pub(super) fn changed(&self, file: &InputFile, problem: &str) -> Error {
        Error::refused(printable_path(&self.shown(file)), problem)
    }

    /// The error for a file that a call failed on.
    pub(super) fn failed(&self, file: &InputFile, action: &'static str, error: io::Error) -> Error {
        Error::io(action, self.shown(file))(error)
    }

    /// Where a file is, in messages.
    pub(super) fn shown(&self, file: &InputFile) -> PathBuf {
        let named = self.named.clone();
        named.unwrap_or_else(|| self.root_path.join(file.path.as_str()))
    }
}

/// What is packed beside files.
#[derive(Debug)]
pub(super) struct Other {
    /// Its path in the model.
    pub path: EntryPath,
    /// What it is.
    pub kind: OtherKind,
}

/// See [`Other`].
#[derive(Debug)]
pub(super) enum OtherKind {
    /// Another name of a file, which has so many bytes; `target` leads there from the directory that it is in.
    Link { target: String, size: u64 },
    /// A directory with nothing in it.
    Directory,
}

/// A file to pack.
#[derive(Debug)]
pub(super) struct InputFile {
    /// Its path in the model.
    pub path: EntryPath,
    /// Where it is, links resolved.
    pub location: Location,
    /// True when any execute bit is set.
    pub executable: bool,
    /// What it was when it was found.
    pub identity: Identity,
}
