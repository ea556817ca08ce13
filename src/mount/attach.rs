//! Attaching a FUSE connection to a directory, and detaching it.
//!
//! Root mounts by system calls; anyone else goes through fuse3's setuid `fusermount3`. Both are done
//! here and not by fuser 0.18.0, because there the source is not escaped (a comma in the archive's
//! path injects mount options), the check whether something is still mounted is inverted (tearing
//! down after someone else's unmount may unmount something else), a busy mount cannot be unmounted as
//! root, and auto-unmount may leave a dangling mount.
//!
//! - It is mounted on the directory that was checked, and is found again by its number: no path is
//!   resolved for it (see [`Spot`]).
//! - Since Linux 5.2 root's mount is made without a place, served, and given its place as the last
//!   step ([`Mountable::attach`]): nobody meets a mount that does not answer, and a server that dies
//!   before leaves none.
//! - Of two that mount on one directory at once, the one that stands on the directory itself wins.
//!   The other stands on the first one's root, sees that, and goes.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::adapter::MAX_REQUEST_BYTES;
use super::mountinfo::{self, Mount};
use super::options::MountOptions;
use super::place::{self, Place};
use super::spot::{self, Found, Held, Spot};
use super::{FS_TYPE, SUBTYPE, helper};
use crate::entry_path::{printable, printable_path};
use crate::error::{Error, Result};

pub(super) const DEVICE: &str = "/dev/fuse";
/// Longest source shown in the mount table, in bytes; mount(2) takes less than a page.
const MAX_SOURCE_BYTES: usize = 2000;
/// How long another process of ours is waited for that mounts on the same directory.
const OTHERS: Duration = Duration::from_secs(2);
const OTHERS_PAUSE: Duration = Duration::from_millis(5);
/// How often a place is looked at where others mount and unmount meanwhile.
const LOOKS: u32 = 10;

/// What came of trying to detach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detached {
    /// It is unmounted.
    Done,
    /// Something uses it: an open file, a working directory.
    Busy,
    /// Something else is mounted there now, or nothing: it was unmounted already.
    NotOurs,
}

/// A connection that can be served, and the mount that it feeds, which may not have its place yet.
#[derive(Debug)]
pub(super) enum Mountable {
    /// Nowhere yet. It ends when this is dropped.
    Floating(OwnedFd, Place),
    /// In its place already: by `fusermount3`, or by a kernel without the newer calls.
    Placed(Attached),
}

/// A mount of ours in its place. Dropping it detaches it.
#[derive(Debug)]
pub(super) struct Attached {
    place: Place,
    /// What a look-up finds as long as it is there.
    found: Found,
    /// Tells whether the connection, and with it the device number, is still ours. `None` once
    /// whoever has served it is gone.
    connection: Option<OwnedFd>,
    detached: bool,
}

/// Makes a mount for a place; returns the connection to serve.
pub(super) fn connect(place: Place, options: &MountOptions) -> Result<(OwnedFd, Mountable)> {
    let source = source(&options.archive);
    if !rustix::process::geteuid().is_root() {
        return by_path(place, &source, |place| {
            let path = place.dir.path();
            let path = path.map_err(Error::io("use the mount point", &place.path))?;
            helper::mount(&path, &source, options)
        });
    }
    match float(&source, options)? {
        Some((connection, mount)) => Ok((connection, Mountable::Floating(mount, place))),
        None => by_path(place, &source, |place| mount_on(place, &source, options)),
    }
}

impl Mountable {
    /// `major:minor` of the mount's device.
    pub(super) fn device(&self) -> Result<String> {
        match self {
            Mountable::Floating(mount, place) => spot::found_by(mount.as_fd())
                .map(|found| found.device)
                .map_err(Error::io("use the mount on", &place.path)),
            Mountable::Placed(attached) => Ok(attached.found.device.clone()),
        }
    }

