//! Mounting, unmounting and killing, over and over: nothing is left behind.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::harness::{Mounted, Packaging, Scene, kill, lives, mounts_at, until};
use crate::meanwhile::meanwhile;
use crate::size;
use crate::support;

/// Half of all rounds each.
const EACH: [Packaging; 2] = [Packaging::Foreign, Packaging::Packed("auto")];

fn rounds() -> usize {
    size(100, 500)
}

/// What the rounds leave behind, if they do.
struct Leaks {
    devices: BTreeSet<u64>,
    descriptors: Option<usize>,
}

impl Leaks {
    fn new() -> Leaks {
        Leaks {
            devices: BTreeSet::new(),
            descriptors: None,
        }
    }

    /// Looks at a mount whose process has done the same as that of every other round.
    fn note(&mut self, mount: &Mounted, pid: i32) {
        self.devices.insert(fs::metadata(&mount.0).unwrap().dev());
        let of = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let open = || of(pid) + of(mount.server());
        // A process that is still busy with its start, or with an index, has one more for a moment.
        let first = *self.descriptors.get_or_insert_with(|| settled(open));
        until("as many files are open as in the first round", || {
            open() == first
        });
    }

    /// No process is left, no superblock in the kernel, no temporary file.
    fn check(self, scene: &Scene) {
        assert_eq!(mounts_at(&scene.path("mnt")), 0);
        until("no process is left", || processes(scene).is_empty());
        // The kernel gives a mount the lowest free device number. A mount that it cannot forget,
        // though nobody sees it, keeps its number.
        let devices = self.devices.len();
        assert!(devices <= rounds() / 2, "{devices} devices");
        assert_eq!(names(scene.path("tmp")), [""; 0]);
        let ours = ["cache", "m.tar", "mnt", "state", "tmp"].map(PathBuf::from);
        let there = names(scene.path("")).into_iter().map(PathBuf::from);
        assert!(there.into_iter().all(|name| ours.contains(&name)));
    }
}

/// A number, once it has been the same for a while.
fn settled(number: impl Fn() -> usize) -> usize {
    let mut last = number();
    let mut same = 0;
    until("a number settles", || {
        thread::sleep(Duration::from_millis(20));
        let now = number();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same == 25
    });
    last
}

/// Processes that were started with a path of the scene.
fn processes(scene: &Scene) -> Vec<String> {
    let dir = scene.path("").to_str().unwrap().to_string();
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = fs::read(entry.unwrap().path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&command).into_owned())
    });
    commands.filter(|command| command.contains(&dir)).collect()
}

fn names(dir: PathBuf) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Seek tables of foreign layers, and whatever else is beside them.
fn index(scene: &Scene) -> Vec<String> {
    names(scene.seek_tables())
}

fn scene(packaging: Packaging) -> Scene {
    let files = vec![
        ("config.json".into(), b"{}".to_vec()),
        ("weights.bin".into(), support::noise(11, (2 << 20) + 77)),
    ];
    Scene::packaged(packaging, files)
}

#[test]
fn a_thousand_mounts_and_unmounts() {
    for packaging in EACH {
        let scene = scene(packaging);
        let mut leaks = Leaks::new();
        let mut indexed = None;
        for _ in 0..rounds() {
            let mount = scene.mount(&[]);
            for (name, bytes) in &scene.files {
                assert!(&fs::read(mount.path(name)).unwrap() == bytes);
            }
            let pid = mount.pid();
            assert_eq!(mounts_at(&mount.0), 1);
            if indexed.is_some() {
                leaks.note(&mount, pid);
            }
            mount.unmount();
            assert_eq!(mounts_at(&mount.0), 0);
            until("the process ends", || !lives(pid));
            // The first round leaves the seek tables of foreign layers.
            assert_eq!(indexed.get_or_insert_with(|| index(&scene)), &index(&scene));
        }
        leaks.check(&scene);
    }
}

#[test]
fn r6_a_thousand_kills_under_load() {
    for packaging in EACH {
        let scene = scene(packaging);
        let mut leaks = Leaks::new();
        let reads = AtomicU64::new(0);
        let left = Mounted(scene.path("mnt"));
        let readers = scene.files.iter().map(|(name, bytes)| {
            let (path, reads) = (left.path(name), &reads);
            move || {
                // Errors while the process is dead, and then the bytes again.
                if let Ok(found) = fs::read(&path) {
                    assert!(&found == bytes);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        meanwhile(readers, || {
            for round in 0..rounds() {
                // Over what the last round left.
                let mount = scene.mount(&[]);
                assert_eq!(mounts_at(&mount.0), 1, "dead mounts do not pile up");
                let pid = mount.pid();
                leaks.devices.insert(fs::metadata(&mount.0).unwrap().dev());
                let before = reads.load(Ordering::Relaxed);
                // Most are killed in the first read, some later.
                if round % 4 == 0 {
                    until("something is read", || {
                        reads.load(Ordering::Relaxed) > before
                    });
                } else {
                    thread::sleep(Duration::from_millis(round as u64 % 16));
                }
                kill(pid, libc::SIGKILL);
                until("it is dead", || !lives(pid));
                std::mem::forget(mount);
            }
        });
        // What writers of seek tables left is removed a day later.
        for name in index(&scene) {
            let path = scene.seek_tables().join(&name);
            if name.ends_with(".idx") {
                fs::remove_file(path).unwrap();
            } else if name != "CACHEDIR.TAG" {
                assert!(name.starts_with(".tmp-"), "{name}");
                let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
                let times = FileTimes::new().set_modified(yesterday);
                File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_times(times)
                    .unwrap();
            }
        }
        drop(left);
        let last = scene.mount(&[]);
        for (name, bytes) in &scene.files {
            assert!(&fs::read(last.path(name)).unwrap() == bytes);
        }
        drop(last);
        leaks.check(&scene);
        assert!(index(&scene).iter().all(|name| !name.starts_with(".tmp-")));
    }
}
