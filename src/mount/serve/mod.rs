//! Requests that have to wait for something slow.

mod lane;
mod requester;
mod waits;

pub(super) use waits::{Files, MAX_WAITING, Read, Waits};
