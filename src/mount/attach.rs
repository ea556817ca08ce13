//! Attaching a FUSE connection to a directory, and detaching it.
//!
//! Root calls mount(2); anyone else goes through fuse3's setuid `fusermount3`. Both are done here
//! and not by fuser 0.18.0, because there the source is not escaped (a comma in the archive's path
//! injects mount options), the check whether something is still mounted is inverted (tearing down
//! after someone else's unmount may unmount something else), a busy mount cannot be unmounted as
//! root, and auto-unmount may leave a dangling mount.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use super::adapter::MAX_REQUEST_BYTES;
use super::options::MountOptions;
use super::{FS_TYPE, mountinfo};
use crate::entry_path::{printable, printable_bytes, printable_path};
use crate::error::{Error, Result};

const DEVICE: &str = "/dev/fuse";
const FUSE_CONF: &str = "/etc/fuse.conf";
/// Longest source shown in the mount table, in bytes; mount(2) takes less than a page.
const MAX_SOURCE_BYTES: usize = 2000;

/// A mount of ours. Dropping it detaches it.
#[derive(Debug)]
pub(super) struct Attached {
    mountpoint: PathBuf,
    /// `None` until the mount table was read.
    device: Option<String>,
    /// Tells whether the connection, and with it the device number, is still ours.
    connection: Option<OwnedFd>,
    detached: bool,
}

/// What came of trying to detach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detached {
    /// It is unmounted.
    Done,
    /// Something uses it: an open file, a working directory.
    Busy,
    /// Something else is mounted there now, or nothing: it was unmounted already.
    NotOurs,
}

/// Mounts on `mountpoint` (canonical); returns the connection to serve.
pub(super) fn attach(mountpoint: &Path, options: &MountOptions) -> Result<(OwnedFd, Attached)> {
    let source = source(&options.archive);
    let fd = if rustix::process::geteuid().is_root() {
        attach_directly(mountpoint, &source, options)?
    } else {
        attach_by_helper(mountpoint, &source, options)?
    };
    // From here on it is mounted: whatever fails below, this detaches it.
    let mut attached = Attached {
        mountpoint: mountpoint.to_path_buf(),
        device: None,
        connection: None,
        detached: false,
    };
    let mounts = mountinfo::read()?;
    match mountinfo::topmost(&mounts, mountpoint) {
        Some(mount) if mount.fs_type == FS_TYPE => attached.device = Some(mount.device.clone()),
        _ => {
            // What is there now is somebody else's.
            attached.detached = true;
            return Err(Error::environment(
                printable_path(mountpoint),
                "was mounted, but does not show in the mount table",
            ));
        }
    }
    let connection = fd.try_clone();
    attached.connection = Some(connection.map_err(Error::io("use", "the FUSE connection"))?);
    Ok((fd, attached))
}

impl Attached {
    /// `major:minor` of the mount's device.
    pub(super) fn device(&self) -> &str {
        self.device.as_deref().unwrap_or_default()
    }

    /// The mount's device, as `stat` gives it.
    pub(super) fn device_number(&self) -> Result<u64> {
        let numbers = self.device().split_once(':');
        numbers
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .map(|(major, minor)| rustix::fs::makedev(major, minor))
            .ok_or_else(|| Error::environment(printable_path(&self.mountpoint), "has no device"))
    }

    /// Unmounts; `lazily` also when it is in use: it then goes for good when the last user does.
    pub(super) fn detach(&mut self, lazily: bool) -> Result<Detached> {
        if self.detached {
            return Ok(Detached::NotOurs);
        }
        let outcome = if self.is_there()? {
            detach(&self.mountpoint, lazily)?
        } else {
            Detached::NotOurs
        };
        self.detached = outcome != Detached::Busy;
        Ok(outcome)
    }

    /// True when what is mounted there is still ours.
    fn is_there(&self) -> Result<bool> {
        let Some(device) = &self.device else {
            // It was mounted a moment ago, and then something failed. The mount table may be
            // unreadable, for want of descriptors.
            return Ok(true);
        };
        let Ok(mounts) = mountinfo::read() else {
            // For want of descriptors, say. While the connection lives, no other has its number.
            return Ok(self.connected() && device_at(&self.mountpoint).as_ref() == Some(device));
        };
        let ours = mountinfo::topmost(&mounts, &self.mountpoint)
            .is_some_and(|m| m.device == *device && m.fs_type == FS_TYPE);
        // Once the connection has ended the kernel gives its device number to the next mount, which
        // may be on the same directory already. Ours is then the one that answers nothing.
        Ok(ours && (self.connected() || is_dead(&self.mountpoint)))
    }

