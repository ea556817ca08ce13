#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use super::*;
use crate::error::ErrorKind;
use crate::tar::raw::{RawHeader, RawTar};

const DATA: &[u8] = b"a blob";

fn blob_path() -> String {
    Digest::sha256(DATA).blob_path()
}

fn open_bytes(bytes: &[u8]) -> Result<ArchiveSource> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    ArchiveSource::open(file.path())
}

fn open(tar: RawTar) -> ArchiveSource {
    open_bytes(&tar.finish()).unwrap()
}

#[track_caller]
fn refused_for(tar: RawTar, rule: &str) {
    match open_bytes(&tar.finish()) {
        Err(error @ Error::Malformed { .. }) => {
            let message = error.to_string();
            assert!(message.contains(rule), "{message:?} does not say {rule:?}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused: {rule}"),
    }
}

fn read(source: &ArchiveSource) -> Vec<u8> {
    let blob = source.blob(&Digest::sha256(DATA), None).unwrap().unwrap();
    let mut out = vec![0; blob.len() as usize];
    blob.read_exact_at(&mut out, 0).unwrap();
    out
}

#[test]
fn t1_truncated_at_any_byte() {
    let tar = RawTar::new()
        .file(&blob_path(), DATA)
        .file("index.json", b"{}")
        .finish();
    for len in 0..tar.len() {
        let error = open_bytes(&tar[..len]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{len}: {error}");
    }
}

#[test]
fn accepts_a_leading_dot_and_directories() {
    let source = open(
        RawTar::new()
            .entry(b'5', "./", b"")
            .entry(b'5', "./blobs/", b"")
            .entry(b'5', "./blobs/sha256/", b"")
            .entry(b'5', "./blobs/sha256", b"")
            .file(&format!("./{}", blob_path()), DATA)
            .file("./manifest.json", b"m"),
    );
    assert_eq!(read(&source), DATA);
    assert_eq!(source.document("manifest.json", 10).unwrap().unwrap(), b"m");
    for root in ["", "/", ".", "./", "./."] {
        open(RawTar::new().entry(b'5', root, b"").file("index.json", b""));
    }
}

#[test]
fn ignores_other_entries() {
    let source = open(
        RawTar::new()
            .link(b'2', "latest", "/etc/passwd")
            .link(b'3', "dev", "")
            .file("README", b"r")
            .file("sub/index.json", b"no")
            .file("Blobs/sha256/x", b"no")
            .file(&blob_path(), DATA),
    );
    assert_eq!(source.blobs(), [(Digest::sha256(DATA), DATA.len() as u64)]);
    assert!(source.document("index.json", 10).unwrap().is_none());
    assert!(source.document("README", 10).unwrap().is_none());
}

#[test]
fn reads_the_original_tools_archives() {
    let source = open_bytes(include_bytes!(
        "../../../tests/data/original/added-1.0.0.tar"
    ))
    .unwrap();
    assert_eq!(source.blobs().len(), 5);
    for (digest, len) in source.blobs() {
        let blob = source.blob(&digest, None).unwrap().unwrap();
        assert_eq!(blob.len(), len);
        let mut data = vec![0; len as usize];
        blob.read_exact_at(&mut data, 0).unwrap();
        assert_eq!(Digest::sha256(&data), digest);
    }
    let manifest = source.document("manifest.json", 1 << 20).unwrap().unwrap();
    assert!(manifest.starts_with(b"{") && manifest.len() == 841);
    assert!(source.document("index.json", 1 << 20).unwrap().is_none());
}

#[test]
fn t7_two_entries_for_one_thing() {
    let blob = blob_path();
    refused_for(
        RawTar::new().file(&blob, DATA).file(&blob, DATA),
        "has two entries",
    );
    let dotted = format!("./{blob}");
    refused_for(
        RawTar::new().file(&dotted, DATA).file(&blob, DATA),
        "has two entries",
    );
    for name in DOCUMENTS {
        refused_for(
            RawTar::new().file(name, b"1").file(name, b"1"),
            "has two entries",
        );
        let dotted = format!("./{name}");
        refused_for(
            RawTar::new().file(name, b"1").file(&dotted, b"1"),
            "has two entries",
        );
        refused_for(
            RawTar::new().file(&format!("{name}/x"), b"1"),
            "no directory",
        );
    }
}

/// As in a directory, where only what is asked for is looked at.
#[test]
fn what_a_desktop_left_among_the_blobs_is_passed_over() {
    let blob = blob_path();
    let mut tar = RawTar::new().file(&blob, DATA).file("index.json", b"{}");
    for name in [
        "blobs/._sha256",
        "blobs/.DS_Store",
        "blobs/sha256/.DS_Store",
    ] {
        tar = tar.file(name, b"Mac OS X");
    }
    let beside = blob.replace("256/", "256/._");
    let source = open(tar.file(&beside, b"Mac OS X"));
    assert_eq!(source.blobs().len(), 1);
    refused_for(
        RawTar::new()
            .file(&blob, DATA)
            .file("blobs/sha256/.other", b"x"),
        "only files named by a digest",
    );
}

#[test]
fn t7_paths_that_land_on_another_entry() {
    let blob = blob_path();
    for path in [
        format!("/{blob}"),
        format!("../{blob}"),
        format!(".//{blob}"),
        format!("././{blob}"),
        blob.replace("256/", "256//"),
        blob.replace("256/", "256/./"),
        format!("x/../{blob}"),
        "/".into(),
        "".into(),
        ".".into(),
        "./".into(),
        "..".into(),
    ] {
        if path.ends_with('/') {
            continue;
        }
        refused_for(
            RawTar::new().file(&path, DATA),
            "empty, \".\" or \"..\" component",
        );
    }
}

#[test]
fn t8_what_is_no_regular_file() {
    let blob = blob_path();
    for (flag, what) in [
        (b'1', "a hard link"),
        (b'2', "a symbolic link"),
        (b'3', "a device or FIFO"),
        (b'5', "a directory"),
        (b'6', "a device or FIFO"),
    ] {
        let tar = RawTar::new()
            .file("README", b"")
            .link(flag, &blob, "README");
        refused_for(tar, &format!("a blob is {what}, not a regular file"));
        for name in DOCUMENTS {
            if (flag, name) != (b'1', "manifest.json") {
                let tar = RawTar::new().file("README", b"").link(flag, name, "README");
                refused_for(tar, &format!("{name} is {what}, not a regular file"));
            }
        }
        if flag != b'5' {
            for parent in ["blobs", "blobs/sha256"] {
                refused_for(RawTar::new().link(flag, parent, "x"), "named by a digest");
            }
        }
    }
}

#[test]
fn t8_a_hard_linked_manifest() {
    let blob = blob_path();
    for target in [blob.clone(), format!("./{blob}")] {
        let mut tar = RawTar::new().file(&blob, DATA);
        tar = tar.header(RawHeader::new(b'1', b"manifest.json", 0).link(&target));
        let source = open(tar);
        assert_eq!(
            source.document("manifest.json", 100).unwrap().unwrap(),
            DATA
        );
    }
    let dangling = |target: &str| RawTar::new().link(b'1', "manifest.json", target);
    refused_for(dangling(&blob), "no blob in front of it");
    refused_for(dangling(&blob).file(&blob, DATA), "no blob in front of it");
    let other = RawTar::new()
        .file("README", b"r")
        .link(b'1', "manifest.json", "README");
    refused_for(other, "no blob in front of it");
    let twice = RawTar::new().file(&blob, DATA).file("manifest.json", b"m");
    refused_for(twice.link(b'1', "manifest.json", &blob), "has two entries");
}

#[test]
fn d1_blobs_that_no_digest_names() {
    let hex = Digest::sha256(DATA).hex();
    for path in [
        "blobs/x".to_string(),
        "blobs/sha256/x".into(),
        "blobs/sha1/da39a3ee5e6b4b0d3255bfef95601890afd80709".into(),
        format!("blobs/sha256/{}", hex.to_uppercase()),
        format!("blobs/sha512/{hex}"),
        format!("blobs/sha256/{hex}/x"),
    ] {
        refused_for(RawTar::new().file(&path, DATA), "named by a digest");
    }
}

#[test]
fn t11_what_is_no_archive() {
    let mut empty_tar = vec![0; 10240];
    for (bytes, what) in [
        (&b""[..], "an empty file"),
        (b"hello", "too short for a tar"),
        (&[7; 4096], "not a tar"),
        (b"{\"schemaVersion\": 2}", "too short for a tar"),
        (b"\x1f\x8b\x08", "compressed with gzip; decompress it first"),
        (
            b"\x28\xb5\x2f\xfd\0\0",
            "compressed with zstd; decompress it first",
        ),
        (&empty_tar.clone(), "a tar without blobs"),
    ] {
        let error = open_bytes(bytes).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let message = error.to_string();
        assert!(message.contains(what), "{message}");
        assert!(
            message.contains("expected an uncompressed tar"),
            "{message}"
        );
    }
    empty_tar.truncate(512);
    assert_eq!(
        open_bytes(&empty_tar).err().unwrap().kind(),
        ErrorKind::Malformed
    );
    refused_for(RawTar::new().file("model.bin", b"x"), "a tar without blobs");
}

#[test]
fn j1_a_document_over_its_limit() {
    let source = open(RawTar::new().file("manifest.json", &[b' '; 100]));
    assert_eq!(
        source
            .document("manifest.json", 100)
            .unwrap()
            .unwrap()
            .len(),
        100
    );
    let error = source.document("manifest.json", 99).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(
        error
            .to_string()
            .ends_with("manifest.json: has 100 bytes, the limit is 99")
    );
}

#[test]
fn r1_truncated_while_open() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&RawTar::new().file(&blob_path(), DATA).finish())
        .unwrap();
    let source = ArchiveSource::open(file.path()).unwrap();
    let blob = source.blob(&Digest::sha256(DATA), None).unwrap().unwrap();
    file.as_file().set_len(515).unwrap();
    let mut out = [0; 6];
    let error = blob.read_exact_at(&mut out, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let message = error.to_string();
    assert!(
        message.contains("sha256:") && message.contains("truncated"),
        "{message}"
    );
    blob.read_exact_at(&mut out[..3], 0).unwrap();
    assert_eq!(&out[..3], &DATA[..3]);
}

#[test]
fn r2_deleted_while_open() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&RawTar::new().file(&blob_path(), DATA).finish())
        .unwrap();
    let source = ArchiveSource::open(file.path()).unwrap();
    file.close().unwrap();
    assert_eq!(read(&source), DATA);
}

#[test]
fn l8_a_9_gib_blob() {
    use std::os::unix::fs::FileExt as _;

    // Sparse: only the header and the last byte are ever stored.
    let size = 9u64 << 30;
    let file = tempfile::NamedTempFile::new().unwrap();
    let head = crate::tar::write::file_header(&blob_path(), size, 0o644, 0);
    file.as_file().write_all_at(&head, 0).unwrap();
    file.as_file().write_all_at(b"z", 512 + size - 1).unwrap();
    file.as_file().set_len(512 + size + 1024).unwrap();
    let source = ArchiveSource::open(file.path()).unwrap();
    let blob = source.blob(&Digest::sha256(DATA), None).unwrap().unwrap();
    assert_eq!(blob.len(), size);
    let mut out = [1; 2];
    blob.read_exact_at(&mut out, size - 2).unwrap();
    assert_eq!(&out, b"\0z");

    // Other tools find the same size; skipped where there is no Python.
    let script = "import sys, tarfile; print([m.size for m in tarfile.open(sys.argv[1])])";
    let python = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(file.path())
        .output();
    if let Ok(out) = python {
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("[{size}]\n"));
    }
}
