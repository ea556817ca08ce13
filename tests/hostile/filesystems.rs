//! k14: every command on the file systems that people have: some can less than others, and what they
//! cannot do is found out before the work, or done without.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::forge::noise;
use crate::sandbox::{Sandbox, available, names, needs_root};
use crate::workspace::files_below;

/// A file system, and how it is made and mounted: `$1` is a directory for what that needs, `$2` the mount
/// point.
struct FileSystem {
    /// As the kernel calls it; `fuse` where a program serves it.
    kernel: &'static str,
    program: &'static str,
    make: &'static str,
    /// Files have the modes that they were given.
    has_modes: bool,
    /// One directory can take the place of another at once.
    exchanges: bool,
}

impl FileSystem {
    /// One of the kernel, with all that ext4 has.
    const fn new(kernel: &'static str, program: &'static str, make: &'static str) -> FileSystem {
        FileSystem {
            kernel,
            program,
            make,
            has_modes: true,
            exchanges: true,
        }
    }
}

/// Unmounts it, and lets go of its image.
struct Mounted(PathBuf, PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let script =
            "umount -l \"$2\"; losetup -j \"$1/image\" | cut -d: -f1 | xargs -r losetup -d";
        let status = sh(script, &self.0, &self.1).status();
        assert!(status.is_ok_and(|s| s.success()) || std::thread::panicking());
    }
}

fn sh(script: &str, scratch: &Path, there: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(scratch).arg(there);
    command
}

