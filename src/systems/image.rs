//! Container images: every layer is a tar, whatever its type says of compression.

use super::system::{Head, System};
use crate::oci::media_type;

/// Images whose layers hold files.
pub(super) struct Image;

impl System for Image {
    fn name(&self) -> &'static str {
        "image"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        [media_type::IMAGE_CONFIG, media_type::DOCKER_CONFIG].contains(&head.config_type)
    }
}
