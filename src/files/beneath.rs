//! Operations below a directory handle that follow no link and never leave the directory.
//!
//! Directories are opened with openat2(2), `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; kernels and
//! sandboxes without it (`ENOSYS`) get one openat(2) with `O_NOFOLLOW` per component. The last
//! step of everything else takes a single name in an open directory.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::calls;
use crate::entry_path::EntryPath;

/// Flags that open a directory, never by way of a link.
pub(crate) const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the directory `path` (components separated by `/`; `""` is `root` itself) below `root`.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    open(root, Path::new(path), DIRECTORY)
}

/// Opens what is at `path` below `root`, as `flags` say; the empty path is `root` itself. No
/// component may be a link, nor `..`.
///
/// # Errors
/// `LOOP` or `NOTDIR` where a component is a link, `XDEV` for a path that is not below.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return calls::openat(root, ".", flags, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match calls::openat2(root, path, flags, resolve) {
        // No such call, or a sandbox that denies it. EAGAIN: the kernel could not rule out a race
        // with a rename, or the file's owner holds a lease on it. EXDEV, of a path that does not
        // climb: what it had come to was moved out of the root meanwhile. Asked once more, name by
        // name, the kernel says what there is.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::XDEV) => {
            open_by_component(root, path, flags)
        }
        result => result,
    }
}

/// [`open`] without openat2(2): every component is opened by itself, and is no link.
pub(crate) fn open_by_component(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut dir = None::<OwnedFd>;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(Errno::XDEV);
        };
        // Without O_PATH: that would open a link itself.
        let flags = if components.peek().is_some() {
            DIRECTORY
        } else {
            flags | OFlags::NOFOLLOW
        };
        let at = dir.as_ref().map_or(root, OwnedFd::as_fd);
        dir = Some(calls::openat(at, name, flags, Mode::empty())?);
    }
    dir.ok_or(Errno::XDEV)
}

/// Makes the directory `path` below `root`; its parent must exist.
pub(crate) fn make_dir(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = open_dir(root, parent)?;
    calls::mkdir(&parent, name, Mode::from_raw_mode(0o777))
}

/// Creates the file `path` below `root`, which must not exist.
pub(crate) fn create_file(
    root: BorrowedFd<'_>,
    path: &EntryPath,
    executable: bool,
) -> rustix::io::Result<File> {
    let (parent, name) = path
        .as_str()
        .rsplit_once('/')
        .unwrap_or(("", path.as_str()));
    let parent = open_dir(root, parent)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
    Ok(File::from(calls::openat(&parent, name, flags, mode)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use super::*;
    use crate::files::faults::{Fault, Op, Plan, Reach};

    #[test]
    fn k13_what_the_kernel_could_not_decide_in_one_call_is_asked_name_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "bytes").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let open = |path: &str| open(root.as_fd(), Path::new(path), OFlags::RDONLY);
        for errno in [Errno::NOSYS, Errno::PERM, Errno::AGAIN, Errno::XDEV] {
            let fails = || Plan::new(Fault::Fails(errno), Reach::Once, 0, &[]);
            let plan = fails();
            let file = plan.run(|| open("a/b/file")).unwrap();
            assert_eq!(plan.hit(), Some(Op::OpenBelow));
            let mut bytes = String::new();
            File::from(file).read_to_string(&mut bytes).unwrap();
            assert_eq!(bytes, "bytes");
            let through = fails().run(|| open("link/b/file")).unwrap_err();
            assert!(matches!(through, Errno::LOOP | Errno::NOTDIR), "{through}");
            assert_eq!(fails().run(|| open("../x")).unwrap_err(), Errno::XDEV);
        }
    }
}