    /// Gives it its place. `connection` is a duplicate of the one that is served.
    pub(super) fn attach(self, connection: OwnedFd) -> Result<Attached> {
        match self {
            Mountable::Placed(attached) => Ok(attached),
            Mountable::Floating(mount, place) => settle(mount, place, connection),
        }
    }
}

/// Moves a floating mount onto the directory that was checked, and makes sure that it came to stand
/// there and is found there. It is held until that is known, so that it can be taken away again
/// whatever has happened around it.
fn settle(mount: OwnedFd, place: Place, connection: OwnedFd) -> Result<Attached> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, c"", &place.dir, c"", flags).map_err(|e| cannot_mount(e, &place.path))?;
    match settled(&mount, &place) {
        Ok(found) => Ok(Attached {
            place,
            found,
            connection: Some(connection),
            detached: false,
        }),
        Err(error) => {
            if let Err(errno) = spot::unmount_lazily(mount.as_fd()) {
                log::error!("{}: cannot unmount: {errno}", printable_path(&place.path));
            }
            Err(error)
        }
    }
}

fn settled(mount: &OwnedFd, place: &Place) -> Result<Found> {
    let fail = |error| Error::io("use the mount on", &place.path)(error);
    let found = spot::found_by(mount.as_fd()).map_err(fail)?;
    let mounts = mountinfo::read()?;
    let parent = mountinfo::by_id(&mounts, found.mount).map(|mount| mount.parent);
    if parent != Some(place.found.mount) {
        // It stands on another's; or is gone with one that it stood on for a moment.
        let path = place.dir.path().map_err(fail)?;
        let first = parent.and_then(|id| mountinfo::by_id(&mounts, id));
        return Err(
            match first.or_else(|| mountinfo::first_on(&mounts, place.found.mount, &path)) {
                Some(first) => place::in_use(&place.path, first),
                None => not_in_the_table(&place.path),
            },
        );
    }
    if !leads_to(place, found.mount)? {
        return Err(moved_away(&place.path));
    }
    Ok(found)
}

/// m7: nobody who opens the path would see the model.
fn moved_away(path: &Path) -> Error {
    Error::environment(
        place::mount_point(path),
        "was moved, replaced or mounted over while the model was being mounted",
    )
}

fn not_in_the_table(path: &Path) -> Error {
    Error::environment(
        printable_path(path),
        "was mounted, but does not show in the mount table",
    )
}

/// Mounts by a call that resolves the path again, and may find another directory, or one on which
/// something is mounted by now. So processes of ours go one after the other, and what was mounted is
/// looked for where it should be.
fn by_path(
    place: Place,
    source: &str,
    mount: impl FnOnce(&Place) -> Result<OwnedFd>,
) -> Result<(OwnedFd, Mountable)> {
    let fail = |error| Error::io("use the mount point", &place.path)(error);
    let _turn = wait_for_others(&place.dir);
    let before = mountinfo::read()?;
    let there = place.spot.open().map_err(|e| fail(e.into()))?;
    let found = there.found().map_err(fail)?;
    if let Some(first) = mountinfo::by_id(&before, found.mount).filter(|_| found != place.found) {
        return Err(place::in_use(&place.path, first));
    }
    drop(there);
    let fd = mount(&place)?;
    // It is mounted: whatever fails below, it is taken away again.
    let connection = fd.try_clone();
    let connection = connection.map_err(Error::io("use", "the FUSE connection"));
    let placed = connection.and_then(|connection| Ok((placed(&before, &place)?, connection)));
    match placed {
        Ok((found, connection)) => {
            let attached = Attached {
                place,
                found,
                connection: Some(connection),
                detached: false,
            };
            Ok((fd, Mountable::Placed(attached)))
        }
        Err(error) => {
            drop(fd);
            remove_dead(&before, source);
            Err(error)
        }
    }
}

