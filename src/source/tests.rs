#![allow(clippy::unwrap_used)]

use std::fs;
use std::thread;

use modeloci_test_support::registry::Registry;
use rustix::fs::Mode;

use std::io::IoSliceMut;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::tar::write::{END_OF_ARCHIVE, file_header, padding};

/// What every source in the conformance suite holds.
struct Content {
    blobs: Vec<(Digest, Vec<u8>)>,
    documents: Vec<(&'static str, Vec<u8>)>,
}

fn content() -> Content {
    let data = [
        b"".to_vec(),
        b"one".to_vec(),
        (0..=255).cycle().take(70_000).collect(),
    ];
    let digest = |data: &[u8]| match data.len() {
        3 => Digest::of(Algorithm::Sha512, data),
        _ => Digest::sha256(data),
    };
    Content {
        blobs: data.into_iter().map(|data| (digest(&data), data)).collect(),
        documents: vec![
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json", b"{}".to_vec()),
            ("manifest.json", vec![b' '; 5000]),
        ],
    }
}

fn read_into(blob: &dyn ReadAt, bufs: &mut [Vec<u8>], offset: u64) -> Result<()> {
    let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
    blob.read_exact_vectored_at(&mut slices, offset)
}

/// The contract of [`BlobSource`] and [`ReadAt`], of a layout.
fn conformance(source: &Arc<dyn BlobSource>) {
    blobs_conform(source);
    documents_conform(source);
}

fn blobs_conform(source: &Arc<dyn BlobSource>) {
    let blobs = content().blobs;
    assert!(!source.name().is_empty());

    for (digest, data) in &blobs {
        let blob = source.blob(digest, None).unwrap().unwrap();
        let len = data.len();
        assert_eq!((blob.len(), blob.is_empty()), (len as u64, len == 0));
        let ranges = [
            (0, len),
            (len, 0),
            (0, 0),
            (len / 3, len / 2),
            (len.saturating_sub(1), len.min(1)),
        ];
        for (offset, n) in ranges {
            let mut buf = vec![0xaa; n];
            blob.read_exact_at(&mut buf, offset as u64).unwrap();
            assert_eq!(buf, data[offset..offset + n]);
            let mut bufs = [n / 3, 0, n - n / 3].map(|n| vec![0xaa; n]);
            read_into(&*blob, &mut bufs, offset as u64).unwrap();
            assert_eq!(bufs.concat(), data[offset..offset + n]);
        }
        // Never bytes beyond the blob, even where the storage has some.
        for offset in [len as u64, len as u64 + 1, u64::MAX] {
            let error = blob.read_exact_at(&mut [0], offset).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let error = read_into(&*blob, &mut [vec![], vec![0]], offset).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        let error = blob.read_exact_at(&mut vec![0; len + 1], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let error = read_into(&*blob, &mut [vec![0; len], vec![0]], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    assert!(
        source
            .blob(&Digest::sha256(b"missing"), None)
            .unwrap()
            .is_none()
    );
    assert!(
        source
            .blob(&Digest::of(Algorithm::Blake3, b""), None)
            .unwrap()
            .is_none()
    );

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (digest, data) in &blobs {
                    let blob = source.blob(digest, None).unwrap().unwrap();
                    for offset in (0..data.len()).step_by(997) {
                        let mut buf = vec![0; (data.len() - offset).min(1000)];
                        blob.read_exact_at(&mut buf, offset as u64).unwrap();
                        assert_eq!(buf, data[offset..offset + buf.len()]);
                    }
                }
            });
        }
    });
}

fn documents_conform(source: &Arc<dyn BlobSource>) {
    for (name, data) in &content().documents {
        let size = data.len() as u64;
        assert_eq!(source.document(name, size).unwrap().as_ref(), Some(data));
        let error = source.document(name, size - 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains(name), "{error}");
    }
    for name in [
        "config.json",
        "",
        "blobs",
        "../index.json",
        "other.json",
        "blobs/sha256",
    ] {
        assert!(source.document(name, 1 << 20).unwrap().is_none(), "{name}");
    }
}

#[test]
fn memory_conforms() {
    let mut source = MemorySource::new();
    for (digest, data) in content().blobs {
        source.insert_as(digest, data);
    }
    for (name, data) in content().documents {
        source.set_document(name, data);
    }
    source.set_document("other.json", "ignored");
    conformance(&(Arc::new(source) as Arc<dyn BlobSource>));
    let mut source = MemorySource::new();
    assert_eq!(source.insert("abc"), Digest::sha256(b"abc"));
}

/// An archive of all that.
fn archive_of(content: Content) -> tempfile::NamedTempFile {
    let mut tar = Vec::new();
    let mut add = |path: &str, data: &[u8]| {
        tar.extend(file_header(path, data.len() as u64, 0o644, 0));
        tar.extend(data);
        tar.resize(tar.len() + padding(data.len() as u64), 0);
    };
    for (digest, data) in content.blobs {
        add(&digest.blob_path(), &data);
    }
    for (name, data) in content.documents {
        add(name, &data);
    }
    tar.extend(END_OF_ARCHIVE);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), tar).unwrap();
    file
}

