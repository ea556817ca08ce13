//! Measures reading: through the library, through paths, and what bounds both.
//!
//! `scripts/bench` runs this program and reads the one JSON object that each call prints. All
//! measurements are of this process alone; what is compared with what is the script's business.
//!
//! ```text
//! read library ARCHIVE seq    [--block N] [--ahead on|off] [--cache N] [--index DIR]
//! read library ARCHIVE random [--block N] [--ahead on|off] [--cache N] [--index DIR]
//!                             [--threads N] [--count N] [--seed N]
//! read chunks ARCHIVE         [--count N] [--seed N]    verify and decode one chunk, in a loop
//! read blake3 FILE            [--threads N] [--memory on|off]
//! read gunzip FILE                                      one zlib-rs decode on one thread
//! read seq  PATH...           [--block N]               files, or directories of files
//! read mmap PATH...                                     one byte of every page
//! read random PATH...         [--block N] [--threads N] [--count N] [--seed N] [--passes N]
//! read first PATH...                                    open, and read 4 KiB at the end
//! ```
//!
//! Random reads touch each megabyte at most once, so that every one of them is a first touch in a
//! fresh process or mount.

#![allow(clippy::disallowed_methods)]

mod library;
mod paths;
mod raw;
mod sample;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Operands, and options of the form `--name value`.
struct Args {
    operands: Vec<String>,
    options: BTreeMap<String, String>,
}

impl Args {
    fn from_environment() -> Result<Args> {
        let mut args = Args {
            operands: Vec::new(),
            options: BTreeMap::new(),
        };
        // `cargo bench` passes `--bench` to every program.
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = words.next().ok_or(format!("{word} wants a value"))?;
                    args.options.insert(name.to_string(), value);
                }
                None => args.operands.push(word),
            }
        }
        Ok(args)
    }

    fn number(&self, name: &str, default: u64) -> Result<u64> {
        match self.options.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|e| format!("--{name}: {e}").into()),
        }
    }

    fn size(&self, name: &str, default: usize) -> Result<usize> {
        Ok(usize::try_from(self.number(name, default as u64)?)?)
    }

    fn on(&self, name: &str, default: bool) -> bool {
        self.options.get(name).map_or(default, |text| text == "on")
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.options.get(name).map(PathBuf::from)
    }
}

fn run() -> Result<Option<serde_json::Value>> {
    let args = Args::from_environment()?;
    let operands: Vec<&str> = args.operands.iter().map(String::as_str).collect();
    let report = match operands[..] {
        ["library", archive, "seq"] => library::sequential(archive, &args)?,
        ["library", archive, "random"] => library::random(archive, &args)?,
        ["chunks", archive] => raw::chunks(archive, &args)?,
        ["blake3", file] => raw::blake3(file, &args)?,
        ["gunzip", file] => raw::gunzip(file)?,
        ["seq", ref paths @ ..] => paths::sequential(paths, &args)?,
        ["mmap", ref paths @ ..] => paths::mapped(paths)?,
        ["random", ref paths @ ..] => paths::random(paths, &args)?,
        ["first", ref paths @ ..] => paths::first(paths)?,
        [] => return Ok(None),
        _ => return Err(format!("unknown call: {operands:?}").into()),
    };
    Ok(Some(report))
}

fn main() -> ExitCode {
    match run() {
        Ok(Some(report)) => println!("{report}"),
        // `cargo bench` and `cargo test --benches` call it so.
        Ok(None) => println!("scripts/bench drives this program; see benches/read/main.rs"),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
