//! Mounting by ordinary users, asking and unmounting, while directories on the way are exchanged with links
//! to others.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;

use crate::harness::{Mounted, Run, Scene, is_root, needs_root, until};
use crate::meanwhile::{exchange, race, while_exchanging_slowly, while_meddling};
use crate::starting::models_below;

/// The user whom root becomes.
const NOBODY: u32 = 65534;

/// A scene with mount points `P/mnt` and `system/mnt` of an ordinary user, and names that take turns: `P`, and
/// a link to `system`.
struct Crossing {
    scene: Scene,
    pair: (PathBuf, PathBuf),
}

impl Crossing {
    fn new() -> Crossing {
        let scene = Scene::new();
        for dir in ["system/mnt", "P/mnt"] {
            let dir = scene.path(dir);
            fs::create_dir_all(&dir).unwrap();
            if is_root() {
                chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        symlink("system", scene.path("R")).unwrap();
        let pair = (scene.path("P"), scene.path("R"));
        Crossing { scene, pair }
    }

    /// Runs the program as an ordinary user.
    fn run_as_user(&self, args: &[&str]) -> Run {
        let mut command = self.scene.command(args);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Run::of(&mut command)
    }

    /// Runs it as an ordinary user, or as whoever runs the tests.
    fn run(&self, as_user: bool, args: &[&str]) -> Run {
        match as_user {
            true => self.run_as_user(args),
            false => self.scene.run(args),
        }
    }

    /// Puts names back that a race has left exchanged.
    fn restore(&self) {
        if self.pair.0.is_symlink() {
            exchange(&self.pair.0, &self.pair.1);
        }
    }

    fn models(&self) -> Vec<String> {
        models_below(&self.scene.path(""))
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        for model in self.models() {
            Mounted(model.into()).umount(&["--lazy"]);
        }
    }
}

/// `fusermount3` takes a path, and resolves it by itself: what it mounts elsewhere does not stay.
#[test]
fn m7_nothing_is_mounted_elsewhere_by_a_user_while_parents_are_exchanged() {
    let crossing = Crossing::new();
    let canary = crossing.scene.path("system/mnt/important");
    fs::write(&canary, "important").unwrap();
    race(10, &["mounted", "refused"], |_| {
        let args = ["mount", "m.tar", "P/mnt", "--no-index"];
        let pair = std::slice::from_ref(&crossing.pair);
        let run = while_exchanging_slowly(pair, || crossing.run_as_user(&args));
        // What is mounted over cannot be read; `system/mnt` is not empty, and refused where it is found first.
        assert_eq!(fs::read_to_string(&canary).unwrap(), "important");
        let done = run.code == Some(0);
        assert_eq!(crossing.models().len(), usize::from(done), "{run:?}");
        for model in crossing.models() {
            Mounted(model.into()).unmount();
        }
        crossing.restore();
        if !done {
            run.fails(5, &[]);
            return "refused";
        }
        "mounted"
    });
}

/// The names that take turns lead to two models: one of them is unmounted, or none, as is said.
fn unmounts_what_it_found(as_user: bool) {
    let crossing = Crossing::new();
    let mount = |at: &str| {
        let args = ["mount", "m.tar", at, "--no-index"];
        crossing.run(as_user, &args).ok();
    };
    let real = |name: &str| crossing.scene.path(name);
    race(8, &["unmounted"], |round| {
        for at in ["P/mnt", "system/mnt"] {
            if !crossing
                .models()
                .contains(&real(at).to_str().unwrap().into())
            {
                mount(at);
            }
        }
        let mut args = vec!["umount", "P/mnt"];
        args.extend(["--lazy"].iter().take(round % 2));
        let pair = std::slice::from_ref(&crossing.pair);
        let run = while_exchanging_slowly(pair, || crossing.run(as_user, &args));
        let done = run.code == Some(0);
        assert_eq!(crossing.models().len(), 2 - usize::from(done), "{run:?}");
        crossing.restore();
        if !done {
            run.fails(5, &[]);
            return "refused";
        }
        "unmounted"
    });
}

#[test]
fn m7_one_of_two_models_is_unmounted_while_parents_are_exchanged() {
    unmounts_what_it_found(!is_root());
}

#[test]
fn m7_one_of_two_models_is_unmounted_by_a_user_while_parents_are_exchanged() {
    if is_root() {
        unmounts_what_it_found(true);
    }
}

/// What is no model stays, though the way leads there after a model was found.
#[test]
fn m7_what_is_no_model_is_never_unmounted_while_parents_are_exchanged() {
    if !needs_root("mount a file system") {
        return;
    }
    let crossing = Crossing::new();
    let other = crossing.scene.path("system/mnt");
    rustix::mount::mount("none", &other, "tmpfs", MountFlags::empty(), None).unwrap();
    let canary = other.join("important");
    fs::write(&canary, "important").unwrap();
    race(8, &["unmounted", "refused"], |round| {
        if crossing.models().is_empty() {
            let args = ["mount", "m.tar", "P/mnt", "--no-index"];
            crossing.scene.run(&args).ok();
        }
        let mut args = vec!["umount", "P/mnt"];
        args.extend(["--lazy"].iter().take(round % 2));
        let pair = std::slice::from_ref(&crossing.pair);
        let run = while_exchanging_slowly(pair, || crossing.scene.run(&args));
        assert_eq!(fs::read_to_string(&canary).unwrap(), "important");
        let done = run.code == Some(0);
        assert_eq!(crossing.models().len(), usize::from(!done), "{run:?}");
        crossing.restore();
        if !done {
            run.fails(5, &[]);
            return "refused";
        }
        "unmounted"
    });
    rustix::mount::unmount(&other, UnmountFlags::DETACH).unwrap();
}

/// A status is that of one mount, all of it, or there is none.
#[test]
fn m7_a_status_is_that_of_one_mount_while_parents_are_exchanged() {
    let crossing = Crossing::new();
    let scene = &crossing.scene;
    fs::copy(scene.path("m.tar"), scene.path("n.tar")).unwrap();
    let told = |run: Run| {
        let status = run.ok().json();
        let told = |name: &str| status[name].clone();
        ["archive", "mountpoint", "pid", "server_pid"].map(told)
    };
    let mounts = [("m.tar", "P/mnt"), ("n.tar", "system/mnt")];
    let expected: [[Value; 4]; 2] = mounts.map(|(archive, at)| {
        scene.run(&["mount", archive, at, "--no-index"]).ok();
        told(scene.run(&["status", at, "--json"]))
    });
    assert_ne!(expected[0], expected[1]);
    let meddle = || exchange(&crossing.pair.0, &crossing.pair.1);
    // Several times within one look at both.
    while_meddling(14, meddle, || {
        race(30, &["one", "the other"], |_| {
            let run = scene.run(&["status", "P/mnt", "--json"]);
            // Renamed between a look at its path and one at the mount table: not found.
            if run.code != Some(0) {
                run.refused(5, "no model is mounted there");
                return "none";
            }
            let told = told(run);
            let which = expected.iter().position(|of_one| *of_one == told);
            match which.unwrap_or_else(|| panic!("of two mounts: {told:?}")) {
                0 => "one",
                _ => "the other",
            }
        })
    });
    crossing.restore();
    for (_, at) in mounts {
        let mount = Mounted(scene.path(at));
        let pid = mount.pid();
        mount.unmount();
        until("the process ends", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
    }
}