    /// False once the connection has ended.
    fn connected(&self) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        let mut fds = [PollFd::new(connection, PollFlags::empty())];
        let polled = rustix::event::poll(&mut fds, Some(&Timespec::default()));
        polled.is_ok() && !fds[0].revents().contains(PollFlags::ERR)
    }
}

/// `major:minor` of the device that a look-up of `path` reaches, without a descriptor and without
/// asking the process that serves it.
fn device_at(path: &Path) -> Option<String> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::empty()).ok()?;
    Some(format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor))
}

/// True for a mount whose connection has ended.
fn is_dead(mountpoint: &Path) -> bool {
    matches!(
        rustix::fs::statfs(mountpoint),
        Err(Errno::NOTCONN | Errno::CONNABORTED)
    )
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = self.detach(true) {
            log::error!("{error}");
        }
    }
}

/// Unmounts whatever is on top of `mountpoint`.
pub(super) fn detach(mountpoint: &Path, lazily: bool) -> Result<Detached> {
    if rustix::process::geteuid().is_root() {
        let mut flags = UnmountFlags::NOFOLLOW;
        if lazily {
            flags |= UnmountFlags::DETACH;
        }
        return match rustix::mount::unmount(mountpoint, flags) {
            Ok(()) => Ok(Detached::Done),
            Err(Errno::BUSY) => Ok(Detached::Busy),
            Err(Errno::INVAL | Errno::NOENT) => Ok(Detached::NotOurs),
            Err(error) => Err(Error::io("unmount", mountpoint)(error.into())),
        };
    }
    let mut command = Command::new(helper()?);
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(mountpoint)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io("run", "fusermount3"))?;
    if output.status.success() {
        return Ok(Detached::Done);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("busy") {
        return Ok(Detached::Busy);
    }
    let mut problem = without_program(text.trim());
    if problem.contains("not found in") {
        // It looks for mounts of this user.
        match mountinfo::topmost(&mountinfo::read()?, mountpoint) {
            Some(mount) if mount.fs_type == FS_TYPE => {
                problem = "was mounted by another user; unmount it as that user or as root";
            }
            _ => return Ok(Detached::NotOurs),
        }
    }
    Err(Error::environment(
        format!("cannot unmount {}", printable_path(mountpoint)),
        problem,
    ))
}

/// A message of `fusermount3` without its name, which it gives as it was called: with its path.
fn without_program(text: &str) -> &str {
    match text.split_once(": ") {
        Some((program, rest)) if program.ends_with("fusermount3") => rest,
        _ => text,
    }
}

fn attach_directly(mountpoint: &Path, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    let fd = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(no_device)?;
    let mut flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    if options.noexec {
        flags |= MountFlags::NOEXEC;
    }
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={MAX_REQUEST_BYTES}",
        fd.as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).unwrap_or_default();
    match rustix::mount::mount(source, mountpoint, FS_TYPE, flags, data.as_c_str()) {
        Ok(()) => Ok(fd),
        Err(Errno::PERM) => Err(Error::environment(
            format!("cannot mount on {}", printable_path(mountpoint)),
            "not permitted: mounting needs CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN \
             --device /dev/fuse)",
        )),
        Err(Errno::NODEV) => Err(no_device(Errno::NODEV)),
        Err(error) => Err(Error::io("mount on", mountpoint)(error.into())),
    }
}

/// m6: says what to install or permit.
fn no_device(error: Errno) -> Error {
    let advice = match error {
        Errno::ACCESS | Errno::PERM => {
            "may not be opened: it should have mode 0666; in a container, pass --device /dev/fuse"
        }
        _ => {
            "is missing: load the kernel's module with \"modprobe fuse\"; in a container, pass \
             --device /dev/fuse"
        }
    };
    Error::environment(DEVICE, advice)
}

