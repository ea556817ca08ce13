//! How the program mounts: what the library is told, and what concerns its processes.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use modeloci::mount::MountOptions;
use modeloci::mount::parts;
use modeloci::{Error, Result};

use super::process;

/// What a starter has left open for the mount.
pub(crate) struct Inherited {
    /// The directory that holds the mount point.
    pub(crate) parent: Option<OwnedFd>,
    /// A connection that is mounted already.
    pub(crate) connection: Option<OwnedFd>,
}

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

    /// Takes over what the mount point is named by. Must be called before this process opens files of
    /// its own, and once.
    pub(crate) fn inherited(&self) -> Result<Inherited> {
        let parent = self.mountpoint_fd.map(|fd| {
            process::inherit_fd(fd).map_err(|_| {
                Error::usage(format!("--mountpoint-fd {fd}: is not an open descriptor"))
            })
        });
        let mountpoint = &self.mount.mountpoint;
        let connection = match parent {
            Some(_) => None,
            None => parts::given_descriptor(mountpoint)?,
        };
        if self.ready_fd.is_some() && connection == self.ready_fd {
            return Err(Error::usage("--ready-fd is the descriptor of the mount"));
        }
        let connection = connection.map(|fd| {
            process::inherit_fd(fd).map_err(Error::io("use the mount point", mountpoint))
        });
        let inherited = Inherited {
            parent: parent.transpose()?,
            connection: connection.transpose()?,
        };
        if inherited.connection.is_some() && self.prefetch {
            return Err(Error::usage(
                "prefetch needs a mount of modeloci's own: where this one is, it does not know",
            ));
        }
        Ok(inherited)
    }

    /// Checks what is to be mounted on.
    pub(crate) fn target(&self, inherited: Option<Inherited>) -> Result<parts::Target> {
        let (connection, parent) = match inherited {
            Some(Inherited { connection, parent }) => (connection, parent),
            None => (None, None),
        };
        parts::Target::prepare(&self.mount, connection, parent, &self.apart())
    }

    /// Files of ours that the mount must not hide.
    pub(crate) fn apart(&self) -> Vec<(&'static str, &Path)> {
        let log = self.log_file.as_deref();
        log.map(|log| ("the log file", log)).into_iter().collect()
    }
}
