//! What a model is, as far as its system says it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::oci::OciConfig;

/// What a model is, in its author's words. Nothing is guessed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What loads it, or its format.
    pub framework: Option<String>,
    /// Its architecture, or family.
    pub architecture: Option<String>,
    /// Its licence.
    pub license: Option<String>,
}

impl From<&OciConfig> for About {
    fn from(config: &OciConfig) -> About {
        About {
            name: Some(config.model_name.clone()),
            version: Some(config.version.clone()),
            framework: Some(config.framework.clone()),
            architecture: Some(config.architecture.clone()),
            license: None,
        }
    }
}

impl About {
    /// What annotations of the image specification say, or labels with the same keys.
    pub fn of_annotations(annotations: &BTreeMap<String, String>) -> About {
        let text = |key: &str| annotations.get(&format!("org.opencontainers.image.{key}"));
        About {
            name: text("title").cloned(),
            version: text("version").cloned(),
            license: text("licenses").cloned(),
            ..About::default()
        }
    }

    /// Where this says nothing, what `other` says.
    pub fn or(self, other: About) -> About {
        About {
            name: self.name.or(other.name),
            version: self.version.or(other.version),
            framework: self.framework.or(other.framework),
            architecture: self.architecture.or(other.architecture),
            license: self.license.or(other.license),
        }
    }
}

/// The text at a place of a document, which a JSON pointer names: one that is not empty.
pub(super) fn text(document: &Value, pointer: &str) -> Option<String> {
    let value = document.pointer(pointer)?;
    let texts: Vec<&str> = match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let joined = texts.join(", ");
    (!joined.is_empty()).then_some(joined)
}
