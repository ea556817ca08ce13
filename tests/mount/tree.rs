//! Names, attributes, extended attributes; and that nothing can be changed.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::fs::{Dir, Mode, OFlags, XattrFlags};

use crate::harness::{Packaging, Scene, errno, is_root, needs_root};

fn xattr(path: &Path, name: &str) -> Result<String, rustix::io::Errno> {
    let mut buf = [0; 4096];
    let n = rustix::fs::getxattr(path, name, &mut buf[..])?;
    Ok(String::from_utf8(buf[..n].to_vec()).unwrap())
}

fn xattr_names(path: &Path) -> Vec<String> {
    let mut buf = [0; 4096];
    let n = rustix::fs::listxattr(path, &mut buf[..]).unwrap();
    let names = String::from_utf8(buf[..n].to_vec()).unwrap();
    names.split_terminator('\0').map(str::to_string).collect()
}

#[test]
fn attributes() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    for (name, mode, size, links) in [
        ("", 0o040555, 0, 3),
        ("nested", 0o040555, 0, 3),
        ("nested/deep", 0o040555, 0, 2),
        ("config.json", 0o100444, 13, 1),
        ("empty", 0o100444, 0, 1),
        ("nested/deep/run.sh", 0o100555, 22, 1),
    ] {
        let meta = fs::metadata(mount.path(name)).unwrap();
        assert_eq!(meta.mode(), mode, "{name}");
        assert_eq!(meta.size(), size, "{name}");
        assert_eq!(meta.nlink(), links, "{name}");
        assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{name}");
        assert_eq!(meta.blocks(), size.div_ceil(512), "{name}");
        assert_eq!(meta.blksize(), 4096, "{name}");
        assert_eq!(meta.mtime(), 1_600_000_000, "{name}");
    }
    let name = mount.path("config.json");
    assert_eq!(errno(fs::read_link(&name)), libc::EINVAL);
    assert_eq!(errno(fs::metadata(mount.path("absent"))), libc::ENOENT);
    assert_eq!(errno(fs::metadata(name.join("x"))), libc::ENOTDIR);
    assert_eq!(errno(fs::read(mount.path("nested"))), libc::EISDIR);
}

#[test]
fn owners_can_be_chosen() {
    let scene = Scene::new();
    let mount = scene.mount(&["--uid", "1234", "-o", "gid=4321"]);
    let meta = fs::metadata(mount.path("config.json")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
}

#[test]
fn extended_attributes() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let root = mount.path("");
    let digest = xattr(&root, "user.modeloci.manifest-digest").unwrap();
    assert_eq!(digest, scene.digest);
    assert!(!xattr_names(&root).contains(&"user.modeloci.status".into()));
    assert!(
        xattr(&root, "user.modeloci.status")
            .unwrap()
            .starts_with('{')
    );

    let file = mount.path("config.json");
    assert_eq!(
        xattr_names(&file),
        [
            "user.modeloci.digest",
            "user.modeloci.media-type",
            "user.modeloci.verified"
        ]
    );
    assert!(
        xattr(&file, "user.modeloci.digest")
            .unwrap()
            .starts_with("sha256:")
    );
    assert_eq!(xattr(&file, "user.modeloci.verified").unwrap(), "false");
    fs::read(&file).unwrap();
    assert_eq!(xattr(&file, "user.modeloci.verified").unwrap(), "true");

    use rustix::io::Errno;
    for name in ["user.other", "user.modeloci.damaged"] {
        assert_eq!(xattr(&file, name), Err(Errno::NODATA), "{name}");
    }
    // A part of the model may be all that a container sees of it.
    for part in [&file, &mount.path("nested")] {
        let status = xattr(part, "user.modeloci.status").unwrap();
        assert!(status.starts_with('{'), "{status}");
    }
    for name in ["security.capability", "system.posix_acl_access"] {
        assert_eq!(xattr(&file, name), Err(Errno::OPNOTSUPP), "{name}");
    }
    assert_eq!(xattr_names(&mount.path("nested")), [""; 0]);
    let mut small = [0; 3];
    let short = rustix::fs::getxattr(&file, "user.modeloci.digest", &mut small[..]);
    assert_eq!(short, Err(Errno::RANGE));
}

