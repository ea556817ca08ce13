//! Our own: every layer is a tar, of one file.

use super::system::{Head, System};
use crate::layer::Reading;
use crate::oci::{Stated, media_type};

/// Archives that `pack` writes.
pub(super) struct Own;

impl System for Own {
    fn name(&self) -> &'static str {
        "modeloci"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        head.artifact_type == Some(media_type::MODEL_ARTIFACT)
            || head.config_type == media_type::MODEL_CONFIG
    }

    fn reading(&self, stated: &Stated, _: Option<&str>) -> Reading {
        match media_type::names_tar(&stated.media_type) {
            true => Reading::Archive,
            false => Reading::File,
        }
    }
}
