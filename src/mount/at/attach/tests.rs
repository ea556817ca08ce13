//! Mounts of root in all their places: moved, covered, taken away by others.

use rustix::mount::UnmountFlags;

use super::*;

fn prepare(options: &MountOptions) -> Result<Place> {
    Place::prepare(options, None, &[])
}

/// A directory `P/mnt`, checked as a mount point; and `elsewhere`. `None` for users: only root
/// mounts without a helper.
fn scene() -> Option<(tempfile::TempDir, MountOptions, Place)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root mounts without fusermount3");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["P/mnt", "elsewhere"] {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let options = MountOptions::new("/archive.tar", dir.path().join("P/mnt"));
    let place = prepare(&options).unwrap();
    Some((dir, options, place))
}

fn mounts_below(dir: &tempfile::TempDir) -> Vec<u32> {
    let dir = dir.path().canonicalize().unwrap();
    let mounts = mountinfo::read().unwrap();
    let below = mounts
        .iter()
        .filter(|mount| mount.mount_point.starts_with(&dir));
    below.map(|mount| mount.id).collect()
}

fn connected(place: Place, options: &MountOptions) -> Result<(OwnedFd, Placed)> {
    let (fd, mountable) = connect(Target::Place(place), options)?;
    assert!(
        matches!(mountable.0, Kind::Floating(..)),
        "on a kernel of today"
    );
    let Attached::Placed(placed) = mountable.attach(fd.try_clone().unwrap())? else {
        panic!("a mount of ours");
    };
    Ok((fd, placed))
}

/// The same by mount(2), as where there is nothing newer.
fn the_old_way(
    place: Place,
    options: &MountOptions,
    before: impl FnOnce(),
) -> Result<(OwnedFd, Placed)> {
    let (fd, mountable) = by_path(place, "/archive.tar", |place| {
        before();
        mount_on(place, "/archive.tar", options)
    })?;
    let Attached::Placed(placed) = mountable.attach(fd.try_clone().unwrap())? else {
        panic!("a mount of ours");
    };
    Ok((fd, placed))
}

#[test]
fn m7_a_mount_point_that_is_replaced_is_refused_and_nothing_stays() {
    for old_way in [false, true] {
        let Some((dir, options, place)) = scene() else {
            return;
        };
        let replace = || {
            let at = |name: &str| dir.path().join(name);
            std::fs::rename(at("P/mnt"), at("P/was")).unwrap();
            std::os::unix::fs::symlink("../elsewhere", at("P/mnt")).unwrap();
        };
        let error = if old_way {
            the_old_way(place, &options, replace).unwrap_err()
        } else {
            replace();
            connected(place, &options).unwrap_err()
        };
        assert!(error.to_string().contains("was moved, replaced"), "{error}");
        assert_eq!(mounts_below(&dir), [0; 0]);
    }
}

#[test]
fn m7_with_other_parents_it_is_mounted_where_it_was_checked() {
    for old_way in [false, true] {
        let Some((dir, options, place)) = scene() else {
            return;
        };
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("Q/mnt")).unwrap();
        std::fs::rename(at("P"), at("was")).unwrap();
        std::os::unix::fs::symlink("Q", at("P")).unwrap();
        let (_fd, mut attached) = match old_way {
            true => the_old_way(place, &options, || ()).unwrap(),
            false => connected(place, &options).unwrap(),
        };
        let mounts = mountinfo::read().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let there = mountinfo::topmost(&mounts, &real.join("was/mnt"));
        assert_eq!(there.map(|mount| mount.id), Some(attached.found.mount));
        assert_eq!(attached.detach().unwrap(), Detached::Done);
        assert_eq!(mounts_below(&dir), [0; 0]);
    }
}

/// The kernel gives the numbers of a mount that is gone to the next one.
#[test]
fn m7_a_new_mount_with_the_numbers_of_an_old_one_is_new() {
    let Some((dir, options, place)) = scene() else {
        return;
    };
    let fd = mount_on(&place, "/archive.tar", &options).unwrap();
    let mounts = mountinfo::read().unwrap();
    let ours = mounts_below(&dir);
    let ours = mountinfo::by_id(&mounts, ours[0]).unwrap();
    let elsewhere = Mount {
        mount_point: dir.path().join("elsewhere"),
        ..ours.clone()
    };
    assert_eq!(placed(&[elsewhere], &place).unwrap().mount, ours.id);
    assert!(placed(std::slice::from_ref(ours), &place).is_err());
    drop(fd);
    place.dir.unmount_top(true).unwrap();
    assert_eq!(mounts_below(&dir), [0; 0]);
}

