//! Models of many files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;

use serde_json::json;

use crate::harness::{Packaging, Scene};
use crate::size;
use crate::support;
use crate::workspace::files_below;

/// 10,000 small files in 101 directories.
fn small_files() -> Vec<(String, Vec<u8>)> {
    let noise = support::noise(21, 20_000);
    (0..10_000)
        .map(|n| {
            let (start, len) = (n * 7 % 9_000, n * 37 % 9_001);
            let directory = n % 101;
            let name = format!("shards/{directory:03}/part-{n:05}.bin");
            (name, noise[start..start + len].to_vec())
        })
        .collect()
}

/// Reads and compares everything, twice: cold and warm.
fn compare_everything(root: &Path, files: &[(String, Vec<u8>)]) {
    for _ in 0..2 {
        let mut expected: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
        expected.sort();
        let listed: Vec<_> = files_below(root)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(listed == expected, "{} of {}", listed.len(), expected.len());
        for (name, bytes) in files {
            let path = root.join(name);
            let meta = fs::metadata(&path).unwrap();
            assert_eq!(
                (meta.size(), meta.mode()),
                (bytes.len() as u64, 0o100444),
                "{name}"
            );
            assert!(&fs::read(&path).unwrap() == bytes, "{name}");
        }
    }
}

#[test]
fn ten_thousand_files() {
    let files = small_files();
    let packagings = [Packaging::Packed("auto"), Packaging::Packed("zstd")];
    for packaging in packagings.into_iter().take(size(1, 2)) {
        let scene = Scene::packaged(packaging, files.clone());
        let mount = scene.mount(&[]);
        compare_everything(&mount.0, &files);
        let status = mount.status();
        assert_eq!(
            (&status["files"], &status["failures"]),
            (&json!(10_000), &json!(0))
        );
        let stat = rustix::fs::statvfs(&mount.0).unwrap();
        assert_eq!(stat.f_files, 10_000 + 101 + 2);
        scene.run(&["unpack", "m.tar", "out"]).ok();
        let unpacked = files_below(&scene.path("out"));
        assert_eq!(unpacked.len(), files.len());
    }
}

#[test]
fn ten_thousand_foreign_files() {
    let files = small_files();
    let scene = Scene::of(files.clone());
    let mount = scene.mount(&["--no-index"]);
    compare_everything(&mount.0, &files);
    assert_eq!(mount.count("failures"), 0);
}

/// As many files as a manifest can name, all of one blob, in one directory.
#[test]
fn n1_the_largest_directory() {
    // Two JSON objects for each, of at most 65,536.
    const FILES: usize = 32_700;
    let scene = Scene::empty(Packaging::Foreign);
    let names: BTreeSet<String> = (0..FILES).map(|n| format!("file-{n:06}")).collect();
    let layers = names
        .iter()
        .map(|name| (format!("many/{name}"), b"the one content"));
    let raw = "application/vnd.cncf.model.weight.v1.raw";
    support::write_layers(&scene.path("m.tar"), raw, layers);
    let mount = scene.mount(&[]);
    let many = mount.path("many");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let entries = fs::read_dir(&many).unwrap();
                let listed: Vec<_> = entries
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                assert_eq!(listed.len(), FILES);
                assert!(listed.into_iter().collect::<BTreeSet<_>>() == names);
            });
        }
    });
    for name in names.iter().step_by(331) {
        let content = std::io::read_to_string(File::open(many.join(name)).unwrap()).unwrap();
        assert_eq!(content, "the one content");
    }
    assert_eq!(mount.count("files"), FILES as u64);
}
