//! A server of an earlier version, which keeps serving when the program is replaced: `status` asks it
//! and `umount` ends it.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, INodeNo,
    MountOption, ReplyAttr, ReplyXattr, Request, Session, SessionACL,
};
use modeloci::mount::Status;
use rustix::mount::MountFlags;
use serde_json::{Value, json};

use crate::workspace::{Workspace, output};
use crate::{assert_still_says, golden, golden_json};

/// What it said of itself: the attribute's value.
fn document() -> Value {
    golden_json("status.json")
}

/// Answers as an earlier server did: the status, and an empty root.
struct Server(Vec<u8>);

impl Filesystem for Server {
    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let time = SystemTime::UNIX_EPOCH;
        let attr = FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: FileType::Directory,
            perm: 0o555,
            nlink: 2,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        reply.attr(&Duration::from_secs(60), &attr);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match (name == "user.modeloci.status", size as usize) {
            (false, _) => reply.error(Errno::NO_XATTR),
            (true, 0) => reply.size(self.0.len() as u32),
            (true, size) if size < self.0.len() => reply.error(Errno::ERANGE),
            (true, _) => reply.data(&self.0),
        }
    }
}

/// What is mounted: the source that the mount table shows.
const ARCHIVE: &str = "/srv/models/golden.tar";

/// Mounts a server that answers with `status`.
fn serve(mountpoint: &Path, status: Vec<u8>) -> BackgroundSession {
    fs::create_dir(mountpoint).unwrap();
    let (server, mut config) = (Server(status), Config::default());
    if !rustix::process::geteuid().is_root() {
        config.mount_options = vec![
            MountOption::RO,
            MountOption::FSName(ARCHIVE.into()),
            MountOption::Subtype("modeloci".into()),
        ];
        return fuser::spawn_mount(server, mountpoint, &config).unwrap();
    }
    // As root, fuser gives the file system no type of its own.
    let mut device = fs::File::options();
    let device = device.read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let data = CString::new(data).unwrap();
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(ARCHIVE, mountpoint, "fuse.modeloci", flags, &*data).unwrap();
    let session = Session::from_fd(server, device.into(), SessionACL::Owner, config);
    session.unwrap().spawn().unwrap()
}

#[test]
fn what_a_server_said_is_understood() {
    let golden = document();
    let status: Status = serde_json::from_value(golden.clone()).unwrap();
    let understood = serde_json::to_value(&status).unwrap();
    assert_still_says(&understood, &golden, "status");
    assert_eq!(status.last_failures[0].path, "weights.bin");
    assert_eq!((status.failures, status.files), (2, 7));
}

#[test]
fn what_a_later_server_may_add_is_passed_over() {
    let mut later = document();
    let more = json!({ "of": ["anything", 1.5, null] });
    for object in ["", "/sandbox", "/last_failures/0"] {
        let object = later.pointer_mut(object).unwrap().as_object_mut().unwrap();
        object.insert("unheard_of".into(), more.clone());
    }
    let status: Status = serde_json::from_value(later).unwrap();
    assert_eq!(status, serde_json::from_value(document()).unwrap());
}

#[test]
fn status_and_umount_work_against_a_server_of_an_earlier_version() {
    let workspace = Workspace::new();
    let raw = fs::read(golden("status.json")).unwrap();
    let mountpoint = workspace.path("mnt");
    let server = serve(&mountpoint, raw);
    let json = output(workspace.modeloci(&["status", "--json"]).arg(&mountpoint));
    let shown: Value = serde_json::from_slice(&json).unwrap();
    assert_still_says(&shown, &document(), "status");
    let text = output(workspace.modeloci(&["status"]).arg(&mountpoint));
    let text = String::from_utf8(text).unwrap();
    for line in [
        "Archive:          /srv/models/golden.tar",
        "Failures:         2",
        "Chunks:           4 verified, 4 decoded, 0 cache hits, 0 waits",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    output(workspace.modeloci(&["umount"]).arg(&mountpoint));
    server.join().unwrap();
    // Nothing is mounted any more.
    fs::remove_dir(&mountpoint).unwrap();
}
