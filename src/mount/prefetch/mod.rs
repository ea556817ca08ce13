//! Filling the kernel's page cache while nobody reads.
//!
//! ```text
//! work    what is read when, and when no more
//! filler  the process that has the kernel read
//! ```

pub(super) mod filler;
pub(super) mod work;
