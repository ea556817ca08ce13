//! Damage, exhaustively: every bit of a small layer flipped, every truncation, every bit of a chunk
//! table changed under a digest that is right. The answer is the same bytes or an error, never
//! other bytes; and `verify` notices whatever changed.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use modeloci::codec::{ChunkKind, Encoded, SubOffsets};
use modeloci::layer::table::{Framing, Header, TableBuilder};
use modeloci::layer::wrap;
use modeloci::model::OpenOptions;
use modeloci::oci::{Descriptor, Index, OCI_LAYOUT, OciConfig, OciManifest, annotations};
use modeloci::pack::{self, Output, PackOptions};
use modeloci::source::{BlobSource, ReadAt};
use modeloci::{Algorithm, Compression, Digest, Error, ErrorKind, Model, Result};
use modeloci_test_support::compressed;
use modeloci_test_support::random::Random;

#[path = "support/plain.rs"]
#[allow(dead_code)]
mod plain;

use plain::Form;

/// An image layout in memory, whose blobs need not match their digests.
#[derive(Clone, Default)]
struct Layout {
    documents: HashMap<&'static str, Vec<u8>>,
    blobs: HashMap<Digest, Vec<u8>>,
}

struct Blob(Vec<u8>);

impl ReadAt for Blob {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.0.get(offset as usize..offset as usize + buf.len()) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(modeloci::Error::corrupt("blob", "is truncated")),
        }
    }
}

impl BlobSource for Layout {
    fn name(&self) -> String {
        "memory".into()
    }

    fn blob(&self, digest: &Digest, _: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        Ok(self
            .blobs
            .get(digest)
            .map(|b| Arc::new(Blob(b.clone())) as Arc<dyn ReadAt>))
    }

    fn document(&self, name: &str, _limit: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.documents.get(name).cloned())
    }
}

impl Layout {
    /// The digest of its layer.
    fn layer(&self) -> Digest {
        let manifest = OciManifest::parse(&self.documents["manifest.json"]).unwrap();
        manifest.layers[0].digest
    }

    fn open(self) -> Result<Model> {
        Model::from_source(Arc::new(self), &OpenOptions::default())
    }

    /// The layout with another layer: manifest and index follow, the blob need not match them.
    fn with_layer(&self, layer: Vec<u8>, change: impl FnOnce(&mut OciManifest)) -> Layout {
        let mut manifest = OciManifest::parse(&self.documents["manifest.json"]).unwrap();
        let mut layout = self.clone();
        layout.blobs.remove(&manifest.layers[0].digest);
        change(&mut manifest);
        layout.blobs.insert(manifest.layers[0].digest, layer);
        let bytes = manifest.to_bytes();
        let mut index = Index::parse(&self.documents["index.json"]).unwrap();
        index.manifests[0].digest = Digest::sha256(&bytes);
        index.manifests[0].size = bytes.len() as u64;
        layout.blobs.insert(Digest::sha256(&bytes), bytes.clone());
        layout.documents.insert("manifest.json", bytes);
        layout.documents.insert("index.json", index.to_bytes());
        layout
    }
}

/// A model of one file, packed for real, and the file's content.
struct Sample {
    layout: Layout,
    content: Vec<u8>,
    layer: Vec<u8>,
    manifest: OciManifest,
}

fn sample(form: Form, chunk_digest: Algorithm) -> Sample {
    // Small enough for every bit of the layer to be tried.
    let content = (0..300u32)
        .flat_map(|n| [((n * 7919) >> 3) as u8, 0x3f])
        .collect();
    sample_of(content, form, chunk_digest)
}

fn sample_of(content: Vec<u8>, form: Form, chunk_digest: Algorithm) -> Sample {
    sample_with(0o644, content, form, chunk_digest)
}

