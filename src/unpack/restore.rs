//! All of it, from a model to a directory.

use std::path::Path;

use super::include::Include;
use super::options::{UnpackOptions, Unpacked};
use super::staging::Staging;
use super::write::Writer;
use crate::error::Result;
use crate::model::{FileInfo, Model};
use crate::work::Progress;

/// Restores the model's files below `output`, which appears complete or not at all.
///
/// # Errors
/// - [`ErrorKind::Usage`](crate::ErrorKind::Usage): a glob is invalid;
/// - [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): the globs match no file;
/// - [`ErrorKind::Refused`](crate::ErrorKind::Refused): the output exists, is not empty and `force`
///   is not set, or it is no directory; something else was changing the temporary directory; cancelled;
/// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): a layer is damaged;
/// - [`ErrorKind::Environment`](crate::ErrorKind::Environment): disk full, permissions.
///
/// After any of them neither a new output, nor a directory made above it, nor the temporary directory
/// is left, and an old output is untouched.
pub fn unpack(
    model: &Model,
    output: &Path,
    options: &UnpackOptions,
    progress: Progress<'_>,
) -> Result<Unpacked> {
    let include = Include::new(&options.include)?;
    let files: Vec<&FileInfo> = model
        .files()
        .filter(|file| include.matches(&file.path))
        .collect();
    include.check(files.len())?;

    let empty = model.empty_directories().iter();
    let empty = empty.filter(|path| include.matches(path));

    let staging = Staging::create(output, options.force)?;
    let mut writer = Writer::new(model, &files, staging.dir(), output, options, progress)?;
    writer.add_directories(empty);
    let unpacked = writer.run()?;
    staging.publish()?;
    Ok(unpacked)
}
