//! Work and memory in proportion to blobs, whatever the number of descriptors that name them; and an
//! end to what opening a model costs. What is counted are reads of the source, never seconds.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use modeloci::model::verify::verify;
use modeloci::model::{FileInfo, OpenOptions};
use modeloci::oci::{
    Descriptor, Index, OCI_LAYOUT, OciConfig, OciManifest, annotations, media_type,
};
use modeloci::pack::{self, Output, PackOptions};
use modeloci::source::{BlobSource, MemorySource, ReadAt};
use modeloci::{Algorithm, Compression, Digest, Error, ErrorKind, Model, Result, limits};

/// How often a blob was asked for, and how much of it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    opened: u64,
    bytes: u64,
}

/// A source that counts.
struct Counting {
    inner: MemorySource,
    counts: Arc<Mutex<HashMap<Digest, Count>>>,
}

struct CountingBlob {
    inner: Arc<dyn ReadAt>,
    digest: Digest,
    counts: Arc<Mutex<HashMap<Digest, Count>>>,
}

impl ReadAt for CountingBlob {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut counts = self.counts.lock().unwrap();
        counts.entry(self.digest).or_default().bytes += buf.len() as u64;
        drop(counts);
        self.inner.read_exact_at(buf, offset)
    }
}

impl BlobSource for Counting {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        let inner = self.inner.blob(digest, size)?;
        self.counts
            .lock()
            .unwrap()
            .entry(*digest)
            .or_default()
            .opened += 1;
        Ok(inner.map(|inner| {
            Arc::new(CountingBlob {
                inner,
                digest: *digest,
                counts: Arc::clone(&self.counts),
            }) as Arc<dyn ReadAt>
        }))
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.inner.document(name, limit)
    }
}

/// A model of any layers, and what was read of it.
struct Scene {
    model: Result<Model>,
    counts: Arc<Mutex<HashMap<Digest, Count>>>,
}

impl Scene {
    fn new(blobs: &[Vec<u8>], layers: Vec<Descriptor>) -> Scene {
        let mut source = MemorySource::new();
        for blob in blobs {
            source.insert(blob.clone());
        }
        Scene::of(source, layers)
    }

    fn of(mut source: MemorySource, layers: Vec<Descriptor>) -> Scene {
        let config = OciConfig::new("m", "1", "", "", Default::default()).unwrap();
        let config = config.to_bytes();
        source.insert(config.clone());
        let manifest = OciManifest::new(Descriptor::of(media_type::MODEL_CONFIG, &config), layers);
        let manifest = manifest.to_bytes();
        source.insert(manifest.clone());
        let index = Index::of(Descriptor::of(media_type::IMAGE_MANIFEST, &manifest), "1");
        source.set_document("oci-layout", OCI_LAYOUT.as_bytes());
        source.set_document("index.json", index.to_bytes());
        let counts = Arc::default();
        let source = Counting {
            inner: source,
            counts: Arc::clone(&counts),
        };
        Scene {
            model: Model::from_source(Arc::new(source), &OpenOptions::default()),
            counts,
        }
    }

    fn model(&self) -> &Model {
        match &self.model {
            Ok(model) => model,
            Err(error) => panic!("{error}"),
        }
    }

    fn error(&self) -> &Error {
        match &self.model {
            Ok(_) => panic!("opened"),
            Err(error) => error,
        }
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        let model = self.model();
        let attr = model.find(path).unwrap();
        model.read_at(attr.inode, 0, attr.size as usize + 1)
    }

    fn count(&self, digest: &Digest) -> Count {
        self.counts.lock().unwrap()[digest]
    }

    fn bytes_read(&self) -> u64 {
        self.counts.lock().unwrap().values().map(|c| c.bytes).sum()
    }
}

const GZIP: &str = media_type::LAYER_TAR_GZIP;
const ZSTD: &str = media_type::LAYER_TAR_ZSTD;
const TAR: &str = media_type::LAYER_TAR;

fn tar(directories: usize, name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    for n in 0..directories {
        tar.append_data(&mut header, format!("d{n}/"), &[][..])
            .unwrap();
    }
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    modeloci_test_support::compressed::gzip(bytes, 9)
}

fn layer(media_type: &str, blob: &[u8], path: &str) -> Descriptor {
    let mut layer = Descriptor::of(media_type, blob);
    layer
        .annotations
        .insert(annotations::TITLE.into(), path.into());
    layer
}

