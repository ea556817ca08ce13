//! The same with real layers of a real model, whose storage stands still when a test says so.

use std::io::IoSliceMut;
use std::iter;
use std::path::Path;
use std::sync::OnceLock;

use modeloci_test_support::noise;

use super::*;
use crate::digest::Digest;
use crate::error::Result as Outcome;
use crate::model::{Model, OpenOptions};
use crate::mount::serve::filesystem::Shared;
use crate::oci::{
    Descriptor, Index, OCI_LAYOUT, OciConfig, OciManifest, annotations, media_type, stated,
};
use crate::pack::{self, Output, PackOptions};
use crate::source::{BlobSource, MemorySource, ReadAt};

mod memory;

/// One test at a time: how many passes there are at once is a bound on the whole process, and what
/// stands still in one test would keep the others waiting.
static ALONE: Mutex<()> = Mutex::new(());

const MIB: usize = 1 << 20;

/// What a storage lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Everything,
    Nothing,
    /// What was not read before, and of the rest what lies before this offset.
    Once(u64),
}

struct Gate {
    open: Mutex<Open>,
    opened: Condvar,
    /// Reads that stand still.
    waiting: AtomicU64,
    /// Every read takes so long.
    pause: Mutex<Duration>,
}

impl Gate {
    fn set(&self, open: Open) {
        *lock(&self.open) = open;
        self.opened.notify_all();
    }

    fn pass(&self, offset: u64, before: u64) {
        thread::sleep(*lock(&self.pause));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let shut = |open: &mut Open| match open {
            Open::Everything => false,
            Open::Nothing => true,
            Open::Once(from) => offset < before && offset >= *from,
        };
        drop(self.opened.wait_while(lock(&self.open), shut).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn until_somebody_waits(&self) {
        let start = Instant::now();
        while self.waiting.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < LONG, "nobody reads");
            thread::yield_now();
        }
    }
}

/// A blob behind the gate.
struct Gated {
    inner: Arc<dyn ReadAt>,
    gate: Arc<Gate>,
    /// Where those reads ended that went furthest.
    read: AtomicU64,
}

impl Gated {
    fn pass(&self, offset: u64, length: usize) {
        let before = self
            .read
            .fetch_max(offset + length as u64, Ordering::SeqCst);
        self.gate.pass(offset, before);
    }
}

impl ReadAt for Gated {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Outcome<()> {
        self.pass(offset, buf.len());
        self.inner.read_exact_at(buf, offset)
    }

    fn read_exact_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Outcome<()> {
        self.pass(offset, bufs.iter().map(|buf| buf.len()).sum());
        self.inner.read_exact_vectored_at(bufs, offset)
    }

    fn would_wait(&self, _: u64, _: u64) -> bool {
        true
    }
}

/// A source of which some blobs are behind the gate.
struct Storage {
    inner: MemorySource,
    slow: Vec<Digest>,
    gate: Arc<Gate>,
}

impl BlobSource for Storage {
    fn name(&self) -> String {
        "a test".into()
    }

    fn blob(&self, digest: &Digest, size: Option<u64>) -> Outcome<Option<Arc<dyn ReadAt>>> {
        let Some(inner) = self.inner.blob(digest, size)? else {
            return Ok(None);
        };
        if !self.slow.contains(digest) {
            return Ok(Some(inner));
        }
        Ok(Some(Arc::new(Gated {
            inner,
            gate: Arc::clone(&self.gate),
            read: AtomicU64::new(0),
        })))
    }

    fn document(&self, name: &str, limit: u64) -> Outcome<Option<Vec<u8>>> {
        self.inner.document(name, limit)
    }
}

fn tar(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "f", content).unwrap();
    tar.into_inner().unwrap()
}

/// The layer of a link named `f`.
fn link(target: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "f", target).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    modeloci_test_support::compressed::gzip(bytes, 1)
}

/// In frames that decode alone.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let frames = bytes.chunks(3 * MIB);
    frames
        .flat_map(|frame| zstd::encode_all(frame, 1).unwrap())
        .collect()
}

