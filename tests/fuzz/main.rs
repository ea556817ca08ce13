//! Every fuzz target over its seeds, a few thousand changed inputs, and what was found once. The
//! same inputs on every run; `MODELOCI_TEST_FUZZ=N` runs N times as many.

#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs};

#[path = "../../fuzz/src/lib.rs"]
#[allow(clippy::unwrap_used, dead_code, unreachable_pub)]
mod fuzz;

use fuzz::{TARGETS, memory, run};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Runs the inputs that were a finding once, and so many changed ones; a slow machine may run fewer.
fn short(name: &str, iterations: u64) {
    // One at a time: a panic belongs to the input that runs.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/found")
        .join(name);
    for entry in fs::read_dir(found).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let input = fs::read(&path).expect("an input");
        if let Err(problem) = run::check(target, name, &input) {
            panic!("{}: {problem}", path.display());
        }
    }
    let times = env::var("MODELOCI_TEST_FUZZ").map_or(1, |text| text.parse().expect("a number"));
    let until = Instant::now() + Duration::from_secs(60 * times);
    let report = run::run(target, 1, 0..iterations * times, Some(until), None);
    assert!(
        report.findings.is_empty(),
        "\n{}",
        report.findings.join("\n")
    );
    assert!(report.executions >= iterations.min(5), "too slow");
}

macro_rules! short {
    ($($name:ident: $iterations:expr),* $(,)?) => {
        $(#[test] fn $name() { short(stringify!($name), $iterations); })*

        #[test]
        fn every_target_is_run() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

short! {
    outer_tar: 3_000,
    documents: 3_000,
    archive: 800,
    layout_dir: 300,
    unpacked: 400,
    foreign_layer: 1_500,
    frontier: 25,
    index_file: 400,
    chunked_layer: 500,
    chunk_table: 5_000,
    decode_differential: 5_000,
    streams: 3_000,
    literal_roundtrip: 100,
    histograms: 30,
}
