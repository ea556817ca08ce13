//! Real mounts, through the binary and the kernel. As root and as an ordinary user: the same tests,
//! and the few that only one of them can run say so.
//!
//! They fail where a mount cannot be made: `/dev/fuse` must be there, and for users fuse3's
//! `fusermount3`. Root's run opens the device to users where it was closed.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unsafe_code
)]

use modeloci_test_support::{self as support, documented, meanwhile};

mod exchanged;
mod faults;
mod given;
mod harness;
mod in_process;
mod lifecycle;
mod places;
mod reading;
mod sandbox;
mod shown;
mod starting;
mod system;
mod times;
mod tree;
mod waiting;
