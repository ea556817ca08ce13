//! The chunk tables, read by a second implementation of `docs/layer-format.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::workspace::{Workspace, has, output, python_has};
use super::{CHUNK_OPTIONS, beside, contents, model};

/// Runs the second implementation on the model packed with each of the options; it exits with 1 at
/// the first disagreement with the page. The chunks must have all of the kinds named.
fn second_implementation_agrees(cases: &[(&[&str], &[u64])]) {
    if !python_has("blake3") {
        return;
    }
    let workspace = Workspace::new();
    let model = model(&workspace);
    let expected: BTreeMap<_, _> = contents(&model)
        .into_iter()
        .map(|(name, (sha256, _))| (name, sha256))
        .collect();
    for (i, (options, kinds)) in cases.iter().enumerate() {
        let archive = workspace.pack(&model, &format!("{i}.tar"), options);
        let (found, found_kinds) = second_implementation(&archive);
        assert_eq!(found, expected, "{options:?}");
        assert_eq!(found_kinds, kinds.iter().copied().collect(), "{options:?}");
    }
}

/// What it says of an archive: the SHA-256 of each file, and the kinds of all chunks.
fn second_implementation(archive: &Path) -> (BTreeMap<String, String>, BTreeSet<u64>) {
    let json = output(
        Command::new("python3")
            .arg(beside("layer_reader.py"))
            .arg(archive),
    );
    let files: BTreeMap<String, Value> = serde_json::from_slice(&json).unwrap();
    let found = files
        .iter()
        .map(|(name, file)| (name.clone(), file["sha256"].as_str().unwrap().to_string()))
        .collect();
    let kinds = files
        .values()
        .flat_map(|file| file["kinds"].as_array().unwrap())
        .map(|kind| kind.as_u64().unwrap())
        .collect();
    (found, kinds)
}

#[test]
fn gzip_layers_are_what_the_page_says() {
    let [chunk, size] = CHUNK_OPTIONS;
    let none = [
        chunk,
        size,
        "--compression",
        "none",
        "--chunk-digest",
        "sha256",
    ];
    second_implementation_agrees(&[
        (&[], &[0, 1, 2]),
        (&[chunk, size], &[0, 1, 2]),
        (&[chunk, size, "--chunk-digest", "sha256"], &[0, 1, 2]),
        (&[chunk, size, "--compression", "gzip:1"], &[0, 1, 2]),
        (&[chunk, size, "--compression", "gzip:9"], &[0, 1, 2]),
        (&["--compression", "none"], &[0]),
        (&none, &[0]),
    ]);
}

#[test]
fn zstd_layers_are_what_the_page_says() {
    // The second implementation uses zstd's own tool to decode frames.
    if has("zstd") {
        let [chunk, size] = CHUNK_OPTIONS;
        let sha256 = [
            chunk,
            size,
            "--compression",
            "zstd:9",
            "--chunk-digest",
            "sha256",
        ];
        second_implementation_agrees(&[(&["--compression", "zstd"], &[3]), (&sha256, &[3])]);
    }
}

/// Nothing writes them any more: those of a golden archive.
#[test]
fn plain_layers_are_what_the_page_says() {
    if !python_has("blake3") {
        return;
    }
    let golden = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/golden")
            .join(name)
    };
    let tree: Value = serde_json::from_slice(&fs::read(golden("tree.json")).unwrap()).unwrap();
    let (found, kinds) = second_implementation(&golden("plain.tar"));
    assert_eq!((found.len(), kinds), (7, BTreeSet::from([4])));
    for (name, sha256) in found {
        assert_eq!(tree[&name]["sha256"], sha256, "{name}");
    }
}
