//! l10, l11: attributes of files in layers without a chunk table come from the layers' own first
//! bytes. Whatever those said when the model was opened: the exact bytes under the exact attributes,
//! or an error.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use modeloci::model::OpenOptions;
use modeloci::source::{BlobSource, ReadAt};
use modeloci::unpack::{UnpackOptions, unpack};
use modeloci::{Digest, ErrorKind, Model, Result};

use crate::compressed::{stored_gzip, stored_zstd};
use crate::forge::{Header, Layout, Tar, gzip, layer, noise};
use crate::mounted::{Mounted, mapped};
use crate::sandbox::Sandbox;

const NAME: &str = "f.bin";
const MTIME: u64 = 1_600_000_000;
const PACKAGINGS: [Packaging; 4] = [
    Packaging::Raw,
    Packaging::Tar,
    Packaging::Gzip,
    Packaging::Zstd,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packaging {
    Raw,
    Tar,
    Gzip,
    Zstd,
}

impl Packaging {
    /// So that the same lengths pack to the same lengths: nothing is compressed.
    fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Packaging::Raw | Packaging::Tar => tar.to_vec(),
            Packaging::Gzip => stored_gzip(tar),
            Packaging::Zstd => stored_zstd(tar),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Packaging::Raw => "application/octet-stream",
            Packaging::Tar => "application/vnd.oci.image.layer.v1.tar",
            Packaging::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packaging::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

fn header(size: usize, mtime: u64) -> Header {
    Header::file(NAME, size as u64)
        .put(100, b"0000755\0")
        .put(136, format!("{mtime:011o}\0").as_bytes())
}

fn tar_of(data: &[u8], mtime: u64) -> Vec<u8> {
    Tar::new().entry(header(data.len(), mtime), data).end()
}

/// What the file is: bytes, whether it is executable, its time.
#[derive(Clone, PartialEq, Eq)]
struct Truth {
    data: Vec<u8>,
    executable: bool,
    mtime: u64,
}

struct Sample {
    packaging: Packaging,
    blob: Vec<u8>,
    truth: Truth,
}

impl Sample {
    fn new(packaging: Packaging, data: &[u8]) -> Sample {
        Sample::of(packaging, data, MTIME)
    }

    fn of(packaging: Packaging, data: &[u8], mtime: u64) -> Sample {
        let raw = packaging == Packaging::Raw;
        Sample {
            packaging,
            blob: match raw {
                true => data.to_vec(),
                false => packaging.pack(&tar_of(data, mtime)),
            },
            truth: Truth {
                data: data.to_vec(),
                executable: !raw,
                mtime: if raw { 0 } else { mtime },
            },
        }
    }

    fn layout(&self) -> Layout {
        let mut layout = Layout::of_layers([(NAME, self.blob.clone())]);
        layout.edit_manifest(|manifest| {
            manifest["layers"][0]["mediaType"] = self.packaging.media_type().into();
        });
        layout
    }

    /// The archive, whose layer reads as `bad` at times.
    fn source(&self, bad: Vec<u8>) -> Arc<Source> {
        let layout = self.layout();
        let name = layout.layer_name(0);
        Arc::new(Source {
            layer: layout.layer_digest(0).parse().unwrap(),
            blob: Arc::new(Blob {
                good: self.blob.clone(),
                bad,
                is_bad: AtomicBool::new(false),
                turns: AtomicBool::new(false),
                reads: AtomicUsize::new(0),
            }),
            others: layout
                .entries
                .into_iter()
                .filter(|(other, _)| *other != name)
                .collect(),
        })
    }
}

/// An image layout with one layer, whose bytes change.
struct Source {
    layer: Digest,
    blob: Arc<Blob>,
    others: HashMap<String, Vec<u8>>,
}

struct Blob {
    good: Vec<u8>,
    bad: Vec<u8>,
    is_bad: AtomicBool,
    /// Every other read is bad.
    turns: AtomicBool,
    reads: AtomicUsize,
}

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let at = offset as usize;
        buf.copy_from_slice(&self.0[at..at + buf.len()]);
        Ok(())
    }
}

