//! Layers of what is no file: a link, or a directory with nothing in it. Each is one member in a tar with
//! gzip around it, as small as it is, and has no chunk table.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::archive::Archive;
use super::plan::Settings;
use super::tree::{Other, OtherKind};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, media_type, stated};
use crate::tar::write;

/// Writes the layers, in the order of their paths.
///
/// # Errors
/// Those of writing.
pub(super) fn write_layers(
    others: &[Other],
    settings: &Settings,
    archive: &mut Archive,
) -> Result<Vec<Descriptor>> {
    let mut layers = Vec::with_capacity(others.len());
    for other in others {
        settings.check_cancelled(archive.name())?;
        let blob = blob(other, settings).map_err(Error::io("compress", other.path.as_str()))?;
        let mut descriptor = archive.blob(media_type::LAYER_TAR_GZIP, &blob)?;
        stated::name(&mut descriptor, other.path.as_str());
        if let OtherKind::Directory = other.kind {
            stated::mark_directory(&mut descriptor);
        }
        layers.push(descriptor);
    }
    Ok(layers)
}

/// A layer, whose bytes depend on nothing else than what it holds.
fn blob(other: &Other, settings: &Settings) -> io::Result<Vec<u8>> {
    let path = other.path.as_str();
    let header = match &other.kind {
        OtherKind::Link { target, .. } => write::symlink_header(path, target, settings.mtime),
        OtherKind::Directory => write::directory_header(path, settings.mtime),
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&header)?;
    encoder.write_all(&write::END_OF_ARCHIVE)?;
    encoder.finish()
}
