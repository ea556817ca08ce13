//! l12: what stands around the file of a layer, without end or as honest tools write it.

use crate::forge::{Header, Tar, gzip, noise, record};
use crate::layers::{GOOD, beside, content, damaged, good, served, tar};
use crate::mounted::Mounted;
use crate::sandbox::Sandbox;

/// A layer of `data`, then `count` times `piece`, each compressed apart: 10 MB of blob may hold 100 GiB.
fn endless(pack: fn(&[u8]) -> Vec<u8>, data: &[u8], piece: &[u8], count: usize) -> Vec<u8> {
    let mut blob = pack(&Tar::new().file("bad.bin", data).0);
    blob.extend_from_slice(&pack(piece).repeat(count));
    blob.extend_from_slice(&pack(&[0; 1024]));
    blob
}

fn pack_zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

#[test]
fn l12_members_and_padding_behind_the_file_without_end() {
    let directories = Header::file("d/", 0).kind(b'5').seal().repeat(16_384);
    let comment = record("comment", &"x".repeat(60_000));
    let comments = Tar::new().extension(b'g', comment.as_bytes()).0.repeat(140);
    let zeros = vec![0; 8 << 20];
    let packs = [
        ("gzip", gzip as fn(&[u8]) -> Vec<u8>, 200),
        ("zstd", pack_zstd, 12_000),
        ("tar", <[u8]>::to_vec, 3),
    ];
    let start = std::time::Instant::now();
    for (name, pack, count) in packs {
        for (what, piece) in [
            ("directories", &directories),
            ("pax headers", &comments),
            ("zeros", &zeros),
        ] {
            let blob = endless(pack, b"five!", piece, count);
            damaged(&format!("{what} in {name}"), &beside(blob));
        }
    }
    // What decodes at a bound takes no longer than hashing; whatever decodes all of it, minutes.
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
}

/// A layer that is served as far as its readers get: it ends where the rest begins.
#[test]
fn l12_a_large_file_before_members_without_end() {
    let data = noise(9, 5 << 20);
    let directories = Header::file("d/", 0).kind(b'5').seal().repeat(16_384);
    for (pack, count) in [(gzip as fn(&[u8]) -> Vec<u8>, 1_000), (pack_zstd, 12_000)] {
        let blob = endless(pack, &data, &directories, count);
        let sandbox = Sandbox::new();
        sandbox.write("bad.tar", beside(blob).to_bytes());
        let mounted = Mounted::new(&sandbox, "bad.tar");
        mounted.eio("bad.bin");
        assert!(mounted.read(GOOD).unwrap() == good());
        let run = sandbox.run_bounded(&["unpack", "bad.tar", "out"]);
        run.fails(3, &["bad.bin", "belong to no file"]);
    }
}

#[test]
fn l12_empty_members_and_frames_without_end() {
    const MANY: usize = 70_000;
    let skippable = b"\x50\x2a\x4d\x18\0\0\0\0";
    let empty_frame = pack_zstd(b"");
    let table = gzip(b""); // as those of a chunk table are
    for (what, stream, empty) in [
        ("empty members", gzip(&tar()), &table[..]),
        ("skippable frames", pack_zstd(&tar()), skippable),
        ("empty frames", pack_zstd(&tar()), &empty_frame),
    ] {
        let blob = [&stream[..], &empty.repeat(MANY)].concat();
        damaged(what, &beside(blob));
        // In front of the file they are found when the layer is looked at. (What begins with a
        // skippable frame is taken for a raw file.)
        if empty != skippable {
            let blob = [&empty.repeat(MANY), &stream[..]].concat();
            damaged(what, &beside(blob));
        }
        let few = [&stream[..], &empty.repeat(MANY / 2)].concat();
        served(what, few, &content());
    }
}

#[test]
fn l12_what_honest_tools_put_around_a_file_is_served() {
    let deep: Vec<String> = (1..=63).map(|depth| "d/".repeat(depth)).collect();
    let mut tar = Tar::new().extension(b'g', record("comment", "of git archive").as_bytes());
    for path in &deep {
        tar = tar.entry(Header::file(path, 0).kind(b'5'), b"");
    }
    let tar = tar
        .pax("mtime", "1700000000.123456789")
        .entry(Header::file("bad.bin", content().len() as u64), &content());
    let behind = tar.clone().entry(Header::file("z/", 0).kind(b'5'), b"");
    for tar in [tar, behind] {
        // Blocking factors of tar: 20 (the default), 2048, and none at all.
        for record in [10 << 10, 1 << 20, 512] {
            let mut padded = tar.clone().end();
            padded.resize(padded.len().next_multiple_of(record), 0);
            served("tar", padded.clone(), &content());
            served("gzip", gzip(&padded), &content());
            served("zstd", pack_zstd(&padded), &content());
        }
    }
}
