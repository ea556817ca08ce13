//! The FUSE mount: the only part that knows `fuser` and errno.
//!
//! [`mount`] serves a [`Model`](crate::Model) at a directory, [`unmount`] ends that, [`status`]
//! asks a mount what it has done. The parts, each usable and tested alone:
//!
//! ```text
//! lifecycle   background process, readiness, signals, draining, unmounting
//! session     the event loops of fuser, and how they end
//! loops       where reads run, so that none keeps others waiting
//! serve       reads that have to wait for something slow, and how that ends
//! adapter     one short function per FUSE operation
//! requests    what the operations answer: attributes, directories, xattrs, bytes
//! attach      a connection gets a mount, the mount its place; detaching again
//! helper      fusermount3, for users other than root
//! place       what a mount point may be; stale mounts
//! spot        mount points that are held, and not named
//! prefetch    fills the kernel's page cache while nobody reads; with a process of its own, filler
//! ```
//!
//! fuser 0.18.0 has defects that a mount must not inherit. It is given nothing but an open
//! `/dev/fuse` descriptor: mounting, unmounting, options and threads' deaths are handled here, and
//! each workaround says which defect it is for.

mod adapter;
mod address_space;
mod attach;
mod errno;
mod filler;
mod guard;
mod helper;
mod lifecycle;
mod log_queue;
mod loops;
mod memory;
mod mountinfo;
mod notify;
mod options;
mod place;
mod prefetch;
mod ready;
mod requests;
mod serve;
mod session;
mod spot;
mod status;
mod sys;
mod system_log;

pub use filler::{SUBCOMMAND as PREFETCHER, serve as serve_prefetch};
pub use lifecycle::{check, mount, report_failure};
pub use log_queue::{LogQueue, LogWriter};
pub use options::{MountOptions, parse_size};
pub use place::unmount;
pub use status::{Status, status};
pub use system_log::SystemLog;

/// The type of our mounts in `/proc/self/mountinfo`, and what it says after `fuse.`.
const FS_TYPE: &str = "fuse.modeloci";
const SUBTYPE: &str = "modeloci";
