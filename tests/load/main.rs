//! Mounts under load: many readers, many files, large files, little memory, many starts and kills.
//!
//! The sizes suit every run of the tests; with `MODELOCI_TEST_LONG` set (`scripts/test --long`)
//! they are what servers meet, which takes half an hour and 20 GB of temporary files.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unsafe_code
)]

use modeloci_test_support::{self as support, meanwhile, workspace};
mod cycles;
mod fio;
#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports)]
mod harness;
mod large;
mod many;
mod memory;
mod mixture;
mod storage;

/// One of two sizes: of every run, or of the long one.
fn size<T>(short: T, long: T) -> T {
    if std::env::var_os("MODELOCI_TEST_LONG").is_some() {
        long
    } else {
        short
    }
}
