//! Where a model is mounted: the mount point, the mount on it, and its end.
//!
//! ```text
//! unmount    a model at a path
//! target     what is mounted on: a place, or what is given
//! attach     a connection gets a mount, the mount its place; detaching again
//! place      what a mount point may be; stale mounts
//! detach     a mount that is held is taken away
//! helper     fusermount3, for users other than root
//! device     /dev/fuse, and what the kernel reads ahead
//! given      a connection that somebody else has mounted
//! mountinfo  the mount table
//! held       directories and mounts that are held, and not named
//! ```

#[expect(
    clippy::disallowed_methods,
    reason = "mount(2) takes paths; the mount point is one of a descriptor"
)]
pub(super) mod attach;
mod detach;
#[expect(
    clippy::disallowed_methods,
    reason = "/dev and /sys, which name nothing that others could change"
)]
pub(super) mod device;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
pub(super) mod given;
#[expect(
    clippy::disallowed_methods,
    reason = "the mount point is opened here, once, and is reached by its descriptor"
)]
pub(super) mod held;
#[expect(
    clippy::disallowed_methods,
    reason = "programs and their configuration are found by path"
)]
mod helper;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
pub(super) mod mountinfo;
#[expect(
    clippy::disallowed_methods,
    reason = "the mount point is opened here, once; the rest is for messages"
)]
pub(super) mod place;
pub(super) mod target;
pub(super) mod unmount;