fn content_of(blob: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Layers of a model to be.
#[derive(Default)]
struct Layers {
    source: MemorySource,
    layers: Vec<Descriptor>,
}

impl Layers {
    /// A layer of another tool's.
    fn foreign(&mut self, path: &str, media_type: &str, blob: Vec<u8>) -> Digest {
        let mut layer = Descriptor::of(media_type, &blob);
        layer
            .annotations
            .insert(annotations::TITLE.into(), path.into());
        self.layers.push(layer);
        self.source.insert(blob)
    }

    /// The layers of a model that this program packed: files that are read through a chunk table.
    fn packed(&mut self, path: &str, content: &[u8]) {
        self.packed_in(path, content, PackOptions::default().chunk_size);
    }

    fn packed_in(&mut self, path: &str, content: &[u8], chunk_size: u32) {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join(path), content).unwrap();
        let archive = dir.path().join("m.tar");
        let config = OciConfig::new("m", "1", "", "", Default::default()).unwrap();
        let output = Output::File(archive.clone());
        let options = PackOptions {
            chunk_size,
            ..PackOptions::default()
        };
        pack::pack(&model, &config, &output, &options, &|_, _| ()).unwrap();
        let source = crate::source::open(&archive).unwrap();
        let packed = Model::from_source(source.clone(), &OpenOptions::default()).unwrap();
        for layer in &packed.documents().unwrap().manifest.layers {
            let blob = source.blob(&layer.digest, None).unwrap().unwrap();
            self.source.insert(content_of(&*blob));
            self.layers.push(layer.clone());
        }
    }

    fn open(mut self, slow: Vec<Digest>, times: Times) -> Mounted {
        let config = OciConfig::new("m", "1", "", "", Default::default()).unwrap();
        let config = config.to_bytes();
        self.source.insert(config.clone());
        let config = Descriptor::of(media_type::MODEL_CONFIG, &config);
        let manifest = OciManifest::new(config, self.layers).to_bytes();
        self.source.insert(manifest.clone());
        let index = Index::of(Descriptor::of(media_type::IMAGE_MANIFEST, &manifest), "1");
        self.source
            .set_document("oci-layout", OCI_LAYOUT.as_bytes());
        self.source.set_document("index.json", index.to_bytes());
        let gate = Arc::new(Gate {
            open: Mutex::new(Open::Everything),
            opened: Condvar::new(),
            waiting: AtomicU64::new(0),
            pause: Mutex::new(Duration::ZERO),
        });
        let source = Storage {
            inner: self.source,
            slow,
            gate: Arc::clone(&gate),
        };
        let options = OpenOptions {
            cache_bytes: 16 << 20,
            readahead: false,
            memory: crate::model::Memory::Served { threads: 2 },
            ..OpenOptions::default()
        };
        let model = Model::from_source(Arc::new(source), &options).unwrap();
        let shared = Shared::new(model, Path::new("/m").into(), 16 << 20, (0, 0));
        let files = Arc::new(shared);
        Mounted {
            gate,
            waits: Waits::with(Arc::clone(&files), 2, times),
            files,
        }
    }
}

/// A model as it is served, but for the kernel.
struct Mounted {
    gate: Arc<Gate>,
    files: Arc<Shared>,
    waits: Waits<Shared>,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Also when the test fails: nobody stays behind in a place that others need.
        *lock(&self.gate.pause) = Duration::ZERO;
        self.gate.set(Open::Everything);
    }
}

type Answers = Receiver<Result<Bytes, Errno>>;

impl Mounted {
    fn read_by(&self, thread: u32, path: &str, offset: usize) -> Answers {
        let attr = self.files.model.find(path);
        let (sender, answer) = channel();
        let read = Read {
            inode: attr.unwrap_or_else(|| panic!("{path}")).inode.0,
            offset: offset as u64,
            size: 4096,
            thread,
            ahead: false,
        };
        let send = move |result| drop(sender.send(result));
        self.waits.read(read, send);
        answer
    }

    fn read(&self, path: &str, offset: usize) -> Answers {
        self.read_by(0, path, offset)
    }

    fn nothing_stays(&self) {
        let start = Instant::now();
        let inner = &self.waits.inner;
        let lanes = inner.lanes();
        while !lock(&inner.tickets).all.is_empty() || !lanes.iter().all(|lane| lane.is_empty()) {
            assert!(start.elapsed() < LONG, "something stays behind");
            thread::yield_now();
        }
    }
}

