//! Docker Model Runner: layers are files as they are, and their media types say what for.
//!
//! Since version 0.2 of its config, descriptors state paths as ModelPack's do. Before, files had no
//! names: here they have those under which Docker Model Runner itself lays them out, so that whatever
//! loads its models finds them.

use serde_json::Value;

use super::about::{About, text};
use super::entry::{Contents, Layer};
use super::numbered::{self, Name};
use super::system::{Config, Head, System};
use crate::error::Result;
use crate::oci::Stated;
use crate::printable::shown;

/// What the media types of its configs and layers begin with.
const PREFIX: &str = "application/vnd.docker.ai.";

/// What a file without a name is called: by the rest of its layer's media type, a stem and an extension.
/// Of several with one stem and extension each has its number between.
const NAMES: [(&str, &str, &str); 8] = [
    ("gguf.v3", "model", ".gguf"),
    ("safetensors", "model", ".safetensors"),
    ("dduf", "model", ".dduf"),
    ("gguf.v3.mmproj", "model", ".mmproj"),
    ("mmproj", "model", ".mmproj"),
    ("gguf.v3.lora", "adapter", ".gguf"),
    ("chat.template.jinja", "template", ".jinja"),
    ("license", "LICENSE", ""),
];

/// Models of Docker Model Runner.
pub(super) struct Docker;

impl System for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        let config = head.config_type.strip_prefix(PREFIX);
        config.is_some_and(|kind| kind.starts_with("model.config."))
    }

    fn about(&self, config: &Value) -> About {
        About {
            framework: text(config, "/config/format"),
            architecture: text(config, "/config/architecture"),
            ..About::default()
        }
    }

    fn contents(&self, mut layers: Vec<Layer>, _: &Config<'_>) -> Result<Contents> {
        numbered::name(&mut layers, name_of);
        self.each(layers)
    }

    fn nameless(&self, stated: &Stated) -> String {
        let media_type: String = shown(&stated.media_type).chars().take(128).collect();
        format!(
            "has no file name, and none is known for the type {media_type} of Docker Model Runner"
        )
    }
}

/// What the file of a layer is called by its media type.
fn name_of(layer: &Layer) -> Option<Name> {
    let kind = layer.stated.media_type.strip_prefix(PREFIX)?;
    let (_, stem, extension) = NAMES.into_iter().find(|(known, ..)| *known == kind)?;
    Some((stem, extension))
}