/// What a helper has mounted elsewhere is found and taken away.
#[test]
fn m7_a_mount_that_went_elsewhere_is_removed() {
    let Some((dir, options, place)) = scene() else {
        return;
    };
    let other = prepare(&MountOptions::new("/a.tar", dir.path().join("elsewhere")));
    let other = other.unwrap();
    let error = by_path(place, "/archive.tar", |_| {
        mount_on(&other, "/archive.tar", &options)
    });
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("was moved, replaced")
    );
    assert_eq!(mounts_below(&dir), [0; 0]);
}

#[test]
fn m8_who_comes_second_goes_and_leaves_the_first() {
    for old_way in [false, true] {
        let Some((dir, options, second)) = scene() else {
            return;
        };
        let (_fd, first) = connected(prepare(&options).unwrap(), &options).unwrap();
        let error = match old_way {
            true => the_old_way(second, &options, || ()).unwrap_err(),
            false => connected(second, &options).unwrap_err(),
        };
        assert!(error.to_string().contains("is in use"), "{error}");
        assert_eq!(mounts_below(&dir), [first.found.mount]);
        assert_eq!(stack_on(&first.place).unwrap()[0].id, first.found.mount);
        drop(first);
        assert_eq!(mounts_below(&dir), [0; 0]);
    }
}

/// Detaching takes our mount and no other: not one over it, not one that came after it, not
/// one that it stood on.
#[test]
fn m7_what_is_mounted_by_others_is_never_unmounted() {
    let Some((dir, options, place)) = scene() else {
        return;
    };
    let path = options.mountpoint.clone();
    let tmpfs = || {
        rustix::mount::mount("none", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        mounts_below(&dir).last().copied().unwrap()
    };
    drop(place);
    let below = tmpfs();
    let prepare = || prepare(&options).unwrap();
    let (_fd, mut ours) = connected(prepare(), &options).unwrap();
    let over = tmpfs();
    assert_eq!(ours.detach().unwrap(), Detached::Covered);
    assert_eq!(mounts_below(&dir), [below, ours.found.mount, over]);
    rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();

    // Unmounted by others; the mount below shows.
    rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
    drop(ours);
    assert_eq!(mounts_below(&dir), [below]);
    let (fd, mut ours) = connected(prepare(), &options).unwrap();
    rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
    drop(fd);
    assert_eq!(ours.detach().unwrap(), Detached::NotOurs);
    assert_eq!(mounts_below(&dir), [below]);
    // It holds the directory on which it was mounted.
    drop(ours);
    rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
}

/// Runs in a mount namespace that was there before the mount, and does not have it: there the kernel
/// lets its mount point be renamed.
#[expect(unsafe_code, reason = "unshare is a system call")]
fn in_an_older_namespace(
    mount: impl FnOnce() -> (OwnedFd, Placed),
    there: impl FnOnce() + Send,
) -> (OwnedFd, Placed) {
    use std::sync::mpsc::channel;
    let (ready, wait) = channel();
    let (go, mounted) = channel::<()>();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: a system call without pointers; it concerns this thread alone.
            let left = unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) };
            assert_eq!(left, 0);
            let private = rustix::mount::MountPropagationFlags::PRIVATE
                | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            ready.send(()).unwrap();
            mounted.recv().unwrap();
            there();
        });
        wait.recv().unwrap();
        let mount = mount();
        go.send(()).unwrap();
        thread.join().unwrap();
        mount
    })
}

#[test]
fn m7_a_mount_point_that_is_renamed_from_another_namespace_is_unmounted() {
    for old_way in [false, true] {
        let Some((dir, options, place)) = scene() else {
            return;
        };
        let at = |name: &str| dir.path().join(name);
        let mount = || match old_way {
            true => the_old_way(place, &options, || ()).unwrap(),
            false => connected(place, &options).unwrap(),
        };
        let (fd, mut ours) = in_an_older_namespace(mount, || {
            std::fs::rename(at("P/mnt"), at("elsewhere/was")).unwrap();
            std::os::unix::fs::symlink("../elsewhere", at("P/mnt")).unwrap();
        });
        assert_eq!(mounts_below(&dir), [ours.found.mount]);
        assert_eq!(ours.detach().unwrap(), Detached::Done);
        assert_eq!(mounts_below(&dir), [0; 0]);
        drop(fd);
    }
}

