//! Whole archives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Component, Path};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use modeloci::model::{Attr, FileInfo, Inode, NodeKind, OpenOptions};
use modeloci::oci::{Descriptor, OciConfig, annotations};
use modeloci::pack::{Output, PackOptions, pack};
use modeloci::unpack::{UnpackOptions, unpack};
use modeloci::{Compression, Digest, ErrorKind, Model};

use super::super::Random;
use super::super::forge::{Header, Layout, Tar, gzip, noise};
use super::super::plain::Form;

/// When archives were written: the time of files of which they state none.
const UNSTATED: Duration = Duration::from_secs(1_234_567_890);

/// The attributes must be those of the honest archive; a time that it does not state is that of
/// whatever storage it lies in.
#[track_caller]
fn assert_attr(found: Option<Attr>, honest: &Attr, path: &str) {
    let mut expected = *honest;
    if let Some(found) = &found
        && expected.mtime == UNSTATED
    {
        expected.mtime = found.mtime;
    }
    assert_eq!(found, Some(expected), "{path}");
}

/// A file in memory with a path.
struct Memfd(File);

impl Memfd {
    fn new(bytes: &[u8]) -> Memfd {
        let fd =
            rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        let mut file = File::from(fd);
        file.write_all(bytes).expect("memory");
        let written = SystemTime::UNIX_EPOCH + UNSTATED;
        file.set_modified(written).expect("memory");
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
        check(Path::new(&file.path()), data);
    }