fn sample_with(mode: u32, content: Vec<u8>, form: Form, chunk_digest: Algorithm) -> Sample {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model/w.bin");
    std::fs::create_dir(dir.path().join("model")).unwrap();
    std::fs::write(&file, &content).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let archive = dir.path().join("model.tar");
    let config = OciConfig {
        model_name: "m".into(),
        version: "1".into(),
        framework: String::new(),
        architecture: String::new(),
        metadata: Default::default(),
    };
    let options = PackOptions {
        compression: form.compression(),
        chunk_digest,
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
    form.finish(&archive);
    let source = modeloci::source::open(&archive).unwrap();
    let mut layout = Layout::default();
    for name in ["oci-layout", "index.json", "manifest.json", "config.json"] {
        layout
            .documents
            .insert(name, source.document(name, 1 << 20).unwrap().unwrap());
    }
    assert_eq!(layout.documents["oci-layout"], OCI_LAYOUT.as_bytes());
    for (name, bytes) in
        modeloci_test_support::forge::Layout::parse(&std::fs::read(&archive).unwrap()).entries
    {
        if let Some(digest) = Digest::from_blob_path(&name) {
            layout.blobs.insert(digest, bytes);
        }
    }
    let manifest = OciManifest::parse(&layout.documents["manifest.json"]).unwrap();
    let layer = layout.blobs[&manifest.layers[0].digest].clone();
    Sample {
        layout,
        content,
        layer,
        manifest,
    }
}

const FORMS: [(Form, Algorithm); 6] = [
    (Form::Packed(Compression::Auto), Algorithm::Blake3),
    (Form::Packed(Compression::Auto), Algorithm::Sha256),
    (Form::Packed(Compression::Gzip(6)), Algorithm::Blake3),
    (ZSTD, Algorithm::Blake3),
    (Form::Packed(Compression::None), Algorithm::Blake3),
    (Form::Plain, Algorithm::Blake3),
];
const ZSTD: Form = Form::Packed(Compression::Zstd(3));

/// Reads the whole file; the same bytes or a verification error.
fn read(layout: Layout, content: &[u8], what: &str) -> bool {
    let model = match layout.open() {
        Ok(model) => model,
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Malformed),
                "{error}"
            );
            return false;
        }
    };
    let inode = model.find("w.bin").unwrap().inode;
    let mut found = Vec::new();
    loop {
        match model.read_at(inode, found.len() as u64, 257) {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => found.extend_from_slice(&bytes),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                return false;
            }
        }
    }
    assert!(found == content, "{what}: other bytes were served");
    true
}

fn verifies(layout: Layout) -> bool {
    layout
        .open()
        .is_ok_and(|model| model.verify(model.find("w.bin").unwrap().inode).is_ok())
}

/// All at once: each is minutes of one processor.
fn in_every_form(test: impl Fn(Form, Algorithm) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for (form, algorithm) in FORMS {
            scope.spawn(move || test(form, algorithm));
        }
    });
}

#[test]
fn d3_every_flipped_bit_gives_the_same_bytes_or_an_error() {
    in_every_form(|form, algorithm| {
        let Sample {
            layout,
            content,
            layer,
            ..
        } = sample(form, algorithm);
        assert!(read(layout.clone(), &content, "undamaged") && verifies(layout.clone()));
        for at in 0..layer.len() {
            for bit in 0..8 {
                let mut damaged = layer.clone();
                damaged[at] ^= 1 << bit;
                let what = format!("{form:?}, bit {bit} of byte {at}");
                let layout = layout.with_layer(damaged, |_| ());
                read(layout.clone(), &content, &what);
                assert!(!verifies(layout), "{what} went unnoticed");
            }
        }
    });
}

#[test]
fn l1_every_truncation_gives_an_error() {
    for (form, algorithm) in FORMS {
        let Sample {
            layout,
            content,
            layer,
            ..
        } = sample(form, algorithm);
        for end in 0..layer.len() {
            let what = format!("{form:?}, cut at {end}");
            // An archive with a shorter blob is refused when it is opened; storage that shrinks
            // later is not noticed before it is read.
            assert!(!read(
                layout.with_layer(layer[..end].to_vec(), |_| ()),
                &content,
                &what
            ));
        }
    }
}

/// The table is changed, and then everything that pins it is made right: table digest, blob digest,
/// sizes. Only the content can tell that it lies.
#[test]
fn l9_every_lie_of_a_pinned_table_gives_the_same_bytes_or_an_error() {
    for (form, algorithm) in FORMS {
        if form == Form::Plain {
            continue;
        }
        let Sample {
            layout,
            content,
            layer,
            manifest,
        } = sample(form, algorithm);
        let framing = if form == ZSTD {
            Framing::Zstd
        } else {
            Framing::Gzip
        };
        let range = manifest.layers[0]
            .annotation(annotations::CHUNKS_RANGE)
            .unwrap();
        let (offset, length) = range.split_once('+').unwrap();
        let (offset, length): (usize, usize) = (offset.parse().unwrap(), length.parse().unwrap());
        let table = wrap::unwrap(framing, &layer[offset..offset + length]).unwrap();
        let lie = |table: &[u8]| {
            let mut lying = layer[..offset].to_vec();
            let (members, length) = wrap::wrap(framing, table, offset as u64);
            lying.extend_from_slice(&members);
            layout.with_layer(lying.clone(), |manifest| {
                let descriptor = &mut manifest.layers[0];
                descriptor.digest = Digest::sha256(&lying);
                descriptor.size = lying.len() as u64;
                let mut annotate = |key: &str, value| {
                    descriptor.annotations.insert(key.into(), value);
                };
                annotate(annotations::CHUNKS, Digest::sha256(table).to_string());
                annotate(annotations::CHUNKS_RANGE, format!("{offset}+{length}"));
            })
        };
        assert!(read(lie(&table), &content, "the true table") && verifies(lie(&table)));
        for at in 0..table.len() {
            for bit in 0..8 {
                let mut lying = table.clone();
                lying[at] ^= 1 << bit;
                let what = format!("{form:?}, bit {bit} of table byte {at}");
                let served = read(lie(&lying), &content, &what);
                // A kind is a hint: another one that yields the same bytes is no lie.
                let kind = at >= 104 && (at - 104) % 72 == 12;
                assert!(
                    !verifies(lie(&lying)) || (kind && served),
                    "{what} went unnoticed"
                );
            }
        }
        for end in 0..table.len() {
            let what = format!("{form:?}, table cut at {end}");
            assert!(
                !read(lie(&table[..end]), &content, &what),
                "{what} went unnoticed"
            );
        }
    }
}

