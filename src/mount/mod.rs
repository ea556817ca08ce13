//! The FUSE mount: the only part that knows `fuser` and errno.
//!
//! [`mount`] serves a [`Model`](crate::Model) at a directory, [`unmount`] ends that, [`status`]
//! asks a mount what it has done. The parts, each usable and tested alone:
//!
//! ```text
//! keeper      the process that mounts, unmounts and hears signals
//! server      the process that serves, and its sandbox; they talk over a wire
//! lifecycle   background process, readiness, signals, draining, unmounting
//! session     the event loops of fuser, and how they end
//! serve       the operations of FUSE, what they answer, and where reads run and wait
//! at          mount points, what is mounted on them, unmounting
//! prefetch    fills the kernel's page cache while nobody reads, with a process of its own
//! ```
//!
//! fuser 0.18.0 has defects that a mount must not inherit. It is given nothing but an open
//! `/dev/fuse` descriptor: mounting, unmounting, options and threads' deaths are handled here, and
//! each workaround says which defect it is for.

#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
mod address_space;
mod ask;
mod at;
mod defaults;
#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "tries what is forbidden, by the paths that the tests have made"
)]
mod escape;
mod keeper;
mod lifecycle;
mod log_queue;
mod notify;
mod options;
mod prefetch;
mod ready;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
mod resident;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc and /sys, which name nothing that others could change"
)]
mod sandbox;
mod serve;
mod server;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc of the server, and the descriptor of FUSE"
)]
mod session;
mod status;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
mod sys;
mod system_log;
mod wire;

pub use ask::{mountpoints, status};
pub use at::unmount::unmount;
pub use keeper::{Keeper, Side, part};
pub use lifecycle::{check, mount, report_failure};
pub use log_queue::{LogQueue, LogWriter};
pub use options::MountOptions;
pub use prefetch::filler::{SUBCOMMAND as PREFETCHER, serve as serve_prefetch};
pub use server::Server;
pub use status::{Failure, Protections, Status};
pub use system_log::SystemLog;
