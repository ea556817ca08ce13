//! The directory in which a path's last component is, made with those above it where it is missing.
//!
//! What was made is held, and removed again by whoever drops it unkept: only what was made here, known
//! by its identity, and only while it is empty.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::beneath::DIRECTORY;
use super::calls;
use super::identity::node;
use super::place::Place;
use super::remove;
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// Directories that were made so that a path has a parent, the outermost first.
#[derive(Debug, Default)]
pub(crate) struct Parents(Vec<Made>);

#[derive(Debug)]
struct Made {
    /// What it was made in.
    above: OwnedFd,
    name: CString,
    node: (u64, u64),
    /// In messages.
    path: PathBuf,
}

impl Parents {
    /// Opens the directory that holds `path`, and makes what is missing of it. What exists is resolved
    /// once, by the kernel; every step below that is a single name, and no link.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment); what was made is removed then.
    pub(crate) fn of(path: &Path) -> Result<(OwnedFd, Parents)> {
        let parent = Place::dir_of(path);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let mut missing = Vec::new();
        let mut at = parent;
        let mut dir = loop {
            match (calls::open(at, flags), at.file_name()) {
                (Ok(dir), _) => break dir,
                (Err(Errno::NOENT), Some(name)) => missing.push((name, at)),
                // Where `..` of what is missing leads, nobody can know.
                (Err(errno), _) => return Err(Error::io("open directory", parent)(errno.into())),
            }
            at = Place::dir_of(at);
        };
        let mut parents = Parents::default();
        for (name, path) in missing.into_iter().rev() {
            dir = parents
                .enter(dir, name, path)
                .map_err(|errno| Error::io("create directory", path)(errno.into()))?;
        }
        Ok((dir, parents))
    }

    /// Makes the directory `name`, and opens it; somebody else may have made it meanwhile.
    fn enter(&mut self, above: OwnedFd, name: &OsStr, path: &Path) -> rustix::io::Result<OwnedFd> {
        match calls::mkdir(&above, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return calls::openat(&above, name, DIRECTORY, Mode::empty()),
            Err(errno) => return Err(errno),
        }
        let opened = calls::openat(&above, name, DIRECTORY, Mode::empty()).and_then(|dir| {
            let node = node(&calls::fstat(&dir)?);
            // Put there in its place, by someone else: theirs.
            let ours = calls::names(&dir)?.is_empty();
            Ok((dir, ours.then_some(node)))
        });
        match opened {
            Ok((dir, node)) => {
                if let Some(node) = node {
                    self.0.push(Made {
                        above,
                        name: CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?,
                        node,
                        path: path.to_path_buf(),
                    });
                }
                Ok(dir)
            }
            Err(errno) => {
                // Nothing but an empty directory can be lost by this.
                let _ = calls::rmdir(&above, name);
                Err(errno)
            }
        }
    }

    /// Makes a directory for this user alone, unless somebody else just did, and opens what has the
    /// name then.
    pub(crate) fn make(
        &mut self,
        above: &OwnedFd,
        name: &OsStr,
        flags: OFlags,
        path: &Path,
    ) -> rustix::io::Result<OwnedFd> {
        let made = match calls::mkdir(above, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let opened = calls::openat(above, name, flags, Mode::empty())?;
        if made {
            let again = OFlags::PATH | OFlags::DIRECTORY;
            self.0.push(Made {
                above: calls::openat(above, ".", again, Mode::empty())?,
                name: CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?,
                node: node(&calls::fstat(&opened)?),
                path: path.to_path_buf(),
            });
        }
        Ok(opened)
    }

    /// Makes the names of what was made durable.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment).
    pub(crate) fn sync(&self) -> Result<()> {
        for made in &self.0 {
            calls::sync_dir(&made.above)
                .map_err(|errno| Error::io("sync the directory of", &made.path)(errno.into()))?;
        }
        Ok(())
    }

    /// True when nothing was made.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was made is to stay.
    pub(crate) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for made in self.0.iter().rev() {
            // What is not empty is in use by now, and so is what it is in.
            if let Err(error) = remove::directory(made.above.as_fd(), &made.name, made.node)
                && error.kind() != std::io::ErrorKind::DirectoryNotEmpty
            {
                let path = printable_path(&made.path);
                log::warn!("cannot remove the directory {path}: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn names(dir: &Path) -> Vec<String> {
        let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn u4_parents_that_were_made_go_again_unless_they_are_kept() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b/c/out");
        fs::create_dir(base.path().join("a")).unwrap();
        let (dir, parents) = Parents::of(&path).unwrap();
        let found = fs::metadata(path.parent().unwrap()).unwrap();
        let held = calls::fstat(&dir).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&found), held.st_ino);
        drop(parents);
        assert_eq!(
            names(&base.path().join("a")),
            [""; 0],
            "what was there stays"
        );

        let (_dir, mut parents) = Parents::of(&path).unwrap();
        parents.sync().unwrap();
        parents.keep();
        drop(parents);
        assert_eq!(names(&base.path().join("a/b")), ["c"]);
    }

    #[test]
    fn u4_of_parents_nothing_is_removed_that_is_somebody_elses() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b/out");
        // Something came into the one that was made.
        let (_dir, parents) = Parents::of(&path).unwrap();
        fs::write(base.path().join("a/theirs"), "").unwrap();
        drop(parents);
        assert_eq!(names(&base.path().join("a")), ["theirs"]);
        fs::remove_dir_all(base.path().join("a")).unwrap();
        // Another one has the name.
        let (_dir, parents) = Parents::of(&path).unwrap();
        fs::rename(base.path().join("a"), base.path().join("moved")).unwrap();
        fs::create_dir(base.path().join("a")).unwrap();
        drop(parents);
        assert_eq!(names(base.path()), ["a", "moved"]);
        assert_eq!(names(&base.path().join("moved")), [""; 0]);
    }

    #[test]
    fn u0_what_cannot_be_a_parent_is_refused_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "").unwrap();
        symlink("nowhere", base.path().join("dangling")).unwrap();
        for path in ["file/out", "file/a/out", "dangling/out", "absent/../b/out"] {
            let error = Parents::of(&base.path().join(path)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Environment, "{path}");
        }
        assert_eq!(names(base.path()), ["dangling", "file"]);
    }
}
