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

use serde_json::Value;

use super::listed::{Carried, Listed};
use super::notes::Notes;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::oci::stated::{MediaTypes, path_of};
use crate::oci::{
    Descriptor, Index, OciConfig, OciManifest, Stated, annotations, json, media_type, time,
};
use crate::printable::{quoted, shown};
use crate::source::{BlobSource, Root};
use crate::systems::{self, About, Layer, System, name_of_layer};

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
    /// What the model is.
    pub about: About,
    /// Where the config is read again, ours or another.
    config_blob: Descriptor,
    /// When the model was made, since the epoch, where the manifest says so.
    pub(super) created: Option<Duration>,
    /// The system that wrote it.
    pub system: &'static dyn System,
    /// What `inspect` should tell, one sentence each.
    pub notes: Notes,
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
        notes: Notes::default(),
    };
    resolver.check_layout()?;
    let place = resolver.locate()?;
    let mut layers = Vec::new();
    let mut media_types = MediaTypes::default();
    let mut layer_type = None;
    let found = resolver.read_manifest(&place, &mut |number, layer| {
        if layer.is_empty() {
            return Ok(());
        }
        layer_type.get_or_insert_with(|| layer.media_type.clone());
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
    let (config, value) = resolver.config(&found.manifest.config)?;
    let created = resolver.created(&found.manifest);
    let system = systems::of(&systems::Head {
        artifact_type: found.manifest.artifact_type.as_deref(),
        config_type: &found.manifest.config.media_type,
        layer_type: layer_type.as_deref(),
        original_spelling: found.original_spelling,
    });
    let artifact = found.manifest.artifact_type;
    let about = match &config {
        Some(config) => About::from(config),
        None => system.about(&value),
    };
    Ok(Resolved {
        layers,
        manifest_digest: place.digest,
        manifest_bytes: found.bytes,
        artifact: artifact.unwrap_or_else(|| found.manifest.config.media_type.clone()),
        config,
        about: about.or(About::of_annotations(&found.manifest.annotations)),
        config_blob: found.manifest.config,
        created,
        system,
        notes: resolver.notes,
        place,
    })
}

impl Resolved {
    /// Reads the config again; `None` for the empty one.
    ///
    /// # Errors
    /// As [`resolve`].
    pub(super) fn config_bytes(&self, source: &dyn BlobSource) -> Result<Option<Vec<u8>>> {
        let resolver = Resolver {
            source,
            wanted: Wanted::default(),
            notes: Notes::default(),
        };
        match self.config_blob.is_empty() {
            true => Ok(None),
            false => resolver.config_bytes(&self.config_blob).map(Some),
        }
    }

    /// Reads the documents again, as wholes.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn documents(&self, source: &dyn BlobSource) -> Result<Documents> {
        let resolver = Resolver {
            source,
            wanted: Wanted::default(),
            notes: Notes::default(),
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
    listed: Option<Listed>,
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
    listed: Listed,
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
    notes: Notes,
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
        let mut roots = Vec::new();
        Index::read(index, "index.json", &mut |_, descriptor| {
            roots.push(Listed::of(descriptor));
            Ok(())
        })?;
        let (named, others) = self.named(roots)?;
        let mut found = Manifests::default();
        self.add_manifests(named, &mut found)?;
        let named = found.list.len();
        self.add_manifests(others, &mut found)?;
        let mut listed = found.list;
        self.check_root_copy(&listed)?;
        listed.truncate(named);
        match self.wanted.pin {
            Some(pin) => self.pinned(pin, listed),
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

    /// What an index calls as it is wanted, and the rest; all, where no name is wanted.
    fn named(&self, roots: Vec<Listed>) -> Result<(Vec<Listed>, Vec<Listed>)> {
        let Some(wanted) = self.wanted.reference else {
            return Ok((roots, Vec::new()));
        };
        let (named, others): (Vec<_>, Vec<_>) =
            roots.into_iter().partition(|root| root.is_called(wanted));
        if !named.is_empty() {
            return Ok((named, others));
        }
        let mut names: Vec<&String> = others.iter().flat_map(|root| &root.names).collect();
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

    /// Adds the manifests below what an index lists, each digest once; those of nested indexes come last.
    fn add_manifests(&self, roots: Vec<Listed>, found: &mut Manifests) -> Result<()> {
        let mut indexes = Vec::new();
        for root in roots {
            found.add(root, 1, &mut indexes)?;
        }
        while let Some((listed, depth)) = indexes.pop() {
            if depth > limits::MAX_INDEX_DEPTH {
                let rule = format!(
                    "nests indexes too deeply, the limit is {}",
                    limits::MAX_INDEX_DEPTH
                );
                return Err(Error::malformed("index.json", rule));
            }
            let Some(bytes) = self.read(&listed.blob, "index", limits::MAX_MANIFEST_BYTES)? else {
                continue;
            };
            let subject = format!("index {}", listed.blob.digest);
            let nested = Index::read(&bytes, &subject, &mut |_, descriptor| {
                found.add(Listed::of(descriptor), depth + 1, &mut indexes)
            })?;
            check_declared(nested.media_type.as_deref(), &listed.media_type, &subject)?;
        }
        Ok(())
    }

    /// The root `manifest.json` must be a copy of a manifest that the index names: other tools read
    /// it instead of the index, and must not see another model. The list of images that
    /// docker-archives keep under this name is not ours to judge.
    fn check_root_copy(&mut self, listed: &[Listed]) -> Result<()> {
        let subject = "manifest.json";
        let root = self.source.document(subject, limits::MAX_MANIFEST_BYTES)?;
        let Some(root) = root else { return Ok(()) };
        let mut digests: Vec<Digest> = Vec::new();
        for algorithm in listed.iter().map(|l| l.blob.digest.algorithm()) {
            if !digests.iter().any(|d| d.algorithm() == algorithm) {
                digests.push(Digest::of(algorithm, &root));
            }
        }
        if listed.iter().any(|l| digests.contains(&l.blob.digest)) {
            return Ok(());
        }
        if is_image_list(&root)? {
            self.notes
                .push("manifest.json is a docker-archive's list of images; ignored");
            return Ok(());
        }
        let named = listed.first().map_or_else(
            || "index.json names none".to_string(),
            |l| format!("index.json names {}", l.blob.digest),
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
    fn pinned(&self, pin: &Digest, listed: Vec<Listed>) -> Result<Place> {
        let first = listed.first().map(|listed| listed.blob.digest);
        let place = |listed| Place {
            digest: *pin,
            listed: Some(listed),
            only: false,
        };
        let (same, others): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .partition(|listed| listed.blob.digest.algorithm() == pin.algorithm());
        if let Some(found) = same.into_iter().find(|l| l.blob.digest == *pin) {
            return Ok(place(found));
        }
        // The pin may be another algorithm's digest of a listed manifest.
        for listed in others {
            let bytes = self.read(&listed.blob, "manifest", limits::MAX_MANIFEST_BYTES)?;
            if bytes.is_some_and(|bytes| Digest::of(pin.algorithm(), &bytes) == *pin) {
                return Ok(place(listed));
            }
        }
        match first {
            Some(first) => Err(mismatch(pin, first)),
            None => Err(self.no_manifest()),
        }
    }

    /// Reads, verifies and parses a manifest, whose layers go to `each`.
    fn read_manifest(
        &self,
        place: &Place,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<Found> {
        let Some(listed) = &place.listed else {
            return self.read_root_manifest(&place.digest, each);
        };
        let found = self.read_listed(listed, each)?;
        let found = found.ok_or_else(|| missing(&listed.blob.digest, "manifest"))?;
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
        listed: &Listed,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<Option<Found>> {
        let Some(bytes) = self.read(&listed.blob, "manifest", limits::MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        let subject = format!("manifest {}", listed.blob.digest);
        let (mut layers, mut tables) = (0, 0);
        let read = OciManifest::read(&bytes, &subject, &mut |number, layer| {
            layers += 1;
            tables += usize::from(is_chunk_table(&layer.media_type));
            each(number, layer)
        })?;
        check_declared(
            read.manifest.media_type.as_deref(),
            &listed.media_type,
            &subject,
        )?;
        Ok(Some(Found {
            manifest: read.manifest,
            bytes: bytes.len() as u64,
            original_spelling: false,
            only_tables: layers > 0 && layers == tables,
        }))
    }

    /// The one manifest that is a model.
    fn choose(&mut self, mut listed: Vec<Listed>) -> Result<Place> {
        if listed.len() == 1 {
            return Ok(Place::of(listed.remove(0), true));
        }
        let mut choices = Vec::new();
        let mut absent = None;
        let mut bytes = 0u64;
        for listed in listed {
            bytes = bytes.saturating_add(listed.blob.size);
            if bytes > limits::MAX_CANDIDATE_BYTES {
                let rule = format!(
                    "index.json lists manifests of more than {} bytes; choose one with --ref or --digest",
                    limits::MAX_CANDIDATE_BYTES
                );
                return Err(Error::usage(rule));
            }
            match self.read_listed(&listed, &mut |_, _| Ok(()))? {
                Some(found) => choices.push(Candidate::new(listed, &found)),
                // Tools save one platform of an image and keep the index of all.
                None => absent = absent.or(Some(listed.blob.digest)),
            }
        }
        let (companions, mut choices): (Vec<_>, Vec<_>) =
            choices.into_iter().partition(|c| c.companion);
        if choices.len() > 1 && choices.iter().all(|c| c.image) {
            let own = |c: &Candidate| c.listed.for_this_machine;
            if choices.iter().filter(|c| own(c)).count() == 1 {
                choices.retain(own);
                self.notes
                    .push("the image for this machine's platform was chosen");
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
        match (choices.pop(), absent) {
            (Some(chosen), gone) => {
                if gone.is_some() {
                    self.notes
                        .push("index.json lists manifests that are not in the archive");
                }
                Ok(Place::of(chosen.listed, false))
            }
            (None, Some(digest)) => Err(missing(&digest, "manifest")),
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
            ..
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

    /// What the config says, when it is that of a model; and it as a document, where it is one.
    fn config(&mut self, descriptor: &Descriptor) -> Result<(Option<OciConfig>, Value)> {
        let bytes = self.config_bytes(descriptor)?;
        let subject = format!("config {}", descriptor.digest);
        let config = match descriptor.media_type.as_str() {
            media_type::MODEL_CONFIG => Some(OciConfig::parse_named(&bytes, &subject)?),
            media_type::IMAGE_CONFIG => {
                let value = json::parse(&bytes, &subject)?;
                if !OciConfig::is_like(&value) {
                    return Ok((None, value));
                }
                Some(OciConfig::from_value(value, &subject)?)
            }
            // What it says is for people; one that makes no sense says nothing.
            _ => return Ok((None, json::parse(&bytes, &subject).unwrap_or_default())),
        };
        if config.is_some() {
            let root = self
                .source
                .document("config.json", limits::MAX_CONFIG_BYTES)?;
            if root.is_some_and(|root| root != bytes) {
                self.notes
                    .push("config.json differs from the config blob; ignored");
            }
        }
        Ok((config, Value::Null))
    }

    fn config_bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if descriptor.is_empty() {
            return Ok(crate::oci::EMPTY_JSON.to_vec());
        }
        let blob = Carried::from(descriptor.clone());
        self.read(&blob, "config", limits::MAX_CONFIG_BYTES)?
            .ok_or_else(|| missing(&blob.digest, "config"))
    }

    /// The bytes of a small blob, verified; `None` when the source does not have it and the
    /// descriptor does not carry it.
    fn read(&self, wanted: &Carried, what: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Carried { digest, size, data } = wanted;
        let Some(blob) = self.source.blob(digest, Some(*size))? else {
            return Ok(data.clone());
        };
        let subject = || format!("{what} {digest}");
        check_size(digest, *size, blob.len(), what)?;
        if *size > limit {
            let rule = format!("has {size} bytes, the limit is {limit}");
            return Err(Error::malformed(subject(), rule));
        }
        // The size is the blob's real one and within the limit, so it may be allocated.
        let mut bytes = vec![0; *size as usize];
        blob.read_exact_at(&mut bytes, 0)?;
        let found = Digest::of(digest.algorithm(), &bytes);
        if found != *digest {
            let problem = format!("content has the digest {found}");
            return Err(Error::corrupt(subject(), problem));
        }
        Ok(Some(bytes))
    }
}

/// The manifests that indexes lead to.
#[derive(Default)]
struct Manifests {
    list: Vec<Listed>,
    seen: HashSet<Digest>,
    /// What of their descriptors is held.
    bytes: u64,
}

impl Manifests {
    /// Adds a manifest; a nested index goes to `indexes`, with its depth. An index that leads back to
    /// itself would need a digest of itself in itself; even so nothing is followed twice.
    fn add(
        &mut self,
        listed: Listed,
        depth: usize,
        indexes: &mut Vec<(Listed, usize)>,
    ) -> Result<()> {
        if !self.seen.insert(listed.blob.digest) {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(listed.bytes());
        let too_many = |what, limit: u64| {
            let rule = format!("leads to too many {what}, the limit is {limit}");
            Err(Error::malformed("index.json", rule))
        };
        if self.seen.len() > limits::MAX_MANIFESTS {
            return too_many("documents", limits::MAX_MANIFESTS as u64);
        }
        if self.bytes > limits::MAX_MANIFEST_BYTES {
            return too_many("bytes of descriptors", limits::MAX_MANIFEST_BYTES);
        }
        match media_type::is_index(&listed.media_type) {
            true => indexes.push((listed, depth)),
            false => self.list.push(listed),
        }
        Ok(())
    }
}

impl Place {
    fn of(listed: Listed, only: bool) -> Place {
        Place {
            digest: listed.blob.digest,
            listed: Some(listed),
            only,
        }
    }
}

impl Candidate {
    fn new(listed: Listed, found: &Found) -> Candidate {
        const IMAGES: [&str; 2] = [media_type::IMAGE_CONFIG, media_type::DOCKER_CONFIG];
        let tables = holds_chunk_tables(found);
        Candidate {
            companion: found.manifest.subject.is_some() || tables || listed.companion,
            tables,
            image: IMAGES.contains(&found.manifest.config.media_type.as_str()),
            listed,
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
fn check_declared(own: Option<&str>, declared: &str, subject: &str) -> Result<()> {
    match own {
        Some(own) if own != declared => {
            let rule = format!(
                "mediaType is {}, its descriptor says {}",
                quoted(own),
                quoted(declared)
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
    let label = |Candidate { listed, .. }: &Candidate| match listed.names.first() {
        Some(name) => format!("{} ({})", listed.blob.digest, shown(name)),
        None => listed.blob.digest.to_string(),
    };
    Error::usage(format_args!(
        "index.json lists {} manifests; choose one with --ref or --digest: {}",
        choices.len(),
        shortened(choices.iter().map(label))
    ))
}

#[cfg(test)]
mod tests;
