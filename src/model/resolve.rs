//! From a source of blobs to the one manifest of the model, and its config.
//!
//! Reads `oci-layout`, `index.json` (nested indexes too) and the root `manifest.json`, which is a
//! copy of the manifest blob, or in the original tool's archives the only manifest there is.
//!
//! Guarantees: manifest and config match their digests, and the manifest the pinned one; every
//! layer's blob is there with the size that its descriptor states. Refuses archives that readers
//! could understand differently: several models without a choice, a root manifest that differs
//! from the index's, documents that are manifest and index in one. Nothing is read that is larger
//! than its limit, and nothing is ever fetched.

use std::collections::HashSet;

use super::builder::path_annotation;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::oci::{Descriptor, Index, OciConfig, OciManifest, annotations, json, media_type};
use crate::source::BlobSource;

/// The documents of a model.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The manifest.
    pub manifest: OciManifest,
    /// Its digest: the pinned one, or else the one that the index names.
    pub manifest_digest: Digest,
    /// Its bytes.
    pub manifest_bytes: Vec<u8>,
    /// The config, when it is one of this project or of the original tool.
    pub config: Option<OciConfig>,
    /// The config blob's bytes, whatever they are.
    pub config_bytes: Vec<u8>,
    /// True for an archive of the original Python tool: no index, and a manifest in its spelling.
    /// That tool took any file name and stored symbolic links as they were.
    pub original: bool,
    /// What `inspect` should tell, one sentence each.
    pub notes: Vec<String>,
}

/// Finds the manifest of the model in `source` and checks everything that its documents say. Errors
/// name the document, not the source.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when a document breaks a rule, is missing, or leaves a choice;
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a manifest or config differs from its digest;
/// [`ErrorKind::PinMismatch`](crate::ErrorKind::PinMismatch) when no manifest is the pinned one.
pub fn resolve(source: &dyn BlobSource, pin: Option<&Digest>) -> Result<Resolved> {
    let mut resolver = Resolver {
        source,
        pin,
        notes: Vec::new(),
    };
    resolver.check_layout()?;
    let root = source.document("manifest.json", limits::MAX_MANIFEST_BYTES)?;
    let index = source.document("index.json", limits::MAX_MANIFEST_BYTES)?;
    let found = match (index, root) {
        (Some(index), root) => resolver.manifest_of_index(&index, root)?,
        (None, Some(root)) => resolver.root_manifest(root)?,
        (None, None) => {
            return Err(Error::malformed(
                "index.json",
                "is missing, and so is manifest.json; expected an OCI image layout \
                 or an archive of the original tool",
            ));
        }
    };
    resolver.check_layers(&found.manifest)?;
    let (config, config_bytes) = resolver.config(&found.manifest.config)?;
    Ok(Resolved {
        manifest: found.manifest,
        manifest_digest: found.digest,
        manifest_bytes: found.bytes,
        config,
        config_bytes,
        original: found.original,
        notes: resolver.notes,
    })
}

/// A manifest that was read, verified and parsed.
struct Found {
    manifest: OciManifest,
    digest: Digest,
    bytes: Vec<u8>,
    original: bool,
}

struct Resolver<'a> {
    source: &'a dyn BlobSource,
    pin: Option<&'a Digest>,
    notes: Vec<String>,
}

