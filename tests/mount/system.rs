//! The system around a mount: its logger, mount(8) and fstab(5).

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::harness::{Run, Scene, needs_root, until};
use crate::support::machine;

/// Runs a script in a mount namespace of its own: `$1` is the scene's directory, where it starts,
/// and `$2` the binary.
fn own_namespace(script: &str, scene: &Scene) -> Run {
    let run = "exec unshare --mount --propagation private sh -euc \"$3\" sh \"$1\" \"$2\"";
    Run::of(&mut scene.script(run, &[script.as_ref()]))
}

/// The same, where mount(8) finds the binary as its helper.
fn with_helper(script: &str, scene: &Scene) -> Run {
    let links = "mkdir sbin
        cp -a /sbin/. sbin
        ln -sf \"$2\" sbin/mount.modeloci
        ln -sf \"$2\" sbin/mount.fuse.modeloci
        mount --bind sbin \"$(readlink -f /sbin)\"\n";
    own_namespace(&format!("{links}{script}"), scene)
}

#[test]
fn a_mount_in_the_background_speaks_to_the_system_log() {
    if !needs_root("put a logger of its own at /dev/log") {
        return;
    }
    let scene = Scene::new();
    let logger = UnixDatagram::bind(scene.path("logger")).unwrap();
    logger
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let own_dev = machine::own_dev("null zero urandom fuse");
    let done = own_namespace(
        &format!(
            "{own_dev}
            ln -s \"$1/logger\" /dev/log
            \"$2\" mount m.tar mnt --no-index
            \"$2\" umount mnt"
        ),
        &scene,
    );
    done.ok();
    let receive = || {
        let mut buf = [0; 8192];
        let n = logger.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    };
    let mounted = receive();
    assert!(mounted.starts_with("<30>modeloci["), "{mounted}");
    assert!(mounted.contains("]: info: mounted "), "{mounted}");
    let ended = receive();
    assert!(ended.contains("0 bytes served in 0 reads"), "{ended}");
}

/// What root has kept of the environment of whoever became root leads it nowhere.
#[test]
fn r13_root_writes_no_log_where_a_user_leads_it() {
    if !needs_root("hide the system's logger") {
        return;
    }
    let own_dev = machine::own_dev("null zero urandom fuse");
    for (env, link) in [
        ("XDG_STATE_HOME=\"$1/u/state\"", "u/state/modeloci"),
        ("XDG_STATE_HOME=\"$1/u/state\"", "u/state"),
        // A home of root that others can write to.
        ("-u XDG_STATE_HOME HOME=\"$1/h\"", "h/.local"),
        ("-u XDG_STATE_HOME HOME=\"$1/h\"", "h/.local/state"),
        ("-u XDG_STATE_HOME HOME=\"$1/u\"", "u/.local/state/modeloci"),
    ] {
        let scene = Scene::new();
        let done = own_namespace(
            &format!(
                "{own_dev}
                mkdir -p none log victim u h \"$(dirname {link})\"
                chmod 1777 h
                [ ! -d /run/systemd ] || mount --bind none /run/systemd
                mount --bind log /var/log
                chmod 777 log
                ln -s \"$1/victim\" {link}
                chown -hR 12345 u {link}
                for dir in h/.local h/.local/state; do [ ! -e $dir ] || chown -h 12345 $dir; done
                env {env} \"$2\" mount m.tar mnt --no-index
                \"$2\" umount mnt
                ls -A victim log"
            ),
            &scene,
        )
        .ok();
        assert_eq!(done.text(), "log:\n\nvictim:\n", "{env} {link}");
        assert!(
            done.stderr.contains("messages of this mount are lost"),
            "{}",
            done.stderr
        );
    }
}

