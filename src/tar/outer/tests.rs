#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::tar::EntryKind;
use crate::tar::members::Members;
use crate::tar::raw::RawTar;
use crate::tar::write::{END_OF_ARCHIVE, file_header, padding};

fn index_of(tar: &[u8]) -> Result<Vec<Entry>> {
    index(tar.len() as u64, |buf, offset| {
        let at = offset as usize;
        buf.copy_from_slice(&tar[at..at + buf.len()]);
        Ok(())
    })
}

fn sample() -> Vec<u8> {
    RawTar::new()
        .file("blobs/sha256/1", &[1; 700])
        .pax(b'x', &[("path", "index.json")])
        .file("short", b"{}")
        .entry(b'L', "l", b"manifest.json\0")
        .file("short", b"{}")
        .finish()
}

#[track_caller]
fn refused_for(tar: &[u8], rule: &str) {
    let error = index_of(tar).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains(rule), "{error}");
}

#[test]
fn t1_truncated_at_any_byte() {
    let tar = sample();
    assert_eq!(index_of(&tar).unwrap().len(), 3);
    for len in 0..tar.len() {
        let error = index_of(&tar[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{len}");
    }
}

#[test]
fn t9_data_after_the_end() {
    let tar = sample();
    for zeros in [1, 511, 512, 9 * 1024, 100_000] {
        let mut padded = tar.clone();
        padded.resize(tar.len() + zeros, 0);
        assert_eq!(index_of(&padded).unwrap().len(), 3);
        padded.push(1);
        refused_for(&padded, "data after the end of the archive");
    }
    refused_for(
        &[tar.clone(), tar].concat(),
        "data after the end of the archive",
    );
}

#[test]
fn t9_endless_zeros() {
    let tar = sample();
    let length = tar.len() as u64 + limits::MAX_TAR_TAIL_BYTES + 1;
    let error = index(length, |buf, offset| {
        for (i, byte) in buf.iter_mut().enumerate() {
            *byte = tar.get(offset as usize + i).copied().unwrap_or(0);
        }
        Ok(())
    });
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("the limit is 16777216")
    );
}

#[test]
fn t10_ten_million_empty_entries() {
    // The archive is never built: the same header at every block.
    let header = RawTar::new().file("e", b"").0;
    let mut reads = 0;
    let mut seen = 0;
    let result = scan(
        10_000_000 * 512,
        |buf, offset| {
            reads += 1;
            assert_eq!(offset % 512, 0);
            buf.chunks_mut(512)
                .for_each(|block| block.copy_from_slice(&header));
            Ok(())
        },
        |_| {
            seen += 1;
            Ok(())
        },
    );
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("more than 250000 entries")
    );
    assert_eq!(seen, limits::MAX_ARCHIVE_ENTRIES);
    assert!(reads < 10_000, "{reads} reads");
}

#[test]
fn reads_headers_only() {
    let size = 1u64 << 40;
    let head = file_header("blobs/sha256/1", size, 0o644, 0);
    let mut read = 0;
    let entries = index(512 + size + 1024, |buf, offset| {
        read += buf.len();
        for (i, byte) in buf.iter_mut().enumerate() {
            *byte = head.get(offset as usize + i).copied().unwrap_or(0);
        }
        Ok(())
    });
    assert_eq!(entries.unwrap()[0].size, size);
    assert!(read <= 2 * WINDOW, "{read} bytes read");
}

