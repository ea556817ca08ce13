//! Every fuzz target over what was found once (`found/`), its seeds (those that are made by code, and `seeds/`),
//! and a few thousand changed inputs. The same inputs on every run; `MODELOCI_TEST_FUZZ=N` runs N times as
//! many.

#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs};

#[path = "../../fuzz/src/lib.rs"]
#[allow(clippy::unwrap_used, dead_code, unreachable_pub)]
mod fuzz;

use fuzz::{TARGETS, Target, corpus, memory, run};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn target(name: &str) -> &'static Target {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a target")
}

/// What is kept is small, for a target that there is, and there is something for every one.
#[test]
fn every_target_has_seeds_that_are_kept() {
    for target in TARGETS {
        let kept = corpus::kept(root(), "seeds", target).expect("seeds");
        assert!(!kept.is_empty(), "{} has none", target.name);
        for (path, input) in kept {
            assert!(input.len() <= 16 << 10, "{} is large", path.display());
        }
    }
    for kind in ["seeds", "found"] {
        let dirs = fs::read_dir(root().join("tests/fuzz").join(kind)).expect("a directory");
        for dir in dirs {
            let name = dir.expect("a directory").file_name();
            target(name.to_str().expect("a name"));
        }
    }
}

/// Runs the inputs that were a finding once, and so many changed ones; a slow machine may run fewer.
fn short(name: &str, iterations: u64) {
    // One at a time: a panic belongs to the input that runs.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let target = target(name);
    for (path, input) in corpus::kept(root(), "found", target).expect("inputs") {
        if let Err(problem) = run::check(target, name, &input) {
            panic!("{}: {problem}", path.display());
        }
    }
    let seeds = corpus::seeds(root(), target).expect("seeds");
    let times = env::var("MODELOCI_TEST_FUZZ").map_or(1, |text| text.parse().expect("a number"));
    let until = Instant::now() + Duration::from_secs(60 * times);
    let report = run::run(target, &seeds, 1, 0..iterations * times, Some(until), None);
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
