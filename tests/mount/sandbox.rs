//! Keeper and server: what the server has given up, that nothing leads out of it, and what becomes of
//! the one when the other dies.

// A release has nothing that could try to escape.
#![cfg_attr(not(debug_assertions), allow(unused))]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::{
    BINARY, Mounted, Packaging, Run, Scene, Server, errno, is_root, kill, lives, mounts_at,
    needs_root, until,
};
use crate::starting::with_descriptor;
use crate::support;
use crate::support::opened::Opened;

/// A line of a process's status file.
fn field(status: &str, name: &str) -> String {
    let lines = status.lines().find_map(|line| line.strip_prefix(name));
    lines.unwrap().trim_start_matches(':').trim().to_string()
}

fn status_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

const NO_CAPABILITIES: &str = "0000000000000000";

/// The status of every thread says that nothing is left.
fn has_given_up_all(pid: i32) {
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{status}");
        assert_eq!(field(&status, "Seccomp"), "2", "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&status, set), NO_CAPABILITIES, "{status}");
        }
        if is_root() {
            // Who has no capabilities cannot take any out of this one, nor use it.
            assert_eq!(field(&status, "CapBnd"), NO_CAPABILITIES, "{status}");
        }
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core"));
    let cores: Vec<_> = cores.unwrap().split_whitespace().collect();
    assert_eq!(cores[4..6], ["0", "0"], "{limits}");
    let filter = fs::read_to_string(format!("/proc/{pid}/coredump_filter")).unwrap();
    assert_eq!(filter.trim(), "00000000");
}

#[test]
fn e18_a_server_has_given_up_what_it_does_not_need() {
    for scene in Scene::each() {
        let mount = scene.mount(&[]);
        let (keeper, server) = (mount.pid(), mount.server());
        assert_ne!(keeper, server);
        has_given_up_all(server);
        let status = mount.status();
        let sandbox = &status["sandbox"];
        assert_eq!(sandbox["no_new_privs"], true);
        assert_eq!(sandbox["capabilities"], "none");
        assert_eq!(sandbox["system_calls"], true);
        assert_eq!(sandbox["no_core_dump"], true);
        assert!(sandbox["landlock"].as_i64() >= Some(1), "{sandbox}");
        let report = Run::of(Command::new(BINARY).arg("status").arg(&mount.0)).ok();
        let line = "Sandbox:          no new privileges, no capabilities, Landlock ";
        assert!(report.text().contains(line), "{}", report.text());
        // The keeper of users calls a setuid program, and root's has the right to unmount.
        let of_keeper = field(&status_of(keeper), "NoNewPrivs");
        assert_eq!(of_keeper, if is_root() { "1" } else { "0" });
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes);
        }
        mount.unmount();
    }
}

/// The keeper has no content, and no descriptor that leads to it.
#[test]
fn e18_a_keeper_has_nothing_of_the_model() {
    for scene in Scene::each() {
        let mount = scene.mount(&[]);
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes);
        }
        let keeper = mount.pid();
        let open = fs::read_dir(format!("/proc/{keeper}/fd")).unwrap();
        for descriptor in open.flatten() {
            let file = fs::read_link(descriptor.path()).unwrap();
            assert_ne!(file, scene.path("m.tar"));
        }
        let own = field(&status_of(keeper), "RssAnon");
        let kib: u64 = own.trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 4096, "{own}");
        mount.unmount();
    }
}

