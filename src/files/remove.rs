//! Removing what is below a handle, to any depth, with few descriptors, following no link.
//!
//! What is removed is what the handle holds, whatever name it has by now. A name goes last, and
//! only while it is still that directory's.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::beneath::DIRECTORY;
use super::calls;
use super::identity::node;
use super::temporary::temporary_name;
use crate::printable::printable_bytes;

/// Deepest level that is entered where it is; a directory further down is moved to the top first.
/// More than the deepest path of a model, so that one needs no such move.
const DEEPEST: usize = 72;

/// What could not be removed, and why.
#[derive(Debug)]
pub(crate) struct Left {
    /// Its path below the directory.
    path: String,
    error: io::Error,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.error)
    }
}

/// Removes everything in an open directory; the directory itself stays.
///
/// Mount points in it, and whatever else the system keeps, are left as they are.
///
/// # Errors
/// The first thing that is left; everything else was removed.
pub(crate) fn contents(root: BorrowedFd<'_>) -> Result<(), Left> {
    let mut first = true;
    loop {
        let mut pass = Pass {
            root,
            path: Vec::new(),
            progress: 0,
            raised: 0,
            left: None,
        };
        if let Err(errno) = pass.level(root) {
            pass.leave(c".", errno);
        }
        match pass.left {
            None if pass.raised == 0 => return Ok(()),
            // A fault that passes by costs a second look, no more.
            Some(left) if pass.progress == 0 && !first => return Err(left),
            _ => first = false,
        }
    }
}

/// Removes the empty directory `name`, if it still is the one that is known as `expected`; false
/// when something else has the name, or nothing.
pub(crate) fn directory(
    parent: BorrowedFd<'_>,
    name: &CStr,
    expected: (u64, u64),
) -> io::Result<bool> {
    for last in [false, true] {
        match calls::statat(parent, name) {
            Err(Errno::NOENT) => return Ok(false),
            Ok(stat) if node(&stat) != expected => return Ok(false),
            Ok(_) => {}
            Err(errno) if last => return Err(errno.into()),
            Err(_) => continue,
        }
        match calls::rmdir(parent, name) {
            Ok(()) => return Ok(true),
            Err(errno) if last => return Err(errno.into()),
            Err(_) => {}
        }
    }
    Ok(false)
}

/// One look at everything.
struct Pass<'a> {
    root: BorrowedFd<'a>,
    /// Where it is, below the root.
    path: Vec<CString>,
    /// What was removed or moved.
    progress: u64,
    /// Directories moved to the top, where the next pass finds them.
    raised: u64,
    left: Option<Left>,
}

impl Pass<'_> {
    fn level(&mut self, dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let mut entries = calls::list(dir)?;
        while let Some(entry) = calls::next_entry(&mut entries) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    self.leave(c".", errno);
                    break;
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let removed = match is_directory(dir, name, entry.file_type()) {
                Ok(true) => self.directory(dir, name),
                Ok(false) => calls::unlink(dir, name),
                Err(errno) => Err(errno),
            };
            match removed {
                Ok(()) => self.progress += 1,
                Err(Errno::NOENT) => {}
                Err(errno) => self.leave(name, errno),
            }
        }
        Ok(())
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        // Of what is mounted there this says so, and nothing in it is touched.
        match calls::rmdir(parent, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result,
        }
        if self.path.len() >= DEEPEST {
            return self.raise(parent, name);
        }
        let entered = calls::openat(parent, name, DIRECTORY, Mode::empty()).and_then(|dir| {
            self.path.push(name.to_owned());
            let result = self.level(dir.as_fd());
            self.path.pop();
            result
        });
        match entered {
            Err(Errno::MFILE | Errno::NFILE) if !self.path.is_empty() => self.raise(parent, name),
            Err(errno) => Err(errno),
            // Not empty by now: what is in it was named.
            Ok(()) => match calls::rmdir(parent, name) {
                Err(Errno::NOTEMPTY | Errno::EXIST) if self.left.is_some() => Ok(()),
                result => result,
            },
        }
    }

    /// Moves a directory to the top.
    fn raise(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        let free = temporary_name();
        calls::rename_between(parent, name, self.root, &*free, RenameFlags::empty())?;
        self.raised += 1;
        Ok(())
    }

    fn leave(&mut self, name: &CStr, errno: Errno) {
        if self.left.is_some() {
            return;
        }
        let mut path = Vec::new();
        for component in self.path.iter().map(CString::as_c_str).chain([name]) {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component.to_bytes());
        }
        self.left = Some(Left {
            path: printable_bytes(&path),
            error: errno.into(),
        });
    }
}

fn is_directory(dir: BorrowedFd<'_>, name: &CStr, known: FileType) -> rustix::io::Result<bool> {
    let kind = match known {
        FileType::Unknown => FileType::from_raw_mode(calls::statat(dir, name)?.st_mode),
        known => known,
    };
    Ok(kind == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn open(path: &Path) -> fs::File {
        fs::File::open(path).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn u1_links_are_removed_and_not_what_they_lead_to() {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "safe").unwrap();
        fs::create_dir_all(base.path().join("tree/a/b")).unwrap();
        symlink(&outside, base.path().join("tree/a/link")).unwrap();
        symlink("..", base.path().join("tree/a/up")).unwrap();
        contents(open(&base.path().join("tree")).as_fd()).unwrap();
        assert_eq!(names(&base.path().join("tree")), [""; 0]);
        assert_eq!(names(&outside), ["victim"]);
    }

    #[test]
    fn trees_deeper_than_paths_can_say_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let mut dir =
            rustix::fs::openat(rustix::fs::CWD, base.path(), DIRECTORY, Mode::empty()).unwrap();
        // Wide and deep: two ways down, and files on the way.
        for level in 0..3_000 {
            calls::mkdir(&dir, c"d", Mode::from_raw_mode(0o700)).unwrap();
            calls::mkdir(&dir, c"e", Mode::from_raw_mode(0o700)).unwrap();
            if level % 50 == 0 {
                let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
                calls::openat(&dir, c"file", flags, Mode::from_raw_mode(0o600)).unwrap();
            }
            dir = calls::openat(&dir, c"d", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(dir);
        contents(open(base.path()).as_fd()).unwrap();
        assert_eq!(names(base.path()), [""; 0]);
    }

    #[test]
    fn u4_a_name_that_is_another_directory_by_now_stays() {
        let base = tempfile::tempdir().unwrap();
        for name in ["ours", "theirs"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        let parent = open(base.path());
        let held = open(&base.path().join("ours"));
        let known = node(&calls::fstat(&held).unwrap());
        assert!(!directory(parent.as_fd(), c"theirs", known).unwrap());
        assert!(!directory(parent.as_fd(), c"absent", known).unwrap());
        fs::write(base.path().join("ours/full"), "").unwrap();
        assert!(directory(parent.as_fd(), c"ours", known).is_err());
        fs::remove_file(base.path().join("ours/full")).unwrap();
        assert!(directory(parent.as_fd(), c"ours", known).unwrap());
        assert_eq!(names(base.path()), ["theirs"]);
    }
}
