//! What `pack` writes is read by everybody else: layers by other gzip, zstd and tar readers, the
//! archive by other OCI tools, and the chunk tables by a second implementation of their page.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use modeloci_test_support::{self as support, workspace};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

mod oci;
mod programs;
mod tables;

use workspace::{Workspace, files_below, shell};

/// The size that files are chosen around. Small chunks make many segments of little data.
const CHUNK: usize = 64 << 10;
const CHUNK_OPTIONS: [&str; 2] = ["--chunk-size", "64KiB"];

/// A file of the tests beside this one.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(name)
}

/// A model with what can go wrong: every kind of data, sizes around a chunk's, unusual names.
fn model(workspace: &Workspace) -> PathBuf {
    let mut text = Vec::new();
    for n in 0..6000u32 {
        text.extend_from_slice(
            format!("\"token {n}\": {},\n", n.wrapping_mul(2_654_435_761)).as_bytes(),
        );
    }
    let files: [(&str, Vec<u8>); 15] = [
        ("config.json", b"{\"layers\": 2}\n".to_vec()),
        ("empty", Vec::new()),
        ("one", b"1".to_vec()),
        ("nested/deeper/run.sh", b"#!/bin/sh\n".to_vec()),
        ("tokenizer.json", text),
        ("weights-bf16.bin", bf16(5 * CHUNK + 34)),
        ("weights-random.bin", support::noise(3, 3 * CHUNK + 17)),
        // More chunks than one table member can describe.
        ("zeros.bin", vec![0; 130 * CHUNK]),
        ("size/chunk-minus-1.bin", bf16(CHUNK - 1)),
        ("size/chunk.bin", bf16(CHUNK)),
        ("size/chunk-plus-1.bin", bf16(CHUNK + 1)),
        ("size/stored-chunk.bin", support::noise(4, CHUNK)),
        ("name with 'quotes' \" and spaces", b"quoted".to_vec()),
        ("имя/モデル", "имя".repeat(1000).into_bytes()),
        // More than a ustar header can hold.
        (
            concat!(
                "long/model.layers.0000000000000000000000000000000000000000000000000000000000000",
                "000000000000000000000000000000000000000000000000000000000000000000000.weight.bin"
            ),
            b"long".to_vec(),
        ),
    ];
    for (name, bytes) in &files {
        workspace.write(&format!("model/{name}"), bytes);
    }
    workspace.path("model")
}

/// Numbers as weights have them, in bfloat16: the upper half of normally distributed floats.
fn bf16(len: usize) -> Vec<u8> {
    let noise = support::noise(11, len * 4);
    let mut bytes: Vec<u8> = noise
        .chunks_exact(8)
        .flat_map(|random| {
            // The sum of uniform numbers is near enough to a normal one.
            let sum: i32 = random.iter().map(|byte| i32::from(*byte) - 128).sum();
            let weight = sum as f32 * 1e-4;
            let [_, _, low, high] = weight.to_le_bytes();
            [low, high]
        })
        .collect();
    bytes.truncate(len);
    bytes
}

/// Every file below `root`: SHA-256 and whether it is executable.
fn contents(root: &Path) -> BTreeMap<String, (String, bool)> {
    files_below(root)
        .into_iter()
        .map(|(name, path)| {
            let executable = path.metadata().unwrap().mode() & 0o111 != 0;
            (
                name,
                (support::sha256(&fs::read(path).unwrap()), executable),
            )
        })
        .collect()
}

/// An archive taken apart by GNU tar.
struct Layout {
    root: PathBuf,
    manifest: Value,
}

impl Layout {
    fn of(workspace: &Workspace, archive: &Path) -> Layout {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let root = workspace.path(format!("layout-{name}"));
        fs::create_dir(&root).unwrap();
        shell("tar -xf \"$1\" -C \"$2\"", &[archive, &root]);
        let manifest = fs::read(root.join("manifest.json")).unwrap();
        let manifest = serde_json::from_slice(&manifest).unwrap();
        Layout { root, manifest }
    }

    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.root.join("blobs").join(digest.replace(':', "/"))
    }

    /// The blobs of the layers, in the manifest's order.
    fn layers(&self) -> Vec<PathBuf> {
        let layers = self.manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| self.blob(layer)).collect()
    }
}
