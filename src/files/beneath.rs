//! Operations below a directory handle that follow no link and never leave the directory.
//!
//! Directories are opened with openat2(2), `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; kernels and
//! sandboxes without it (`ENOSYS`) get one openat(2) with `O_NOFOLLOW` per component. The last
//! step of everything else takes a single name in an open directory.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::calls;
use crate::entry_path::EntryPath;

/// Flags that open a directory, never by way of a link.
pub(crate) const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How often it is tried to find what is on a directory while others rename and mount, anywhere.
const TRIES: u32 = 1000;

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

/// [`open`] that stays in the file system of `root`, too.
///
/// # Errors
/// Those of [`open`]; `XDEV` also where something is mounted on the way.
pub(crate) fn open_in_mount(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    match calls::openat2(root, path, flags, resolve) {
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            let found = open_by_component(root, path, flags)?;
            match calls::fstat(&found)?.st_dev == calls::fstat(root)?.st_dev {
                true => Ok(found),
                false => Err(Errno::XDEV),
            }
        }
        result => result,
    }
}

/// Holds what is on top of a directory: the root of what was mounted on it last, or the directory
/// itself where nothing is. It is found by no name, so renames do not matter: the kernel is told that
/// the directory is the root, above which there is only the root again, with what is mounted on it.
pub(crate) fn top_of(dir: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    for _ in 0..TRIES {
        match calls::openat2(dir, Path::new(".."), flags, ResolveFlags::IN_ROOT) {
            // Something was renamed or mounted in this very moment.
            Err(Errno::AGAIN) => std::thread::yield_now(),
            // No such call, or a sandbox that denies it; or a directory that may not be searched.
            Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => break,
            result => return result,
        }
    }
    let parent = calls::openat(dir, "..", flags, Mode::empty())?;
    let name = name_of(dir)?;
    calls::openat(&parent, &*name, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// What a directory that is held is called now, in the one above it.
pub(crate) fn name_of(dir: BorrowedFd<'_>) -> rustix::io::Result<PathBuf> {
    let path = calls::path_of(dir)?;
    path.file_name().map(PathBuf::from).ok_or(Errno::NOENT)
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

    #[test]
    fn m7_what_is_on_a_directory_is_found_also_where_the_kernel_could_not_say_in_one_call() {
        let dir = tempfile::tempdir().unwrap();
        let (mnt, was) = (dir.path().join("mnt"), dir.path().join("was"));
        fs::create_dir(&mnt).unwrap();
        let held = calls::open(&mnt, OFlags::PATH | OFlags::DIRECTORY).unwrap();
        fs::rename(&mnt, &was).unwrap();
        std::os::unix::fs::symlink("/", &mnt).unwrap();
        let inode = |fd: &OwnedFd| calls::fstat(fd).unwrap().st_ino;
        assert_eq!(name_of(held.as_fd()).unwrap(), Path::new("was"));
        assert_eq!(inode(&top_of(held.as_fd()).unwrap()), inode(&held));
        for errno in [Errno::NOSYS, Errno::PERM, Errno::AGAIN, Errno::ACCESS] {
            let plan = Plan::new(Fault::Fails(errno), Reach::Once, 0, &[]);
            let top = plan.run(|| top_of(held.as_fd())).unwrap();
            assert_eq!(plan.hit(), Some(Op::OpenBelow));
            assert_eq!(inode(&top), inode(&held), "{errno}");
        }
        fs::remove_dir(&was).unwrap();
        let plan = Plan::new(Fault::Fails(Errno::NOSYS), Reach::Once, 0, &[]);
        let gone = plan.run(|| top_of(held.as_fd()));
        assert_eq!(gone.err(), Some(Errno::NOENT));
    }

    #[test]
    fn e18_no_path_leads_out_of_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/sub")).unwrap();
        fs::write(dir.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink("../secret", dir.path().join("root/link")).unwrap();
        let root = File::open(dir.path().join("root")).unwrap();
        for plan in [None, Some(Errno::NOSYS), Some(Errno::AGAIN)] {
            let open = |path: &str| {
                let open = || open_in_mount(root.as_fd(), Path::new(path), OFlags::RDONLY);
                match plan {
                    None => open(),
                    Some(errno) => Plan::new(Fault::Fails(errno), Reach::Once, 0, &[]).run(open),
                }
            };
            assert!(open("sub").is_ok());
            for path in ["link", "../secret", "sub/../../secret", "/etc/passwd"] {
                assert!(open(path).is_err(), "{path}");
            }
        }
        // Another file system on the way.
        let slash = File::open("/").unwrap();
        let proc = |errno: Option<Errno>| {
            let open = || open_in_mount(slash.as_fd(), Path::new("proc/sys"), OFlags::PATH);
            match errno {
                None => open(),
                Some(errno) => Plan::new(Fault::Fails(errno), Reach::Once, 0, &[]).run(open),
            }
        };
        for errno in [None, Some(Errno::NOSYS)] {
            assert_eq!(proc(errno).err(), Some(Errno::XDEV));
        }
    }
}
