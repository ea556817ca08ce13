//! Ollama: layers are files as they are, and their media types say what for. Only tensors have names of
//! their own, in a field of the descriptor that no specification has.

use serde_json::Value;

use super::about::{About, text};
use super::entry::{Contents, Layer};
use super::numbered::{self, Name};
use super::system::{Config, Head, System};
use crate::error::Result;
use crate::layer::Reading;
use crate::oci::Stated;

/// What the media types of its layers begin with.
const PREFIX: &str = "application/vnd.ollama.image.";

/// What a file without a name is called, by the rest of its layer's media type.
const NAMES: [(&str, Name); 11] = [
    ("model", ("model", ".gguf")),
    ("projector", ("projector", ".gguf")),
    ("adapter", ("adapter", ".gguf")),
    ("draft", ("draft", ".gguf")),
    ("embed", ("embed", "")),
    ("template", ("template", "")),
    ("system", ("system", "")),
    ("prompt", ("prompt", "")),
    ("params", ("params", ".json")),
    ("messages", ("messages", ".json")),
    ("license", ("LICENSE", "")),
];

/// Models of Ollama.
pub(super) struct Ollama;

impl System for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn recognises(&self, head: &Head<'_>) -> bool {
        // Its config has the type of Docker's images.
        head.layer_type.is_some_and(|text| text.starts_with(PREFIX))
    }

    fn about(&self, config: &Value) -> About {
        About {
            framework: text(config, "/model_format"),
            architecture: text(config, "/model_family"),
            ..About::default()
        }
    }

    fn contents(&self, mut layers: Vec<Layer>, _: &Config<'_>) -> Result<Contents> {
        numbered::name(&mut layers, name_of);
        self.each(layers)
    }

    fn reading(&self, _: &Stated, _: Option<&str>) -> Reading {
        Reading::File
    }
}

fn name_of(layer: &Layer) -> Option<Name> {
    let media_type = layer.stated.media_type.split(';').next()?;
    let kind = media_type.trim_end().strip_prefix(PREFIX)?;
    let (_, name) = NAMES.into_iter().find(|(known, _)| *known == kind)?;
    Some(name)
}
