//! How the program mounts: what the library is told, and what concerns its processes.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use modeloci::mount::MountOptions;
use modeloci::{Error, Result};

use super::process;

/// How to mount, and in which processes. Everything has a default but the two paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mount: MountOptions,
    /// The size of the cache was asked for: it is not made to fit.
    pub(crate) cache_stated: bool,
    /// Where messages are appended; `None` for stderr, or for the system log when the mount is in
    /// the background.
    pub(crate) log_file: Option<PathBuf>,
    /// Without a log file, messages go to the system log and not to stderr. The background process
    /// is started with this: nobody reads its stderr.
    pub(crate) system_log: bool,
    /// Serve until the mount ends.
    pub(crate) foreground: bool,
    /// Fill the kernel's page cache in the background while nobody reads.
    pub(crate) prefetch: bool,
    /// An inherited descriptor that gets `READY=1` and a newline when the mount answers.
    pub(crate) ready_fd: Option<i32>,
    /// An inherited descriptor of the directory that holds the mount point, by which a background
    /// process mounts where its starter has looked: of the path only the last name counts then.
    pub(crate) mountpoint_fd: Option<i32>,
    /// One process keeps and serves the mount, with all rights that it has: for debugging.
    pub(crate) no_sandbox: bool,
    /// Command-line options that the background process is started with besides these, such as
    /// `-v`.
    pub(crate) extra_args: Vec<OsString>,
}

impl Options {
    /// Mounts `archive` at `mountpoint` with every default.
    pub(crate) fn new(archive: impl Into<PathBuf>, mountpoint: impl Into<PathBuf>) -> Options {
        Options {
            mount: MountOptions::new(archive, mountpoint),
            cache_stated: false,
            log_file: None,
            system_log: false,
            foreground: false,
            prefetch: false,
            ready_fd: None,
            mountpoint_fd: None,
            no_sandbox: false,
            extra_args: Vec::new(),
        }
    }

    /// Makes the cache fit into the control groups that this process is in, unless its size was asked
    /// for; then returns a warning where it cannot be kept.
    ///
    /// # Errors
    /// When even the smallest does not fit.
    pub(crate) fn fit_memory(&mut self) -> Result<Option<String>> {
        if self.cache_stated {
            return Ok(self.mount.memory_warning());
        }
        self.mount.fit_memory()?;
        Ok(None)
    }

    /// Takes over the directory of the mount point, where there is a descriptor for it.
    pub(crate) fn inherited(&self) -> Result<Option<OwnedFd>> {
        let Some(fd) = self.mountpoint_fd else {
            return Ok(None);
        };
        process::inherit_fd(fd)
            .map(Some)
            .map_err(|_| Error::usage(format!("--mountpoint-fd {fd}: is not an open descriptor")))
    }

    /// Files of ours that the mount must not hide.
    pub(crate) fn apart(&self) -> Vec<(&'static str, &Path)> {
        let log = self.log_file.as_deref();
        log.map(|log| ("the log file", log)).into_iter().collect()
    }
}