/// A registry or a copying tool may recompress a layer and keep its annotations. When that makes the
/// layer smaller, the range of the table lies beyond its end.
#[test]
fn l9_a_recompressed_layer_is_read_without_its_table() {
    use std::io::Read as _;
    let content: Vec<u8> = (0..200_000u32).map(|n| (n / 5_000) as u8).collect();
    let sample = sample_of(
        content.clone(),
        Form::Packed(Compression::Gzip(1)),
        Algorithm::Blake3,
    );
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&sample.layer[..])
        .read_to_end(&mut tar)
        .unwrap();
    let layers = [
        compressed::gzip(&tar, 9),
        zstd::bulk::compress(&tar, 19).unwrap(),
        tar,
    ];
    assert!(layers[0].len() < sample.layer.len() && layers[1].len() < sample.layer.len());
    for layer in layers {
        let layout = sample.layout.with_layer(layer.clone(), |manifest| {
            manifest.layers[0].digest = Digest::sha256(&layer);
            manifest.layers[0].size = layer.len() as u64;
        });
        assert!(read(layout.clone(), &content, "recompressed"));
        assert!(verifies(layout));
    }
}

/// A chunk of the six sub-streams that decode interleaved: larger, so not every bit is tried, but a
/// bit of every byte.
#[test]
fn d3_l9_literal_only_chunks_give_the_same_bytes_or_an_error() {
    let mut random = Random(1);
    let mut random = || random.next() as u8;
    let content: Vec<u8> = (0..10_000)
        .flat_map(|_| [random(), 0x3c | random() & random() & 3])
        .collect();
    let sample = sample_of(
        content.clone(),
        Form::Packed(Compression::Auto),
        Algorithm::Blake3,
    );
    let range = sample.manifest.layers[0]
        .annotation(annotations::CHUNKS_RANGE)
        .unwrap();
    let offset: usize = range.split_once('+').unwrap().0.parse().unwrap();
    // Of the first data chunk's row in the table's one member: kind 1, sub-offsets that grow.
    let row = offset + 16 + 104 + 72;
    assert_eq!(
        sample.layer[row + 12],
        1,
        "the sample is meant to be literal-only"
    );
    assert!(verifies(sample.layout.clone()));
    for at in 0..sample.layer.len() {
        let mut damaged = sample.layer.clone();
        damaged[at] ^= 1 << (at % 8);
        let what = format!("byte {at}");
        let layout = sample.layout.with_layer(damaged, |_| ());
        read(layout.clone(), &content, &what);
        assert!(at % 16 != 0 || !verifies(layout), "{what} went unnoticed");
    }
}

/// A layer of another tool, whose header is looked at when the model is opened: damage there is the
/// matter of that one file.
#[test]
fn d3_damage_in_the_first_bytes_of_a_foreign_layer_is_the_matter_of_its_file() {
    let sample = sample(Form::Packed(Compression::Gzip(6)), Algorithm::Blake3);
    let foreign = |manifest: &mut OciManifest| {
        let annotations = &mut manifest.layers[0].annotations;
        annotations.retain(|key, _| !key.starts_with("io.modeloci."));
    };
    assert!(read(
        sample.layout.with_layer(sample.layer.clone(), foreign),
        &sample.content,
        "ok"
    ));
    for at in 0..200 {
        for bit in 0..8 {
            let mut damaged = sample.layer.clone();
            damaged[at] ^= 1 << bit;
            let layout = sample.layout.with_layer(damaged, foreign);
            let model = layout
                .open()
                .unwrap_or_else(|e| panic!("bit {bit} of byte {at}: {e}"));
            let file = model.find("w.bin").unwrap();
            assert!(file.size > 0);
            let error = model.read_at(file.inode, 0, 1).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Corrupt,
                "bit {bit} of byte {at}: {error}"
            );
            assert!(model.verify(file.inode).is_err());
        }
    }
}

