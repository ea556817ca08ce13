//! Mount points, options and the environment: what is refused, and that it says why.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::harness::{
    BINARY, Mounted, Run, Scene, is_root, kill, lives, mounts_at, needs_root, until,
};
use crate::support::machine;

#[test]
fn m1_odd_names_are_escaped() {
    let scene = Scene::new();
    for odd in [
        "comma,allow_other,x",
        "back\\slash\\",
        "a space",
        "new\nline",
        "#hash",
        "ünï",
        "-o",
        "\\040",
    ] {
        let dir = scene.path("odd").join(odd);
        fs::create_dir_all(dir.join("mnt")).unwrap();
        let archive = dir.join(format!("{odd}.tar"));
        fs::copy(scene.path("m.tar"), &archive).unwrap();
        let mut command = scene.command(&["mount", "--"]);
        Run::of(command.arg(&archive).arg(dir.join("mnt"))).ok();
        let mount = Mounted(dir.join("mnt"));
        assert_eq!(mounts_at(&mount.0), 1, "{odd:?}");
        assert_eq!(
            fs::read(mount.path("config.json")).unwrap(),
            scene.bytes("config.json")
        );
        let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours: Vec<_> = info
            .lines()
            .filter(|l| l.contains(" - fuse.modeloci "))
            .collect();
        assert!(ours.iter().all(|l| !l.ends_with("allow_other")), "{ours:?}");
        mount.unmount();
        assert_eq!(mounts_at(&mount.0), 0, "{odd:?}");
    }
}

#[test]
fn m2_places_that_cannot_be_mounted_on() {
    let scene = Scene::new();
    scene
        .run(&["mount", "m.tar", "missing"])
        .refused(5, "does not exist");
    fs::create_dir(scene.path("plain")).unwrap();
    fs::write(scene.path("plain/config.json"), "{}").unwrap();
    scene
        .run(&["mount", "plain", "mnt"])
        .refused(3, "hint: pack a model directory first");
    scene
        .run(&["mount", "m.tar", "m.tar"])
        .refused(5, "is not a directory");
    fs::create_dir_all(scene.path("full/x")).unwrap();
    scene
        .run(&["mount", "m.tar", "full"])
        .refused(5, "is not empty");
    scene
        .run(&["mount", "m.tar", "full", "-o", "nonempty"])
        .ok();
    let over = Mounted(scene.path("full"));
    assert!(over.path("config.json").exists());

    let mount = scene.mount(&[]);
    scene
        .run(&["mount", "m.tar", "mnt"])
        .refused(5, "is in use");
    assert_eq!(mounts_at(&mount.0), 1);
    mount.unmount();
    mount.umount(&[]).refused(5, "no model is mounted there");
}

#[test]
fn m2_a_stale_mount_is_cleared() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let pid = mount.pid();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name, "modeloci\n", "what ps and pgrep see");
    kill(pid, libc::SIGKILL);
    until("it is dead", || !lives(pid));
    assert_eq!(mounts_at(&mount.0), 1, "it left its mount");
    let dead = Run::of(scene.command(&["status"]).arg(&mount.0));
    dead.refused(5, "its process is gone");

    let done = scene.run(&["mount", "m.tar", "mnt"]).ok();
    assert_eq!(
        done.stderr.lines().next(),
        Some(
            format!(
                "warning: mount point {}: cleared the mount of a process that was killed",
                mount.0.display()
            )
            .as_str()
        )
    );
}

