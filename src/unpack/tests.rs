#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::io::Errno;

use super::include::Include;
use super::staging::Staging;
use super::*;

mod faults;

use crate::entry_path::EntryPath;
use crate::error::ErrorKind;
use crate::files::beneath::{self, DIRECTORY};
use crate::model::Model;

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn temporary_in(dir: &Path) -> String {
    let mut names = names(dir).into_iter();
    names.find(|name| name.starts_with(".modeloci-")).unwrap()
}

#[test]
fn globs_without_a_slash_match_names_at_any_depth() {
    let include = |globs: &[&str], text: &str| {
        let globs: Vec<String> = globs.iter().map(|g| (*g).to_string()).collect();
        Include::new(&globs).unwrap().matches(&path(text))
    };
    assert!(include(&[], "anything/at/all"));
    assert!(include(&["*.json"], "a.json"));
    assert!(include(&["*.json"], "deep/er/a.json"));
    assert!(!include(&["*.json"], "a.jsonl"));
    assert!(include(&["x", "*.{bin,gguf}"], "w.gguf"));
    assert!(include(&["deep/*.json"], "deep/a.json"));
    assert!(!include(&["deep/*.json"], "deep/er/a.json"));
    assert!(include(&["deep/**"], "deep/er/a.json"));
    // What is in a directory that matches.
    assert!(include(&["deep"], "deep/er/a.json"));
    assert!(include(&["er/"], "deep/er/a.json"));
    assert!(include(&["./deep/er"], "deep/er/a/b.json"));
    assert!(!include(&["deep/er"], "deep/erst/a.json"));
    assert!(!include(&["deep/er"], "a/deep/er/a.json"));
    assert!(!include(&["a.json/"], "deep/er/b.json"));
    let error = Include::new(&["[".into()]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let error = Include::new(&["*.x".into()]).unwrap().check(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_staging_directory_is_removed_unless_published() {
    let base = tempfile::tempdir().unwrap();
    let output = base.path().join("out");
    let staging = Staging::create(&output, false).unwrap();
    beneath::make_dir(staging.dir(), "d").unwrap();
    beneath::create_file(staging.dir(), &path("d/f"), false).unwrap();
    assert_eq!(names(base.path()).len(), 1);
    drop(staging);
    assert_eq!(names(base.path()), [""; 0]);

    let staging = Staging::create(&output, false).unwrap();
    beneath::create_file(staging.dir(), &path("f"), true).unwrap();
    staging.publish().unwrap();
    assert_eq!(names(base.path()), ["out"]);
    let mode = fs::metadata(output.join("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7100, 0o100);
}

#[test]
fn u3_an_existing_output_is_replaced_only_by_force_and_as_a_whole() {
    let base = tempfile::tempdir().unwrap();
    let output = base.path().join("out");
    fs::create_dir_all(output.join("old/deep")).unwrap();
    fs::write(output.join("old/deep/file"), "old").unwrap();
    let error = Staging::create(&output, false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().ends_with("out: exists already"),
        "{error}"
    );

    let staging = Staging::create(&output, true).unwrap();
    beneath::create_file(staging.dir(), &path("new"), false).unwrap();
    staging.publish().unwrap();
    assert_eq!(names(&output), ["new"]);
    assert_eq!(names(base.path()), ["out"]);
}

#[test]
fn u3_a_file_or_link_at_the_output_is_refused_even_by_force() {
    let base = tempfile::tempdir().unwrap();
    let target = base.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    symlink(&target, base.path().join("link")).unwrap();
    symlink("nowhere", base.path().join("dangling")).unwrap();
    for name in ["file", "link", "dangling"] {
        let error = Staging::create(&base.path().join(name), true)
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused, "{name}");
    }
    for output in [".", "..", "/", ""] {
        assert!(
            Staging::create(Path::new(output), true).is_err(),
            "{output}"
        );
    }
}

#[test]
fn u3_an_output_that_appears_meanwhile_is_not_replaced() {
    let base = tempfile::tempdir().unwrap();
    let output = base.path().join("out");
    for plant in [
        &(|| fs::create_dir(&output)) as &dyn Fn() -> std::io::Result<()>,
        &|| fs::write(&output, "x"),
        &|| symlink("elsewhere", &output),
    ] {
        let staging = Staging::create(&output, false).unwrap();
        plant().unwrap();
        let error = staging.publish().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(names(base.path()), ["out"]);
        let _ = fs::remove_dir(&output).or_else(|_| fs::remove_file(&output));
    }
}

#[test]
fn u1_links_below_the_output_are_never_followed() {
    let base = tempfile::tempdir().unwrap();
    let outside = base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    let root = base.path().join("root");
    fs::create_dir_all(root.join("real")).unwrap();
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../outside", root.join("relative")).unwrap();
    symlink("real", root.join("inside")).unwrap();
    symlink(outside.join("victim"), root.join("file")).unwrap();
    symlink(outside.join("created"), root.join("dangling")).unwrap();
    let dir = fs::File::open(&root).unwrap();
    let root = dir.as_fd();

    for link in ["absolute", "relative", "inside"] {
        assert!(beneath::open_dir(root, link).is_err(), "{link}");
        let by_component = beneath::open_by_component(root, Path::new(link), DIRECTORY);
        assert!(by_component.is_err(), "{link}");
        assert!(beneath::make_dir(root, &format!("{link}/d")).is_err());
        let file = path(&format!("{link}/planted"));
        assert!(beneath::create_file(root, &file, false).is_err(), "{link}");
    }
    for link in ["file", "dangling", "absolute"] {
        let error = beneath::create_file(root, &path(link), false).unwrap_err();
        assert_eq!(error, Errno::EXIST, "{link}");
    }
    for escape in ["..", "real/../..", "/"] {
        assert!(beneath::open_dir(root, escape).is_err(), "{escape}");
        let by_component = beneath::open_by_component(root, Path::new(escape), DIRECTORY);
        assert!(by_component.is_err(), "{escape}");
    }
    assert!(beneath::create_file(root, &path("real/fine"), false).is_ok());
    assert_eq!(names(&outside), ["victim"]);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"safe");
}

#[test]
fn u1_a_temporary_directory_that_is_moved_is_known_by_its_handle() {
    let base = tempfile::tempdir().unwrap();
    let outside = base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    for publish in [true, false] {
        let staging = Staging::create(&base.path().join("out"), false).unwrap();
        let temporary = temporary_in(base.path());
        fs::rename(base.path().join(&temporary), base.path().join("moved")).unwrap();
        symlink(&outside, base.path().join(&temporary)).unwrap();
        beneath::create_file(staging.dir(), &path("f"), false).unwrap();
        if publish {
            staging.publish().unwrap();
            assert_eq!(names(&base.path().join("out")), ["f"]);
            fs::remove_dir_all(base.path().join("out")).unwrap();
        } else {
            drop(staging);
        }
        assert_eq!(names(&outside), ["victim"]);
        assert_eq!(names(&base.path().join("moved")), [""; 0]);
        fs::remove_file(base.path().join(&temporary)).unwrap();
        fs::remove_dir(base.path().join("moved")).unwrap();
        assert_eq!(names(base.path()), ["outside"]);
    }
}

#[test]
fn u1_a_tree_swapped_for_a_link_is_not_published() {
    let base = tempfile::tempdir().unwrap();
    let outside = base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    let staging = Staging::create(&base.path().join("out"), false).unwrap();
    let temporary = base.path().join(temporary_in(base.path()));
    fs::rename(temporary.join("tree"), base.path().join("moved")).unwrap();
    symlink(&outside, temporary.join("tree")).unwrap();
    beneath::create_file(staging.dir(), &path("f"), false).unwrap();
    let error = staging.publish().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(names(&outside), ["victim"]);
    assert_eq!(names(&base.path().join("moved")), [""; 0], "ours is gone");
    assert_eq!(names(&temporary), ["tree"], "the stranger's link stays");
    assert!(!base.path().join("out").exists());
}

#[test]
fn u4_what_took_the_name_of_the_old_tree_stays() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    for name in ["out", "victim"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join(name), "precious").unwrap();
    }
    // Before the exchange.
    let staging = Staging::create(&at("out"), true).unwrap();
    beneath::create_file(staging.dir(), &path("new"), false).unwrap();
    fs::rename(at("out"), at("aside")).unwrap();
    fs::rename(at("victim"), at("out")).unwrap();
    let error = staging.publish().err().unwrap();
    assert!(
        error
            .to_string()
            .ends_with("replaced by something else meanwhile"),
        "{error}"
    );
    assert_eq!(names(base.path()), ["aside", "out"]);
    assert_eq!(names(&at("out")), ["victim"]);
    assert_eq!(names(&at("aside")), ["out"]);

    // Gone by then: there is nothing to replace.
    let staging = Staging::create(&at("out"), true).unwrap();
    beneath::create_file(staging.dir(), &path("new"), false).unwrap();
    fs::rename(at("out"), at("victim")).unwrap();
    staging.publish().unwrap();
    assert_eq!(names(&at("out")), ["new"]);
    assert_eq!(names(&at("victim")), ["victim"]);

    // What appeared meanwhile was never held.
    let staging = Staging::create(&at("other"), true).unwrap();
    fs::rename(at("victim"), at("other")).unwrap();
    let error = staging.publish().err().unwrap();
    assert!(error.to_string().ends_with("exists already"), "{error}");
    assert_eq!(names(&at("other")), ["victim"]);
}

#[test]
fn u5_an_empty_directory_stays_that_directory() {
    let base = tempfile::tempdir().unwrap();
    let output = base.path().join("out");
    fs::create_dir_all(output.join("lost+found")).unwrap();
    let held = fs::File::open(&output).unwrap();
    for force in [false, true] {
        let staging = Staging::create(&output, force).unwrap();
        beneath::make_dir(staging.dir(), "d").unwrap();
        beneath::create_file(staging.dir(), &path("d/f"), false).unwrap();
        beneath::create_file(staging.dir(), &path("g"), false).unwrap();
        assert_eq!(names(base.path()), ["out"], "nothing beside it");
        assert_eq!(names(&output).len(), 2);
        staging.publish().unwrap();
        assert_eq!(names(&output), ["d", "g", "lost+found"]);
        assert_eq!(names(&output.join("d")), ["f"]);
        let now = fs::File::open(&output).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(
            now.metadata().unwrap().ino(),
            held.metadata().unwrap().ino()
        );
        fs::remove_dir_all(output.join("d")).unwrap();
        fs::remove_file(output.join("g")).unwrap();

        // Not published: as it was.
        drop(Staging::create(&output, force).unwrap());
        assert_eq!(names(&output), ["lost+found"]);

        // Used by someone else meanwhile: all that is theirs stays, and nothing of ours.
        let staging = Staging::create(&output, force).unwrap();
        beneath::create_file(staging.dir(), &path("g"), false).unwrap();
        fs::write(output.join("theirs"), "x").unwrap();
        let error = staging.publish().err().unwrap();
        assert!(error.to_string().ends_with("is no longer empty"), "{error}");
        assert_eq!(names(&output), ["lost+found", "theirs"]);
        fs::remove_file(output.join("theirs")).unwrap();
    }
    // What a killed run leaves says that it is not complete.
    fs::create_dir(output.join(".modeloci-0.tmp")).unwrap();
    assert!(Staging::create(&output, false).is_err());
}
