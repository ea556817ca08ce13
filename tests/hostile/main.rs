//! Every bad input, through the real binary: the stated outcome, and never a panic, a hang, memory
//! without bound, other bytes, a write outside the output or a partial file at a final name.
//!
//! A test carries the id of its row in the list of bad inputs (`t3_…`): `t` the outer tar, `j` JSON,
//! `d` digests, `l` layer streams, `p` paths, `k` packing, `u` unpacking, `m` mounting.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support::{compressed, forge, machine, meanwhile, run, workspace};

mod attributes;
mod digests;
mod exchanged;
mod filesystems;
mod indexes;
mod json;
mod layers;
mod mounted;
mod mounting;
mod mutations;
mod opening;
mod outer_tar;
mod packing;
mod paths;
#[path = "../support/plain.rs"]
#[allow(dead_code)]
mod plain;
mod reading;
mod sandbox;
mod stopping;
mod tails;
mod times;
mod unpacking;
