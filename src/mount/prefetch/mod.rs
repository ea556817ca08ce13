//! Filling the kernel's page cache while nobody reads.
//!
//! ```text
//! work    what is read when, and when no more
//! filler  the process that has the kernel read
//! ```

#[expect(
    clippy::disallowed_methods,
    reason = "each file once, in a mount of ours, to fill its cache"
)]
pub(super) mod filler;
pub(super) mod work;
