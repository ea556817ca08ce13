//! How the program mounts: what the library is told, and what concerns its processes.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use modeloci::mount::MountOptions;
use modeloci::mount::parts::{self, Named};
use modeloci::{Error, Result};

use super::process;

/// What a starter has left open for the mount. None of it is kept but the connection: what else is
/// named so is opened anew, since with the descriptor the starter's locks would be kept.
#[derive(Default)]
pub(crate) struct Inherited {
    /// The mount point.
    pub(crate) directory: Option<OwnedFd>,
    /// A connection that is mounted already.
    pub(crate) connection: Option<OwnedFd>,
    /// What else options name, until it has been opened.
    pub(crate) named: Vec<OwnedFd>,
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
    /// It gets lines before that, which say how far opening is.
    pub(crate) ready_progress: bool,
    /// An inherited descriptor of the mount point, by which a background process mounts where its starter
    /// has looked: the path only says what it is called.
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
            ready_progress: false,
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

    /// Takes over the descriptors that options name. Must be called before this process opens files of
    /// its own, and once.
    pub(crate) fn inherited(&self) -> Result<Inherited> {
        let mountpoint = &self.mount.mountpoint;
        let named = match self.mountpoint_fd {
            Some(fd) => Some(Named::Directory(fd)),
            None => parts::given_descriptor(mountpoint)?,
        };
        let mut inherited = Inherited::default();
        let mut taken: Vec<RawFd> = self.ready_fd.into_iter().collect();
        if let Some(Named::Connection(fd) | Named::Directory(fd)) = named {
            if taken.contains(&fd) {
                return Err(Error::usage("--ready-fd is the descriptor of the mount"));
            }
            taken.push(fd);
        }
        let take = |fd| {
            process::inherit_fd(fd).map_err(|error| match self.mountpoint_fd {
                Some(_) => Error::usage(format!("--mountpoint-fd {fd}: is not an open descriptor")),
                None => Error::io("use the mount point", mountpoint)(error),
            })
        };
        match named {
            Some(Named::Connection(fd)) => inherited.connection = Some(take(fd)?),
            // A standard stream stays where it is: its path leads to the directory all the same.
            Some(Named::Directory(0..=2)) | None => {}
            Some(Named::Directory(fd)) => inherited.directory = Some(take(fd)?),
        }
        for fd in self.named_descriptors() {
            if !taken.contains(&fd) {
                taken.push(fd);
                // One that is not open is missed by whoever opens it.
                inherited.named.extend(process::inherit_fd(fd).ok());
            }
        }
        if inherited.connection.is_some() && self.prefetch {
            return Err(Error::usage(
                "prefetch needs a mount of modeloci's own: where this one is, it does not know",
            ));
        }
        Ok(inherited)
    }

    /// Descriptors that options name, as in `/dev/fd/7`, besides the mount point.
    pub(crate) fn named_descriptors(&self) -> impl Iterator<Item = RawFd> {
        let paths = [Some(&self.mount.archive), self.log_file.as_ref()];
        let names = paths.into_iter().flatten();
        names.filter_map(|path| parts::descriptor_name(path)?.parse().ok())
    }

    /// Checks what is to be mounted on. Returns with it what was inherited besides.
    pub(crate) fn target(&self, inherited: Inherited) -> Result<(parts::Target, Vec<OwnedFd>)> {
        let Inherited {
            directory,
            connection,
            named,
        } = inherited;
        let target = parts::Target::prepare(&self.mount, connection, directory, &self.apart())?;
        Ok((target, named))
    }

    /// Files of ours that the mount must not hide.
    pub(crate) fn apart(&self) -> Vec<(&'static str, &Path)> {
        let log = self.log_file.as_deref();
        log.map(|log| ("the log file", log)).into_iter().collect()
    }
}