/// As in a container: `/dev` has no logger, and there is no journal.
#[test]
fn a_mount_in_the_background_without_a_system_log_speaks_to_a_file() {
    if !needs_root("hide the system's logger") {
        return;
    }
    let scene = Scene::new();
    let own_dev = machine::own_dev("null zero urandom fuse");
    let hidden = format!(
        "{own_dev}
        mkdir -p none log
        [ ! -d /run/systemd ] || mount --bind none /run/systemd
        mount --bind log /var/log\n"
    );
    let mount = "\"$2\" mount m.tar mnt --no-index
        \"$2\" umount mnt\n";
    for (own, file) in [
        (
            "export XDG_STATE_HOME=\"$1/state\"\n",
            "state/modeloci/mount.log",
        ),
        ("unset XDG_STATE_HOME\n", "log/modeloci.log"),
    ] {
        let done = own_namespace(&format!("{hidden}{own}{mount}"), &scene).ok();
        assert!(!done.stderr.contains("warning"), "{}", done.stderr);
        let told = || fs::read_to_string(scene.path(file)).unwrap_or_default();
        until("the end is told", || {
            told().contains("0 bytes served in 0 reads")
        });
        let first = told().lines().next().unwrap().to_string();
        assert!(first.contains("Z modeloci["), "{first}");
        assert!(first.contains("]: info: mounted "), "{first}");
    }
    // Where nothing can be written, that is said.
    let nowhere = "export XDG_STATE_HOME=/dev/null\n";
    let done = own_namespace(&format!("{hidden}{nowhere}{mount}"), &scene).ok();
    let warning =
        "warning: there is no system log, and cannot append to /dev/null/modeloci/mount.log";
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    assert!(
        done.stderr.contains("--log-file names a file"),
        "{}",
        done.stderr
    );
}

#[test]
fn mount_8_mounts_models() {
    if !needs_root("mount with mount(8)") {
        return;
    }
    let scene = Scene::new();
    let done = with_helper(
        "mount -t modeloci \"$1/m.tar\" \"$1/mnt\" -o ro,threads=2,sync,nosymfollow,_netdev
        cat mnt/config.json
        mount -o remount,ro \"$1/mnt\" || echo \" remount: $?\"
        umount mnt
        mount -t fuse.modeloci \"$1/m.tar\" \"$1/mnt\"
        cat mnt/config.json
        umount mnt
        mount -t modeloci \"$1/m.tar\" \"$1/mnt\" -o frobnicate || echo \" option: $?\"
        mount -t modeloci \"$1/absent.tar\" \"$1/mnt\" || echo \"archive: $?\"
        mount -f -t modeloci \"$1/m.tar\" \"$1/mnt\"
        umount mnt || echo \"nothing mounted\"",
        &scene,
    );
    // Some of it fails, and says so.
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(
        done.text(),
        "{\"layers\": 2} remount: 1\n{\"layers\": 2} option: 1\narchive: 32\nnothing mounted\n"
    );
    assert!(
        done.stderr.contains("cannot be remounted"),
        "{}",
        done.stderr
    );
    // The second of them did not ask for ro.
    let told = format!(
        "warning: {} is mounted read-only",
        scene.path("mnt").display()
    );
    assert_eq!(done.stderr.matches(&told).count(), 1, "{}", done.stderr);
    assert!(done.stderr.contains("\"frobnicate\": is unknown"));
}

#[test]
fn fstab_mounts_models_for_root_and_users() {
    if !needs_root("write fstab") {
        return;
    }
    let scene = Scene::new();
    chown(scene.path("mnt"), Some(65534), Some(65534)).unwrap();
    let done = with_helper(
        "echo \"$1/m.tar $1/mnt modeloci ro,nofail,user,noexec 0 0\" >fstab
        mount --bind fstab /etc/fstab
        mount -a
        mount -a # what is mounted is left alone
        grep -c \" $1/mnt ro,nosuid,nodev,noexec\" /proc/self/mountinfo
        umount mnt
        user() { setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"; }
        user mount \"$1/mnt\"
        user cat mnt/config.json
        setpriv --reuid=1 --regid=1 --clear-groups \"$2\" umount mnt || echo \" other: $?\"
        user \"$2\" umount mnt",
        &scene,
    );
    // Some of it fails, and says so.
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(
        done.text(),
        "1\n{\"layers\": 2} other: 5\n",
        "{}",
        done.stderr
    );
    assert!(
        done.stderr
            .contains("was mounted by another user; unmount it"),
        "{}",
        done.stderr
    );
}