/// The new mount on the directory that was checked, if a look-up can still reach the directory.
fn placed(before: &[Mount], place: &Place) -> Result<Found> {
    let fail = |error| Error::io("use the mount on", &place.path)(error);
    let path = place.dir.path().map_err(fail)?;
    let mounts = mountinfo::read()?;
    let first = mountinfo::first_on(&mounts, place.found.mount, &path)
        // Numbers alone may be those of another mount, which was there before and is gone.
        .filter(|first| first.fs_type == FS_TYPE && !before.contains(first))
        .ok_or_else(|| moved_away(&place.path))?;
    let found = Found {
        mount: first.id,
        device: first.device.clone(),
    };
    match leads_to(place, found.mount)? {
        true => Ok(found),
        false => Err(moved_away(&place.path)),
    }
}

/// True when the spot leads to this mount, or to one that was mounted over it since.
fn leads_to(place: &Place, ours: u32) -> Result<bool> {
    let fail = |error| Error::io("use the mount on", &place.path)(error);
    for _ in 0..LOOKS {
        let top = place.spot.open().map_err(|e| fail(e.into()))?;
        let mut id = top.found().map_err(fail)?.mount;
        drop(top);
        let mounts = mountinfo::read()?;
        // Down from mount to mount. One that is gone by now was mounted over ours for a moment.
        for _ in 0..=mounts.len() {
            if id == ours {
                return Ok(true);
            }
            match mountinfo::by_id(&mounts, id) {
                Some(mount) => id = mount.parent,
                None => break,
            }
        }
    }
    Ok(false)
}

fn is_old(before: &[Mount], mount: &Mount) -> bool {
    before
        .iter()
        .any(|old| old.id == mount.id && old.device == mount.device)
}

/// One after the other, as far as that can be had: whoever else has locked the directory may have
/// his reasons, and the mount that was made is looked at in any case.
fn wait_for_others(dir: &Held) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(dir, c".", flags, Mode::empty()).ok()?;
    let deadline = Instant::now() + OTHERS;
    while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(OTHERS_PAUSE);
    }
    Some(lock)
}

/// Our connection has ended, and what it was mounted on is dead, wherever that is.
fn remove_dead(before: &[Mount], source: &str) {
    let mounts = match mountinfo::read() {
        Ok(mounts) => mounts,
        Err(error) => return log::error!("{error}"),
    };
    let new = mounts.iter().filter(|mount| {
        mount.fs_type == FS_TYPE && mount.source.as_encoded_bytes() == source.as_bytes()
    });
    for mount in new.filter(|mount| !is_old(before, mount)) {
        let Ok(Some(spot)) = Spot::of(&mount.mount_point) else {
            continue;
        };
        if let Ok(held) = spot.open()
            && held.found().is_ok_and(|found| found.mount == mount.id)
            && held.is_dead()
            && let Err(error) = unmount(&spot, held, true)
        {
            log::error!("{error}");
        }
    }
}

impl Attached {
    /// The mount's device, as `stat` gives it.
    pub(super) fn device_number(&self) -> Result<u64> {
        let numbers = self.found.device.split_once(':');
        numbers
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .map(|(major, minor)| rustix::fs::makedev(major, minor))
            .ok_or_else(|| Error::environment(printable_path(&self.place.path), "has no device"))
    }

    /// Takes it out of sight. It goes for good when its last user does.
    pub(super) fn detach(&mut self) -> Result<Detached> {
        if self.detached {
            return Ok(Detached::NotOurs);
        }
        let spot = &self.place.spot;
        let outcome = match spot.open() {
            Ok(held) if self.is_this(&held) => unmount(spot, held, true)?,
            Ok(_) | Err(Errno::NOENT) => {
                self.warn_if_covered();
                Detached::NotOurs
            }
            // Without a descriptor it cannot be held, but still be compared.
            Err(Errno::MFILE | Errno::NFILE)
                if self.connected() && spot.found() == Ok(Some(self.found.clone())) =>
            {
                match spot.unmount(true) {
                    Ok(()) => Detached::Done,
                    Err(error) => return Err(Error::io("unmount", &self.place.path)(error.into())),
                }
            }
            Err(error) => return Err(Error::io("unmount", &self.place.path)(error.into())),
        };
        self.detached = outcome != Detached::Busy;
        Ok(outcome)
    }