fn with(mut layer: Descriptor, key: &str, value: impl ToString) -> Descriptor {
    layer.annotations.insert(key.into(), value.to_string());
    layer
}

/// The layer of a packed file named `f`: its blob and its descriptor.
fn packed(content: &[u8]) -> (Vec<u8>, Descriptor) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("model")).unwrap();
    std::fs::write(dir.path().join("model/f"), content).unwrap();
    let archive = dir.path().join("m.tar");
    let config = OciConfig::new("m", "1", "", "", Default::default()).unwrap();
    let options = PackOptions {
        compression: Compression::Gzip(6),
        ..PackOptions::default()
    };
    let output = Output::File(archive.clone());
    pack::pack(
        &dir.path().join("model"),
        &config,
        &output,
        &options,
        &|_, _| (),
    )
    .unwrap();
    let source = modeloci::source::open(&archive).unwrap();
    let model = Model::from_source(source.clone(), &OpenOptions::default()).unwrap();
    let mut layer = model.documents().unwrap().manifest.layers[0].clone();
    layer.annotations.remove(annotations::MODELPACK_FILEPATH);
    let blob = source.blob(&layer.digest, None).unwrap().unwrap();
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_exact_at(&mut bytes, 0).unwrap();
    (bytes, layer)
}

/// The same layer under many paths.
fn names(layer: &Descriptor, count: usize) -> Vec<Descriptor> {
    (0..count)
        .map(|n| with(layer.clone(), annotations::TITLE, format!("d{n:05}/f")))
        .collect()
}

/// Most descriptors that a manifest has room for.
const MANY: usize = 32_000;

#[test]
fn l14_one_blob_named_by_32000_descriptors_is_opened_once() {
    let plain = tar(2_000, "f", b"hello");
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    for (media_type, blob) in [
        (GZIP, gzip(&plain)),
        (ZSTD, zstd),
        (TAR, plain.clone()),
        ("application/octet-stream", b"a raw file".to_vec()),
    ] {
        let layer = layer(media_type, &blob, "f");
        let digest = layer.digest;
        let blobs = [blob];
        let one = Scene::new(&blobs, names(&layer, 1));
        let many = Scene::new(&blobs, names(&layer, MANY));
        assert_eq!(many.model().files().len(), MANY);
        assert_eq!(
            many.count(&digest).bytes,
            one.count(&digest).bytes,
            "{media_type}: bytes read while opening"
        );
        let first = one.read("d00000/f").unwrap();
        for n in [0, 1, 77, MANY - 1] {
            assert_eq!(many.read(&format!("d{n:05}/f")).unwrap(), first);
        }
        assert_eq!(
            many.count(&digest).bytes,
            one.count(&digest).bytes,
            "{media_type}: bytes read while reading"
        );
        assert!(
            many.model()
                .verified(many.model().find("d00077/f").unwrap().inode)
        );
        assert!(
            !many
                .model()
                .verified(many.model().find("d00078/f").unwrap().inode)
        );
    }
}

#[test]
fn l14_one_chunk_table_for_all_files_that_name_its_blob() {
    let content: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(7919) >> 9) as u8)
        .collect();
    let (blob, layer) = packed(&content);
    let digest = layer.digest;
    let one = Scene::new(std::slice::from_ref(&blob), names(&layer, 1));
    let many = Scene::new(std::slice::from_ref(&blob), names(&layer, 1_000));
    // What was served in full need not stay in the cache, so both are read as often.
    for n in 0..1_000 {
        assert_eq!(one.read("d00000/f").unwrap(), content);
        assert_eq!(many.read(&format!("d{n:05}/f")).unwrap(), content);
    }
    assert_eq!(many.count(&digest).bytes, one.count(&digest).bytes);
    let decoded = |scene: &Scene| scene.model().stats().chunks_decoded.load(Ordering::Relaxed);
    assert_eq!(decoded(&many), decoded(&one));
    let reports = verify(many.model(), 2, &|_, _| ());
    assert_eq!(reports.len(), 1_000);
    assert!(reports.iter().all(|report| report.verified()));
    let read = many.count(&digest).bytes - one.count(&digest).bytes;
    assert!(
        read < 2 * blob.len() as u64,
        "verified once, not {read} bytes"
    );
}

