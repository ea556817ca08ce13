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

    /// What ORAS has packed of a directory is called below it, also where that is one file.
    fn reading(&self, stated: &Stated, path: &str) -> Reading {
        let opened = match &*stated.media_type {
            // ORAS' word for a directory; the one archive of an AIKit artifact; a layer of ours.
            media_type::LAYER_TAR => {
                stated.unpack || path.starts_with("allfiles.tar") || is_ours(stated)
            }
            other => media_type::names_tar(other),
        };
        match opened {
            true if stated.unpack && !is_ours(stated) => Reading::Directory,
            true => Reading::Archive,
            false => Reading::File,
        }
    }
}

/// True when the descriptor states what only we state.
fn is_ours(stated: &Stated) -> bool {
    stated.chunks.is_some() || stated.file_size.is_some() || stated.file_digest.is_some()
}
