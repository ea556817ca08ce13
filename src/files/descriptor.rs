//! A descriptor of this process that its user names, as a shell's `3>file` makes one.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

/// The number of the descriptor that a path means; `None` for any other path.
pub(crate) fn number(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdin" => return Some(0),
        "/dev/stdout" => return Some(1),
        "/dev/stderr" => return Some(2),
        _ => {}
    }
    let name = ["/dev/fd", "/proc/self/fd"]
        .iter()
        .find_map(|dir| path.strip_prefix(dir).ok())?
        .to_str()?;
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| is_number)
}

/// The same open file by a descriptor of its own: to open its path would be another look at it, and
/// would begin a regular file anew.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer; a closed descriptor is EBADF.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl has made it just now, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_names() {
        for (path, means) in [
            ("/dev/fd/3", Some(3)),
            ("//dev/fd/./12/", Some(12)),
            ("/proc/self/fd/0", Some(0)),
            ("/dev/stdout", Some(1)),
            ("/dev/stderr", Some(2)),
            ("/dev/fd", None),
            ("/dev/fd/+3", None),
            ("/dev/fd/-1", None),
            ("/dev/fd/3/x", None),
            ("/dev/fd/99999999999", None),
            ("dev/fd/3", None),
            ("/dev/null", None),
        ] {
            assert_eq!(number(Path::new(path)), means, "{path}");
        }
    }

    #[test]
    fn what_is_not_open_is_not_duplicated() {
        for number in [-1, 1_000_000] {
            assert!(duplicate(number).is_err());
        }
    }
}
