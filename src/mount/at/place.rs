//! Where a mount may be: mount points are checked before anything is mounted, and a mount that a
//! killed process left behind is cleared.
//!
//! What was checked is held, and what is held is mounted on, asked or unmounted: a path is resolved
//! once (see [`Held`]), and once more only after a dead mount was cleared there: nothing of what was
//! found before counts then.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Dir, FileType, Mode, OFlags};

use super::detach;
use super::held::{Found, Held};
use super::mountinfo::{self, FS_TYPE, Mount};
use crate::error::{Error, Result};
use crate::files::beneath;
use crate::mount::options::MountOptions;
use crate::printable::{printable_bytes, printable_path};
use crate::source::registry::Reference;

/// Most dead mounts on top of each other that are cleared.
const MAX_STALE: usize = 64;
/// How long is waited before something is looked at again.
pub(in crate::mount) const PAUSE: Duration = Duration::from_millis(25);
/// How often after such a pause a helper is looked for that mounts for a server that has died.
const HELPER_LOOKS: u32 = 40;
/// How often after such a pause a mount is looked at whose server may be dying just now: its keeper
/// was killed, and the kernel kills the server with it.
const DYING_LOOKS: u32 = 20;

/// A mount point: a directory that is held.
#[derive(Debug)]
pub struct Place {
    /// The directory itself, below what is mounted on it.
    pub(super) dir: Held,
    /// What a look-up found there at first: the directory's own mount.
    pub(super) found: Found,
    /// Where it was then, to be shown.
    pub(super) path: PathBuf,
}

