//! Each call to the file system fails: the first, the second, and so on until a run completes;
//! once, every one of its kind from then on, or all. On file systems that know everything, and on
//! those that lack something.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::*;
use crate::files::faults::{Fault, Op, Plan, Reach};

/// What file systems lack.
const LACKING: [&[Op]; 6] = [
    &[],
    // Kernels before 5.6, and some sandboxes.
    &[Op::OpenBelow],
    // FUSE file systems, NFS.
    &[Op::OpenUnnamed],
    &[Op::OpenUnnamed, Op::RenameNew, Op::Exchange],
    // Those above object stores.
    &[
        Op::OpenUnnamed,
        Op::RenameNew,
        Op::Exchange,
        Op::Link,
        Op::Lock,
        Op::Owner,
    ],
    // No exchange, but unnamed files.
    &[Op::Exchange, Op::Lock],
];

const FAULTS: [(Fault, &[Reach]); 6] = [
    (
        Fault::Fails(Errno::IO),
        &[Reach::Once, Reach::Kind, Reach::All],
    ),
    (Fault::Fails(Errno::STALE), &[Reach::Once, Reach::Kind]),
    // What many file systems say of flags that they do not know.
    (Fault::Fails(Errno::INVAL), &[Reach::Kind]),
    (
        Fault::Fails(Errno::NOSPC),
        &[Reach::Once, Reach::Kind, Reach::All],
    ),
    // No kernel interrupts for ever.
    (Fault::Fails(Errno::INTR), &[Reach::Once]),
    (Fault::Short, &[Reach::Once, Reach::All]),
];

/// What is in a directory: names, and the bytes of the output.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    names: Vec<String>,
    output: Option<Vec<u8>>,
}

impl Left {
    fn look(dir: &Path) -> Left {
        Left {
            names: listing(dir),
            output: fs::read(dir.join("out.tar")).ok(),
        }
    }

    /// The same, but that something may have a temporary name.
    fn without_temporaries(&self) -> Vec<&String> {
        let temporary = |name: &&String| {
            let name = std::ffi::OsStr::new(name.as_str());
            !crate::files::temporary::is_temporary_name(name)
        };
        self.names.iter().filter(temporary).collect()
    }
}

/// Runs `act` in a directory that `prepare` makes, with a fault at every call in turn.
fn at_every_call(
    prepare: impl Fn() -> tempfile::TempDir,
    act: impl Fn(&Path) -> Result<Packed>,
) -> BTreeSet<Op> {
    let done = prepare();
    let before = Left::look(done.path());
    act(done.path()).unwrap();
    let after = Left::look(done.path());
    let mut hit = BTreeSet::new();
    let dir = prepare();
    for lacks in LACKING {
        for (fault, reaches) in FAULTS {
            for &reach in reaches {
                for at in 0.. {
                    let plan = Plan::new(fault, reach, at, lacks);
                    let result = plan.run(|| act(dir.path()));
                    let Some(op) = plan.hit() else {
                        assert!(result.is_ok(), "{plan:?}: {result:?}");
                        assert_eq!(Left::look(dir.path()), after, "{plan:?}");
                        restore(dir.path(), &before);
                        break;
                    };
                    hit.insert(op);
                    check(&plan, op, &result, &Left::look(dir.path()), &before, &after);
                    restore(dir.path(), &before);
                }
            }
        }
    }
    hit
}