/// Has `fusermount3` mount, and receives the descriptor that it opened (the protocol of libfuse:
/// it sends the descriptor over the socket that `_FUSE_COMMFD` names).
fn attach_by_helper(mountpoint: &Path, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    if options.allow_other {
        let conf = std::fs::read_to_string(FUSE_CONF).unwrap_or_default();
        if !conf_allows_other(&conf) {
            return Err(Error::environment(
                "--allow-other",
                format!(
                    "{FUSE_CONF} does not let users do that; root can allow it with a line \
                     \"user_allow_other\" there"
                ),
            ));
        }
    }
    if !Path::new(DEVICE).exists() {
        return Err(no_device(Errno::NOENT));
    }
    let helper = helper()?;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| Error::io("create", "a socket pair")(e.into()))?;
    // The one descriptor that the helper inherits.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())
        .map_err(|e| Error::io("create", "a socket pair")(e.into()))?;
    let mut list = format!("ro,nosuid,nodev,default_permissions,max_read={MAX_REQUEST_BYTES}");
    if options.noexec {
        list.push_str(",noexec");
    }
    if options.allow_other {
        list.push_str(",allow_other");
    }
    list.push_str(",subtype=modeloci,fsname=");
    list.push_str(&escape(source));
    let child = Command::new(helper)
        .arg("-o")
        .arg(list)
        .arg("--")
        .arg(mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("run", "fusermount3"))?;
    drop(theirs);
    let received = receive_fd(ours.as_fd());
    let output = child
        .wait_with_output()
        .map_err(Error::io("run", "fusermount3"))?;
    match received {
        Ok(Some(fd)) if output.status.success() => Ok(fd),
        _ => {
            let text = printable_bytes(output.stderr.trim_ascii());
            let text = without_program(&text);
            Err(Error::environment(
                format!("cannot mount on {}", printable_path(mountpoint)),
                if text.is_empty() {
                    "fusermount3 failed without saying why"
                } else {
                    text
                },
            ))
        }
    }
}

/// The descriptor that arrives; `None` when the other side closes without sending one.
fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    loop {
        match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return Ok(fds.next());
        }
    }
    Ok(None)
}

/// The setuid helper; `$PATH` first, then where distributions put it.
fn helper() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"];
    std::env::split_paths(&path)
        .chain(usual.into_iter().map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("fusermount3"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Error::environment(
                "fusermount3",
                "is missing: users other than root need it to mount; install the package fuse3",
            )
        })
}

/// fuse.conf(5): a line of its own; `#` begins a comment.
fn conf_allows_other(conf: &str) -> bool {
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

/// The archive as the mount table shows it: printable, and short enough for mount(2).
fn source(archive: &Path) -> String {
    let mut source = printable_path(archive);
    if source.len() > MAX_SOURCE_BYTES {
        let mut start = source.len() - MAX_SOURCE_BYTES;
        while !source.is_char_boundary(start) {
            start += 1;
        }
        source = format!("…{}", &source[start..]);
    }
    source
}

/// m1: `fusermount3` splits its options at commas, and takes the character after a backslash as
/// it is.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, ',' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Raises what the kernel may read ahead on a device. Only root may; others keep the kernel's
/// 128 KiB, which the readahead below the mount makes up for in part.
pub(super) fn raise_readahead(device: &str, bytes: u32) {
    let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
    match std::fs::write(&file, (bytes / 1024).to_string()) {
        Ok(()) => log::debug!("{file} is {}", bytes / 1024),
        Err(error) => log::debug!("cannot raise readahead: {}: {error}", printable(&file)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn m1_a_source_cannot_inject_options() {
        assert_eq!(escape("/a,allow_other,b\\c"), "/a\\,allow_other\\,b\\\\c");
        assert_eq!(source(Path::new("/a\nb")), "/a\\u{a}b");
        let long = source(Path::new(&"ü/".repeat(1500)));
        assert!(long.len() <= MAX_SOURCE_BYTES + 3 && long.starts_with('…'));
    }

    #[test]
    fn m4_only_a_line_of_its_own_allows_others() {
        assert!(conf_allows_other("# x\nuser_allow_other\n"));
        assert!(conf_allows_other("  user_allow_other  "));
        assert!(!conf_allows_other("#user_allow_other\nmount_max = 1"));
        assert!(!conf_allows_other(""));
    }

    #[test]
    fn devices_are_spelt_as_in_the_mount_table() {
        let mounts = mountinfo::read().unwrap();
        let proc = mountinfo::topmost(&mounts, Path::new("/proc")).unwrap();
        assert_eq!(device_at(Path::new("/proc")).as_ref(), Some(&proc.device));
        assert_eq!(device_at(Path::new("/does/not/exist")), None);
    }

    #[test]
    fn messages_of_the_helper_lose_its_path() {
        for (text, rest) in [
            ("/usr/bin/fusermount3: mount failed: x", "mount failed: x"),
            ("fusermount3: mount failed: x", "mount failed: x"),
            ("mount failed: x", "mount failed: x"),
            ("", ""),
        ] {
            assert_eq!(without_program(text), rest);
        }
    }

    #[test]
    fn m6_errors_say_what_to_do() {
        assert!(
            no_device(Errno::NOENT)
                .to_string()
                .contains("modprobe fuse")
        );
        assert!(no_device(Errno::ACCESS).to_string().contains("0666"));
    }

    #[test]
    fn a_helper_that_sends_nothing_is_noticed() {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        drop(theirs);
        assert!(receive_fd(ours.as_fd()).unwrap().is_none());
    }
}
