//! Taking a mount away that is held: by a system call of root, or by `fusermount3`.

use rustix::io::Errno;

use super::held::{Detached, Held};
use super::{helper, mountinfo};
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// Unmounts a model. `held` is its root.
///
/// `fusermount3` takes nothing but a path: it gets the one that the mount has now. It unmounts there
/// only what the same user has mounted.
pub(super) fn unmount(held: Held, lazily: bool) -> Result<Detached> {
    let path = held.path().map_err(Error::io("unmount", "a model"))?;
    if rustix::process::geteuid().is_root() {
        let done = match lazily {
            true => held.unmount_lazily(),
            false => held.unmount(),
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
