//! Beyond the list: a valid archive changed at random. Whatever the change, the answer is the exact
//! content or an error.

use std::fs;

use modeloci::model::OpenOptions;
use modeloci::{ErrorKind, Model};

use crate::forge::{BLOCK, Layout, Random, noise, sample_files};
use crate::packing;
use crate::sandbox::Sandbox;

/// An archive, and the files in it.
type Seed = (Vec<u8>, Vec<(&'static str, Vec<u8>)>);

/// Archives to start from: layers of others, and layers that `pack` wrote.
fn seeds(sandbox: &Sandbox) -> Vec<Seed> {
    let mut seeds = vec![(Layout::sample().to_bytes(), sample_files())];
    let files = vec![
        ("dir/text", b"some text, ".repeat(7_000)),
        ("w.bin", noise(5, 70_000)),
    ];
    sandbox.tree("model", &files);
    for compression in ["auto", "gzip:6", "zstd:3", "none"] {
        let options = ["--force", "--chunk-size", "64KiB", "--compression"];
        packing::pack(sandbox, &[&options[..], &[compression]].concat()).ok();
        seeds.push((fs::read(sandbox.path("m.tar")).unwrap(), files.clone()));
    }
    seeds
}

/// One change: of bits, bytes, blocks or length; aimed at headers and JSON as often as at data.
fn mutate(archive: &mut Vec<u8>, random: &mut Random) {
    let len = archive.len();
    let at = match random.below(3) {
        // Headers, and documents behind them.
        0 => random.below(len / BLOCK) * BLOCK + random.below(160),
        1 => len - 1 - random.below(len.min(12_000)),
        _ => random.below(len),
    }
    .min(len - 1);
    match random.below(9) {
        0 | 1 => archive[at] ^= 1 << random.below(8),
        2 => archive[at] = random.next() as u8,
        3 => archive[at] = b"0123456789abcdef{}[]\":,\\/\0\xff"[random.below(27)],
        4 => archive.truncate(at),
        5 => {
            let block = random.below(len / BLOCK) * BLOCK;
            archive.drain(block..block + BLOCK);
        }
        6 => {
            let from = random.below(len / BLOCK) * BLOCK;
            let to = random.below(len / BLOCK) * BLOCK;
            archive.copy_within(from..from + BLOCK, to);
        }
        7 => {
            let block = archive[at / BLOCK * BLOCK..][..BLOCK].to_vec();
            archive.splice(at / BLOCK * BLOCK..at / BLOCK * BLOCK, block);
        }
        _ => {
            let end = (at + 1 + random.below(64)).min(len);
            archive[at..end].fill(random.next() as u8);
        }
    }
}

/// A header whose checksum is right again, so that what is behind it is reached.
fn reseal(archive: &mut [u8], random: &mut Random) {
    for block in archive.chunks_exact_mut(BLOCK) {
        if &block[257..262] == b"ustar" && random.below(2) == 0 {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Through the library, which is the same code without a process each: thousands of changes.
#[test]
fn t0_thousands_of_random_changes() {
    let sandbox = Sandbox::new();
    let options = OpenOptions {
        cache_bytes: 1 << 20,
        readahead: false,
        ..OpenOptions::default()
    };
    let mut random = Random(0x6d75_7461);
    let mut opened = 0;
    for (archive, files) in seeds(&sandbox) {
        for round in 0..300 {
            let mut changed = archive.clone();
            for _ in 0..=random.below(3) {
                if changed.len() > 2 * BLOCK {
                    mutate(&mut changed, &mut random);
                }
            }
            reseal(&mut changed, &mut random);
            let path = sandbox.write("changed.tar", &changed);
            let model = match Model::open(&path, &options) {
                Ok(model) => model,
                Err(error) => {
                    let kind = error.kind();
                    let expected = matches!(kind, ErrorKind::Malformed | ErrorKind::Corrupt);
                    assert!(expected, "round {round}: {error}");
                    continue;
                }
            };
            opened += 1;
            // Digests chain from the index: a model that opens has the right files or bad ones.
            if changed == archive {
                continue;
            }
            for file in model.files() {
                let mut found = Vec::new();
                let outcome = loop {
                    match model.read_at(file.inode, found.len() as u64, 50_000) {
                        Ok(bytes) if bytes.is_empty() => break Ok(()),
                        Ok(bytes) => found.extend_from_slice(&bytes),
                        Err(error) => break Err(error),
                    }
                };
                let expected = files.iter().find(|(path, _)| *path == file.path.as_str());
                match (outcome, expected) {
                    (Ok(()), Some((path, bytes))) => {
                        assert!(found == *bytes, "round {round}: other bytes of {path}");
                    }
                    (Ok(()), None) => panic!("round {round}: a file {} appeared", file.path),
                    (Err(error), _) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
                }
            }
        }
    }
    assert!(opened > 50, "only {opened} were opened at all");
}

/// Through the binary: fewer, with bounded time and memory.
#[test]
fn t0_random_changes_through_the_binary() {
    let sandbox = Sandbox::new();
    let mut random = Random(0x6269_6e21);
    for (archive, files) in seeds(&sandbox) {
        for round in 0..25 {
            let mut changed = archive.clone();
            mutate(&mut changed, &mut random);
            reseal(&mut changed, &mut random);
            sandbox.write("changed.tar", &changed);
            let run = sandbox.run_bounded(&["inspect", "changed.tar", "--json", "-j", "2"]);
            let run = run.sober();
            match run.code {
                Some(0) => {
                    let json = run.json();
                    assert_eq!(json["layers"].as_array().unwrap().len(), files.len());
                    for (layer, (path, bytes)) in
                        json["layers"].as_array().unwrap().iter().zip(&files)
                    {
                        assert_eq!(layer["path"], *path, "round {round}");
                        assert_eq!(layer["digest"], modeloci::Digest::sha256(bytes).to_string());
                    }
                }
                Some(1 | 3) => assert!(run.stderr.contains("error: "), "{run:?}"),
                _ => panic!("round {round}: {run:?}"),
            }
        }
    }
}