#[test]
fn m7_a_model_that_root_has_moved_elsewhere_is_unmounted() {
    let Some((dir, options, place)) = scene() else {
        return;
    };
    // What is mounted in a shared mount cannot be moved.
    let private = rustix::mount::MountPropagationFlags::PRIVATE;
    let whole = dir.path().canonicalize().unwrap();
    rustix::mount::mount_bind(&whole, &whole).unwrap();
    rustix::mount::mount_change(&whole, private).unwrap();
    drop(place);
    let place = prepare(&options).unwrap();
    let (_fd, mut ours) = connected(place, &options).unwrap();
    rustix::mount::mount_move(&options.mountpoint, whole.join("elsewhere")).unwrap();
    let outcome = ours.detach();
    drop(ours);
    rustix::mount::unmount(&whole, UnmountFlags::DETACH).unwrap();
    assert_eq!(outcome.unwrap(), Detached::Done);
}

#[test]
fn m10_a_mount_without_a_place_ends_with_its_owner_and_a_dead_one_is_cleared() {
    let Some((dir, options, place)) = scene() else {
        return;
    };
    let (fd, mountable) = connect(Target::Place(place), &options).unwrap();
    assert_eq!(mounts_below(&dir), [0; 0]);
    drop((fd, mountable));

    let place = prepare(&options).unwrap();
    let held = Place::find(&options.mountpoint).unwrap();
    let (fd, attached) = connected(place, &options).unwrap();
    // As if it had been killed.
    drop(fd);
    let mut attached = std::mem::ManuallyDrop::new(attached);
    attached.connection = None;
    place::clear_after_death(&held).unwrap();
    assert_eq!(mounts_below(&dir), [0; 0]);
}

/// mount(2) splits its options at commas that do not stand in quotes.
#[test]
fn m12_labels_stand_quoted_in_the_options_of_mount_2() {
    let connection = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut options = MountOptions::new("/archive.tar", "/mnt");
    options.allow_other = true;
    for (name, label) in [
        ("context", "system_u:object_r:tmp_t:s0:c127,c456"),
        ("rootcontext", "system_u:object_r:root_t:s0"),
    ] {
        options.labels.set(name, label).unwrap();
    }
    let text = data(&connection, &options);
    let labels = ",allow_other,context=\"system_u:object_r:tmp_t:s0:c127,c456\",\
                  rootcontext=\"system_u:object_r:root_t:s0\"";
    assert!(text.starts_with("default_permissions,fd="), "{text}");
    assert!(text.ends_with(labels), "{text}");
}

/// Here is no SELinux: what would take the labels says so.
#[test]
fn m12_a_kernel_that_takes_no_labels_is_named() {
    let Some((dir, mut options, place)) = scene() else {
        return;
    };
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let label = "system_u:object_r:tmp_t:s0:c127,c456";
    options.labels.set("context", label).unwrap();
    let error = mount_on(&place, "/archive.tar", &options).unwrap_err();
    let new = connect(Target::Place(place), &options).unwrap_err();
    for error in [error, new] {
        let why = format!("the kernel does not take context=\"{label}\": SELinux is not enabled");
        assert!(error.to_string().contains(&why), "{error}");
    }
    assert_eq!(mounts_below(&dir), [0; 0]);
}

/// Of several that mount on one directory, each that stands on another goes at the same time as those
/// that stand on it, and as the first.
#[test]
fn m8_a_mount_goes_whatever_comes_and_goes_on_top_of_it() {
    let Some((dir, options, place)) = scene() else {
        return;
    };
    for _ in 0..200 {
        let (_below, first) = connected(prepare(&options).unwrap(), &options).unwrap();
        let over = || {
            let Some((_connection, mount)) = float("/archive.tar", &options).unwrap() else {
                panic!("a floating mount");
            };
            let to = MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            let flags = to | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            // Where it comes to stand: on the first, or on the directory after that.
            move_mount(&mount, c"", &place.dir, c"", flags).unwrap();
            let _ = held::unmount_lazily(mount.as_fd());
        };
        let held = first.place.dir.top().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..3).for_each(|_| over()));
            }
            scope.spawn(|| held.unmount_lazily().unwrap());
        });
        drop(first);
        assert_eq!(mounts_below(&dir), [0; 0]);
    }
}