impl Place {
    /// Holds the directory that a path leads to. A dead mount of ours on it is cleared (m2 of
    /// `docs/bad-inputs.md`).
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment), naming the mount point, when there is
    /// none, or something is mounted there that is not to be mounted over.
    pub fn find(path: &Path) -> Result<Place> {
        look(path, || Held::open(path))
    }

    /// The same for the directory that a descriptor is open on; `named` as messages call it.
    ///
    /// # Errors
    /// As [`find`](Place::find).
    pub fn of(dir: BorrowedFd<'_>, named: &Path) -> Result<Place> {
        look(named, || Held::reopen(dir))
    }

    /// Finds the mount point of the options, or takes the one that is given, and checks it (m2, m3).
    /// What lies `apart` (what it is, and where) must not be below it.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment), naming the mount point.
    pub fn prepare(
        options: &MountOptions,
        given: Option<OwnedFd>,
        apart: &[(&str, &Path)],
    ) -> Result<Place> {
        let place = match given {
            Some(dir) => Place::of(dir.as_fd(), &options.mountpoint),
            None => Place::find(&options.mountpoint),
        }?;
        check(&place, options, apart)?;
        Ok(place)
    }

    /// Where it was when it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when it has another name by now, so that who opens its path does not come here. A
    /// directory above it may have another one.
    pub(super) fn is_renamed(&self) -> bool {
        let name = beneath::name_of(self.dir.as_fd()).ok();
        name.as_deref().map(Path::as_os_str) != self.path.file_name()
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn check(place: &Place, options: &MountOptions, apart: &[(&str, &Path)]) -> Result<()> {
    let Place { dir, path, .. } = place;
    let fail = |error| Error::io("use the mount point", &options.mountpoint)(error);
    let refuse = |why: &str| Err(Error::environment(mount_point(path), why));
    let stat = rustix::fs::fstat(dir).map_err(|error| fail(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return refuse("is not a directory");
    }
    if path == Path::new("/") {
        return refuse("is the root directory");
    }
    if !options.nonempty && !is_empty(dir).map_err(Error::io("list the mount point", path))? {
        return refuse("is not empty; mount elsewhere, or over it with -o nonempty");
    }
    // Reading the archive through the mount that it feeds would wait for itself for ever.
    let archive = ("the archive", options.archive.as_path());
    let archive = Some(archive).filter(|(_, path)| Reference::explicit(path).is_none());
    let index_dir = options.index_dir.as_deref();
    let index_dir = index_dir.map(|dir| ("the index directory", dir));
    let apart = apart.iter().copied().chain(archive).chain(index_dir);
    for (what, file) in apart {
        if existing(file).starts_with(path) {
            return refuse(&format!("contains {what}, which the mount would hide"));
        }
    }
    Ok(())
}

fn is_empty(dir: &Held) -> std::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(dir, c".", flags, Mode::empty())?;
    for entry in Dir::new(readable)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Holds the model that is mounted at a path.
pub(in crate::mount) fn mounted(path: &Path) -> Result<Held> {
    mounted_as(path, |mounts, held, shown| {
        find(mounts, held, shown).map(drop)
    })
}

/// Holds what may be a model that is mounted at a path: also a FUSE mount that another program has made,
/// whose connection it may have given to a process of ours. Returns true for such a one.
pub(in crate::mount) fn perhaps_mounted(path: &Path) -> Result<(Held, bool)> {
    let mut foreign = false;
    let held = mounted_as(path, |mounts, held, shown| {
        let found = held.found().map_err(Error::io("use", shown))?;
        let mount = root_of(mounts, &found, shown);
        foreign = mount.is_some_and(|mount| mount.fs_type != FS_TYPE && mount.is_fuse());
        match foreign {
            true => Ok(()),
            false => model(mounts, mount, shown).map(drop),
        }
    })?;
    Ok((held, foreign))
}

fn mounted_as(
    path: &Path,
    mut check: impl FnMut(&[Mount], &Held, &Path) -> Result<()>,
) -> Result<Held> {
    let fail = |error| cannot_use(path, "does not exist", error);
    let mut held = Held::open(path).map_err(fail)?;
    let shown = held.path().map_err(fail)?;
    let mounts = mountinfo::read()?;
    let found = held.found().map_err(fail)?;
    // A working directory, or a descriptor, may be below the mount that is meant. (What is a mount
    // already is asked nothing: it may hang.)
    if root_of(&mounts, &found, &shown).is_none()
        && let Ok(top) = held.top()
    {
        held = top;
    }
    check(&mounts, &held, &shown)?;
    Ok(held)
}

/// A server that its starter waited for has died: detaches the mount that it has left, if it has.
/// The helper that it may have called lives on for a moment, and mounts.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the system refuses.
pub fn clear_after_death(place: &Place) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let looks = if is_root { DYING_LOOKS } else { HELPER_LOOKS };
    for look in 0..=looks {
        let alive = clear_dead(place)?;
        // Of the two processes the other one may still be dying.
        if is_root && !alive {
            break;
        }
        if look < looks {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Returns true when there is a model that is alive.
fn clear_dead(place: &Place) -> Result<bool> {
    let Ok(held) = place.dir.top() else {
        return Ok(false);
    };
    let path = held.path().map_err(Error::io("use", "the mount point"))?;
    if find(&mountinfo::read()?, &held, &path).is_err() {
        return Ok(false);
    }
    if !held.is_dead() {
        return Ok(true);
    }
    detach::unmount(held, true)?;
    Ok(false)
}

/// The mount of ours whose root is held; `path` is where it is.
pub(in crate::mount) fn find<'a>(
    mounts: &'a [Mount],
    held: &Held,
    path: &Path,
) -> Result<&'a Mount> {
    let found = held.found().map_err(Error::io("use", path))?;
    model(mounts, root_of(mounts, &found, path), path)
}

/// The mount whose root a look-up has found at `path`; `None` when it has found something below.
fn root_of<'a>(mounts: &'a [Mount], found: &Found, path: &Path) -> Option<&'a Mount> {
    mountinfo::by_id(mounts, found.mount).filter(|mount| mount.mount_point == path)
}

/// True when a look-up of the path reaches that mount, so that it is not gone.
fn leads_to(path: &Path, mount: &Found) -> bool {
    let there = Held::open(path).and_then(|held| held.found());
    there.is_ok_and(|there| there == *mount)
}