impl FileSystem {
    /// Mounts it, where that can be done here.
    fn mount(&self, sandbox: &Sandbox) -> Option<Mounted> {
        let known = fs::read_to_string("/proc/filesystems").unwrap();
        if !known.split_whitespace().any(|name| name == self.kernel) {
            eprintln!("skipped: this kernel has no {}", self.kernel);
            return None;
        }
        let found = Command::new("which").arg(self.program).output();
        if !available(self.program, found.unwrap().status.success()) {
            return None;
        }
        let needs_loop = self.make.contains("loop") || self.make.contains("losetup");
        if needs_loop
            && !Command::new("losetup")
                .arg("-f")
                .output()
                .unwrap()
                .status
                .success()
        {
            eprintln!("skipped: there is no loop device");
            return None;
        }
        let (scratch, there) = (sandbox.mkdir("scratch"), sandbox.mkdir("there"));
        let script = format!("set -e; cd \"$1\"; truncate -s 600M image; {}", self.make);
        let output = sh(&script, &scratch, &there).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Some(Mounted(scratch, there))
    }
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = files_below(dir).into_iter();
    files
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

fn every_command_works_on(system: &FileSystem) {
    if !needs_root("mount a file system") {
        return;
    }
    let sandbox = Sandbox::new();
    let large = noise(1, 2_000_000);
    sandbox.tree(
        "model",
        &[
            ("large.bin", large.clone()),
            ("copy.bin", large),
            ("config.json", b"{}".to_vec()),
            ("sub/text", b"text\n".repeat(20_000)),
        ],
    );
    let model = contents(&sandbox.path("model"));
    let named = ["--name", "m", "--version", "1"];
    sandbox
        .run(&[&["pack", "model", "-o", "m.tar"][..], &named].concat())
        .ok();
    let Some(mounted) = system.mount(&sandbox) else {
        return;
    };
    let there = sandbox.path("there");
    let run = |args: &[&str]| sandbox.run(args);
    let mut copy = Command::new("cp");
    copy.arg("-r")
        .args([sandbox.path("model"), there.join("model")]);
    assert!(copy.status().unwrap().success());

    let pack = [&["pack", "there/model", "-o", "there/m.tar"][..], &named].concat();
    run(&pack).ok();
    if system.has_modes {
        let same =
            fs::read(there.join("m.tar")).unwrap() == fs::read(sandbox.path("m.tar")).unwrap();
        assert!(same, "the archive is the same wherever it is made");
    }
    run(&pack).fails(1, &["there/m.tar", "exists"]);
    run(&[&pack[..], &["--force"]].concat()).ok();

    run(&[
        "add-layer",
        "there/m.tar",
        "model/config.json",
        "--path",
        "added",
    ])
    .ok();
    let replace = [
        "add-layer",
        "there/m.tar",
        "model/sub/text",
        "--path",
        "added",
        "--replace",
    ];
    run(&replace).ok();
    run(&["verify", "there/m.tar"]).ok();
    assert_eq!(
        run(&["cat", "there/m.tar", "added"]).ok().stdout,
        model["sub/text"]
    );
    run(&["remove-layer", "there/m.tar", "added"]).ok();
    run(&["verify", "there/m.tar"]).ok();

    run(&["unpack", "there/m.tar", "there/out"]).ok();
    assert!(contents(&there.join("out")) == model);
    fs::remove_file(there.join("out/config.json")).unwrap();
    let again = run(&["unpack", "there/m.tar", "there/out", "--force"]);
    if system.exchanges {
        again.ok();
        assert!(contents(&there.join("out")) == model);
    } else {
        again.fails(
            1,
            &[
                "there/out",
                "cannot be replaced at once on this file system",
            ],
        );
        assert_eq!(contents(&there.join("out")).len(), model.len() - 1);
    }
    sandbox.mkdir("there/empty");
    run(&["unpack", "there/m.tar", "there/empty"]).ok();
    assert!(contents(&there.join("empty")) == model);

    sandbox.mkdir("there/mnt");
    let index = ["-o", "index_dir=there/index"];
    run(&[
        &["mount", "there/m.tar", "there/mnt", "--log-file", "log"][..],
        &index,
    ]
    .concat())
    .ok();
    let seen = contents(&there.join("mnt"));
    run(&["umount", "there/mnt"]).ok();
    assert!(seen == model);
    let mut left = names(&there);
    left.retain(|name| name != "index" && name != "lost+found");
    assert_eq!(left, ["empty", "m.tar", "mnt", "model", "out"]);
    drop(mounted);
}

#[test]
fn k14_tmpfs() {
    let make = "mount -t tmpfs tmpfs \"$2\"";
    every_command_works_on(&FileSystem::new("tmpfs", "mount", make));
}

#[test]
fn k14_overlay() {
    // An overlay cannot be the upper one of another, as in a container.
    let make = "mount -t tmpfs tmpfs \"$1\"; cd \"$1\"; mkdir lower upper work; \
                mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work \"$2\"; \
                umount -l \"$1\"";
    every_command_works_on(&FileSystem::new("overlay", "mount", make));
}

#[test]
fn k14_ext4() {
    let make = "mkfs.ext4 -q image; mount -o loop image \"$2\"";
    every_command_works_on(&FileSystem::new("ext4", "mkfs.ext4", make));
}

#[test]
fn k14_xfs() {
    let make = "mkfs.xfs -q image; mount -o loop image \"$2\"";
    every_command_works_on(&FileSystem::new("xfs", "mkfs.xfs", make));
}

#[test]
fn k14_btrfs() {
    let make = "mkfs.btrfs -q image; mount -o loop image \"$2\"";
    every_command_works_on(&FileSystem::new("btrfs", "mkfs.btrfs", make));
}

#[test]
fn k14_ntfs() {
    every_command_works_on(&FileSystem {
        has_modes: false,
        exchanges: false,
        ..FileSystem::new(
            "fuse",
            "ntfs-3g",
            "mkfs.ntfs -qFf image >&2; ntfs-3g image \"$2\"",
        )
    });
}

#[test]
fn k14_exfat() {
    let make = "mkfs.exfat image >&2; mount.exfat-fuse \"$(losetup -f --show image)\" \"$2\" >&2";
    every_command_works_on(&FileSystem {
        has_modes: false,
        exchanges: false,
        ..FileSystem::new("fuseblk", "mount.exfat-fuse", make)
    });
}

/// As what programs serve often is: without exchanging renames.
#[test]
fn k14_fuse() {
    every_command_works_on(&FileSystem {
        exchanges: false,
        ..FileSystem::new("fuse", "bindfs", "mkdir below; bindfs below \"$2\"")
    });
}
