//! Random models against a reference that cannot be wrong: a map from paths to bytes.
//!
//! A random tree is written to a directory and packed; the archive is then read back by random
//! operations, from several threads at once, through [`Model`] and (fewer times) through a real
//! mount, and every answer is compared with the map's.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support::mount as support;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::thread;

use modeloci::model::{Inode, NodeKind, OpenOptions};
use modeloci::oci::OciConfig;
use modeloci::pack::{self, Output, PackOptions};
use modeloci::{Algorithm, Compression, Model};
use modeloci_test_support::random::Random;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The reference: path to content.
type Files = BTreeMap<String, Vec<u8>>;

const CHUNK: u32 = 64 << 10;
const THREADS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    /// Looks a path up: one of the model's (by number), or one that is not there.
    Lookup(usize, Option<String>),
    /// Lists the parent directory of a file, continuing at every `step`-th offset.
    List(usize, usize),
    /// Reads a range, given in 65,536ths of the file's size and in bytes.
    Read(usize, u16, usize),
}

/// Content of every kind that the encoder tells apart, of sizes around the chunk boundaries.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let chunk = CHUNK as usize;
    let size = prop_oneof![
        3 => 0usize..600,
        1 => Just(chunk - 1),
        1 => Just(chunk),
        1 => Just(chunk + 1),
        2 => 0usize..5 * chunk,
    ];
    (size, 0u8..4, any::<u64>()).prop_map(|(size, kind, seed)| {
        let mut random = Random(seed | 1);
        (0..size)
            .map(|n| match kind {
                0 => random.next() as u8,
                // The bytes of weights: every other one from a skewed distribution.
                1 if n % 2 == 1 => 0x3c | (random.next() & random.next() & 3) as u8,
                1 => random.next() as u8,
                2 => b"{\"tensor\": [1, 22, 333], }"[(n + (n / 97) * (seed as usize % 7)) % 26],
                _ => 0,
            })
            .collect()
    })
}

fn files() -> impl Strategy<Value = Files> {
    let name = prop_oneof![
        4 => "[a-c]{1,2}",
        1 => "[a-z .~+-]{0,6}[a-zé코]",
        1 => Just("model-00001-of-00002.safetensors".to_string()),
    ];
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    prop::collection::btree_map(path, content(), 0..9).prop_map(|files| {
        // A path that is also a directory cannot be on a disk.
        let directories: BTreeSet<String> = files
            .keys()
            .flat_map(|path| {
                path.match_indices('/')
                    .map(|(end, _)| path[..end].to_string())
            })
            .collect();
        files
            .into_iter()
            .filter(|(path, _)| !directories.contains(path))
            .collect()
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        1 => (any::<usize>(), prop::option::of("[a-d]{1,2}(/[a-d])?")).prop_map(|(n, absent)| Op::Lookup(n, absent)),
        1 => (any::<usize>(), 1usize..4).prop_map(|(n, step)| Op::List(n, step)),
        4 => (any::<usize>(), any::<u16>(), 0usize..200_000).prop_map(|(n, at, len)| Op::Read(n, at, len)),
    ];
    prop::collection::vec(op, 1..40)
}

fn options() -> impl Strategy<Value = PackOptions> {
    let compression = prop_oneof![
        4 => Just(Compression::Auto),
        1 => (1u8..=9).prop_map(Compression::Gzip),
        1 => (1u8..=5).prop_map(Compression::Zstd),
        1 => Just(Compression::None),
    ];
    let digest = prop_oneof![Just(Algorithm::Blake3), Just(Algorithm::Sha256)];
    (compression, digest, 1usize..4).prop_map(|(compression, chunk_digest, jobs)| PackOptions {
        compression,
        chunk_digest,
        jobs,
        chunk_size: CHUNK,
        ..PackOptions::default()
    })
}

fn write_tree(root: &Path, files: &Files) {
    fs::create_dir(root).unwrap();
    for (number, (path, content)) in files.iter().enumerate() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if number % 3 == 2 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// Packs `files`; returns the archive's path.
fn packed(dir: &Path, files: &Files, options: &PackOptions) -> std::path::PathBuf {
    write_tree(&dir.join("model"), files);
    let archive = dir.join("model.tar");
    let config = OciConfig {
        model_name: "random".into(),
        version: "1".into(),
        framework: "none".into(),
        architecture: "none".into(),
        metadata: Default::default(),
    };
    let output = Output::File(archive.clone());
    let done = pack::pack(&dir.join("model"), &config, &output, options, &|_, _| ()).unwrap();
    assert_eq!(done.files, files.len() as u64);
    archive
}

/// Names in the directory that holds `path`, as the reference knows them.
fn siblings<'a>(files: &'a Files, path: &str) -> BTreeSet<&'a str> {
    let directory = path.rfind('/').map_or("", |end| &path[..=end]);
    files
        .keys()
        .filter_map(|other| other.strip_prefix(directory))
        .map(|rest| rest.split('/').next().unwrap())
        .collect()
}

fn pick(files: &Files, number: usize) -> Option<(&String, &Vec<u8>)> {
    files.iter().nth(number.checked_rem(files.len())?)
}

