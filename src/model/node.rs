//! What a tree of files is made of.

use std::time::Duration;

/// The number of a file or directory. The root is [`Inode::ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(pub u64);

impl Inode {
    /// The root directory.
    pub const ROOT: Inode = Inode(1);
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// Attributes of an inode. They never change while the model is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub inode: Inode,
    /// What it is.
    pub kind: NodeKind,
    /// Size of a file in bytes; 0 for directories.
    pub size: u64,
    /// Permission bits: 0o444, 0o555 for executables and directories.
    pub mode: u16,
    /// Modification time, since the epoch: what the file's layer states, or else its manifest, or else
    /// that of the archive; 0 when nothing is known. Directories have the newest of what is below them.
    pub mtime: Duration,
    /// Link count: 1 for files, 2 + sub-directories for directories.
    pub links: u32,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The inode that the name leads to.
    pub inode: Inode,
    /// What it is.
    pub kind: NodeKind,
    /// The name; `.` and `..` come first.
    pub name: &'a str,
    /// The offset that continues after this entry.
    pub next_offset: u64,
}