fn bytes_of(answer: &Answers, what: &str) -> Bytes {
    match answer.recv_timeout(LONG) {
        Ok(Ok(bytes)) => bytes,
        other => panic!("{what}: {other:?}"),
    }
}

fn nothing_of(answers: &[Answers]) {
    assert!(answers.iter().all(|answer| answer.try_recv().is_err()));
}

const GZIP: &str = media_type::LAYER_TAR_GZIP;
const ZSTD: &str = media_type::LAYER_TAR_ZSTD;

/// Descriptors of one slow blob, and links to one of them.
const NAMES: usize = 64;

/// What is beside it, packed once.
static OTHERS: OnceLock<Layers> = OnceLock::new();

/// Of it, what is no chunked file.
fn others() -> [(&'static str, &'static str, Vec<u8>); 7] {
    [
        ("work0/f", GZIP, noise(2, 5_000)),
        ("work1/f", GZIP, noise(3, 5_000)),
        ("work2/f", GZIP, noise(4, 5_000)),
        ("pass0/f", ZSTD, noise(5, 3 * MIB)),
        ("pass1/f", ZSTD, noise(6, 3 * MIB)),
        ("pass2/f", ZSTD, noise(7, 3 * MIB)),
        ("decoder/f", GZIP, noise(8, 9 * MIB)),
    ]
}

/// A model with the same slow blob under many names, and others beside it, one for each thing that a
/// read may wait for.
fn model_of(media_type: &str, slow: Vec<u8>) -> Mounted {
    let mut layers = Layers::default();
    let mut digest = None;
    for n in 0..NAMES {
        digest = Some(layers.foreign(&format!("slow{n:02}/f"), media_type, slow.clone()));
    }
    for n in 0..NAMES {
        let to = link("../slow00/f");
        layers.foreign(&format!("link{n:02}/f"), media_type::LAYER_TAR, to);
    }
    let others = OTHERS.get_or_init(|| {
        let mut layers = Layers::default();
        layers.packed("chunked", &noise(1, MIB));
        for (path, media_type, content) in others() {
            let tar = tar(&content);
            let blob = match media_type {
                GZIP => gzip(&tar),
                _ => zstd(&tar),
            };
            layers.foreign(path, media_type, blob);
        }
        layers
    });
    for layer in &others.layers {
        layers.layers.push(layer.clone());
        let blob = others.source.blob(&layer.digest, None).unwrap().unwrap();
        layers.source.insert(content_of(&*blob));
    }
    layers.open(digest.into_iter().collect(), TIMES)
}

/// Reads all names of the slow blob, and everything else while nothing of it moves.
fn others_are_read_beside(scene: &Mounted, content: &[u8], offset: usize) {
    let paths = (0..NAMES).flat_map(|n| [format!("slow{n:02}/f"), format!("link{n:02}/f")]);
    let paths: Vec<_> = paths.collect();
    let slow: Vec<_> = paths.iter().map(|path| scene.read(path, offset)).collect();
    scene.gate.until_somebody_waits();
    let chunked = ("chunked", "", noise(1, MIB));
    for (path, _, content) in iter::once(chunked).chain(others()) {
        // The last bytes: a decoder has to get there.
        let last = content.len() - 4096;
        for at in [0, last] {
            let answer = scene.read(path, at);
            assert_eq!(bytes_of(&answer, path), content[at..at + 4096]);
        }
    }
    nothing_of(&slow);
    scene.gate.set(Open::Everything);
    for (path, answer) in paths.iter().zip(&slow) {
        let expected = &content[offset..offset + 4096];
        assert_eq!(bytes_of(answer, path), expected, "{path}");
    }
    scene.nothing_stays();
}

#[test]
fn r15_a_blob_that_stands_still_is_one_whatever_the_number_of_its_names() {
    let _alone = lock(&ALONE);
    let (small, large) = (noise(90, 6_000), noise(91, 5 * MIB));
    for (media_type, blob, content) in [
        (GZIP, gzip(&tar(&small)), &small),
        (GZIP, gzip(&tar(&large)), &large),
        (ZSTD, zstd(&tar(&large)), &large),
        ("application/octet-stream", large.clone(), &large),
    ] {
        let scene = model_of(media_type, blob);
        scene.gate.set(Open::Nothing);
        others_are_read_beside(&scene, content, 0);
    }
}

