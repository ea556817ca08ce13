//! The library: a mount that the calling process serves, which changes nothing else of it.
//!
//! Files are read by other processes: a reader in this one would keep the connection that it waits for.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use modeloci::Model;
use modeloci::mount::parts::{Process, Served};
use modeloci::mount::{MountOptions, Mounted};

use crate::harness::Scene;

fn mount(scene: &Scene, mountpoint: &str) -> Mounted {
    let mut options = MountOptions::new(scene.path("m.tar"), scene.path(mountpoint));
    options.cache_bytes = 16 << 20;
    modeloci::mount(&options).unwrap()
}

fn read(path: &Path) -> Vec<u8> {
    let output = Command::new("cat").arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What the kernel knows of this thread's signals, and which programs this process has started.
fn traces() -> (Vec<String>, BTreeSet<String>) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let signals = |line: &&str| line.starts_with("Sig") && !line.starts_with("SigQ");
    let signals = status.lines().filter(signals).map(String::from).collect();
    let mut children = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let list = task.unwrap().path().join("children");
        // A thread that has ended meanwhile has none.
        let list = fs::read_to_string(list).unwrap_or_default();
        children.extend(list.split_whitespace().map(String::from));
    }
    (signals, children)
}

/// Other tests of this program start processes all the time: it is looked at in one of its own.
#[test]
fn a_mount_of_the_library_is_served_by_its_caller_and_leaves_it_as_it_was() {
    if std::env::var_os("MODELOCI_TEST_ALONE").is_none() {
        let this =
            "in_process::a_mount_of_the_library_is_served_by_its_caller_and_leaves_it_as_it_was";
        let alone = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this, "--nocapture"])
            .env("MODELOCI_TEST_ALONE", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&alone.stdout);
        assert!(
            alone.status.success() && text.contains("1 passed"),
            "{alone:?}"
        );
        return;
    }
    let scene = Scene::new();
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&panics);
    panic::set_hook(Box::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let before = traces();

    let mounted = mount(&scene, "mnt");
    assert_eq!(traces(), before, "while it is mounted");
    let status = mounted.status();
    assert_eq!(status.pid, std::process::id());
    assert_eq!(status.server_pid, status.pid);
    assert!(status.sandbox.is_none());
    assert_eq!(mounted.mountpoint(), scene.path("mnt"));
    for (name, bytes) in &scene.files {
        assert!(read(&scene.path("mnt").join(name)) == *bytes, "{name}");
    }
    assert!(mounted.status().bytes_served > 0);
    assert!(panic::catch_unwind(|| panic!("on purpose")).is_err());
    assert_eq!(
        panics.load(Ordering::Relaxed),
        1,
        "the hook is the caller's"
    );

    assert!(mounted.unmount().unwrap(), "nobody reads any more");
    assert_eq!(fs::read_dir(scene.path("mnt")).unwrap().count(), 0);
    assert_eq!(traces(), before);
    let _ = panic::take_hook();
}

#[test]
fn a_process_serves_several_mounts_and_each_ends_by_itself() {
    let scene = Scene::new();
    fs::create_dir(scene.path("second")).unwrap();
    let (first, second) = (mount(&scene, "mnt"), mount(&scene, "second"));
    let (name, bytes) = &scene.files[0];
    assert!(first.unmount().unwrap());
    assert!(read(&scene.path("second").join(name)) == *bytes);
    // Anyone may unmount it; who waits for that is told.
    modeloci::mount::unmount(&scene.path("second"), true).unwrap();
    second.wait().unwrap();
    // Dropping one unmounts it, too.
    drop(mount(&scene, "mnt"));
    assert_eq!(fs::read_dir(scene.path("mnt")).unwrap().count(), 0);
}

/// Nor is what other threads of the caller take while a model is opened.
#[test]
fn memory_that_the_caller_takes_meanwhile_is_not_the_mounts() {
    let scene = Scene::new();
    let options = MountOptions::new(scene.path("m.tar"), scene.path("mnt"));
    let model = Model::open(&options.archive, &options.open_options()).unwrap();
    let large = vec![1u8; 600 << 20];
    let served = Served::new(model, scene.path("mnt"), Process::default(), None, &options);
    assert!(served.is_ok(), "{:?}", served.err());
    drop(std::hint::black_box(large));
}

/// The promise is of what the mount takes, and not of its host.
#[test]
fn memory_of_the_caller_is_not_the_mounts() {
    let scene = Scene::new();
    // Touched, so that it is there.
    let large = vec![1u8; 200 << 20];
    let mounted = mount(&scene, "mnt");
    let (name, bytes) = &scene.files[0];
    assert!(read(&scene.path("mnt").join(name)) == *bytes);
    assert!(mounted.unmount().unwrap());
    drop(std::hint::black_box(large));
}
