//! What readers see: exact bytes, however they read, and what the kernel keeps.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;

use crate::harness::{Mapped, PACKAGINGS, Packaging, Scene, sample};
use crate::support;
use crate::support::random::Random;

#[test]
fn every_file_has_its_bytes() {
    for scene in Scene::each() {
        let mount = scene.mount(&["--cache-size", "8MiB"]);
        for (name, bytes) in &scene.files {
            assert_eq!(&fs::read(mount.path(name)).unwrap(), bytes, "{name}");
        }
        let status = mount.status();
        assert_eq!(status["files"], scene.files.len());
        assert_eq!(status["failures"], 0);
        assert_eq!(status["panics"], 0);
        assert_eq!(status["manifest_digest"], scene.digest);
        let out = Command::new(mount.path("nested/deep/run.sh"))
            .output()
            .unwrap();
        assert_eq!(out.stdout, b"served\n", "executables run");
        mount.unmount();
    }
}

#[test]
fn many_ranges_on_one_shared_descriptor() {
    Scene::each().for_each(shared_descriptor);
}

fn shared_descriptor(scene: Scene) {
    // A cache of less than two chunks: they come and go under the readers.
    let mount = scene.mount(&["--cache-size", "1500KiB"]);
    let bytes = Arc::new(scene.bytes("weights.bin").to_vec());
    let file = Arc::new(File::open(mount.path("weights.bin")).unwrap());
    // Without readahead every read is a request of its own.
    rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::Random).unwrap();
    let readers: Vec<_> = (0..32u64)
        .map(|seed| {
            let (bytes, file) = (Arc::clone(&bytes), Arc::clone(&file));
            thread::spawn(move || {
                let mut random = Random(seed + 1);
                for _ in 0..100 {
                    let start = random.below(bytes.len());
                    let len = random.below(200_000).min(bytes.len() - start);
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
    Scene::each().for_each(map_and_send);
}

fn map_and_send(scene: Scene) {
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

/// Every one of a thousand readers wants another page of the same chunk, at the same time.
#[test]
fn r10_one_decode_for_a_thousand_readers() {
    const READERS: usize = 1000;
    for packaging in PACKAGINGS {
        let mut scene = Scene::empty(packaging);
        let text: Vec<u8> = (0..)
            .flat_map(|n: u32| {
                format!("{} lines of text\n", n.wrapping_mul(2_654_435_761)).into_bytes()
            })
            .take(READERS * 4096)
            .collect();
        if packaging == Packaging::Foreign {
            scene = Scene::of(vec![("text".into(), text.clone())]);
        } else {
            fs::create_dir(scene.path("model")).unwrap();
            fs::write(scene.path("model/text"), &text).unwrap();
            scene.pack(&["--chunk-size", "4MiB"]);
        }
        let mount = scene.mount(&[]);
        let file = File::open(mount.path("text")).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        let start = Barrier::new(READERS);
        thread::scope(|scope| {
            for reader in 0..READERS {
                let (file, start, text) = (&file, &start, &text);
                scope.spawn(move || {
                    let at = reader * 4096;
                    let mut page = [0; 4096];
                    start.wait();
                    file.read_exact_at(&mut page, at as u64).unwrap();
                    assert!(page == text[at..at + 4096]);
                });
            }
        });
        let status = mount.status();
        assert_eq!(status["read_requests"], READERS, "{packaging:?}");
        // The chunk, and the tar header before it, which is a segment of its own.
        let decodes = 1 + u64::from(packaging != Packaging::Foreign);
        assert_eq!(status["chunks_decoded"], decodes, "{packaging:?}: {status}");
        assert_eq!(status["failures"], 0);
    }
}

/// Several requests are for one chunk then: who waits for it decodes another.
#[test]
fn r10_chunks_that_are_larger_than_requests_are_decoded_once() {
    let mut scene = Scene::empty(Packaging::Packed("auto"));
    let bytes = support::noise(8, (21 << 20) + 5);
    fs::create_dir(scene.path("model")).unwrap();
    fs::write(scene.path("model/w.bin"), &bytes).unwrap();
    for chunk_size in ["1MiB", "4MiB", "16MiB"] {
        scene.pack(&["--chunk-size", chunk_size]);
        let mount = scene.mount(&[]);
        assert!(fs::read(mount.path("w.bin")).unwrap() == bytes);
        let chunks = (21 << 20) / modeloci::byte_size::parse_size(chunk_size).unwrap() + 1;
        // And the tar header in front of them.
        assert_eq!(mount.count("chunks_decoded"), chunks + 1, "{chunk_size}");
    }
}

/// Also more than the cache holds.
#[test]
fn what_was_prefetched_needs_no_request() {
    for packaging in PACKAGINGS {
        let mut files = sample();
        let weights = (0..3u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
        files.push(("more.bin".into(), weights.collect()));
        let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let scene = Scene::packaged(packaging, files);
        // Another test has the kernel drop its caches, and it may do so itself: not every time.
        let kept = (0..5).any(|_| {
            let _ = fs::remove_file(scene.path("log"));
            let log = scene.path("log");
            let log = log.to_str().unwrap();
            let mount = scene.mount(&["--prefetch", "--log-file", log, "--cache-size", "4MiB"]);
            scene.until_prefetched();
            let prefetched = mount.count("prefetched_bytes") == total as u64;
            let mut verified = [0; 8];
            let name = mount.path("more.bin");
            let len = rustix::fs::getxattr(name, "user.modeloci.verified", &mut verified[..]);
            assert_eq!(&verified[..len.unwrap()], b"true");
            for (name, bytes) in &scene.files {
                assert!(&fs::read(mount.path(name)).unwrap() == bytes);
            }
            // The kernel gives pages up when it is short of memory, and some do so early.
            prefetched && mount.count("bytes_served") < total as u64 / 4
        });
        assert!(kept, "{packaging:?}");
    }
}

/// What the kernel has asked for already is not read again.
#[test]
fn prefetch_leaves_out_what_was_read() {
    let bytes = support::noise(5, 24 << 20);
    let scene = Scene::packaged(Packaging::Packed("none"), vec![("w.bin".into(), bytes)]);
    let mount = scene.mount(&[
        "--prefetch",
        "--log-file",
        scene.path("log").to_str().unwrap(),
    ]);
    assert!(fs::read(mount.path("w.bin")).unwrap() == scene.files[0].1);
    scene.until_prefetched();
    let status = mount.status();
    let count = |name: &str| status[name].as_u64().unwrap();
    // Whoever came first; what both asked for at once may count twice.
    let both = count("bytes_served") + count("prefetched_bytes");
    assert!(count("bytes_served") > 0, "{status}");
    assert!((24 << 20..26 << 20).contains(&both), "{status}");
}
