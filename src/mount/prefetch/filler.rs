//! The process that has the kernel read ahead on a mount.
//!
//! The server cannot do that itself: a thread that waits for an answer from its own mount keeps the
//! connection alive when the process is killed, and waits for ever. This process does not have the
//! connection, so that it ends with an error when its server is gone. It opens a file only for the
//! moment in which it asks, since open files keep a mount from being unmounted.
//!
//! Here is what both say to each other. A program that has itself started for that starts the process.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{ffi::OsStr, str};

use rustix::fs::{Advice, Mode, OFlags};

use crate::error::{Error, Result};

/// Longest order that is read, in bytes: more than a path may have.
const MAX_ORDER_BYTES: u64 = 16 << 10;
/// Where the kernel may read only so far at a time, it is asked again from there on.
const PIECE_BYTES: usize = 128 << 10;

/// What an order led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mount) enum Answer {
    /// The kernel reads what it has not read yet.
    Asked,
    /// The file is not there any more: the mount is gone, or there is another one.
    Gone,
}

/// The server's end.
pub struct Filler {
    orders: File,
    answers: File,
}

impl Filler {
    /// Talks to the process over its ends.
    pub fn over(orders: OwnedFd, answers: OwnedFd) -> Filler {
        Filler {
            orders: orders.into(),
            answers: answers.into(),
        }
    }

    /// Has the kernel begin to read `len` bytes of a file; does not wait for them.
    ///
    /// # Errors
    /// When the process is gone.
    pub(in crate::mount) fn ask(
        &mut self,
        path: &Path,
        offset: u64,
        len: u64,
    ) -> io::Result<Answer> {
        let mut order = format!("{offset} {len} ").into_bytes();
        order.extend_from_slice(path.as_os_str().as_bytes());
        order.push(0);
        self.orders.write_all(&order)?;
        let mut answer = [0];
        self.answers.read_exact(&mut answer)?;
        Ok(match answer {
            [0] => Answer::Gone,
            _ => Answer::Asked,
        })
    }
}

/// Follows the orders of a server, from standard input, until there are no more: for files on `device`.
///
/// # Errors
/// When the server is gone.
pub fn follow_orders(device: u64) -> Result<()> {
    let (stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut orders = BufReader::new(stdin);
    let talk = Error::io("talk to", "the server");
    let mut follow = || {
        let mut order = Vec::new();
        while orders
            .by_ref()
            .take(MAX_ORDER_BYTES)
            .read_until(0, &mut order)?
            > 0
        {
            let asked = follow(order.strip_suffix(&[0]).unwrap_or_default(), device);
            stdout.write_all(&[u8::from(asked.is_some())])?;
            stdout.flush()?;
            order.clear();
        }
        Ok(())
    };
    follow().map_err(talk)
}

/// `None` when the file is not there, or is on another device.
fn follow(order: &[u8], device: u64) -> Option<()> {
    let mut fields = order.splitn(3, |byte| *byte == b' ');
    let mut number = || str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
    let (offset, len) = (number()?, number()?);
    let path = OsStr::from_bytes(fields.next()?);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    if rustix::fs::fstat(&file).ok()?.st_dev != device {
        return None;
    }
    let end = offset.checked_add(len)?;
    for at in (offset..end).step_by(PIECE_BYTES) {
        // Advice is nothing that could fail for good: who reads the file is told what is wrong.
        let _ = rustix::fs::fadvise(&file, at, NonZeroU64::new(end - at), Advice::WillNeed);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn orders_are_for_files_of_the_device_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a file\nof two lines");
        fs::write(&path, b"content").unwrap();
        let device = fs::metadata(&path).unwrap().dev();
        let order = |text: &str, path: &Path| {
            let mut order = text.as_bytes().to_vec();
            order.extend_from_slice(path.as_os_str().as_bytes());
            order
        };
        assert!(follow(&order("0 7 ", &path), device).is_some());
        assert!(follow(&order("0 0 ", &path), device).is_some());
        assert!(follow(&order("0 7 ", &path), device + 1).is_none());
        assert!(follow(&order("0 7 ", &dir.path().join("absent")), device).is_none());
        let end = format!("{} 1 ", u64::MAX);
        for bad in ["", "0 ", "x 7 ", "0 -7 ", end.as_str()] {
            assert!(follow(&order(bad, &path), device).is_none(), "{bad}");
        }
    }
}
