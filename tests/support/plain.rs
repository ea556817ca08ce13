//! Archives of the form that `pack --compression none` once wrote, and that is still read: layers are
//! plain tars, whose chunk tables are blobs of their own, listed by a referrer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use modeloci::codec::{ChunkKind, Encoded, SubOffsets};
use modeloci::layer::table::{ChunkTable, Framing, Header, TableBuilder};
use modeloci::layer::wrap::unwrap;
use modeloci::oci::{Descriptor, EMPTY_JSON, Index, OciManifest, annotations, media_type};
use modeloci::source::BlobSource;
use modeloci::{Compression, Digest};

/// Rewrites an archive with gzip layers of ours.
pub(crate) fn rewrite(path: &Path) {
    let source = modeloci::source::open(path).unwrap();
    let document = |name| source.document(name, 1 << 20).unwrap().unwrap();
    let mut manifest = OciManifest::parse(&document("manifest.json")).unwrap();
    let (mut blobs, mut tables) = (Blobs::default(), Vec::new());
    for layer in manifest.layers.iter_mut().filter(|l| !l.is_empty()) {
        let (tar, table) = plain(&bytes(&*source, &layer.digest), layer);
        let table = blobs.add(media_type::CHUNK_TABLE, table);
        layer.annotations.remove(annotations::CHUNKS_RANGE);
        let digest = table.digest.to_string();
        layer.annotations.insert(annotations::CHUNKS.into(), digest);
        *layer = Descriptor {
            annotations: std::mem::take(&mut layer.annotations),
            ..blobs.add(media_type::LAYER_TAR, tar)
        };
        tables.push(table);
    }
    let config = document("config.json");
    blobs.add(media_type::MODEL_CONFIG, config.clone());
    let mut index = Index::parse(&document("index.json")).unwrap();
    let manifest = manifest.to_bytes();
    let subject = blobs.add(media_type::IMAGE_MANIFEST, manifest.clone());
    let described = &mut index.manifests[0];
    (described.digest, described.size) = (subject.digest, subject.size);

    let empty = blobs.add(media_type::EMPTY, EMPTY_JSON.to_vec());
    tables.sort_by_key(|table| table.digest);
    tables.dedup();
    if !tables.is_empty() {
        let mut referrer = OciManifest::new(empty, tables);
        referrer.artifact_type = Some(media_type::CHUNK_TABLE.into());
        referrer.subject = Some(described.clone());
        referrer.subject.as_mut().unwrap().annotations.clear();
        blobs.add(media_type::IMAGE_MANIFEST, referrer.to_bytes());
    }
    let mut entries: Vec<(String, Vec<u8>)> = blobs.0.into_iter().collect();
    entries.push(("oci-layout".into(), document("oci-layout")));
    entries.push(("index.json".into(), index.to_bytes()));
    entries.push(("config.json".into(), config));
    entries.push(("manifest.json".into(), manifest));
    drop(source);
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.finish().unwrap();
}

/// By their paths.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.0.insert(descriptor.digest.blob_path(), bytes);
        descriptor
    }
}

fn bytes(source: &dyn BlobSource, digest: &Digest) -> Vec<u8> {
    let blob = source.blob(digest, None).unwrap().unwrap();
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The tar of a gzip layer, and the table that belongs to it.
fn plain(blob: &[u8], layer: &Descriptor) -> (Vec<u8>, Vec<u8>) {
    let mut tar = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(blob);
    gzip.read_to_end(&mut tar).unwrap();
    let range = layer.annotation(annotations::CHUNKS_RANGE).unwrap();
    let (offset, length) = range.split_once('+').unwrap();
    let (offset, length): (usize, usize) = (offset.parse().unwrap(), length.parse().unwrap());
    let table = unwrap(Framing::Gzip, &blob[offset..offset + length]).unwrap();
    let table = ChunkTable::parse(table.into(), blob.len() as u64, "a layer").unwrap();
    let header = *table.header();
    let (mut rows, mut at) = (TableBuilder::new(), 0);
    for segment in 0..table.segments() {
        let length = table.decoded_len(segment) as usize;
        let encoded = Encoded {
            kind: ChunkKind::Plain,
            sub_offsets: SubOffsets::default(),
        };
        let digest = Digest::of(header.algorithm, &tar[at..at + length]);
        rows.push(at as u64, length as u32, encoded, &digest);
        at += length;
    }
    assert_eq!(at, tar.len());
    let table = rows.finish(&Header {
        framing: Framing::Plain,
        data_size: tar.len() as u64,
        data_digest: Digest::sha256(&tar),
        ..header
    });
    (tar, table)
}

/// How the archives of a test come about: every way in which layers with a chunk table are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As `pack` writes them.
    Packed(Compression),
    /// As [`rewrite`] does.
    Plain,
}

impl Form {
    /// What to pack with.
    pub(crate) fn compression(self) -> Compression {
        match self {
            Form::Packed(compression) => compression,
            Form::Plain => Compression::None,
        }
    }

    /// Makes what was packed so an archive of this form.
    pub(crate) fn finish(self, archive: &Path) {
        if self == Form::Plain {
            rewrite(archive);
        }
    }
}
