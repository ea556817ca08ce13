//! Storage that fails: the N-th operation of a source, for every N until nothing fails any more,
//! once or from then on. Whoever reads gets exact bytes, or an error that blames the storage; and
//! when the storage is well again, so is the model.
//!
//! Here at the seam of the source; in `calls` below it, where the system calls fail.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support as support;
use std::io::{self, IoSliceMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fs, thread};

use modeloci::model::OpenOptions;
use modeloci::oci::OciConfig;
use modeloci::pack::{Output, PackOptions, pack};
use modeloci::source::{self, BlobSource, ReadAt};
use modeloci::{Compression, Digest, Error, ErrorKind, Model, Result};

#[path = "../support/plain.rs"]
mod plain;

mod calls;

use plain::Form;

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
struct Fault {
    errno: i32,
    /// The number of the first operation that fails.
    first: u64,
    /// All that follow fail, too, until the storage is well again.
    lasting: bool,
}

/// Counts operations, and lets some of them fail.
struct Disk {
    fault: Fault,
    operations: AtomicU64,
    well: AtomicBool,
}

impl Disk {
    fn operation(&self) -> Result<()> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let fails = match self.fault.lasting {
            true => number >= self.fault.first,
            false => number == self.fault.first,
        };
        if !fails || self.well.load(Ordering::SeqCst) {
            return Ok(());
        }
        let error = io::Error::from_raw_os_error(self.fault.errno);
        Err(Error::io("read", "the disk")(error))
    }
}

/// A source on such a disk.
struct Faulty(Arc<dyn BlobSource>, Arc<Disk>);

impl BlobSource for Faulty {
    fn name(&self) -> String {
        self.0.name()
    }

    fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        self.1.operation()?;
        let blob = self.0.blob(digest, size)?;
        Ok(blob.map(|blob| Arc::new(FaultyBlob(blob, Arc::clone(&self.1))) as Arc<dyn ReadAt>))
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.1.operation()?;
        self.0.document(name, limit)
    }
}

struct FaultyBlob(Arc<dyn ReadAt>, Arc<Disk>);

impl ReadAt for FaultyBlob {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.operation()?;
        self.0.read_exact_at(buf, offset)
    }

    fn read_exact_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.1.operation()?;
        self.0.read_exact_vectored_at(bufs, offset)
    }
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn files() -> Files {
    vec![
        ("config.json", b"{\"layers\": 2}".to_vec()),
        ("empty", Vec::new()),
        ("text", b"some text, ".repeat(20_000)),
        ("w.bin", support::noise(5, 200_000)),
    ]
}

fn packed(dir: &Path, files: &Files, form: Form) {
    let model = dir.join("model");
    fs::create_dir(&model).unwrap();
    for (name, bytes) in files {
        fs::write(model.join(name), bytes).unwrap();
    }
    let options = PackOptions {
        compression: form.compression(),
        chunk_size: 64 << 10,
        ..PackOptions::default()
    };
    let config = OciConfig::new("m", "1", "onnx", "mlp", Default::default()).unwrap();
    let output = Output::File(dir.join("m.tar"));
    pack(&model, &config, &output, &options, &|_, _| ()).unwrap();
    form.finish(&dir.join("m.tar"));
}

/// Layers that something else wrote.
fn foreign(dir: &Path, files: &Files, layer: impl Fn(Vec<u8>) -> Vec<u8>) {
    let layers = files.iter().map(|(name, bytes)| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
        (name.to_string(), layer(tar.into_inner().unwrap()))
    });
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    support::write_layers(&dir.join("m.tar"), media_type, layers);
}

fn gzip(bytes: Vec<u8>) -> Vec<u8> {
    support::compressed::gzip(&bytes, 1)
}

fn options() -> OpenOptions {
    OpenOptions {
        cache_bytes: 8 << 20,
        ..OpenOptions::default()
    }
}

/// Reads a file from its start; exact bytes, or why not.
fn read(model: &Model, name: &str, expected: &[u8]) -> Result<()> {
    let attr = model.find(name).unwrap();
    assert_eq!(attr.size, expected.len() as u64, "{name}");
    let mut at = 0;
    loop {
        let bytes = model.read_at(attr.inode, at as u64, 100_000)?;
        let end = expected.len().min(at + 100_000);
        assert!(bytes == expected[at..end], "{name} at {at}");
        if bytes.is_empty() {
            return Ok(());
        }
        at += bytes.len();
    }
}

