//! Unmounting a model that is mounted at a path.

use std::path::Path;

use super::detach;
use super::held::{Detached, Held};
use super::mountinfo::{self, Mount};
use super::place::{self, PAUSE, mounted};
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// How often an unmount of a busy mount is tried again.
const BUSY_RETRIES: u32 = 4;

/// Unmounts a model.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when nothing of ours is mounted
/// there, when it is in use and `lazy` is not set, and when the system refuses.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<()> {
    let held = mounted(mountpoint)?;
    let path = held.path().map_err(Error::io("use", mountpoint))?;
    let ours = held.found().map_err(Error::io("use", mountpoint))?;
    let mut outcome = detach::unmount(held, lazy)?;
    // A look at the mount that is just being taken makes it busy, too.
    for _ in 0..BUSY_RETRIES {
        if outcome != Detached::Busy {
            break;
        }
        std::thread::sleep(PAUSE);
        // Held, it would have stayed busy.
        let again = Held::open(&path).map_err(Error::io("use", &path))?;
        if again.found().ok().as_ref() != Some(&ours) {
            outcome = Detached::NotOurs;
            break;
        }
        outcome = detach::unmount(again, lazy)?;
    }
    match outcome {
        Detached::Done => Ok(()),
        Detached::Busy => Err(Error::environment(printable_path(&path), busy(&path))),
        Detached::NotOurs | Detached::Covered => Err(place::not_mounted(&path, &[])),
    }
}

/// Why a mount is busy, and what to do.
fn busy(path: &Path) -> String {
    let mounts = mountinfo::read().unwrap_or_default();
    let below = |mount: &&Mount| mount.mount_point != path && mount.mount_point.starts_with(path);
    match mounts.iter().find(below) {
        Some(nested) => format!(
            "is busy: {} is mounted below it; unmount that first, or use --lazy",
            printable_path(&nested.mount_point)
        ),
        None => {
            "is busy: a process has a file open or its working directory there; end it, or use \
                 --lazy"
                .into()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

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