#[test]
fn l14_one_blob_has_one_chunk_table() {
    let (blob, layer) = packed(b"some content");
    let digest = Digest::sha256(b"another");
    for (key, value, rule) in [
        (
            annotations::CHUNKS,
            digest.to_string(),
            "another chunk table",
        ),
        (
            annotations::CHUNKS_RANGE,
            "7+100".into(),
            "another chunk table",
        ),
        (annotations::FILE_SIZE, "13".into(), "another file size"),
    ] {
        let other = with(layer.clone(), annotations::TITLE, "d/f");
        let layers = vec![layer.clone(), with(other, key, value)];
        let scene = Scene::new(std::slice::from_ref(&blob), layers);
        let error = scene.error();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains(rule), "{error}");
    }
    // One that states no table is read without, and the table is still found.
    let mut bare = with(layer.clone(), annotations::TITLE, "d/f");
    bare.annotations.remove(annotations::CHUNKS);
    let scene = Scene::new(&[blob], vec![bare, layer]);
    for path in ["f", "d/f"] {
        assert_eq!(scene.read(path).unwrap(), "some content");
    }
}

/// What the first descriptor leaves out is compared all the same, in every order: files of 12, 0 and 5
/// bytes came of one blob, and were all said to be verified.
#[test]
fn l9_l14_a_size_that_one_descriptor_leaves_out_is_stated_once_by_all_others() {
    let (blob, layer) = packed(b"some content");
    let sized = |path: &str, size: Option<&str>| {
        let mut layer = with(layer.clone(), annotations::TITLE, path);
        match size {
            Some(size) => with(layer, annotations::FILE_SIZE, size),
            None => {
                layer.annotations.remove(annotations::FILE_SIZE);
                layer
            }
        }
    };
    let silent = || sized("a/f", None);
    let mut bare = silent();
    bare.annotations.remove(annotations::CHUNKS);
    let (right, empty, short) = (
        sized("b/f", Some("12")),
        sized("c/f", Some("0")),
        sized("d/f", Some("5")),
    );
    for layers in [
        vec![silent(), right.clone(), short.clone()],
        vec![silent(), right.clone(), empty.clone()],
        vec![silent(), empty.clone(), right.clone()],
        vec![right.clone(), silent(), short.clone()],
        vec![bare, sized("e/f", None), empty, short],
    ] {
        let scene = Scene::new(std::slice::from_ref(&blob), layers);
        let error = scene.error();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let rule = "another file size";
        assert!(error.to_string().contains(rule), "{error}");
    }
    let scene = Scene::new(&[blob], vec![silent(), right]);
    for path in ["a/f", "b/f"] {
        assert_eq!(scene.read(path).unwrap(), "some content");
    }
}

#[test]
fn l14_each_file_has_its_own_name_mode_and_digest() {
    // Raw layers have no name inside, and take the mode that each descriptor states.
    let raw = "application/octet-stream";
    let executable = with(layer(raw, b"raw", "b"), annotations::FILE_MODE, "0755");
    let scene = Scene::new(
        &[b"raw".to_vec()],
        vec![layer(raw, b"raw", "a"), executable],
    );
    let mode = |path: &str| scene.model().find(path).unwrap().mode;
    assert_eq!((mode("a"), mode("b")), (0o444, 0o555));
    assert_eq!(scene.read("a").unwrap(), scene.read("b").unwrap());

    // A tar has one name, and a file of another is refused, or an error where it needs a read.
    let foreign = gzip(&tar(0, "f", b"content"));
    let layers = vec![layer(GZIP, &foreign, "f"), layer(GZIP, &foreign, "g")];
    let error = Scene::new(&[foreign], layers);
    let error = error.error().to_string();
    assert!(error.contains("is not the manifest's \"g\""), "{error}");
    let (blob, layer) = packed(b"content");
    let other = with(layer.clone(), annotations::TITLE, "g");
    let scene = Scene::new(&[blob], vec![layer, other]);
    assert_eq!(scene.read("f").unwrap(), "content");
    let error = scene.read("g").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("\"g\""), "{error}");
    let reports = verify(scene.model(), 1, &|_, _| ());
    let verified = reports.iter().map(|r| r.verified());
    assert_eq!(verified.collect::<Vec<_>>(), [true, false]);
}