/// The other execute bit, as annotations state it.
fn state_the_opposite(mode: u32, layer: &mut Descriptor) {
    let was = layer.annotations.remove(annotations::FILE_MODE);
    assert_eq!(was.is_some(), mode == 0o755);
    if was.is_none() {
        let mode = "0755".to_string();
        layer
            .annotations
            .insert(annotations::FILE_MODE.into(), mode);
    }
}

/// A read of nothing, one of everything, and verifying it.
fn asked(model: &Model, path: &str) -> [Result<()>; 3] {
    let attr = model.find(path).unwrap();
    [
        model.read_at(attr.inode, attr.size, 1).map(drop),
        model.read_at(attr.inode, 0, 1 << 20).map(drop),
        model.verify(attr.inode).map(drop),
    ]
}

#[test]
fn l10_an_execute_bit_is_what_the_layers_header_says_or_an_error() {
    for (mode, (form, algorithm)) in [0o644, 0o755]
        .into_iter()
        .flat_map(|mode| FORMS.map(|form| (mode, form)))
    {
        let content: Vec<u8> = (0..9_000u32).map(|n| ((n * n) >> 5) as u8).collect();
        let sample = sample_with(mode, content.clone(), form, algorithm);
        let model = sample.layout.clone().open().unwrap();
        let shown = if mode == 0o755 { 0o555 } else { 0o444 };
        assert_eq!(model.find("w.bin").unwrap().mode, shown);
        assert!(asked(&model, "w.bin").iter().all(Result::is_ok));
        let lie = |layer: &mut Descriptor| state_the_opposite(mode, layer);
        for recompressed in [false, true] {
            let what = format!("{mode:o} {form:?} {algorithm:?} {recompressed}");
            let change = |manifest: &mut OciManifest| {
                lie(&mut manifest.layers[0]);
                if recompressed {
                    // Another table: the layer is read without.
                    let none = Digest::sha256(b"none").to_string();
                    let layer = &mut manifest.layers[0];
                    layer.annotations.insert(annotations::CHUNKS.into(), none);
                }
            };
            let layout = sample.layout.with_layer(sample.layer.clone(), change);
            let refused = |result: Result<()>| {
                let error = result.expect_err(&what);
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
                assert!(error.to_string().contains("executable"), "{what}: {error}");
            };
            match layout.open() {
                // The table was a blob of its own: it is gone before the model is opened. What states
                // nothing then has the bit of the header.
                Ok(model) if model.find("w.bin").unwrap().mode == shown => {
                    assert!(recompressed && form == Form::Plain && mode == 0o755);
                    assert!(asked(&model, "w.bin").iter().all(Result::is_ok));
                }
                Ok(model) => {
                    asked(&model, "w.bin").into_iter().for_each(refused);
                    let inode = model.find("w.bin").unwrap().inode;
                    assert!(!model.verified(inode), "{what}");
                }
                // And what states another is found then.
                Err(error) => {
                    assert!(recompressed && form == Form::Plain, "{error}");
                    refused(Err(error));
                }
            }
        }
        // Of two descriptors of one blob, each answers for itself.
        let layout = sample.layout.with_layer(sample.layer.clone(), |manifest| {
            let mut other = manifest.layers[0].clone();
            lie(&mut other);
            for key in [annotations::TITLE, annotations::MODELPACK_FILEPATH] {
                other.annotations.insert(key.into(), "z/w.bin".into());
            }
            manifest.layers.push(other);
        });
        let model = layout.open().unwrap();
        assert!(asked(&model, "w.bin").iter().all(Result::is_ok));
        assert!(asked(&model, "z/w.bin").iter().all(Result::is_err));
        assert!(asked(&model, "w.bin").iter().all(Result::is_ok));
    }
}

