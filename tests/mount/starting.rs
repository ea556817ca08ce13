//! Starting while others interfere: who exchanges the mount point, mounts there too, kills the
//! server, or has left descriptors and limits to it.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::harness::{Mounted, Run, Scene, Server, kill, lives, mounts_at, needs_root, until};
use crate::meanwhile::{exchange, meanwhile, race, rounds};
use crate::support::opened::Opened;

/// The mount points of models below a directory, as the mount table has them.
pub(crate) fn models_below(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let models = table
        .lines()
        .filter(|line| line.contains(" - fuse.modeloci "));
    let points = models.filter_map(|line| line.split(' ').nth(4));
    let below = points.filter(|point| point.starts_with(dir));
    below.map(str::to_string).collect()
}

/// Mounts while two names are exchanged with each other again and again.
fn mount_while_swapped(scene: &Scene, mountpoint: &str, swapped: [&str; 2]) -> Run {
    let [a, b] = swapped.map(|name| scene.path(name));
    meanwhile([|| exchange(&a, &b)], || {
        scene.run(&["mount", "m.tar", mountpoint, "--no-index"])
    })
}

#[test]
fn m7_nothing_is_mounted_elsewhere_while_mount_point_or_parents_are_exchanged() {
    if !needs_root("mount on what another user owns") {
        return;
    }
    let scene = Scene::new();
    for dir in ["system/mnt", "P/mnt", "Q/mnt"] {
        fs::create_dir_all(scene.path(dir)).unwrap();
    }
    for file in ["system/important", "system/mnt/important"] {
        fs::write(scene.path(file), "important").unwrap();
    }
    symlink("../system/mnt", scene.path("P/link")).unwrap();
    symlink("system", scene.path("R")).unwrap();
    race(40, &["mounted"], |round| {
        // The mount point becomes a link, or a directory above it does.
        let done = match round % 2 {
            0 => mount_while_swapped(&scene, "P/mnt", ["P/mnt", "P/link"]),
            _ => mount_while_swapped(&scene, "Q/mnt", ["Q", "R"]),
        };
        let models = models_below(&scene.path(""));
        assert_eq!(
            models.len(),
            usize::from(done.code == Some(0)),
            "{}",
            done.stderr
        );
        for file in ["system/important", "system/mnt/important"] {
            assert_eq!(fs::read_to_string(scene.path(file)).unwrap(), "important");
        }
        for model in &models {
            Mounted(model.into()).unmount();
        }
        assert_eq!(models_below(&scene.path("")), [""; 0]);
        if done.code == Some(0) {
            return "mounted";
        }
        assert_eq!(done.code, Some(5), "{}", done.stderr);
        "refused"
    });
}

/// The calling thread gets a mount namespace of its own: what is mounted from now on is not in it, and
/// there the kernel lets a directory be renamed that something is mounted on elsewhere.
fn leave_namespace() {
    // SAFETY: a system call without pointers; it concerns this thread alone.
    let left = unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) };
    assert_eq!(left, 0);
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
}

/// The mount point is renamed from a mount namespace that does not have the mount.
#[test]
fn m7_a_mount_whose_mount_point_is_renamed_elsewhere_is_unmounted_all_the_same() {
    if !needs_root("have a mount namespace of its own") {
        return;
    }
    let end = |what: &str, moved: &Mounted| match what {
        "a signal" => kill(moved.pid(), libc::SIGTERM),
        "the server's death" => kill(moved.server(), libc::SIGKILL),
        "umount" => moved.unmount(),
        _ => drop(moved.umount(&["--lazy"]).ok()),
    };
    for what in ["a signal", "the server's death", "umount", "umount --lazy"] {
        for options in [&[][..], &["--no-sandbox"]] {
            if what == "the server's death" && !options.is_empty() {
                continue;
            }
            let scene = Scene::new();
            let (ready, wait) = std::sync::mpsc::channel();
            let (go, mounted) = std::sync::mpsc::channel::<()>();
            let [old, new] = ["mnt", "renamed"].map(|name| scene.path(name));
            let renames = thread::spawn(move || {
                leave_namespace();
                ready.send(()).unwrap();
                mounted.recv().unwrap();
                fs::rename(&old, &new).unwrap();
                fs::create_dir(&old).unwrap();
            });
            wait.recv().unwrap();
            let log = scene.path("log");
            let log_file = ["--no-index", "--log-file", log.to_str().unwrap()];
            let old = scene.mount(&[&log_file[..], options].concat());
            go.send(()).unwrap();
            renames.join().unwrap();
            let moved = Mounted(scene.path("renamed"));
            assert_eq!((mounts_at(&old.0), mounts_at(&moved.0)), (0, 1));
            old.umount(&[]).refused(5, "no model is mounted there");
            let keeper = moved.pid();
            end(what, &moved);
            until("it is unmounted", || mounts_at(&moved.0) == 0);
            until("the process ends", || !lives(keeper));
            let said = fs::read_to_string(&log).unwrap();
            for untrue in ["mounted over", "still open", "cannot unmount"] {
                assert!(!said.contains(untrue), "{what}: {said}");
            }
            assert_eq!(models_below(&scene.path("")), [""; 0]);
        }
    }
}

