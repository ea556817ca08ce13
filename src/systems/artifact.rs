//! What registry clients push: ORAS, podman, AIKit and whatever else names its files by annotations.
//!
//! ORAS gives every file the type of a plain tar unless it is told another, so that type alone opens
//! nothing: a data set that is a tar must come out as the tar that was pushed.

use super::system::{Head, System};
use crate::layer::Reading;
use crate::oci::{Stated, media_type};

/// Artifacts of no system in particular.
pub(super) struct Artifact;

impl System for Artifact {
    fn name(&self) -> &'static str {
        "artifact"
    }

    fn recognises(&self, _: &Head<'_>) -> bool {
        true
    }

    fn reading(&self, stated: &Stated, path: Option<&str>) -> Reading {
        if !media_type::names_tar(&stated.media_type) {
            return Reading::File;
        }
        // ORAS' word for a directory, which is what its members say even where it is one; the one archive
        // of an AIKit artifact; a layer without a name.
        let all_files = path.is_none_or(|path| path.starts_with("allfiles.tar"));
        if stated.unpack || all_files {
            return Reading::Members;
        }
        match &*stated.media_type {
            _ if is_ours(stated) => Reading::Archive,
            media_type::LAYER_TAR => Reading::File,
            _ => Reading::Either,
        }
    }
}

/// True when the descriptor states what only we state.
fn is_ours(stated: &Stated) -> bool {
    stated.chunks.is_some() || stated.file_size.is_some() || stated.file_digest.is_some()
}
