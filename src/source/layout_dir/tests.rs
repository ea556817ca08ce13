#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use rustix::fs::Mode;

use super::*;
use crate::error::ErrorKind;

fn layout(blobs: &[&[u8]]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
    fs::write(dir.path().join("index.json"), b"{}").unwrap();
    for blob in blobs {
        fs::write(dir.path().join(Digest::sha256(blob).blob_path()), blob).unwrap();
    }
    dir
}

fn fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

fn read(source: &LayoutDir, digest: &Digest) -> Result<Vec<u8>> {
    let blob = source.blob(digest, None)?.unwrap();
    let mut out = vec![0; blob.len() as usize];
    blob.read_exact_at(&mut out, 0)?;
    Ok(out)
}

#[test]
fn t8_a_blob_that_is_no_regular_file() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let dir = layout(&[]);
    let digest = Digest::sha256(b"x");
    let path = dir.path().join(digest.blob_path());
    let refused = |rule: &str| {
        let source = LayoutDir::open(dir.path()).unwrap();
        let error = source.blob(&digest, None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains(rule), "{error}");
    };
    symlink(outside.path(), &path).unwrap();
    refused("symbolic link");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused("not a regular file");
    fs::remove_dir(&path).unwrap();
    fifo(&path);
    refused("not a regular file");
    fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
    fs::rename(dir.path().join("s"), &path).unwrap();
    refused("not a regular file");
}

#[test]
fn t8_links_in_the_way() {
    let dir = layout(&[b"x"]);
    let elsewhere = layout(&[b"x"]);
    let digest = Digest::sha256(b"x");
    fs::remove_dir_all(dir.path().join("blobs/sha256")).unwrap();
    symlink(
        elsewhere.path().join("blobs/sha256"),
        dir.path().join("blobs/sha256"),
    )
    .unwrap();
    let source = LayoutDir::open(dir.path()).unwrap();
    assert_eq!(
        source.blob(&digest, None).err().unwrap().kind(),
        ErrorKind::Malformed
    );
    // The same by the way for old kernels.
    let root = source.shared.root.as_fd();
    let path = digest.blob_path();
    let old = beneath::open_by_component(root, Path::new(&path), OFlags::RDONLY);
    assert!(matches!(old, Err(Errno::LOOP | Errno::NOTDIR)), "{old:?}");

    fs::remove_file(dir.path().join("index.json")).unwrap();
    symlink(
        elsewhere.path().join("index.json"),
        dir.path().join("index.json"),
    )
    .unwrap();
    assert_eq!(
        source.document("index.json", 10).unwrap_err().kind(),
        ErrorKind::Malformed
    );
    assert_eq!(
        LayoutDir::open(dir.path()).err().unwrap().kind(),
        ErrorKind::Malformed
    );
}

#[test]
fn opens_by_component_on_old_kernels() {
    let dir = layout(&[b"x"]);
    let source = LayoutDir::open(dir.path()).unwrap();
    let open = |path: &str| {
        let root = source.shared.root.as_fd();
        beneath::open_by_component(root, Path::new(path), OFlags::RDONLY)
    };
    let fd = open(&Digest::sha256(b"x").blob_path()).unwrap();
    assert_eq!(File::from(fd).metadata().unwrap().len(), 1);
    assert_eq!(open("blobs/sha512/x").unwrap_err(), Errno::NOENT);
}

#[test]
fn t11_a_directory_that_is_no_layout() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |rule: &str| {
        let error = LayoutDir::open(dir.path()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let message = error.to_string();
        assert!(
            message.contains(rule) && message.contains("expected"),
            "{message}"
        );
    };
    refused("no directory \"blobs\"");
    fs::create_dir(dir.path().join("blobs")).unwrap();
    refused("no \"index.json\" or \"manifest.json\"");
    fs::write(dir.path().join("manifest.json"), b"{}").unwrap();
    LayoutDir::open(dir.path()).unwrap();
}

#[test]
fn r1_blobs_that_change_while_open() {
    let data: Vec<Vec<u8>> = (0..OPEN_FILES.get() + 2)
        .map(|i| vec![i as u8; 9])
        .collect();
    let refs: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let dir = layout(&refs);
    let source = LayoutDir::open(dir.path()).unwrap();
    let digests: Vec<Digest> = refs.iter().map(|data| Digest::sha256(data)).collect();
    let blobs: Vec<_> = digests
        .iter()
        .map(|d| source.blob(d, None).unwrap().unwrap())
        .collect();
    // More blobs than files stay open: the first two are opened again.
    fs::write(dir.path().join(digests[0].blob_path()), b"shorter").unwrap();
    fs::remove_file(dir.path().join(digests[1].blob_path())).unwrap();
    let mut out = [0; 9];
    for (i, rule) in [(0, "has 7 bytes instead of 9"), (1, "was removed")] {
        let error = blobs[i].read_exact_at(&mut out, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(rule), "{error}");
        assert!(
            error.to_string().contains(&digests[i].to_string()),
            "{error}"
        );
    }
    for (blob, data) in blobs.iter().zip(&data).skip(2) {
        blob.read_exact_at(&mut out, 0).unwrap();
        assert_eq!(out, data[..]);
    }
}

#[test]
fn r8_few_descriptors_for_many_blobs() {
    let data: Vec<Vec<u8>> = (0..200u8).map(|i| vec![i; 3]).collect();
    let refs: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let dir = layout(&refs);
    let source = LayoutDir::open(dir.path()).unwrap();
    let _blobs: Vec<_> = refs
        .iter()
        .map(|d| source.blob(&Digest::sha256(d), None).unwrap())
        .collect();
    let open = source.shared.open.lock().unwrap().len();
    assert_eq!(open, OPEN_FILES.get());
    for data in &refs {
        assert_eq!(read(&source, &Digest::sha256(data)).unwrap(), *data);
    }
}
