//! Where a mount may be: mount points are checked before anything is mounted, and a mount that a
//! killed process left behind is cleared.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::FS_TYPE;
use super::attach::{self, Detached};
use super::mountinfo::{self, Mount};
use super::options::MountOptions;
use crate::entry_path::{printable_bytes, printable_path};
use crate::error::{Error, Result};

/// Most dead mounts on top of each other that are cleared.
const MAX_STALE: usize = 64;
/// How often and after how long an unmount of a busy mount is tried again.
const BUSY_RETRIES: u32 = 4;
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// Checks the mount point (HOSTILE m2, m3), clears a dead mount of ours on it, and returns its
/// canonical path.
pub(super) fn prepare(options: &MountOptions) -> Result<PathBuf> {
    let path = resolve(
        &options.mountpoint,
        "does not exist; create the directory first",
    )?;
    clear_stale(&path)?;
    let refuse = |why: &str| Err(Error::environment(mount_point(&path), why));
    let meta = std::fs::metadata(&path).map_err(Error::io("use the mount point", &path))?;
    if !meta.is_dir() {
        return refuse("is not a directory");
    }
    if path == Path::new("/") {
        return refuse("is the root directory");
    }
    if !options.nonempty {
        let mut entries =
            std::fs::read_dir(&path).map_err(Error::io("list the mount point", &path))?;
        if entries.next().is_some() {
            return refuse("is not empty; mount elsewhere, or over it with -o nonempty");
        }
    }
    // Reading the archive through the mount that it feeds would wait for itself for ever.
    for (what, file) in [
        ("the archive", Some(&options.archive)),
        ("the log file", options.log_file.as_ref()),
        ("the index directory", options.index_dir.as_ref()),
    ] {
        if file.is_some_and(|file| existing(file).starts_with(&path)) {
            return refuse(&format!("contains {what}, which the mount would hide"));
        }
    }
    Ok(path)
}

/// Unmounts a model.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when nothing of ours is mounted
/// there, when it is in use and `lazy` is not set, and when the system refuses.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<()> {
    let path = resolve(mountpoint, "does not exist")?;
    find(&mountinfo::read()?, &path)?;
    let mut outcome = attach::detach(&path, lazy)?;
    // A look at the mount that is just being taken makes it busy, too.
    for _ in 0..BUSY_RETRIES {
        if outcome != Detached::Busy {
            break;
        }
        std::thread::sleep(BUSY_PAUSE);
        outcome = attach::detach(&path, lazy)?;
    }
    match outcome {
        Detached::Done => Ok(()),
        Detached::Busy => Err(Error::environment(
            printable_path(&path),
            "is busy: a process has a file open or its working directory there; end it, or use \
             --lazy",
        )),
        Detached::NotOurs => Err(not_mounted(&path, &[])),
    }
}

/// The mount of ours that a look-up of `path` (canonical) reaches.
pub(super) fn find<'a>(mounts: &'a [Mount], path: &Path) -> Result<&'a Mount> {
    match mountinfo::topmost(mounts, path) {
        Some(mount) if mount.fs_type == FS_TYPE => Ok(mount),
        Some(mount) => Err(Error::environment(
            printable_path(path),
            format!("is a mount of type {}, not a model", mount.fs_type),
        )),
        None => Err(not_mounted(path, mounts)),
    }
}

/// Names the mount point that was probably meant: that of a path inside, or of the archive itself.
fn not_mounted(path: &Path, mounts: &[Mount]) -> Error {
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

fn mount_point(path: &Path) -> String {
    format!("mount point {}", printable_path(path))
}

/// The canonical path of a mount point, without asking the file system that is mounted there: it
/// may be dead, or not let us in. `missing` says what is wrong when there is none.
pub(super) fn resolve(path: &Path, missing: &str) -> Result<PathBuf> {
    let fail = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::environment(mount_point(path), missing),
        _ => Error::io("use the mount point", path)(error),
    };
    let absolute = std::path::absolute(path).map_err(fail)?;
    let (Some(parent), Some(Component::Normal(name))) =
        (absolute.parent(), absolute.components().next_back())
    else {
        return absolute.canonicalize().map_err(fail);
    };
    let candidate = parent.canonicalize().map_err(fail)?.join(name);
    // Unlike stat(2) this asks nothing of a directory, so that it cannot hang either.
    match rustix::fs::readlink(&candidate, Vec::new()) {
        Ok(_) => candidate.canonicalize().map_err(fail),
        Err(Errno::NOENT) => Err(fail(Errno::NOENT.into())),
        Err(_) => Ok(candidate),
    }
}

/// m2: a mount of ours whose process is gone answers nothing and blocks its directory.
fn clear_stale(path: &Path) -> Result<()> {
    for _ in 0..MAX_STALE {
        let mounts = mountinfo::read()?;
        let Some(mount) = mountinfo::topmost(&mounts, path) else {
            return Ok(());
        };
        let ours = mount.fs_type == FS_TYPE;
        match rustix::fs::statfs(path) {
            Err(Errno::NOTCONN | Errno::CONNABORTED) if ours => {
                attach::detach(path, true)?;
                log::warn!(
                    "{}: cleared the mount of a process that was killed",
                    mount_point(path)
                );
            }
            Err(Errno::NOTCONN | Errno::CONNABORTED) => {
                return Err(Error::environment(
                    mount_point(path),
                    format!(
                        "holds a dead mount of type {}; unmount it first",
                        mount.fs_type
                    ),
                ));
            }
            _ if ours => {
                use std::os::unix::ffi::OsStrExt as _;
                return Err(Error::environment(
                    mount_point(path),
                    format!(
                        "is in use: {} is mounted there; unmount it first, or mount elsewhere",
                        printable_bytes(mount.source.as_bytes())
                    ),
                ));
            }
            _ => return Ok(()),
        }
    }
    Err(Error::environment(
        mount_point(path),
        "too many dead mounts on top of each other",
    ))
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
        assert_eq!(prepare(&over).unwrap(), real.join("full"));
        std::os::unix::fs::symlink("full/x", dir.path().join("link")).unwrap();
        assert_eq!(prepare(&at("link")).unwrap(), real.join("full/x"));
        assert_eq!(prepare(&at("full/../link/.")).unwrap(), real.join("full/x"));
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
        options.log_file = Some(dir.path().join("log"));
        assert!(refused(&options).contains("contains the log file"));
        options.log_file = None;
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
            let error = find(&[mount(source)], path).unwrap_err();
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

    #[test]
    fn only_models_are_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let error = unmount(dir.path(), false).unwrap_err();
        assert!(error.to_string().contains("no model is mounted there"));
        let error = unmount(Path::new("/proc"), false).unwrap_err();
        assert!(error.to_string().contains("of type proc"), "{error}");
        let error = unmount(&dir.path().join("missing"), false).unwrap_err();
        assert!(error.to_string().ends_with("does not exist"), "{error}");
    }
}
