//! What is written, as other readers see it.

use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use flate2::read::{GzDecoder, MultiGzDecoder};

use super::*;
use crate::Model;
use crate::codec::ChunkKind;
use crate::layer::table::{ChunkTable, Framing};
use crate::layer::wrap::unwrap;
use crate::model::OpenOptions;

const C: usize = limits::MIN_CHUNK_BYTES as usize;

/// Sizes around chunk boundaries, text, noise, names of all kinds.
fn many_files() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = [0, 1, 511, 512, 513, C - 1, C, C + 1, 5 * C + 7]
        .into_iter()
        .map(|size| (format!("sizes/{size}"), noise(size as u64, size)))
        .collect();
    files.push(("config.json".into(), br#"{"a": 1}"#.repeat(20_000)));
    files.push(("zeros".into(), vec![0; 3 * C]));
    files.push((
        format!("{}/{}", "d".repeat(120), "n".repeat(200)),
        b"long".to_vec(),
    ));
    files.push(("ünï 코드/back\\slash".into(), b"unicode".to_vec()));
    files
}

fn packed_with(compression: Compression) -> (tempfile::TempDir, Written) {
    let files = many_files();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (&p[..], &b[..])).collect();
    let dir = scratch(&files);
    let options = PackOptions {
        compression,
        ..options()
    };
    let packed = pack_in(dir.path(), &options).unwrap();
    let archive = dir.path().join("out.tar");
    assert_eq!(packed.archive_bytes, fs::metadata(&archive).unwrap().len());
    assert_eq!(packed.files, files.len() as u64);
    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(packed.file_bytes, bytes as u64);
    let written = Written::read(&archive);
    assert_eq!(
        packed.manifest_digest,
        Digest::sha256(&written.entries["manifest.json"])
    );
    let mut titles: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    titles.sort_unstable();
    assert_eq!(written.titles(), titles);
    (dir, written)
}

fn read_all(mut reader: impl Read) -> Vec<u8> {
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    out
}

/// The one file of a layer's tar.
fn only_file(tar: &[u8], layer: &Value) -> Vec<u8> {
    let mut list = entries(tar);
    let (path, content) = list.pop().unwrap();
    assert!(list.is_empty());
    assert_eq!(layer["annotations"]["org.opencontainers.image.title"], path);
    content
}

/// What every layer's annotations and chunk table must say about its file.
fn check_layer(written: &Written, layer: &Value, content: &[u8], framing: Framing) -> ChunkTable {
    let annotations = &layer["annotations"];
    assert_eq!(
        annotations["io.modeloci.file.digest"],
        Digest::sha256(content).to_string()
    );
    assert_eq!(
        annotations["io.modeloci.file.size"],
        content.len().to_string()
    );
    let blob = written.blob(layer);
    let range = annotations["io.modeloci.chunks.range"].as_str().unwrap();
    let (offset, length) = range.split_once('+').unwrap();
    let (offset, length): (usize, usize) = (offset.parse().unwrap(), length.parse().unwrap());
    let table = unwrap(framing, &blob[offset..offset + length]).unwrap();
    assert_eq!(
        annotations["io.modeloci.chunks"],
        Digest::sha256(&table).to_string()
    );
    let table = ChunkTable::parse(table.into(), blob.len() as u64, "test").unwrap();
    let header = table.header();
    assert_eq!(header.framing, framing);
    assert_eq!(header.file_size, content.len() as u64);
    assert_eq!(
        Digest::sha256(&blob[..header.data_size as usize]),
        header.data_digest
    );
    for number in 0..table.segments() {
        let row = table.row(number).unwrap();
        let start = row.offset as usize;
        let segment = &blob[start..start + row.length as usize];
        assert_eq!(Digest::of(header.algorithm, segment), row.digest);
        // Each segment decodes alone.
        let decoded = match framing {
            Framing::Gzip => {
                let stream = [segment, &[3, 0]].concat();
                read_all(flate2::read::DeflateDecoder::new(&stream[..]))
            }
            Framing::Zstd => zstd::decode_all(segment).unwrap(),
            Framing::Plain => panic!("is only read"),
        };
        assert_eq!(decoded.len() as u64, table.decoded_len(number));
        if number > 0 && number + 1 < table.segments() {
            let start = (number as usize - 1) * C;
            assert_eq!(decoded, &content[start..start + decoded.len()]);
        }
    }
    table
}

