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
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::oci::stated::{MediaTypes, path_of};
use crate::oci::{
    Descriptor, Index, OciConfig, OciManifest, Stated, annotations, json, media_type, time,
};
use crate::printable::{quoted, shown};
use crate::source::{BlobSource, Root};
use crate::systems::{self, Layer, System, name_of_layer};

/// The documents of a model, whole.
#[derive(Debug, Clone)]
pub struct Documents {
    /// The manifest.
    pub manifest: OciManifest,
    /// The config blob's bytes, whatever they are.
    pub config_bytes: Vec<u8>,
}

/// What a model's documents say, as far as it is needed as long as the model is open.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The manifest's layers but for placeholders, in order; taken by who opens them.
    pub(super) layers: Vec<Layer>,
    /// The manifest's digest: the pinned one, or else the one that the index names.
    pub manifest_digest: Digest,
    /// The manifest's length.
    pub(super) manifest_bytes: u64,
    /// What the artifact is, where it has no config of ours: its artifact type, or else its
    /// config's media type.
    pub artifact: String,
    /// The config, when it is one of this project or of the original tool.
    pub config: Option<OciConfig>,
    /// When the model was made, since the epoch, where the manifest says so.
    pub(super) created: Option<Duration>,
    /// The system that wrote it.
    pub system: &'static dyn System,
    /// What `inspect` should tell, one sentence each.
    pub notes: Vec<String>,
    place: Place,
}

/// Which of the manifests of a source is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The one of this digest; refused if it is another.
    pub pin: Option<&'a Digest>,
    /// The one that the index calls so.
    pub reference: Option<&'a str>,
}

impl<'a> From<Option<&'a Digest>> for Wanted<'a> {
    fn from(pin: Option<&'a Digest>) -> Wanted<'a> {
        Wanted {
            pin,
            reference: None,
        }
    }
}

/// Finds the manifest of the model in `source` and checks everything that its documents say. Errors
/// name the document, not the source. Of large documents one is held at a time, and not longer than
/// it takes to read it.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when a document breaks a rule, is missing, or leaves a choice;
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a manifest or config differs from its digest;
/// [`ErrorKind::PinMismatch`](crate::ErrorKind::PinMismatch) when no manifest is the pinned one;
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) when there are several, or none is called as wanted.
pub fn resolve<'a>(source: &dyn BlobSource, wanted: impl Into<Wanted<'a>>) -> Result<Resolved> {
    let mut resolver = Resolver {
        source,
        wanted: wanted.into(),
        notes: Vec::new(),
    };
    resolver.check_layout()?;
    let place = resolver.locate()?;
    let mut layers = Vec::new();
    let mut media_types = MediaTypes::default();
    let found = resolver.read_manifest(&place, &mut |number, layer| {
        if layer.is_empty() {
            return Ok(());
        }
        let path = path_of(&layer).map(Box::from);
        let within = |e: Error| e.within(name_of_layer(number, path.as_deref(), &layer.digest));
        let stated = Stated::of(&layer, &mut media_types).map_err(within)?;
        layers.push(Layer {
            number,
            path,
            stated: Arc::new(stated),
        });
        Ok(())
    })?;
    resolver.check_layers(&layers)?;
    let config = resolver.config(&found.manifest.config)?;
    let created = resolver.created(&found.manifest);
    let system = systems::of(&systems::Head {
        artifact_type: found.manifest.artifact_type.as_deref(),
        config_type: &found.manifest.config.media_type,
        original_spelling: found.original_spelling,
    });
    let artifact = found.manifest.artifact_type;
    Ok(Resolved {
        layers,
        manifest_digest: place.digest,
        manifest_bytes: found.bytes,
        artifact: artifact.unwrap_or(found.manifest.config.media_type),
        config,
        created,
        system,
        notes: resolver.notes,
        place,
    })
}

impl Resolved {
    /// Reads the documents again, as wholes.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn documents(&self, source: &dyn BlobSource) -> Result<Documents> {
        let resolver = Resolver {
            source,
            wanted: Wanted::default(),
            notes: Vec::new(),
        };
        let mut layers = Vec::new();
        let found = resolver.read_manifest(&self.place, &mut |_, layer| {
            layers.push(layer);
            Ok(())
        })?;
        let manifest = OciManifest {
            layers,
            ..found.manifest
        };
        let config_bytes = resolver.config_bytes(&manifest.config)?;
        Ok(Documents {
            manifest,
            config_bytes,
        })
    }
}

