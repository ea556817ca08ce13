//! The model config.

use serde::Serialize;
use serde_json::{Map, Value};

use super::fields::{Fields, describe};
use super::json;
use crate::error::{Error, Result};
use crate::printable::printable;

/// Longest name or version: that of a tag (OCI distribution specification, "Pulling manifests").
const MAX_NAME_BYTES: usize = 128;

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
    /// The config of a model that is about to be packed.
    ///
    /// Name and version become parts of a file name and a reference, so that they must be usable
    /// as such; see the errors.
    ///
    /// ```
    /// use modeloci::oci::{OciConfig, config::parse_metadata};
    ///
    /// let metadata = parse_metadata(r#"{"task": "embedding"}"#)?;
    /// let config = OciConfig::new("minilm", "1.0.0", "onnx", "transformer", metadata)?;
    /// assert_eq!(OciConfig::parse(&config.to_bytes())?, config);
    /// assert!(OciConfig::new("org/minilm", "1", "", "", Default::default()).is_ok());
    /// assert!(OciConfig::new("a", "1/2", "", "", Default::default()).is_err());
    /// # Ok::<(), modeloci::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) when name or version is empty, longer than
    /// 128 bytes, starts with `.` or `-`, or starts or ends with white space, which goes for each part
    /// of a name with `/`; when a version has a `/`; and when any of the four has a control character, or one that hides or reorders text.
    pub fn new(
        name: &str,
        version: &str,
        framework: &str,
        architecture: &str,
        mut metadata: Map<String, Value>,
    ) -> Result<OciConfig> {
        check_name("name", name)?;
        check_version(version)?;
        check_printable("framework", framework)?;
        check_printable("architecture", architecture)?;
        sort_keys(&mut metadata);
        Ok(OciConfig {
            model_name: name.into(),
            version: version.into(),
            framework: framework.into(),
            architecture: architecture.into(),
            metadata,
        })
    }

    /// Parses a config of this project or of the original tool. `framework`, `architecture` and
    /// `metadata` may be absent.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the field.
    pub fn parse(bytes: &[u8]) -> Result<OciConfig> {
        OciConfig::parse_named(bytes, "config")
    }

    /// [`parse`](OciConfig::parse), with `subject` naming the document in errors.
    pub(crate) fn parse_named(bytes: &[u8], subject: &str) -> Result<OciConfig> {
        OciConfig::from_value(json::parse(bytes, subject)?, subject)
    }

    /// Reads a config out of a parsed document that `subject` names.
    pub(crate) fn from_value(value: Value, subject: &str) -> Result<OciConfig> {
        let mut fields = Fields::of(value, subject, String::new())?;
        let mut config = OciConfig {
            model_name: fields.required_string("model_name")?,
            version: fields.required_string("version")?,
            framework: fields.string("framework")?.unwrap_or_default(),
            architecture: fields.string("architecture")?.unwrap_or_default(),
            metadata: fields.object("metadata")?.unwrap_or_default(),
        };
        sort_keys(&mut config.metadata);
        Ok(config)
    }

    /// True when a document looks like such a config: the original tool gave its configs the media
    /// type of image configs.
    pub(crate) fn is_like(value: &Value) -> bool {
        value.get("model_name").is_some()
    }

    /// The config's bytes: deterministic, compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Parses the text of `--metadata`: one strict JSON object.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) when the text is no JSON, or no object.
pub fn parse_metadata(text: &str) -> Result<Map<String, Value>> {
    let why = match json::parse(text.as_bytes(), "metadata") {
        Ok(Value::Object(mut map)) => {
            sort_keys(&mut map);
            return Ok(map);
        }
        Ok(other) => format!("{} instead of an object", describe(&other)),
        Err(Error::Malformed { rule, .. }) => match rule.strip_prefix("is not valid JSON: ") {
            Some(why) => why.to_string(),
            None => format!("it {rule}"),
        },
        Err(other) => return Err(other),
    };
    Err(Error::usage(format!("metadata is invalid JSON: {why}")))
}

/// Sorts keys at every level. Does nothing today; but any crate of a build can switch `serde_json`
/// to insertion order (feature `preserve_order`), and the archive's bytes must not depend on that.
fn sort_keys(map: &mut Map<String, Value>) {
    map.sort_keys();
    map.values_mut().for_each(Value::sort_all_objects);
}

/// True for what a registry takes as a tag. Source: OCI distribution specification, "Pulling
/// manifests".
pub(crate) fn is_tag(text: &str) -> bool {
    let sign = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = text.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= MAX_NAME_BYTES
        && text.bytes().all(sign)
}

/// A version becomes the last part of a file's name.
fn check_version(version: &str) -> Result<()> {
    if version.contains('/') {
        let shown = shorten(version);
        return Err(Error::usage(format!(
            "version \"{shown}\" contains a \"/\""
        )));
    }
    check_name("version", version)
}

/// The parts of a name between slashes are names themselves.
fn check_name(what: &str, name: &str) -> Result<()> {
    let any = |rule: fn(&str) -> bool| name.split('/').any(rule);
    let rule = if name.is_empty() {
        "is empty".to_string()
    } else if name.len() > MAX_NAME_BYTES {
        format!("has {} bytes, the limit is {MAX_NAME_BYTES}", name.len())
    } else if any(str::is_empty) {
        "has an empty part before or behind a \"/\"".into()
    } else if any(|part| part.starts_with(['.', '-'])) {
        "starts with \".\" or \"-\"".into()
    } else if any(|part| part.trim() != part) {
        "starts or ends with white space".into()
    } else {
        return check_printable(what, name);
    };
    Err(Error::usage(format!("{what} \"{}\" {rule}", shorten(name))))
}

fn check_printable(what: &str, text: &str) -> Result<()> {
    if printable(text) == text {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{what} \"{}\" contains a control character, or one that hides or reorders text",
        shorten(text)
    )))
}

/// At most 128 characters, for messages.
fn shorten(text: &str) -> String {
    text.chars().take(128).collect()
}
