//! r17: the directory of indexes of foreign layers. An index is a convenience, never a condition.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::forge::{Layout, noise};
use crate::meanwhile::{meanwhile, rounds};
use crate::mounted::Mounted;
use crate::sandbox::{Sandbox, available, names, needs_root};

/// A model of one foreign layer, which is large enough to be indexed.
fn model(sandbox: &Sandbox) -> Vec<u8> {
    let bytes = noise(17, 12 << 20);
    sandbox.write("m.tar", Layout::of([("weights", &bytes[..])]).to_bytes());
    bytes
}

/// Mounts with indexes in `idx`, reads everything, and unmounts. Returns the log.
#[track_caller]
fn reads(sandbox: &Sandbox, bytes: &[u8]) -> String {
    let _ = fs::remove_file(sandbox.path("log"));
    let mounted = Mounted::with(sandbox, "m.tar", &["--index-dir", "idx"]);
    assert!(mounted.read("weights").unwrap() == bytes);
    drop(mounted);
    fs::read_to_string(sandbox.path("log")).unwrap_or_default()
}

/// The lines of a log that speak of the index.
fn complaints(log: &str) -> Vec<&str> {
    assert!(!log.contains("panicked"), "{log}");
    log.lines()
        .filter(|line| line.contains("index is not"))
        .collect()
}

fn indexes(dir: &Path) -> Vec<String> {
    let names = names(&dir.join("seek-tables"));
    names
        .into_iter()
        .filter(|name| name != "CACHEDIR.TAG")
        .collect()
}

#[test]
fn r17_an_index_is_kept_beside_what_is_somebody_elses() {
    let sandbox = Sandbox::new();
    let bytes = model(&sandbox);
    // What pruning and tidying could be about, if they looked here.
    let strangers = ["other-tool.idx", ".tmp-precious", "seek-tables.idx"];
    for name in strangers {
        let file = fs::File::create(sandbox.write(&format!("idx/{name}"), "")).unwrap();
        file.set_len(1_100 << 20).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }
    assert_eq!(complaints(&reads(&sandbox, &bytes)), [""; 0]);
    let idx = sandbox.path("idx");
    let kept = indexes(&idx);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let index = idx.join("seek-tables").join(&kept[0]);
    assert_eq!(fs::metadata(&index).unwrap().mode() & 0o777, 0o600);
    let before = fs::metadata(&index).unwrap().ino();
    assert_eq!(complaints(&reads(&sandbox, &bytes)), [""; 0]);
    assert_eq!(
        fs::metadata(&index).unwrap().ino(),
        before,
        "used, not written anew"
    );
    let expected = [
        ".tmp-precious",
        "other-tool.idx",
        "seek-tables",
        "seek-tables.idx",
    ];
    assert_eq!(names(&idx), expected);
}