#[test]
fn r15_a_decoder_that_stands_still_is_one_whatever_the_number_of_names() {
    let _alone = lock(&ALONE);
    let content = noise(92, 9 * MIB);
    let blob = gzip(&tar(&content));
    let half = blob.len() as u64 / 2;
    let scene = model_of(GZIP, blob);
    // The hash gets to the end, and the decoder behind it does not.
    scene.gate.set(Open::Once(half));
    assert_eq!(
        bytes_of(&scene.read("slow00/f", 0), "the start"),
        content[..4096]
    );
    others_are_read_beside(&scene, &content, content.len() - 4096);
}

#[test]
fn r15_spans_of_a_blob_that_stands_still_are_of_one() {
    let _alone = lock(&ALONE);
    let content = noise(93, 6 * MIB);
    let blob = zstd(&tar(&content));
    let scene = model_of(ZSTD, blob);
    // It is checked, and what is wanted later is to be read again.
    assert_eq!(
        bytes_of(&scene.read("slow00/f", 0), "the start"),
        content[..4096]
    );
    scene.gate.set(Open::Nothing);
    others_are_read_beside(&scene, &content, content.len() - 4096);
}

/// A wait that lasts for hours ends much sooner when it is for something that stands still.
const STALLING: Times = Times {
    stall: Duration::from_secs(1),
    ..TIMES
};