fn range(content: &[u8], at: u16, len: usize) -> (u64, &[u8]) {
    // One past the end is asked for too.
    let start = (content.len() + 1) * usize::from(at) / 65_535;
    let end = content.len().min(start + len);
    (start as u64, content.get(start..end).unwrap_or_default())
}

fn exists(files: &Files, path: &str) -> bool {
    files.contains_key(path)
        || files
            .keys()
            .any(|other| other.starts_with(&format!("{path}/")))
}

fn check_model(model: &Model, files: &Files, op: &Op) {
    match op {
        Op::Lookup(_, Some(path)) => {
            assert_eq!(model.find(path).is_some(), exists(files, path), "{path}");
        }
        Op::Lookup(number, None) => {
            let Some((path, content)) = pick(files, *number) else {
                return;
            };
            let attr = model.find(path).unwrap();
            assert_eq!(
                (attr.kind, attr.size),
                (NodeKind::File, content.len() as u64),
                "{path}"
            );
            assert_eq!(model.file(attr.inode).unwrap().path.as_str(), path);
        }
        Op::List(number, step) => {
            let path = pick(files, *number).map_or("", |(path, _)| path);
            let directory = model
                .find(path.rfind('/').map_or("", |end| &path[..end]))
                .unwrap();
            let mut names = Vec::new();
            let mut offset = 0;
            loop {
                let part: Vec<_> = model
                    .readdir(directory.inode, offset)
                    .unwrap()
                    .take(*step)
                    .collect();
                let Some(last) = part.last() else { break };
                offset = last.next_offset;
                for entry in &part {
                    let found = model
                        .lookup(directory.inode, OsStr::new(entry.name))
                        .unwrap();
                    assert_eq!((found.inode, found.kind), (entry.inode, entry.kind));
                    names.push(entry.name);
                }
            }
            assert_eq!(names[..2], [".", ".."]);
            let found: BTreeSet<&str> = names[2..].iter().copied().collect();
            assert_eq!(found.len(), names.len() - 2, "a name came twice");
            assert_eq!(found, siblings(files, path));
        }
        Op::Read(number, at, len) => {
            let Some((path, content)) = pick(files, *number) else {
                return;
            };
            let inode = model.find(path).unwrap().inode;
            let (start, expected) = range(content, *at, *len);
            let found = model.read_at(inode, start, *len).unwrap();
            assert!(found == expected, "{path} from {start}, {len} bytes");
        }
    }
}

fn check_mount(root: &Path, files: &Files, op: &Op) {
    match op {
        Op::Lookup(_, Some(path)) => {
            assert_eq!(root.join(path).exists(), exists(files, path), "{path}");
        }
        Op::Lookup(number, None) => {
            let Some((path, content)) = pick(files, *number) else {
                return;
            };
            let found = fs::symlink_metadata(root.join(path)).unwrap();
            assert_eq!(
                (found.is_file(), found.size()),
                (true, content.len() as u64),
                "{path}"
            );
        }
        Op::List(number, _) => {
            let path = pick(files, *number).map_or("", |(path, _)| path);
            let directory = root.join(path.rfind('/').map_or("", |end| &path[..end]));
            let names: Vec<String> = fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            let found: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(found.len(), names.len(), "a name came twice");
            assert_eq!(found, siblings(files, path));
        }
        Op::Read(number, at, len) => {
            let Some((path, content)) = pick(files, *number) else {
                return;
            };
            let (start, expected) = range(content, *at, *len);
            let mut found = vec![0; expected.len()];
            let file = File::open(root.join(path)).unwrap();
            file.read_exact_at(&mut found, start).unwrap();
            assert!(found == expected, "{path} from {start}, {len} bytes");
        }
    }
}

/// Runs every thread's operations at the same time.
fn on_threads(ops: &[Vec<Op>], check: impl Fn(&Op) + Sync) {
    thread::scope(|scope| {
        for ops in ops {
            scope.spawn(|| ops.iter().for_each(&check));
        }
    });
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

#[test]
fn random_operations_on_a_model_agree_with_a_map() {
    let threads = prop::collection::vec(ops(), THREADS);
    runner(150)
        .run(
            &(files(), options(), threads, 0u64..2_000_000),
            |(files, options, ops, cache)| {
                let dir = tempfile::tempdir().unwrap();
                let archive = packed(dir.path(), &files, &options);
                let open = OpenOptions {
                    cache_bytes: cache,
                    ..OpenOptions::default()
                };
                let model = Model::open(archive, &open).unwrap();
                assert_eq!(model.files().len(), files.len());
                assert_eq!(model.attr(Inode::ROOT).unwrap().kind, NodeKind::Directory);
                on_threads(&ops, |op| check_model(&model, &files, op));
                for file in model.files() {
                    model.verify(file.inode).unwrap();
                }
                assert!(model.cache_used() <= cache);
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn random_operations_on_a_mount_agree_with_a_map() {
    let threads = prop::collection::vec(ops(), THREADS);
    runner(8)
        .run(&(files(), options(), threads), |(files, options, ops)| {
            let dir = tempfile::tempdir().unwrap();
            let archive = packed(dir.path(), &files, &options);
            let mount = support::Mount::new(&archive);
            on_threads(&ops, |op| check_mount(mount.path(), &files, op));
            Ok(())
        })
        .unwrap();
}
