//! The FUSE mount: the only part that knows `fuser` and errno.
//!
//! [`mount`] serves a [`Model`](crate::Model) at a directory, from threads of the calling process;
//! [`unmount`] ends what any process has mounted, [`status`] asks a mount what it has done. The parts,
//! each usable and tested alone:
//!
//! ```text
//! mounted     a model mounted and served by the calling process
//! parts       what a program takes that puts a mount together itself
//! served      a model that is served over a connection
//! session     the event loops of fuser, and how they end
//! serve       the operations of FUSE, what they answer, and where reads run and wait
//! at          mount points, what is mounted on them, unmounting
//! prefetch    fills the kernel's page cache while nobody reads, with a process of its own
//! labels      labels of SELinux
//! ask         asking a mount, whose answer is a status
//! ```
//!
//! fuser 0.18.0 has defects that a mount must not inherit. It is given nothing but an open
//! `/dev/fuse` descriptor: mounting, unmounting, options and threads' deaths are handled here, and
//! each workaround says which defect it is for.

mod address_space;
mod ask;
mod at;
mod defaults;
mod labels;
mod mounted;
mod options;
pub mod parts;
mod prefetch;
mod resident;
mod serve;
mod served;
mod session;
mod status;

pub use ask::{mountpoints, status};
pub use at::unmount::unmount;
pub use labels::Labels;
pub use mounted::{Mounted, mount, serve_connection};
pub use options::MountOptions;
pub use status::{Failure, Protections, Status};
