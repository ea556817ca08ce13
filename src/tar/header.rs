//! The parser of header blocks, shared by [`outer`](super::outer) and [`members`](super::members).

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
    /// A device, FIFO, or a type that this parser does not know.
    Special,
}

/// One entry, with pax and GNU extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as stored: bytes, not yet checked against any rule.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of data that follow the header; 0 for all but files.
    pub size: u64,
    /// Permission bits as stored.
    pub mode: u32,
    /// Modification time, in seconds since the epoch.
    pub mtime: i64,
    /// Target of a link; empty for everything else.
    pub link: Vec<u8>,
    /// Offset of the entry's first header block (extensions included), in bytes of the tar.
    pub header_offset: u64,
    /// Offset of the data, in bytes of the tar.
    pub data_offset: u64,
}