    /// True when what is held is our mount. Once the connection has ended the kernel gives the
    /// numbers of mount and device to the next mount, which may be on the same directory already.
    /// Ours is then the one that answers nothing.
    fn is_this(&self, held: &Held) -> bool {
        held.found().is_ok_and(|found| found == self.found) && (self.connected() || held.is_dead())
    }

    /// A mount below another one cannot be reached.
    fn warn_if_covered(&self) {
        let mounts = mountinfo::read().unwrap_or_default();
        let ours = mountinfo::by_id(&mounts, self.found.mount);
        if self.connected() && ours.is_some_and(|ours| ours.device == self.found.device) {
            log::warn!(
                "{}: something else is mounted over the model; unmount that, then this",
                printable_path(&self.place.path)
            );
        }
    }

    /// Ends the connection, which nobody serves any more: readers get an error, and wait no longer.
    pub(super) fn abandon(&mut self) {
        self.connection = None;
    }

    /// False once the connection has ended.
    fn connected(&self) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        let mut fds = [PollFd::new(connection, PollFlags::empty())];
        let polled = rustix::event::poll(&mut fds, Some(&Timespec::default()));
        polled.is_ok() && !fds[0].revents().contains(PollFlags::ERR)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            log::error!("{error}");
        }
    }
}

/// Unmounts a model. `held` is its root, at `spot`.
pub(super) fn unmount(spot: &Spot, held: Held, lazily: bool) -> Result<Detached> {
    let path = held.path().map_err(Error::io("unmount", "a model"))?;
    if rustix::process::geteuid().is_root() {
        let done = if lazily {
            held.unmount_lazily()
        } else {
            // Held, it would be busy. The spot leads to it as long as it is mounted.
            drop(held);
            spot.unmount(false)
        };
        return match done {
            Ok(()) => Ok(Detached::Done),
            Err(Errno::BUSY) => Ok(Detached::Busy),
            Err(Errno::INVAL | Errno::NOENT) => Ok(Detached::NotOurs),
            Err(error) => Err(Error::io("unmount", &path)(error.into())),
        };
    }
    let found = held.found().map_err(Error::io("unmount", &path))?;
    drop(held);
    let outcome = helper::unmount(&path, lazily)?;
    if outcome == Detached::NotOurs && mountinfo::by_id(&mountinfo::read()?, found.mount).is_some()
    {
        return Err(Error::environment(
            format!("cannot unmount {}", printable_path(&path)),
            "was mounted by another user; unmount it as that user or as root",
        ));
    }
    Ok(outcome)
}

