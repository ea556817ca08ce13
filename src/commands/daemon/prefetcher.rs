//! The process that has the kernel read ahead on a mount: this program, started again for that.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use modeloci::mount::parts::{self, Attached};
use modeloci::{Error, Result};

use super::process;
use super::sandbox::{self, Needs};
use crate::cli::PREFETCHER;

/// How long it may take to end once it was killed.
const ENDING: Duration = Duration::from_secs(1);

/// The process. It is ended by whoever has started it, once and for all.
#[derive(Clone)]
pub(crate) struct Process(Arc<Mutex<Child>>);

impl Process {
    /// Ends it, if it has not ended by itself, and leaves no zombie. One that waits for an answer of
    /// a server that gives none ends only when the connection does: it is not waited for.
    pub(crate) fn end(&self) {
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

    pub(crate) fn id(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).id()
    }
}

/// Ends the process that prefetches when it is dropped.
pub(crate) struct Ends(pub(crate) Option<Process>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.end();
        }
    }
}

/// Starts the process for a mount of ours; `confined` it gives up all rights but to read there.
/// Returns its ends for orders and answers.
pub(crate) fn start(attached: &Attached, confined: bool) -> Result<(OwnedFd, OwnedFd, Process)> {
    let (directory, mount, device) = attached.on()?;
    let directory = directory.as_raw_fd();
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, "modeloci");
    command
        .args([PREFETCHER, &directory.to_string(), &mount.to_string()])
        .arg(device)
        .args(confined.then_some("--confined"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let start = Error::io("start", "the process that prefetches");
    let mut child = process::keeping(&mut command, vec![directory])
        .spawn()
        .map_err(start)?;
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

/// Does what a server orders, for the mount of that number and device on the directory that an
/// inherited descriptor is of. Confined, this process first gives up all rights but to read there:
/// orders come from whoever decodes the model.
///
/// # Errors
/// When the mount or the server is gone.
pub(crate) fn run(directory: RawFd, mount: u32, device: String, confined: bool) -> Result<()> {
    let fail = |error| Error::io("use", "the mount to read ahead on")(error);
    let directory = process::inherit_fd(directory).map_err(fail)?;
    let on = parts::PrefetchOn::new(directory, mount, device);
    if confined {
        confine(&on).map_err(fail)?;
        #[cfg(debug_assertions)]
        super::escape::try_files();
    }
    parts::follow_orders(&on)
}

/// Nothing of the mount stays open, which would keep it from being unmounted.
fn confine(on: &parts::PrefetchOn) -> io::Result<()> {
    let root = on.root()?;
    sandbox::enter(&Needs {
        read: vec![root.as_fd()],
        // The files, and the directory that it is mounted on, may belong to anyone.
        read_all: true,
        ..Needs::default()
    });
    Ok(())
}
