//! fio verifies through the mount what fio wrote before it was packed: every block carries a
//! checksum of its own and its offset.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{PACKAGINGS, Packaging, Run, Scene};
use crate::size;
use crate::support;
use crate::workspace::{files_below, has};

/// Files of `many`.
const FILES: usize = 64;

/// One large file, or many: names for fio, and bytes of each.
struct Target {
    names: String,
    file_bytes: usize,
    files: usize,
}

fn targets() -> [Target; 2] {
    let names: Vec<_> = (0..FILES).map(|n| format!("many/{n:02}")).collect();
    [
        Target {
            names: "one".into(),
            file_bytes: size(8 << 20, 256 << 20),
            files: 1,
        },
        Target {
            names: names.join(":"),
            file_bytes: size(128 << 10, 1 << 20),
            files: FILES,
        },
    ]
}

impl Target {
    /// fio on these files of a directory.
    fn fio(&self, directory: &Path, options: &[&str]) -> Run {
        let mut command = Command::new("fio");
        command
            .args(["--name=job", "--bs=16k", "--verify=crc32c"])
            .args(["--verify_state_save=0", "--verify_fatal=1"])
            .arg(format!("--directory={}", directory.display()))
            .arg(format!("--filename={}", self.names))
            .arg(format!("--nrfiles={}", self.files))
            .arg(format!("--filesize={}", self.file_bytes))
            .arg(format!("--size={}", self.file_bytes * self.files))
            .args(options);
        Run::of(&mut command)
    }
}

/// Has fio write the directory `model`, blocks that shrink among blocks that do not.
fn write_model(scene: &Scene) {
    let model = scene.path("model");
    fs::create_dir_all(model.join("many")).unwrap();
    for target in targets() {
        let options = [
            "--rw=write",
            "--do_verify=0",
            "--buffer_compress_percentage=60",
        ];
        target.fio(&model, &options).ok();
    }
    assert_eq!(files_below(&model).len(), 1 + FILES);
}

/// Makes an archive of the directory `model`.
fn package(scene: &mut Scene) {
    if scene.packaging != Packaging::Foreign {
        // Chunks that end within a block of fio.
        return scene.pack(&["--chunk-size", "64KiB"]);
    }
    let files: Vec<_> = files_below(&scene.path("model"))
        .into_iter()
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect();
    let list: Vec<_> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    scene.digest = support::write_archive(&scene.path("m.tar"), &list);
}

const READ_ONLY: [&str; 3] = ["--readonly", "--thread", "--group_reporting"];

fn verifies(packaging: Packaging) {
    if !has("fio") {
        return;
    }
    let mut scene = Scene::empty(packaging);
    write_model(&scene);
    package(&mut scene);
    fs::remove_dir_all(scene.path("model")).unwrap();
    for target in targets() {
        for order in ["read", "randread"] {
            for (jobs, engine) in [(1, "psync"), (8, "mmap"), (64, "psync")] {
                // Cold, and with a cache that all of it does not fit into.
                let mount = scene.mount(&["--cache-size", size("4MiB", "256MiB")]);
                let options = [
                    &format!("--rw={order}"),
                    &format!("--numjobs={jobs}"),
                    &format!("--ioengine={engine}"),
                ];
                let options = [&READ_ONLY[..], &options.map(String::as_str)].concat();
                target.fio(&mount.0, &options).ok();
                let status = mount.status();
                assert_eq!(status["failures"], 0, "{status}");
                // Everything was read: a job that finds nothing to verify passes, too.
                let bytes = (target.file_bytes * target.files) as u64;
                assert!(
                    status["bytes_served"].as_u64().unwrap() >= bytes,
                    "{status}"
                );
            }
        }
    }
}

#[test]
fn fio_verifies_foreign() {
    verifies(Packaging::Foreign);
}

#[test]
fn fio_verifies_auto() {
    verifies(Packaging::Packed("auto"));
}

#[test]
fn fio_verifies_gzip() {
    verifies(Packaging::Packed("gzip:6"));
}

#[test]
fn fio_verifies_zstd() {
    verifies(Packaging::Packed("zstd"));
}

#[test]
fn fio_verifies_none() {
    verifies(Packaging::Packed("none"));
}

/// What the other tests rest on: fio does notice, however it reads.
#[test]
fn fio_notices_one_other_byte() {
    if !has("fio") {
        return;
    }
    for packaging in PACKAGINGS {
        let mut scene = Scene::empty(packaging);
        write_model(&scene);
        for (name, at) in [("one", 5_000_000), ("many/63", 130_000)] {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true);
            let file = file.open(scene.path("model").join(name)).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        }
        package(&mut scene);
        fs::remove_dir_all(scene.path("model")).unwrap();
        let mount = scene.mount(&[]);
        for target in targets() {
            for order in ["--rw=read", "--rw=randread"] {
                for engine in ["--ioengine=psync", "--ioengine=mmap"] {
                    let options = [&READ_ONLY[..], &[order, engine, "--numjobs=8"]].concat();
                    let done = target.fio(&mount.0, &options);
                    // All of its jobs.
                    assert_eq!(
                        done.code,
                        Some(8),
                        "{packaging:?} {}{}",
                        done.text(),
                        done.stderr
                    );
                    assert!(
                        done.text().contains("err=84"),
                        "{}{}",
                        done.text(),
                        done.stderr
                    );
                }
            }
        }
    }
}
