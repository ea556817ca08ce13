//! What `scripts/release` makes: the same bytes wherever it is built, and each thing used where nothing
//! else is. Two builds for release take minutes, so it runs in long runs, for root, with a network.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use modeloci_test_support::machine::needs_root;
use modeloci_test_support::noise;
use modeloci_test_support::run::Run;
use modeloci_test_support::workspace::{Workspace, shell};

/// Released from a clone of its own, whose depth differs.
fn release(workspace: &Workspace, clone: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clone = workspace.path(clone);
    let script = r#"
        mkdir -p "$(dirname "$2")"
        git -c safe.directory='*' clone --quiet "$1" "$2"
        "$2"/scripts/release >&2
    "#;
    shell(script, &[root, &clone]);
    clone.join("dist")
}

/// The one of the released files whose name ends so.
fn find(dist: &Path, end: &str) -> PathBuf {
    let mut names = fs::read_dir(dist)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let found = names.find(|path| path.to_str().unwrap().ends_with(end));
    found.unwrap_or_else(|| panic!("{}: nothing ends with {end}", dist.display()))
}

fn model(workspace: &Workspace) -> PathBuf {
    workspace.write("model/config.json", "{}");
    workspace.write("model/weights.bin", noise(5, 3 << 20));
    workspace.path("model")
}

#[test]
fn what_is_released_is_the_same_everywhere_and_works_where_nothing_else_is() {
    if std::env::var_os("MODELOCI_TEST_LONG").is_none() {
        eprintln!("skipped: only long runs");
        return;
    }
    if !needs_root("change the root directory") {
        return;
    }
    let workspace = Workspace::new();
    let dist = release(&workspace, "here");
    let other = release(&workspace, "some/where/else");
    shell(r#"diff -r "$1" "$2""#, &[&dist, &other]);

    let model = model(&workspace);
    alone(&workspace, &dist, &model);
    unpacked(&workspace, &dist, &model);
    packaged(&workspace, &dist, &model);
    let bill = Run::of(
        Command::new("jq")
            .args(["-e", BILL])
            .arg(find(&dist, ".cdx.json")),
    );
    bill.ok();
}

/// It names what the program is made of.
const BILL: &str = r#".bomFormat == "CycloneDX" and .metadata.component.name == "modeloci"
    and ([.components[].name] | index("fuser") != null)"#;

/// The binary in a directory that has nothing beside it: no C library, no program, no user.
fn alone(workspace: &Workspace, dist: &Path, model: &Path) {
    let root = workspace.path("root");
    let script = r#"
        mkdir -p "$1"/mnt "$1"/dev "$1"/proc "$1"/tmp
        cp -r "$2" "$1"/model
        cp "$3" "$1"/modeloci
        inside() { chroot "$1" /modeloci "${@:2}"; }
        inside "$1" pack /model --name m --version 1.0.0 --output /m.tar
        inside "$1" verify /m.tar
        inside "$1" unpack /m.tar /out
        diff -r "$2" "$1"/out
        unshare --mount bash -eu -c '
            : >"$1"/dev/fuse && mount --bind /dev/fuse "$1"/dev/fuse
            mount -t proc none "$1"/proc
            chroot "$1" /modeloci mount /m.tar /mnt
            diff -r "$2" "$1"/mnt
            chroot "$1" /modeloci umount /mnt
        ' bash "$1" "$2"
    "#;
    shell(script, &[&root, model, &find(dist, "-x86_64-linux")]);
}

/// The tarball, and mount(8), which finds the program by the name that it has there.
fn unpacked(workspace: &Workspace, dist: &Path, model: &Path) {
    let script = r#"
        mkdir "$1" && tar -xzf "$3" -C "$1" --strip-components=1
        "$1"/bin/modeloci pack "$2" --name m --version 1.0.0 --output "$1"/m.tar
        mkdir "$1"/mnt
        "$1"/sbin/mount.modeloci "$1"/m.tar "$1"/mnt -o ro
        diff -r "$2" "$1"/mnt
        umount "$1"/mnt
        man -l "$1"/share/man/man1/modeloci-mount.1 | grep -q MOUNTPOINT
    "#;
    let place = workspace.path("place");
    shell(script, &[&place, model, &find(dist, ".tar.gz")]);
}

/// The package, in a system that was made for it, which it leaves as it was.
fn packaged(workspace: &Workspace, dist: &Path, model: &Path) {
    let script = r#"
        lintian --fail-on error,warning "$3"
        debootstrap --variant=minbase stable "$1"
        cp "$3" "$1"/modeloci.deb && cp -r "$2" "$1"/srv/model
        unshare --mount bash -eu -c '
            mount --rbind /dev "$1"/dev && mount -t proc none "$1"/proc
            inside() { chroot "$1" /usr/bin/env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin "${@:2}"; }
            inside "$1" apt-get install -y --no-install-recommends /modeloci.deb
            inside "$1" modeloci pack /srv/model --name m --version 1.0.0 --output /srv/m.tar
            mkdir "$1"/srv/mnt
            # As the unit does.
            inside "$1" setpriv --no-new-privs \
                --bounding-set=-all,+sys_admin,+setpcap,+dac_override,+dac_read_search \
                modeloci mount /srv/m.tar /srv/mnt
            diff -r "$2" "$1"/srv/mnt
            inside "$1" umount /srv/mnt
            inside "$1" mount -t modeloci /srv/m.tar /srv/mnt
            diff -r "$2" "$1"/srv/mnt
            inside "$1" umount /srv/mnt
            inside "$1" apt-get purge -y modeloci
            ! find "$1"/usr "$1"/etc -name "*modeloci*" | grep .
        ' bash "$1" "$2"
    "#;
    let system = workspace.path("system");
    shell(script, &[&system, model, &find(dist, "_amd64.deb")]);
}
