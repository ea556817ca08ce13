//! Fuzz targets: each a function of bytes that panics where an invariant does not hold.
//!
//! Three programs run them, so that a compiler without libFuzzer is enough:
//! - `fuzz_targets/`, for libFuzzer (`cargo fuzz run NAME`), guided by coverage;
//! - `main.rs`, the example `fuzz` of the crate (`scripts/fuzz`), with the mutators of `mutate`;
//! - `tests/fuzz/`, a few thousand inputs with every run of the tests.
//!
//! Seeds are made by code, so that they are what the crate writes today, and kept in files, so that they
//! stay what they are ([`corpus`]); `fuzz NAME --seeds DIR` writes all of them to a directory. An input that
//! was a finding once stands in `tests/fuzz/found/NAME/`.

#![allow(clippy::disallowed_methods)]

pub mod corpus;
pub mod memory;
pub mod mutate;
#[path = "../../tests/support/plain.rs"]
mod plain;
mod random;
pub mod run;
pub mod targets;

use modeloci_test_support::forge;
pub use random::Random;

/// One target.
pub struct Target {
    /// Its name: that of its function and of its file in `fuzz_targets/`.
    pub name: &'static str,
    /// Runs one input; panics where the invariant does not hold.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Changes an input in a way that gets past checksums and digests.
    pub mutate: fn(&mut Vec<u8>, &mut Random),
}

macro_rules! targets {
    ($($module:ident::$name:ident by $mutate:ident),* $(,)?) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: targets::$module::$name::run,
            seeds: targets::$module::$name::seeds,
            mutate: mutate::$mutate,
        }),*];
    };
}

targets! {
    tar::outer_tar by tar,
    json::documents by json,
    model::archive by archive,
    model::layout_dir by archive,
    model::unpacked by archive,
    layer::foreign_layer by layer,
    layer::frontier by bytes,
    layer::index_file by index,
    layer::chunked_layer by bytes,
    layer::chunk_table by bytes,
    codec::decode_differential by bytes,
    codec::streams by bytes,
    codec::literal_roundtrip by bytes,
    codec::histograms by bytes,
}
