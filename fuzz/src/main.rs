//! Runs fuzz targets without libFuzzer: see `scripts/fuzz`.

#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[path = "lib.rs"]
#[allow(clippy::unwrap_used, dead_code, unreachable_pub)]
mod fuzz;

use fuzz::{TARGETS, Target, corpus, memory, run};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const USAGE: &str = "usage: fuzz --list
       fuzz NAME [--seconds N] [--seed N] [--iteration N] [--artifacts DIR]
       fuzz NAME --input FILE
       fuzz NAME --seeds DIR";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((list, [])) if list == "--list" => {
            TARGETS
                .iter()
                .for_each(|target| println!("{}", target.name));
            Ok(0)
        }
        Some((name, options)) => match TARGETS.iter().find(|target| target.name == name) {
            Some(target) => work(target, options),
            None => Err(format!("no target {name}\n{USAGE}")),
        },
        None => Err(USAGE.into()),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

/// Does what the options ask for; returns the number of findings.
fn work(target: &Target, options: &[String]) -> Result<usize, String> {
    let (mut seconds, mut seed, mut iterations) = (60, 1, 0..u64::MAX);
    let mut artifacts = PathBuf::from("fuzz/artifacts");
    let (options, rest) = options.as_chunks();
    if !rest.is_empty() {
        return Err(USAGE.into());
    }
    for [option, value] in options {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|e| format!("{option} {value}: {e}"))
        };
        match option.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = number()?,
            "--iteration" => iterations = number()?..number()?.saturating_add(1),
            "--artifacts" => artifacts = value.into(),
            "--input" => return one(target, Path::new(value)),
            "--seeds" => return write_seeds(target, Path::new(value)),
            _ => return Err(USAGE.into()),
        }
    }
    let seeds = corpus::seeds(root(), target)?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let report = run::run(
        target,
        &seeds,
        seed,
        iterations,
        Some(until),
        Some(&artifacts),
    );
    println!(
        "{}: {} executions, {:.0} a second, {} findings (seed {seed})",
        target.name,
        report.executions,
        report.executions as f64 / report.took.as_secs_f64().max(1e-3),
        report.findings.len(),
    );
    report
        .findings
        .iter()
        .for_each(|finding| println!("finding: {finding}"));
    Ok(report.findings.len())
}

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn one(target: &Target, path: &Path) -> Result<usize, String> {
    let input = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let outcome = run::check(target, &path.display().to_string(), &input);
    Ok(outcome.map_or_else(
        |problem| {
            println!("finding: {problem}");
            1
        },
        |()| 0,
    ))
}

fn write_seeds(target: &Target, dir: &Path) -> Result<usize, String> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for (number, seed) in corpus::seeds(root(), target)?.iter().enumerate() {
        let path = dir.join(format!("seed-{number}"));
        std::fs::write(&path, seed).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(0)
}