impl ReadAt for Blob {
    fn len(&self) -> u64 {
        self.good.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst);
        let bad = match self.turns.load(Ordering::SeqCst) {
            true => number.is_multiple_of(2),
            false => self.is_bad.load(Ordering::SeqCst),
        };
        let bytes = if bad { &self.bad } else { &self.good };
        let at = offset as usize;
        buf.copy_from_slice(&bytes[at..at + buf.len()]);
        Ok(())
    }
}

impl BlobSource for Source {
    fn name(&self) -> String {
        "memory".into()
    }

    fn blob(&self, digest: &Digest, _: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        if *digest == self.layer {
            return Ok(Some(Arc::<Blob>::clone(&self.blob)));
        }
        let bytes = self.others.get(&digest.blob_path()).cloned();
        Ok(bytes.map(|bytes| Arc::new(Bytes(bytes)) as Arc<dyn ReadAt>))
    }

    fn document(&self, name: &str, _limit: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.others.get(name).cloned())
    }
}

/// When the layer's bytes are others than the manifest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// All the time.
    Always,
    /// While the model is opened.
    Opening,
    /// While it is read for the first time.
    FirstRead,
    /// At every other read.
    Turns,
}

const WHEN: [When; 4] = [When::Always, When::Opening, When::FirstRead, When::Turns];

/// Of all bits, every so many are tried; a step that is odd meets every bit of a byte. With
/// `MODELOCI_TEST_LONG` set, all are.
fn step(when: When) -> usize {
    match std::env::var_os("MODELOCI_TEST_LONG") {
        Some(_) => 1,
        None if when == When::Opening => 5,
        None => 13,
    }
}

fn options() -> OpenOptions {
    OpenOptions {
        cache_bytes: 16 << 20,
        readahead: false,
        ..OpenOptions::default()
    }
}

fn open(source: &Arc<Source>, when: When) -> Option<Model> {
    let blob = &source.blob;
    let at = |moments: &[When]| moments.contains(&when);
    blob.turns.store(when == When::Turns, Ordering::SeqCst);
    blob.is_bad
        .store(at(&[When::Always, When::Opening]), Ordering::SeqCst);
    let shared: Arc<dyn BlobSource> = Arc::<Source>::clone(source);
    let model = Model::from_source(shared, &options());
    blob.is_bad
        .store(at(&[When::Always, When::FirstRead]), Ordering::SeqCst);
    match model {
        Ok(model) => Some(model),
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::Malformed];
            assert!(kinds.contains(&error.kind()), "{error}");
            None
        }
    }
}

fn shown(model: &Model) -> Truth {
    let attr = model.find(NAME).expect("the manifest names the file");
    Truth {
        data: vec![0; attr.size.min(1 << 24) as usize],
        executable: attr.mode & 0o111 != 0,
        mtime: attr.mtime.as_secs(),
    }
}

/// One read: its answer is right, and so are the attributes beside it; or it is an error.
fn answers(model: &Model, truth: &Truth, offset: u64, len: usize, what: &str) -> bool {
    let inode = model.find(NAME).unwrap().inode;
    match model.read_at(inode, offset, len) {
        Ok(bytes) => {
            let shown = shown(model);
            assert_eq!(shown.data.len(), truth.data.len(), "{what}: size");
            assert_eq!(shown.executable, truth.executable, "{what}: mode");
            assert_eq!(shown.mtime, truth.mtime, "{what}: time");
            let from = truth.data.len().min(offset as usize);
            let to = truth.data.len().min(from.saturating_add(len));
            assert!(bytes == truth.data[from..to], "{what}: bytes at {offset}");
            true
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::Malformed];
            assert!(kinds.contains(&error.kind()), "{what}: {error}");
            assert!(!model.verified(inode), "{what}: said to be verified");
            false
        }
    }
}

/// Opens the sample while its layer reads as `bad`, and asks for everything that depends on bytes
/// or attributes. True when the file was served.
fn exact_or_error(sample: &Sample, bad: &[u8], when: When, what: &str) -> bool {
    let source = sample.source(bad.to_vec());
    let Some(model) = open(&source, when) else {
        return false;
    };
    let truth = &sample.truth;
    // A kernel asks for nothing of an empty file.
    let size = model.find(NAME).unwrap().size;
    assert!(size > 0 || truth.data.is_empty(), "{what}: an empty file");
    let whole = (0, truth.data.len().max(size.min(1 << 24) as usize) + 1);
    let places = [(size, 1), (0, 0), (u64::MAX, 1), (size / 2, 1), whole];
    let mut served = true;
    for (offset, len) in places {
        served &= answers(&model, truth, offset, len, what);
        source
            .blob
            .is_bad
            .store(when == When::Always, Ordering::SeqCst);
    }
    served
}