/// Opens the model and reads all of it while the disk fails, then again; returns how many operations
/// that took.
fn run(archive: &Arc<dyn BlobSource>, files: &Files, fault: Fault) -> u64 {
    let disk = Arc::new(Disk {
        fault,
        operations: AtomicU64::new(0),
        well: AtomicBool::new(false),
    });
    let source: Arc<dyn BlobSource> = Arc::new(Faulty(Arc::clone(archive), Arc::clone(&disk)));
    let blames_the_disk = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Environment, "{fault:?}: {error}");
    };
    let model = match Model::from_source(Arc::clone(&source), &options()) {
        Ok(model) => model,
        Err(error) => {
            blames_the_disk(error);
            disk.well.store(true, Ordering::SeqCst);
            Model::from_source(source, &options()).unwrap()
        }
    };
    let reader = |name: &str, bytes: &[u8]| {
        if let Err(error) = read(&model, name, bytes) {
            blames_the_disk(error);
        }
    };
    thread::scope(|scope| {
        for (name, bytes) in files {
            // Two readers of each: what one of them began, the other waits for.
            scope.spawn(move || reader(name, bytes));
            scope.spawn(move || reader(name, bytes));
        }
    });
    let operations = disk.operations.load(Ordering::SeqCst);
    disk.well.store(true, Ordering::SeqCst);
    for (name, bytes) in files {
        let inode = model.find(name).unwrap().inode;
        if let Err(error) = read(&model, name, bytes) {
            panic!("{fault:?}: {name} after the disk recovered: {error}");
        }
        assert!(model.verified(inode), "{fault:?}: {name}");
        assert_eq!(
            model.verify(inode).unwrap(),
            Digest::sha256(bytes),
            "{fault:?}: {name}"
        );
        assert!(model.verified(inode), "{fault:?}: {name}");
    }
    operations
}

/// Every operation of `archive` fails.
fn every_operation(dir: &Path, files: &Files) {
    let faults = [(libc::EIO, false), (libc::EIO, true), (libc::ESTALE, false)];
    every_operation_of(&dir.join("m.tar"), files, &faults);
}

/// Every operation of what is at the path fails, in each of these ways: once, or from then on.
fn every_operation_of(path: &Path, files: &Files, faults: &[(i32, bool)]) {
    let source = source::open(path).unwrap();
    for &(errno, lasting) in faults {
        let mut first = 0;
        loop {
            let fault = Fault {
                errno,
                first,
                lasting,
            };
            // One who reads ahead may have come less far than the time before.
            if run(&source, files, fault) + 2 <= first {
                break;
            }
            first += 1;
            assert!(first < 1_000, "no end of operations");
        }
        assert!(first > 10, "only {first} operations");
    }
}

fn packed_archive(form: Form) {
    let dir = tempfile::tempdir().unwrap();
    packed(dir.path(), &files(), form);
    every_operation(dir.path(), &files());
}

fn foreign_archive(files: Files, layer: impl Fn(Vec<u8>) -> Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    foreign(dir.path(), &files, layer);
    every_operation(dir.path(), &files);
}

/// More than is decoded as a whole: layers with seek points, read while they are decoded.
fn large() -> Files {
    let content = [support::noise(9, 2_000_000), b"weights ".repeat(700_000)].concat();
    vec![("large.bin", content)]
}

/// Each blob is a file of its own there, which is opened when it is needed.
#[test]
fn r3_every_operation_fails_of_layout_directories() {
    let faults = [(libc::EIO, false), (libc::ESTALE, true)];
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    packed(dirs[0].path(), &files(), Form::Packed(Compression::Auto));
    foreign(dirs[1].path(), &files(), gzip);
    for dir in dirs {
        let layout = dir.path().join("layout");
        let archive = fs::File::open(dir.path().join("m.tar")).unwrap();
        tar::Archive::new(archive).unpack(&layout).unwrap();
        every_operation_of(&layout, &files(), &faults);
    }
}

#[test]
fn r3_every_operation_fails_of_packed_layers() {
    packed_archive(Form::Packed(Compression::Auto));
    packed_archive(Form::Packed(Compression::Gzip(1)));
    packed_archive(Form::Packed(Compression::None));
}

#[test]
fn r3_every_operation_fails_of_packed_zstd_layers() {
    packed_archive(Form::Packed(Compression::Zstd(1)));
}

#[test]
fn r3_every_operation_fails_of_packed_plain_layers() {
    packed_archive(Form::Plain);
}

#[test]
fn r3_every_operation_fails_of_foreign_layers() {
    foreign_archive(files(), gzip);
    foreign_archive(files(), |tar| zstd::encode_all(&tar[..], 1).unwrap());
    foreign_archive(files(), |tar| tar);
}

#[test]
fn r3_every_operation_fails_of_raw_layers() {
    let dir = tempfile::tempdir().unwrap();
    let layers = files()
        .into_iter()
        .map(|(name, bytes)| (name.to_string(), bytes));
    support::write_layers(&dir.path().join("m.tar"), "application/x", layers);
    every_operation(dir.path(), &files());
}

#[test]
fn r3_every_operation_fails_of_large_gzip_layers() {
    foreign_archive(large(), gzip);
}

#[test]
fn r3_every_operation_fails_of_large_zstd_layers() {
    foreign_archive(large(), |tar| zstd::encode_all(&tar[..], 1).unwrap());
}
