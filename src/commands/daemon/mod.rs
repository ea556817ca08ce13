//! The processes of a mount: what belongs to this program, and to no library.
//!
//! ```text
//! background  the process that a mount leaves behind
//! keeper      the process that mounts, unmounts and hears signals
//! server      the process that serves, and has no rights but to that
//! serve       one process that does both
//! prefetcher  the process that has the kernel read ahead
//! errands     what the keeper finds out for the server
//! events      what happens to a mount, and what is done then
//! sandbox     what a process gives up
//! system_calls  what it may ask the kernel for
//! escape      what an attacker would try in it, for the tests
//! wire        what keeper and server say to each other
//! ready       how a process tells its starter that the mount answers
//! notify      how it tells a service manager
//! log_queue   log lines, written by a thread of their own
//! system_log  where they go in the background
//! local_log   where they go when there is no system log
//! panics      the panic hook
//! allocator   what the allocator keeps for itself
//! signals     signals that are blocked and waited for
//! process     parting into two, what is inherited, a child on its own
//! options     how the program mounts
//! ```

pub(crate) mod allocator;
pub(crate) mod background;
mod errands;
#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "tries what is forbidden, by the paths that the tests have made"
)]
mod escape;
mod events;
pub(crate) mod keeper;
#[expect(
    clippy::disallowed_methods,
    reason = "the file is a name in a directory that is held"
)]
mod local_log;
pub(crate) mod log_queue;
mod notify;
pub(crate) mod options;
mod panics;
pub(crate) mod prefetcher;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
mod process;
mod ready;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc and /sys/fs/cgroup, which name nothing that others could change"
)]
mod sandbox;
pub(crate) mod serve;
mod server;
mod signals;
mod system_calls;
pub(crate) mod system_log;
mod wire;