/// Puts back what was there before.
fn restore(dir: &Path, before: &Left) {
    for name in listing(dir) {
        if !before.names.contains(&name) {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
    if let Some(bytes) = &before.output {
        fs::write(dir.join("out.tar"), bytes).unwrap();
    }
}

fn check(plan: &Plan, op: Op, result: &Result<Packed>, left: &Left, before: &Left, after: &Left) {
    let seen = || format!("{plan:?}\n{result:?}\n{:?}", left.names);
    if let Fault::Short | Fault::Fails(Errno::INTR) = plan.fault {
        assert!(result.is_ok(), "{}", seen());
    }
    // Where nothing can be removed, or be looked at before it is, its temporary name stays. So it
    // does where everything has failed since.
    let litter = plan.reach == Reach::All
        || plan.reach == Reach::Kind && matches!(op, Op::Unlink | Op::Stat);
    let names = |what: &Left| match litter {
        true => what.without_temporaries().into_iter().cloned().collect(),
        false => what.names.clone(),
    };
    let is = |what: &Left| names(left) == names(what) && left.output == what.output;
    match result {
        Ok(_) => assert!(is(after), "{}", seen()),
        // Nothing can be undone on a device that is gone, nor where the old file was renamed over:
        // what has the name is the old or the new file, whole.
        Err(_) if plan.reach == Reach::All || plan.lacks.contains(&Op::Exchange) => {
            assert!(is(before) || is(after), "{}", seen());
        }
        Err(_) => assert!(is(before), "{}", seen()),
    }
    if let Err(error) = result {
        let kinds = [crate::ErrorKind::Environment, crate::ErrorKind::Refused];
        assert!(kinds.contains(&error.kind()), "{}", seen());
    }
}

fn model() -> tempfile::TempDir {
    let dir = scratch(&[("a", &noise(1, 70_000)), ("d/b", b"text")]);
    std::os::unix::fs::symlink("../a", model_of(&dir).join("d/link")).unwrap();
    dir
}

fn jobs() -> PackOptions {
    PackOptions {
        jobs: 1,
        ..options()
    }
}

#[test]
fn k8_k14_every_call_of_pack_fails() {
    let hit = at_every_call(model, |dir| pack_in(dir, &jobs()));
    for op in [
        Op::Open,
        Op::OpenBelow,
        Op::OpenUnnamed,
        Op::Stat,
        Op::List,
        Op::ReadLink,
        Op::Read,
        Op::Write,
        Op::Sync,
        Op::Link,
        Op::Rename,
        Op::RenameNew,
    ] {
        assert!(hit.contains(&op), "{op:?} was never reached");
    }
}

#[test]
fn k8_k14_every_call_of_pack_that_replaces_fails() {
    let prepare = || {
        let dir = model();
        fs::write(dir.path().join("out.tar"), b"precious").unwrap();
        dir
    };
    let force = PackOptions {
        force: true,
        ..jobs()
    };
    let hit = at_every_call(prepare, |dir| pack_in(dir, &force));
    for op in [Op::Exchange, Op::Rename, Op::Unlink, Op::Sync] {
        assert!(hit.contains(&op), "{op:?} was never reached");
    }
}

#[test]
fn k8_k14_every_call_of_add_layer_fails() {
    let prepare = || {
        let dir = model();
        pack_in(dir.path(), &jobs()).unwrap();
        fs::write(dir.path().join("extra"), noise(3, 66_000)).unwrap();
        dir
    };
    let add = |dir: &Path| {
        let (archive, extra) = (dir.join("out.tar"), dir.join("extra"));
        add_layer(&archive, &extra, Some("e"), &jobs())
    };
    let hit = at_every_call(prepare, add);
    for op in [Op::Exchange, Op::Lock, Op::Owner, Op::Mode, Op::Truncate] {
        let truncates = op == Op::Truncate;
        assert!(hit.contains(&op) != truncates, "{op:?}");
    }
}

#[test]
fn k8_k14_every_call_of_remove_layer_fails() {
    let prepare = || {
        let dir = model();
        pack_in(dir.path(), &jobs()).unwrap();
        dir
    };
    let written = Written::read(&prepare().path().join("out.tar"));
    let title = written.titles()[1].to_string();
    let remove = |dir: &Path| remove_layer(&dir.join("out.tar"), &title, &jobs());
    let hit = at_every_call(prepare, remove);
    for op in [Op::Exchange, Op::Lock, Op::Owner, Op::Mode, Op::Copy] {
        assert!(hit.contains(&op), "{op:?}");
    }
}
