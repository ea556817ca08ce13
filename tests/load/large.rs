//! Files beyond what 32 bits count and an octal tar field holds.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use crate::harness::{Packaging, Scene};
use crate::size;
use crate::support::noise;

const GIB: u64 = 1 << 30;
const ISLAND: usize = 100_003;

/// Where a sparse file has content: its ends, around every power of two that a counter may end at,
/// chunk boundaries, and places without a reason.
fn islands(len: u64) -> Vec<u64> {
    let ends = [0, len / 2 + (1 << 20), len - ISLAND as u64];
    let boundaries = [GIB, 2 * GIB, 4 * GIB, 8 * GIB, 16 * GIB, 32 * GIB];
    let around = boundaries.map(|boundary| boundary - ISLAND as u64 / 2);
    let others = [5 * GIB + 12_345, 3 * GIB / 2];
    let inside = around.into_iter().chain(others);
    let inside = inside.filter(|start| start + (ISLAND as u64) < len);
    ends.into_iter().chain(inside).collect()
}

fn island(start: u64) -> Vec<u8> {
    noise(start, ISLAND)
}

/// Compares the islands with what surrounds them, and a hole.
fn compare(path: &Path, len: u64) {
    let file = File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().size(), len);
    let mut buf = vec![0; ISLAND];
    for start in islands(len) {
        file.read_exact_at(&mut buf, start).unwrap();
        assert!(buf == island(start), "at {start}");
        // One byte past the end, across chunks.
        let mut around = [1; 5000];
        let before = start.saturating_sub(5000);
        let read = (start - before) as usize;
        file.read_exact_at(&mut around[..read], before).unwrap();
        assert!(
            around[..read].iter().all(|byte| *byte == 0),
            "before {start}"
        );
    }
    let holes = [1 << 20, len / 3, 4 * GIB + (10 << 20), len - (3 << 20)];
    for hole in holes.into_iter().filter(|hole| *hole < len) {
        file.read_exact_at(&mut buf, hole).unwrap();
        assert!(buf.iter().all(|byte| *byte == 0), "at {hole}");
    }
    assert_eq!(file.read_at(&mut buf, len - 1).unwrap(), 1);
    assert_eq!(file.read_at(&mut buf, len).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, len + 8 * GIB).unwrap(), 0);
}

/// More than 31 bits; in long runs more than 8 GiB, whose number is no longer octal digits in a tar
/// header.
#[test]
fn l8_a_sparse_file_of_many_gigabytes() {
    let len = size(9 * GIB / 4, 64 * GIB) + 77;
    let mut scene = Scene::empty(Packaging::Packed("auto"));
    fs::create_dir(scene.path("model")).unwrap();
    let original = scene.path("model/sparse.bin");
    let file = File::create(&original).unwrap();
    file.set_len(len).unwrap();
    for start in islands(len) {
        file.write_all_at(&island(start), start).unwrap();
    }
    compare(&original, len);
    scene.pack(&[]);
    // Holes shrink: what could not be kept on the disk is not.
    let archive = fs::metadata(scene.path("m.tar")).unwrap().size();
    assert!(archive < 128 << 20, "{archive} bytes");
    let mount = scene.mount(&["--cache-size", "32MiB"]);
    compare(&mount.path("sparse.bin"), len);
    assert_eq!(mount.count("failures"), 0);
}

/// Nothing shrinks, so that the blob, too, has more bytes than octal digits can say. Only in long
/// runs, as it takes twice 9 GiB of disk; every page is compared.
#[test]
fn l8_nine_gigabytes_of_content() {
    let len = size(0, 9 * GIB);
    if len == 0 {
        eprintln!("skipped: only long runs");
        return;
    }
    const PAGE: usize = 1 << 20;
    let page = |number: u64, buf: &mut [u8]| {
        for (at, word) in buf.chunks_exact_mut(4096).enumerate() {
            word[..8].copy_from_slice(&(number << 20 | at as u64).to_le_bytes());
        }
    };
    let mut scene = Scene::empty(Packaging::Packed("none"));
    fs::create_dir(scene.path("model")).unwrap();
    let file = File::create(scene.path("model/large.bin")).unwrap();
    let mut expected = noise(9, PAGE);
    for number in 0..len >> 20 {
        page(number, &mut expected);
        file.write_all_at(&expected, number << 20).unwrap();
    }
    scene.pack(&[]);
    fs::remove_dir_all(scene.path("model")).unwrap();
    let mount = scene.mount(&["--cache-size", "32MiB"]);
    let file = File::open(mount.path("large.bin")).unwrap();
    assert_eq!(file.metadata().unwrap().size(), len);
    let mut found = vec![0; PAGE];
    for number in 0..len >> 20 {
        page(number, &mut expected);
        file.read_exact_at(&mut found, number << 20).unwrap();
        assert!(found == expected, "at {number} MiB");
    }
    assert_eq!(mount.count("failures"), 0);
}
