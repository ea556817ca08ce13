//! Many readers at once, with every kind of layer and caches from nothing to plenty: each read gives
//! exactly the bytes of the file. Buffers are recycled, chunks evicted and decodes shared all the
//! while, so that stale or foreign bytes would show.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;

use modeloci::model::OpenOptions;
use modeloci::oci::OciConfig;
use modeloci::pack::{self, Output, PackOptions};
use modeloci::{Compression, Model};
use modeloci_test_support::random::Random;

/// Content with chunks of every kind: noise, weights, text, zeros.
fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let kind = random.below(4);
        for n in 0..48_000u32 {
            out.push(match kind {
                0 => random.next() as u8,
                1 if n % 2 == 0 => random.next() as u8,
                1 => 0x3c | (random.next() & random.next() & 3) as u8,
                2 => b"tensors and tokens, "[n as usize % 20] ^ u8::from(random.below(50) == 0),
                _ => seed as u8,
            });
        }
    }
    out.truncate(len);
    out
}

fn pack(dir: &Path, files: &[(String, Vec<u8>)], compression: Compression) -> std::path::PathBuf {
    let model = dir.join("model");
    std::fs::create_dir_all(&model).unwrap();
    for (name, bytes) in files {
        std::fs::write(model.join(name), bytes).unwrap();
    }
    let archive = dir.join(format!("{compression:?}.tar"));
    let config = OciConfig {
        model_name: "m".into(),
        version: "1".into(),
        framework: String::new(),
        architecture: String::new(),
        metadata: Default::default(),
    };
    let options = PackOptions {
        compression,
        chunk_size: 64 << 10,
        ..PackOptions::default()
    };
    let output = Output::File(archive.clone());
    pack::pack(&model, &config, &output, &options, &|_, _| ()).unwrap();
    archive
}

/// Reads at random, in sequence, across chunks and beyond the end, and compares.
fn read_about(model: &Model, files: &[(String, Vec<u8>)], seed: u64) {
    let mut random = Random(seed);
    for _ in 0..60 {
        let (name, bytes) = &files[random.below(files.len())];
        let inode = model.find(name).unwrap().inode;
        let mut at = random.below(bytes.len() + 10);
        let len = [1, 4096, 65_536, 200_000][random.below(4)];
        for _ in 0..1 + random.below(6) {
            let expected = &bytes[at.min(bytes.len())..(at + len).min(bytes.len())];
            let found = model.read_at(inode, at as u64, len).unwrap();
            assert!(found == expected, "{name} at {at}, {len} bytes");
            at += len;
        }
    }
}

#[test]
fn r10_readers_of_everything_get_the_bytes_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = vec![
        ("large".to_string(), content(2_000_003, 1)),
        ("other".to_string(), content(700_000, 2)),
    ];
    // Small files between large ones: their chunks take buffers of every length.
    files.extend((0..20).map(|n| (format!("small-{n}"), content(1 + 3_331 * n as usize, n + 3))));
    for compression in [
        Compression::Auto,
        Compression::Gzip(6),
        Compression::Zstd(3),
        Compression::None,
    ] {
        let archive = pack(dir.path(), &files, compression);
        for (cache_bytes, readahead) in
            [(0, true), (70_000, true), (600_000, false), (8 << 20, true)]
        {
            let options = OpenOptions {
                cache_bytes,
                readahead,
                ..OpenOptions::default()
            };
            let model = Model::open(&archive, &options).unwrap();
            thread::scope(|scope| {
                for seed in 0..6 {
                    let (model, files) = (&model, &files);
                    scope.spawn(move || read_about(model, files, seed + 100));
                }
            });
            assert!(model.cache_used() <= cache_bytes);
            assert_eq!(model.stats().failures.load(Ordering::Relaxed), 0);
        }
    }
}

/// What was read behind the end of a file says nothing about its content.
#[test]
fn d3_only_a_read_of_content_makes_a_file_verified() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("w".to_string(), content(1000, 1)),
        ("e".into(), Vec::new()),
    ];
    let model = Model::open(
        pack(dir.path(), &files, Compression::Auto),
        &OpenOptions::default(),
    )
    .unwrap();
    let (file, empty) = (model.find("w").unwrap(), model.find("e").unwrap());
    assert!(model.read_at(file.inode, 1000, 10).unwrap().is_empty());
    assert!(!model.verified(file.inode));
    assert_eq!(model.read_at(file.inode, 999, 10).unwrap().len(), 1);
    assert!(model.verified(file.inode));
    assert!(model.read_at(empty.inode, 0, 10).unwrap().is_empty());
    assert!(model.verified(empty.inode));
}
