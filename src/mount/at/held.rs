//! Directories and mounts, held and not named.
//!
//! A path means another directory as soon as somebody who owns a part of it wants that. So a path is
//! resolved once, by the kernel, and what it leads to is [`Held`]: whatever is asked of it or done to
//! it goes through its descriptor. What it is called is read from the descriptor afterwards, to be
//! shown.
//!
//! A mount that is held is in use, and others could not unmount it. So whoever makes a mount holds the
//! directory *below* it, and finds the mount on that ([`Held::top`]) when it is to go: by no name.
//! The directory may be renamed meanwhile, which the kernel refuses only to those in whose mount
//! namespace something is mounted on it.
//!
//! None of this asks anything of the file system that is mounted there: it may be dead, hang, or
//! not let us in.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::mountinfo;
use crate::files::beneath;

/// It is held without a permission to read it, and without asking it.
const HOLD: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Most mounts that are taken off a mount that is to go.
const MAX_STACKED: usize = 64;
/// How often a mount is looked for by its name, where others rename it.
const LOOKS: u32 = 10;

/// A directory, or the root of a mount; a file, where somebody takes one for a mount point.
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
    /// Something else is mounted over it, below which it cannot be reached: it stays.
    Covered,
}

impl Held {
    /// Holds what a path leads to: of several mounts there, the topmost. `/dev/fd/7` is what that
    /// descriptor is open on, and `.` the working directory, whatever their paths lead to by now.
    pub(in crate::mount) fn open(path: &Path) -> std::io::Result<Held> {
        // A slash or a dot at the end would be a question to what is mounted there.
        let path: PathBuf = path.components().collect();
        let held = rustix::fs::open(&path, HOLD, Mode::empty())?;
        Ok(Held(held))
    }

    /// Holds what a descriptor is open on, anew: what belongs to an open file, such as a lock, stays
    /// with the one that is given.
    pub(in crate::mount) fn reopen(fd: BorrowedFd<'_>) -> std::io::Result<Held> {
        let held = rustix::fs::open(proc_path(fd), HOLD, Mode::empty())?;
        Ok(Held(held))
    }

    /// Holds what is mounted on this directory, the topmost of several; where nothing is, itself.
    pub(in crate::mount) fn top(&self) -> rustix::io::Result<Held> {
        match beneath::top_of(self.0.as_fd()) {
            // Nothing can be mounted on it by us.
            Err(Errno::NOTDIR) => Ok(Held(rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?)),
            top => top.map(Held),
        }
    }

    /// What [`top`](Held::top) would hold, without a descriptor: as long as it has the same name.
    /// `None` on a kernel that does not tell.
    pub(in crate::mount) fn found_on_top(&self) -> rustix::io::Result<Option<Found>> {
        let name = Path::new("..").join(beneath::name_of(self.0.as_fd())?);
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        rustix::fs::statx(&self.0, name, flags, StatxFlags::empty()).map(|stat| found(&stat))
    }

    /// Unmounts what [`top`](Held::top) would hold; `lazily` also when it is in use. Who may hold it
    /// uses [`unmount_lazily`](Held::unmount_lazily), which can hit nothing else.
    pub(in crate::mount) fn unmount_top(&self, lazily: bool) -> rustix::io::Result<()> {
        rustix::mount::unmount(self.through(), flags(lazily))
    }

    /// Where it is now.
    pub(in crate::mount) fn path(&self) -> std::io::Result<PathBuf> {
        let path = rustix::fs::readlinkat(CWD, self.through(), Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
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
    /// unmounted it meanwhile it is refused with EINVAL, and what was below it stays. (What is mounted
    /// over the held root in this very moment goes with it: root's own doing.)
    pub(in crate::mount) fn unmount_lazily(&self) -> rustix::io::Result<()> {
        unmount_lazily(self.0.as_fd())
    }

    /// Unmounts the mount whose root this is, if nobody uses it. It would be in use as long as it is
    /// held, so it is let go, and named: by a name that leads to it, in a directory that is held.
    /// (Who renames it in this very moment, from a mount namespace of his own, may put another one in
    /// its place.)
    pub(in crate::mount) fn unmount(self) -> rustix::io::Result<()> {
        let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let ours = self.found().map_err(io)?;
        for _ in 0..LOOKS {
            let path = self.path().map_err(io)?;
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Errno::INVAL);
            };
            let Ok(parent) = rustix::fs::open(parent, HOLD | OFlags::DIRECTORY, Mode::empty())
            else {
                continue;
            };
            let there = rustix::fs::openat(&parent, name, HOLD | OFlags::NOFOLLOW, Mode::empty());
            if !there.is_ok_and(|there| found_by(there.as_fd()).is_ok_and(|found| found == ours)) {
                continue;
            }
            let through = proc_path(parent.as_fd()).join(name);
            drop(self);
            return rustix::mount::unmount(through, flags(false) | UnmountFlags::NOFOLLOW);
        }
        // It is mounted no more, or renamed all the time.
        Err(Errno::INVAL)
    }