/// A directory with what an attacker would like, and the log of his attempts.
fn attempts(scene: &Scene, archive: &str, options: &[&str]) -> BTreeMap<String, bool> {
    let prey = scene.path("prey");
    fs::create_dir_all(prey.join("mounted")).unwrap();
    for file in ["secret", "victim"] {
        fs::write(prey.join(file), "secret").unwrap();
    }
    let _ = fs::remove_file(prey.join("created"));
    let _ = fs::remove_file(prey.join("socket"));
    let _listener = UnixListener::bind(prey.join("socket")).unwrap();
    if is_root() {
        let tmpfs = prey.join("mounted");
        rustix::mount::mount("none", tmpfs, "tmpfs", MountFlags::empty(), None).unwrap();
    }
    let log = scene.path("log");
    let _ = fs::remove_file(&log);
    let mut args = vec!["mount", archive, "mnt", "--foreground", "--log-file", "log"];
    args.extend(options);
    let mut command = scene.command(&args);
    command.env("MODELOCI_TEST_ESCAPE", &prey);
    command.env_remove("MODELOCI_TEST_STRICT");
    let mut server = Server::start(command, scene.path("mnt"));
    let last = "escape: read the keeper's memory: ";
    until("all was tried", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains(last))
    });
    // It still does what it is there for.
    for (name, bytes) in &scene.files {
        assert!(&fs::read(server.mount.path(name)).unwrap() == bytes);
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    if is_root() {
        let unmounted = rustix::mount::unmount(prey.join("mounted"), UnmountFlags::DETACH);
        let done = fs::read_to_string(&log).unwrap().contains("unmount: done");
        assert_eq!(unmounted.is_ok(), !done);
    }
    let log = fs::read_to_string(&log).unwrap();
    let told = log.lines().filter_map(|line| line.split_once("escape: "));
    let mut attempts = BTreeMap::new();
    for (_, told) in told {
        let (what, how) = told.split_once(": ").unwrap();
        // Some file systems have no attributes of users.
        let cannot_be = how.contains("os error 95");
        assert!(!cannot_be || what.ends_with("xattr"), "{told}");
        attempts.insert(what.to_string(), how == "done");
    }
    assert!(attempts.len() >= 34, "{log}");
    assert_eq!(prey.join("created").exists(), attempts["create a file"]);
    assert_eq!(!prey.join("victim").exists(), attempts["remove a file"]);
    attempts
}

/// The same attempts, by the same user, with and without what is tested: without it they succeed.
#[cfg(debug_assertions)]
#[test]
fn e18_whoever_takes_over_a_server_gets_nowhere() {
    for scene in Scene::each() {
        for index in [&[][..], &["--no-index"]] {
            let refused = attempts(&scene, "m.tar", index);
            let done: Vec<_> = refused.iter().filter(|(_, done)| **done).collect();
            assert!(done.is_empty(), "{done:?}");
        }
    }
    let scene = Scene::new();
    let mut done = attempts(&scene, "m.tar", &["--no-sandbox"]);
    if !is_root() {
        assert_eq!(done.remove("unmount"), Some(false), "is for root only");
    }
    if !is_root() {
        // Some systems let only root make a namespace.
        done.remove("clone(CLONE_NEWUSER)");
    }
    if !done["setxattr"] {
        done.retain(|what, _| !what.ends_with("xattr"));
    }
    if !done["read the keeper's memory"] {
        // Some kernels let nobody look at a process that is not his child (Yama).
        assert!(Path::new("/proc/sys/kernel/yama/ptrace_scope").exists());
        done.remove("read the keeper's memory");
    }
    let refused: Vec<_> = done.iter().filter(|(_, done)| !**done).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// Unpacks `m.tar` as an image-layout directory.
fn layout(scene: &Scene) {
    let script = "mkdir \"$1/layout\" && tar -xf \"$1/m.tar\" -C \"$1/layout\"";
    scene.shell(script).ok();
}

#[cfg(debug_assertions)]
#[test]
fn e18_nothing_leads_out_of_a_layout_directory() {
    let scene = Scene::new();
    layout(&scene);
    let refused = attempts(&scene, "layout", &[]);
    assert!(refused.values().all(|done| !done), "{refused:?}");
}

/// Root may mount what others have closed to everyone; the server keeps the one right for that.
#[test]
fn e18_a_layout_directory_of_another_user_is_served_to_root() {
    if !needs_root("read what another user has closed") {
        return;
    }
    let scene = Scene::new();
    layout(&scene);
    scene
        .shell("chown -R 65534:65534 \"$1/layout\" && chmod -R go= \"$1/layout\"")
        .ok();
    scene.run(&["mount", "layout", "mnt"]).ok();
    let mount = Mounted(scene.path("mnt"));
    for (name, bytes) in &scene.files {
        assert!(&fs::read(mount.path(name)).unwrap() == bytes);
    }
    assert_eq!(mount.status()["sandbox"]["capabilities"], "dac_read_search");
    let status = status_of(mount.server());
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, set), "0000000000000004", "{status}");
    }
    // An archive is open before.
    mount.unmount();
    chown(scene.path("m.tar"), Some(65534), Some(65534)).unwrap();
    fs::set_permissions(scene.path("m.tar"), fs::Permissions::from_mode(0o600)).unwrap();
    let mount = scene.mount(&[]);
    assert!(fs::read(mount.path("weights.bin")).unwrap() == scene.bytes("weights.bin"));
    assert_eq!(mount.status()["sandbox"]["capabilities"], "none");
}