impl Resolver<'_> {
    /// `oci-layout`: may be missing, must not be of another version (OCI image layout).
    fn check_layout(&self) -> Result<()> {
        let subject = "oci-layout";
        let Some(bytes) = self
            .source
            .document("oci-layout", limits::MAX_MANIFEST_BYTES)?
        else {
            return Ok(());
        };
        let layout = json::parse(&bytes, subject)?;
        match layout.get("imageLayoutVersion").and_then(|v| v.as_str()) {
            Some("1.0.0") => Ok(()),
            Some(other) => {
                let rule = format!("imageLayoutVersion is {other:?}, only 1.0.0 is supported");
                Err(Error::malformed(subject, rule))
            }
            None => Err(Error::malformed(subject, "has no imageLayoutVersion")),
        }
    }

    /// The original tool's archives have no index: the root manifest is the manifest.
    fn root_manifest(&self, bytes: Vec<u8>) -> Result<Found> {
        let algorithm = self.pin.map_or(crate::Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        if let Some(pin) = self.pin.filter(|pin| **pin != digest) {
            return Err(mismatch(pin, digest));
        }
        let subject = "manifest.json";
        let document = json::parse(&bytes, subject)?;
        if document.is_array() {
            let rule = "is a docker-archive's list of images, and there is no index.json; \
                        save the image as an OCI archive";
            return Err(Error::malformed(subject, rule));
        }
        let manifest = OciManifest::parse_named(&bytes, subject)?;
        Ok(Found {
            manifest,
            digest,
            bytes,
            original: document.get("schema_version").is_some(),
        })
    }

    fn manifest_of_index(&mut self, index: &[u8], root: Option<Vec<u8>>) -> Result<Found> {
        let index = Index::parse_named(index, "index.json")?;
        let listed = self.manifests_of(index)?;
        self.check_root_copy(root, &listed)?;
        if let Some(pin) = self.pin {
            return self.pinned(pin, &listed);
        }
        let mut choices = Vec::new();
        let mut missing = None;
        for descriptor in listed {
            match self.manifest(&descriptor)? {
                Some(found) => choices.push((descriptor, found)),
                // Tools save one platform of an image and keep the index of all.
                None => missing = missing.or(Some(descriptor)),
            }
        }
        self.choose(choices, missing)
    }

    /// The manifests below an index, each digest once; those of nested indexes come last.
    fn manifests_of(&self, root: Index) -> Result<Vec<Descriptor>> {
        let mut manifests: Vec<Descriptor> = Vec::new();
        let mut seen = HashSet::new();
        let mut indexes = vec![(root, 0)];
        while let Some((index, depth)) = indexes.pop() {
            if depth > limits::MAX_INDEX_DEPTH {
                let rule = format!(
                    "nests indexes too deeply, the limit is {}",
                    limits::MAX_INDEX_DEPTH
                );
                return Err(Error::malformed("index.json", rule));
            }
            for descriptor in index.manifests {
                // An index that leads back to itself would need a digest of itself in itself; even
                // so nothing is followed twice.
                if !seen.insert(descriptor.digest) {
                    continue;
                }
                if seen.len() > limits::MAX_MANIFESTS {
                    let rule = format!(
                        "leads to too many documents, the limit is {}",
                        limits::MAX_MANIFESTS
                    );
                    return Err(Error::malformed("index.json", rule));
                }
                if !media_type::is_index(&descriptor.media_type) {
                    manifests.push(descriptor);
                } else if let Some(bytes) =
                    self.read(&descriptor, "index", limits::MAX_MANIFEST_BYTES)?
                {
                    let subject = format!("index {}", descriptor.digest);
                    let nested = Index::parse_named(&bytes, &subject)?;
                    check_declared(nested.media_type.as_deref(), &descriptor, &subject)?;
                    indexes.push((nested, depth + 1));
                }
            }
        }
        Ok(manifests)
    }

    /// The root `manifest.json` must be a copy of a manifest that the index names: other tools read
    /// it instead of the index, and must not see another model. The list of images that
    /// docker-archives keep under this name is not ours to judge.
    fn check_root_copy(&mut self, root: Option<Vec<u8>>, listed: &[Descriptor]) -> Result<()> {
        let Some(root) = root else { return Ok(()) };
        let is_copy = |d: &Descriptor| Digest::of(d.digest.algorithm(), &root) == d.digest;
        if listed.iter().any(is_copy) {
            return Ok(());
        }
        let subject = "manifest.json";
        if json::parse(&root, subject)?.is_array() {
            self.notes
                .push("manifest.json is a docker-archive's list of images; ignored".into());
            return Ok(());
        }
        let named = listed.first().map_or_else(
            || "index.json names none".to_string(),
            |d| format!("index.json names {}", d.digest),
        );
        Err(Error::malformed(
            subject,
            format!(
                "differs from the manifest of the index: it is {}, {named}",
                Digest::sha256(&root)
            ),
        ))
    }

    /// The pinned manifest. Its digest is compared before anything of it is parsed.
    fn pinned(&self, pin: &Digest, listed: &[Descriptor]) -> Result<Found> {
        if let Some(descriptor) = listed.iter().find(|d| d.digest == *pin) {
            return self
                .manifest(descriptor)?
                .ok_or_else(|| self.missing(descriptor, "manifest"));
        }
        // The pin may be another algorithm's digest of a listed manifest.
        for descriptor in listed
            .iter()
            .filter(|d| d.digest.algorithm() != pin.algorithm())
        {
            let bytes = self.read(descriptor, "manifest", limits::MAX_MANIFEST_BYTES)?;
            if bytes.is_some_and(|bytes| Digest::of(pin.algorithm(), &bytes) == *pin)
                && let Some(found) = self.manifest(descriptor)?
            {
                return Ok(Found {
                    digest: *pin,
                    ..found
                });
            }
        }
        match listed.first() {
            Some(first) => Err(mismatch(pin, first.digest)),
            None => Err(self.no_manifest()),
        }
    }

    /// Reads, verifies and parses a manifest; `None` when the source does not have its blob.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Option<Found>> {
        let Some(bytes) = self.read(descriptor, "manifest", limits::MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        let subject = format!("manifest {}", descriptor.digest);
        let manifest = OciManifest::parse_named(&bytes, &subject)?;
        check_declared(manifest.media_type.as_deref(), descriptor, &subject)?;
        Ok(Some(Found {
            manifest,
            digest: descriptor.digest,
            bytes,
            original: false,
        }))
    }

    /// The one manifest that is a model.
    fn choose(
        &mut self,
        found: Vec<(Descriptor, Found)>,
        missing: Option<Descriptor>,
    ) -> Result<Found> {
        let (companions, mut choices): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(d, f)| is_companion(d, f));
        if choices.len() > 1 {
            let own = choices
                .iter()
                .filter(|(d, f)| is_image(f) && is_for_this_machine(d));
            if choices.iter().all(|(_, f)| is_image(f)) && own.count() == 1 {
                choices.retain(|(d, _)| is_for_this_machine(d));
                self.notes
                    .push("the image for this machine's platform was chosen".into());
            }
        }
        if choices.is_empty() {
            // A model may refer to something itself, say to the model it was tuned from.
            choices = companions;
            choices.retain(|(_, f)| !holds_chunk_tables(&f.manifest));
        }
        if choices.len() > 1 {
            let shown = 10;
            let mut list: Vec<_> = choices.iter().take(shown).map(label).collect();
            if choices.len() > shown {
                list.push(format!("and {} more", choices.len() - shown));
            }
            let rule = format!(
                "lists {} manifests, choose one by its digest: {}",
                choices.len(),
                list.join(", ")
            );
            return Err(Error::malformed("index.json", rule));
        }
        match (choices.pop(), missing) {
            (Some((_, found)), missing) => {
                if missing.is_some() {
                    self.notes
                        .push("index.json lists manifests that are not in the archive".into());
                }
                Ok(found)
            }
            (None, Some(missing)) => Err(self.missing(&missing, "manifest")),
            (None, None) => Err(self.no_manifest()),
        }
    }

    fn no_manifest(&self) -> Error {
        Error::malformed("index.json", "names no manifest of a model")
    }

    /// Every layer's blob must be there, with the size that its descriptor states. Costs no data.
    fn check_layers(&self, manifest: &OciManifest) -> Result<()> {
        for (n, layer) in manifest.layers.iter().enumerate() {
            if layer.is_empty() {
                continue;
            }
            let what = match path_annotation(layer) {
                Some(path) => format!("layer \"{path}\""),
                None => format!("layer {n}"),
            };
            let Some(blob) = self.source.blob(&layer.digest)? else {
                return Err(self.missing(layer, &what));
            };
            self.check_size(layer, blob.len(), &what)?;
        }
        Ok(())
    }

    /// The config: its bytes, and what they say when it is the config of a model.
    fn config(&mut self, descriptor: &Descriptor) -> Result<(Option<OciConfig>, Vec<u8>)> {
        if descriptor.is_empty() {
            return Ok((None, crate::oci::EMPTY_JSON.to_vec()));
        }
        let bytes = self
            .read(descriptor, "config", limits::MAX_CONFIG_BYTES)?
            .ok_or_else(|| self.missing(descriptor, "config"))?;
        let subject = format!("config {}", descriptor.digest);
        let config = match descriptor.media_type.as_str() {
            media_type::MODEL_CONFIG => Some(OciConfig::parse_named(&bytes, &subject)?),
            media_type::IMAGE_CONFIG => {
                let value = json::parse(&bytes, &subject)?;
                OciConfig::is_like(&value)
                    .then(|| OciConfig::from_value(value, &subject))
                    .transpose()?
            }
            _ => None,
        };
        if config.is_some() {
            let root = self
                .source
                .document("config.json", limits::MAX_CONFIG_BYTES)?;
            if root.is_some_and(|root| root != bytes) {
                self.notes
                    .push("config.json differs from the config blob; ignored".into());
            }
        }
        Ok((config, bytes))
    }

    /// The bytes of a small blob, verified; `None` when the source does not have it and the
    /// descriptor does not carry it.
    fn read(&self, descriptor: &Descriptor, what: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(blob) = self.source.blob(&descriptor.digest)? else {
            return Ok(descriptor.data.clone());
        };
        let subject = || format!("{what} {}", descriptor.digest);
        self.check_size(descriptor, blob.len(), what)?;
        if descriptor.size > limit {
            let rule = format!("has {} bytes, the limit is {limit}", descriptor.size);
            return Err(Error::malformed(subject(), rule));
        }
        // The size is the blob's real one and within the limit, so it may be allocated.
        let mut bytes = vec![0; descriptor.size as usize];
        blob.read_exact_at(&mut bytes, 0)?;
        let found = Digest::of(descriptor.digest.algorithm(), &bytes);
        if found != descriptor.digest {
            let problem = format!("content has the digest {found}");
            return Err(Error::corrupt(subject(), problem));
        }
        Ok(Some(bytes))
    }

    fn check_size(&self, descriptor: &Descriptor, found: u64, what: &str) -> Result<()> {
        if descriptor.size == found {
            return Ok(());
        }
        let rule = format!(
            "the blob has {found} bytes, its descriptor says {}",
            descriptor.size
        );
        let subject = format!("{what} {}", descriptor.digest);
        Err(Error::malformed(subject, rule))
    }

    fn missing(&self, descriptor: &Descriptor, what: &str) -> Error {
        let subject = format!("{what} {}", descriptor.digest);
        Error::malformed(subject, "the blob is missing")
    }
}

