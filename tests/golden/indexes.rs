//! Indexes of foreign layers that an earlier run kept: used where they are of this version, dropped
//! where they are of another, and never misread.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::golden;
use crate::support::compressed::{stored_gzip, stored_zstd};
use crate::support::forge::{Header, Tar};
use crate::support::{noise, sha256, write_layers};
use crate::workspace::{Workspace, output};

/// Where the version stands in an index: the last byte of its magic.
const VERSION: usize = 7;
/// Of the file in each layer: more than one span of a gzip layer.
const FILE_BYTES: usize = (9 << 19) + 123;

/// A layer without a chunk table. Its bytes are the same whatever libraries write: nothing of it is
/// compressed.
struct Layer {
    media_type: &'static str,
    blob: Vec<u8>,
}

/// The tar of one file, `weights.bin`.
fn tar(bytes: &[u8]) -> Vec<u8> {
    let mtime = format!("{:011o}\0", 1_600_000_000);
    let header = Header::file("weights.bin", bytes.len() as u64).put(136, mtime.as_bytes());
    Tar::new().entry(header, bytes).end()
}

/// A frame for each megabyte.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(1 << 20).flat_map(stored_zstd).collect()
}

fn layers(bytes: &[u8]) -> [Layer; 3] {
    let tar = tar(bytes);
    let layer = |media_type, blob| Layer { media_type, blob };
    [
        layer(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            stored_gzip(&tar),
        ),
        layer("application/vnd.oci.image.layer.v1.tar+zstd", zstd(&tar)),
        layer("application/octet-stream", bytes.to_vec()),
    ]
}

/// Mounts `m.tar`, reads all of it at random, unmounts, and waits until the process has ended.
#[track_caller]
fn reads(workspace: &Workspace, bytes: &[u8]) {
    let mount = workspace.mount(&workspace.path("m.tar"));
    let file = fs::File::open(mount.0.join("weights.bin")).unwrap();
    let mut part = vec![0; 30_000];
    for at in (0..FILE_BYTES - part.len()).step_by(654_321).rev() {
        file.read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == bytes[at..at + part.len()], "at {at}");
    }
    drop(file);
    assert!(fs::read(mount.0.join("weights.bin")).unwrap() == bytes);
    let status = output(workspace.modeloci(&["status", "--json"]).arg(&mount.0));
    let status: Value = serde_json::from_slice(&status).unwrap();
    let process = PathBuf::from(format!("/proc/{}", status["pid"]));
    let mountpoint = mount.0.clone();
    drop(mount);
    fs::remove_dir(mountpoint).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while process.exists() {
        assert!(Instant::now() < end, "the process does not end");
        thread::sleep(Duration::from_millis(5));
    }
}

/// As a program of another version would write it: with a sum that is right.
fn of_version(index: &[u8], version: u8) -> Vec<u8> {
    let mut index = index[..index.len() - 32].to_vec();
    index[VERSION] = version;
    let sum = Sha256::digest(&index);
    index.extend_from_slice(&sum);
    index
}

fn overwrite(index: &Path, bytes: &[u8]) -> u64 {
    let mut file = fs::File::create(index).unwrap();
    file.write_all(bytes).unwrap();
    file.metadata().unwrap().ino()
}

#[test]
fn a_kept_index_is_used_or_dropped_and_never_misread() {
    let bytes = &noise(29, FILE_BYTES);
    // Side by side: a process that was unmounted takes a moment to end.
    thread::scope(|scope| {
        for layer in layers(bytes) {
            scope.spawn(move || check(&layer, bytes));
        }
    });
}

fn check(Layer { media_type, blob }: &Layer, bytes: &[u8]) {
    let workspace = Workspace::new();
    let archive = workspace.path("m.tar");
    let titled = ("weights.bin".to_string(), blob);
    write_layers(&archive, media_type, [titled].into_iter());
    let name = format!("sha256-{}.idx", sha256(blob));
    let path = workspace.cache().join("seek-tables").join(&name);
    let ino = || fs::metadata(&path).unwrap().ino();

    // This version's own.
    reads(&workspace, bytes);
    let own = fs::read(&path).unwrap();
    let version = own[VERSION];
    let golden = fs::read(golden(&name)).unwrap();

    let written = overwrite(&path, &golden);
    reads(&workspace, bytes);
    if golden[VERSION] == version {
        assert!(fs::read(&path).unwrap() == golden, "{media_type}");
        assert_eq!(ino(), written, "{media_type}: used, not written anew");
    } else {
        assert!(fs::read(&path).unwrap() == own, "{media_type}: dropped");
    }

    for other in [version - 1, version + 1] {
        let written = overwrite(&path, &of_version(&golden, other));
        reads(&workspace, bytes);
        let kept = fs::read(&path).unwrap();
        assert!(kept == own, "{media_type}: of version {other}");
        assert_ne!(ino(), written, "{media_type}: of version {other}");
    }

    // The control: this version's own is used.
    let written = overwrite(&path, &own);
    reads(&workspace, bytes);
    assert_eq!(ino(), written, "{media_type}");
}
