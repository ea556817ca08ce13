//! The fields of one JSON object of a document, taken out one by one and checked for their type.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::printable::quoted;

/// The fields of an object that are not read yet.
///
/// Both spellings of a key are accepted, the specification's `mediaType` and the original tool's
/// `media_type`; an object that has both is refused, because readers would differ about it. A
/// `null` counts as absent: Go writes it for an empty list. Unknown fields are ignored.
pub(super) struct Fields<'a> {
    /// Names the document.
    subject: &'a str,
    /// Where in the document the object stands, such as `layers[3]`; empty at the top.
    place: String,
    map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: Value, subject: &'a str, place: String) -> Result<Fields<'a>> {
        match value {
            Value::Object(map) => Ok(Fields {
                subject,
                place,
                map,
            }),
            other => {
                let what = if place.is_empty() { "" } else { &place };
                let rule = format!("{what} is {}, not an object", describe(&other));
                Err(Error::malformed(subject, rule.trim_start()))
            }
        }
    }

    /// Names the document.
    pub(super) fn subject(&self) -> &'a str {
        self.subject
    }

    /// Where the field stands in the document.
    pub(super) fn place_of(&self, key: &str) -> String {
        if self.place.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.place)
        }
    }

    /// The error that the field breaks `rule`, a phrase such as "is missing".
    pub(super) fn refuse(&self, key: &str, rule: impl std::fmt::Display) -> Error {
        Error::malformed(self.subject, format!("{} {rule}", self.place_of(key)))
    }

    /// True when the field stands there in either spelling, even as `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key) || self.map.contains_key(&snake_case(key))
    }

    /// True when the field stands there in the specification's spelling.
    pub(super) fn has_exactly(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A field in either spelling; `None` when absent or `null`.
    pub(super) fn take(&mut self, key: &str) -> Result<Option<Value>> {
        let snake = snake_case(key);
        let value = self.map.remove(key);
        let other = (snake != key).then(|| self.map.remove(&snake)).flatten();
        if value.is_some() && other.is_some() {
            return Err(self.refuse(key, format!("stands beside {snake}")));
        }
        Ok(value.or(other).filter(|v| !v.is_null()))
    }

    pub(super) fn required(&mut self, key: &str) -> Result<Value> {
        self.take(key)?
            .ok_or_else(|| self.refuse(key, "is missing"))
    }

    pub(super) fn string(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(key, &other, "a string")),
        }
    }

    pub(super) fn required_string(&mut self, key: &str) -> Result<String> {
        self.string(key)?
            .ok_or_else(|| self.refuse(key, "is missing"))
    }

    pub(super) fn array(&mut self, key: &str) -> Result<Option<Vec<Value>>> {
        match self.take(key)? {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong_type(key, &other, "an array")),
        }
    }

    pub(super) fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>> {
        match self.take(key)? {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong_type(key, &other, "an object")),
        }
    }

    pub(super) fn digest(&mut self, key: &str) -> Result<Digest> {
        let text = self.required_string(key)?;
        text.parse()
            .map_err(|e: Error| self.refuse(key, format!("is no digest: {e}")))
    }

    /// A size in bytes: a whole number, written as one, at most [`limits::MAX_FILE_BYTES`].
    pub(super) fn size(&mut self, key: &str) -> Result<u64> {
        let value = self.required(key)?;
        match value.as_u64() {
            Some(size) if size <= limits::MAX_FILE_BYTES => Ok(size),
            Some(size) => Err(self.refuse(
                key,
                format!("is {size} bytes, the limit is {}", limits::MAX_FILE_BYTES),
            )),
            None => Err(self.refuse(
                key,
                format!("is {}, not a whole number of bytes", describe(&value)),
            )),
        }
    }

    /// `schemaVersion`, which must be 2.
    pub(super) fn schema_version(&mut self) -> Result<u32> {
        let key = "schemaVersion";
        let value = self.required(key)?;
        if value.as_u64() == Some(2) {
            Ok(2)
        } else {
            Err(self.refuse(key, format!("is {}, only 2 is supported", describe(&value))))
        }
    }

    pub(super) fn annotations(&mut self) -> Result<BTreeMap<String, String>> {
        let key = "annotations";
        let mut annotations = BTreeMap::new();
        for (name, value) in self.object(key)?.unwrap_or_default() {
            match value {
                Value::String(text) => annotations.insert(name, text),
                other => {
                    let rule = format!(
                        "has {} for {}, not a string",
                        describe(&other),
                        quoted(&name)
                    );
                    return Err(self.refuse(key, rule));
                }
            };
        }
        Ok(annotations)
    }

    fn wrong_type(&self, key: &str, found: &Value, expected: &str) -> Error {
        self.refuse(key, format!("is {}, not {expected}", describe(found)))
    }
}

/// `mediaType` as the original tool spells it: `media_type`.
fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 2);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// What a value is, for messages; short whatever the value.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}
