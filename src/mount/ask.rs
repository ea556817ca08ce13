//! Asking a mount, through the mount itself.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::at::mountinfo::{self, FS_TYPE};
use super::at::place;
use super::status::{STATUS_XATTR, Status};
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// Where models are mounted, as far as this process can see.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when the mount table cannot be read.
pub fn mountpoints() -> Result<Vec<PathBuf>> {
    let mounts = mountinfo::read()?.into_iter();
    let models = mounts.filter(|mount| mount.fs_type == FS_TYPE);
    Ok(models.map(|mount| mount.mount_point).collect())
}

/// Asks the mount at `mountpoint`.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when no model is mounted there, or
/// its process does not answer this user. A mount that another program has made is asked, too: it may
/// have given its connection to a process of ours.
#[expect(
    clippy::disallowed_methods,
    reason = "the path is the descriptor's own: an attribute cannot be asked of one of O_PATH"
)]
pub fn status(mountpoint: &Path) -> Result<Status> {
    let (held, foreign) = place::perhaps_mounted(mountpoint)?;
    let path = held.path().map_err(Error::io("ask", mountpoint))?;
    let fail = |problem: &str| Error::environment(printable_path(&path), problem);
    let mut buf = vec![0u8; 64 << 10];
    let len =
        rustix::fs::getxattr(held.through(), STATUS_XATTR, &mut buf[..]).map_err(|e| match e {
            Errno::NOTCONN | Errno::CONNABORTED => {
                fail("its process is gone; unmount it, or mount again on the same directory")
            }
            Errno::ACCESS | Errno::PERM => {
                fail("was mounted by another user without --allow-other")
            }
            _ if foreign => fail("is a FUSE mount of another program, and no model of ours"),
            Errno::NODATA | Errno::OPNOTSUPP => fail("its process keeps no status"),
            e => Error::io("ask", &path)(e.into()),
        })?;
    serde_json::from_slice(buf.get(..len).unwrap_or_default())
        .map_err(|_| fail("its process is of another version"))
}
