//! `fusermount3`, the setuid program of fuse3 through which users other than root mount.
//!
//! It takes nothing but a path, and resolves it with the rights of its user. So what it has mounted
//! is looked for where it should be, and taken away when it is elsewhere.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use super::device::{DEVICE, no_device};
use super::held::Detached;
use crate::error::{Error, Result};
use crate::mount::options::{MAX_REQUEST_BYTES, MountOptions};
use crate::printable::{printable_bytes, printable_path};

const FUSE_CONF: &str = "/etc/fuse.conf";

/// Has `fusermount3` mount, and receives the descriptor that it opened (the protocol of libfuse:
/// it sends the descriptor over the socket that `_FUSE_COMMFD` names).
pub(super) fn mount(mountpoint: &Path, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    if options.allow_other {
        check_others_are_allowed()?;
    }
    if let Some((option, _)) = options.labels.iter().next() {
        return Err(Error::environment(
            format!("mount option \"{option}\""),
            "fusermount3 takes no labels of SELinux: only root can set them",
        ));
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
    let child = Command::new(helper)
        .arg("-o")
        .arg(list(source, options))
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
        _ => Err(failed(mountpoint, &output.stderr)),
    }
}

/// The options of the mount, as the helper takes them.
fn list(source: &str, options: &MountOptions) -> String {
    let mut list = format!("ro,nosuid,nodev,default_permissions,max_read={MAX_REQUEST_BYTES}");
    if options.noexec {
        list.push_str(",noexec");
    }
    if options.allow_other {
        list.push_str(",allow_other");
    }
    list.push_str(",subtype=modeloci,fsname=");
    list.push_str(&escape(source));
    list
}

/// What the helper had to say.
fn failed(mountpoint: &Path, said: &[u8]) -> Error {
    let text = printable_bytes(said.trim_ascii());
    Error::environment(
        format!("cannot mount on {}", printable_path(mountpoint)),
        match without_program(&text) {
            "" => "fusermount3 failed without saying why",
            text => text,
        },
    )
}

/// m4: only root says whether users may do that.
fn check_others_are_allowed() -> Result<()> {
    let conf = std::fs::read_to_string(FUSE_CONF).unwrap_or_default();
    match conf_allows_other(&conf) {
        true => Ok(()),
        false => Err(Error::environment(
            "--allow-other",
            format!(
                "{FUSE_CONF} does not let users do that; root can allow it with a line \
                 \"user_allow_other\" there"
            ),
        )),
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

/// Has `fusermount3` unmount what is topmost at a path, if this user has mounted it.
/// [`Detached::NotOurs`] when it has not.
pub(super) fn unmount(mountpoint: &Path, lazily: bool) -> Result<Detached> {
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
    let problem = without_program(text.trim());
    if problem.contains("not found in") {
        // It looks for mounts of this user.
        return Ok(Detached::NotOurs);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn m1_a_source_cannot_inject_options() {
        assert_eq!(escape("/a,allow_other,b\\c"), "/a\\,allow_other\\,b\\\\c");
    }

    #[test]
    fn m4_only_a_line_of_its_own_allows_others() {
        assert!(conf_allows_other("# x\nuser_allow_other\n"));
        assert!(conf_allows_other("  user_allow_other  "));
        assert!(!conf_allows_other("#user_allow_other\nmount_max = 1"));
        assert!(!conf_allows_other(""));
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
