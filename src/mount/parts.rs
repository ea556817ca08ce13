//! The parts of a mount, for a program that puts them together itself: that mounts in one process and
//! serves in another, or has signals to wait for. [`mount`](super::mount) is these parts in a row.
//!
//! 1. [`Target::prepare`] checks the mount point and holds it; or a connection that others have mounted.
//! 2. [`connect`] makes the mount: a connection to the kernel, and something to attach.
//! 3. [`Served::new`] gets an open model ready, [`Served::start`] serves it over the connection.
//! 4. [`Mountable::attach`] gives the mount its place. From then on readers see it.
//! 5. [`Attached::detach`] takes it away. The connection, and what serves it, end with its last user.
//!
//! None of them starts the program again, forks, or changes signals, the panic hook or the allocator.

pub use super::address_space::check as check_address_space;
pub use super::at::attach::{Attached, Mountable, connect};
pub use super::at::given::{Given, Named, descriptor as given_descriptor};
pub use super::at::held::Detached;
pub use super::at::place::{Place, clear_after_death};
pub use super::at::target::Target;
pub use super::options::descriptor_name;
pub use super::prefetch::filler::{Filler, On as PrefetchOn, follow_orders};
pub use super::prefetch::work::Prefetch;
pub use super::serve::filesystem::Process;
pub use super::serve::guard::is_contained as panic_is_contained;
pub use super::served::Served;
pub use super::session::is_event_loop;
pub use crate::files::scratch::{Scratch, ask_instead as ask_for_scratch};
pub use crate::files::trusted::own as own_directory;
pub use crate::source::registry::{Outside, ask_instead as ask_outside};
pub use crate::stream::index_dir::{
    Made as MadeIndexDir, existing as index_dirs, make as make_index_dir,
};
