//! Files and directories reached through handles: what a path means is decided once, when it is
//! opened; every later step is taken below a descriptor that is held.

pub(crate) mod beneath;
#[expect(
    clippy::disallowed_methods,
    reason = "this is the room that makes these calls"
)]
pub(crate) mod calls;
pub(crate) mod descriptor;
pub(crate) mod faults;
pub(crate) mod identity;
pub(crate) mod links;
pub(crate) mod lock;
pub mod named;
pub(crate) mod output;
pub(crate) mod parents;
pub(crate) mod place;
pub(crate) mod remove;
pub(crate) mod roots;
pub(crate) mod scratch;
pub(crate) mod small;
mod sync_range;
pub(crate) mod temporary;
pub(crate) mod trusted;
pub(crate) mod write_back;

#[cfg(test)]
pub(crate) use modeloci_test_support::meanwhile;
