//! A directory about which nobody but this user and root decides.
//!
//! Every component of its path is opened by itself, below the one before, and looked at by its
//! handle: it belongs to this user or to root, and others cannot write to it, but where they can
//! remove nothing that is not theirs (a sticky directory). A link on the way is followed in the
//! same manner when it is this user's or root's, and nobody else could have moved it there; the
//! directory itself is none, is this user's, and only this user can write to it.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::beneath::DIRECTORY;
use super::calls;
use super::parents::Parents;
use crate::error::Error;
use crate::printable::printable_path;

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A system call failed there.
    #[error("{}: {source}", printable_path(.path))]
    Failed {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Somebody else could decide what is found there.
    #[error("{} {why}", printable_path(.path))]
    Distrusted {
        /// What.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
}

/// Opens a directory that is this user's, for listing; `None` when there is none and `create` is
/// not set.
///
/// # Errors
/// What is wrong with it, or with a directory on the way to it.
pub(crate) fn open(path: &Path, create: bool) -> Result<Option<OwnedFd>, Problem> {
    let mut made = Parents::default();
    let opened = open_or_make(path, create.then_some(&mut made));
    made.keep();
    opened
}

/// The same; what is missing is made if `made` is given, which is told of each directory.
pub(crate) fn open_or_make(
    path: &Path,
    mut made: Option<&mut Parents>,
) -> Result<Option<OwnedFd>, Problem> {
    let start = if path.is_absolute() { "/" } else { "." };
    let mut way = Way::from(Path::new(start))?;
    way.put(path);
    while let Some(step) = way.rest.pop() {
        if !way.step(&step, made.as_deref_mut())? {
            return Ok(None);
        }
    }
    // Before it is opened for listing, which a process that is confined may do only with its own.
    let stat = calls::fstat(&way.dir).map_err(|errno| way.failed(errno))?;
    check_own(&stat).map_err(|why| way.distrusted(why))?;
    let dir = calls::openat(&way.dir, c".", DIRECTORY, Mode::empty());
    dir.map(Some).map_err(|errno| way.failed(errno))
}

/// Opens a directory that is this user's, and makes what is missing of the way to it. `cannot` says in
/// messages what it is for.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment): what is wrong, and with which part of it.
pub fn own(path: &Path, cannot: &str) -> Result<OwnedFd, Error> {
    let opened =
        open(path, true).map_err(|problem| Error::environment(cannot, problem.to_string()));
    opened?.ok_or_else(|| Error::environment(cannot, "there is no directory"))
}

/// What is wrong with something that should be this user's alone.
pub(crate) fn check_own(stat: &Stat) -> Result<(), &'static str> {
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err("belongs to another user");
    }
    if stat.st_mode & 0o022 != 0 {
        return Err("can be written to by others");
    }
    Ok(())
}

/// What is wrong with a directory on the way.
fn check_above(stat: &Stat) -> Result<(), &'static str> {
    check_owner(stat)?;
    if stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 {
        return Err("can be written to by others");
    }
    Ok(())
}

fn check_owner(stat: &Stat) -> Result<(), &'static str> {
    let us = rustix::process::geteuid().as_raw();
    if stat.st_uid == 0 || stat.st_uid == us {
        Ok(())
    } else {
        Err("belongs to another user")
    }
}

struct Way {
    /// Where it has come to.
    dir: OwnedFd,
    /// The same, for messages.
    path: PathBuf,
    /// What is to come, the next one last.
    rest: Vec<OsString>,
    links: usize,
}

impl Way {
    fn from(start: &Path) -> Result<Way, Problem> {
        let dir = calls::open(start, OFlags::PATH | OFlags::DIRECTORY);
        let dir = dir.map_err(|errno| Problem::Failed {
            path: start.to_path_buf(),
            source: errno.into(),
        })?;
        let mut way = Way {
            dir,
            path: PathBuf::new(),
            rest: Vec::new(),
            links: 0,
        };
        if start.is_absolute() {
            way.path.push(start);
        }
        let stat = calls::fstat(&way.dir).map_err(|errno| way.failed(errno))?;
        check_above(&stat).map_err(|why| way.distrusted(why))?;
        Ok(way)
    }

