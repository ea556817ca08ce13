//! Attaching a FUSE connection to a directory, and detaching it.
//!
//! Root mounts by system calls; anyone else goes through fuse3's setuid `fusermount3`. Both are done
//! here and not by fuser 0.18.0, because there the source is not escaped (a comma in the archive's
//! path injects mount options), the check whether something is still mounted is inverted (tearing
//! down after someone else's unmount may unmount something else), a busy mount cannot be unmounted as
//! root, and auto-unmount may leave a dangling mount.
//!
//! - It is mounted on the directory that was checked, which stays held, and is found again on that
//!   directory: no path is resolved for it (see [`Held`]).
//! - Since Linux 5.2 root's mount is made without a place, served, and given its place as the last
//!   step ([`Mountable::attach`]): nobody meets a mount that does not answer, and a server that dies
//!   before leaves none.
//! - Of two that mount on one directory at once, the one that stands on the directory itself wins.
//!   The other stands on the first one's root, sees that, and goes.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::device::{no_device, open_device, source};
use super::held::{self, Detached, Found, Held};
use super::mountinfo::{self, FS_TYPE, Mount, SUBTYPE};
use super::place::{self, Place};
use super::target::Target;
use super::{detach, device, helper};
use crate::error::{Error, Result};
use crate::mount::labels::Labels;
use crate::mount::options::{MAX_REQUEST_BYTES, MountOptions};
use crate::printable::printable_path;

/// How long another process of ours is waited for that mounts on the same directory.
const OTHERS: Duration = Duration::from_secs(2);
const OTHERS_PAUSE: Duration = Duration::from_millis(5);
/// How often a place is looked at where others mount and unmount meanwhile.
const LOOKS: u32 = 10;

/// A connection that can be served, and the mount that it feeds, which may not have its place yet.
#[derive(Debug)]
pub struct Mountable(Kind);

#[derive(Debug)]
enum Kind {
    /// Nowhere yet. It ends when this is dropped.
    Floating(OwnedFd, Place),
    /// In its place already: by `fusermount3`, or by a kernel without the newer calls.
    Placed(Placed),
    /// Mounted by somebody else.
    Given,
}

/// A mount that is served.
#[derive(Debug)]
pub enum Attached {
    /// Ours, in its place. Dropping it detaches it.
    Placed(Placed),
    /// Somebody else's, and a duplicate of its connection until that is abandoned.
    Given(Option<OwnedFd>),
}

/// A mount of ours in its place. Dropping it detaches it.
#[derive(Debug)]
pub struct Placed {
    place: Place,
    /// What a look-up finds as long as it is there.
    found: Found,
    /// Tells whether the connection, and with it the device number, is still ours. `None` once
    /// whoever has served it is gone.
    connection: Option<OwnedFd>,
    detached: bool,
}

/// Makes a mount for a place, or takes the one that is given; returns the connection to serve.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the system does not allow it.
pub fn connect(target: Target, options: &MountOptions) -> Result<(OwnedFd, Mountable)> {
    let place = match target {
        Target::Given(given) => return Ok((given.connection, Mountable(Kind::Given))),
        Target::Place(place) => place,
    };
    let source = source(&options.archive);
    if !rustix::process::geteuid().is_root() {
        return by_path(place, &source, |place| {
            let path = place.dir.path();
            let path = path.map_err(Error::io("use the mount point", &place.path))?;
            helper::mount(&path, &source, options)
        });
    }
    match float(&source, options)? {
        Some((connection, mount)) => Ok((connection, Mountable(Kind::Floating(mount, place)))),
        None => by_path(place, &source, |place| mount_on(place, &source, options)),
    }
}

impl Mountable {
    /// `major:minor` of the mount's device, where that is known.
    fn device(&self) -> Result<Option<String>> {
        match &self.0 {
            Kind::Floating(mount, place) => held::found_by(mount.as_fd())
                .map(|found| Some(found.device))
                .map_err(Error::io("use the mount on", &place.path)),
            Kind::Placed(placed) => Ok(Some(placed.found.device.clone())),
            Kind::Given => Ok(None),
        }
    }

    /// Raises what the kernel may read ahead on it, where that can be done.
    ///
    /// # Errors
    /// When the mount cannot be looked at.
    pub fn raise_readahead(&self, options: &MountOptions) -> Result<()> {
        if let Some(device) = self.device()? {
            device::raise_readahead(&device, options.max_readahead);
        }
        Ok(())
    }

