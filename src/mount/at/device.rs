//! The FUSE device: opening it, what to say where there is none, and what the kernel reads ahead.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::printable::{printable, printable_path};

pub(in crate::mount) const DEVICE: &str = "/dev/fuse";
/// Longest source shown in the mount table, in bytes; mount(2) takes less than a page.
const MAX_SOURCE_BYTES: usize = 2000;

pub(in crate::mount) fn open_device() -> Result<OwnedFd> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(no_device)
}

/// m6: says what to install or permit.
pub(in crate::mount) fn no_device(error: Errno) -> Error {
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

/// The archive as the mount table shows it: printable, and short enough for mount(2).
pub(in crate::mount) fn source(archive: &Path) -> String {
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

/// Raises what the kernel may read ahead on a device. Only root may; others keep the kernel's
/// 128 KiB, which the readahead below the mount makes up for in part.
pub(in crate::mount) fn raise_readahead(device: &str, bytes: u32) {
    let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
    match std::fs::write(&file, (bytes / 1024).to_string()) {
        Ok(()) => log::debug!("{file} is {}", bytes / 1024),
        Err(error) => log::debug!("cannot raise readahead: {}: {error}", printable(&file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_a_source_is_printable_and_short() {
        assert_eq!(source(Path::new("/a\nb")), "/a\\u{a}b");
        let long = source(Path::new(&"ü/".repeat(1500)));
        assert!(long.len() <= MAX_SOURCE_BYTES + 3 && long.starts_with('…'));
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
}
