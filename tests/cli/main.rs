//! The command line, as a user meets it: exit codes, messages, files.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

use modeloci_test_support::documented;

mod contract;
mod describe;
mod generated;
mod harness;
mod inspect;
mod json;
mod original;
mod pack;
mod reading;
mod unpack;
mod usage;