/// Nobody reads an empty file, so what is stated of it is compared when the model is opened.
#[test]
fn l10_a_packed_file_is_empty_and_of_its_mode_or_the_model_does_not_open() {
    for (mode, (form, algorithm)) in [0o644, 0o755]
        .into_iter()
        .flat_map(|mode| FORMS.map(|form| (mode, form)))
    {
        let what = format!("{mode:o} {form:?} {algorithm:?}");
        let sample = sample_with(mode, Vec::new(), form, algorithm);
        let stated = |manifest: &OciManifest| {
            let layer = &manifest.layers[0];
            layer.annotation(annotations::CHUNKS).is_some()
        };
        assert!(stated(&sample.manifest), "{what}");
        let model = sample.layout.clone().open().unwrap();
        assert!(asked(&model, "w.bin").iter().all(Result::is_ok), "{what}");
        let layout = sample.layout.with_layer(sample.layer.clone(), |manifest| {
            state_the_opposite(mode, &mut manifest.layers[0]);
        });
        let error = layout.open().err().expect(&what).to_string();
        assert!(error.contains("executable"), "{what}: {error}");

        let sample = sample_with(mode, b"something".to_vec(), form, algorithm);
        let layout = sample.layout.with_layer(sample.layer.clone(), |manifest| {
            let size = "0".to_string();
            let layer = &mut manifest.layers[0];
            layer
                .annotations
                .insert(annotations::FILE_SIZE.into(), size);
        });
        let error = layout.open().err().expect(&what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        assert!(error.to_string().contains("9 bytes"), "{what}: {error}");
    }
}

/// The layer of a sample without the tar around its file, and the table that belongs to it.
fn bare(sample: &Sample) -> (Vec<u8>, Vec<u8>) {
    let digest = |bytes: &[u8]| Digest::of(Algorithm::Sha256, bytes);
    let size = sample.content.len() as u64;
    let encoded = Encoded {
        kind: ChunkKind::Plain,
        sub_offsets: SubOffsets::default(),
    };
    let mut rows = TableBuilder::new();
    rows.push(0, 0, encoded, &digest(b""));
    rows.push(0, size as u32, encoded, &digest(&sample.content));
    rows.push(size, 0, encoded, &digest(b""));
    let table = rows.finish(&Header {
        algorithm: Algorithm::Sha256,
        framing: Framing::Plain,
        chunk_size: 512 << 10,
        file_size: size,
        file_offset: 0,
        tar_size: size,
        data_size: size,
        data_digest: digest(&sample.content),
    });
    (sample.content.clone(), table)
}

/// Who knows nothing of the table goes by the media type: both must lead to the same file. A layer of
/// type `raw` was served as the file inside of the gzip blob that others take for the file.
#[test]
fn l13_a_chunk_table_packs_its_layer_as_the_media_type_says() {
    const TYPES: [&str; 4] = ["v1.raw", "v1.tar", "v1.tar+gzip", "v1.tar+zstd"];
    let gzip = Form::Packed(Compression::Gzip(6));
    for (form, is_bare, right, at_opening) in [
        (gzip, false, "v1.tar+gzip", &["v1.raw"][..]),
        (ZSTD, false, "v1.tar+zstd", &["v1.raw"]),
        (Form::Plain, false, "v1.tar", &TYPES),
        (Form::Plain, true, "v1.raw", &TYPES),
    ] {
        let mut sample = sample(form, Algorithm::Blake3);
        if is_bare {
            let (layer, table) = bare(&sample);
            let table_digest = Digest::sha256(&table);
            sample.layout.blobs.insert(table_digest, table);
            sample.layout = sample.layout.with_layer(layer.clone(), |manifest| {
                let descriptor = &mut manifest.layers[0];
                descriptor.digest = Digest::sha256(&layer);
                descriptor.size = layer.len() as u64;
                let chunks = table_digest.to_string();
                descriptor
                    .annotations
                    .insert(annotations::CHUNKS.into(), chunks);
            });
            sample.layer = layer;
        }
        for media_type in TYPES {
            let what = format!("{form:?}, bare: {is_bare}, as {media_type}");
            let media_type = format!("application/vnd.cncf.model.weight.{media_type}");
            let layout = sample.layout.with_layer(sample.layer.clone(), |manifest| {
                manifest.layers[0].media_type = media_type.clone();
            });
            if media_type.ends_with(right) {
                assert!(read(layout.clone(), &sample.content, &what), "{what}");
                assert!(verifies(layout), "{what}");
                continue;
            }
            let refused = |error: Error| {
                let text = error.to_string();
                let layer = sample.layout.layer().to_string();
                for word in ["w.bin", "by its media type", &media_type, &layer] {
                    assert!(text.contains(word), "{what}: no {word} in {text}");
                }
            };
            match layout.open() {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Malformed, "{what}");
                    refused(error);
                }
                Ok(model) => {
                    let early = at_opening.iter().any(|early| media_type.ends_with(early));
                    assert!(!early, "{what}: was opened");
                    for asked in asked(&model, "w.bin") {
                        refused(asked.expect_err(&what));
                    }
                }
            }
        }
    }
}
