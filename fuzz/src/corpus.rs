//! Inputs that are kept in files, so that they stay what they are whatever the crate writes today:
//! `tests/fuzz/seeds/NAME/`, small ones to start from, and `tests/fuzz/found/NAME/`, which were a finding
//! once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Target;

/// What the target starts from: what is made by code, and what is kept in files below the repository's root.
///
/// # Errors
/// When a file cannot be read.
pub fn seeds(root: &Path, target: &Target) -> Result<Vec<Vec<u8>>, String> {
    let mut seeds = (target.seeds)();
    for kind in ["seeds", "found"] {
        let kept = kept(root, kind, target)?;
        seeds.extend(kept.into_iter().map(|(_, input)| input));
    }
    Ok(seeds)
}

/// The inputs of one kind, `seeds` or `found`, with their files, in the order of their names.
///
/// # Errors
/// When a file cannot be read; that there is no directory is none.
pub fn kept(root: &Path, kind: &str, target: &Target) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let dir = root.join("tests/fuzz").join(kind).join(target.name);
    let problem = |error: io::Error| format!("{}: {error}", dir.display());
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(problem)?,
    };
    let mut kept = Vec::new();
    for entry in entries {
        let path = entry.map_err(problem)?.path();
        let input = fs::read(&path).map_err(problem)?;
        kept.push((path, input));
    }
    kept.sort();
    Ok(kept)
}
