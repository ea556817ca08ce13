//! CNCF ModelPack, also as older versions spell it: types say `raw`, `tar`, `tar+gzip`, `tar+zstd`.

use serde_json::Value;

use super::about::{About, text};
use super::system::{Head, System};
use crate::layer::Reading;
use crate::oci::{Stated, media_type};

/// The vendors' prefixes of its media types, new and old.
const VENDORS: [&str; 2] = ["application/vnd.cncf.model.", "application/vnd.cnai.model."];

/// What AIKit writes in place of a path: the layer is a tar of all files of that kind.
const CATEGORIES: [&str; 3] = ["config", "docs", "code"];

/// Artifacts of ModelPack.
pub(super) struct ModelPack;

impl System for ModelPack {
    fn name(&self) -> &'static str {
        "modelpack"
    }

    fn about(&self, config: &Value) -> About {
        About {
            name: text(config, "/descriptor/name"),
            version: text(config, "/descriptor/version"),
            framework: text(config, "/config/format"),
            architecture: text(config, "/config/architecture")
                .or_else(|| text(config, "/descriptor/family")),
            license: text(config, "/descriptor/licenses"),
        }
    }

    fn reading(&self, stated: &Stated, path: Option<&str>) -> Reading {
        match (media_type::names_tar(&stated.media_type), path) {
            (false, _) => Reading::File,
            (true, None) => Reading::Members,
            (true, Some(path)) if CATEGORIES.contains(&path) => Reading::Members,
            (true, Some(_)) => Reading::Either,
        }
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        let is_its = |text: &str| VENDORS.iter().any(|vendor| text.starts_with(vendor));
        head.artifact_type.is_some_and(is_its) || is_its(head.config_type)
    }
}