/// Long listings ask for labels and access lists of every file, unless they hear that there are none.
#[test]
fn a_long_listing_asks_little() {
    // Where layers have chunk tables, what is listed are facts; guesses are not for the kernel to keep, and
    // it asks for each twice: for the name, and for what it shows.
    for (packaging, most) in [
        (Packaging::Packed("none"), 100),
        (Packaging::Foreign, 2 * 500 + 100),
    ] {
        lists_with(packaging, most);
    }
}

fn lists_with(packaging: Packaging, most: u64) {
    let files = (0..500).map(|n| (format!("f{n:03}"), vec![b'x'; n]));
    let scene = Scene::packaged(packaging, files.collect());
    let mount = scene.mount(&[]);
    let before = mount.count("requests");
    let out = Command::new("ls")
        .arg("-lR")
        .arg(mount.path(""))
        .output()
        .unwrap();
    let lines = String::from_utf8(out.stdout).unwrap();
    assert!(lines.contains("f000") && lines.contains("f499"), "{lines}");
    let requests = mount.count("requests") - before;
    assert!(requests < most, "{requests} requests for 500 files");
    // What the mount itself has to say is still heard.
    assert!(xattr(&mount.path("f007"), "user.modeloci.digest").is_ok());
}

#[test]
fn statistics() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let stat = rustix::fs::statvfs(mount.path("")).unwrap();
    let bytes: usize = scene.files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(stat.f_blocks, (bytes as u64).div_ceil(4096));
    assert_eq!((stat.f_bfree, stat.f_ffree), (0, 0));
    assert_eq!(stat.f_files, 5 + 3, "files and directories");
    assert_eq!(stat.f_namemax, 255);
    let flags = rustix::fs::StatVfsMountFlags::RDONLY
        | rustix::fs::StatVfsMountFlags::NOSUID
        | rustix::fs::StatVfsMountFlags::NODEV;
    assert!(stat.f_flag.contains(flags));
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn n1_each_entry_exactly_once() {
    let count = 3_000;
    let expected: BTreeSet<String> = (0..count).map(|n| format!("file-{n:06}")).collect();
    let scene = Scene::of(
        expected
            .iter()
            .map(|name| (format!("many/{name}"), Vec::new()))
            .collect(),
    );
    let mount = scene.mount(&[]);
    let many = mount.path("many");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let listed = names(&many);
                assert_eq!(listed.len(), count);
                assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
            });
        }
    });
    // seekdir: from any entry's offset the rest follows, also after the kernel has forgotten.
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Dir::new(rustix::fs::open(&many, flags, Mode::empty()).unwrap()).unwrap()
    };
    let all: Vec<_> = open().map(|entry| entry.unwrap()).collect();
    assert_eq!(all.len(), count + 2);
    for at in [0, 1, 2, 777, count, count + 1] {
        let mut dir = open();
        dir.seek(all[at].offset()).unwrap();
        let rest: Vec<_> = dir.map(|e| e.unwrap().file_name().to_owned()).collect();
        let expected: Vec<_> = all[at + 1..]
            .iter()
            .map(|e| e.file_name().to_owned())
            .collect();
        assert!(rest == expected, "after entry {at}");
    }
}

#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    inode: [u32; 2],
    generation: u32,
    padding: [u32; 13],
}

#[test]
fn n2_unknown_inodes_are_stale() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    // The answer has unit tests.
    if !needs_root("open by handle") {
        return;
    }
    let file = File::open(mount.path("")).unwrap();
    let path = CString::new(mount.path("config.json").as_os_str().as_bytes()).unwrap();
    let mut handle = Handle {
        bytes: 64,
        kind: 0,
        inode: [0; 2],
        generation: 0,
        padding: [0; 13],
    };
    let mut mount_id = 0;
    // SAFETY: the handle has the layout of `struct file_handle` with 64 bytes of room, as it says.
    let rc = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            path.as_ptr(),
            (&raw mut handle).cast(),
            &mut mount_id,
            0,
        )
    };
    assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    let open = |handle: &mut Handle| {
        use std::os::fd::{AsRawFd as _, FromRawFd as _};
        // SAFETY: as above; a descriptor that is returned is ours alone.
        unsafe {
            let raw: *mut Handle = handle;
            match libc::open_by_handle_at(file.as_raw_fd(), raw.cast(), libc::O_RDONLY) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(File::from_raw_fd(fd)),
            }
        }
    };
    let known = io::read_to_string(open(&mut handle).unwrap()).unwrap();
    assert_eq!(known.as_bytes(), scene.bytes("config.json"));
    handle.inode = [0, 4_000_000];
    assert_eq!(errno(open(&mut handle)), libc::ESTALE);
    handle.inode = [4_000_000, 0];
    assert_eq!(errno(open(&mut handle)), libc::ESTALE);
}