/// Where the manifest of the model is.
#[derive(Debug, Clone)]
struct Place {
    /// The pinned digest, or else the one that names it.
    digest: Digest,
    /// The descriptor of its blob; without one it is the root document.
    listed: Option<Descriptor>,
    /// It is the only one that is listed, and nothing more is known of it.
    only: bool,
}

/// A manifest that was read and verified.
struct Found {
    /// All but its layers.
    manifest: OciManifest,
    /// Its length.
    bytes: u64,
    /// It is spelt as the original Python tool spells it.
    original_spelling: bool,
    /// All of its layers are chunk tables.
    only_tables: bool,
}

/// What decides whether a manifest is the model's.
struct Candidate {
    descriptor: Descriptor,
    /// It accompanies a model instead of being one: a referrer (chunk tables, signatures, bills of
    /// material) or a build attestation.
    companion: bool,
    tables: bool,
    /// It is a container image, which comes once per platform.
    image: bool,
}

struct Resolver<'a> {
    source: &'a dyn BlobSource,
    wanted: Wanted<'a>,
    notes: Vec<String>,
}

impl Resolver<'_> {
    /// The time that a manifest states, if that is one after the epoch: before it nothing was made, and
    /// tools that do not know the time write it.
    fn created(&mut self, manifest: &OciManifest) -> Option<Duration> {
        let text = manifest.annotations.get(annotations::CREATED)?;
        let created = time::parse(text);
        if created.is_none() {
            let text = quoted(text);
            let key = annotations::CREATED;
            self.notes
                .push(format!("{key} is {text}, no time of RFC 3339; ignored"));
        }
        created.filter(|time| !time.is_zero())
    }

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
                let rule = format!(
                    "imageLayoutVersion is {}, only 1.0.0 is supported",
                    quoted(other)
                );
                Err(Error::malformed(subject, rule))
            }
            None => Err(Error::malformed(subject, "has no imageLayoutVersion")),
        }
    }

    /// Finds the manifest, reading no more than it takes to tell it from others.
    fn locate(&mut self) -> Result<Place> {
        let limit = limits::MAX_MANIFEST_BYTES;
        match self.source.root(limit)? {
            Some(Root::Index(index)) => self.locate_in(&index),
            Some(Root::Manifest(_)) if self.wanted.reference.is_some() => Err(Error::usage(
                "--ref: there is no index.json, so that nothing has a name",
            )),
            Some(Root::Manifest(manifest)) => self.root_manifest(&manifest),
            None => Err(Error::malformed(
                "index.json",
                "is missing, and so is manifest.json; expected an OCI image layout \
                 or an archive of the original tool",
            )),
        }
    }

    fn locate_in(&mut self, index: &[u8]) -> Result<Place> {
        let index = Index::parse_named(index, "index.json")?;
        let named = self.named(&index)?;
        let mut listed = self.manifests_of(index)?;
        self.check_root_copy(&listed)?;
        if let Some(named) = named {
            listed = self.manifests_of(named)?;
        }
        match self.wanted.pin {
            Some(pin) => self.pinned(pin, &listed),
            None => self.choose(listed),
        }
    }

    /// The original tool's archives have no index: the root manifest is the manifest.
    fn root_manifest(&self, bytes: &[u8]) -> Result<Place> {
        let algorithm = self
            .wanted
            .pin
            .map_or(crate::Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, bytes);
        if let Some(pin) = self.wanted.pin.filter(|pin| **pin != digest) {
            return Err(mismatch(pin, digest));
        }
        if is_image_list(bytes)? {
            let rule = "is a docker-archive's list of images, and there is no index.json; \
                        save the image as an OCI archive";
            return Err(Error::malformed("manifest.json", rule));
        }
        Ok(Place {
            digest,
            listed: None,
            only: true,
        })
    }

    /// What an index calls as it is wanted, where a name is.
    fn named(&self, index: &Index) -> Result<Option<Index>> {
        let Some(wanted) = self.wanted.reference else {
            return Ok(None);
        };
        let mut named = index.clone();
        named
            .manifests
            .retain(|d| names_of(d).any(|name| name == wanted));
        if !named.manifests.is_empty() {
            return Ok(Some(named));
        }
        let mut names: Vec<_> = index.manifests.iter().flat_map(names_of).collect();
        names.sort_unstable();
        names.dedup();
        let known = match names.as_slice() {
            [] => "its manifests have no names".to_string(),
            names => format!("it has {}", shortened(names.iter().map(|name| shown(name)))),
        };
        Err(Error::usage(format_args!(
            "--ref: index.json calls no manifest {}; {known}",
            shown(wanted)
        )))
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
    fn check_root_copy(&mut self, listed: &[Descriptor]) -> Result<()> {
        let subject = "manifest.json";
        let root = self.source.document(subject, limits::MAX_MANIFEST_BYTES)?;
        let Some(root) = root else { return Ok(()) };
        let mut digests: Vec<Digest> = Vec::new();
        for algorithm in listed.iter().map(|d| d.digest.algorithm()) {
            if !digests.iter().any(|d| d.algorithm() == algorithm) {
                digests.push(Digest::of(algorithm, &root));
            }
        }
        if listed.iter().any(|d| digests.contains(&d.digest)) {
            return Ok(());
        }
        if is_image_list(&root)? {
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
    fn pinned(&self, pin: &Digest, listed: &[Descriptor]) -> Result<Place> {
        let place = |descriptor: &Descriptor| Place {
            digest: *pin,
            listed: Some(descriptor.clone()),
            only: false,
        };
        if let Some(descriptor) = listed.iter().find(|d| d.digest == *pin) {
            return Ok(place(descriptor));
        }
        // The pin may be another algorithm's digest of a listed manifest.
        for descriptor in listed
            .iter()
            .filter(|d| d.digest.algorithm() != pin.algorithm())
        {
            let bytes = self.read(descriptor, "manifest", limits::MAX_MANIFEST_BYTES)?;
            if bytes.is_some_and(|bytes| Digest::of(pin.algorithm(), &bytes) == *pin) {
                return Ok(place(descriptor));
            }
        }
        match listed.first() {
            Some(first) => Err(mismatch(pin, first.digest)),
            None => Err(self.no_manifest()),
        }
    }

    /// Reads, verifies and parses a manifest, whose layers go to `each`.
    fn read_manifest(
        &self,
        place: &Place,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<Found> {
        let Some(descriptor) = &place.listed else {
            return self.read_root_manifest(&place.digest, each);
        };
        let found = self.read_listed(descriptor, each)?;
        let found = found.ok_or_else(|| self.missing(descriptor, "manifest"))?;
        match place.only && holds_chunk_tables(&found) {
            true => Err(self.no_manifest()),
            false => Ok(found),
        }
    }

    fn read_root_manifest(
        &self,
        expected: &Digest,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<Found> {
        let subject = "manifest.json";
        let bytes = match self.source.root(limits::MAX_MANIFEST_BYTES)? {
            Some(Root::Manifest(bytes)) => bytes,
            Some(Root::Index(_)) | None => Vec::new(),
        };
        if Digest::of(expected.algorithm(), &bytes) != *expected {
            return Err(Error::corrupt(subject, "was changed while it was read"));
        }
        let read = OciManifest::read(&bytes, subject, each)?;
        Ok(Found {
            manifest: read.manifest,
            bytes: bytes.len() as u64,
            original_spelling: read.original_spelling,
            only_tables: false,
        })
    }

    /// `None` when the source does not have the blob.
    fn read_listed(
        &self,
        descriptor: &Descriptor,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<Option<Found>> {
        let Some(bytes) = self.read(descriptor, "manifest", limits::MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        let subject = format!("manifest {}", descriptor.digest);
        let (mut layers, mut tables) = (0, 0);
        let read = OciManifest::read(&bytes, &subject, &mut |number, layer| {
            layers += 1;
            tables += usize::from(is_chunk_table(&layer.media_type));
            each(number, layer)
        })?;
        check_declared(read.manifest.media_type.as_deref(), descriptor, &subject)?;
        Ok(Some(Found {
            manifest: read.manifest,
            bytes: bytes.len() as u64,
            original_spelling: false,
            only_tables: layers > 0 && layers == tables,
        }))
    }

    /// The one manifest that is a model.
    fn choose(&mut self, mut listed: Vec<Descriptor>) -> Result<Place> {
        if listed.len() == 1 {
            return Ok(Place::of(listed.remove(0), true));
        }
        let mut choices = Vec::new();
        let mut missing = None;
        let mut bytes = 0u64;
        for descriptor in listed {
            bytes = bytes.saturating_add(descriptor.size);
            if bytes > limits::MAX_CANDIDATE_BYTES {
                let rule = format!(
                    "index.json lists manifests of more than {} bytes; choose one with --ref or --digest",
                    limits::MAX_CANDIDATE_BYTES
                );
                return Err(Error::usage(rule));
            }
            match self.read_listed(&descriptor, &mut |_, _| Ok(()))? {
                Some(found) => choices.push(Candidate::new(descriptor, &found)),
                // Tools save one platform of an image and keep the index of all.
                None => missing = missing.or(Some(descriptor)),
            }
        }
        let (companions, mut choices): (Vec<_>, Vec<_>) =
            choices.into_iter().partition(|c| c.companion);
        if choices.len() > 1 && choices.iter().all(|c| c.image) {
            let own = |c: &Candidate| is_for_this_machine(&c.descriptor);
            if choices.iter().filter(|c| own(c)).count() == 1 {
                choices.retain(own);
                self.notes
                    .push("the image for this machine's platform was chosen".into());
            }
        }
        if choices.is_empty() {
            // A model may refer to something itself, say to the model it was tuned from.
            choices = companions;
            choices.retain(|c| !c.tables);
        }
        if choices.len() > 1 {
            return Err(several(&choices));
        }
        match (choices.pop(), missing) {
            (Some(chosen), missing) => {
                if missing.is_some() {
                    self.notes
                        .push("index.json lists manifests that are not in the archive".into());
                }
                Ok(Place::of(chosen.descriptor, false))
            }
            (None, Some(missing)) => Err(self.missing(&missing, "manifest")),
            (None, None) => Err(self.no_manifest()),
        }
    }

    fn no_manifest(&self) -> Error {
        Error::malformed("index.json", "names no manifest of a model")
    }

    /// Every layer's blob must be there, with the size that its descriptor states. Costs no data, and
    /// each blob is asked for once: all descriptors of one give the same size.
    fn check_layers(&self, layers: &[Layer]) -> Result<()> {
        let mut checked = HashSet::new();
        for Layer {
            number,
            path,
            stated,
        } in layers
        {
            if !checked.insert(stated.digest) {
                continue;
            }
            let what = match path {
                Some(path) => format!("layer \"{path}\""),
                None => format!("layer {number}"),
            };
            let Some(blob) = self.source.blob(&stated.digest, Some(stated.size))? else {
                return Err(missing(&stated.digest, &what));
            };
            check_size(&stated.digest, stated.size, blob.len(), &what)?;
        }
        Ok(())
    }

    /// What the config says, when it is that of a model.
    fn config(&mut self, descriptor: &Descriptor) -> Result<Option<OciConfig>> {
        let bytes = self.config_bytes(descriptor)?;
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
        Ok(config)
    }

    fn config_bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if descriptor.is_empty() {
            return Ok(crate::oci::EMPTY_JSON.to_vec());
        }
        self.read(descriptor, "config", limits::MAX_CONFIG_BYTES)?
            .ok_or_else(|| self.missing(descriptor, "config"))
    }

    /// The bytes of a small blob, verified; `None` when the source does not have it and the
    /// descriptor does not carry it.
    fn read(&self, descriptor: &Descriptor, what: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(blob) = self
            .source
            .blob(&descriptor.digest, Some(descriptor.size))?
        else {
            return Ok(descriptor.data.clone());
        };
        let subject = || format!("{what} {}", descriptor.digest);
        check_size(&descriptor.digest, descriptor.size, blob.len(), what)?;
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

    fn missing(&self, descriptor: &Descriptor, what: &str) -> Error {
        missing(&descriptor.digest, what)
    }
}

impl Place {
    fn of(descriptor: Descriptor, only: bool) -> Place {
        Place {
            digest: descriptor.digest,
            listed: Some(descriptor),
            only,
        }
    }
}

impl Candidate {
    fn new(descriptor: Descriptor, found: &Found) -> Candidate {
        const ATTESTATION: &str = "vnd.docker.reference.type";
        const IMAGES: [&str; 2] = [media_type::IMAGE_CONFIG, media_type::DOCKER_CONFIG];
        let tables = holds_chunk_tables(found);
        Candidate {
            companion: found.manifest.subject.is_some()
                || tables
                || descriptor.annotation(ATTESTATION).is_some()
                || accompanies(&descriptor),
            tables,
            image: IMAGES.contains(&found.manifest.config.media_type.as_str()),
            descriptor,
        }
    }
}

fn missing(digest: &Digest, what: &str) -> Error {
    Error::malformed(format!("{what} {digest}"), "the blob is missing")
}

fn check_size(digest: &Digest, stated: u64, found: u64, what: &str) -> Result<()> {
    if stated == found {
        return Ok(());
    }
    let rule = format!("the blob has {found} bytes, its descriptor says {stated}");
    Err(Error::malformed(format!("{what} {digest}"), rule))
}

/// True for the list of images that docker-archives keep as `manifest.json`.
fn is_image_list(bytes: &[u8]) -> Result<bool> {
    let document = json::parse_with_list(bytes, "manifest.json", "layers", &mut |_, _| Ok(()))?;
    Ok(document.is_array())
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
                "mediaType is {}, its descriptor says {}",
                quoted(own),
                quoted(&descriptor.media_type)
            );
            Err(Error::malformed(subject, rule))
        }
        _ => Ok(()),
    }
}

fn is_chunk_table(media_type: &str) -> bool {
    media_type == media_type::CHUNK_TABLE
}

fn holds_chunk_tables(found: &Found) -> bool {
    found.only_tables
        || found
            .manifest
            .artifact_type
            .as_deref()
            .is_some_and(is_chunk_table)
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

/// The names that an index gives a manifest.
fn names_of(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    let keys = [annotations::REF_NAME, annotations::CONTAINERD_NAME];
    keys.into_iter()
        .filter_map(|key| descriptor.annotation(key))
}

/// True for what cosign keeps beside what it signs: by the kinds of the layouts that it saves, and by
/// the tags that it pushes to.
fn accompanies(descriptor: &Descriptor) -> bool {
    let kind = descriptor.annotation("kind").unwrap_or_default();
    let kind = kind.strip_prefix("dev.cosignproject.cosign/");
    kind.is_some_and(|kind| kind != "image" && kind != "imageIndex")
        || names_of(descriptor).any(|name| {
            let tag = name.rsplit(':').next().unwrap_or_default();
            let digits = tag
                .strip_prefix("sha256-")
                .and_then(|rest| rest.split_once('.'))
                .filter(|(_, suffix)| ["sig", "att", "sbom"].contains(suffix))
                .map(|(digits, _)| digits);
            digits.is_some_and(|digits| {
                digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
            })
        })
}

/// A list of which the first are shown.
fn shortened(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 10;
    let all = items.len();
    let mut list: Vec<String> = items.take(SHOWN).collect();
    if all > SHOWN {
        list.push(format!("and {} more", all - SHOWN));
    }
    list.join(", ")
}

/// Lists the manifests between which nothing decides.
fn several(choices: &[Candidate]) -> Error {
    let label = |Candidate { descriptor, .. }: &Candidate| match names_of(descriptor).next() {
        Some(name) => format!("{} ({})", descriptor.digest, shown(name)),
        None => descriptor.digest.to_string(),
    };
    Error::usage(format_args!(
        "index.json lists {} manifests; choose one with --ref or --digest: {}",
        choices.len(),
        shortened(choices.iter().map(label))
    ))
}

#[cfg(test)]
mod tests;