#[test]
fn e18_without_a_sandbox_one_process_keeps_what_it_has() {
    let scene = Scene::new();
    let mount = scene.mount(&["--no-sandbox"]);
    assert_eq!(mount.pid(), mount.server());
    assert!(mount.status()["sandbox"].is_null());
    let report = Run::of(Command::new(BINARY).arg("status").arg(&mount.0)).ok();
    assert!(
        report.text().contains("Sandbox:          off\n"),
        "{}",
        report.text()
    );
    let (of_server, ours) = (status_of(mount.pid()), status_of(std::process::id() as i32));
    for name in ["NoNewPrivs", "Seccomp", "CapEff", "CapBnd"] {
        assert_eq!(field(&of_server, name), field(&ours, name));
    }
    assert!(fs::read(mount.path("weights.bin")).unwrap() == scene.bytes("weights.bin"));
    mount.unmount();
}

/// As on a kernel before Linux 5.13, or in a container whose filter forbids it.
#[test]
fn e18_without_landlock_the_rest_holds_and_the_status_says_so() {
    if !needs_root("refuse system calls and mount nevertheless") {
        return;
    }
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    for errno in [libc::ENOSYS, libc::EPERM] {
        let scene = Scene::new();
        let rules = [
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_restrict_self,
        ];
        let rules = rules.map(|number| (number, Vec::new())).into();
        let refuse = SeccompAction::Errno(errno as u32);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        let mut command = scene.command(&["mount", "m.tar", "mnt", "--log-file", "log"]);
        // SAFETY: makes system calls only.
        unsafe {
            command.pre_exec(move || {
                seccompiler::apply_filter(&program)
                    .map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))
            });
        }
        Run::of(&mut command).ok();
        let mount = Mounted(scene.path("mnt"));
        assert_eq!(mount.status()["sandbox"]["landlock"], 0);
        let log = fs::read_to_string(scene.path("log")).unwrap();
        let warning = "warning: a protection is missing: Landlock: ";
        assert!(log.contains(warning), "{log}");
        let report = Run::of(Command::new(BINARY).arg("status").arg(&mount.0)).ok();
        assert!(
            report.text().contains("; without Landlock"),
            "{}",
            report.text()
        );
        has_given_up_all(mount.server());
        assert!(fs::read(mount.path("weights.bin")).unwrap() == scene.bytes("weights.bin"));
        mount.unmount();
    }
}

/// What is open already needs no rule, and one that cannot be made does not undo the others.
#[test]
fn e18_an_archive_without_a_name_is_served_behind_landlock() {
    let scene = Scene::new();
    let archive = fs::read(scene.path("m.tar")).unwrap();
    let memory = rustix::fs::memfd_create("archive", MemfdFlags::CLOEXEC).unwrap();
    let memory = File::from(memory);
    memory.write_all_at(&archive, 0).unwrap();
    let unlinked = File::open(scene.path("m.tar")).unwrap();
    fs::remove_file(scene.path("m.tar")).unwrap();
    for file in [memory, unlinked] {
        let mut command = scene.command(&["mount", "/dev/fd/7", "mnt"]);
        with_descriptor(&mut command, &file, 7);
        Run::of(&mut command).ok();
        let mount = Mounted(scene.path("mnt"));
        assert!(mount.status()["sandbox"]["landlock"].as_i64() >= Some(1));
        has_given_up_all(mount.server());
        assert!(fs::read(mount.path("weights.bin")).unwrap() == scene.bytes("weights.bin"));
        mount.unmount();
    }
}

/// What a process has open, as far as it has a name.
fn open_in(pid: i32) -> BTreeMap<i32, PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let open = open.into_iter().flatten().flatten();
    open.filter_map(|fd| {
        let number = fd.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(fd.path()).ok()?))
    })
    .collect()
}

