//! m: mounting.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::forge::{Layout, sample_files};
use crate::machine;
use crate::mounted::{Mounted, detach};
use crate::sandbox::{
    Run, Sandbox, assert_tree, available, finish, is_mounted, is_root, needs_root,
};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", Layout::sample().to_bytes());
    sandbox.mkdir("mnt");
    sandbox
}

fn mount(sandbox: &Sandbox, more: &[&str]) -> Run {
    let args = [&["mount", "a.tar", "mnt"][..], more].concat();
    sandbox.run(&args)
}

/// Unmounts. Another test that starts a process just now shares our open files with it for a
/// moment, so "busy" is not final.
#[track_caller]
fn umount(sandbox: &Sandbox, point: &str) {
    let start = Instant::now();
    loop {
        let run = sandbox.run(&["umount", point]);
        if run.stderr.contains("busy") && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        run.ok();
        return;
    }
}

/// The line of `/proc/self/mountinfo` that ends in this source, escaped as there.
fn mount_line(source_ends: &str) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| {
        let source = line.split(' ').nth_back(1);
        source.is_some_and(|source| source.ends_with(source_ends))
    });
    line.unwrap_or_else(|| panic!("{source_ends} in {mounts}"))
        .to_string()
}

#[test]
fn m1_names_that_mount_tables_are_split_at() {
    for (name, shown) in [
        ("a,allow_other,b", "a,allow_other,b"),
        ("a\\b,suid", "a\\134b,suid"),
        ("a b", "a\\040b"),
        ("a\nb c", "a\\134u{a}b\\040c"),
        ("a=b#c", "a=b"),
    ] {
        let sandbox = Sandbox::new();
        fs::write(
            sandbox.path(format!("{name}.tar")),
            Layout::sample().to_bytes(),
        )
        .unwrap();
        fs::create_dir(sandbox.path(format!("{name} mnt"))).unwrap();
        let (archive, point) = (format!("{name}.tar"), format!("{name} mnt"));
        sandbox.run(&["mount", "--no-index", &archive, &point]).ok();
        assert_tree(&sandbox.path(&point), &sample_files());
        if !name.contains('#') {
            let line = mount_line(&format!("/{shown}.tar"));
            assert!(!line.contains("allow_other "), "{line}");
            assert!(!line.ends_with("allow_other"), "{line}");
            for option in ["nosuid", "nodev", "ro"] {
                assert!(line.split([' ', ',']).any(|o| o == option), "{line}");
            }
        }
        umount(&sandbox, &point);
        assert!(!is_mounted(&sandbox.path(&point)));
    }
}

#[test]
fn m2_mount_points_that_are_none() {
    let sandbox = sandbox();
    sandbox.write("file", "x");
    sandbox.write("full/x", "x");
    for (point, words) in [
        ("absent", ["absent", "does not exist"]),
        ("absent/deeper", ["absent/deeper", "does not exist"]),
        ("file", ["file", "not a directory"]),
        ("full", ["full", "not empty"]),
        ("/", ["/", "root directory"]),
    ] {
        sandbox.run(&["mount", "a.tar", point]).fails(5, &words);
    }
    sandbox
        .run(&["umount", "mnt"])
        .fails(5, &["mnt", "no model"]);
    sandbox
        .run(&["umount", "/proc"])
        .fails(5, &["/proc", "not a model"]);
    sandbox
        .run(&["umount", "absent"])
        .fails(5, &["absent", "does not exist"]);
    assert_eq!(sandbox.names(), ["a.tar", "file", "full", "mnt"]);
}

#[test]
fn m2_a_mount_point_that_is_busy() {
    let sandbox = sandbox();
    mount(&sandbox, &[]).ok();
    mount(&sandbox, &[]).fails(5, &["mnt", "in use", "a.tar"]);
    let open = fs::File::open(sandbox.path("mnt/a.bin")).unwrap();
    sandbox
        .run(&["umount", "mnt"])
        .fails(5, &["mnt", "busy", "--lazy"]);
    assert_tree(&sandbox.path("mnt"), &sample_files());
    drop(open);
    umount(&sandbox, "mnt");
    assert!(!is_mounted(&sandbox.path("mnt")));
}