    /// Gives it its place. `connection` is a duplicate of the one that is served.
    ///
    /// # Errors
    /// When the mount point is not what it was when it was checked, or the system refuses.
    pub fn attach(self, connection: OwnedFd) -> Result<Attached> {
        match self.0 {
            Kind::Placed(placed) => Ok(Attached::Placed(placed)),
            Kind::Floating(mount, place) => settle(mount, place, connection).map(Attached::Placed),
            Kind::Given => Ok(Attached::Given(Some(connection))),
        }
    }
}

/// Moves a floating mount onto the directory that was checked, and makes sure that it came to stand
/// there and is found there. It is held until that is known, so that it can be taken away again
/// whatever has happened around it.
fn settle(mount: OwnedFd, place: Place, connection: OwnedFd) -> Result<Placed> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, c"", &place.dir, c"", flags)
        .map_err(|e| cannot_mount(e, &place.path, &Labels::default()))?;
    match settled(&mount, &place) {
        Ok(found) => Ok(Placed {
            place,
            found,
            connection: Some(connection),
            detached: false,
        }),
        Err(error) => {
            if let Err(errno) = held::unmount_lazily(mount.as_fd()) {
                log::error!("{}: cannot unmount: {errno}", printable_path(&place.path));
            }
            Err(error)
        }
    }
}

fn settled(mount: &OwnedFd, place: &Place) -> Result<Found> {
    let fail = |error| Error::io("use the mount on", &place.path)(error);
    let found = held::found_by(mount.as_fd()).map_err(fail)?;
    match stack_on(place)?.last() {
        Some(first) if first.id == found.mount => {}
        // It stands on another's; or is gone with one that it stood on for a moment.
        Some(first) => return Err(place::in_use(&place.path, first)),
        None => return Err(not_in_the_table(&place.path)),
    }
    match place.is_renamed() {
        true => Err(moved_away(&place.path)),
        false => Ok(found),
    }
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
    let there = place.dir.top().map_err(|e| fail(e.into()))?;
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
            let placed = Placed {
                place,
                found,
                connection: Some(connection),
                detached: false,
            };
            Ok((fd, Mountable(Kind::Placed(placed))))
        }
        Err(error) => {
            drop(fd);
            remove_dead(&before, source);
            Err(error)
        }
    }
}

/// The new mount on the directory that was checked, if it still has its name.
fn placed(before: &[Mount], place: &Place) -> Result<Found> {
    let stack = stack_on(place)?;
    let first = stack.last();
    // Numbers alone may be those of another mount, which was there before and is gone.
    let first = first.filter(|first| first.fs_type == FS_TYPE && !before.contains(first));
    match first {
        Some(first) if !place.is_renamed() => Ok(Found {
            mount: first.id,
            device: first.device.clone(),
        }),
        _ => Err(moved_away(&place.path)),
    }
}

/// What is mounted on the directory that was checked, the topmost first: the last one stands on the
/// directory itself.
fn stack_on(place: &Place) -> Result<Vec<Mount>> {
    let fail = |error| Error::io("use the mount on", &place.path)(error);
    'look: for _ in 0..LOOKS {
        let top = place.dir.top().map_err(|e| fail(e.into()))?;
        let mut id = top.found().map_err(fail)?.mount;
        drop(top);
        let mounts = mountinfo::read()?;
        let mut stack = Vec::new();
        while id != place.found.mount {
            match mountinfo::by_id(&mounts, id) {
                Some(mount) if stack.len() < mounts.len() => {
                    id = mount.parent;
                    stack.push(mount.clone());
                }
                // It was mounted there for a moment only.
                _ => continue 'look,
            }
        }
        return Ok(stack);
    }
    Ok(Vec::new())
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
        if let Ok(held) = Held::open(&mount.mount_point)
            && held.found().is_ok_and(|found| found.mount == mount.id)
            && held.is_dead()
            && let Err(error) = detach::unmount(held, true)
        {
            log::error!("{error}");
        }
    }
}

impl Attached {
    /// False for one that somebody else has made, and unmounts.
    pub fn is_ours(&self) -> bool {
        matches!(self, Attached::Placed(_))
    }

    /// The directory that it is mounted on, and what it is known by there: its number, and
    /// `major:minor` of its device.
    ///
    /// # Errors
    /// When that is not known.
    pub fn on(&self) -> Result<(BorrowedFd<'_>, u32, &str)> {
        match self {
            Attached::Placed(placed) => {
                let Found { mount, device } = &placed.found;
                Ok((placed.place.dir.as_fd(), *mount, device))
            }
            Attached::Given(_) => Err(Error::environment(
                "the mount",
                "was made by somebody else, and its place is not known",
            )),
        }
    }