#[test]
fn n2_a_forget_storm_leaks_nothing() {
    let files = (0..500)
        .map(|n| (format!("d{}/f{n}", n % 20), vec![b'x'; 100]))
        .collect();
    let scene = Scene::of(files);
    let mount = scene.mount(&[]);
    let visit = || {
        for (name, bytes) in &scene.files {
            assert!(&fs::read(mount.path(name)).unwrap() == bytes);
        }
    };
    visit();
    let before = mount.count("memory_bytes");
    for _ in 0..20 {
        if is_root() {
            // Drops dentries and inodes: the kernel forgets every one of ours.
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        }
        visit();
    }
    let grown = mount.count("memory_bytes").saturating_sub(before);
    assert!(grown < 4 << 20, "grew by {grown} bytes");
}

#[test]
fn n3_nothing_can_be_changed() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    let file = mount.path("config.json");
    let new = mount.path("new");
    let call = |path: &Path, call: fn(*const libc::c_char) -> i32| {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        match call(path.as_ptr()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: `call` gives each of these a path that ends in a zero byte.
    let mkfifo = |path| unsafe { libc::mkfifo(path, 0o600) };
    // SAFETY: as above.
    let utimes = |path| unsafe { libc::utimes(path, std::ptr::null()) };
    // SAFETY: as above.
    let truncate = |path| unsafe { libc::truncate(path, 0) };
    let rustix = |result: Result<(), rustix::io::Errno>| result.map_err(io::Error::from);
    let attempts: Vec<(&str, io::Result<()>)> = vec![
        (
            "open for writing",
            OpenOptions::new().write(true).open(&file).map(drop),
        ),
        (
            "open for both",
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&file)
                .map(drop),
        ),
        (
            "append",
            OpenOptions::new().append(true).open(&file).map(drop),
        ),
        ("create", File::create(&new).map(drop)),
        ("truncate", File::create(&file).map(drop)),
        (
            "chmod",
            fs::set_permissions(&file, Permissions::from_mode(0o600)),
        ),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ("mkdir", fs::create_dir(&new)),
        ("rmdir", fs::remove_dir(mount.path("nested"))),
        ("unlink", fs::remove_file(&file)),
        ("rename", fs::rename(&file, &new)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("x", &new)),
        ("mkfifo", call(&new, mkfifo)),
        ("utimes", call(&file, utimes)),
        ("truncate(2)", call(&file, truncate)),
        (
            "setxattr",
            rustix(rustix::fs::setxattr(
                &file,
                "user.x",
                b"y",
                XattrFlags::empty(),
            )),
        ),
        (
            "removexattr",
            rustix(rustix::fs::removexattr(&file, "user.modeloci.digest")),
        ),
    ];
    for (what, result) in attempts {
        assert_eq!(errno(result), libc::EROFS, "{what}");
    }
    assert_eq!(fs::read(&file).unwrap(), scene.bytes("config.json"));
}

#[test]
fn n3_also_after_a_remount_by_root() {
    let scene = Scene::new();
    let mount = scene.mount(&[]);
    use rustix::mount::MountFlags;
    // No user gets as far as that.
    let remounted = rustix::mount::mount_remount(&mount.0, MountFlags::empty(), c"");
    if is_root() {
        remounted.unwrap();
    } else {
        assert_eq!(remounted, Err(rustix::io::Errno::PERM));
    }
    let file = mount.path("config.json");
    assert_eq!(errno(fs::remove_file(&file)), libc::EROFS);
    assert_eq!(errno(File::create(mount.path("new"))), libc::EROFS);
    let chmod = fs::set_permissions(&file, Permissions::from_mode(0o600));
    assert_eq!(errno(chmod), libc::EROFS);
    if let Ok(mut open) = OpenOptions::new().write(true).open(&file) {
        assert_eq!(errno(io::Write::write(&mut open, b"x")), libc::EROFS);
    }
    assert_eq!(fs::read(&file).unwrap(), scene.bytes("config.json"));
}