/// Restores the sample while its layer reads as `bad`.
fn restored_or_error(sample: &Sample, bad: &[u8], when: When, dir: &Path, what: &str) {
    let source = sample.source(bad.to_vec());
    let Some(model) = open(&source, when) else {
        return;
    };
    let out = dir.join("out");
    if unpack(&model, &out, &UnpackOptions::default(), &|_, _| {}).is_err() {
        assert!(!out.exists(), "{what}");
        return;
    }
    let metadata = fs::metadata(out.join(NAME)).unwrap();
    let truth = &sample.truth;
    assert!(fs::read(out.join(NAME)).unwrap() == truth.data, "{what}");
    assert_eq!(metadata.mode() & 0o100 != 0, truth.executable, "{what}");
    if truth.mtime > 0 {
        assert_eq!(metadata.mtime() as u64, truth.mtime, "{what}");
    }
    fs::remove_dir_all(out).unwrap();
}

fn samples() -> impl Iterator<Item = Sample> {
    let files = [noise(3, 90), Vec::new()];
    files
        .into_iter()
        .flat_map(|data| PACKAGINGS.map(|packaging| Sample::new(packaging, &data)))
}

/// Every bit of the first blocks, flipped.
fn flips(blob: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..blob.len().min(700) * 8).map(|bit| {
        let mut bad = blob.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {} of byte {}", bit % 8, bit / 8), bad)
    })
}

/// Every bit of the file's header, flipped under a checksum that is right.
fn sealed(sample: &Sample) -> impl Iterator<Item = (String, Vec<u8>)> {
    let raw = sample.packaging == Packaging::Raw;
    let forger = Forger::new(sample);
    let bits = (0..if raw { 0 } else { 512 * 8 }).filter(|bit| !(148..156).contains(&(bit / 8)));
    bits.map(move |bit| {
        let changed = [forger.tar[bit / 8] ^ 1 << (bit % 8)];
        let header = forger.header(forger.size).put(bit / 8, &changed);
        (format!("bit {bit} under a checksum"), forger.with(header))
    })
}

/// Headers of other sizes and kinds, and headers in front of the file's.
fn other_headers(sample: &Sample) -> Vec<(String, Vec<u8>)> {
    if sample.packaging == Packaging::Raw {
        return Vec::new();
    }
    let forger = Forger::new(sample);
    let size = forger.size;
    let mut all = Vec::new();
    for other in [0, 1, 89, 91, 512, 513]
        .into_iter()
        .filter(|other| *other != size)
    {
        all.push((format!("{other} bytes"), forger.with(forger.header(other))));
    }
    for kind in b"123456xgLKSVZ" {
        let link = forger.header(0).link("other").kind(*kind);
        all.push((format!("kind {kind}"), forger.with(link)));
        let kept = forger.header(size).kind(*kind);
        all.push((format!("kind {kind} with data"), forger.with(kept)));
    }
    let mut nothing = forger.tar.clone();
    nothing[..1024].fill(0);
    all.push(("nothing".into(), sample.packaging.pack(&nothing)));
    let mut shifted = [&forger.header(0).seal()[..], &forger.tar].concat();
    shifted.truncate(forger.tar.len());
    all.push((
        "an empty file before".into(),
        sample.packaging.pack(&shifted),
    ));
    all
}

/// Makes layers that are as long as a sample's, with another first header.
struct Forger {
    packaging: Packaging,
    tar: Vec<u8>,
    size: usize,
    mtime: u64,
}

impl Forger {
    fn new(sample: &Sample) -> Forger {
        let Truth { data, mtime, .. } = &sample.truth;
        Forger {
            packaging: sample.packaging,
            tar: tar_of(data, *mtime),
            size: data.len(),
            mtime: *mtime,
        }
    }

    fn header(&self, size: usize) -> Header {
        header(size, self.mtime)
    }

    fn with(&self, header: Header) -> Vec<u8> {
        let mut bad = self.tar.clone();
        bad[..512].copy_from_slice(&header.seal());
        self.packaging.pack(&bad)
    }
}

