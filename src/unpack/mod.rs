//! Unpacking: a model becomes a directory, complete or not at all.
//!
//! Files are written below the handle of a temporary directory beside the output, which takes the
//! output's name in one rename once every byte was verified, written and synced. Until then
//! nothing stands at that name; afterwards nothing of a former tree does. Nothing is written
//! outside the temporary directory, even while someone else plants links in it: paths are resolved
//! by the kernel beneath the handle, without following any link. Nothing is removed but what was
//! made here, and the tree that `--force` replaces: both are known by their handles, not by names.
//!
//! Directories above the output that are missing are made, and removed again when unpacking fails.
//!
//! An output that is an empty directory (a volume, perhaps) is kept, and filled at the end.
//!
//! Only regular files and directories are made, with modes 0644, 0755 for executables, less the
//! umask; no owner, no special bit and no link comes out of an archive.

mod include;
mod options;
mod restore;
mod staging;
mod unpackager;
mod write;

#[cfg(test)]
mod tests;

pub use options::{UnpackOptions, Unpacked};
pub use restore::unpack;
pub use unpackager::ModelUnpackager;
