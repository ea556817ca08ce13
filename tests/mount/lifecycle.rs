//! Starting, readiness, signals, unmounting, and that nothing is left behind.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::documented;
use crate::harness::{
    BINARY, Mounted, Packaging, Run, Scene, Server, errno, is_root, kill, lives, mounts_at,
    needs_root, until,
};
use crate::meanwhile::meanwhile;
use crate::support;

#[test]
fn the_starter_returns_when_the_mount_answers() {
    let scene = Scene::new();
    let done = scene.run(&["mount", "m.tar", "mnt"]).ok();
    // What surprises root most: nobody else can read it.
    let hint = match is_root() {
        true => "hint: only root can read it; --allow-other lets other users in\n",
        false => "",
    };
    assert_eq!((done.text(), done.stderr.as_str()), ("", hint));
    let mount = Mounted(scene.path("mnt"));
    assert!(mount.path("config.json").exists(), "at once");
    let pid = mount.pid();
    let report = Run::of(Command::new(BINARY).arg("status").arg(&mount.0))
        .ok()
        .text()
        .to_string();
    assert!(
        report.contains(&format!("Process:          {pid}")),
        "{report}"
    );
    mount.unmount();
    until("the process ends", || !lives(pid));
    assert_eq!(mounts_at(&mount.0), 0);
    for option in ["--allow-other", "--quiet"] {
        if option == "--quiet" || is_root() {
            let done = scene.run(&["mount", "m.tar", "mnt", option]).ok();
            assert_eq!((done.text(), done.stderr.as_str()), ("", ""), "{option}");
            Mounted(scene.path("mnt")).unmount();
        }
    }
}

#[test]
fn the_status_is_documented() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    fs::read(mount.path("config.json")).unwrap();
    let fields = documented::fields(&["`status`"]);
    documented::assert_documented(&mount.status(), &fields);
    let all = scene.run(&["status", "--json"]);
    let all: serde_json::Value = all.json();
    for status in all.as_array().unwrap() {
        documented::assert_documented(status, &fields);
        assert_eq!(status["schema_version"], 1);
    }
}

#[test]
fn the_starter_reports_the_error_of_the_background_process() {
    let scene = Scene::new();
    fs::write(scene.path("text.tar"), "this is no archive").unwrap();
    let wrong = format!("sha256:{}", "0".repeat(64));
    for (args, code) in [
        (&["mount", "absent.tar", "mnt"][..], 5),
        (&["mount", "text.tar", "mnt"], 3),
        (&["mount", "m.tar", "mnt", "--digest", &wrong], 4),
    ] {
        let background = scene.run(args);
        let mut foreground = args.to_vec();
        foreground.push("--foreground");
        let foreground = scene.run(&foreground);
        assert_eq!(background.code, Some(code), "{}", background.stderr);
        assert_eq!(foreground.code, Some(code));
        let line = |done: &Run| {
            let errors = done.stderr.lines().filter(|l| l.starts_with("error: "));
            errors.map(str::to_string).collect::<Vec<_>>()
        };
        // The paths differ: the background process has absolute ones.
        let absolute = |text: String| text.replace(scene.path("").to_str().unwrap(), "");
        assert_eq!(line(&background).len(), 1, "{}", background.stderr);
        assert!(background.stderr.contains(args[1]), "{}", background.stderr);
        assert_eq!(
            line(&background)
                .into_iter()
                .map(absolute)
                .collect::<Vec<_>>(),
            line(&foreground)
                .into_iter()
                .map(absolute)
                .collect::<Vec<_>>()
        );
    }
    assert_eq!(mounts_at(&scene.path("mnt")), 0);
    scene
        .run(&["mount", "m.tar", "mnt", "--digest", &scene.digest])
        .ok();
    drop(Mounted(scene.path("mnt")));
}

