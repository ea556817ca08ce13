//! Taking a mount away that is held: by a system call of root, or by `fusermount3`.

use rustix::io::Errno;

use super::spot::{Detached, Held, Spot};
use super::{helper, mountinfo};
use crate::error::{Error, Result};
use crate::printable::printable_path;

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