/// Whatever the algorithm and the kind of layer, and whichever of the files that share it.
#[test]
fn d7_a_false_file_digest_of_one_of_many_names() {
    let content = b"what the digests are of";
    let foreign = gzip(&tar(0, "f", content));
    let foreign = (foreign.clone(), layer(GZIP, &foreign, "f"));
    for (blob, mut layer) in [packed(content), foreign] {
        layer.annotations.remove(annotations::FILE_DIGEST);
        let mut layers = names(&layer, 1);
        let mut expected = vec![true];
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
            for (truth, of) in [(true, &content[..]), (false, b"other")] {
                let path = format!("e{:05}/f", layers.len());
                let named = with(layer.clone(), annotations::TITLE, path);
                let digest = Digest::of(algorithm, of);
                layers.push(with(named, annotations::FILE_DIGEST, digest));
                expected.push(truth);
            }
        }
        let scene = Scene::new(&[blob], layers);
        let reports = verify(scene.model(), 1, &|_, _| ());
        let found: Vec<bool> = reports.iter().map(|r| r.verified()).collect();
        assert_eq!(found, expected);
        let inodes = scene.model().files().map(|f: &FileInfo| f.inode);
        let alone: Vec<bool> = inodes.map(|i| scene.model().verify(i).is_ok()).collect();
        assert_eq!(alone, expected);
    }
}

#[test]
fn l14_layers_whose_headers_expand_are_refused_at_a_bound() {
    // Each takes 1,000 directories until its file, and two kilobytes in the archive.
    let bomb = |n: usize| gzip(&tar(1_000, "f", format!("{n}").as_bytes()));
    let scene = |count: usize| {
        let blobs: Vec<_> = (0..count).map(bomb).collect();
        let named = blobs.iter().enumerate();
        let layers = named.map(|(n, blob)| layer(GZIP, blob, &format!("{n:04}/f")));
        let layers = layers.collect();
        Scene::new(&blobs, layers)
    };
    assert_eq!(scene(50).model().files().len(), 50);
    let refused = scene(300);
    let error = refused.error();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("read and decoded"), "{error}");
    assert!(refused.bytes_read() < limits::OPENING_BYTES);
}

#[test]
fn l14_a_damaged_blob_of_many_names_is_hashed_once() {
    let blob = gzip(&tar(0, "f", b"content"));
    let layer = layer(GZIP, &blob, "f");
    let mut damaged = blob.clone();
    damaged[12] ^= 0xff;
    let mut source = MemorySource::new();
    source.insert_as(layer.digest, damaged);
    let scene = Scene::of(source, names(&layer, MANY));
    let read = scene.count(&layer.digest).bytes;
    assert!(read <= 512 + 2 * blob.len() as u64, "{read}");
    for n in [0, 1, MANY - 1] {
        let error = scene.read(&format!("d{n:05}/f")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

/// A blob of any length whose first bytes are those of gzip, and nothing else is.
struct Endless(u64, AtomicU64);

impl ReadAt for Endless {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        buf.fill(0xff);
        for (byte, magic) in buf.iter_mut().zip([0x1f, 0x8b]) {
            if offset == 0 {
                *byte = magic;
            }
        }
        Ok(())
    }
}

struct WithEndless(MemorySource, Digest, Arc<Endless>);

impl BlobSource for WithEndless {
    fn name(&self) -> String {
        self.0.name()
    }

    fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        match *digest == self.1 {
            true => Ok(Some(Arc::<Endless>::clone(&self.2))),
            false => self.0.blob(digest, size),
        }
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.0.document(name, limit)
    }
}

#[test]
fn l14_a_large_layer_that_cannot_be_understood_does_not_keep_the_model_from_opening() {
    let digest = Digest::sha256(b"nobody knows");
    let len = 1 << 40;
    let mut layer = Descriptor::new(GZIP, digest, len);
    layer
        .annotations
        .insert(annotations::TITLE.into(), "f".into());
    let config = OciConfig::new("m", "1", "", "", Default::default()).unwrap();
    let config = config.to_bytes();
    let mut source = MemorySource::new();
    source.insert(config.clone());
    let manifest = OciManifest::new(
        Descriptor::of(media_type::MODEL_CONFIG, &config),
        vec![layer],
    );
    let manifest = manifest.to_bytes();
    source.set_document("manifest.json", manifest);
    let endless = Arc::new(Endless(len, AtomicU64::new(0)));
    let source = WithEndless(source, digest, Arc::clone(&endless));
    let model = Model::from_source(Arc::new(source), &OpenOptions::default()).unwrap();
    assert!(endless.1.load(Ordering::Relaxed) < limits::OPENING_BYTES);
    let file = model.find("f").unwrap();
    assert!(file.size > 0);
    let error = model.read_at(file.inode, 0, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