#[test]
fn readiness_is_told_to_whoever_asks() {
    let scene = Scene::new();
    let socket = UnixDatagram::bind(scene.path("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let ready = scene.path("ready");
    let script = "exec \"$2\" mount m.tar mnt --foreground --ready-fd 9 9>\"$3\"";
    let mut command = scene.script(script, &[ready.as_os_str()]);
    command
        .env("NOTIFY_SOCKET", scene.path("notify"))
        .stderr(Stdio::null());
    let mut server = Server::start(command, scene.path("mnt"));
    let receive = || loop {
        let mut buf = [0; 4096];
        let n = socket.recv(&mut buf).unwrap();
        let text = String::from_utf8(buf[..n].to_vec()).unwrap();
        // On a slow machine more time may be asked for before that.
        if !text.starts_with("EXTEND_TIMEOUT_USEC=") {
            return text;
        }
    };
    assert!(receive().starts_with("READY=1\nSTATUS="));
    assert_eq!(fs::read_to_string(&ready).unwrap(), "READY=1\n");
    server.signal(libc::SIGTERM);
    assert!(receive().starts_with("STOPPING=1"));
    assert_eq!(server.wait().0, Some(0));

    let bad = scene.run(&["mount", "m.tar", "mnt", "--foreground", "--ready-fd", "77"]);
    bad.refused(2, "--ready-fd 77: is not an open descriptor");
}

/// The mount table cannot be read any more, and the archive's process ends.
#[test]
fn a_mount_that_runs_out_of_descriptors_is_detached() {
    let scene = Scene::new();
    let done = scene.shell("ulimit -n 5 && exec \"$2\" mount m.tar mnt --foreground --no-index");
    done.refused(5, "too many open files");
    assert_eq!(mounts_at(&scene.path("mnt")), 0);
}

#[test]
fn a_starter_that_dies_leaves_no_mount() {
    let scene = Scene::new();
    // The reader of the pipe is gone before the mount is ready.
    let done = scene.shell(
        "{ \"$2\" mount m.tar mnt --foreground --ready-fd 9 9>&1 >/dev/null; \
         echo $? >code; } | true; until test -s code; do sleep 0.05; done; cat code",
    );
    assert_eq!(done.text().trim(), "5", "{}", done.stderr);
    assert_eq!(mounts_at(&scene.path("mnt")), 0);
}

/// Readers have 4.5 seconds to come to an end; then the process ends, however busy the machine is.
const CUT_OFF: Duration = Duration::from_secs(20);

/// Readers that read files anew, uncached, until told to stop.
fn with_readers(mount: &Mounted, names: &[&str], act: impl FnOnce()) {
    let readers = names.iter().map(|name| {
        let path = mount.path(name);
        move || drop(fs::read(&path))
    });
    meanwhile(readers, || {
        thread::sleep(Duration::from_millis(100));
        act();
    });
}

#[test]
fn r5_signals_during_reads_drain_and_unmount() {
    for scene in Scene::each() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let mut server = scene.serve(&[]);
            let mount = Mounted(scene.path("mnt"));
            with_readers(&mount, &["weights.bin", "nested/tokenizer.json"], || {
                server.signal(signal);
                let (code, took) = server.wait();
                assert_eq!(code, Some(0));
                assert!(took < CUT_OFF, "{took:?}");
            });
            assert_eq!(mounts_at(&mount.0), 0);
        }
    }
}

#[test]
fn r5_an_open_file_is_served_while_draining() {
    let scene = Scene::new();
    let mut server = scene.serve(&[]);
    let mut file = File::open(server.mount.path("config.json")).unwrap();
    server.signal(libc::SIGTERM);
    until("it is out of sight", || mounts_at(&server.mount.0) == 0);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, scene.bytes("config.json"));
    drop(file);
    let (code, took) = server.wait();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn r5_a_file_that_stays_open_is_cut_off() {
    let scene = Scene::new();
    let mut server = scene.serve(&[]);
    let mut file = File::open(server.mount.path("weights.bin")).unwrap();
    let start = Instant::now();
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    let took = start.elapsed();
    assert!(took > Duration::from_secs(3) && took < CUT_OFF, "{took:?}");
    let error = errno(file.read_to_end(&mut Vec::new()));
    assert!(
        [libc::ENOTCONN, libc::ECONNABORTED].contains(&error),
        "{error}"
    );
}

#[test]
fn r6_a_killed_process_gives_errors_and_room_for_the_next() {
    for scene in Scene::each() {
        let mut server = scene.serve(&[]);
        let path = server.mount.path("weights.bin");
        let mut file = File::open(&path).unwrap();
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        let error = errno(file.read_to_end(&mut Vec::new()));
        assert!(
            [libc::ENOTCONN, libc::ECONNABORTED].contains(&error),
            "{error}"
        );
        assert_eq!(errno(fs::metadata(&path)), libc::ENOTCONN);
        let _mount = scene.mount(&[]);
        assert!(fs::read(&path).unwrap() == scene.bytes("weights.bin"));
    }
}

/// The kernel gives the device number of an unmounted model to the next one. The old process, late
/// to learn of its end, must not take the new mount for its own.
/// Thousands of small files, and a large one.
fn much_to_prefetch() -> Scene {
    let mut files: Vec<_> = (0..3_000)
        .map(|n| (format!("{}/{n}", n % 10), vec![n as u8; 100]))
        .collect();
    files.push(("large.bin".into(), support::noise(9, 64 << 20)));
    Scene::packaged(Packaging::Packed("none"), files)
}

/// A thread that waited for an answer from its own mount would keep the killed process, and with it
/// the connection.
#[test]
fn r6_nothing_stays_of_a_process_that_is_killed_while_it_prefetches() {
    let scene = much_to_prefetch();
    for round in 0..12 {
        let mut server = scene.serve(&["--prefetch"]);
        std::thread::sleep(Duration::from_millis(5 * round * round));
        let pid = server.mount.pid();
        server.signal(libc::SIGKILL);
        server.wait();
        until("all of it is gone", || !lives(pid));
        // Whoever reads gets an error, and the next mount takes the place.
        let next = scene.mount(&[]);
        assert_eq!(
            fs::read(next.path("7/2997")).unwrap(),
            vec![2997u32 as u8; 100]
        );
        next.unmount();
    }
}