/// A look at the directory would wait for the process for ever.
#[test]
fn m2_a_mount_whose_process_hangs_is_unmounted_lazily() {
    let scene = Scene::new();
    let mut server = scene.serve(&[]);
    let serving = server.mount.server();
    server.signal(libc::SIGSTOP);
    kill(serving, libc::SIGSTOP);
    let mut umount = std::process::Command::new("timeout");
    umount.args(["20", BINARY, "umount", "--lazy"]);
    Run::of(umount.arg(&server.mount.0)).ok();
    assert_eq!(mounts_at(&server.mount.0), 0);
    server.signal(libc::SIGCONT);
    kill(serving, libc::SIGCONT);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn m3_the_archive_may_not_lie_below_the_mount_point() {
    let scene = Scene::new();
    let below = |args: &[&str], what: &str| {
        let mut all = vec!["mount"];
        all.extend(args);
        scene.run(&all).refused(5, what);
    };
    below(&["m.tar", ".", "-o", "nonempty"], "contains the archive");
    below(
        &["m.tar", "mnt", "--index-dir", "mnt/index"],
        "contains the index directory",
    );
    fs::create_dir_all(scene.path("logs")).unwrap();
    below(
        &["m.tar", "logs", "-o", "nonempty", "--log-file", "logs/log"],
        "contains the log file",
    );
}

#[test]
fn m4_others_are_let_in_by_root() {
    if !needs_root("look at a mount as another user") {
        return;
    }
    let scene = Scene::new();
    fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = scene.mount(&["--allow-other"]);
    let path = mount.path("config.json");
    let seen = as_user(Command::new("cat").arg(&path)).ok();
    assert_eq!(seen.stdout, scene.bytes("config.json"));
    mount.unmount();

    let mount = scene.mount(&[]);
    let seen = as_user(Command::new("cat").arg(&path));
    assert!(seen.stderr.contains("Permission denied"), "{}", seen.stderr);
    mount.unmount();
}

fn as_user(command: &mut Command) -> Run {
    Run::of(command.env("LC_ALL", "C").uid(65534).gid(65534))
}

/// Mounts for others as an ordinary user, with a `fuse.conf` of these lines.
fn for_others_with_conf(conf: &str) -> Run {
    let scene = Scene::new();
    fs::write(scene.path("conf"), conf).unwrap();
    let script = "cp -a /etc etc && cp conf etc/fuse.conf && mount --bind etc /etc && \
         user=\"setpriv --reuid=65534 --regid=65534 --clear-groups\" && \
         $user \"$2\" mount m.tar mnt --allow-other --no-index && \
         setpriv --reuid=1 --regid=1 --clear-groups cat mnt/config.json && \
         $user \"$2\" umount mnt";
    hidden(&format!("cd \"$1\" && {script}"), &scene)
}

#[test]
fn m4_others_are_let_in_by_users_if_fuse_conf_says_so() {
    if !needs_root("have a fuse.conf of its own") {
        return;
    }
    let hint = "root can allow it with a line \"user_allow_other\"";
    for conf in [
        "",
        "#user_allow_other\n",
        "# user_allow_other\nmount_max = 9\n",
    ] {
        for_others_with_conf(conf).refused(5, hint);
    }
    for conf in ["user_allow_other\n", "mount_max = 9\n user_allow_other \n"] {
        let seen = for_others_with_conf(conf).ok();
        assert_eq!(seen.text(), "{\"layers\": 2}");
    }
}

#[test]
fn m5_one_archive_mounted_twice() {
    Scene::each().for_each(mounted_twice);
}

fn mounted_twice(scene: Scene) {
    let first = scene.mount(&[]);
    fs::create_dir(scene.path("other")).unwrap();
    scene.run(&["mount", "m.tar", "other"]).ok();
    let second = Mounted(scene.path("other"));
    for (name, bytes) in &scene.files {
        assert!(&fs::read(first.path(name)).unwrap() == bytes);
        assert!(&fs::read(second.path(name)).unwrap() == bytes);
    }
    assert_ne!(first.pid(), second.pid());
    first.unmount();
    assert!(second.path("config.json").exists());
}

/// Runs a script in a mount namespace of its own, where it may hide what it likes.
fn hidden(script: &str, scene: &Scene) -> Run {
    chown(scene.path("mnt"), Some(65534), Some(65534)).unwrap();
    scene.shell(&format!(
        "exec unshare --mount --propagation private sh -c '{script}' sh \"$@\""
    ))
}

#[test]
fn m6_without_fuse_it_says_what_to_install() {
    // The messages have unit tests.
    if !needs_root("hide the device and the programs") {
        return;
    }
    let scene = Scene::new();
    let own_dev = machine::own_dev("null");
    hidden(
        &format!("{own_dev} && exec \"$2\" mount \"$1/m.tar\" \"$1/mnt\" --foreground"),
        &scene,
    )
    .refused(5, "modprobe fuse");
    hidden(
        "cp \"$(command -v setpriv)\" \"$1\" && mount -t tmpfs none /usr/bin && \
         exec \"$1/setpriv\" --reuid=65534 --regid=65534 --clear-groups \
         \"$2\" mount \"$1/m.tar\" \"$1/mnt\" --no-index",
        &scene,
    )
    .refused(5, "install the package fuse3");
}

/// What the mount point lies on is then in no table that the program sees.
#[test]
fn m15_a_root_directory_that_is_no_mount_of_its_own_is_mounted_in() {
    if !needs_root("change the root directory") {
        return;
    }
    let scene = Scene::new();
    let done = hidden(
        "cd \"$1\" && mkdir -p root/mnt root/proc root/dev root/tmp && cp m.tar root && \
         for dir in bin lib lib64 usr; do \
           [ -e /$dir ] || continue; \
           if [ -L /$dir ]; then cp -a /$dir root; \
           else mkdir root/$dir && mount --bind /$dir root/$dir; fi || exit 1; \
         done && \
         : >root/modeloci && mount --bind \"$2\" root/modeloci && \
         mount -t proc none root/proc && mount --rbind /dev root/dev && \
         chroot root /modeloci mount m.tar mnt --no-index && \
         cat root/mnt/config.json && chroot root /modeloci status mnt >&2 && \
         chroot root /modeloci umount mnt && ls root/mnt",
        &scene,
    );
    let said = done.ok();
    assert_eq!(said.stdout, scene.bytes("config.json"), "{}", said.stderr);
}

#[test]
fn options_are_checked() {
    let scene = Scene::new();
    for (option, why) in [
        ("rw", "use ro"),
        ("allow_root", "use allow_other"),
        ("frobnicate", "is unknown"),
        ("cache_size=much", "not a size"),
    ] {
        scene
            .run(&["mount", "m.tar", "mnt", "-o", option])
            .refused(2, why);
    }
    let list = "defaults,ro,noexec,_netdev,x-systemd.automount,threads=2,max_readahead=1MiB";
    let mount = scene.mount(&["-o", list]);
    let run = std::process::Command::new(mount.path("nested/deep/run.sh")).output();
    assert_eq!(crate::harness::errno(run), libc::EACCES);
    if is_root() {
        use std::os::unix::fs::MetadataExt as _;
        let dev = fs::metadata(&mount.0).unwrap().dev();
        let bdi = format!(
            "/sys/class/bdi/{}:{}/read_ahead_kb",
            libc::major(dev),
            libc::minor(dev)
        );
        assert_eq!(fs::read_to_string(bdi).unwrap().trim(), "1024");
    }
}

/// A container sees a directory of a model, or one file, by way of a bind mount.
#[test]
fn a_part_that_is_mounted_elsewhere_has_the_status_of_the_whole() {
    if !needs_root("bind mounts") {
        return;
    }
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    fs::create_dir(scene.path("part")).unwrap();
    fs::write(scene.path("file"), "").unwrap();
    for (what, at) in [("nested", "part"), ("config.json", "file")] {
        let at = scene.path(at);
        rustix::mount::mount_bind(mount.path(what), &at).unwrap();
        let told = Run::of(scene.command(&["status"]).arg(&at));
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
        let whole = format!("Mounted on:       {}\n", mount.0.display());
        assert!(told.ok().text().contains(&whole), "{what}");
    }
}

#[test]
fn what_is_no_model_is_left_alone() {
    let scene = Scene::new();
    scene.run(&["umount", "/proc"]).refused(5, "not a model");
    scene
        .run(&["umount", "mnt"])
        .refused(5, "no model is mounted");
    scene
        .run(&["status", "mnt"])
        .refused(5, "no model is mounted");

    // What was probably meant is named.
    let mount = scene.mount(&[]);
    let at = format!("give {}\n", mount.0.display());
    for command in ["umount", "status"] {
        for near in ["mnt/config.json", "mnt/nested/deep", "m.tar"] {
            scene.run(&[command, near]).refused(5, &at);
        }
    }
    mount.unmount();
}