    /// Takes it out of sight. It goes for good when its last user does. One that is not ours stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn detach(&mut self) -> Result<Detached> {
        match self {
            Attached::Placed(placed) => placed.detach(),
            Attached::Given(_) => Ok(Detached::NotOurs),
        }
    }

    /// Ends the connection, which nobody serves any more: readers get an error, and wait no longer.
    pub fn abandon(&mut self) {
        match self {
            Attached::Placed(placed) => placed.connection = None,
            Attached::Given(connection) => *connection = None,
        }
    }
}

impl Placed {
    fn detach(&mut self) -> Result<Detached> {
        if self.detached {
            return Ok(Detached::NotOurs);
        }
        let dir = &self.place.dir;
        let outcome = match dir.top() {
            Ok(top) if self.is_this(&top) => detach::unmount(top, true)?,
            Ok(_) => self.detach_elsewhere()?,
            // Without a descriptor it cannot be held, but still be compared.
            Err(Errno::MFILE | Errno::NFILE)
                if self.connected() && dir.found_on_top() == Ok(Some(self.found.clone())) =>
            {
                match dir.unmount_top(true) {
                    Ok(()) => Detached::Done,
                    Err(error) => return Err(Error::io("unmount", &self.place.path)(error.into())),
                }
            }
            Err(error) => return Err(Error::io("unmount", &self.place.path)(error.into())),
        };
        self.detached = matches!(outcome, Detached::Done | Detached::NotOurs);
        Ok(outcome)
    }

    /// True when what is held is our mount. Once the connection has ended the kernel gives the
    /// numbers of mount and device to the next mount, which may be on the same directory already.
    /// Ours is then the one that answers nothing.
    fn is_this(&self, held: &Held) -> bool {
        held.found().is_ok_and(|found| found == self.found) && (self.connected() || held.is_dead())
    }

    /// It is not what is on top of its directory: unmounted by others, taken elsewhere by
    /// `mount --move`, or below another one, where it cannot be reached.
    fn detach_elsewhere(&self) -> Result<Detached> {
        let mounts = mountinfo::read().unwrap_or_default();
        let ours = mountinfo::by_id(&mounts, self.found.mount);
        let ours = ours.filter(|ours| self.connected() && ours.device == self.found.device);
        let Some(ours) = ours else {
            return Ok(Detached::NotOurs);
        };
        if let Ok(held) = Held::open(&ours.mount_point)
            && self.is_this(&held)
        {
            return detach::unmount(held, true);
        }
        log::warn!(
            "{}: something else is mounted over the model; unmount that, then this",
            printable_path(&ours.mount_point)
        );
        Ok(Detached::Covered)
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

impl Drop for Placed {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            log::error!("{error}");
        }
    }
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
        for (name, label) in options.labels.iter() {
            fsconfig_set_string(context, name, label)?;
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
        Err(error) => Err(cannot_mount(error, &options.mountpoint, &options.labels)),
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

/// Mounts on the directory that was checked, by mount(2). Where something is mounted on it by now,
/// it comes to stand on that.
fn mount_on(place: &Place, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    let connection = open_device()?;
    let mut flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    if options.noexec {
        flags |= MountFlags::NOEXEC;
    }
    let data = CString::new(data(&connection, options)).unwrap_or_default();
    rustix::mount::mount(source, place.dir.through(), FS_TYPE, flags, data.as_c_str())
        .map_err(|error| cannot_mount(error, &place.path, &options.labels))?;
    Ok(connection)
}

/// The options of mount(2) that are the file system's.
fn data(connection: &OwnedFd, options: &MountOptions) -> String {
    let mut data = "default_permissions".to_string();
    for (name, value) in values(connection) {
        data.push_str(&format!(",{name}={value}"));
    }
    if options.allow_other {
        data.push_str(",allow_other");
    }
    data.push_str(&options.labels.to_list());
    data
}

fn cannot_mount(error: Errno, path: &Path, labels: &Labels) -> Error {
    match error {
        Errno::INVAL if labels.iter().next().is_some() => Error::environment(
            format!("cannot mount on {}", printable_path(path)),
            format!(
                "the kernel does not take {}: SELinux is not enabled, or knows no such label",
                labels.to_list().trim_start_matches(',')
            ),
        ),
        Errno::PERM => Error::environment(
            format!("cannot mount on {}", printable_path(path)),
            "not permitted: mounting needs CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN \
             --device /dev/fuse)",
        ),
        Errno::NODEV => no_device(Errno::NODEV),
        error => Error::io("mount on", path)(error.into()),
    }
}

#[cfg(test)]
mod tests;