/// A mount of root without a place, and its connection. `None` where the system has only mount(2),
/// or lets us use nothing else.
fn float(source: &str, options: &MountOptions) -> Result<Option<(OwnedFd, OwnedFd)>> {
    let connection = open_device()?;
    let context = match fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(context) => context,
        Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
        Err(Errno::NODEV) => return Err(no_device(Errno::NODEV)),
        Err(error) => return Err(Error::io("use", "FUSE")(error.into())),
    };
    let configure = || {
        let context = &context;
        fsconfig_set_string(context, "source", source)?;
        fsconfig_set_string(context, "subtype", SUBTYPE)?;
        for (name, value) in values(&connection) {
            fsconfig_set_string(context, name, value.as_str())?;
        }
        fsconfig_set_flag(context, "ro")?;
        fsconfig_set_flag(context, "default_permissions")?;
        if options.allow_other {
            fsconfig_set_flag(context, "allow_other")?;
        }
        fsconfig_create(context)?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV;
        if options.noexec {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
        }
        fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    match configure() {
        Ok(mount) => Ok(Some((connection, mount))),
        // Filters of system calls refuse some of these where they allow mount(2).
        Err(Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(error) => Err(cannot_mount(error, &options.mountpoint)),
    }
}

/// What the kernel is told of a connection of root.
fn values(connection: &OwnedFd) -> [(&'static str, String); 5] {
    [
        ("fd", connection.as_raw_fd().to_string()),
        ("rootmode", "40000".to_string()),
        ("user_id", rustix::process::geteuid().as_raw().to_string()),
        ("group_id", rustix::process::getegid().as_raw().to_string()),
        ("max_read", MAX_REQUEST_BYTES.to_string()),
    ]
}

fn open_device() -> Result<OwnedFd> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(no_device)
}

/// Mounts on the directory that was checked, by mount(2). Where something is mounted on it by now,
/// it comes to stand on that.
fn mount_on(place: &Place, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    let connection = open_device()?;
    let mut flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    if options.noexec {
        flags |= MountFlags::NOEXEC;
    }
    let mut data = "default_permissions".to_string();
    for (name, value) in values(&connection) {
        data.push_str(&format!(",{name}={value}"));
    }
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).unwrap_or_default();
    rustix::mount::mount(source, place.dir.through(), FS_TYPE, flags, data.as_c_str())
        .map_err(|error| cannot_mount(error, &place.path))?;
    Ok(connection)
}

fn cannot_mount(error: Errno, path: &Path) -> Error {
    match error {
        Errno::PERM => Error::environment(
            format!("cannot mount on {}", printable_path(path)),
            "not permitted: mounting needs CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN \
             --device /dev/fuse)",
        ),
        Errno::NODEV => no_device(Errno::NODEV),
        error => Error::io("mount on", path)(error.into()),
    }
}

/// m6: says what to install or permit.
pub(super) fn no_device(error: Errno) -> Error {
    let advice = match error {
        Errno::ACCESS | Errno::PERM => {
            "may not be opened: it should have mode 0666; in a container, pass --device /dev/fuse"
        }
        _ => {
            "is missing: load the kernel's module with \"modprobe fuse\"; in a container, pass \
             --device /dev/fuse"
        }
    };
    Error::environment(DEVICE, advice)
}

/// The archive as the mount table shows it: printable, and short enough for mount(2).
fn source(archive: &Path) -> String {
    let mut source = printable_path(archive);
    if source.len() > MAX_SOURCE_BYTES {
        let mut start = source.len() - MAX_SOURCE_BYTES;
        while !source.is_char_boundary(start) {
            start += 1;
        }
        source = format!("…{}", &source[start..]);
    }
    source
}

