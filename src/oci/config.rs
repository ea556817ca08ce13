//! The model config.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Result;

/// What a model is: the config blob of a modeloci archive. Serialised in the order of its fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OciConfig {
    /// Name of the model.
    pub model_name: String,
    /// Version of the model; also the archive's reference name.
    pub version: String,
    /// Framework, such as `pytorch`.
    pub framework: String,
    /// Architecture, such as `transformer`.
    pub architecture: String,
    /// Anything else, as a JSON object with sorted keys.
    pub metadata: Map<String, Value>,
}

impl OciConfig {
    /// Parses a config of this project or of the original tool.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the field.
    pub fn parse(bytes: &[u8]) -> Result<OciConfig> {
        let _ = bytes;
        todo!()
    }

    /// The config's bytes: deterministic, compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