/// Neither the server nor the process that prefetches can use what their starter has open, nor its
/// terminal; in the foreground the keeper keeps it, as any program does.
#[test]
fn e18_nothing_that_was_inherited_is_left_to_a_server() {
    let files = (0..3_000).map(|n| (format!("{}/{n}", n % 10), vec![n as u8; 100]));
    let scene = Scene::packaged(Packaging::Packed("none"), files.collect());
    let writable = File::create(scene.path("writable")).unwrap();
    let mut command = scene.command(&["mount", "m.tar", "mnt", "--foreground", "--prefetch"]);
    command.stderr(File::create(scene.path("stderr")).unwrap());
    for number in [3, 9, 200] {
        with_descriptor(&mut command, &writable, number);
    }
    let mut server = Server::start(command, scene.path("mnt"));
    let keeper = server.mount.pid();
    let of_others = || {
        children_of(keeper)
            .into_iter()
            .flat_map(|pid| open_in(pid).into_values())
            .any(|file| file == scene.path("writable"))
    };
    let last = scene.files.last().unwrap();
    assert!(fs::read(server.mount.path(&last.0)).unwrap() == last.1);
    assert!(!of_others());
    let open = open_in(server.mount.server());
    for stream in 0..3 {
        assert_eq!(open[&stream], Path::new("/dev/null"));
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    let log = fs::read_to_string(scene.path("stderr")).unwrap();
    assert!(
        log.contains("info: mounted "),
        "the keeper writes it: {log}"
    );
}

/// Seek tables and temporary files are still to be had.
#[test]
fn e18_a_server_writes_indexes_and_is_given_temporary_files() {
    let text = b"decoded from the start, slowly and in order ".repeat(300_000);
    let noise = support::noise(5, 6 << 20);
    let scene = Scene::of(vec![("text".into(), text), ("noise".into(), noise)]);
    let read_all = |mount: &Mounted| {
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes);
        }
    };
    let indexes = || {
        let entries = fs::read_dir(scene.seek_tables());
        let names = entries.into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".idx")).count()
    };
    let mount = scene.mount(&[]);
    read_all(&mount);
    until("there is an index", || indexes() > 0);
    mount.unmount();

    let mount = scene.mount(&["--no-index"]);
    read_all(&mount);
    let open = fs::read_dir(format!("/proc/{}/fd", mount.server())).unwrap();
    let files = open
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok());
    let files: Vec<_> = files
        .map(|file| file.to_string_lossy().into_owned())
        .collect();
    let temporary = |name: &&String| name.ends_with("(deleted)") && !name.contains("memfd");
    assert!(files.iter().any(|name| temporary(&name)), "{files:?}");
    mount.unmount();
}

/// The process that prefetches takes orders from the server: it is confined, too.
#[test]
fn e18_the_process_that_prefetches_can_only_read_the_mount() {
    let files = (0..3_000).map(|n| (format!("{}/{n}", n % 10), vec![n as u8; 100]));
    let scene = Scene::packaged(Packaging::Packed("none"), files.collect());
    let log = scene.path("log");
    let mount = scene.mount(&["--prefetch", "--log-file", log.to_str().unwrap()]);
    let keeper = mount.pid();
    let mut seen = None;
    until("it is there", || {
        seen = children_of(keeper).into_iter().find_map(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            // Not between fork and the end of its preparations.
            (command.contains("prefetcher") && field(&status, "Seccomp") == "2").then_some(status)
        });
        seen.is_some()
    });
    let status = seen.unwrap();
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    // The right to read everything, which root has, and whoever was given it.
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let ours = u64::from_str_radix(&field(&ours, "CapEff"), 16).unwrap();
    assert_eq!(field(&status, "CapEff"), format!("{:016x}", ours & 4));
    scene.until_prefetched();
    until("it ends", || {
        let children = children_of(keeper);
        children == [mount.server()]
    });
    mount.unmount();
}

