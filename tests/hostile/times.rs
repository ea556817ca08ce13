//! b: which time a file shows. Two versions of a model must not look alike to what compares times.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use modeloci::Model;
use serde_json::json;

use crate::forge::{Header, Layout, Tar, gzip, layer};
use crate::sandbox::Sandbox;

const CREATED: &str = "org.opencontainers.image.created";
/// Of the archive: with nanoseconds, as file systems have them.
const ARCHIVE: Duration = Duration::new(1_600_000_000, 123_456_789);
const STATED: u64 = 1_500_000_000;
const NAMES: [&str; 6] = [
    "",
    "plain",
    "dir",
    "dir/plain",
    "dir/deep",
    "dir/deep/stated",
];

/// Two files whose layers state no time, and one whose layer does when `stated` is not 0.
fn layout(stated: u64, created: Option<&str>) -> Layout {
    let header = Header::file("stated", 6).put(136, format!("{stated:011o}\0").as_bytes());
    let with_time = gzip(&Tar::new().entry(header, b"stated").end());
    let mut layout = Layout::of_layers([
        ("dir/deep/stated", with_time),
        ("dir/plain", layer("plain", b"in a directory")),
        ("plain", layer("plain", b"plain")),
    ]);
    if let Some(created) = created {
        layout.edit_manifest(|manifest| manifest["annotations"] = json!({ CREATED: created }));
    }
    layout
}

fn set_time(path: &Path, time: Duration) {
    let times = FileTimes::new().set_modified(UNIX_EPOCH + time);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// The times of [`NAMES`].
fn times(model: &Model) -> [Duration; 6] {
    NAMES.map(|name| model.find(name).unwrap().mtime)
}

fn open(sandbox: &Sandbox, layout: &Layout) -> Model {
    let path = sandbox.write("m.tar", layout.to_bytes());
    set_time(&path, ARCHIVE);
    Model::open(path, &Default::default()).unwrap()
}

#[test]
fn b1_a_stated_time_comes_first_then_the_manifests_then_the_archives() {
    let sandbox = Sandbox::new();
    let stated = Duration::from_secs(STATED);
    let early = "2001-09-09T01:46:40.5Z";
    let made_early = Duration::new(1_000_000_000, 500_000_000);
    let late = "2033-05-18T05:33:20+02:00";
    let made_late = Duration::from_secs(2_000_000_000);

    let model = open(&sandbox, &layout(0, None));
    assert_eq!(times(&model), [ARCHIVE; 6]);
    // The newest below a directory is its time.
    let model = open(&sandbox, &layout(STATED, None));
    assert_eq!(
        times(&model),
        [ARCHIVE, ARCHIVE, ARCHIVE, ARCHIVE, stated, stated]
    );
    let model = open(&sandbox, &layout(0, Some(late)));
    assert_eq!(times(&model), [made_late; 6]);
    let model = open(&sandbox, &layout(STATED, Some(late)));
    let (a, b) = (made_late, stated);
    assert_eq!(times(&model), [a, a, a, a, b, b]);
    let model = open(&sandbox, &layout(STATED, Some(early)));
    let (a, b) = (made_early, stated);
    assert_eq!(times(&model), [b, a, b, a, b, b]);
    assert_eq!(model.notes(), [""; 0]);

    let inode = |name: &str| model.find(name).unwrap().inode;
    let time = |name: &str| model.facts(inode(name)).unwrap().time;
    assert_eq!(time("plain"), Some(made_early));
    assert_eq!(time("dir/deep/stated"), Some(stated));
    assert!(model.facts(inode("dir")).is_err());
}

#[test]
fn b1_what_states_no_time_is_passed_over() {
    let sandbox = Sandbox::new();
    // What tools write that know of no time, and is none to show.
    for created in ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"] {
        let model = open(&sandbox, &layout(0, Some(created)));
        assert_eq!(times(&model), [ARCHIVE; 6], "{created}");
        assert_eq!(model.notes(), [""; 0], "{created}");
    }
    for created in ["", "yesterday", "2023-02-30T00:00:00Z", "\x1b[2J\u{202e}"] {
        let model = open(&sandbox, &layout(0, Some(created)));
        assert_eq!(times(&model), [ARCHIVE; 6], "{created}");
        let [note] = model.notes() else {
            panic!("{:?}", model.notes())
        };
        assert!(
            note.contains(CREATED) && note.contains("RFC 3339"),
            "{note}"
        );
        assert!(!note.contains(['\x1b', '\u{202e}']), "{note}");
    }
    let long = "x".repeat(1 << 20);
    let model = open(&sandbox, &layout(0, Some(&long)));
    assert!(model.notes()[0].len() < 400, "the note is short");
}

#[test]
fn b1_a_time_before_1980_is_none_of_an_archive() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("m.tar", layout(0, None).to_bytes());
    for old in [0, 1, 315_532_799] {
        set_time(&path, Duration::from_secs(old));
        let found = fs::metadata(&path).unwrap();
        let changed = Duration::new(found.ctime() as u64, found.ctime_nsec() as u32);
        assert!(changed.as_secs() > 1_500_000_000);
        let model = Model::open(&path, &Default::default()).unwrap();
        assert_eq!(times(&model), [changed; 6], "{old}");
    }
    set_time(&path, Duration::from_secs(315_532_800));
    let model = Model::open(&path, &Default::default()).unwrap();
    assert_eq!(times(&model), [Duration::from_secs(315_532_800); 6]);
}

#[test]
fn b1_a_layout_directory_has_the_time_of_its_index() {
    let sandbox = Sandbox::new();
    for (name, bytes) in layout(0, None).entries {
        set_time(
            &sandbox.write(&format!("m/{name}"), bytes),
            Duration::from_secs(STATED),
        );
    }
    set_time(&sandbox.path("m"), Duration::from_secs(STATED));
    set_time(&sandbox.path("m/index.json"), ARCHIVE);
    let model = Model::open(sandbox.path("m"), &Default::default()).unwrap();
    assert_eq!(times(&model), [ARCHIVE; 6]);
}

#[test]
fn b2_unpack_sets_the_times_that_the_archive_states() {
    let sandbox = Sandbox::new();
    let modified = |path: &str| {
        let found = fs::metadata(sandbox.path(path)).unwrap();
        Duration::new(found.mtime() as u64, found.mtime_nsec() as u32)
    };
    let stated = Duration::from_secs(STATED);
    for (created, expected) in [
        (
            Some("2001-09-09T01:46:40.5Z"),
            Some(Duration::new(1_000_000_000, 500_000_000)),
        ),
        (None, None),
    ] {
        let path = sandbox.write("m.tar", layout(STATED, created).to_bytes());
        set_time(&path, ARCHIVE);
        sandbox
            .run_bounded(&["unpack", "m.tar", "out", "--force"])
            .ok();
        assert_eq!(modified("out/dir/deep/stated"), stated, "{created:?}");
        for name in ["out/plain", "out/dir/plain"] {
            match expected {
                Some(expected) => assert_eq!(modified(name), expected, "{name}"),
                // It was written now, whenever the archive was.
                None => assert!(modified(name) > ARCHIVE + Duration::from_secs(1), "{name}"),
            }
        }
    }
}
