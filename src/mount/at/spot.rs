//! Mount points, held and not named.
//!
//! A path means another directory as soon as somebody who owns a part of it wants that. So a path is
//! resolved once, to a [`Spot`]: a name in a directory that is held open. What is there now is
//! [`Held`], and whatever is asked of it or done to it goes through its descriptor.
//!
//! The kernel renames and removes no directory that something is mounted on. So as long as a mount
//! is there, its spot leads to it, whoever owns the directories around it.
//!
//! None of this asks anything of the file system that is mounted there: it may be dead, hang, or
//! not let us in. Nor does any of it follow a link that has taken the place of the name.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// A directory is held without a permission to read it, and without asking it.
const HOLD: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Most mounts that are taken off a mount that is to go.
const MAX_STACKED: usize = 64;

/// A name in a directory that is held.
#[derive(Debug)]
pub struct Spot {
    parent: OwnedFd,
    name: OsString,
}

/// What is at a spot, or was when it was opened.
#[derive(Debug)]
pub(in crate::mount) struct Held(OwnedFd);

/// What a look-up reaches: the number of the mount, unique while it exists, and the device of its
/// file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mount) struct Found {
    pub(in crate::mount) mount: u32,
    /// `major:minor`, as in the mount table.
    pub(in crate::mount) device: String,
}

/// What came of trying to detach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// It is unmounted.
    Done,
    /// Something uses it: an open file, a working directory.
    Busy,
    /// Something else is mounted there now, or nothing: it was unmounted already.
    NotOurs,
}

impl Spot {
    /// Resolves a path. `Ok(None)` for the root directory, which is no name in another.
    pub(in crate::mount) fn of(path: &Path) -> std::io::Result<Option<Spot>> {
        let absolute = std::path::absolute(path)?;
        if let Some((parent, name)) = split(&absolute) {
            let spot = Spot::in_directory(parent, name)?;
            // Unlike stat(2) this asks nothing of a directory.
            match rustix::fs::readlinkat(&spot.parent, &spot.name, Vec::new()) {
                Ok(_) => {}
                Err(Errno::NOENT) => return Err(Errno::NOENT.into()),
                Err(_) => return Ok(Some(spot)),
            }
        }
        // A link, or `..` at the end. What it leads to now is what is meant from here on.
        let canonical = absolute.canonicalize()?;
        split(&canonical)
            .map(|(parent, name)| Spot::in_directory(parent, name))
            .transpose()
    }

    /// The name in an inherited directory.
    pub(in crate::mount) fn inherited(parent: OwnedFd, path: &Path) -> Option<Spot> {
        let (_, name) = split(path)?;
        Some(Spot { parent, name })
    }

    fn in_directory(parent: &Path, name: OsString) -> std::io::Result<Spot> {
        let parent = rustix::fs::open(parent, HOLD | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Spot { parent, name })
    }

    /// The directory that holds the name.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Where it is now: to be shown, and for programs that take nothing but a path.
    pub fn path(&self) -> std::io::Result<PathBuf> {
        Ok(path_of(self.parent.as_fd())?.join(&self.name))
    }

    /// A path that leads through the held directory, whatever its name is by now.
    fn through(&self) -> PathBuf {
        proc_path(self.parent.as_fd()).join(&self.name)
    }

    /// Holds what is there: of several mounts on it, the topmost. A link is held itself.
    pub(in crate::mount) fn open(&self) -> rustix::io::Result<Held> {
        rustix::fs::openat(
            &self.parent,
            &self.name,
            HOLD | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map(Held)
    }

    /// What [`open`](Spot::open) would hold, without a descriptor. `None` on a kernel that does
    /// not tell.
    pub(in crate::mount) fn found(&self) -> rustix::io::Result<Option<Found>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        rustix::fs::statx(&self.parent, &self.name, flags, StatxFlags::empty()).map(|s| found(&s))
    }

    /// Unmounts what is topmost there, if nobody uses it; `lazily` also when it is in use.
    /// Who may hold it uses [`Held::unmount_lazily`], which can hit nothing else.
    pub(in crate::mount) fn unmount(&self, lazily: bool) -> rustix::io::Result<()> {
        let mut flags = UnmountFlags::NOFOLLOW;
        if lazily {
            flags |= UnmountFlags::DETACH;
        }
        rustix::mount::unmount(self.through(), flags)
    }
}

impl Held {
    /// Where it is now.
    pub(in crate::mount) fn path(&self) -> std::io::Result<PathBuf> {
        path_of(self.0.as_fd())
    }

    /// A path to exactly this, as long as it is held.
    pub(in crate::mount) fn through(&self) -> PathBuf {
        proc_path(self.0.as_fd())
    }

    /// Its mount and device.
    pub(in crate::mount) fn found(&self) -> std::io::Result<Found> {
        found_by(self.0.as_fd())
    }

    /// True for a mount whose process is gone: it answers nothing any more.
    pub(in crate::mount) fn is_dead(&self) -> bool {
        matches!(
            rustix::fs::fstatfs(&self.0),
            Err(Errno::NOTCONN | Errno::CONNABORTED)
        )
    }