/// Raises what the kernel may read ahead on a device. Only root may; others keep the kernel's
/// 128 KiB, which the readahead below the mount makes up for in part.
pub(super) fn raise_readahead(device: &str, bytes: u32) {
    let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
    match std::fs::write(&file, (bytes / 1024).to_string()) {
        Ok(()) => log::debug!("{file} is {}", bytes / 1024),
        Err(error) => log::debug!("cannot raise readahead: {}: {error}", printable(&file)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::mount::UnmountFlags;

    use super::*;

    #[test]
    fn m1_a_source_is_printable_and_short() {
        assert_eq!(source(Path::new("/a\nb")), "/a\\u{a}b");
        let long = source(Path::new(&"ü/".repeat(1500)));
        assert!(long.len() <= MAX_SOURCE_BYTES + 3 && long.starts_with('…'));
    }

    /// A directory `P/mnt`, checked as a mount point; and `elsewhere`. `None` for users: only root
    /// mounts without a helper.
    fn scene() -> Option<(tempfile::TempDir, MountOptions, Place)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root mounts without fusermount3");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["P/mnt", "elsewhere"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let options = MountOptions::new("/archive.tar", dir.path().join("P/mnt"));
        let place = place::prepare(&options).unwrap();
        Some((dir, options, place))
    }

    fn mounts_below(dir: &tempfile::TempDir) -> Vec<u32> {
        let dir = dir.path().canonicalize().unwrap();
        let mounts = mountinfo::read().unwrap();
        let below = mounts
            .iter()
            .filter(|mount| mount.mount_point.starts_with(&dir));
        below.map(|mount| mount.id).collect()
    }

    fn connected(place: Place, options: &MountOptions) -> Result<(OwnedFd, Attached)> {
        let (fd, mountable) = connect(place, options)?;
        assert!(
            matches!(mountable, Mountable::Floating(..)),
            "on a kernel of today"
        );
        let attached = mountable.attach(fd.try_clone().unwrap())?;
        Ok((fd, attached))
    }

    /// The same by mount(2), as where there is nothing newer.
    fn the_old_way(
        place: Place,
        options: &MountOptions,
        before: impl FnOnce(),
    ) -> Result<(OwnedFd, Attached)> {
        let (fd, mountable) = by_path(place, "/archive.tar", |place| {
            before();
            mount_on(place, "/archive.tar", options)
        })?;
        let attached = mountable.attach(fd.try_clone().unwrap())?;
        Ok((fd, attached))
    }

    #[test]
    fn m7_a_mount_point_that_is_replaced_is_refused_and_nothing_stays() {
        for old_way in [false, true] {
            let Some((dir, options, place)) = scene() else {
                return;
            };
            let replace = || {
                let at = |name: &str| dir.path().join(name);
                std::fs::rename(at("P/mnt"), at("P/was")).unwrap();
                std::os::unix::fs::symlink("../elsewhere", at("P/mnt")).unwrap();
            };
            let error = if old_way {
                the_old_way(place, &options, replace).unwrap_err()
            } else {
                replace();
                connected(place, &options).unwrap_err()
            };
            assert!(error.to_string().contains("was moved, replaced"), "{error}");
            assert_eq!(mounts_below(&dir), [0; 0]);
        }
    }

    #[test]
    fn m7_with_other_parents_it_is_mounted_where_it_was_checked() {
        for old_way in [false, true] {
            let Some((dir, options, place)) = scene() else {
                return;
            };
            let at = |name: &str| dir.path().join(name);
            std::fs::create_dir_all(at("Q/mnt")).unwrap();
            std::fs::rename(at("P"), at("was")).unwrap();
            std::os::unix::fs::symlink("Q", at("P")).unwrap();
            let (_fd, mut attached) = match old_way {
                true => the_old_way(place, &options, || ()).unwrap(),
                false => connected(place, &options).unwrap(),
            };
            let mounts = mountinfo::read().unwrap();
            let real = dir.path().canonicalize().unwrap();
            let there = mountinfo::topmost(&mounts, &real.join("was/mnt"));
            assert_eq!(there.map(|mount| mount.id), Some(attached.found.mount));
            assert_eq!(attached.detach().unwrap(), Detached::Done);
            assert_eq!(mounts_below(&dir), [0; 0]);
        }
    }

    /// The kernel gives the numbers of a mount that is gone to the next one.
    #[test]
    fn m7_a_new_mount_with_the_numbers_of_an_old_one_is_new() {
        let Some((dir, options, place)) = scene() else {
            return;
        };
        let fd = mount_on(&place, "/archive.tar", &options).unwrap();
        let mounts = mountinfo::read().unwrap();
        let ours = mounts_below(&dir);
        let ours = mountinfo::by_id(&mounts, ours[0]).unwrap();
        let elsewhere = Mount {
            mount_point: dir.path().join("elsewhere"),
            ..ours.clone()
        };
        assert_eq!(placed(&[elsewhere], &place).unwrap().mount, ours.id);
        assert!(placed(std::slice::from_ref(ours), &place).is_err());
        drop(fd);
        place.spot.unmount(true).unwrap();
        assert_eq!(mounts_below(&dir), [0; 0]);
    }

    /// What a helper has mounted elsewhere is found and taken away.
    #[test]
    fn m7_a_mount_that_went_elsewhere_is_removed() {
        let Some((dir, options, place)) = scene() else {
            return;
        };
        let other = place::prepare(&MountOptions::new("/a.tar", dir.path().join("elsewhere")));
        let other = other.unwrap();
        let error = by_path(place, "/archive.tar", |_| {
            mount_on(&other, "/archive.tar", &options)
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("was moved, replaced")
        );
        assert_eq!(mounts_below(&dir), [0; 0]);
    }

    #[test]
    fn m8_who_comes_second_goes_and_leaves_the_first() {
        for old_way in [false, true] {
            let Some((dir, options, second)) = scene() else {
                return;
            };
            let (_fd, first) = connected(place::prepare(&options).unwrap(), &options).unwrap();
            let error = match old_way {
                true => the_old_way(second, &options, || ()).unwrap_err(),
                false => connected(second, &options).unwrap_err(),
            };
            assert!(error.to_string().contains("is in use"), "{error}");
            assert_eq!(mounts_below(&dir), [first.found.mount]);
            assert!(leads_to(&first.place, first.found.mount).unwrap());
            drop(first);
            assert_eq!(mounts_below(&dir), [0; 0]);
        }
    }

    /// Detaching takes our mount and no other: not one over it, not one that came after it, not
    /// one that it stood on.
    #[test]
    fn m7_what_is_mounted_by_others_is_never_unmounted() {
        let Some((dir, options, place)) = scene() else {
            return;
        };
        let path = options.mountpoint.clone();
        let tmpfs = || {
            rustix::mount::mount("none", &path, "tmpfs", MountFlags::empty(), None).unwrap();
            mounts_below(&dir).last().copied().unwrap()
        };
        drop(place);
        let below = tmpfs();
        let prepare = || place::prepare(&options).unwrap();
        let (_fd, mut ours) = connected(prepare(), &options).unwrap();
        let over = tmpfs();
        assert_eq!(ours.detach().unwrap(), Detached::NotOurs);
        assert_eq!(mounts_below(&dir), [below, ours.found.mount, over]);
        rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();

        // Unmounted by others; the mount below shows.
        rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
        drop(ours);
        assert_eq!(mounts_below(&dir), [below]);
        let (fd, mut ours) = connected(prepare(), &options).unwrap();
        rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
        drop(fd);
        assert_eq!(ours.detach().unwrap(), Detached::NotOurs);
        assert_eq!(mounts_below(&dir), [below]);
        // It holds the directory on which it was mounted.
        drop(ours);
        rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
    }

    #[test]
    fn m10_a_mount_without_a_place_ends_with_its_owner_and_a_dead_one_is_cleared() {
        let Some((dir, options, place)) = scene() else {
            return;
        };
        let (fd, mountable) = connect(place, &options).unwrap();
        assert_eq!(mounts_below(&dir), [0; 0]);
        drop((fd, mountable));

        let place = place::prepare(&options).unwrap();
        let spot = place::spot(&options.mountpoint).unwrap();
        let (fd, attached) = connected(place, &options).unwrap();
        // As if it had been killed.
        drop(fd);
        let mut attached = std::mem::ManuallyDrop::new(attached);
        attached.abandon();
        place::clear_after_death(&spot).unwrap();
        assert_eq!(mounts_below(&dir), [0; 0]);
    }

    #[test]
    fn m6_errors_say_what_to_do() {
        assert!(
            no_device(Errno::NOENT)
                .to_string()
                .contains("modprobe fuse")
        );
        assert!(no_device(Errno::ACCESS).to_string().contains("0666"));
    }
}
