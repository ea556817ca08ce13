#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::blob::Blob;
use super::known::Known;
use super::on_demand::Unit;
use super::*;
use crate::codec::inflate::tests::sample;
use crate::digest::{Algorithm, Digest};
use crate::entry_path::EntryPath;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::foreign::{ForeignFile, Looked};
use crate::layer::members::Packaging;
use crate::layer::{FileReader as _, LayerSpec, LinkTarget, Reading};
use crate::memory::cache::ChunkKey;
use crate::memory::cache::LruChunkCache;
use crate::memory::context::Context;
use crate::oci::stated::MediaTypes;
use crate::oci::{Descriptor, Stated};
use crate::source::ReadAt;
use crate::tar::write::{END_OF_ARCHIVE, file_header, padding};
use crate::work::cores;

impl ForeignFile {
    /// Opens a layer of a file.
    fn open(
        blob: Arc<dyn ReadAt>,
        spec: LayerSpec,
        context: Arc<Context>,
        tuning: Tuning,
    ) -> Result<ForeignFile> {
        let subject = format!("{} ({})", spec.path, spec.stated.digest);
        let looked = ForeignFile::look(blob, spec.clone(), context, tuning)?;
        let Looked::File(file) = looked else {
            return Err(Error::malformed(subject, "is no file"));
        };
        file.attr_of(&spec)?;
        Ok(Arc::into_inner(file).unwrap())
    }

    /// Waits until all of the layer was decoded.
    fn finish(&self) -> Result<()> {
        self.stream()
            .known()?
            .reach(&self.stream().blob, u64::MAX - 1)
    }
}

mod ahead;
mod bad;
mod kept;
mod memory;
mod reads;

/// Everything a hundred times smaller, so that small data has many spans.
const SMALL: Tuning = Tuning::MINIATURE;

const NAME: &str = "model.bin";

fn tar_of(data: &[u8]) -> Vec<u8> {
    tar_as(NAME, data)
}

fn tar_as(name: &str, data: &[u8]) -> Vec<u8> {
    let mut tar = file_header(name, data.len() as u64, 0o755, 1_700_000_000);
    tar.extend_from_slice(data);
    tar.resize(tar.len() + padding(data.len() as u64), 0);
    tar.extend_from_slice(&END_OF_ARCHIVE);
    tar
}

fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    modeloci_test_support::compressed::gzip(data, level)
}

/// A gzip stream around deflate bytes of any strategy.
fn gzip_with(data: &[u8], strategy: zlib_rs::Strategy) -> Vec<u8> {
    let mut deflate = zlib_rs::Deflate::new_with_config(zlib_rs::DeflateConfig {
        strategy,
        window_bits: 31,
        level: 6,
        ..Default::default()
    });
    let mut out = vec![0; data.len() * 2 + 1024];
    deflate
        .compress(data, &mut out, zlib_rs::DeflateFlush::Finish)
        .unwrap();
    out.truncate(deflate.total_out() as usize);
    out
}

fn libdeflate(data: &[u8], level: i32) -> Vec<u8> {
    let level = libdeflater::CompressionLvl::new(level).unwrap();
    let mut out = vec![0; data.len() * 2 + 1024];
    let n = libdeflater::Compressor::new(level)
        .gzip_compress(data, &mut out)
        .unwrap();
    out.truncate(n);
    out
}

fn zstd(data: &[u8], level: i32) -> Vec<u8> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// The output of a command that reads `data`; `None` when there is no such command.
fn piped(command: &[&str], data: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(data)));
        let output = child.wait_with_output().unwrap();
        output.status.success().then_some(output.stdout)
    })
}

/// A blob that a test can change, or make fail, while it is open.
struct Fickle {
    data: RwLock<Vec<u8>>,
    failing: AtomicBool,
    reads: AtomicUsize,
    read_bytes: AtomicUsize,
}

impl Fickle {
    fn new(data: &[u8]) -> Arc<Fickle> {
        Arc::new(Fickle {
            data: RwLock::new(data.to_vec()),
            failing: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            read_bytes: AtomicUsize::new(0),
        })
    }
}

impl ReadAt for Fickle {
    fn len(&self) -> u64 {
        self.data.read().unwrap().len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.read_bytes.fetch_add(buf.len(), Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) {
            return Err(Error::io("read", "storage")(io::Error::from_raw_os_error(
                5,
            )));
        }
        let data = self.data.read().unwrap();
        let bytes = data.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(bytes.ok_or_else(|| Error::corrupt("storage", "was truncated"))?);
        Ok(())
    }
}

const GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn spec_of(blob: &[u8]) -> LayerSpec {
    let descriptor = Descriptor::of(GZIP_TYPE, blob);
    LayerSpec {
        stated: Arc::new(Stated::of(&descriptor, &mut MediaTypes::default()).unwrap()),
        path: EntryPath::new(&format!("dir/{NAME}")).unwrap(),
        reading: Reading::Archive,
        table: None,
    }
}

/// What the manifest is to state instead.
fn stated(spec: &mut LayerSpec) -> &mut Stated {
    Arc::make_mut(&mut spec.stated)
}

fn context(cache: u64, index_dir: Option<PathBuf>) -> Arc<Context> {
    Arc::new(Context::new(
        Arc::new(LruChunkCache::new(cache)),
        index_dir,
        0,
    ))
}

fn open_spec(blob: &[u8], spec: LayerSpec, tuning: Tuning) -> Result<ForeignFile> {
    ForeignFile::open(Fickle::new(blob), spec, context(1 << 20, None), tuning)
}

fn open_small(blob: &[u8]) -> ForeignFile {
    open_spec(blob, spec_of(blob), SMALL).unwrap()
}

/// The file of a layer in a storage that a test can disturb.
fn open_fickle(blob: &[u8], cache: u64, index_dir: Option<PathBuf>) -> (Arc<Fickle>, ForeignFile) {
    let source = Fickle::new(blob);
    let reader: Arc<dyn ReadAt> = Arc::<Fickle>::clone(&source);
    let file = ForeignFile::open(reader, spec_of(blob), context(cache, index_dir), SMALL).unwrap();
    (source, file)
}

/// Reads it whole, in pieces, and at odd places, and compares with `data`.
fn assert_reads(file: &ForeignFile, data: &[u8], name: &str) {
    assert_eq!(file.shown_size(), data.len() as u64, "{name}");
    let mut read = Vec::new();
    while read.len() < data.len() {
        let bytes = file.read_at(read.len() as u64, 30_011).unwrap();
        assert!(!bytes.is_empty(), "{name} at {}", read.len());
        read.extend_from_slice(&bytes);
    }
    assert!(read == data, "{name} in pieces");
    assert!(
        file.read_at(0, usize::MAX).unwrap() == data,
        "{name} at once"
    );
    for offset in (0..data.len()).rev().step_by(data.len() / 23 + 1) {
        let end = data.len().min(offset + 4096);
        assert!(
            file.read_at(offset as u64, 4096).unwrap() == data[offset..end],
            "{name} at {offset}"
        );
    }
    assert_eq!(file.read_at(data.len() as u64, 10).unwrap(), &b""[..]);
    assert_eq!(file.read_at(u64::MAX, usize::MAX).unwrap(), &b""[..]);
    assert_eq!(
        file.verify(&[]).unwrap().sha256,
        Digest::sha256(data),
        "{name}"
    );
}
