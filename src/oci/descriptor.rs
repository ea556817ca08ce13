//! Content descriptors.
//!
//! Source: OCI image specification, "Content Descriptors". `urls` are ignored: nothing is ever
//! fetched because a document says so.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use super::fields::Fields;
use super::{base64, json, media_type};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Points at a blob: what it is, its digest and its size (OCI "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob, in bytes.
    pub size: u64,
    /// Artifact type, when the descriptor is one of a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Annotations, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What an image of an index runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Name of a tensor or JSON layer: not in the specification, but how Ollama names its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Inline copy of the blob, checked against digest and size when parsed. Not written.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
}

/// What an image runs on (OCI image index, "platform").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// The architecture, in Go's words: `amd64`.
    pub architecture: String,
    /// The operating system: `linux`.
    pub os: String,
}

impl Descriptor {
    /// A descriptor of `blob` with no annotations.
    pub fn of(media_type: impl Into<String>, blob: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::sha256(blob), blob.len() as u64)
    }

    /// A descriptor with no annotations.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
            platform: None,
            name: None,
            data: None,
        }
    }

    /// The empty descriptor, whose blob is [`EMPTY_JSON`](super::EMPTY_JSON) (OCI image manifest,
    /// "Guidance for an Empty Descriptor").
    pub fn empty() -> Descriptor {
        Descriptor::of(media_type::EMPTY, super::EMPTY_JSON)
    }

    /// True for the empty descriptor, which stands where nothing is meant: as a layer it holds no
    /// file, and its blob need not exist.
    pub fn is_empty(&self) -> bool {
        self.media_type == media_type::EMPTY
            && self.size == super::EMPTY_JSON.len() as u64
            && self.digest == Digest::of(self.digest.algorithm(), super::EMPTY_JSON)
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Reads a descriptor out of the document `subject`, where it stands at `place`.
    pub(super) fn parse(value: Value, subject: &str, place: String) -> Result<Descriptor> {
        let mut fields = Fields::of(value, subject, place)?;
        let descriptor = Descriptor {
            media_type: fields.required_string("mediaType")?,
            digest: fields.digest("digest")?,
            size: fields.size("size")?,
            artifact_type: fields.string("artifactType")?,
            annotations: fields.annotations()?,
            platform: Platform::parse(&mut fields)?,
            name: fields.string("name")?,
            data: None,
        };
        let Some(text) = fields.string("data")? else {
            return Ok(descriptor);
        };
        let data = base64::decode(&text)
            .ok_or_else(|| fields.refuse("data", "is not canonical base64"))?;
        if data.len() as u64 != descriptor.size {
            let rule = format!("has {} bytes, size says {}", data.len(), descriptor.size);
            return Err(fields.refuse("data", rule));
        }
        let found = Digest::of(descriptor.digest.algorithm(), &data);
        if found != descriptor.digest {
            let rule = format!("is {found}, digest says {}", descriptor.digest);
            return Err(fields.refuse("data", rule));
        }
        Ok(Descriptor {
            data: Some(data),
            ..descriptor
        })
    }

    /// Parses a document that lists descriptors in its field `key`: each of them goes to `each`, with
    /// its number, and the document's other fields are returned. One digest must not have two sizes.
    pub(super) fn parse_listing<'a>(
        bytes: &[u8],
        subject: &'a str,
        key: &'static str,
        limit: usize,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<(Fields<'a>, Sizes)> {
        let mut sizes = Sizes::default();
        let mut entries = 0;
        let document = json::parse_with_list(bytes, subject, key, &mut |number, value| {
            if number >= limit {
                entries = number + 1;
                return Ok(());
            }
            let descriptor = Descriptor::parse(value, subject, format!("{key}[{number}]"))?;
            sizes.note(&descriptor, subject)?;
            each(number, descriptor)
        })?;
        if entries > limit {
            let rule = format!("{key} has {entries} entries, the limit is {limit}");
            return Err(Error::malformed(subject, rule));
        }
        Ok((Fields::of(document, subject, String::new())?, sizes))
    }

    /// Checks that the list whose items were read is there, and is one or `null`.
    pub(super) fn check_listing(fields: &mut Fields<'_>, key: &str) -> Result<()> {
        match fields.has(key) {
            true => fields.array(key).map(drop),
            false => Err(fields.refuse(key, "is missing")),
        }
    }
}

impl Platform {
    fn parse(fields: &mut Fields<'_>) -> Result<Option<Platform>> {
        let key = "platform";
        let Some(value) = fields.take(key)? else {
            return Ok(None);
        };
        let mut platform = Fields::of(value, fields.subject(), fields.place_of(key))?;
        Ok(Some(Platform {
            architecture: platform.string("architecture")?.unwrap_or_default(),
            os: platform.string("os")?.unwrap_or_default(),
        }))
    }
}

/// Refuses one digest with two sizes: one of them must be a lie, and readers would differ.
#[derive(Default)]
pub(super) struct Sizes(HashMap<Digest, u64>);

impl Sizes {
    /// Takes note of one more descriptor of the document `subject`.
    pub(super) fn note(&mut self, descriptor: &Descriptor, subject: &str) -> Result<()> {
        let first = *self.0.entry(descriptor.digest).or_insert(descriptor.size);
        if first == descriptor.size {
            return Ok(());
        }
        let rule = format!(
            "gives {} two sizes, {first} and {}",
            descriptor.digest, descriptor.size
        );
        Err(Error::malformed(subject, rule))
    }
}