/// Whatever it is ordered, and whatever it tries by itself: nothing is opened or changed but files of the
/// mount. Here the test is the server that gives the orders.
#[cfg(debug_assertions)]
#[test]
fn e18_the_process_that_prefetches_opens_nothing_else() {
    let scene = Scene::new();
    let prey = scene.path("prey");
    fs::create_dir(&prey).unwrap();
    for file in ["secret", "victim"] {
        fs::write(prey.join(file), "secret").unwrap();
    }
    let directory = File::open(scene.path("mnt")).unwrap();
    let mount = scene.mount(&["--no-index"]);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = mount.0.to_str().unwrap();
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(at));
    let fields: Vec<&str> = line.unwrap().split(' ').collect();
    let mut command = scene.command(&["prefetcher", "9", fields[0], fields[2], "--confined"]);
    with_descriptor(&mut command, &directory, 9);
    command.env("MODELOCI_TEST_ESCAPE", &prey);
    command.env_remove("MODELOCI_TEST_STRICT");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let opened = Opened::of(["secret", "victim"].map(|file| prey.join(file)));
    let mut process = command.spawn().unwrap();
    let secret = prey.join("secret");
    let orders = [
        ("config.json", 1),
        ("../prey/secret", 0),
        (secret.to_str().unwrap(), 0),
        ("/etc/passwd", 0),
        ("nested/../../prey/secret", 0),
        ("nested", 0),
        ("..", 0),
        ("", 0),
        ("nested/tokenizer.json", 1),
    ];
    let mut stdin = process.stdin.take().unwrap();
    for (path, _) in orders {
        stdin
            .write_all(format!("0 4096 {path}\0").as_bytes())
            .unwrap();
    }
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (told, answers) = output.stdout.split_at(output.stdout.len() - orders.len());
    assert_eq!(answers, orders.map(|(_, answer)| answer));
    let told = String::from_utf8(told.to_vec()).unwrap();
    let (attempts, end) = told.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(end, "escape: all was tried: done");
    assert!(attempts.lines().count() > 10, "{told}");
    for attempt in attempts.lines() {
        assert!(attempt.contains(": refused ("), "{attempt}");
    }
    assert!(!opened.any(), "it was opened");
    assert_eq!(support::workspace::names(&prey), ["secret", "victim"]);
    mount.unmount();
}

fn children_of(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut children: Vec<_> = numbers
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or_default().trim();
            after_name.split(' ').nth(1) == Some(&parent.to_string())
        })
        .collect();
    children.sort();
    children
}

#[test]
fn e18_a_server_that_is_killed_leaves_no_mount() {
    for scene in Scene::each() {
        let mut server = scene.serve(&[]);
        let serving = server.mount.server();
        let mut file = File::open(server.mount.path("weights.bin")).unwrap();
        let start = Instant::now();
        kill(serving, libc::SIGKILL);
        let line = server.stderr_line("error: ");
        assert!(
            line.contains("the process that serves the mount: was killed by signal 9"),
            "{line}"
        );
        assert_eq!(server.wait().0, Some(5));
        assert!(start.elapsed() < Duration::from_secs(3));
        assert_eq!(mounts_at(&server.mount.0), 0);
        let error = errno(file.read_to_end(&mut Vec::new()));
        assert!([libc::ENOTCONN, libc::ECONNABORTED].contains(&error));
        drop(scene.mount(&[]));
    }
}

#[test]
fn e18_a_server_that_is_killed_while_it_prefetches_or_is_read_leaves_no_mount() {
    let files = vec![("large".into(), support::noise(9, 48 << 20))];
    let scene = Scene::packaged(Packaging::Packed("gzip:6"), files);
    for round in 0..6 {
        let mount = scene.mount(&["--prefetch", "--no-index"]);
        let (keeper, server) = (mount.pid(), mount.server());
        let mut reader = Command::new("cat");
        let reader = reader.arg(mount.path("large")).stdout(Stdio::null());
        let mut reader = reader.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 * round));
        kill(server, libc::SIGKILL);
        until("the keeper ends", || !lives(keeper));
        assert_eq!(mounts_at(&mount.0), 0);
        assert!(reader.wait().is_ok(), "the reader hangs not");
    }
}