fn model<'a>(mounts: &'a [Mount], mount: Option<&'a Mount>, path: &Path) -> Result<&'a Mount> {
    match mount {
        Some(mount) if mount.fs_type == FS_TYPE => Ok(mount),
        Some(mount) if mount.is_fuse() => Err(Error::environment(
            printable_path(path),
            format!(
                "is a mount of type {} that another program has made, which unmounts it",
                mount.fs_type
            ),
        )),
        Some(mount) => Err(Error::environment(
            printable_path(path),
            format!("is a mount of type {}, not a model", mount.fs_type),
        )),
        None => Err(not_mounted(path, mounts)),
    }
}

/// Names the mount point that was probably meant: that of a path inside, or of the archive itself.
pub(in crate::mount) fn not_mounted(path: &Path, mounts: &[Mount]) -> Error {
    let models = || mounts.iter().filter(|mount| mount.fs_type == FS_TYPE);
    let inside = models()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len());
    let archive = || {
        models().find(|mount| {
            let source = Path::new(&mount.source);
            // Relative, it was another process's.
            source.is_absolute() && source.canonicalize().is_ok_and(|source| source == path)
        })
    };
    let problem = if let Some(mount) = inside {
        format!(
            "lies in the model mounted at {0}; give {0}",
            printable_path(&mount.mount_point)
        )
    } else if let Some(mount) = archive() {
        format!(
            "is mounted at {0}; give {0}",
            printable_path(&mount.mount_point)
        )
    } else {
        "no model is mounted there".to_string()
    };
    Error::environment(printable_path(path), problem)
}

pub(in crate::mount) fn mount_point(path: &Path) -> String {
    format!("mount point {}", printable_path(path))
}

fn cannot_use(path: &Path, missing: &str, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::environment(mount_point(path), missing),
        _ => Error::io("use the mount point", path)(error),
    }
}

/// m2: a mount of ours whose process is gone answers nothing and blocks its directory. Holds what
/// `open` holds once there is none.
fn look(named: &Path, open: impl Fn() -> std::io::Result<Held>) -> Result<Place> {
    let fail = |error| cannot_use(named, "does not exist; create the directory first", error);
    let mut dying = DYING_LOOKS;
    let mut is_gone = false;
    let mut cleared = 0;
    while cleared < MAX_STALE {
        let dir = open().map_err(fail)?;
        let path = dir.path().map_err(fail)?;
        let mounts = mountinfo::read()?;
        let found = dir.found().map_err(fail)?;
        let is_fuse = root_of(&mounts, &found, &path).is_some_and(Mount::is_fuse);
        // What is FUSE already is asked nothing.
        let top = match is_fuse {
            true => dir.try_clone(),
            false => dir.top().map_err(Into::into),
        };
        let top = top.map_err(fail)?;
        let on_top = top.found().map_err(fail)?;
        let Some(mount) = mountinfo::by_id(&mounts, on_top.mount) else {
            // Below a root that chroot(2) has made of an ordinary directory, the mount that it lies on is
            // in no table.
            if !is_fuse && on_top == found && leads_to(&path, &found) {
                return Ok(Place { dir, found, path });
            }
            // Another process's attempt to mount here, which is gone again; or a descriptor of a mount
            // that is gone.
            is_gone = true;
            cleared += 1;
            continue;
        };
        is_gone = false;
        let is_covered = on_top != found;
        if !is_fuse && !is_covered {
            return Ok(Place { dir, found, path });
        }
        let ours = mount.fs_type == FS_TYPE;
        match top.is_dead() {
            true if ours => {
                detach::unmount(top, true)?;
                cleared += 1;
                log::warn!(
                    "{}: cleared the mount of a process that was killed",
                    mount_point(&path)
                );
            }
            true => return Err(dead(&path, mount)),
            false if ours && dying > 0 => {
                dying -= 1;
                std::thread::sleep(PAUSE);
            }
            false if ours || is_covered => return Err(in_use(&path, mount)),
            false => return Ok(Place { dir, found, path }),
        }
    }
    Err(Error::environment(
        mount_point(named),
        match is_gone {
            true => "is in a mount that is gone: name it by its path",
            false => "holds too many dead mounts, or others mount and unmount there all the time",
        },
    ))
}