/// A layout directory of all that.
fn layout_of(content: Content) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (digest, data) in content.blobs {
        let path = dir.path().join(digest.blob_path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }
    for (name, data) in content.documents {
        fs::write(dir.path().join(name), data).unwrap();
    }
    dir
}

#[test]
fn archive_conforms() {
    conformance(&open(archive_of(content()).path()).unwrap());
}

#[test]
fn layout_directory_conforms() {
    let dir = layout_of(content());
    fs::write(dir.path().join("other.json"), "ignored").unwrap();
    fs::write(dir.path().join("blobs/sha256/not-a-digest"), "ignored").unwrap();
    conformance(&open(dir.path()).unwrap());
}

/// Everything that a source holds, in the order of `content`; blobs are read when all are open.
fn read_all(source: &dyn BlobSource, content: &Content) -> Result<Vec<Vec<u8>>> {
    let mut read = Vec::new();
    for (name, _) in &content.documents {
        read.push(source.document(name, 1 << 20)?.unwrap());
    }
    let mut blobs = Vec::new();
    for (digest, data) in &content.blobs {
        let blob = source.blob(digest, Some(data.len() as u64))?.unwrap();
        blobs.push((blob, data.len()));
    }
    for (blob, len) in blobs {
        let (mut whole, mut halves) = (vec![0; len], [vec![0; len / 2], vec![0; len - len / 2]]);
        blob.read_exact_at(&mut whole, 0)?;
        read_into(&*blob, &mut halves, 0)?;
        assert!(halves.concat() == whole);
        read.push(whole);
    }
    Ok(read)
}

/// What is asked of the system fails: the first call, the second, and so on until all is read; once, every
/// one of its kind from then on, or all. What is read is exact, or an error blames the storage; and a
/// source that is open is well again when its storage is.
#[test]
fn r3_every_call_of_a_source_fails() {
    use crate::files::faults::{Fault, Op, Plan, Reach};
    use rustix::io::Errno;
    // More than a layout directory keeps open.
    let content = || {
        let mut content = content();
        let more = (0..10_u8).map(|n| vec![n; 100 + usize::from(n)]);
        let more = more.map(|data| (Digest::sha256(&data), data));
        content.blobs.extend(more);
        content
    };
    let (archive, layout) = (archive_of(content()), layout_of(content()));
    let content = content();
    let documents = content.documents.iter().map(|(_, data)| data.clone());
    let blobs = content.blobs.iter().map(|(_, data)| data.clone());
    let expected: Vec<Vec<u8>> = documents.chain(blobs).collect();
    let mut hit = std::collections::BTreeSet::new();
    for path in [archive.path(), layout.path()] {
        for lacks in [&[][..], &[Op::OpenBelow]] {
            for (fault, reach) in [
                (Fault::Fails(Errno::IO), Reach::Once),
                (Fault::Fails(Errno::IO), Reach::Kind),
                (Fault::Fails(Errno::IO), Reach::All),
                (Fault::Fails(Errno::STALE), Reach::Once),
                (Fault::Fails(Errno::STALE), Reach::All),
                (Fault::Fails(Errno::INTR), Reach::Once),
                (Fault::Short, Reach::All),
            ] {
                for at in 0.. {
                    let plan = Plan::new(fault, reach, at, lacks);
                    let mut opened = None;
                    let result = plan.run(|| {
                        let source = opened.insert(open(path)?);
                        read_all(&**source, &content)
                    });
                    match result {
                        Ok(read) => assert!(read == expected, "{plan:?}"),
                        Err(error) => {
                            let harmless =
                                matches!(fault, Fault::Fails(Errno::INTR) | Fault::Short);
                            assert!(!harmless, "{plan:?}: {error}");
                            assert_eq!(error.kind(), ErrorKind::Environment, "{plan:?}: {error}");
                        }
                    }
                    if let Some(source) = opened {
                        assert!(
                            read_all(&*source, &content).unwrap() == expected,
                            "{plan:?}"
                        );
                    }
                    match plan.hit() {
                        Some(op) => hit.insert(op),
                        None => break,
                    };
                }
            }
        }
    }
    let all = [Op::Open, Op::OpenBelow, Op::Stat, Op::Read];
    assert_eq!(hit, all.into());
}

/// It has no layout, and so no documents.
#[test]
fn registry_conforms() {
    let registry = Registry::start();
    for (digest, data) in content().blobs {
        registry.add_blob_as(&digest.to_string(), data);
    }
    let reference = format!("{}/team/m:1", registry.host());
    let source = open(Path::new(&reference)).unwrap();
    blobs_conform(&source);
    assert!(source.document("index.json", 1 << 20).unwrap().is_none());
}

#[test]
fn t11_what_is_no_file_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [
        &*fifo,
        &socket,
        Path::new("/dev/null"),
        Path::new("/dev/zero"),
    ] {
        let error = open(path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let message = error.to_string();
        assert!(
            message.contains("neither a regular file nor a directory"),
            "{message}"
        );
        assert!(
            message.contains("expected an uncompressed tar"),
            "{message}"
        );
    }
}

#[test]
fn a_missing_archive_is_the_environments_fault() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(&dir.path().join("missing.tar")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("missing.tar"), "{error}");
}