fn content_of(dir: &tempfile::TempDir, layer: &Value) -> Vec<u8> {
    let title = layer["annotations"]["org.opencontainers.image.title"]
        .as_str()
        .unwrap();
    fs::read(model_of(dir).join(title)).unwrap()
}

#[test]
fn gzip_layers_are_one_member_and_empty_ones() {
    for compression in [Compression::Auto, Compression::Gzip(6), Compression::None] {
        let (dir, written) = packed_with(compression);
        for layer in written.layers() {
            assert_eq!(
                layer["mediaType"],
                "application/vnd.oci.image.layer.v1.tar+gzip"
            );
            let content = content_of(&dir, layer);
            let blob = written.blob(layer);
            let first = read_all(GzDecoder::new(blob));
            assert_eq!(first, read_all(MultiGzDecoder::new(blob)));
            assert_eq!(only_file(&first, layer), content);
            check_layer(&written, layer, &content, Framing::Gzip);
        }
    }
}

#[test]
fn zstd_layers_are_frames() {
    let (dir, written) = packed_with(Compression::Zstd(3));
    for layer in written.layers() {
        assert_eq!(
            layer["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+zstd"
        );
        let content = content_of(&dir, layer);
        let tar = zstd::decode_all(written.blob(layer)).unwrap();
        assert_eq!(only_file(&tar, layer), content);
        check_layer(&written, layer, &content, Framing::Zstd);
    }
}

/// What is asked not to be compressed is stored, in a layer like any other.
#[test]
fn layers_without_compression_are_stored_in_gzip() {
    let (dir, written) = packed_with(Compression::None);
    for layer in written.layers() {
        assert_eq!(
            layer["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        let content = content_of(&dir, layer);
        let table = check_layer(&written, layer, &content, Framing::Gzip);
        let (mut tar, mut segments) = (0, 0);
        for number in 0..table.segments() {
            let row = table.row(number).unwrap();
            assert_eq!(row.kind, ChunkKind::Stored, "row {number}");
            let decoded = table.decoded_len(number);
            // The headers of stored blocks, and nothing else.
            assert_eq!(
                u64::from(row.length),
                decoded + 5 * decoded.div_ceil(65_531)
            );
            tar += decoded;
            segments += u64::from(row.length);
        }
        let header = table.header();
        assert_eq!((header.tar_size, header.data_size), (tar, segments + 20));
    }
}

#[test]
fn the_archive_is_laid_out_as_designed() {
    let dir = scratch(&[("b", b"2"), ("a/x", b"1"), ("a.txt", b"0")]);
    fs::set_permissions(model_of(&dir).join("b"), fs::Permissions::from_mode(0o700)).unwrap();
    let packed = pack_in(dir.path(), &options()).unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    assert_eq!(written.titles(), ["a.txt", "a/x", "b"]);
    let mut order: Vec<String> = packed.layers.iter().map(|l| l.digest.blob_path()).collect();
    order.push(Digest::sha256(&written.entries["config.json"]).blob_path());
    order.push(packed.manifest_digest.blob_path());
    order.extend(["oci-layout", "index.json", "config.json", "manifest.json"].map(String::from));
    assert_eq!(written.order, order);
    assert_eq!(
        String::from_utf8_lossy(&written.entries["config.json"]),
        r#"{"model_name":"tiny","version":"1.0.0","framework":"pytorch","architecture":"transformer","metadata":{}}"#
    );
    assert_eq!(
        written.manifest["artifactType"],
        "application/vnd.modeloci.model.v1+json"
    );
    let index: Value = serde_json::from_slice(&written.entries["index.json"]).unwrap();
    assert_eq!(
        index["manifests"][0]["annotations"],
        json!({"org.opencontainers.image.ref.name": "1.0.0"})
    );
    let modes: Vec<&Value> = written
        .layers()
        .iter()
        .map(|l| &l["annotations"]["io.modeloci.file.mode"])
        .collect();
    assert_eq!(modes, [&Value::Null, &Value::Null, &json!("0755")]);
    let mode = |layer: &Value| {
        let tar = read_all(GzDecoder::new(written.blob(layer)));
        let mut archive = ::tar::Archive::new(&tar[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        entry.header().mode().unwrap()
    };
    let modes: Vec<u32> = written.layers().iter().map(mode).collect();
    assert_eq!(modes, [0o644, 0o644, 0o755]);
    // As any program would have created it.
    let file = fs::File::create(dir.path().join("other")).unwrap();
    let mode = |metadata: fs::Metadata| metadata.permissions().mode();
    assert_eq!(
        mode(fs::metadata(dir.path().join("out.tar")).unwrap()),
        mode(file.metadata().unwrap())
    );
}

#[test]
fn sha256_chunk_digests() {
    let dir = scratch(&[("a", &noise(1, 3 * C))]);
    let options = PackOptions {
        chunk_digest: Algorithm::Sha256,
        ..options()
    };
    pack_in(dir.path(), &options).unwrap();
    let written = Written::read(&dir.path().join("out.tar"));
    check_layer(
        &written,
        &written.layers()[0],
        &noise(1, 3 * C),
        Framing::Gzip,
    );
}

#[test]
fn a_stream_gets_the_same_bytes() {
    let dir = scratch(&[("a", &noise(1, 3 * C)), ("b", b""), ("c", b"text")]);
    pack_in(dir.path(), &options()).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let model = model_of(&dir);
    let thread = std::thread::spawn(move || {
        let walk::Input::Directory(root) = walk::open(&model).unwrap() else {
            panic!("a file")
        };
        let reach = walk::Reach::of(root, &model, false).unwrap();
        let tree = walk::walk(
            reach,
            &model,
            &Skip::default(),
            &mut Selection::new(&options()).unwrap(),
        )
        .unwrap();
        let archive = Archive::to_stream(Box::new(writer), Path::new("pipe"), 0).unwrap();
        let settings = Settings::new(&options()).unwrap();
        super::super::run::write(tree, about(), archive, &settings, &|_, _| {}).unwrap()
    });
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(thread.join().unwrap().archive_bytes, bytes.len() as u64);
    assert_eq!(bytes, fs::read(dir.path().join("out.tar")).unwrap());
}

#[test]
fn equal_blobs_are_kept_once() {
    for stream in [false, true] {
        let file = tempfile::tempfile().unwrap();
        let copy = file.try_clone().unwrap();
        let name = Path::new("out");
        let mut archive = if stream {
            Archive::to_stream(Box::new(copy), name, 0).unwrap()
        } else {
            Archive::in_file(copy, name, 0)
        };
        for content in [&b"one"[..], &[7; 700_000], b"one", &[7; 700_000], b"two"] {
            archive.begin_blob().unwrap();
            archive.write(content).unwrap();
            archive.end_blob(&Digest::sha256(content)).unwrap();
        }
        archive.blob("x", b"two").unwrap();
        let length = archive.finish().unwrap();
        let mut bytes = vec![0; length as usize];
        assert_eq!(file.metadata().unwrap().len(), length);
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        let contents: Vec<Vec<u8>> = entries(&bytes).into_iter().map(|(_, c)| c).collect();
        assert_eq!(contents, [&b"one"[..], &[7; 700_000], b"two"]);
    }
}

/// Python's tarfile, seeking and streaming, sees the one file and nothing else.
#[test]
fn python_reads_every_layer() {
    const SCRIPT: &str = "
import hashlib, io, json, sys, tarfile
outer = tarfile.open(sys.argv[1], 'r:')
manifest = json.load(outer.extractfile('manifest.json'))
for layer in manifest['layers']:
    blob = outer.extractfile('blobs/' + layer['digest'].replace(':', '/')).read()
    notes = layer['annotations']
    for mode in ('r:gz', 'r|gz'):
        count = 0
        with tarfile.open(fileobj=io.BytesIO(blob), mode=mode) as inner:
            for member in inner:
                count += 1
                assert member.name == notes['org.opencontainers.image.title'], member.name
                data = inner.extractfile(member).read()
                digest = 'sha256:' + hashlib.sha256(data).hexdigest()
                assert digest == notes['io.modeloci.file.digest'], member.name
        assert count == 1, count
print(len(manifest['layers']))
";
    let (dir, written) = packed_with(Compression::Auto);
    let mut python = Command::new("python3")
        .args(["-", "out.tar"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(SCRIPT.as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        written.layers().len().to_string()
    );
}

/// What was packed is what a model gives back.
#[test]
fn the_model_reads_back_every_byte() {
    for compression in [
        Compression::Auto,
        Compression::Gzip(6),
        Compression::Zstd(3),
        Compression::None,
    ] {
        let (dir, written) = packed_with(compression);
        let archive = dir.path().join("out.tar");
        let model = crate::Model::open(&archive, &Default::default()).unwrap();
        assert_eq!(model.files().len(), written.layers().len());
        for file in model.files() {
            let content = fs::read(model_of(&dir).join(file.path.as_str())).unwrap();
            let bytes = model.read_at(file.inode, 0, content.len() + 1).unwrap();
            assert!(bytes == content, "{compression:?}: {}", file.path);
            let digest = model.verify(file.inode).unwrap();
            assert_eq!(digest, Digest::sha256(&content));
        }
    }
}

/// r9: what is kept of a layer is counted, and can be read again.
#[test]
fn r9_a_chunk_table_that_was_forgotten_is_read_and_checked_again() {
    let content = noise(3, 700_000);
    let dir = scratch(&[("one.bin", &content), ("two.bin", &content[..300_000])]);
    for compression in [Compression::Auto, Compression::Zstd(1)] {
        let options = PackOptions {
            compression,
            force: true,
            ..options()
        };
        pack_in(dir.path(), &options).unwrap();
        let archive = dir.path().join("out.tar");
        let open = OpenOptions {
            readahead: false,
            ..OpenOptions::default()
        };
        let model = Model::open(&archive, &open).unwrap();
        let files: Vec<_> = model
            .files()
            .map(|file| (file.inode, file.shown_size))
            .collect();
        for _ in 0..3 {
            for (inode, size) in &files {
                let read = model.read_at(*inode, 0, *size as usize).unwrap();
                assert!(read == content[..*size as usize]);
            }
            assert_eq!(
                model.forget(),
                0,
                "nothing is kept that is not counted, or in use"
            );
        }
        // A table that has changed since is not believed.
        let bytes = fs::read(&archive).unwrap();
        let file = model.files().next().unwrap();
        let place = file.parts.first().stated.chunks.unwrap().place;
        let crate::oci::stated::TablePlace::Members(offset, _) = place else {
            panic!("{place:?}");
        };
        let hex = file.parts.digests();
        let name = format!("blobs/sha256/{}", hex.split_once(':').unwrap().1);
        let header = bytes.windows(name.len()).position(|w| w == name.as_bytes());
        let at = header.unwrap() + 512 + offset as usize + 40;
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&archive, &changed).unwrap();
        let error = model.read_at(files[0].0, 0, 1000).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
        fs::write(&archive, &bytes).unwrap();
    }
}