fn mismatch(expected: &Digest, found: Digest) -> Error {
    Error::PinMismatch {
        expected: Box::new(*expected),
        found: Box::new(found),
    }
}

/// A document must be of the type that its descriptor gave it (CVE-2021-41190).
fn check_declared(own: Option<&str>, descriptor: &Descriptor, subject: &str) -> Result<()> {
    match own {
        Some(own) if own != descriptor.media_type => {
            let rule = format!(
                "mediaType is {own:?}, its descriptor says {:?}",
                descriptor.media_type
            );
            Err(Error::malformed(subject, rule))
        }
        _ => Ok(()),
    }
}

/// True for manifests that accompany a model instead of being one: referrers (chunk tables,
/// signatures, bills of material) and build attestations.
fn is_companion(descriptor: &Descriptor, found: &Found) -> bool {
    const ATTESTATION: &str = "vnd.docker.reference.type";
    found.manifest.subject.is_some()
        || holds_chunk_tables(&found.manifest)
        || descriptor.annotation(ATTESTATION).is_some()
}

fn holds_chunk_tables(manifest: &OciManifest) -> bool {
    let is_table = |media_type: &str| media_type == media_type::CHUNK_TABLE;
    manifest.artifact_type.as_deref().is_some_and(is_table)
        || (!manifest.layers.is_empty() && manifest.layers.iter().all(|l| is_table(&l.media_type)))
}

/// True for container images, which come once per platform.
fn is_image(found: &Found) -> bool {
    [media_type::IMAGE_CONFIG, media_type::DOCKER_CONFIG]
        .contains(&found.manifest.config.media_type.as_str())
}

fn is_for_this_machine(descriptor: &Descriptor) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    descriptor
        .platform
        .as_ref()
        .is_some_and(|p| p.os == "linux" && p.architecture == architecture)
}

/// A manifest in a list of choices.
fn label((descriptor, _): &(Descriptor, Found)) -> String {
    match descriptor.annotation(annotations::REF_NAME) {
        Some(name) => format!("{} ({name})", descriptor.digest),
        None => descriptor.digest.to_string(),
    }
}

#[cfg(test)]
mod tests;