#[test]
fn l10_l11_no_flipped_bit_of_the_first_blocks_changes_a_file() {
    for sample in samples() {
        for when in WHEN {
            let named = |flip: &str| format!("{:?}, {when:?}: {flip}", sample.packaging);
            let good = named("nothing");
            assert!(exact_or_error(&sample, &sample.blob, when, &good), "{good}");
            for (flip, bad) in flips(&sample.blob).step_by(step(when)) {
                let served = exact_or_error(&sample, &bad, when, &named(&flip));
                assert!(!served || when != When::Always, "{}", named(&flip));
            }
        }
    }
}

#[test]
fn l10_l11_no_forged_header_changes_a_file() {
    for sample in samples() {
        for when in WHEN {
            for (forgery, bad) in sealed(&sample)
                .step_by(step(when))
                .chain(other_headers(&sample))
            {
                let what = format!("{:?}, {when:?}: {forgery}", sample.packaging);
                let served = exact_or_error(&sample, &bad, when, &what);
                assert!(
                    !served || when != When::Always || bad == sample.blob,
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn l10_l11_what_is_restored_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    for sample in samples() {
        for when in WHEN {
            let bad = flips(&sample.blob)
                .step_by(197)
                .chain(sealed(&sample).step_by(211));
            for (flip, bad) in bad.chain(other_headers(&sample)) {
                let what = format!("{:?}, {when:?}: {flip}", sample.packaging);
                restored_or_error(&sample, &bad, when, dir.path(), &what);
            }
        }
    }
}

/// Layers that are read as far as their readers get, and such that are not.
#[test]
fn l10_l11_large_files_are_no_exception() {
    let data = noise(5, (2 << 20) + 100_000);
    for packaging in PACKAGINGS {
        let sample = Sample::new(packaging, &data);
        for when in WHEN {
            let bad = flips(&sample.blob).step_by(401);
            let others = other_headers(&sample).into_iter();
            let sizes = others.filter(|(name, _)| name.ends_with(" bytes"));
            for (flip, bad) in bad.chain(sizes) {
                let what = format!("{packaging:?}, {when:?}: {flip}");
                exact_or_error(&sample, &bad, when, &what);
            }
        }
    }
}

/// What looks like a raw file for one moment is not served as one.
#[test]
fn l10_l13_a_packaging_is_confirmed() {
    let tar = tar_of(&noise(1, 500), MTIME);
    for inner in [
        tar.clone(),
        gzip(&tar),
        zstd::encode_all(&tar[..], 3).unwrap(),
    ] {
        let truth = Truth {
            data: noise(1, 500),
            executable: true,
            mtime: MTIME,
        };
        let sample = Sample {
            packaging: Packaging::Tar, // a type that claims no compression
            blob: inner.clone(),
            truth,
        };
        let mut bad = inner.clone();
        bad[if inner == tar { 257 } else { 0 }] ^= 1;
        for when in WHEN {
            exact_or_error(&sample, &bad, when, &format!("{when:?}"));
            assert!(!exact_or_error(&sample, &bad, When::Opening, "opening"));
        }
        assert!(exact_or_error(&sample, &inner, When::Always, "as it is"));
    }
    // l13: a raw file is what it is, a tar too; and what is no tar inside is the file itself.
    for file in [
        &tar[..],
        &gzip(&tar),
        &zstd::encode_all(&tar[..], 3).unwrap(),
    ] {
        let sample = Sample::new(Packaging::Raw, file);
        assert!(exact_or_error(&sample, file, When::Always, "a raw archive"));
        for when in WHEN {
            let mut bad = file.to_vec();
            bad[0] ^= 1;
            exact_or_error(&sample, &bad, when, &format!("a raw archive, {when:?}"));
        }
    }
    let inside = gzip(b"no tar");
    let sample = Sample::new(Packaging::Raw, &inside);
    assert!(exact_or_error(&sample, &inside, When::Always, "raw"));
    let mut bad = tar.clone();
    bad.truncate(inside.len());
    for when in WHEN {
        exact_or_error(&sample, &bad, when, &format!("raw, {when:?}"));
    }
}

/// Several files, the first of them empty: refused, not cut down to the first.
#[test]
fn l10_files_behind_an_empty_one_are_not_dropped() {
    for pack in [|t: &[u8]| t.to_vec(), gzip, stored_zstd] {
        let tar = Tar::new().file("bad.bin", b"").file("more.bin", b"more");
        let layout = Layout::of_layers([("bad.bin", pack(&tar.end())), ("x", layer("x", b"x"))]);
        let digest = layout.layer_digest(0);
        let words = ["bad.bin", &digest[..], "more.bin"];
        Sandbox::new().refuses(layout.to_bytes(), 3, &words);
    }
}

/// Some of the ways to damage a sample.
fn ways(sample: &Sample) -> Vec<Vec<u8>> {
    let flips = flips(&sample.blob).step_by(173).take(8);
    let all = flips.chain(other_headers(sample));
    all.map(|(_, bad)| bad).collect()
}

/// Layers that are each damaged in another way, and the archive that holds them.
struct Collection {
    samples: Vec<(String, Sample)>,
    bads: Vec<Vec<u8>>,
    archive: Vec<u8>,
    pin: String,
}

impl Collection {
    /// No two layers are equal, so that damage of one is damage of one.
    fn new() -> Collection {
        let mut damage: Vec<(Packaging, usize, usize)> = Vec::new();
        for packaging in PACKAGINGS {
            let lengths: &[usize] = if packaging == Packaging::Raw {
                &[90]
            } else {
                &[90, 0]
            };
            for length in lengths {
                let sample = Sample::new(packaging, &noise(1, *length));
                let ways = ways(&sample).len();
                damage.extend((0..ways).map(|way| (packaging, *length, way)));
            }
        }
        let mut collection = Collection {
            samples: Vec::new(),
            bads: Vec::new(),
            archive: Vec::new(),
            pin: String::new(),
        };
        for (number, (packaging, length, way)) in damage.into_iter().enumerate() {
            let data = noise(number as u64 + 1, length);
            let sample = Sample::of(packaging, &data, MTIME + number as u64);
            let bad = ways(&sample).swap_remove(way);
            assert!(bad != sample.blob);
            collection.bads.push(bad);
            collection
                .samples
                .push((format!("{number:03}/{NAME}"), sample));
        }
        collection.pack();
        collection
    }

    fn pack(&mut self) {
        let samples = self.samples.iter();
        let layers = samples.map(|(path, sample)| (path.as_str(), sample.blob.clone()));
        let mut layout = Layout::of_layers(layers.chain([("good", layer("good", b"good"))]));
        layout.edit_manifest(|manifest| {
            for (number, (_, sample)) in self.samples.iter().enumerate() {
                manifest["layers"][number]["mediaType"] = sample.packaging.media_type().into();
            }
        });
        self.archive = layout.to_bytes();
        self.pin = layout.manifest_digest();
    }

    /// Writes the layers into the archive at `path`, damaged or as they are.
    fn write(&self, path: &Path, damaged: bool) {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        for ((_, sample), bad) in self.samples.iter().zip(&self.bads) {
            let blob = &sample.blob;
            let name = Digest::sha256(blob).blob_path();
            let header = self
                .archive
                .windows(name.len())
                .position(|w| w == name.as_bytes());
            let at = header.unwrap() + 512;
            assert!(self.archive[at..].starts_with(blob));
            file.write_all_at(if damaged { bad } else { blob }, at as u64)
                .unwrap();
        }
    }
}

/// A file through the kernel: it opens, and all that is asked of it is exact; or it does not, and then
/// nothing is shown of it any more.
fn exact_or_eio(path: &Path, sample: &Sample, what: &str) -> bool {
    let truth = &sample.truth;
    // A guess, or known to be wrong.
    let shown = fs::metadata(path).unwrap();
    assert!(shown.len() > 0 || truth.data.is_empty(), "{what}: empty");
    match fs::File::open(path) {
        Ok(file) => {
            exact_when_open(&file, truth, what);
            let shown = fs::metadata(path).unwrap();
            assert_eq!(shown.len(), truth.data.len() as u64, "{what}");
            true
        }
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(5), "{what}: {error}");
            let shown = fs::metadata(path).unwrap();
            assert_eq!(shown.len(), sample.blob.len() as u64, "{what}: as damaged");
            assert_eq!(shown.mode() & 0o777, 0o444, "{what}: as damaged");
            let mut value = [0; 5];
            let n = rustix::fs::getxattr(path, "user.modeloci.verified", &mut value[..]).unwrap();
            assert_eq!(&value[..n], b"false", "{what}");
            let parent = fs::read_dir(path.parent().unwrap()).unwrap();
            assert_eq!(parent.count(), 1, "{what}: its name is there");
            false
        }
    }
}

/// What the kernel answers of an open file by itself, where it ends above all, and what it reads.
fn exact_when_open(mut file: &fs::File, truth: &Truth, what: &str) {
    let size = truth.data.len() as u64;
    let exact = |asked: &str| {
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), size, "{what}: size {asked}");
        let executable = metadata.mode() & 0o111 != 0;
        assert_eq!(executable, truth.executable, "{what}: mode {asked}");
        let mtime = metadata.mtime() as u64;
        assert!(truth.mtime == 0 || mtime == truth.mtime, "{what}: {asked}");
    };
    exact("before any read");
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), size, "{what}: end");
    // At the end first, and beyond it, where no byte is ever asked of the server.
    for offset in [size, size + 1, size + 5_000, i64::MAX as u64 - 9] {
        let read = file.read_at(&mut [0; 9], offset).unwrap();
        assert_eq!(read, 0, "{what}: at {offset}");
    }
    let mut piece = [0; 9];
    let offset = size.saturating_sub(5);
    let read = file.read_at(&mut piece, offset).unwrap();
    assert!(piece[..read] == truth.data[offset as usize..], "{what}");
    let mut sent = tempfile::tempfile().unwrap();
    let count = rustix::fs::sendfile(&sent, file, Some(&mut 0), 1 << 20).unwrap();
    assert_eq!(count as u64, size, "{what}: sent");
    for file in [&mut sent, &mut file.try_clone().unwrap()] {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes == truth.data, "{what}");
    }
    assert!(mapped(file) == truth.data, "{what}: mapped");
    exact("after all reads");
}

