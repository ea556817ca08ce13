//! Asking a mount, through the mount itself.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::at::held::Held;
use super::at::mountinfo::{self, FS_TYPE};
use super::at::place;
use super::status::{STATUS_XATTR, Status};
use crate::error::{Error, Result};
use crate::printable::printable_path;

/// How long a process may take to say how it is doing: it knows that without reading anything.
const PATIENCE: Duration = Duration::from_secs(10);

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
/// its process does not answer this user, or nobody for ten seconds. A mount that another program has made is asked, too: it may
/// have given its connection to a process of ours.
pub fn status(mountpoint: &Path) -> Result<Status> {
    let (held, foreign) = place::perhaps_mounted(mountpoint)?;
    let path = held.path().map_err(Error::io("ask", mountpoint))?;
    let fail = |problem: &str| Error::environment(printable_path(&path), problem);
    let (answer, answered) = channel();
    let ask = move || drop(answer.send(ask(&held)));
    let thread = thread::Builder::new().name("status".into()).spawn(ask);
    thread.map_err(Error::io("start", "a thread"))?;
    let Ok(answer) = answered.recv_timeout(PATIENCE) else {
        return Err(fail(
            "its process does not answer: it stands still, or is stopped; `modeloci umount --lazy` takes \
             the mount away",
        ));
    };
    let answer = answer.map_err(|e| match e {
        Errno::NOTCONN | Errno::CONNABORTED => {
            fail("its process is gone; unmount it, or mount again on the same directory")
        }
        Errno::ACCESS | Errno::PERM => fail("was mounted by another user without --allow-other"),
        _ if foreign => fail("is a FUSE mount of another program, and no model of ours"),
        Errno::NODATA | Errno::OPNOTSUPP => fail("its process keeps no status"),
        e => Error::io("ask", &path)(e.into()),
    })?;
    serde_json::from_slice(&answer).map_err(|_| fail("its process is of another version"))
}

/// Waits for the answer of a mount, for ever if it must be.
#[expect(
    clippy::disallowed_methods,
    reason = "the path is the descriptor's own: an attribute cannot be asked of one of O_PATH"
)]
fn ask(held: &Held) -> rustix::io::Result<Vec<u8>> {
    let mut answer = vec![0; 64 << 10];
    let length = rustix::fs::getxattr(held.through(), STATUS_XATTR, &mut answer[..])?;
    answer.truncate(length);
    Ok(answer)
}