    /// Unmounts the mount whose root this is, also when it is in use. When somebody else has
    /// unmounted it meanwhile it is refused with EINVAL, and what was below it stays. (Only what
    /// is mounted over the held root in this very moment would go in its place: root's own doing.)
    pub(in crate::mount) fn unmount_lazily(&self) -> rustix::io::Result<()> {
        unmount_lazily(self.0.as_fd())
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The same for any descriptor of a mount's root.
pub(in crate::mount) fn unmount_lazily(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    // A descriptor can be named only by a link; it is the kernel's, and no user can exchange it.
    let path = proc_path(root);
    let mut outcome = rustix::mount::unmount(&path, UnmountFlags::DETACH);
    // What stood on it for a moment, another process's attempt to mount there, went in its place.
    for _ in 0..MAX_STACKED {
        if outcome.is_err() {
            break;
        }
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            Err(Errno::INVAL) => break, // now it is mounted no more
            again => outcome = again,
        }
    }
    outcome
}

/// Mount and device of what is held.
pub(in crate::mount) fn found_by(fd: BorrowedFd<'_>) -> std::io::Result<Found> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    // Nothing is asked for: mount and device are told in any case, also of a mount that does not
    // let us in.
    let stat = rustix::fs::statx(fd, c"", flags, StatxFlags::empty())?;
    if let Some(found) = found(&stat) {
        return Ok(found);
    }
    // Before Linux 5.8.
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let mount = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| std::io::Error::other("the system does not tell which mount it is"))?;
    Ok(Found {
        mount,
        device: device(&stat),
    })
}

fn found(stat: &Statx) -> Option<Found> {
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return None;
    }
    Some(Found {
        mount: u32::try_from(stat.stx_mnt_id).ok()?,
        device: device(stat),
    })
}

fn device(stat: &Statx) -> String {
    format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor)
}

fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn path_of(fd: BorrowedFd<'_>) -> std::io::Result<PathBuf> {
    let path = rustix::fs::readlinkat(CWD, proc_path(fd), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

/// The directory and the name in it, for a path that ends in a name.
fn split(path: &Path) -> Option<(&Path, OsString)> {
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Some((parent, name.to_os_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn m7_a_spot_stays_in_the_directory_that_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("a/mnt")).unwrap();
        fs::create_dir_all(real.join("b/mnt")).unwrap();
        let spot = Spot::of(&real.join("a/mnt")).unwrap().unwrap();
        let held = spot.open().unwrap();

        // The parent becomes another directory, or a link to one.
        fs::rename(real.join("a"), real.join("old")).unwrap();
        symlink("b", real.join("a")).unwrap();
        assert_eq!(spot.path().unwrap(), real.join("old/mnt"));
        assert_eq!(held.path().unwrap(), real.join("old/mnt"));
        let again = spot.open().unwrap();
        let same = |held: &Held| rustix::fs::fstat(held).unwrap().st_ino;
        assert_eq!(same(&again), same(&held));

        // The name itself becomes a link: that is what is found, and nothing behind it.
        fs::rename(real.join("old/mnt"), real.join("old/mnt2")).unwrap();
        symlink("../b/mnt", real.join("old/mnt")).unwrap();
        let link = spot.open().unwrap();
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&link).unwrap().st_mode);
        assert_eq!(kind, rustix::fs::FileType::Symlink);
        assert_eq!(held.path().unwrap(), real.join("old/mnt2"));
    }

    #[test]
    fn every_way_to_write_a_path_leads_to_its_spot() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("full/x")).unwrap();
        symlink("full/x", real.join("link")).unwrap();
        for path in [
            "full/x",
            "link",
            "full/../link/.",
            "full/x/y/..",
            "full//x/",
        ] {
            if path.contains('y') {
                fs::create_dir(real.join("full/x/y")).unwrap();
            }
            let spot = Spot::of(&dir.path().join(path)).unwrap().unwrap();
            assert_eq!(spot.path().unwrap(), real.join("full/x"), "{path}");
        }
        assert!(Spot::of(Path::new("/")).unwrap().is_none());
        assert!(Spot::of(&real.join("missing")).is_err());
        assert!(Spot::of(&real.join("missing/deep")).is_err());
    }

    #[test]
    fn mounts_and_devices_are_spelt_as_in_the_mount_table() {
        let mounts = super::super::mountinfo::read().unwrap();
        let proc = super::super::mountinfo::topmost(&mounts, Path::new("/proc")).unwrap();
        let spot = Spot::of(Path::new("/proc")).unwrap().unwrap();
        let expected = Found {
            mount: proc.id,
            device: proc.device.clone(),
        };
        assert_eq!(spot.open().unwrap().found().unwrap(), expected);
        if let Some(found) = spot.found().unwrap() {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_mount_is_not_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let spot = Spot::of(dir.path()).unwrap().unwrap();
        let refused = [Err(Errno::INVAL), Err(Errno::PERM)];
        assert!(refused.contains(&spot.open().unwrap().unmount_lazily()));
        assert!(refused.contains(&spot.unmount(true)));
    }
}