/// The process that prefetches opens files, but does not keep the mount from being unmounted.
#[test]
fn m2_unmounting_while_it_prefetches() {
    let scene = much_to_prefetch();
    for round in 0..8 {
        let mount = scene.mount(&["--prefetch"]);
        let pid = mount.pid();
        std::thread::sleep(Duration::from_millis(5 * round * round));
        mount.unmount();
        until("the process ends", || !lives(pid));
    }
}

#[test]
fn r6_a_process_that_ends_late_leaves_the_next_mount_alone() {
    let scene = Scene::new();
    for _ in 0..5 {
        let mut old = scene.serve(&[]);
        old.signal(libc::SIGSTOP);
        until("it is unmounted", || {
            old.mount.umount(&["--lazy"]).code == Some(0)
        });
        let new = scene.mount(&[]);
        old.signal(libc::SIGCONT);
        assert_eq!(old.wait().0, Some(0));
        assert_eq!(mounts_at(&new.0), 1);
        assert!(fs::read(new.path("config.json")).is_ok());
        new.umount(&["--lazy"]).ok();
    }
}

#[test]
fn r12_a_busy_mount_is_not_unmounted_unless_lazily() {
    Scene::each().for_each(busy);
}

fn busy(scene: Scene) {
    let mount = scene.mount(&[]);
    let pid = mount.pid();
    let mut file = File::open(mount.path("weights.bin")).unwrap();
    mount.umount(&[]).refused(5, "is busy");
    assert_eq!(mounts_at(&mount.0), 1);
    mount.umount(&["--lazy"]).ok();
    assert_eq!(mounts_at(&mount.0), 0);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == scene.bytes("weights.bin"), "the open file goes on");
    assert!(lives(pid));
    drop(file);
    until("the process ends", || !lives(pid));
}

#[test]
fn r12_what_is_mounted_below_is_named() {
    if !needs_root("to mount a tmpfs") {
        return;
    }
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let below = mount.path("nested");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", &below, "tmpfs", flags, None).unwrap();
    let message = format!("is busy: {} is mounted below it", below.display());
    mount.umount(&[]).refused(5, &message);
    rustix::mount::unmount(&below, rustix::mount::UnmountFlags::empty()).unwrap();
    mount.unmount();
}

#[test]
fn r12_several_are_unmounted_whatever_becomes_of_one() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    fs::create_dir(scene.path("other")).unwrap();
    scene.run(&["mount", "m.tar", "other"]).ok();
    let other = Mounted(scene.path("other"));
    // A look at a mount makes it busy for a moment.
    until("they are unmounted", || {
        let done = scene.run(&["umount", "mnt", "missing", "other"]);
        assert_eq!(done.code, Some(5));
        assert!(
            done.stderr.contains("missing: does not exist"),
            "{}",
            done.stderr
        );
        mounts_at(&mount.0) + mounts_at(&other.0) == 0
    });
    scene.run(&["umount"]).refused(2, "MOUNTPOINT");
}

#[test]
fn an_unmount_by_others_ends_the_process_quietly() {
    let scene = Scene::new();
    let mut server = scene.serve(&["-q"]);
    // Whoever looks at the mount just now makes it busy.
    until("it is unmounted", || {
        let mut umount = if is_root() {
            Command::new("umount")
        } else {
            let mut command = Command::new("fusermount3");
            command.arg("-u");
            command
        };
        Run::of(umount.arg(&server.mount.0)).code == Some(0)
    });
    assert_eq!(server.wait().0, Some(0));
    assert_eq!(server.said, "");
}

#[test]
fn usr1_logs_the_counters() {
    let scene = Scene::new();
    let mut server = scene.serve(&[]);
    fs::read(server.mount.path("config.json")).unwrap();
    server.signal(libc::SIGUSR1);
    let line = server.stderr_line("status: ");
    assert!(
        line.contains("5 files, 13 bytes served in 1 reads"),
        "{line}"
    );
}

#[test]
fn cycles_leave_nothing_behind() {
    let scene = Scene::new();
    for round in 0..20 {
        let mount = scene.mount(&[]);
        let pid = mount.pid();
        assert_eq!(
            fs::read(mount.path("config.json")).unwrap(),
            scene.bytes("config.json")
        );
        match round % 3 {
            0 => {
                mount.unmount();
            }
            1 => kill(pid, libc::SIGTERM),
            _ => kill(pid, libc::SIGKILL),
        }
        until("the process ends", || !lives(pid));
        assert_eq!(mounts_at(&mount.0), usize::from(round % 3 == 2));
        // The next round clears what a kill has left.
        std::mem::forget(mount);
    }
    drop(Mounted(scene.path("mnt")));
    assert_eq!(mounts_at(&scene.path("mnt")), 0);
}
