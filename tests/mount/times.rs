//! b: the times that a mount shows.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, UNIX_EPOCH};

use crate::harness::{Mounted, Packaging, Run, Scene, sample};

/// Modification and change of everything in the sample are this.
fn assert_times(mount: &Mounted, seconds: i64, nanoseconds: i64) {
    for name in ["", "nested", "nested/deep", "empty", "weights.bin"] {
        let found = fs::symlink_metadata(mount.path(name)).unwrap();
        let expected = (seconds, nanoseconds);
        assert_eq!((found.mtime(), found.mtime_nsec()), expected, "{name}");
        assert_eq!((found.ctime(), found.ctime_nsec()), expected, "{name}");
    }
}

#[test]
fn b1_r18_versions_that_follow_each_other_have_other_times() {
    let scene = Scene::packaged(Packaging::Packed("auto"), sample());
    let archive = File::open(scene.path("m.tar")).unwrap();
    for (seconds, nanoseconds) in [(1_600_000_000, 123_456_789), (1_700_000_000, 5)] {
        let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        archive
            .set_times(FileTimes::new().set_modified(time))
            .unwrap();
        let mount = scene.mount(&[]);
        assert_times(&mount, seconds as i64, nanoseconds.into());
        mount.unmount();
    }
    // In one process, too.
    let mount = scene.mount(&["--no-sandbox"]);
    assert_times(&mount, 1_700_000_000, 5);
}

#[test]
fn b1_one_time_at_packing_is_the_time_everywhere_and_is_warned_of() {
    for compression in ["auto", "zstd", "none"] {
        let scene = Scene::empty(Packaging::Packed(compression));
        for (name, bytes) in sample() {
            let path = scene.path("model").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let line = [
            "pack",
            "model",
            "--name",
            "m",
            "--version",
            "1",
            "-o",
            "m.tar",
        ];
        let mut command = scene.command(&line);
        command.args(["--compression", compression]);
        command.env("SOURCE_DATE_EPOCH", "1234567890");
        let packed = Run::of(&mut command).ok();
        let warnings: Vec<_> = packed.stderr.lines().collect();
        assert_eq!(warnings.len(), 1, "{}", packed.stderr);
        assert!(
            warnings[0].contains("SOURCE_DATE_EPOCH"),
            "{}",
            packed.stderr
        );
        assert!(warnings[0].contains("look alike"), "{}", packed.stderr);
        let mount = scene.mount(&[]);
        assert_times(&mount, 1_234_567_890, 0);
    }
}
