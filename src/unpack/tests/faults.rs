//! Every call that unpacking makes fails once, and from then on: what is at the output's name is
//! what was there before, or all of the new tree.

use std::collections::BTreeMap;

use super::*;
use crate::files::faults::{Fault, Op, Plan, Reach};
use crate::oci::OciConfig;
use crate::pack;

const FILES: [(&str, &[u8]); 4] = [
    ("a.json", b"{}"),
    ("d/weights.bin", &[7; 9_000]),
    ("d/e/tokens", b"tokens"),
    ("empty", b""),
];
const OLD: [(&str, &[u8]); 2] = [("old/deep/file", b"old"), ("older", b"older")];

/// What is at the output's name at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Old,
    Empty,
    /// Not even the directories above it.
    NoParents,
}

fn write(dir: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn read(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for name in names(dir) {
            let path = dir.join(&name);
            if name.starts_with(".modeloci-") {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                files.insert(name.to_string(), fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(dir, dir, &mut files);
    files
}

fn tree(files: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    let entry = |(name, bytes): &(&str, &[u8])| ((*name).to_string(), bytes.to_vec());
    files.iter().map(entry).collect()
}

fn model(dir: &Path) -> Model {
    write(&dir.join("model"), &FILES);
    let config = OciConfig::new("m", "1", "f", "a", Default::default()).unwrap();
    let archive = dir.join("m.tar");
    let to = pack::Output::File(archive.clone());
    pack::pack(
        &dir.join("model"),
        &config,
        &to,
        &Default::default(),
        &|_, _| {},
    )
    .unwrap();
    Model::open(archive, &Default::default()).unwrap()
}

/// A directory in memory where there is one: nothing here is about durability.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Unpacks under the plan, and looks at what is left. False when the plan came to nothing.
fn check(model: &Model, before: Before, plan: &std::sync::Arc<Plan>) -> bool {
    let scratch = scratch();
    let base = scratch.path().join("base");
    let output = base.join(match before {
        Before::NoParents => "absent/deep/out",
        _ => "out",
    });
    write(&base, &[("sibling/file", b"sibling")]);
    match before {
        Before::Nothing | Before::NoParents => {}
        Before::Old => write(&output, &OLD),
        Before::Empty => fs::create_dir(&output).unwrap(),
    }
    let options = UnpackOptions {
        force: before == Before::Old,
        jobs: 1,
        ..UnpackOptions::default()
    };
    let result = plan.run(|| unpack(model, &output, &options, &|_, _| {}));
    let made = plan.made();
    let (fault, reach, at) = (plan.fault, plan.reach, plan.at);
    let what = format!("{before:?} {fault:?} {reach:?} at {at} of {made:?}: {result:?}");

    let sibling = read(&base.join("sibling"));
    assert_eq!(sibling, tree(&[("file", b"sibling")]), "{what}");
    let is_temporary = |name: &String| name.starts_with(".modeloci-");
    let inside = output.is_dir() && names(&output).iter().any(is_temporary);
    let parent = output.parent().unwrap();
    let beside = parent.exists() && names(parent).iter().any(is_temporary);
    let found = output.exists().then(|| read(&output));
    let new = found == Some(tree(&FILES));
    let as_before = match before {
        Before::Nothing | Before::NoParents => found.is_none(),
        Before::Old => found == Some(tree(&OLD)),
        Before::Empty => found == Some(tree(&[])),
    };
    match &result {
        Ok(_) => assert!(new, "{what}"),
        Err(error) => {
            // What cannot be exchanged is not replaced: removed first, it would be lost for a while.
            let no_exchange = plan.lacks.contains(&Op::Exchange)
                || plan.fault == Fault::Fails(Errno::INVAL) && made.contains(&Op::Exchange);
            let refused = before == Before::Old && no_exchange;
            let refused = refused && error.kind() == ErrorKind::Refused;
            assert!(refused || error.kind() == ErrorKind::Environment, "{what}");
            // When nothing can be undone either, it is complete, or it is marked.
            let stuck = plan.reach != Reach::Once && (new || inside);
            assert!(as_before || stuck, "{what} {found:?}");
        }
    }
    let cleaning = [
        Op::List,
        Op::Open,
        Op::Stat,
        Op::Unlink,
        Op::Rename,
        Op::RenameNew,
    ];
    let hinders = plan.hit().is_some_and(|op| cleaning.contains(&op));
    if before == Before::NoParents && result.is_err() {
        let left = base.join("absent").exists();
        match plan.reach {
            Reach::Once => assert!(!left, "{what}"),
            Reach::Kind if !hinders => assert!(!left, "{what}"),
            _ => {}
        }
    }
    match plan.reach {
        Reach::Once => assert!(!beside && !inside, "{what}"),
        Reach::Kind if !hinders => assert!(!beside && !inside, "{what}"),
        _ => {}
    }
    plan.hit().is_some()
}

fn check_all(before: Before, faults: &[(Fault, Reach)], lacks: &'static [Op]) {
    let dir = scratch();
    let model = model(dir.path());
    for &(fault, reach) in faults {
        let mut hits = 0;
        while check(&model, before, &Plan::new(fault, reach, hits, lacks)) {
            hits += 1;
            assert!(hits < 1_000, "there is an end");
        }
        let least = if fault == Fault::Short { 3 } else { 40 };
        assert!(hits >= least, "{before:?} {fault:?}: {hits} calls");
    }
}

const FAULTS: [(Fault, Reach); 9] = [
    (Fault::Fails(Errno::IO), Reach::Once),
    (Fault::Fails(Errno::IO), Reach::Kind),
    (Fault::Fails(Errno::IO), Reach::All),
    (Fault::Fails(Errno::NOSPC), Reach::Once),
    (Fault::Fails(Errno::NOSPC), Reach::Kind),
    // What many file systems say of flags of a rename that they do not know.
    (Fault::Fails(Errno::INVAL), Reach::Kind),
    (Fault::Fails(Errno::STALE), Reach::All),
    (Fault::Fails(Errno::INTR), Reach::Once),
    (Fault::Short, Reach::All),
];

#[test]
fn u2_every_call_fails_of_a_new_output() {
    check_all(Before::Nothing, &FAULTS, &[]);
}

#[test]
fn u2_every_call_fails_of_an_output_whose_parents_are_made() {
    check_all(Before::NoParents, &FAULTS, &[]);
}

#[test]
fn u2_every_call_fails_of_a_replacement() {
    check_all(Before::Old, &FAULTS, &[]);
}

#[test]
fn u2_every_call_fails_in_an_empty_directory() {
    check_all(Before::Empty, &FAULTS, &[]);
}

/// NFS: names that are taken are found out by looking.
#[test]
fn u2_every_call_fails_on_a_file_system_without_flags_of_rename() {
    let lacks = &[Op::RenameNew, Op::Exchange];
    check_all(Before::Nothing, &FAULTS[..2], lacks);
    check_all(Before::Empty, &FAULTS[..2], lacks);
}

/// Kernels before 5.6, and sandboxes: every component is opened by itself.
#[test]
fn u2_every_call_fails_without_openat2() {
    for before in [Before::NoParents, Before::Old, Before::Empty] {
        check_all(before, &FAULTS[..3], &[Op::OpenBelow]);
    }
}

#[test]
fn u2_every_call_fails_of_a_replacement_where_nothing_can_be_exchanged() {
    check_all(Before::Old, &FAULTS, &[Op::Exchange]);
    check_all(Before::Old, &FAULTS[..2], &[Op::RenameNew, Op::Exchange]);
}
