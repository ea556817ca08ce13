//! An entry of a tar, with all headers that describe it put together.

use crate::printable::printable_bytes;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link.
    HardLink,
    /// A device or FIFO.
    Special,
}

/// One entry, with pax and GNU extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as stored: at most [`limits::MAX_PATH_BYTES`](crate::limits::MAX_PATH_BYTES) bytes without a NUL, not yet checked
    /// against any other rule. Never ends in `/` for a file.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of data that follow the header, at most [`limits::MAX_FILE_BYTES`](crate::limits::MAX_FILE_BYTES); 0 for all but
    /// files.
    pub size: u64,
    /// Permission bits as stored.
    pub mode: u32,
    /// Modification time, in seconds since the epoch.
    pub mtime: i64,
    /// Target of a link, as stored; empty for everything else.
    pub link: Vec<u8>,
    /// Offset of the entry's first header block (extensions included), in bytes of the tar.
    pub header_offset: u64,
    /// Offset of the data, in bytes of the tar.
    pub data_offset: u64,
}

impl Entry {
    /// Names the entry in messages.
    pub fn subject(&self) -> String {
        subject(&self.path)
    }
}

/// Names an entry in messages.
pub(super) fn subject(path: &[u8]) -> String {
    const SHOWN: usize = 200;
    match path.get(..SHOWN) {
        Some(start) => format!("entry \"{}…\"", printable_bytes(start)),
        None => format!("entry \"{}\"", printable_bytes(path)),
    }
}