/// m2: of another program, which may have its reasons.
fn dead(path: &Path, mount: &Mount) -> Error {
    let kind = &mount.fs_type;
    let problem = format!("holds a dead mount of type {kind}; unmount it first");
    Error::environment(mount_point(path), problem)
}

/// m8: somebody else was first.
pub(in crate::mount) fn in_use(path: &Path, mount: &Mount) -> Error {
    use std::os::unix::ffi::OsStrExt as _;
    Error::environment(
        mount_point(path),
        format!(
            "is in use: {} is mounted there; unmount it first, or mount elsewhere",
            printable_bytes(mount.source.as_bytes())
        ),
    )
}

/// The canonical path of the deepest part of `path` that exists, with the rest appended.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for ancestor in absolute.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return match absolute.strip_prefix(ancestor) {
                Ok(rest) => real.join(rest),
                Err(_) => real,
            };
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::ErrorKind;

    fn prepare(options: &MountOptions) -> Result<Place> {
        Place::prepare(options, None, &[])
    }

    fn refused(options: &MountOptions) -> String {
        let error = prepare(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
        error.to_string()
    }

    #[test]
    fn m2_what_is_no_empty_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| MountOptions::new("/a.tar", dir.path().join(name));
        assert!(refused(&at("missing")).contains("does not exist"));
        assert!(refused(&at("missing/deep")).contains("does not exist"));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(refused(&at("file")).contains("is not a directory"));
        std::fs::create_dir_all(dir.path().join("full/x")).unwrap();
        assert!(refused(&at("full")).contains("is not empty"));
        assert!(refused(&MountOptions::new("/a.tar", "/")).contains("root"));

        let mut over = at("full");
        over.nonempty = true;
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(prepare(&over).unwrap().path, real.join("full"));
        std::os::unix::fs::symlink("full/x", dir.path().join("link")).unwrap();
        assert_eq!(prepare(&at("link")).unwrap().path, real.join("full/x"));
        let dots = prepare(&at("full/../link/.")).unwrap();
        assert_eq!(dots.path, real.join("full/x"));
    }

    #[test]
    fn m3_what_the_mount_needs_may_not_lie_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = MountOptions::new(dir.path().join("a.tar"), dir.path());
        options.nonempty = true;
        assert!(refused(&options).contains("contains the archive"));
        options.archive = "/a.tar".into();
        options.index_dir = Some(dir.path().join("not/yet/there"));
        assert!(refused(&options).contains("contains the index directory"));
        options.index_dir = None;
        let log = dir.path().join("log");
        let error = Place::prepare(&options, None, &[("the log file", &log)]).unwrap_err();
        assert!(error.to_string().contains("contains the log file"));
        assert!(prepare(&options).is_ok());
    }

    #[test]
    fn the_mount_point_that_was_meant_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("a.tar");
        std::fs::write(&file, "").unwrap();
        let mount = |source: &Path| Mount {
            id: 2,
            parent: 1,
            device: "0:40".into(),
            mount_point: "/mnt/m".into(),
            fs_type: FS_TYPE.into(),
            source: source.into(),
        };
        let why = |source: &Path, path: &Path| {
            let found = Found {
                mount: 2,
                device: String::new(),
            };
            let mounts = [mount(source)];
            let error = model(&mounts, root_of(&mounts, &found, path), path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Environment);
            error.to_string()
        };
        assert!(why(&file, &file).ends_with("is mounted at /mnt/m; give /mnt/m"));
        let inside = why(&file, Path::new("/mnt/m/a/b"));
        assert!(inside.ends_with("lies in the model mounted at /mnt/m; give /mnt/m"));
        for other in ["/mnt/more", "/mnt"] {
            assert!(why(&file, Path::new(other)).ends_with("no model is mounted there"));
        }
        // The same name, but in the directory of another process.
        let here = Path::new("Cargo.toml").canonicalize().unwrap();
        assert!(why(Path::new("Cargo.toml"), &here).ends_with("no model is mounted there"));
    }
}