#[test]
fn l10_l11_a_mount_serves_exact_files_or_eio() {
    let collection = Collection::new();
    for when in [When::Always, When::Opening, When::FirstRead] {
        let sandbox = Sandbox::new();
        let archive = sandbox.write("m.tar", &collection.archive);
        collection.write(&archive, when != When::FirstRead);
        let (mounted, run) = Mounted::attempt(&sandbox, "m.tar");
        let mounted = mounted.unwrap_or_else(|| panic!("{when:?}: {run:?}"));
        collection.write(&archive, when != When::Opening);
        let read = |path: &str, sample: &Sample| {
            let what = format!("{when:?}: {path}, {:?}", sample.packaging);
            exact_or_eio(&mounted.path().join(path), sample, &what)
        };
        let read = |(path, sample): &(String, Sample)| read(path, sample);
        let served = collection
            .samples
            .iter()
            .filter(|sample| read(sample))
            .count();
        if when == When::Always {
            assert_eq!(served, 0);
        }
        collection.write(&archive, when == When::Always);
        for sample in &collection.samples {
            read(sample);
        }
        assert_eq!(mounted.read("good").unwrap(), b"good");
        if when == When::Always {
            mounted.logged(&collection.samples[0].0, &["at 0"]);
        }
    }
}

#[test]
fn l10_a_damaged_file_is_not_restored_and_costs_only_itself() {
    let collection = Collection::new();
    let sandbox = Sandbox::new();
    let archive = sandbox.write("m.tar", &collection.archive);
    collection.write(&archive, true);
    let pinned = ["unpack", "m.tar", "out", "--digest", &collection.pin];
    for (path, sample) in collection.samples.iter().step_by(7) {
        let args = [&pinned[..], &["--include", path]].concat();
        let run = sandbox.run_bounded(&args);
        assert_eq!(run.code, Some(1), "{path}, {:?}: {run:?}", sample.packaging);
        run.one_error(&[path]);
    }
    let args = [&pinned[..], &["--include", "good"]].concat();
    sandbox.run_bounded(&args).ok();
    assert_eq!(fs::read(sandbox.path("out/good")).unwrap(), b"good");
    // Undamaged, empty files among them.
    collection.write(&archive, false);
    let args = [&pinned[..], &["--force"]].concat();
    sandbox.run_bounded(&args).ok();
    for (path, sample) in &collection.samples {
        let restored = fs::read(sandbox.path("out").join(path)).unwrap();
        assert!(restored == sample.truth.data, "{path}");
    }
}
