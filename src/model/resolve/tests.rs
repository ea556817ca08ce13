#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::source::ReadAt;

/// An archive as a list of entries.
#[derive(Default, Clone)]
struct Fake(BTreeMap<String, Vec<u8>>);

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]);
        Ok(())
    }
}

impl BlobSource for Fake {
    fn name(&self) -> String {
        "model.tar".into()
    }

    fn blob(&self, digest: &Digest, _: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        let blob = self.0.get(&digest.blob_path()).cloned();
        Ok(blob.map(|b| Arc::new(Bytes(b)) as Arc<dyn ReadAt>))
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.0.get(name) {
            Some(bytes) if bytes.len() as u64 > limit => Err(Error::malformed(name, "too large")),
            other => Ok(other.cloned()),
        }
    }
}

impl Fake {
    /// Adds a document of the root.
    fn with(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Fake {
        self.0.insert(name.into(), bytes.into());
        self
    }

    fn without(mut self, name: &str) -> Fake {
        self.0.remove(name).unwrap();
        self
    }

    /// Adds a blob.
    fn blob_of(self, bytes: &[u8]) -> Fake {
        self.with(&Digest::sha256(bytes).blob_path(), bytes)
    }

    fn index(self, manifests: &[Descriptor]) -> Fake {
        let bytes = index_of(manifests);
        self.with("index.json", bytes)
    }

    /// What the documents say, and the documents themselves.
    fn read(&self, pin: Option<&Digest>) -> (Resolved, Documents) {
        let resolved = resolve(self, pin).unwrap();
        let documents = resolved.documents(self).unwrap();
        (resolved, documents)
    }

    /// The manifest that is chosen.
    fn manifest(&self, pin: Option<&Digest>) -> OciManifest {
        self.read(pin).1.manifest
    }

    fn error(&self, pin: Option<&Digest>, kind: ErrorKind, rule: &str) {
        let error = resolve(self, pin).unwrap_err();
        assert!(
            error.to_string().contains(rule),
            "{error}\nexpected: {rule}"
        );
        assert_eq!(error.kind(), kind, "{error}");
    }

    fn refuses(&self, rule: &str) {
        self.error(None, ErrorKind::Malformed, rule);
    }
}

fn index_of(manifests: &[Descriptor]) -> Vec<u8> {
    Index {
        manifests: manifests.to_vec(),
        ..Index::of(Descriptor::empty(), "1")
    }
    .to_bytes()
}

const CONFIG: &[u8] = br#"{"model_name":"m","version":"1"}"#;

/// The manifest of a model with one layer.
fn manifest(layer: &[u8]) -> OciManifest {
    let config = Descriptor::of(media_type::MODEL_CONFIG, CONFIG);
    OciManifest::new(config, vec![Descriptor::of(media_type::LAYER_TAR, layer)])
}

fn entry(manifest: &OciManifest) -> Descriptor {
    Descriptor::of(media_type::IMAGE_MANIFEST, &manifest.to_bytes())
}

/// A complete archive of each of `manifests`, whose layers are all `b"layer"`.
fn archive(manifests: &[&OciManifest]) -> Fake {
    let mut fake = Fake::default()
        .with("oci-layout", crate::oci::OCI_LAYOUT)
        .with("config.json", CONFIG)
        .blob_of(CONFIG)
        .blob_of(b"layer");
    let mut entries = Vec::new();
    for manifest in manifests {
        fake = fake.blob_of(&manifest.to_bytes());
        entries.push(entry(manifest));
    }
    fake.index(&entries)
}

/// A second model with the same layer.
fn other() -> OciManifest {
    let mut other = manifest(b"layer");
    other.annotations.insert("a".into(), "b".into());
    other
}

#[test]
fn resolves_the_default_profile() {
    let manifest = manifest(b"layer");
    let fake = archive(&[&manifest]).with("manifest.json", manifest.to_bytes());
    let (found, documents) = fake.read(None);
    assert_eq!(documents.manifest, manifest);
    assert_eq!(found.manifest_bytes, manifest.to_bytes().len() as u64);
    assert_eq!(found.artifact, media_type::MODEL_ARTIFACT);
    assert_eq!(found.manifest_digest, entry(&manifest).digest);
    assert_eq!(found.config.unwrap().model_name, "m");
    assert_eq!(documents.config_bytes, CONFIG);
    assert_eq!(*found.notes, [""; 0]);
    let differs = resolve(&fake.with("config.json", "{}"), None).unwrap();
    assert_eq!(
        *differs.notes,
        ["config.json differs from the config blob; ignored"]
    );
}

#[test]
fn resolves_an_archive_of_the_original_tool() {
    let layer = b"layer";
    let manifest = json!({
        "schema_version": 2,
        "media_type": media_type::IMAGE_MANIFEST,
        "config": {
            "mediaType": media_type::IMAGE_CONFIG,
            "digest": Digest::sha256(CONFIG).to_string(),
            "size": CONFIG.len(),
        },
        "layers": [{
            "mediaType": media_type::LAYER_TAR_GZIP,
            "digest": Digest::sha256(layer).to_string(),
            "size": layer.len(),
            "annotations": {"org.opencontainers.image.title": "model.bin"},
        }],
    })
    .to_string();
    let fake = Fake::default()
        .with("manifest.json", manifest.as_bytes())
        .with("config.json", CONFIG)
        .blob_of(CONFIG)
        .blob_of(layer);
    let found = resolve(&fake, None).unwrap();
    assert_eq!(found.manifest_digest, Digest::sha256(manifest.as_bytes()));
    assert_eq!(found.config.unwrap().version, "1");
    for algorithm in [crate::Algorithm::Sha256, crate::Algorithm::Sha512] {
        let pin = Digest::of(algorithm, manifest.as_bytes());
        assert_eq!(resolve(&fake, Some(&pin)).unwrap().manifest_digest, pin);
    }
    let pin = Digest::sha256(b"another");
    fake.error(Some(&pin), ErrorKind::PinMismatch, "was pinned");
    fake.without("manifest.json")
        .refuses("is missing, and so is manifest.json");
}

#[test]
fn a_real_image_config_is_no_model_config() {
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let mut image = manifest(b"layer");
    image.config = Descriptor::of(media_type::IMAGE_CONFIG, config);
    let (found, documents) = archive(&[&image]).blob_of(config).read(None);
    assert_eq!(found.config, None);
    assert_eq!(documents.config_bytes, config);
    image.config = Descriptor::empty();
    let (found, documents) = archive(&[&image]).read(None);
    assert_eq!(
        (found.config, documents.config_bytes),
        (None, b"{}".to_vec())
    );
}

#[test]
fn a_model_without_files() {
    let empty = OciManifest::new(Descriptor::of(media_type::MODEL_CONFIG, CONFIG), vec![]);
    assert!(resolve(&archive(&[&empty]), None).is_ok());
}

#[test]
fn the_layout_version_is_checked() {
    let fake = archive(&[&manifest(b"layer")]);
    for (layout, rule) in [
        (
            r#"{"imageLayoutVersion":"2.0.0"}"#,
            "only 1.0.0 is supported",
        ),
        ("{}", "has no imageLayoutVersion"),
        ("[]", "has no imageLayoutVersion"),
        ("", "oci-layout: is not valid JSON"),
    ] {
        fake.clone().with("oci-layout", layout).refuses(rule);
    }
    assert!(resolve(&fake.without("oci-layout"), None).is_ok());
}

#[test]
fn j1_a_manifest_over_the_limit() {
    let mut large = manifest(b"layer");
    large
        .annotations
        .insert("a".into(), "x".repeat(limits::MAX_MANIFEST_BYTES as usize));
    archive(&[&large]).refuses(&format!(
        "bytes, the limit is {}",
        limits::MAX_MANIFEST_BYTES
    ));
}

#[test]
fn j5_a_size_that_no_blob_has() {
    let mut entry = entry(&manifest(b"layer"));
    entry.size = 1 << 40;
    archive(&[&manifest(b"layer")])
        .index(&[entry])
        .refuses("its descriptor says 1099511627776");
}

#[test]
fn j6_no_manifest() {
    archive(&[]).refuses("names no manifest of a model");
    let mut table = manifest(b"layer");
    table.layers[0].media_type = media_type::CHUNK_TABLE.into();
    archive(&[&table]).refuses("names no manifest of a model");
}

#[test]
fn j6_several_manifests_are_listed() {
    let (one, two) = (manifest(b"layer"), other());
    let fake = archive(&[&one, &two]);
    let error = resolve(&fake, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    for manifest in [&one, &two] {
        assert!(
            error
                .to_string()
                .contains(&entry(manifest).digest.to_string())
        );
        let pin = entry(manifest).digest;
        assert_eq!(&fake.manifest(Some(&pin)), manifest);
    }
    // The same manifest under two names is one manifest.
    let twice = archive(&[&one]).index(&[entry(&one), entry(&one)]);
    assert!(resolve(&twice, None).is_ok());
}

/// A manifest as the index lists it under a name.
fn named(manifest: &OciManifest, key: &str, name: &str) -> Descriptor {
    let mut descriptor = entry(manifest);
    descriptor.annotations.insert(key.into(), name.into());
    descriptor
}

#[test]
fn j6_one_of_several_manifests_is_chosen_by_its_name() {
    let (one, two) = (manifest(b"layer"), other());
    let entries = [
        named(&one, annotations::REF_NAME, "1.0"),
        named(&two, annotations::CONTAINERD_NAME, "registry.example/m:2.0"),
    ];
    let fake = archive(&[&one, &two]).index(&entries);
    let fake = fake.with("manifest.json", one.to_bytes());
    let chosen = |reference, pin| {
        resolve(
            &fake,
            Wanted {
                pin,
                reference: Some(reference),
            },
        )
    };
    for (name, manifest) in [("1.0", &one), ("registry.example/m:2.0", &two)] {
        let found = chosen(name, None).unwrap().manifest_digest;
        assert_eq!(found, entry(manifest).digest, "{name}");
    }
    let pin = entry(&two).digest;
    let error = chosen("1.0", Some(&pin)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PinMismatch);
    let error = chosen("3.0", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(
        error.to_string(),
        "--ref: index.json calls no manifest 3.0; it has 1.0, registry.example/m:2.0"
    );
    let error = resolve(
        &archive(&[&one])
            .without("index.json")
            .with("manifest.json", one.to_bytes()),
        Wanted {
            pin: None,
            reference: Some("1.0"),
        },
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn j6_what_cosign_keeps_beside_a_model_is_no_model() {
    let (one, two) = (manifest(b"layer"), other());
    let digits = "0123456789abcdef".repeat(4);
    let fake = archive(&[&one, &two]);
    let mut beside = vec![
        named(&two, "kind", "dev.cosignproject.cosign/sigs"),
        named(&two, "kind", "dev.cosignproject.cosign/atts"),
    ];
    for suffix in ["sig", "att", "sbom"] {
        let tag = format!("sha256-{digits}.{suffix}");
        beside.push(named(&two, annotations::REF_NAME, &tag));
        let long = format!("registry.example/m:{tag}");
        beside.push(named(&two, annotations::CONTAINERD_NAME, &long));
    }
    let image = named(&one, "kind", "dev.cosignproject.cosign/image");
    for beside in beside {
        let fake = fake.clone().index(&[image.clone(), beside.clone()]);
        assert_eq!(fake.manifest(None), one, "{beside:?}");
    }
    let tag = named(&two, annotations::REF_NAME, "sha256-1.sig");
    let fake = fake.index(&[image, tag]);
    fake.error(None, ErrorKind::Usage, "lists 2 manifests");
}

#[test]
fn j6_manifests_that_would_take_long_to_tell_apart() {
    let large = |n: usize| {
        let mut large = manifest(b"layer");
        let text = "x".repeat(limits::MAX_MANIFEST_BYTES as usize - 1_000);
        large.annotations.insert(format!("a{n:02}"), text);
        large
    };
    let most = (limits::MAX_CANDIDATE_BYTES / limits::MAX_MANIFEST_BYTES) as usize;
    let one = large(0);
    let entries = |count: usize| {
        let first = entry(&one);
        // Not in the archive: they are not read, but would be.
        let others = (1..count).map(|n| {
            let digest = Digest::sha256(&n.to_be_bytes());
            Descriptor::new(media_type::IMAGE_MANIFEST, digest, first.size)
        });
        std::iter::once(first.clone())
            .chain(others)
            .collect::<Vec<_>>()
    };
    let fake = archive(&[&one]);
    assert!(resolve(&fake.clone().index(&entries(most)), None).is_ok());
    fake.clone().index(&entries(most + 1)).error(
        None,
        ErrorKind::Usage,
        "choose one with --ref or --digest",
    );
    let pin = entry(&one).digest;
    assert!(resolve(&fake.index(&entries(most + 1)), Some(&pin)).is_ok());
}

#[test]
fn j6_an_index_that_contains_itself() {
    let digest = Digest::sha256(b"whatever");
    let own = Descriptor::new(media_type::IMAGE_INDEX, digest, 0);
    let mut own = Descriptor {
        size: index_of(std::slice::from_ref(&own)).len() as u64,
        ..own
    };
    own.size = index_of(std::slice::from_ref(&own)).len() as u64;
    let fake = archive(&[])
        .with(&digest.blob_path(), index_of(&[own.clone()]))
        .index(&[own]);
    fake.error(None, ErrorKind::Corrupt, "content has the digest");
}

#[test]
fn j6_indexes_nested_too_deeply() {
    let manifest = manifest(b"layer");
    let nest = |levels: usize| {
        let mut fake = archive(&[&manifest]);
        let mut inner = entry(&manifest);
        for _ in 0..levels {
            let bytes = index_of(&[inner]);
            fake = fake.blob_of(&bytes);
            inner = Descriptor::of(media_type::IMAGE_INDEX, &bytes);
        }
        fake.index(&[inner])
    };
    let pin = entry(&manifest).digest;
    assert!(resolve(&nest(limits::MAX_INDEX_DEPTH), Some(&pin)).is_ok());
    nest(limits::MAX_INDEX_DEPTH + 1).refuses("nests indexes too deeply");
}

#[test]
fn j6_companions_are_no_choices() {
    let model = manifest(b"layer");
    let mut signature = other();
    signature.subject = Some(entry(&model));
    let fake = archive(&[&signature, &model]);
    assert_eq!(fake.manifest(None), model);
    assert_eq!(archive(&[&signature]).manifest(None), signature);
}

#[test]
fn an_image_is_chosen_by_platform() {
    let config = br#"{"rootfs":{}}"#;
    let image = |n: &str| {
        let mut image = manifest(b"layer");
        image.config = Descriptor::of(media_type::IMAGE_CONFIG, config);
        image.annotations.insert("n".into(), n.into());
        image
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let for_platform = |manifest: &OciManifest, architecture: &str| Descriptor {
        platform: Some(crate::oci::descriptor::Platform {
            architecture: architecture.into(),
            os: "linux".into(),
        }),
        ..entry(manifest)
    };
    let (one, two) = (image("1"), image("2"));
    let fake = archive(&[&one, &two]).blob_of(config);
    let entries = [for_platform(&one, "mips"), for_platform(&two, architecture)];
    assert_eq!(fake.clone().index(&entries).manifest(None), two);
    // Tools save one platform and keep the index of all.
    let sparse = fake
        .index(&[for_platform(&one, "mips"), for_platform(&two, "s390x")])
        .without(&entry(&one).digest.blob_path());
    assert_eq!(sparse.manifest(None), two);
}

#[test]
fn j9_root_manifest_that_differs() {
    let manifest = manifest(b"layer");
    let fake = archive(&[&manifest]);
    fake.clone()
        .with("manifest.json", other().to_bytes())
        .refuses("manifest.json: differs from the manifest of the index");
    // Equal as a document is not enough: another digest is another manifest.
    let mut spaced = manifest.to_bytes();
    spaced.push(b'\n');
    fake.clone()
        .with("manifest.json", spaced)
        .refuses("differs");
    fake.clone()
        .with("manifest.json", "{")
        .refuses("manifest.json: is not valid JSON");
    let docker = r#"[{"Config":"c","RepoTags":[],"Layers":[]}]"#;
    let found = resolve(&fake.clone().with("manifest.json", docker), None).unwrap();
    assert_eq!(
        *found.notes,
        ["manifest.json is a docker-archive's list of images; ignored"]
    );
    fake.without("index.json")
        .with("manifest.json", docker)
        .refuses("there is no index.json");
}

#[test]
fn j4_a_document_of_another_type_than_declared() {
    let manifest = manifest(b"layer");
    let entry = Descriptor {
        media_type: media_type::DOCKER_MANIFEST.into(),
        ..entry(&manifest)
    };
    archive(&[&manifest])
        .index(&[entry])
        .refuses("its descriptor says");
    let as_index = Descriptor::of(media_type::IMAGE_INDEX, &manifest.to_bytes());
    archive(&[&manifest])
        .index(&[as_index])
        .refuses("that of a manifest");
}

#[test]
fn d2_the_pin_is_compared_before_anything_is_parsed() {
    let manifest = manifest(b"layer");
    let pin = Digest::sha256(b"another");
    let fake = archive(&[&manifest]);
    let error = resolve(&fake, Some(&pin)).unwrap_err();
    assert!(matches!(error, Error::PinMismatch { expected, found }
            if *expected == pin && *found == entry(&manifest).digest));
    let nonsense = Descriptor::of(media_type::IMAGE_MANIFEST, b"nonsense");
    fake.blob_of(b"nonsense").index(&[nonsense]).error(
        Some(&pin),
        ErrorKind::PinMismatch,
        "was pinned",
    );
    // The same manifest by another algorithm's digest.
    let fake = archive(&[&other(), &manifest]);
    let pin = Digest::of(crate::Algorithm::Sha512, &manifest.to_bytes());
    let (found, documents) = fake.read(Some(&pin));
    assert_eq!((documents.manifest, found.manifest_digest), (manifest, pin));
}

#[test]
fn d3_a_flipped_bit_in_manifest_or_config() {
    let manifest = manifest(b"layer");
    for digest in [entry(&manifest).digest, Digest::sha256(CONFIG)] {
        let mut fake = archive(&[&manifest]);
        fake.0.get_mut(&digest.blob_path()).unwrap()[3] ^= 1;
        fake.error(None, ErrorKind::Corrupt, &digest.to_string());
    }
}

#[test]
fn d4_descriptor_and_blob_differ_in_size() {
    let mut manifest = manifest(b"layer");
    manifest.layers[0].size = 6;
    manifest.layers[0]
        .annotations
        .insert(annotations::TITLE.into(), "a.bin".into());
    archive(&[&manifest]).refuses(&format!(
        "layer \"a.bin\" {}: the blob has 5 bytes, its descriptor says 6",
        Digest::sha256(b"layer")
    ));
    manifest.layers[0].size = 5;
    manifest.config.size += 1;
    archive(&[&manifest]).refuses("config sha256:");
}

#[test]
fn d5_a_blob_that_is_missing() {
    let manifest = manifest(b"layer");
    for (blob, what) in [
        (&b"layer"[..], "layer 0 sha256:"),
        (CONFIG, "config sha256:"),
        (&manifest.to_bytes(), "manifest sha256:"),
    ] {
        let fake = archive(&[&manifest]).without(&Digest::sha256(blob).blob_path());
        fake.refuses(what);
        fake.refuses("the blob is missing");
    }
}

#[test]
fn j7_a_config_that_its_descriptor_carries() {
    let manifest = manifest(b"layer");
    let mut value: Value = serde_json::from_slice(&manifest.to_bytes()).unwrap();
    value["config"]["data"] = "eyJtb2RlbF9uYW1lIjoibSIsInZlcnNpb24iOiIxIn0=".into();
    let bytes = value.to_string().into_bytes();
    let fake = archive(&[])
        .blob_of(&bytes)
        .without(&Digest::sha256(CONFIG).blob_path())
        .index(&[Descriptor::of(media_type::IMAGE_MANIFEST, &bytes)]);
    assert_eq!(fake.read(None).1.config_bytes, CONFIG);
}

/// Counts what is asked of an archive.
struct Counted(Fake, std::sync::atomic::AtomicUsize);

impl BlobSource for Counted {
    fn name(&self) -> String {
        self.0.name()
    }

    fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.blob(digest, size)
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.0.document(name, limit)
    }
}

#[test]
fn l14_a_blob_is_asked_for_once_however_many_descriptors_name_it() {
    let mut manifest = manifest(b"layer");
    manifest.layers = vec![manifest.layers[0].clone(); 5_000];
    let counted = Counted(archive(&[&manifest]), Default::default());
    let found = resolve(&counted, None).unwrap();
    assert_eq!(found.layers.len(), 5_000);
    // The manifest, the layers' blob, the config.
    assert_eq!(counted.1.into_inner(), 3);
}

#[test]
fn d3_documents_that_change_while_the_model_is_open() {
    let manifest = manifest(b"layer");
    let mut fake = archive(&[&manifest]);
    let found = resolve(&fake, None).unwrap();
    fake.0
        .get_mut(&entry(&manifest).digest.blob_path())
        .unwrap()[3] ^= 1;
    let error = found.documents(&fake).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let root = String::from_utf8(manifest.to_bytes()).unwrap();
    let mut fake = archive(&[&manifest])
        .with("manifest.json", root)
        .without("index.json");
    let found = resolve(&fake, None).unwrap();
    fake = fake.with("manifest.json", "{}");
    let error = found.documents(&fake).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn l9_annotations_are_refused_with_the_name_of_the_layer() {
    let mut manifest = manifest(b"layer");
    let list = &mut manifest.layers[0].annotations;
    list.insert(annotations::TITLE.into(), "a.bin".into());
    list.insert(annotations::FILE_SIZE.into(), "05".into());
    archive(&[&manifest]).refuses(&format!(
        "layer a.bin ({}): annotation {}: \"05\" is not a size in bytes",
        Digest::sha256(b"layer"),
        annotations::FILE_SIZE
    ));
}

/// Annotations are held no longer than it takes to read their descriptor.
#[test]
fn r16_of_an_index_only_what_decides_is_held() {
    let chosen = manifest(b"layer");
    let mut descriptor = entry(&chosen);
    let notes = (0..4_000).map(|n| (n.to_string(), String::new()));
    descriptor.annotations.extend(notes);
    let name = (annotations::REF_NAME.to_string(), "v1".to_string());
    descriptor.annotations.extend([name]);
    let listed = super::Listed::of(descriptor);
    assert_eq!(listed.names, ["v1"]);
    assert_eq!(listed.bytes(), (listed.media_type.len() + 2) as u64);
}

#[test]
fn l14_a_manifest_is_read_once_however_often_an_index_names_it() {
    let chosen = manifest(b"layer");
    let named = |n: usize| {
        let mut descriptor = entry(&chosen);
        let name = (annotations::REF_NAME.to_string(), n.to_string());
        descriptor.annotations.extend([name]);
        descriptor
    };
    let manifests: Vec<Descriptor> = (0..900).map(named).collect();
    let other = Digest::of(crate::Algorithm::Sha512, &chosen.to_bytes());
    let wanted = [
        Wanted::default(),
        Wanted {
            reference: Some("899"),
            ..Wanted::default()
        },
        Wanted::from(Some(&other)),
    ];
    // The manifest, the layer's blob, the config; to compare another algorithm's digest once more.
    for (wanted, reads) in wanted.into_iter().zip([3, 3, 4]) {
        let fake = archive(&[&chosen]).index(&manifests);
        let counted = Counted(fake, Default::default());
        resolve(&counted, wanted).unwrap();
        assert_eq!(counted.1.into_inner(), reads, "{wanted:?}");
    }
}
