//! Whole archives.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;

use modeloci::model::{Attr, FileInfo, Inode, NodeKind, OpenOptions};
use modeloci::oci::{Descriptor, OciConfig, annotations};
use modeloci::pack::{Output, PackOptions, pack};
use modeloci::{Compression, Digest, ErrorKind, Model};

use super::super::Random;
use super::super::forge::{Header, Layout, Tar, gzip, noise};

/// A file in memory with a path.
struct Memfd(File);

impl Memfd {
    fn new(bytes: &[u8]) -> Memfd {
        let fd =
            rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        let mut file = File::from(fd);
        file.write_all(bytes).expect("memory");
        Memfd(file)
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

pub mod archive {
    use super::*;

    /// An archive whose manifest has the digest of an honest one has the honest files: whoever gets
    /// a byte or the end of a file has exact bytes, and the attributes were exact. Any other archive
    /// agrees with itself.
    pub fn run(data: &[u8]) {
        let file = Memfd::new(data);
        let options = OpenOptions {
            cache_bytes: 1 << 20,
            readahead: false,
            ..OpenOptions::default()
        };
        let opened = Model::open(file.path(), &options);
        let honest = honest();
        for known in honest {
            // Under a pin there is that one model or none.
            let pinned = OpenOptions {
                pin: Some(known.digest),
                ..options.clone()
            };
            match (Model::open(file.path(), &pinned), &opened) {
                (Ok(pinned), _) => assert_eq!(*pinned.manifest_digest(), known.digest),
                (Err(error), Ok(model)) => {
                    assert!(
                        *model.manifest_digest() != known.digest,
                        "refused with its pin: {error}"
                    );
                }
                (Err(error), Err(_)) => assert_refusal(&error),
            }
        }
        let model = match opened {
            Ok(model) => model,
            Err(error) => return assert_refusal(&error),
        };
        walk(&model);
        let seed = Digest::sha256(data).as_bytes()[0];
        let mut random = Random::new(u64::from(seed), data.len() as u64);
        match honest
            .iter()
            .find(|honest| honest.digest == *model.manifest_digest())
        {
            Some(honest) => honest.check(&model, &mut random),
            None => model
                .files()
                .for_each(|file| agrees(&model, file, &mut random)),
        }
    }

    /// The honest archives.
    pub fn seeds() -> Vec<Vec<u8>> {
        honest()
            .iter()
            .map(|honest| honest.archive.clone())
            .collect()
    }
}

fn assert_refusal(error: &modeloci::Error) {
    let kind = error.kind();
    let expected = [
        ErrorKind::Malformed,
        ErrorKind::Corrupt,
        ErrorKind::PinMismatch,
    ];
    assert!(expected.contains(&kind), "{kind:?}: {error}");
}

/// Every file is found by its path, once, by listing directories.
fn walk(model: &Model) {
    let (mut directories, mut files) = (vec![Inode::ROOT], 0);
    while let Some(directory) = directories.pop() {
        assert_eq!(
            model.attr(directory).expect("a directory").kind,
            NodeKind::Directory
        );
        for entry in model.readdir(directory, 0).expect("a directory").skip(2) {
            let found = model
                .lookup(directory, entry.name.as_ref())
                .expect("a name");
            assert_eq!((found.inode, found.kind), (entry.inode, entry.kind));
            match entry.kind {
                NodeKind::Directory => directories.push(entry.inode),
                NodeKind::File => files += 1,
            }
        }
    }
    assert_eq!(files, model.files().len());
    for file in model.files() {
        let attr = model.find(file.path.as_str()).expect("a file");
        assert_eq!(
            (attr.inode, attr.size, attr.kind),
            (file.inode, file.size, NodeKind::File)
        );
        assert!([0o444, 0o555].contains(&attr.mode) && attr.links == 1);
    }
}

/// Reads pieces at random, then all from the start; every outcome goes to `check`.
fn read(
    model: &Model,
    inode: Inode,
    random: &mut Random,
    mut check: impl FnMut(u64, usize, modeloci::Result<bytes::Bytes>),
) {
    let size = model.attr(inode).expect("a file").size;
    for _ in 0..4 {
        let offset = random.next() % (size.saturating_add(size / 8).saturating_add(2));
        let len = random.length(18);
        check(offset, len, model.read_at(inode, offset, len));
    }
    let mut at = 0;
    loop {
        let piece = model.read_at(inode, at, 50_000);
        let len = piece.as_ref().map_or(0, |piece| piece.len());
        check(at, 50_000, piece);
        at += len as u64;
        if len == 0 || at > 16 << 20 {
            break;
        }
    }
}

/// An archive that nobody has vouched for.
fn agrees(model: &Model, file: &FileInfo, random: &mut Random) {
    let mut pieces = Vec::new();
    let mut failed = false;
    read(
        model,
        file.inode,
        random,
        |offset, len, piece| match piece {
            Ok(piece) => pieces.push((offset, len, piece.to_vec())),
            Err(error) => {
                assert_refusal(&error);
                failed = true;
            }
        },
    );
    let size = file.size;
    for (offset, len, piece) in &pieces {
        let expected = size.saturating_sub(*offset).min(*len as u64);
        assert_eq!(
            piece.len() as u64,
            expected,
            "a read of {len} at {offset} of {size}"
        );
    }
    match model.verify(file.inode) {
        Err(error) => assert_refusal(&error),
        Ok(digest) if size <= 16 << 20 => {
            assert!(!failed, "a read of a sound file failed");
            let whole: Vec<u8> = pieces
                .iter()
                .skip(4)
                .flat_map(|(.., piece)| piece.clone())
                .collect();
            assert_eq!(digest, Digest::sha256(&whole));
            for (offset, _, piece) in &pieces {
                let start = (*offset).min(size) as usize;
                assert!(whole[start..].starts_with(piece), "two reads differ");
            }
        }
        Ok(_) => {}
    }
}

/// An archive that is what it says, and what is in it.
struct Honest {
    archive: Vec<u8>,
    digest: Digest,
    config: Option<OciConfig>,
    /// Sorted by path.
    files: Vec<(String, Attr, Vec<u8>)>,
}

impl Honest {
    /// Opens an archive; `contents` are the bytes of its files.
    fn of(archive: Vec<u8>, contents: &[(&str, Vec<u8>)]) -> Honest {
        let file = Memfd::new(&archive);
        let model = Model::open(file.path(), &OpenOptions::default()).expect("an honest archive");
        let files = model.files().map(|file| {
            let path = file.path.as_str();
            let (_, bytes) = contents
                .iter()
                .find(|(name, _)| *name == path)
                .expect("its bytes");
            assert_eq!(file.size, bytes.len() as u64);
            (
                path.to_string(),
                model.find(path).expect("a file"),
                bytes.clone(),
            )
        });
        let files: Vec<_> = files.collect();
        assert_eq!(files.len(), contents.len());
        Honest {
            digest: *model.manifest_digest(),
            config: model.config().cloned(),
            files,
            archive,
        }
    }

    fn check(&self, model: &Model, random: &mut Random) {
        assert!(model.config() == self.config.as_ref(), "another config");
        assert_eq!(model.files().len(), self.files.len(), "number of files");
        for (file, (path, attr, bytes)) in model.files().zip(&self.files) {
            assert_eq!(file.path.as_str(), path);
            let mut served = false;
            read(
                model,
                file.inode,
                random,
                |offset, len, piece| match piece {
                    Ok(piece) => {
                        served |= len > 0;
                        let start = usize::try_from(offset)
                            .unwrap_or(usize::MAX)
                            .min(bytes.len());
                        let end = start.saturating_add(len).min(bytes.len());
                        assert!(
                            piece == bytes[start..end],
                            "{path}: {len} bytes at {offset}"
                        );
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{path}: {error}"),
                },
            );
            if served {
                assert_eq!(model.find(path).as_ref(), Some(attr), "{path}");
            }
            match model.verify(file.inode) {
                Ok(digest) => {
                    assert_eq!(digest, Digest::sha256(bytes), "{path}");
                    assert_eq!(model.find(path).as_ref(), Some(attr), "{path}");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{path}: {error}"),
            }
        }
    }
}

/// Archives of our own and of others, of every packaging.
fn honest() -> &'static [Honest] {
    static HONEST: OnceLock<Vec<Honest>> = OnceLock::new();
    HONEST.get_or_init(|| {
        let files = vec![
            ("config.json", b"{\"layers\": 2}".to_vec()),
            ("empty", Vec::new()),
            ("sub/run.sh", b"#!/bin/sh\n".to_vec()),
            ("sub/text", b"some text, ".repeat(7_000)),
            ("w.bin", noise(5, 70_000)),
        ];
        let methods = [
            Compression::Auto,
            Compression::Gzip(6),
            Compression::Zstd(1),
            Compression::None,
        ];
        let mut all: Vec<Honest> = methods
            .map(|method| Honest::of(packed(&files, method), &files))
            .into();
        // A link has the bytes and the attributes of what it leads to.
        let linked = [&[("alias", noise(5, 70_000))], &files[..]].concat();
        all.push(Honest::of(foreign(&linked), &linked));
        all
    })
}

fn packed(files: &[(&str, Vec<u8>)], compression: Compression) -> Vec<u8> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    for (path, bytes) in files {
        let target = dir.path().join("model").join(path);
        fs::create_dir_all(target.parent().expect("a parent")).expect("a directory");
        fs::write(&target, bytes).expect("a file");
        let mode = if path.ends_with(".sh") { 0o755 } else { 0o644 };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let options = PackOptions {
        compression,
        chunk_size: 64 << 10,
        jobs: 1,
        ..PackOptions::default()
    };
    let config = OciConfig::new("m", "1", "onnx", "mlp", Default::default()).expect("a config");
    let output = dir.path().join("m.tar");
    let done = pack(
        &dir.path().join("model"),
        &config,
        &Output::File(output.clone()),
        &options,
        &|_, _| (),
    );
    done.expect("packed");
    fs::read(output).expect("an archive")
}

/// An archive as other tools write it: a packaging for each file.
fn foreign(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let tar = |path: &str, bytes: &[u8]| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let mode: &[u8] = if path.ends_with(".sh") {
            b"0000755\0"
        } else {
            b"0000600\0"
        };
        let header = Header::file(name, bytes.len() as u64)
            .put(100, mode)
            .put(136, b"00000001234\0");
        Tar::new().entry(header, bytes).end()
    };
    let layers = files.iter().map(|(path, bytes)| {
        let layer = match *path {
            "config.json" => tar(path, bytes),
            "w.bin" => bytes.clone(),
            "alias" => {
                let header = Header::file(*path, 0).kind(b'2').link("w.bin");
                gzip(&Tar::new().entry(header, b"").end())
            }
            "sub/run.sh" => zstd::encode_all(&tar(path, bytes)[..], 1).expect("zstd"),
            _ => gzip(&tar(path, bytes)),
        };
        (*path, layer)
    });
    Layout::of_layers(layers).to_bytes()
}

/// The layers that `pack` makes of one file, in every packaging: descriptor, blob, and its table
/// where that is a blob of its own.
pub(super) fn packed_layers(name: &str) -> Vec<(Descriptor, Vec<u8>, Option<Vec<u8>>)> {
    let mut content = b"a model's weights: ".repeat(4_000);
    content.extend(noise(3, 60_000));
    content.extend(noise(4, 70_000).iter().map(|b| b & 0x3c));
    let methods = [
        Compression::Auto,
        Compression::Gzip(1),
        Compression::Zstd(1),
        Compression::None,
    ];
    let layer = |method| {
        let archive = packed(&[(name, content.clone())], method);
        let file = Memfd::new(&archive);
        let source = modeloci::source::open(file.path().as_ref()).expect("an archive");
        let model = Model::open(file.path(), &OpenOptions::default()).expect("an archive");
        let documents = model.documents().expect("an archive");
        let descriptor = documents.manifest.layers[0].clone();
        let bytes = |digest: &Digest| {
            let blob = source.blob(digest).expect("a blob").expect("a blob");
            let mut bytes = vec![0; blob.len() as usize];
            blob.read_exact_at(&mut bytes, 0).expect("bytes");
            bytes
        };
        let table = match descriptor.annotation(annotations::CHUNKS_RANGE) {
            Some(_) => None,
            None => descriptor
                .annotation(annotations::CHUNKS)
                .map(|digest| bytes(&digest.parse().expect("a digest"))),
        };
        (descriptor.clone(), bytes(&descriptor.digest), table)
    };
    methods.map(layer).into()
}