/// Layers of every kind, each behind the gate: what a first read of it waits for, and what it is.
fn kinds() -> [(&'static str, Vec<u8>, Vec<u8>); 5] {
    let (small, large) = (noise(94, 6_000), noise(95, 5 * MIB));
    [
        (GZIP, gzip(&tar(&small)), small),
        (GZIP, gzip(&tar(&large)), large.clone()),
        (ZSTD, zstd(&tar(&large)), large.clone()),
        (media_type::LAYER_TAR, tar(&large), large.clone()),
        ("application/octet-stream", large.clone(), large),
    ]
}

fn model_of_one(media_type: &str, blob: Vec<u8>, times: Times) -> Mounted {
    let mut layers = Layers::default();
    let digest = layers.foreign("slow/f", media_type, blob);
    layers.foreign("other/f", GZIP, gzip(&tar(b"another")));
    layers.open(vec![digest], times)
}

#[test]
fn r15_a_storage_that_stands_still_is_an_error_and_heals() {
    let _alone = lock(&ALONE);
    for (media_type, blob, content) in kinds() {
        let scene = model_of_one(media_type, blob, STALLING);
        scene.gate.set(Open::Nothing);
        let begun = Instant::now();
        let slow: Vec<_> = (0..4).map(|n| scene.read("slow/f", n)).collect();
        for answer in &slow {
            let answer = answer.recv_timeout(LONG).unwrap();
            assert_eq!(answer.unwrap_err(), Errno::EIO, "{media_type}");
        }
        assert!(begun.elapsed() >= STALLING.stall);
        // The thread that reads stands still as before: others are not the worse for it.
        assert_eq!(
            bytes_of(&scene.read("other/f", 0), "another file"),
            "another"
        );
        scene.gate.set(Open::Everything);
        assert_eq!(
            bytes_of(&scene.read("slow/f", 7), media_type),
            content[7..7 + 4096]
        );
        scene.nothing_stays();
    }
}

#[test]
fn r15_a_storage_that_is_slow_is_waited_for() {
    let _alone = lock(&ALONE);
    for (media_type, blob, content) in kinds() {
        let scene = model_of_one(media_type, blob, STALLING);
        // A megabyte at a time: all of it takes longer than a wait may for which nothing gets on.
        *lock(&scene.gate.pause) = STALLING.stall / 4;
        let begun = Instant::now();
        let answer = scene.read("slow/f", content.len() - 4096);
        let last = &content[content.len() - 4096..];
        assert_eq!(bytes_of(&answer, media_type), *last);
        let slow = content.len() < MIB || begun.elapsed() > STALLING.stall;
        assert!(slow, "{media_type}: it was not slow at all");
    }
}

#[test]
fn r11_a_reader_of_what_stands_still_can_be_killed() {
    let _alone = lock(&ALONE);
    for (media_type, blob, content) in kinds() {
        let scene = model_of_one(media_type, blob, TIMES);
        scene.gate.set(Open::Nothing);
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let killed = scene.read_by(child.id(), "slow/f", 0);
        let alive = scene.read_by(std::process::id(), "slow/f", 0);
        scene.gate.until_somebody_waits();
        child.kill().unwrap();
        child.wait().unwrap();
        let answer = killed.recv_timeout(LONG).unwrap();
        assert_eq!(answer.unwrap_err(), Errno::EINTR, "{media_type}");
        assert!(alive.try_recv().is_err());
        scene.gate.set(Open::Everything);
        assert_eq!(bytes_of(&alive, media_type), content[..4096]);
        scene.nothing_stays();
    }
}

/// A model with a file that was packed, whose layer is behind the gate.
fn model_of_a_packed_file(content: &[u8], times: Times) -> Mounted {
    let mut layers = Layers::default();
    layers.packed("far", content);
    let digest = layers.layers[0].digest;
    // The same, said to be another file.
    let mut odd = layers.layers[0].clone();
    stated::name(&mut odd, "odd");
    layers.layers.push(odd);
    layers.foreign("other/f", GZIP, gzip(&tar(b"another")));
    layers.open(vec![digest], times)
}

#[test]
fn r15_a_packed_file_behind_a_network_holds_no_event_loop() {
    let _alone = lock(&ALONE);
    let content = noise(96, 3 * MIB);
    let scene = model_of_a_packed_file(&content, TIMES);
    let beside = |offsets: &[usize]| {
        scene.gate.set(Open::Nothing);
        let far: Vec<_> = offsets.iter().map(|at| scene.read("far", *at)).collect();
        scene.gate.until_somebody_waits();
        assert_eq!(bytes_of(&scene.read("other/f", 0), "another"), "another");
        nothing_of(&far);
        scene.gate.set(Open::Everything);
        for (at, answer) in offsets.iter().zip(&far) {
            assert_eq!(bytes_of(answer, "far"), content[*at..at + 4096]);
        }
    };
    // The table is waited for, and chunks.
    beside(&[0, 5000, MIB]);
    scene.gate.set(Open::Nothing);
    let odd = scene.read("odd", 2 * MIB + MIB / 2);
    scene.gate.until_somebody_waits();
    nothing_of(std::slice::from_ref(&odd));
    scene.gate.set(Open::Everything);
    assert_eq!(odd.recv_timeout(LONG).unwrap().unwrap_err(), Errno::EIO);
    scene.nothing_stays();
    scene.gate.set(Open::Nothing);
    // What is in the cache is not.
    for at in [7, MIB + 9] {
        let answer = scene.read("far", at);
        assert_eq!(answer.try_recv().unwrap().unwrap(), content[at..at + 4096]);
    }
    // Across the border of two chunks, of which one is there.
    beside(&[MIB - 2000, 2 * MIB, 2 * MIB - 4096]);
    scene.nothing_stays();
}

#[test]
fn r15_a_packed_file_behind_a_network_is_waited_for_as_long_as_it_gets_on() {
    let _alone = lock(&ALONE);
    let content = noise(97, MIB);
    let scene = model_of_a_packed_file(&content, STALLING);
    scene.gate.set(Open::Nothing);
    let answer = scene.read("far", 0);
    let answer = answer.recv_timeout(LONG).unwrap();
    assert_eq!(answer.unwrap_err(), Errno::EIO);
    scene.gate.set(Open::Everything);
    scene.nothing_stays();
    // Table, head, and the chunk in pieces.
    let scene = model_of_a_packed_file(&content, STALLING);
    *lock(&scene.gate.pause) = STALLING.stall / 2;
    let begun = Instant::now();
    let answer = scene.read("far", content.len() - 4096);
    assert_eq!(bytes_of(&answer, "far"), content[content.len() - 4096..]);
    assert!(begun.elapsed() > STALLING.stall, "it was not slow at all");
}