/// The same all the time, from before the mount to its end.
#[test]
fn m7_no_mount_stays_while_its_mount_point_is_exchanged_from_another_namespace() {
    if !needs_root("have a mount namespace of its own") {
        return;
    }
    let scene = Scene::new();
    fs::create_dir(scene.path("other")).unwrap();
    let [a, b] = ["mnt", "other"].map(|name| scene.path(name));
    let mut left = false;
    let exchange = || {
        if !std::mem::replace(&mut left, true) {
            leave_namespace();
        }
        rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    };
    meanwhile([exchange], || {
        race(40, &["mounted"], |round| {
            let mut command = scene.command(&["mount", "m.tar", "mnt", "--no-index"]);
            command.args(["--foreground", "--ready-fd", "9"]);
            command.args(["--no-sandbox"].iter().take(round % 2));
            let (mut reader, writer) = std::io::pipe().unwrap();
            with_descriptor(&mut command, &writer, 9);
            let mut server = command.stderr(Stdio::null()).spawn().unwrap();
            drop((command, writer));
            let mut report = String::new();
            reader.read_to_string(&mut report).unwrap();
            let mounted = report == "READY=1\n";
            if mounted {
                assert_eq!(models_below(&scene.path("")).len(), 1);
                kill(server.id() as i32, libc::SIGTERM);
                assert_eq!(server.wait().unwrap().code(), Some(0));
            } else {
                assert!(report.contains("was moved, replaced"), "{report}");
                assert_eq!(server.wait().unwrap().code(), Some(5));
            }
            assert_eq!(models_below(&scene.path("")), [""; 0], "round {round}");
            if mounted { "mounted" } else { "refused" }
        })
    });
}

/// `/dev/fd/9` and `.` are what they are open on, whatever its path leads to.
#[test]
fn m11_what_is_given_as_a_descriptor_is_mounted_on_while_its_path_is_exchanged() {
    if !needs_root("mount on what another user owns") {
        return;
    }
    let scene = Scene::new();
    for dir in ["user/a/mnt", "system/mnt"] {
        fs::create_dir_all(scene.path(dir)).unwrap();
    }
    symlink(scene.path("system"), scene.path("user/link")).unwrap();
    let given = File::open(scene.path("user/a/mnt")).unwrap();
    let [a, link] = ["user/a", "user/link"].map(|name| scene.path(name));
    let meddle = || {
        exchange(&a, &link);
        // It is one thing and then another within one start.
        for n in 0..3000 {
            std::hint::black_box(n);
        }
    };
    for round in 0..rounds(40) {
        let archive = scene.path("m.tar");
        let mut command = Command::new(crate::harness::BINARY);
        command.args(["mount", "--no-index"]).arg(archive);
        scene.settle(&mut command);
        match round % 2 {
            0 => with_descriptor(command.arg("/dev/fd/9"), &given, 9),
            _ => {
                let given = format!("/proc/{}/fd/{}", std::process::id(), given.as_raw_fd());
                command.arg(".").current_dir(given);
            }
        }
        meanwhile([meddle], || Run::of(&mut command)).ok();
        let on_it = format!("/proc/self/fd/{}", given.as_raw_fd());
        let on_it = fs::read_link(on_it).unwrap();
        assert_eq!(models_below(&scene.path("")), [on_it.to_str().unwrap()]);
        Mounted(on_it).unmount();
    }
}

