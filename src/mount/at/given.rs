//! A connection that somebody else has mounted, given in the place of a mount point: `/dev/fd/N`, by
//! which those who may mount do it for programs that may not (libfuse since 3.3, Apptainer, drivers of
//! container storage).
//!
//! Guarantees: what is served is an open `/dev/fuse` that is mounted, and that nobody has served before.
//! The mount belongs to whoever has made it: it is not unmounted here, and what a mount is told only
//! when it is made is refused.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::place::mount_point;
use crate::error::{Error, Result};
use crate::mount::options::{MountOptions, descriptor_name};

/// Major and minor number of `/dev/fuse` (Linux, Documentation/admin-guide/devices.txt).
const FUSE: (u32, u32) = (10, 229);
/// How long the kernel may take for its first question, which it asks when the mount is made.
const FIRST_REQUEST: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A connection that is mounted, and waits to be served.
#[derive(Debug)]
pub struct Given {
    pub(super) connection: OwnedFd,
    /// What it is called in messages.
    pub(super) path: PathBuf,
}

/// What a mount point of the form `/dev/fd/N` means, by the number of the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A mount point like any other.
    Directory(RawFd),
    /// A connection, which somebody else has mounted.
    Connection(RawFd),
}

/// What a mount point of the form `/dev/fd/N` means; `None` for a path.
///
/// # Errors
/// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when N is neither.
pub fn descriptor(mountpoint: &Path) -> Result<Option<Named>> {
    let Some(name) = descriptor_name(mountpoint) else {
        return Ok(None);
    };
    let refuse = |why: &str| Err(Error::environment(mount_point(mountpoint), why));
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = name.parse().ok().filter(|_| is_number) else {
        return refuse("is not the number of a descriptor");
    };
    let stat = match rustix::fs::stat(format!("/proc/self/fd/{number}")) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return refuse("is not an open descriptor"),
        Err(error) => return Err(Error::io("use the mount point", mountpoint)(error.into())),
    };
    let device = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(Some(Named::Directory(number))),
        FileType::CharacterDevice if device == FUSE && number <= 2 => {
            refuse("is a standard stream; use 3 or more")
        }
        FileType::CharacterDevice if device == FUSE => Ok(Some(Named::Connection(number))),
        _ => refuse("is neither a FUSE connection (an open /dev/fuse) nor a directory"),
    }
}

impl Given {
    /// Takes a connection; in messages it is called as the mount point of the options.
    ///
    /// # Errors
    /// Those of [`check`](Given::check).
    pub fn new(connection: OwnedFd, options: &MountOptions) -> Result<Given> {
        Given::check(connection.as_fd(), options)?;
        Ok(Given {
            connection,
            path: options.mountpoint.clone(),
        })
    }

    /// Checks that a connection is mounted and waits, and that nothing is asked for that only whoever
    /// mounts can do.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for such options,
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) for a connection that cannot be served.
    pub fn check(connection: BorrowedFd<'_>, options: &MountOptions) -> Result<()> {
        let name = mount_point(&options.mountpoint);
        for (asked, option) in [
            (options.allow_other, "allow_other"),
            (options.noexec, "noexec"),
            (options.nonempty, "nonempty"),
        ]
        .into_iter()
        .chain(options.labels.iter().map(|(option, _)| (true, option)))
        {
            if asked {
                return Err(Error::usage(format!(
                    "mount option \"{option}\": is for whoever mounts, and {name} is mounted already"
                )));
            }
        }
        let refuse = |why: &str| Err(Error::environment(&name, why));
        let mut fds = [PollFd::from_borrowed_fd(connection, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&FIRST_REQUEST))
            .map_err(|error| Error::io("use the mount point", &options.mountpoint)(error.into()))?;
        let found = fds[0].revents();
        if found.contains(PollFlags::ERR) {
            refuse("is an open /dev/fuse that is not mounted: mount(2) it first, with fd=N")
        } else if !found.contains(PollFlags::IN) {
            refuse("is a FUSE connection that was served before: mount(2) a new one")
        } else {
            Ok(())
        }
    }
}

impl AsFd for Given {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsRawFd as _;

    use super::*;

    fn refused(path: &str) -> String {
        let error = descriptor(Path::new(path)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Environment, "{error}");
        error.to_string()
    }

    #[test]
    fn m11_only_a_fuse_device_is_taken_for_a_connection() {
        for path in [
            "/mnt",
            "/dev/fd",
            "/dev/fd/7/deeper",
            "dev/fd/7",
            "/dev/fd/..",
        ] {
            assert_eq!(descriptor(Path::new(path)).unwrap(), None, "{path}");
        }
        for bad in ["99999999999", "2147483648", "+7", "-1", "7x", "x"] {
            let text = refused(&format!("/dev/fd/{bad}"));
            assert!(text.contains("is not the number of a descriptor"), "{text}");
        }
        assert!(refused("/dev/fd/1000000").ends_with("is not an open descriptor"));
        let null = std::fs::File::open("/dev/null").unwrap();
        for dir in ["/dev/fd", "/proc/self/fd"] {
            let text = refused(&format!("{dir}/{}", null.as_raw_fd()));
            assert!(text.contains("is neither a FUSE connection"), "{text}");
        }
        let dir = std::fs::File::open("/").unwrap();
        let path = format!("/dev/fd/{}", dir.as_raw_fd());
        let named = Some(Named::Directory(dir.as_raw_fd()));
        assert_eq!(descriptor(Path::new(&path)).unwrap(), named);
    }

    #[test]
    fn m11_a_device_that_is_not_mounted_is_refused() {
        let device = super::super::device::open_device().unwrap();
        let path = format!("/dev/fd/{}", device.as_raw_fd());
        let number = descriptor(Path::new(&path)).unwrap();
        assert_eq!(number, Some(Named::Connection(device.as_raw_fd())));
        let mut options = MountOptions::new("/a.tar", path);
        let error = Given::check(device.as_fd(), &options).unwrap_err();
        assert!(error.to_string().contains("is not mounted"), "{error}");
        options.allow_other = true;
        let error = Given::check(device.as_fd(), &options).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
        assert!(error.to_string().contains("\"allow_other\""), "{error}");
    }
}