#[test]
fn r3_errors_of_the_storage_are_passed_on() {
    let error = index(2048, |_, _| Err(Error::corrupt("storage", "gone"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn reads_the_original_tools_archives() {
    for (bytes, blobs) in [
        (
            &include_bytes!("../../../tests/data/original/added-1.0.0.tar")[..],
            5,
        ),
        (
            include_bytes!("../../../tests/data/original/zero-1.0.0.tar"),
            1,
        ),
    ] {
        let entries = index_of(bytes).unwrap();
        assert_eq!(
            (&entries[0].path[..], entries[0].kind),
            (&b"/"[..], EntryKind::Directory)
        );
        let is_blob = |entry: &&Entry| {
            entry.kind == EntryKind::File && entry.path.starts_with(b"blobs/sha256/")
        };
        assert_eq!(entries.iter().filter(is_blob).count(), blobs);
        assert_eq!(entries[0].mtime, 1_795_470_318);
    }
}

/// Everything that a tar of layers or blobs can hold, as the writer makes it.
fn written(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, data) in files {
        tar.extend(file_header(path, data.len() as u64, 0o755, 42));
        tar.extend(data);
        tar.resize(tar.len() + padding(data.len() as u64), 0);
    }
    tar.extend(END_OF_ARCHIVE);
    tar
}

/// All that the streaming reader sees.
fn streamed(tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut members = Members::new(tar, "layer");
    let mut out = Vec::new();
    while let Some(entry) = members.next_member()? {
        let mut data = Vec::new();
        let mut buf = [0; 333];
        loop {
            match members.read_data(&mut buf)? {
                0 => break,
                n => data.extend(&buf[..n]),
            }
        }
        out.push((entry, data));
    }
    members.finish()?;
    Ok(out)
}

fn paths() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        "[a-z]{1,12}",
        "[a-zé코 ]{1,80}",
        "x{100,255}",
        "[a-z]{95,105}",
    ];
    prop::collection::vec(component, 1..5).prop_map(|components| components.join("/"))
}

fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 500..1600),
    ];
    prop::collection::vec((paths(), data), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_archives_round_trip(files in files()) {
        let tar = written(&files);
        let entries = index_of(&tar).unwrap();
        let members = streamed(&tar).unwrap();
        prop_assert_eq!(entries.len(), files.len());
        prop_assert_eq!(members.len(), files.len());
        for ((entry, (member, data)), (path, expected)) in entries.iter().zip(members).zip(&files) {
            prop_assert_eq!(&entry.path, path.as_bytes());
            prop_assert_eq!(entry, &member);
            prop_assert_eq!(&data, expected);
            prop_assert_eq!((entry.mode, entry.mtime), (0o755, 42));
            let at = entry.data_offset as usize;
            prop_assert_eq!(&tar[at..at + data.len()], &data[..]);
            let size = format!("{:011o}\0", data.len());
            prop_assert_eq!(&tar[at - 512 + 124..at - 512 + 136], size.as_bytes());
        }
    }

    /// Damage never panics, gives the same result twice, and the same to both readers.
    #[test]
    fn random_damage_is_read_alike(
        files in files(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        let mut tar = written(&files);
        for (at, byte, fix) in damage {
            let at = at.index(tar.len());
            tar[at] = byte;
            if fix {
                repair_checksum(&mut tar, at);
            }
        }
        let first = index_of(&tar).map_err(|e| e.to_string());
        prop_assert_eq!(&first, &index_of(&tar).map_err(|e| e.to_string()));
        let streamed = streamed(&tar);
        match (&first, &streamed) {
            (Ok(entries), Ok(members)) => {
                prop_assert_eq!(entries, &members.iter().map(|m| m.0.clone()).collect::<Vec<_>>());
            }
            // Only the end of the archive may be missing from a stream.
            (Err(rule), Ok(_)) => prop_assert!(rule.contains("truncated"), "{}", rule),
            (Ok(_), Err(error)) => prop_assert!(false, "{}", error),
            (Err(_), Err(error)) => prop_assert_eq!(error.kind(), ErrorKind::Malformed),
        }
    }
}

/// Makes the damaged block a header that its checksum vouches for.
fn repair_checksum(tar: &mut [u8], at: usize) {
    let start = at / 512 * 512;
    let block = &mut tar[start..start + 512];
    if &block[257..262] == b"ustar" && !(148..156).contains(&(at - start)) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// What the writer makes is read alike by the tools that everyone has; skipped where there are none.
#[test]
fn other_tools_read_what_the_writer_writes() {
    let files: Vec<(String, Vec<u8>)> = [
        "a.txt".to_string(),
        "ünï/코드.bin".to_string(),
        format!("{}/{}", "p".repeat(150), "n".repeat(99)),
        "x".repeat(255),
        format!("{}/é{}", "y".repeat(99), "z".repeat(200)),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, path)| (path, vec![i as u8 + b'0'; i * 300]))
    .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.tar");
    std::fs::write(&path, written(&files)).unwrap();

    let run = |program: &str, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        command
            .args(args)
            .current_dir(dir.path())
            .env("PYTHONUTF8", "1");
        command.output().ok().map(|out| {
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            String::from_utf8(out.stdout).unwrap()
        })
    };
    let script = "import sys, tarfile
for m in tarfile.open('t.tar'):
    print(m.name, m.size, oct(m.mode), m.mtime, m.isreg(), m.uid, m.gid)";
    if let Some(listed) = run("python3", &["-c", script]) {
        let expected: String = files
            .iter()
            .map(|(path, data)| format!("{path} {} 0o755 42 True 0 0\n", data.len()))
            .collect();
        assert_eq!(listed, expected);
    }
    if run("tar", &["--version"]).is_some() {
        run("tar", &["xf", "t.tar"]);
        for (path, data) in &files {
            assert_eq!(&std::fs::read(dir.path().join(path)).unwrap(), data);
        }
    }
}