    /// The same for whatever stands at a path; `data` is what it was made of.
    pub(super) fn check(path: &Path, data: &[u8]) {
        let options = options();
        let opened = Model::open(path, &options);
        let honest = honest();
        for known in honest {
            // Under a pin there is that one model or none.
            let pinned = OpenOptions {
                pin: Some(known.digest),
                ..options.clone()
            };
            match (Model::open(path, &pinned), &opened) {
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

pub mod layout_dir {
    use super::*;

    /// The files of a tar, put into a directory, are what [`archive`] says of archives. Links lead to
    /// nothing that the layout does not hold itself.
    pub fn run(data: &[u8]) {
        let dir = scratch();
        if laid_out(data, dir.path()).is_some() {
            archive::check(dir.path(), data);
        }
        if is_honest(data) {
            let model = Model::open(dir.path(), &options()).expect("an honest layout");
            assert!(verifies(&model), "an honest layout does not verify");
        }
    }

    /// The honest archives, which are layouts in a tar.
    pub fn seeds() -> Vec<Vec<u8>> {
        archive::seeds()
    }

    /// Puts what a tar holds below a directory; `None` when there is nothing in it. Names stay below,
    /// links lead where they lead.
    fn laid_out(archive: &[u8], dir: &Path) -> Option<()> {
        use std::os::unix::fs::symlink;
        let mut some = None;
        for entry in tar::Archive::new(archive).entries().ok()?.take(200) {
            let Ok(entry) = entry else { break };
            let Ok(name) = entry.path().map(std::borrow::Cow::into_owned) else {
                continue;
            };
            if !name.components().all(|c| matches!(c, Component::Normal(_))) {
                continue;
            }
            let path = dir.join(&name);
            let _ = fs::create_dir_all(path.parent().unwrap_or(dir));
            let link = entry.link_name().ok().flatten().map(|l| l.into_owned());
            // What cannot be (a file below a file, a name that is too long) is left out.
            let made = match (entry.header().entry_type(), link) {
                (tar::EntryType::Directory, _) => fs::create_dir(&path).is_ok(),
                (tar::EntryType::Symlink, Some(to)) => symlink(to, &path).is_ok(),
                (tar::EntryType::Link, Some(to)) => {
                    let inside = to.components().all(|c| matches!(c, Component::Normal(_)));
                    inside && fs::hard_link(dir.join(to), &path).is_ok()
                }
                (tar::EntryType::Fifo, _) => {
                    let mode = rustix::fs::Mode::RUSR;
                    let fifo = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).is_ok()
                }
                _ => {
                    let mut bytes = Vec::new();
                    let read = entry.take(4 << 20).read_to_end(&mut bytes);
                    read.is_ok()
                        && fs::symlink_metadata(&path).is_err()
                        && fs::write(&path, bytes).is_ok()
                }
            };
            some = some.or(made.then_some(()));
        }
        some
    }
}

pub mod unpacked {
    use super::*;

    /// Unpacking writes nothing outside of its output. Where it ends well, the output has the files of
    /// the model, with their bytes and modes, and nothing else; where it does not, everything is as
    /// it was.
    pub fn run(data: &[u8]) {
        let file = Memfd::new(data);
        let Ok(model) = Model::open(file.path(), &options()) else {
            return;
        };
        let dir = scratch();
        let output = dir.path().join("out");
        let choice = Digest::sha256(data).as_bytes()[1];
        let before = Entry::File(0o644, b"stays".to_vec());
        fs::write(dir.path().join("beside"), b"stays").expect("a file");
        // Where there is nothing, an empty directory, or an old tree that is replaced.
        let old = match choice % 3 {
            0 => None,
            1 => Some(BTreeMap::new()),
            _ => Some(BTreeMap::from([("old".to_string(), before.clone())])),
        };
        if let Some(old) = &old {
            fs::create_dir(&output).expect("a directory");
            for name in old.keys() {
                fs::write(output.join(name), b"stays").expect("a file");
            }
        }
        let options = UnpackOptions {
            force: choice % 3 == 2,
            jobs: 1,
            ..UnpackOptions::default()
        };
        let done = unpack(&model, &output, &options, &|_, _| ());
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort_unstable();
        let found = fs::symlink_metadata(&output).is_ok().then(|| {
            let mut found = BTreeMap::new();
            collect(&output, "", &mut found);
            found
        });
        match &done {
            Ok(_) => {
                let mut expected = BTreeMap::new();
                for file in model.files() {
                    let attr = model.find(file.path.as_str()).expect("a file");
                    let bytes = model.read_at(attr.inode, 0, attr.size as usize);
                    let bytes = bytes.expect("what was restored").to_vec();
                    let mode = if attr.mode & 0o111 != 0 { 0o755 } else { 0o644 };
                    let path = file.path.as_str().to_string();
                    expected.insert(path, Entry::File(mode, bytes));
                    for (end, _) in file.path.as_str().match_indices('/') {
                        let above = file.path.as_str()[..end].to_string();
                        expected.insert(above, Entry::Directory);
                    }
                }
                assert!(found.as_ref() == Some(&expected), "another tree");
                let honest = honest();
                let known = honest
                    .iter()
                    .find(|known| known.digest == *model.manifest_digest());
                for (path, _, bytes) in known.iter().flat_map(|known| &known.files) {
                    match expected.get(path) {
                        Some(Entry::File(_, restored)) => assert!(restored == bytes, "{path}"),
                        _ => panic!("{path} is missing"),
                    }
                }
            }
            Err(error) => {
                assert!(!is_honest(data), "an honest archive: {error}");
                let known = [ErrorKind::Malformed, ErrorKind::Corrupt, ErrorKind::Refused];
                // A name that is too long for any file system.
                let known = known.contains(&error.kind()) || error.to_string().contains("too long");
                assert!(known, "{:?}: {error}", error.kind());
                assert!(found == old, "the output is not as it was: {error}");
            }
        }
        let expected: &[&str] = match found.is_some() {
            true => &["beside", "out"],
            false => &["beside"],
        };
        assert!(names == expected, "left behind: {names:?}");
        let beside = fs::read(dir.path().join("beside")).expect("what was beside");
        assert!(beside == b"stays", "what was beside has changed");
    }

    /// The honest archives.
    pub fn seeds() -> Vec<Vec<u8>> {
        archive::seeds()
    }

    /// What stands at a path.
    #[derive(Debug, Clone, PartialEq)]
    enum Entry {
        Directory,
        File(u32, Vec<u8>),
        Other,
    }

    fn collect(dir: &Path, below: &str, found: &mut BTreeMap<String, Entry>) {
        use std::os::unix::fs::PermissionsExt as _;
        for entry in fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name");
            let path = match below {
                "" => name,
                _ => format!("{below}/{name}"),
            };
            let kind = entry.file_type().expect("a type");
            let here = if kind.is_dir() {
                collect(&entry.path(), &path, found);
                Entry::Directory
            } else if kind.is_file() {
                let mode = entry.metadata().expect("a mode").permissions().mode();
                let bytes = fs::read(entry.path()).expect("a file");
                Entry::File(mode & 0o777, bytes)
            } else {
                Entry::Other
            };
            found.insert(path, here);
        }
    }
}

fn is_honest(archive: &[u8]) -> bool {
    honest().iter().any(|known| known.archive == archive)
}

fn verifies(model: &Model) -> bool {
    model.files().all(|file| model.verify(file.inode).is_ok())
}

fn options() -> OpenOptions {
    OpenOptions {
        cache_bytes: 1 << 20,
        readahead: false,
        ..OpenOptions::default()
    }
}

/// A directory of its own, in memory where there is a file system for that.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory")
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
            (file.inode, file.shown_size, NodeKind::File)
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
    let size = file.shown_size;
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
            assert_eq!(file.shown_size, bytes.len() as u64);
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
                assert_attr(model.find(path), attr, path);
            }
            match model.verify(file.inode) {
                Ok(digest) => {
                    assert_eq!(digest, Digest::sha256(bytes), "{path}");
                    assert_attr(model.find(path), attr, path);
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
        let forms = [
            Form::Packed(Compression::Auto),
            Form::Packed(Compression::Gzip(6)),
            Form::Packed(Compression::Zstd(1)),
            Form::Packed(Compression::None),
            Form::Plain,
        ];
        let mut all: Vec<Honest> = forms
            .map(|form| Honest::of(packed(&files, form), &files))
            .into();
        // A link has the bytes and the attributes of what it leads to.
        let linked = [&[("alias", noise(5, 70_000))], &files[..]].concat();
        all.push(Honest::of(foreign(&linked), &linked));
        all
    })
}

fn packed(files: &[(&str, Vec<u8>)], form: Form) -> Vec<u8> {
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
        compression: form.compression(),
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
    form.finish(&output);
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

/// The layers of one file in every form with a chunk table: descriptor, blob, and the table where that
/// is a blob of its own.
pub(super) fn packed_layers(name: &str) -> Vec<(Descriptor, Vec<u8>, Option<Vec<u8>>)> {
    let mut content = b"a model's weights: ".repeat(4_000);
    content.extend(noise(3, 60_000));
    content.extend(noise(4, 70_000).iter().map(|b| b & 0x3c));
    let forms = [
        Form::Packed(Compression::Auto),
        Form::Packed(Compression::Gzip(1)),
        Form::Packed(Compression::Zstd(1)),
        Form::Packed(Compression::None),
        Form::Plain,
    ];
    let layer = |form| {
        let archive = packed(&[(name, content.clone())], form);
        let file = Memfd::new(&archive);
        let source = modeloci::source::open(file.path().as_ref()).expect("an archive");
        let model = Model::open(file.path(), &OpenOptions::default()).expect("an archive");
        let documents = model.documents().expect("an archive");
        let descriptor = documents.manifest.layers[0].clone();
        let bytes = |digest: &Digest| {
            let blob = source.blob(digest, None).expect("a blob").expect("a blob");
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
    forms.map(layer).into()
}