    /// Puts a path in front of what is to come.
    fn put(&mut self, path: &Path) {
        let steps = path
            .components()
            .rev()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name.to_os_string()),
                Component::ParentDir => Some(OsString::from("..")),
                Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
            });
        self.rest.extend(steps);
    }

    /// One component; false when there is nothing.
    fn step(&mut self, name: &OsStr, made: Option<&mut Parents>) -> Result<bool, Problem> {
        let above = self.path.clone();
        self.path.push(name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let mut opened = calls::openat(&self.dir, name, flags, Mode::empty());
        if opened.as_ref().err() == Some(&Errno::NOENT) {
            let Some(made) = made else {
                return Ok(false);
            };
            opened = made.make(&self.dir, name, flags, &self.path);
        }
        let found = opened.map_err(|errno| self.failed(errno))?;
        let stat = calls::fstat(&found).map_err(|errno| self.failed(errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                check_above(&stat).map_err(|why| self.distrusted(why))?;
                self.dir = found;
            }
            FileType::Symlink if self.rest.is_empty() => {
                return Err(self.distrusted("is a symbolic link"));
            }
            FileType::Symlink => {
                check_owner(&stat).map_err(|why| self.distrusted(why))?;
                // Who has a link of root in a directory of his own can move it to a sticky one.
                let around = calls::fstat(&self.dir).map_err(|errno| self.failed(errno))?;
                if around.st_mode & 0o022 != 0 {
                    return Err(
                        self.distrusted("is a link in a directory that others can write to")
                    );
                }
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(self.failed(Errno::LOOP));
                }
                let text = calls::readlinkat(&found, c"");
                let text: CString = text.map_err(|errno| self.failed(errno))?;
                let target = Path::new(OsStr::from_bytes(text.to_bytes()));
                if target.is_absolute() {
                    let root = Way::from(Path::new("/"))?;
                    (self.dir, self.path) = (root.dir, root.path);
                } else {
                    self.path = above;
                }
                self.put(target);
            }
            _ => return Err(self.distrusted("is no directory")),
        }
        Ok(true)
    }

    fn failed(&self, errno: Errno) -> Problem {
        Problem::Failed {
            path: self.path.clone(),
            source: errno.into(),
        }
    }

    fn distrusted(&self, why: &'static str) -> Problem {
        Problem::Distrusted {
            path: self.path.clone(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    /// What is said of a path below a scratch directory, `^` standing for that.
    fn said(root: &Path, path: &str) -> String {
        match open(&root.join(path), false) {
            Ok(Some(_)) => "used".into(),
            Ok(None) => "absent".into(),
            Err(problem) => problem.to_string().replace(root.to_str().unwrap(), "^"),
        }
    }

    #[test]
    fn r17_what_others_could_decide_about_is_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        let chmod = |path: &str, mode| {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        for path in ["a/b/c", "a/b", "a"] {
            chmod(path, 0o755);
        }
        fs::write(root.join("file"), "").unwrap();
        symlink("a/b", root.join("relative")).unwrap();
        symlink(root.join("a"), root.join("absolute")).unwrap();
        symlink("../relative/c", root.join("a/around")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        assert_eq!(said(root, "a/b/c"), "used");
        assert_eq!(said(root, "a/./b/../b/c/"), "used");
        assert_eq!(said(root, "relative/c"), "used");
        assert_eq!(said(root, "absolute/b/c"), "used");
        assert_eq!(said(root, "absent/b"), "absent");
        assert_eq!(said(root, "relative"), "^/relative is a symbolic link");
        assert_eq!(said(root, "a/around"), "^/a/around is a symbolic link");
        assert_eq!(said(root, "file"), "^/file is no directory");
        assert_eq!(said(root, "file/x"), "^/file is no directory");
        assert!(
            said(root, "circle/x").starts_with("^/circle: "),
            "{}",
            said(root, "circle/x")
        );
        chmod("a/b", 0o777);
        let open_to_all = "^/a/b can be written to by others";
        assert_eq!(said(root, "a/b/c"), open_to_all);
        assert_eq!(said(root, "relative/c"), open_to_all);
        chmod("a/b", 0o1777);
        assert_eq!(said(root, "a/b/c"), "used", "a sticky directory on the way");
        symlink("c", root.join("a/b/moved")).unwrap();
        fs::create_dir(root.join("a/b/c/d")).unwrap();
        assert_eq!(
            said(root, "a/b/moved/d"),
            "^/a/b/moved is a link in a directory that others can write to"
        );
        assert_eq!(said(root, "a/b"), open_to_all);
        chmod("a/b", 0o775);
        assert_eq!(said(root, "a/b/c"), open_to_all);
        chmod("a/b", 0o755);
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for path in ["a/b/c", "a/b", "a"] {
            chown(root.join(path), Some(12345), None).unwrap();
            assert_eq!(
                said(root, "a/b/c"),
                format!("^/{path} belongs to another user")
            );
            chown(root.join(path), Some(0), None).unwrap();
        }
        std::os::unix::fs::lchown(root.join("relative"), Some(12345), None).unwrap();
        assert_eq!(
            said(root, "relative/c"),
            "^/relative belongs to another user"
        );
    }

    #[test]
    fn what_is_missing_is_made_for_this_user_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("not/yet/there");
        assert!(open(&path, false).unwrap().is_none());
        assert!(open(&path, true).unwrap().is_some());
        for dir in [&path, path.parent().unwrap()] {
            let mode = fs::metadata(dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700);
        }
    }
}