/// The process that prefetches for root opens files of the model only.
#[test]
fn e18_nothing_else_is_read_ahead_while_parents_of_the_mount_point_are_exchanged() {
    if !needs_root("mount on what another user owns") {
        return;
    }
    let scene = Scene::new();
    fs::create_dir_all(scene.path("user/mnt")).unwrap();
    let system = scene.path("system/mnt");
    for (name, bytes) in &scene.files {
        let file = system.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
    symlink("system", scene.path("link")).unwrap();
    let opened = Opened::of(scene.files.iter().map(|(name, _)| system.join(name)));
    let [user, link] = ["user", "link"].map(|name| scene.path(name));
    let log = scene.path("log");
    race(30, &["mounted"], |round| {
        let _ = fs::remove_file(&log);
        let mut options = vec!["mount", "m.tar", "user/mnt", "--no-index", "--prefetch"];
        options.extend(["--log-file", log.to_str().unwrap()]);
        options.extend(["--no-sandbox"].iter().take(round % 2));
        let came = meanwhile([|| exchange(&user, &link)], || {
            let done = scene.run(&options);
            if done.code == Some(0) {
                scene.until_prefetched();
                return "mounted";
            }
            assert_eq!(done.code, Some(5), "{}", done.stderr);
            "refused"
        });
        assert!(!opened.any(), "round {round}");
        for model in models_below(&scene.path("")) {
            Mounted(model.into()).unmount();
        }
        came
    });
}

#[test]
fn m8_of_several_that_mount_at_once_one_wins() {
    let scene = Scene::new();
    for _ in 0..rounds(10) {
        let start = |_| {
            let mut command = scene.command(&["mount", "m.tar", "mnt", "--no-index"]);
            command.stderr(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().unwrap()
        };
        let starters: Vec<_> = (0..4).map(start).collect();
        let mut won = 0;
        for starter in starters {
            let output = starter.wait_with_output().unwrap();
            match output.status.code() {
                Some(0) => won += 1,
                Some(5) => {
                    let error = String::from_utf8(output.stderr).unwrap();
                    assert!(error.contains("is in use"), "{error}");
                }
                code => panic!("{code:?}"),
            }
        }
        let mount = Mounted(scene.path("mnt"));
        assert_eq!((won, mounts_at(&mount.0)), (1, 1));
        let read = fs::read(mount.path("config.json")).unwrap();
        assert_eq!(read, scene.bytes("config.json"));
        let pid = mount.pid();
        mount.unmount();
        assert_eq!(mounts_at(&mount.0), 0);
        until("the process ends", || !lives(pid));
    }
}

/// Has a child find a file under this number, as long as `command` lives.
pub(crate) fn with_descriptor(command: &mut Command, file: impl AsFd, number: RawFd) {
    // Out of the way of the numbers that children are given.
    let copy = rustix::io::fcntl_dupfd_cloexec(file, 500).unwrap();
    // SAFETY: dup2 is a system call, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::dup2(copy.as_raw_fd(), number) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

#[test]
fn m9_nothing_of_the_starter_is_kept() {
    let scene = Scene::new();
    let lock = File::create(scene.path("lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = scene.command(&["mount", "m.tar", "mnt"]);
    // A low number, a high one, and two of one file.
    with_descriptor(&mut command, &lock, 9);
    with_descriptor(&mut command, &writer, 3);
    with_descriptor(&mut command, &writer, 200);
    Run::of(&mut command).ok();
    let mount = Mounted(scene.path("mnt"));
    drop((command, lock, writer));

    let again = File::open(scene.path("lock")).unwrap();
    rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut fds = [rustix::event::PollFd::new(
        &reader,
        rustix::event::PollFlags::IN,
    )];
    let soon = rustix::event::Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(
        rustix::event::poll(&mut fds, Some(&soon)).unwrap(),
        1,
        "the pipe ends"
    );
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    let proc = Path::new("/proc").join(mount.pid().to_string());
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    mount.unmount();
}

/// A mount outlives whoever has started it, and the file systems that those were in.
#[test]
fn m9_no_working_directory_of_the_starter_is_kept() {
    if !needs_root("mount a file system to start from") {
        return;
    }
    let scene = Scene::new();
    let from = scene.path("from");
    fs::create_dir(&from).unwrap();
    rustix::mount::mount("none", &from, "tmpfs", MountFlags::empty(), None).unwrap();
    for options in [&[][..], &["--prefetch"], &["--no-sandbox"]] {
        // Relative paths mean what they meant to the starter.
        let mut command = scene.command(&["mount", "../m.tar", "../mnt", "--no-index"]);
        Run::of(command.args(options).current_dir(&from)).ok();
        let mount = Mounted(scene.path("mnt"));
        for pid in [mount.pid(), mount.server()] {
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
            assert_eq!(cwd, Path::new("/"), "{options:?}");
        }
        // Nor does anything else keep it.
        rustix::mount::unmount(&from, UnmountFlags::empty()).unwrap();
        rustix::mount::mount("none", &from, "tmpfs", MountFlags::empty(), None).unwrap();
        mount.unmount();
    }
    rustix::mount::unmount(&from, UnmountFlags::DETACH).unwrap();
}

#[test]
fn m9_an_interrupt_that_the_starter_ignores_is_ignored_in_the_background_too() {
    let scene = Scene::new();
    let script = "trap '' INT HUP && exec \"$2\" mount m.tar mnt --no-index";
    for ignored in [true, false] {
        let script = match ignored {
            true => script.to_string(),
            false => script.replace("trap '' INT HUP && ", ""),
        };
        scene.shell(&script).ok();
        let mount = Mounted(scene.path("mnt"));
        let (keeper, server) = (mount.pid(), mount.server());
        for signal in [libc::SIGINT, libc::SIGHUP] {
            if ignored {
                kill(keeper, signal);
                kill(server, signal);
            }
        }
        if ignored {
            thread::sleep(Duration::from_millis(200));
            assert!(fs::read(mount.path("config.json")).is_ok());
            kill(keeper, libc::SIGTERM);
        } else {
            kill(keeper, libc::SIGINT);
        }
        until("it is gone", || mounts_at(&mount.0) == 0);
        until("the process ends", || !lives(keeper));
    }
}

/// What options name is opened anew: the starter's own open file ends with it, and its lock.
#[test]
fn m9_no_descriptor_that_an_option_names_is_kept() {
    let scene = Scene::new();
    fs::write(scene.path("log"), "").unwrap();
    let names = ["m.tar", "log", "mnt"];
    for options in [
        &[][..],
        &["--prefetch"],
        &["--no-sandbox"],
        &["--foreground"],
        &["--foreground", "--no-sandbox", "--prefetch"],
    ] {
        let mut command = scene.command(&["mount", "/dev/fd/7", "/dev/fd/9", "--no-index"]);
        command.args(["--log-file", "/dev/fd/8"]).args(options);
        let locked = names.map(|name| {
            let file = File::open(scene.path(name)).unwrap();
            rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
            file
        });
        for (file, number) in locked.iter().zip([7, 8, 9]) {
            with_descriptor(&mut command, file, number);
        }
        let (mut reader, writer) = std::io::pipe().unwrap();
        if options.contains(&"--foreground") {
            command.args(["--ready-fd", "10"]);
            with_descriptor(&mut command, &writer, 10);
        }
        let mut starter = command.spawn().unwrap();
        drop((command, writer, locked));
        let mut report = String::new();
        reader.read_to_string(&mut report).unwrap();
        if !options.contains(&"--foreground") {
            assert_eq!(starter.wait().unwrap().code(), Some(0), "{options:?}");
        }
        let mount = Mounted(scene.path("mnt"));
        let (keeper, server) = (mount.pid(), mount.server());
        for name in names {
            // The mount hides the directory that the last one names, but not from its descriptor.
            let path = match name {
                "mnt" => continue,
                name => scene.path(name),
            };
            let again = File::open(path).unwrap();
            let lock = rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive);
            assert!(lock.is_ok(), "{options:?}: the lock of {name} is kept");
        }
        let open_in = |pid: i32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let open = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
            open.filter(|path| *path == scene.path("m.tar")).count()
        };
        assert_eq!(open_in(server), 1, "{options:?}");
        if keeper != server {
            assert_eq!(open_in(keeper), 0, "{options:?}");
        }
        // Nor does anybody whom they have started have one.
        for child in children_of(keeper as u32) {
            if child != server {
                assert_eq!(open_in(child), 0, "{options:?}");
            }
        }
        mount.unmount();
        let _ = starter.wait();
        let directory = File::open(scene.path("mnt")).unwrap();
        until("the process ends", || !lives(keeper));
        rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}

/// What the options name is needed, and stays.
#[test]
fn m9_an_archive_that_is_given_as_a_descriptor_is_served() {
    let scene = Scene::new();
    let archive = File::open(scene.path("m.tar")).unwrap();
    for options in [
        &["mount", "/dev/fd/7", "mnt"][..],
        &["mount", "/proc/self/fd/7", "mnt"],
    ] {
        let mut command = scene.command(options);
        with_descriptor(&mut command, &archive, 7);
        Run::of(&mut command).ok();
        let mount = Mounted(scene.path("mnt"));
        let read = fs::read(mount.path("weights.bin")).unwrap();
        assert!(read == scene.bytes("weights.bin"));
        mount.unmount();
    }
}

#[test]
fn m9_an_interrupt_that_the_starter_ignores_stays_ignored() {
    let scene = Scene::new();
    for (signal, number) in [("INT", libc::SIGINT), ("HUP", libc::SIGHUP)] {
        let script =
            format!("trap '' {signal}; exec \"$2\" mount m.tar mnt --foreground --no-index");
        let mut command = scene.script(&script, &[]);
        command.stderr(Stdio::null());
        let mut server = Server::start(command, scene.path("mnt"));
        server.signal(number);
        thread::sleep(Duration::from_millis(200));
        assert!(
            fs::read(server.mount.path("config.json")).is_ok(),
            "{signal}"
        );
        server.signal(libc::SIGTERM);
        assert_eq!(server.wait().0, Some(0));
    }
}

/// The process that a starter has started, once there is one.
fn child_of(starter: u32) -> Option<i32> {
    children_of(starter).next()
}

fn children_of(starter: u32) -> impl Iterator<Item = i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_starter = numbers.filter(move |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default().trim();
        after_name.split(' ').nth(1) == Some(&starter.to_string())
    });
    of_starter.collect::<Vec<_>>().into_iter()
}

#[test]
fn m10_a_server_that_is_killed_while_it_starts_leaves_no_mount() {
    let scene = Scene::new();
    race(40, &["before it answers"], |round| {
        let mut command = scene.command(&["mount", "m.tar", "mnt", "--no-index"]);
        let mut starter = command.stderr(Stdio::null()).spawn().unwrap();
        let mut pid = None;
        while pid.is_none() && starter.try_wait().unwrap().is_none() {
            pid = child_of(starter.id());
        }
        thread::sleep(Duration::from_millis(round as u64 % 20));
        if let Some(pid) = pid {
            // SAFETY: sends a signal to a process of this test, or to none.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let code = starter.wait().unwrap().code();
        let mount = Mounted(scene.path("mnt"));
        let came = if code == Some(5) {
            assert_eq!(mounts_at(&mount.0), 0, "round {round}");
            "before it answers"
        } else {
            // Which is another story.
            assert_eq!(code, Some(0));
            until("it is dead", || pid.is_none_or(|pid| !lives(pid)));
            "after it had answered"
        };
        drop(mount);
        assert_eq!(mounts_at(&scene.path("mnt")), 0);
        came
    });
}

#[test]
fn r8_a_small_address_space_is_an_error_at_the_start() {
    let scene = Scene::new();
    let mut refused = 0;
    for limit in ["-v", "-d"] {
        for mib in [96, 128, 192, 256, 384, 512, 768, 1024] {
            let done = scene.shell(&format!(
                "ulimit {limit} {} && exec \"$2\" mount m.tar mnt --no-index",
                mib * 1024
            ));
            if done.code == Some(0) {
                let mount = Mounted(scene.path("mnt"));
                let read = fs::read(mount.path("weights.bin")).unwrap();
                assert!(read == scene.bytes("weights.bin"));
                mount.unmount();
            } else {
                refused += 1;
                done.refused(5, &format!("limit (ulimit {limit}): leaves {mib} MiB"));
            }
            assert_eq!(mounts_at(&scene.path("mnt")), 0);
        }
    }
    assert!((4..16).contains(&refused), "{refused}");
    // With less to keep it fits.
    scene
        .shell(
            "ulimit -v 300000 && exec \"$2\" mount m.tar mnt --no-index --cache-size 16M \
             -o threads=2",
        )
        .ok();
    let mount = Mounted(scene.path("mnt"));
    kill(mount.pid(), libc::SIGTERM);
    until("it is gone", || mounts_at(&mount.0) == 0);
}
