//! CNCF ModelPack, also as older versions spell it: types say `raw`, `tar`, `tar+gzip`, `tar+zstd`.

use super::system::{Head, System};

/// The vendors' prefixes of its media types, new and old.
const VENDORS: [&str; 2] = ["application/vnd.cncf.model.", "application/vnd.cnai.model."];

/// Artifacts of ModelPack.
pub(super) struct ModelPack;

impl System for ModelPack {
    fn name(&self) -> &'static str {
        "modelpack"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        let is_its = |text: &str| VENDORS.iter().any(|vendor| text.starts_with(vendor));
        head.artifact_type.is_some_and(is_its) || is_its(head.config_type)
    }
}
