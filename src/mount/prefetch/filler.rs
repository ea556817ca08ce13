//! The process that has the kernel read ahead on a mount.
//!
//! The server cannot do that itself: a thread that waits for an answer from its own mount keeps the
//! connection alive when the process is killed, and waits for ever. This process does not have the
//! connection, so that it ends with an error when its server is gone. It opens a file only for the
//! moment in which it asks, since open files keep a mount from being unmounted.
//!
//! It opens nothing else: the mount is found on the directory that it is mounted on, whatever their
//! names are by now, and known by its number and device ([`On`]); files are opened below its root, by
//! names that lead to no link and to no other mount, and only where they are regular files. So neither
//! who renames directories nor a server that was taken over leads it elsewhere.
//!
//! Here is what both say to each other. A program that has itself started for that starts the process.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{ffi::OsStr, str};

use rustix::fs::{Advice, FileType, OFlags};

use crate::error::{Error, Result};
use crate::files::{beneath, calls};
use crate::mount::at::held::{Found, found_by};

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

    /// Has the kernel begin to read `len` bytes of a file, given by its path in the mount; does not wait
    /// for them.
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

/// A mount, by the directory that it is on. (A descriptor of the mount would keep it from being
/// unmounted.)
#[derive(Debug)]
pub struct On {
    directory: OwnedFd,
    found: Found,
}

impl On {
    /// The mount of that number and device (`major:minor`) on a directory.
    pub fn new(directory: OwnedFd, mount: u32, device: String) -> On {
        let found = Found { mount, device };
        On { directory, found }
    }

    /// Holds its root.
    ///
    /// # Errors
    /// When it is not there any more, or something else is on top of it.
    pub fn root(&self) -> io::Result<OwnedFd> {
        let root = beneath::top_of(self.directory.as_fd())?;
        match found_by(root.as_fd())? == self.found {
            true => Ok(root),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Follows the orders of a server, from standard input, until there are no more: for files of a mount.
///
/// # Errors
/// When the server is gone.
pub fn follow_orders(on: &On) -> Result<()> {
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
            let asked = follow(order.strip_suffix(&[0]).unwrap_or_default(), on);
            stdout.write_all(&[u8::from(asked.is_some())])?;
            stdout.flush()?;
            order.clear();
        }
        Ok(())
    };
    follow().map_err(talk)
}

/// `None` when the file is not there, or is none.
fn follow(order: &[u8], on: &On) -> Option<()> {
    let mut fields = order.splitn(3, |byte| *byte == b' ');
    let mut number = || str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
    let (offset, len) = (number()?, number()?);
    let path = Path::new(OsStr::from_bytes(fields.next()?));
    let root = on.root().ok()?;
    let file = open_file(root.as_fd(), path).ok()?;
    let end = offset.checked_add(len)?;
    for at in (offset..end).step_by(PIECE_BYTES) {
        // Advice is nothing that could fail for good: who reads the file is told what is wrong.
        let _ = rustix::fs::fadvise(&file, at, NonZeroU64::new(end - at), Advice::WillNeed);
    }
    Some(())
}

/// Opens a regular file of the mount. What else a path may lead to is held, and looked at, but not
/// opened: opening does something to a device, and to a pipe.
fn open_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let held = beneath::open_in_mount(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    if calls::file_type(&held)? != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The kernel's own link: to what is held, and to nothing else.
    let link = format!("/proc/self/fd/{}", held.as_raw_fd());
    Ok(calls::open(Path::new(&link), OFlags::RDONLY)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn order(text: &str, path: &str) -> Vec<u8> {
        [text.as_bytes(), path.as_bytes()].concat()
    }

    /// A directory as if it were a mount.
    fn on(dir: &Path) -> On {
        let directory = OwnedFd::from(File::open(dir).unwrap());
        let Found { mount, device } = found_by(directory.as_fd()).unwrap();
        On::new(directory, mount, device)
    }

    #[test]
    fn orders_are_for_files_of_the_mount_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = "a file\nof two lines";
        fs::write(dir.path().join(path), b"content").unwrap();
        let here = on(dir.path());
        assert!(follow(&order("0 7 ", path), &here).is_some());
        assert!(follow(&order("0 0 ", path), &here).is_some());
        assert!(follow(&order("0 7 ", "absent"), &here).is_none());
        let end = format!("{} 1 ", u64::MAX);
        for bad in ["", "0 ", "x 7 ", "0 -7 ", end.as_str()] {
            assert!(follow(&order(bad, path), &here).is_none(), "{bad}");
        }
        for (mount, device) in [
            (here.found.mount + 1, None),
            (here.found.mount, Some("0:0")),
        ] {
            let device = device.map_or_else(|| here.found.device.clone(), str::to_string);
            let other = On::new(here.directory.try_clone().unwrap(), mount, device);
            assert!(follow(&order("0 7 ", path), &other).is_none());
        }
    }

    #[test]
    fn e18_no_order_leads_out_of_the_mount_or_to_what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("mnt/sub")).unwrap();
        fs::write(at("secret"), "").unwrap();
        fs::write(at("mnt/file"), "").unwrap();
        for (text, name) in [("../secret", "out"), ("file", "in"), ("sub", "dir")] {
            std::os::unix::fs::symlink(text, at("mnt").join(name)).unwrap();
        }
        let made = std::process::Command::new("mkfifo")
            .arg(at("mnt/pipe"))
            .status();
        assert!(made.unwrap().success());
        let here = on(&at("mnt"));
        let secret = at("secret");
        for path in [
            "../secret",
            "sub/../../secret",
            secret.to_str().unwrap(),
            "out",
            "in",
            "dir/x",
            "pipe",
            "sub",
            "",
            ".",
            "/dev/null",
        ] {
            assert!(follow(&order("0 0 ", path), &here).is_none(), "{path}");
        }
        assert!(follow(&order("0 0 ", "file"), &here).is_some());
        // Whatever its name is by now.
        fs::rename(at("mnt"), at("was")).unwrap();
        std::os::unix::fs::symlink(dir.path(), at("mnt")).unwrap();
        assert!(follow(&order("0 0 ", "file"), &here).is_some());
        assert!(follow(&order("0 0 ", "secret"), &here).is_none());
    }
}