#[test]
fn m2_a_stale_mount_is_cleared() {
    let sandbox = sandbox();
    let mut child = sandbox
        .command(&["mount", "--foreground", "--no-index", "a.tar", "mnt"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !sandbox.path("mnt/a.bin").exists() {
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(child.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The process that serves dies a moment after the one that was killed.
    while rustix::fs::statfs(sandbox.path("mnt")).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    let dead = rustix::fs::statfs(sandbox.path("mnt")).unwrap_err();
    assert_eq!(dead, rustix::io::Errno::NOTCONN);
    mount(&sandbox, &[]).ok();
    assert_tree(&sandbox.path("mnt"), &sample_files());
    umount(&sandbox, "mnt");
    assert!(!is_mounted(&sandbox.path("mnt")));
}

#[test]
fn m3_what_the_mount_would_hide() {
    let sandbox = Sandbox::new();
    sandbox.write("mnt/deep/a.tar", Layout::sample().to_bytes());
    let archive = ["mount", "mnt/deep/a.tar", "mnt", "-o", "nonempty"];
    sandbox
        .run(&archive)
        .fails(5, &["mnt", "contains the archive"]);
    sandbox.write("a.tar", Layout::sample().to_bytes());
    let index = [
        "mount",
        "a.tar",
        "mnt",
        "-o",
        "nonempty",
        "--index-dir",
        "mnt/deep/x",
    ];
    sandbox.run(&index).fails(5, &["mnt", "contains the index"]);
    let log = [
        "mount",
        "a.tar",
        "mnt",
        "-o",
        "nonempty",
        "--log-file",
        "mnt/log",
    ];
    sandbox
        .run(&log)
        .fails(5, &["mnt", "contains the log file"]);
    // By way of a link, and an image layout instead of an archive.
    std::os::unix::fs::symlink("mnt/deep/a.tar", sandbox.path("link.tar")).unwrap();
    let link = ["mount", "link.tar", "mnt", "-o", "nonempty"];
    sandbox
        .run(&link)
        .fails(5, &["mnt", "contains the archive"]);
    for (name, bytes) in &Layout::sample().entries {
        sandbox.write(&format!("layout/{name}"), bytes);
    }
    let layout = ["mount", "layout", "layout", "-o", "nonempty"];
    sandbox
        .run(&layout)
        .fails(5, &["layout", "contains the archive"]);
    assert!(!is_mounted(&sandbox.path("mnt")));
}

#[test]
fn m5_one_archive_mounted_twice() {
    let sandbox = sandbox();
    sandbox.mkdir("mnt2");
    mount(&sandbox, &[]).ok();
    sandbox.run(&["mount", "a.tar", "mnt2"]).ok();
    assert_tree(&sandbox.path("mnt"), &sample_files());
    assert_tree(&sandbox.path("mnt2"), &sample_files());
    umount(&sandbox, "mnt");
    assert_tree(&sandbox.path("mnt2"), &sample_files());
    umount(&sandbox, "mnt2");
}

/// Only one of several that start at once gets the place, and none hangs.
#[test]
fn m5_one_place_taken_at_once() {
    let sandbox = sandbox();
    let runs: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| mount(&sandbox, &["--no-index"])))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let done = runs.iter().filter(|run| run.code == Some(0)).count();
    assert!(done >= 1);
    assert_tree(&sandbox.path("mnt"), &sample_files());
    for _ in 0..done {
        umount(&sandbox, "mnt");
    }
    assert!(!is_mounted(&sandbox.path("mnt")));
}

/// Runs in a mount namespace of its own, where `setup` has taken something away.
fn without(sandbox: &Sandbox, setup: &str, user: bool) -> Option<Run> {
    if !needs_root("take something away in a mount namespace") {
        return None;
    }
    let probe = Command::new("unshare")
        .args(["--mount", "sh", "-c", setup])
        .current_dir(sandbox.root())
        .stderr(Stdio::null())
        .status();
    let possible = probe.is_ok_and(|status| status.success());
    if !available("the right to make a mount namespace", possible) {
        return None;
    }
    let become_user = match user {
        true => "setpriv --reuid 65534 --regid 65534 --clear-groups",
        false => "",
    };
    // The copy that an ordinary user can run.
    drop(sandbox.as_user(&[]));
    let binary = sandbox.path(".bin/modeloci");
    let script = format!("{setup} && exec {become_user} \"$0\" mount --no-index a.tar mnt");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(binary);
    sandbox.settle(&mut command);
    Some(finish(command))
}

#[test]
fn m6_no_dev_fuse() {
    let sandbox = sandbox();
    let setup = &machine::own_dev("null");
    if let Some(run) = without(&sandbox, setup, false) {
        run.fails(5, &["/dev/fuse", "missing", "modprobe fuse"]);
    }
    sandbox.give_to_user("mnt");
    if let Some(run) = without(&sandbox, setup, true) {
        run.fails(5, &["/dev/fuse", "missing", "modprobe fuse"]);
    }
}

#[test]
fn m6_no_fusermount3() {
    let sandbox = sandbox();
    sandbox.give_to_user("mnt");
    // Hidden wherever it could be.
    sandbox.mkdir("hidden");
    let setup = "for d in /usr/bin /bin /usr/local/bin; do \
                 if [ -e $d/fusermount3 ]; then mount --bind /dev/null $d/fusermount3 2>/dev/null; fi; \
                 done; true";
    if let Some(run) = without(&sandbox, setup, true) {
        run.fails(5, &["fusermount3", "fuse3"]);
    }
}

#[test]
fn m0_an_ordinary_user_mounts_and_unmounts() {
    let sandbox = sandbox();
    sandbox.give_to_user("mnt");
    fs::set_permissions(sandbox.path("a.tar"), fs::Permissions::from_mode(0o644)).unwrap();
    finish(sandbox.as_user(&["mount", "--no-index", "a.tar", "mnt"])).ok();
    let read = match is_root() {
        // Not even root may look into a mount of someone else.
        true => fs::read_dir(sandbox.path("mnt")).is_err(),
        false => fs::read_dir(sandbox.path("mnt")).is_ok(),
    };
    let run = finish(sandbox.as_user(&["umount", "mnt"]));
    if run.code != Some(0) {
        detach(&sandbox.path("mnt"));
    }
    run.ok();
    assert!(read);
    assert!(!is_mounted(&sandbox.path("mnt")));
}

#[test]
fn m0_bad_options_are_wrong_usage() {
    let sandbox = sandbox();
    for bad in [
        &["-o", "rw"][..],
        &["-o", "suid"],
        &["-o", "nonsense"],
        &["-o", "uid=root"],
        &["-o", "threads=0"],
        &["--cache-size", "lots"],
        &["--uid", "-1"],
        &["--index-dir", "x", "--no-index"],
    ] {
        let run = mount(&sandbox, bad);
        run.fails(2, &[]);
    }
    mount(&sandbox, &["--log-file", "absent/log"]).fails(5, &["absent/log"]);
    std::os::unix::fs::symlink("theirs", sandbox.path("link")).unwrap();
    mount(&sandbox, &["--log-file", "link"]).fails(1, &["link: is a symbolic link"]);
    assert!(!is_mounted(&sandbox.path("mnt")));
    assert_eq!(sandbox.names(), ["a.tar", "link", "mnt"]);
}

/// Writing is refused in every way.
#[test]
fn n3_a_mount_is_read_only() {
    let sandbox = sandbox();
    let mounted = Mounted::new(&sandbox, "a.tar");
    let erofs = |result: std::io::Result<()>, what: &str| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(30), "{what}");
    };
    let file = mounted.path().join("a.bin");
    let open = |options: &mut fs::OpenOptions| options.open(&file).map(drop);
    erofs(open(fs::OpenOptions::new().write(true)), "write");
    erofs(
        open(fs::OpenOptions::new().read(true).write(true)),
        "read and write",
    );
    erofs(open(fs::OpenOptions::new().append(true)), "append");
    erofs(fs::write(mounted.path().join("new"), "x"), "create");
    erofs(fs::create_dir(mounted.path().join("new")), "mkdir");
    erofs(fs::remove_file(&file), "unlink");
    erofs(fs::remove_dir_all(mounted.path().join("dir")), "rmdir");
    erofs(fs::rename(&file, mounted.path().join("b")), "rename");
    erofs(
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777)),
        "chmod",
    );
    erofs(
        std::os::unix::fs::symlink("x", mounted.path().join("l")),
        "symlink",
    );
    erofs(fs::hard_link(&file, mounted.path().join("l")), "link");
    assert_tree(&mounted.path(), &sample_files());
}
