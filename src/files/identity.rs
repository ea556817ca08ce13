//! Which file it is: what is compared between two looks at one name.

use rustix::fs::{FileType, Stat};

/// Tells whether a file is still the same, with the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Device and inode.
    node: (u64, u64),
    /// What it is: inode numbers are used again.
    kind: FileType,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification, in seconds and nanoseconds.
    modified: [i64; 2],
    /// Time of the last change of status, in seconds and nanoseconds.
    changed: [i64; 2],
}

impl Identity {
    /// True for what may be another version of the same file.
    pub(crate) fn is_same_file(&self, other: &Identity) -> bool {
        self.node == other.node && self.kind == other.kind
    }

    /// True for the same content under, perhaps, another name: renaming a file changes its status.
    pub(crate) fn is_same_version(&self, other: &Identity) -> bool {
        self.is_same_file(other) && self.size == other.size && self.modified == other.modified
    }

    /// Device and inode.
    pub(crate) fn node(&self) -> (u64, u64) {
        self.node
    }

    /// The identity that a stat describes.
    #[expect(
        clippy::unnecessary_cast,
        reason = "the fields' types differ by target"
    )]
    pub(crate) fn of(stat: &Stat) -> Identity {
        Identity {
            node: node(stat),
            kind: FileType::from_raw_mode(stat.st_mode),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: [stat.st_mtime as i64, stat.st_mtime_nsec as i64],
            changed: [stat.st_ctime as i64, stat.st_ctime_nsec as i64],
        }
    }
}

/// Device and inode.
#[expect(
    clippy::unnecessary_cast,
    reason = "the fields' types differ by target"
)]
pub(crate) fn node(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}
