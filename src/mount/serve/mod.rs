//! Requests that have to wait for something slow.

mod lane;
#[expect(
    clippy::disallowed_methods,
    reason = "/proc, which names nothing that others could change"
)]
mod requester;
mod waits;

pub(super) use waits::{Files, MAX_WAITING, Read, Waits};
