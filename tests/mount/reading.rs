//! What readers see: exact bytes, however they read, and what the kernel keeps.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use crate::harness::{Mapped, Scene, until};

#[test]
fn every_file_has_its_bytes() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    for (name, bytes) in &scene.files {
        assert_eq!(&fs::read(mount.path(name)).unwrap(), bytes, "{name}");
    }
    let status = mount.status();
    assert_eq!(status["files"], scene.files.len());
    assert_eq!(status["failures"], 0);
    assert_eq!(status["panics"], 0);
    let out = Command::new(mount.path("nested/deep/run.sh"))
        .output()
        .unwrap();
    assert_eq!(out.stdout, b"served\n", "executables run");
}

#[test]
fn random_ranges_from_many_threads() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let bytes = Arc::new(scene.bytes("weights.bin").to_vec());
    let file = Arc::new(File::open(mount.path("weights.bin")).unwrap());
    let readers: Vec<_> = (0..8u64)
        .map(|seed| {
            let (bytes, file) = (Arc::clone(&bytes), Arc::clone(&file));
            thread::spawn(move || {
                let mut state = seed + 1;
                for _ in 0..200 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005) + 1;
                    let start = (state >> 20) as usize % bytes.len();
                    let len = ((state >> 8) as usize % 200_000).min(bytes.len() - start);
                    let mut buf = vec![0; len];
                    file.read_exact_at(&mut buf, start as u64).unwrap();
                    assert!(buf == bytes[start..start + len], "{start}+{len}");
                }
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
    // At and after the end there is nothing, and no error.
    let mut buf = [0; 10];
    let end = bytes.len() as u64;
    assert_eq!(file.read_at(&mut buf, end - 3).unwrap(), 3);
    assert_eq!(file.read_at(&mut buf, end).unwrap(), 0);
    assert_eq!(
        file.read_at(&mut buf, u64::from(u32::MAX) << 16).unwrap(),
        0
    );
}

#[test]
fn loaders_map_and_send() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let bytes = scene.bytes("weights.bin");
    for flags in [
        libc::MAP_SHARED,
        libc::MAP_PRIVATE,
        libc::MAP_SHARED | libc::MAP_POPULATE,
    ] {
        assert!(Mapped::new(&mount.path("weights.bin"), flags).bytes() == bytes);
    }
    // The standard library copies files with copy_file_range and sendfile.
    let copy = scene.path("copy");
    fs::copy(mount.path("weights.bin"), &copy).unwrap();
    assert!(fs::read(&copy).unwrap() == bytes);
}

#[test]
fn a_warm_pass_reaches_no_process() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let pass = || {
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes);
        }
        assert!(fs::metadata(mount.path("absent")).is_err());
    };
    pass();
    let (reads, requests) = (mount.count("read_requests"), mount.count("requests"));
    assert!(reads > 0);
    pass();
    pass();
    assert_eq!(mount.count("read_requests"), reads);
    let more = mount.count("requests") - requests;
    // What asks for the status makes requests of its own.
    assert!(more <= 8, "{more} requests");
}

#[test]
fn an_archive_that_pack_wrote() {
    let scene = Scene::new();
    for (name, bytes) in &scene.files {
        let path = scene.path("model").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(bytes).unwrap();
    }
    for compression in ["auto", "none", "gzip:6"] {
        let pack = [
            "pack",
            "model",
            "--name",
            "m",
            "--version",
            "1",
            "--force",
            "-o",
            "m.tar",
            "--compression",
            compression,
        ];
        scene.run(&pack).ok();
        let mount = scene.mount(&["--cache-size", "8MiB"]);
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes, "{name}");
        }
        mount.umount(&[]).ok();
    }
}

#[test]
fn r10_one_decode_for_many_readers() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let path = mount.path("nested/tokenizer.json");
    let bytes = Arc::new(scene.bytes("nested/tokenizer.json").to_vec());
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let (path, bytes) = (path.clone(), Arc::clone(&bytes));
            thread::spawn(move || assert!(fs::read(path).unwrap() == *bytes))
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
    let decoded = mount.count("chunks_decoded");
    assert!(decoded <= 2, "{decoded} decodes");
}

#[test]
fn prefetch_warms_the_cache() {
    let scene = Scene::new();
    let log = scene.path("log");
    let mount = scene.mount(&["--prefetch", "--log-file", log.to_str().unwrap()]);
    until("prefetch is complete", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("prefetch is complete")
    });
    let before = mount.count("chunks_decoded");
    assert!(before > 0);
    assert_eq!(mount.count("read_requests"), 0, "not through the kernel");
    for (name, bytes) in &scene.files {
        assert!(&fs::read(mount.path(name)).unwrap() == bytes);
    }
    assert_eq!(mount.count("chunks_decoded"), before);
}