/// Not the keeper, which `m10_` kills: each of its children, at any moment of the start.
#[test]
fn e18_a_child_that_is_killed_while_a_mount_starts_leaves_no_mount() {
    let files = vec![("large".into(), support::noise(9, 8 << 20))];
    let scene = Scene::packaged(Packaging::Packed("gzip:6"), files);
    let mut too_early = 0;
    for round in 0..40 {
        let options = ["mount", "m.tar", "mnt", "--foreground", "--prefetch"];
        let mut command = scene.command(&options);
        let keeper = command.stderr(Stdio::null()).spawn().unwrap();
        let mut server = Server::of(keeper, scene.path("mnt"));
        let keeper = server.child.id() as i32;
        let prefetches = |pid: &i32| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline"));
            command.is_ok_and(|command| command.contains("prefetcher"))
        };
        if round % 4 == 3 {
            // It starts once the mount is there, and may be over already.
            until("the mount answers", || mounts_at(&server.mount.0) == 1);
            let seen = (0..50).find_map(|_| children_of(keeper).into_iter().find(prefetches));
            if let Some(pid) = seen {
                // SAFETY: sends a signal to a process of this test.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            let read = fs::read(server.mount.path("large")).unwrap();
            assert!(read == scene.bytes("large"), "nobody needs it");
            server.signal(libc::SIGTERM);
            assert_eq!(server.wait().0, Some(0));
        } else {
            // Its first child; a later one may have a smaller number.
            let mut serving = None;
            until("there is a server", || {
                serving = children_of(keeper).first().copied();
                serving.is_some()
            });
            std::thread::sleep(Duration::from_millis(round % 20));
            kill(serving.unwrap(), libc::SIGKILL);
            too_early += usize::from(mounts_at(&server.mount.0) == 0);
            assert_eq!(server.wait().0, Some(5), "round {round}");
        }
        assert_eq!(mounts_at(&server.mount.0), 0, "round {round}");
    }
    assert!(too_early > 0, "some are killed before they answer");
}

#[test]
fn e18_a_keeper_that_is_killed_takes_its_server_along() {
    let scene = Scene::new();
    for _ in 0..10 {
        let mount = scene.mount(&[]);
        let (keeper, server) = (mount.pid(), mount.server());
        kill(keeper, libc::SIGKILL);
        // At once: the server may still be dying.
        let next = scene.mount(&[]);
        assert!(!lives(server) && !lives(keeper));
        assert_ne!(next.server(), server);
        assert_eq!(mounts_at(&next.0), 1);
        let read = fs::read(next.path("config.json")).unwrap();
        assert_eq!(read, scene.bytes("config.json"));
        std::mem::forget(mount);
        next.unmount();
    }
}

/// r5: a signal to the server is one to the mount, and one to both is one.
#[test]
fn e18_a_signal_to_the_server_or_to_both_drains_and_unmounts() {
    let scene = Scene::new();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        for both in [false, true] {
            let mut server = scene.serve(&[]);
            let serving = server.mount.server();
            let mut file = File::open(server.mount.path("weights.bin")).unwrap();
            kill(serving, signal);
            if both {
                server.signal(signal);
            }
            until("it is out of sight", || mounts_at(&server.mount.0) == 0);
            std::thread::sleep(Duration::from_millis(200));
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert!(
                bytes == scene.bytes("weights.bin"),
                "it is served to its end"
            );
            drop(file);
            let (code, took) = server.wait();
            assert_eq!(code, Some(0));
            assert!(took < Duration::from_secs(3), "{took:?}");
            assert!(!lives(serving));
        }
    }
}

#[test]
fn e18_a_second_signal_to_the_keeper_ends_it_at_once() {
    let scene = Scene::new();
    let mut server = scene.serve(&[]);
    let _file = File::open(server.mount.path("weights.bin")).unwrap();
    server.signal(libc::SIGTERM);
    until("it is out of sight", || mounts_at(&server.mount.0) == 0);
    server.signal(libc::SIGTERM);
    let (code, took) = server.wait();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// A server that answers nobody any more is ended by its keeper.
#[test]
fn e18_a_stopped_server_holds_up_no_unmount() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let (keeper, server) = (mount.pid(), mount.server());
    kill(server, libc::SIGSTOP);
    kill(keeper, libc::SIGTERM);
    until("it is out of sight", || mounts_at(&mount.0) == 0);
    until("both end", || !lives(keeper) && !lives(server));
}

/// For users the mount is there before the keeper knows that it answers.
#[test]
fn e18_whoever_is_quick_to_unmount_ends_both_quietly() {
    let scene = Scene::new();
    for _ in 0..10 {
        let mut server = scene.serve(&[]);
        server.signal(libc::SIGSTOP);
        until("it is unmounted", || {
            server.mount.umount(&["--lazy"]).code == Some(0)
        });
        std::thread::sleep(Duration::from_millis(30));
        server.signal(libc::SIGCONT);
        assert_eq!(server.wait().0, Some(0));
    }
}