    /// Another descriptor of the same.
    pub(in crate::mount) fn try_clone(&self) -> std::io::Result<Held> {
        self.0.try_clone().map(Held)
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn flags(lazily: bool) -> UnmountFlags {
    match lazily {
        true => UnmountFlags::DETACH,
        false => UnmountFlags::empty(),
    }
}

/// The same for any descriptor of a mount's root.
pub(in crate::mount) fn unmount_lazily(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    // A descriptor can be named only by a link; it is the kernel's, and no user can exchange it. What
    // stands on the mount for a moment, another process's attempt to mount there, is hit in its place,
    // or was found in its place and is gone by then.
    let path = proc_path(root);
    let mut outcome = Err(Errno::INVAL);
    for _ in 0..MAX_STACKED {
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            Ok(()) => outcome = Ok(()),
            Err(Errno::INVAL) if is_mounted(root) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    outcome
}

/// False when it is known that the mount has been detached. As long as it is held its number is its
/// own.
fn is_mounted(root: BorrowedFd<'_>) -> bool {
    let (Ok(found), Ok(mounts)) = (found_by(root), mountinfo::read()) else {
        return true;
    };
    mountinfo::by_id(&mounts, found.mount).is_some()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn inode(held: &Held) -> u64 {
        rustix::fs::fstat(held).unwrap().st_ino
    }

    #[test]
    fn m7_what_is_held_stays_the_same_whatever_its_path_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("a/mnt")).unwrap();
        fs::create_dir_all(real.join("b/mnt")).unwrap();
        let held = Held::open(&real.join("a/mnt")).unwrap();
        let first = inode(&held);

        // A parent becomes a link to another directory, then the name itself does.
        fs::rename(real.join("a"), real.join("old")).unwrap();
        symlink("b", real.join("a")).unwrap();
        assert_eq!(held.path().unwrap(), real.join("old/mnt"));
        assert_eq!(inode(&held.top().unwrap()), first);
        fs::rename(real.join("old/mnt"), real.join("old/mnt2")).unwrap();
        symlink("../b/mnt", real.join("old/mnt")).unwrap();
        assert_eq!(held.path().unwrap(), real.join("old/mnt2"));
        let same = held.top().unwrap();
        assert_eq!(
            (inode(&same), same.found().unwrap()),
            (first, held.found().unwrap())
        );
        if let Some(found) = held.found_on_top().unwrap() {
            assert_eq!(found, held.found().unwrap());
        }
    }

    #[test]
    fn every_way_to_write_a_path_leads_to_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("full/x/y")).unwrap();
        symlink("full/x", real.join("link")).unwrap();
        for path in [
            "full/x",
            "link",
            "link/",
            "full/../link/.",
            "full/x/y/..",
            "full//x/",
        ] {
            let held = Held::open(&dir.path().join(path)).unwrap();
            assert_eq!(held.path().unwrap(), real.join("full/x"), "{path}");
        }
        let descriptor = fs::File::open(real.join("full/x")).unwrap();
        let held = Held::open(&proc_path(descriptor.as_fd())).unwrap();
        assert_eq!(held.path().unwrap(), real.join("full/x"));
        assert_eq!(
            Held::open(Path::new(".")).unwrap().path().unwrap(),
            std::env::current_dir().unwrap()
        );
        assert!(Held::open(&real.join("missing")).is_err());
        assert!(Held::open(&real.join("missing/deep")).is_err());
    }

    #[test]
    fn mounts_and_devices_are_spelt_as_in_the_mount_table() {
        let mounts = mountinfo::read().unwrap();
        let proc = mountinfo::topmost(&mounts, Path::new("/proc")).unwrap();
        let expected = Found {
            mount: proc.id,
            device: proc.device.clone(),
        };
        let held = Held::open(Path::new("/proc")).unwrap();
        assert_eq!(held.found().unwrap(), expected);
        assert_eq!(held.top().unwrap().found().unwrap(), expected);
        if let Some(found) = held.found_on_top().unwrap() {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_mount_is_not_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let held = || Held::open(dir.path()).unwrap();
        let refused = [Err(Errno::INVAL), Err(Errno::PERM)];
        assert!(refused.contains(&held().unmount_lazily()));
        assert!(refused.contains(&held().unmount_top(true)));
        assert!(refused.contains(&held().unmount()));
    }
}
