//! The process that has the kernel read ahead on a mount.
//!
//! The server cannot do that itself: a thread that waits for an answer from its own mount keeps the
//! connection alive when the process is killed, and waits for ever. This process does not have the
//! connection, so that it ends with an error when its server is gone. It opens a file only for the
//! moment in which it asks, since open files keep a mount from being unmounted.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{ffi::OsStr, str, thread};

use rustix::fs::{Advice, Mode, OFlags};

use crate::error::{Error, Result};
use crate::mount::sandbox::{self, Needs};

/// The hidden subcommand that runs [`serve`].
pub const SUBCOMMAND: &str = "prefetcher";
/// Longest order that is read, in bytes: more than a path may have.
const MAX_ORDER_BYTES: u64 = 16 << 10;
/// Where the kernel may read only so far at a time, it is asked again from there on.
const PIECE_BYTES: usize = 128 << 10;

/// How long it may take to end once it was killed.
const ENDING: Duration = Duration::from_secs(1);

/// What an order led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mount) enum Answer {
    /// The kernel reads what it has not read yet.
    Asked,
    /// The file is not there any more: the mount is gone, or there is another one.
    Gone,
}

/// The server's end.
pub(in crate::mount) struct Filler {
    orders: File,
    answers: File,
}

/// The process. It is ended by whoever has started it, once and for all.
#[derive(Clone)]
pub(in crate::mount) struct Process(Arc<Mutex<Child>>);

impl Process {
    /// Ends it, if it has not ended by itself, and leaves no zombie. One that waits for an answer of
    /// a server that gives none ends only when the connection does: it is not waited for.
    pub(in crate::mount) fn end(&self) {
        // Nothing panics while it is held.
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let deadline = Instant::now() + ENDING;
        while let Ok(None) = child.try_wait()
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(in crate::mount) fn id(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).id()
    }
}

impl Filler {
    /// Starts the process for files on `device`; with a mount point it gives up all rights but to
    /// read there. Returns its ends for orders and answers.
    pub(in crate::mount) fn start(
        device: u64,
        confined_to: Option<&Path>,
    ) -> Result<(OwnedFd, OwnedFd, Process)> {
        let mut command = Command::new("/proc/self/exe");
        std::os::unix::process::CommandExt::arg0(&mut command, "modeloci");
        command
            .args([SUBCOMMAND, &device.to_string()])
            .args(confined_to)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let start = Error::io("start", "the process that prefetches");
        let mut child = command.spawn().map_err(start)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(orders), Some(answers)) => Ok((
                orders.into(),
                answers.into(),
                Process(Arc::new(Mutex::new(child))),
            )),
            _ => Err(Error::environment(
                "the process that prefetches",
                "has no pipes",
            )),
        }
    }

    /// Talks to the process over its ends.
    pub(in crate::mount) fn over(orders: OwnedFd, answers: OwnedFd) -> Filler {
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

/// Follows the orders of a server, from standard input, until there are no more. With a mount point
/// this process first gives up all rights but to read there: orders come from whoever decodes the
/// model.
///
/// # Errors
/// When the server is gone.
pub fn serve(device: u64, confined_to: Option<&Path>) -> Result<()> {
    if let Some(mountpoint) = confined_to {
        confine(mountpoint).map_err(Error::io("use the mount on", mountpoint))?;
    }
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

/// Nothing of the mount stays open, which would keep it from being unmounted.
fn confine(mountpoint: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(mountpoint, flags, Mode::empty())?;
    sandbox::enter(&Needs {
        read: vec![root.as_fd()],
        // The files may belong to anyone.
        read_all: true,
        ..Needs::default()
    });
    Ok(())
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
