//! Whether root needs a capability to read an archive: for a process that will have none.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, Mode, Stat};

use crate::files::{beneath, calls};

/// True for a layout directory of which root could not read some file without the capability for
/// that; an archive is open already.
pub(super) fn is_closed_to_root(archive: BorrowedFd<'_>) -> bool {
    rustix::process::geteuid().is_root() && is_directory(archive) && !is_open_to_us(archive, LEVELS)
}

/// `blobs`, the algorithms in it, and their blobs.
const LEVELS: u32 = 3;

/// True for a directory that can be read with `levels` of an image layout in it.
fn is_open_to_us(dir: BorrowedFd<'_>, levels: u32) -> bool {
    let may = |stat: &Stat| {
        let group = rustix::process::getegid().as_raw();
        let shift = match stat {
            _ if stat.st_uid == rustix::process::geteuid().as_raw() => 6,
            _ if stat.st_gid == group => 3,
            _ => 0,
        };
        let needed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => 0o5,
            _ => 0o4,
        };
        (stat.st_mode >> shift) & needed == needed
    };
    if !calls::fstat(dir).is_ok_and(|stat| may(&stat)) {
        return false;
    }
    if levels == 0 {
        return true;
    }
    let Ok(names) = calls::names(dir) else {
        return false;
    };
    names.iter().all(|name| {
        let Ok(stat) = calls::statat(dir, name.as_c_str()) else {
            return true; // gone
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if levels == LEVELS && name.as_c_str() != c"blobs" => true,
            FileType::Directory => {
                let inner = calls::openat(dir, name.as_c_str(), beneath::DIRECTORY, Mode::empty());
                inner.is_ok_and(|inner| is_open_to_us(inner.as_fd(), levels - 1))
            }
            FileType::RegularFile => may(&stat),
            _ => true, // refused in any case
        }
    })
}

fn is_directory(fd: BorrowedFd<'_>) -> bool {
    calls::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn e18_files_that_root_reads_only_by_its_capability_are_found() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root has the capability");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let blob = blobs.join("00");
        fs::write(&blob, "").unwrap();
        let closed = || {
            let dir = fs::File::open(dir.path()).unwrap();
            is_closed_to_root(dir.as_fd())
        };
        fs::set_permissions(&blob, Permissions::from_mode(0o600)).unwrap();
        assert!(!closed());
        chown(&blob, Some(65534), Some(65534)).unwrap();
        assert!(closed());
        fs::set_permissions(&blob, Permissions::from_mode(0o604)).unwrap();
        assert!(!closed());
        chown(&blobs, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(&blobs, Permissions::from_mode(0o700)).unwrap();
        assert!(closed());
    }
}