#[test]
fn r17_a_link_a_file_or_somebody_elses() {
    let sandbox = Sandbox::new();
    let bytes = model(&sandbox);
    let elsewhere = sandbox.mkdir("elsewhere");
    let idx = sandbox.path("idx");
    let spoiled = |what: &str, words: &str| {
        let log = reads(&sandbox, &bytes);
        let lines = complaints(&log);
        assert!(
            lines.iter().any(|line| line.contains(words)),
            "{what}: {log}"
        );
        assert_eq!(lines.len(), 1, "{what}: {log}");
        assert_eq!(names(&elsewhere), [""; 0], "{what}");
    };
    symlink("elsewhere", &idx).unwrap();
    spoiled("a link", "is a symbolic link");
    fs::remove_file(&idx).unwrap();
    fs::write(&idx, "precious").unwrap();
    spoiled("a file", "is no directory");
    assert_eq!(fs::read(&idx).unwrap(), b"precious");
    fs::remove_file(&idx).unwrap();
    fs::create_dir(&idx).unwrap();
    symlink("../elsewhere", idx.join("seek-tables")).unwrap();
    spoiled("a link below", "is no directory");
    fs::remove_file(idx.join("seek-tables")).unwrap();
    fs::create_dir(idx.join("seek-tables")).unwrap();
    fs::write(idx.join("seek-tables/theirs"), "precious").unwrap();
    spoiled("no marker", "has files of something else");
    assert_eq!(names(&idx.join("seek-tables")), ["theirs"]);
    fs::remove_dir_all(idx.join("seek-tables")).unwrap();
    fs::set_permissions(&idx, fs::Permissions::from_mode(0o777)).unwrap();
    spoiled("open to all", "can be written to by others");
    assert_eq!(names(&idx), [""; 0]);
    fs::set_permissions(&idx, fs::Permissions::from_mode(0o700)).unwrap();
    if needs_root("give a directory to another user") {
        chown(&idx, Some(12345), None).unwrap();
        spoiled("somebody else's", "belongs to another user");
        assert_eq!(names(&idx), [""; 0]);
        // A directory in one of theirs.
        chown(&idx, Some(0), None).unwrap();
        chown(sandbox.root(), Some(12345), None).unwrap();
        spoiled("below somebody else's", "belongs to another user");
        chown(sandbox.root(), Some(0), None).unwrap();
    }
    assert_eq!(complaints(&reads(&sandbox, &bytes)), [""; 0]);
    assert_eq!(indexes(&idx).len(), 1);
}

#[test]
fn r17_a_full_or_read_only_directory() {
    if !needs_root("mount a small file system") {
        return;
    }
    let sandbox = Sandbox::new();
    let bytes = model(&sandbox);
    let idx = sandbox.mkdir("idx");
    let mount = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).arg(&idx).status();
        status.is_ok_and(|status| status.success())
    };
    let small = ["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"];
    if !available("the right to mount a tmpfs", mount("mount", &small)) {
        return;
    }
    let full = thread::scope(|scope| {
        let run = scope.spawn(|| {
            let log = reads(&sandbox, &bytes);
            let again = reads(&sandbox, &bytes);
            mount("mount", &["-o", "remount,ro"]);
            (log, again, reads(&sandbox, &bytes))
        });
        run.join()
    });
    let left = indexes(&idx);
    assert!(mount("umount", &[]));
    let (first, again, read_only) = full.unwrap();
    assert_eq!(left, [""; 0], "nothing unfinished");
    for log in [first, again, read_only] {
        let lines = complaints(&log);
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("its index is not kept"), "{log}");
    }
}

/// The directory, and what is in it, exchanged with a link to somewhere else, again and again.
#[test]
fn r17_swapped_for_a_link_while_it_is_used() {
    let sandbox = Sandbox::new();
    let bytes = noise(18, 3 << 20);
    sandbox.write("m.tar", Layout::of([("weights", &bytes[..])]).to_bytes());
    let outside = sandbox.mkdir("outside");
    let precious = [
        format!("sha256-{}.idx", "0".repeat(64)),
        ".tmp-0123456789abcdef".to_string(),
    ];
    for name in &precious {
        let file = fs::File::create(outside.join(name)).unwrap();
        file.set_len(1_100 << 20).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }
    let before = names(&outside);
    let idx = sandbox.path("idx");
    let (aside, below) = (sandbox.path("aside"), idx.join("seek-tables"));
    let swap = || {
        for (name, target) in [(&idx, "outside"), (&below, "../outside")] {
            if fs::rename(name, &aside).is_ok() {
                let _ = symlink(target, name);
                thread::yield_now();
                let _ = fs::remove_file(name);
                let _ = fs::rename(&aside, name);
            }
        }
    };
    meanwhile([swap], || {
        for _ in 0..rounds(12) {
            reads(&sandbox, &bytes);
            let kept = names(&outside);
            assert!(kept == before, "touched outside: {kept:?}");
        }
    });
}
