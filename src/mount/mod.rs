//! The FUSE mount: the only part that knows `fuser` and errno.
