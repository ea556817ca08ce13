//! The same one level lower: a file system of our own holds the archive, so that what fails, is
//! interrupted or comes short is the system call.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen,
    Request,
};
use modeloci::{Compression, ErrorKind, Model};

use super::plain::Form;
use super::{Files, files, foreign, gzip, options, packed, read};

const TTL: Duration = Duration::from_secs(3600);
/// The archive; its inode is 2.
const NAME: &str = "m.tar";

/// What a read of the archive meets.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The read with this number fails.
    Fails(u64, Errno),
    /// Every second one is interrupted.
    Interrupted,
    /// All of more than one byte come short, by as much as differs from one to the next.
    Short,
    None,
}

/// A directory with the archive in it.
struct Storage {
    archive: Vec<u8>,
    fault: Fault,
    reads: Arc<AtomicU64>,
}

impl Storage {
    fn attr(&self, inode: u64) -> FileAttr {
        let directory = inode == 1;
        FileAttr {
            ino: INodeNo(inode),
            size: if directory {
                0
            } else {
                self.archive.len() as u64
            },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if directory { 0o755 } else { 0o444 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 512,
        }
    }
}

impl Filesystem for Storage {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some(NAME) => reply.entry(&TTL, &self.attr(2), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(inode.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Else the kernel makes its own reads of them.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let number = self.reads.fetch_add(1, Ordering::SeqCst);
        let start = self.archive.len().min(offset as usize);
        let mut len = (self.archive.len() - start).min(size as usize);
        match self.fault {
            Fault::Fails(which, errno) if which == number => return reply.error(errno),
            Fault::Interrupted if number.is_multiple_of(2) => return reply.error(Errno::EINTR),
            Fault::Short if len > 1 => len -= number as usize % (len / 2).clamp(1, 5000) + len / 3,
            _ => {}
        }
        reply.data(&self.archive[start..start + len]);
    }
}

/// A mount of such storage.
struct Mounted {
    dir: tempfile::TempDir,
    reads: Arc<AtomicU64>,
    session: Option<BackgroundSession>,
}

impl Mounted {
    fn new(archive: &Path, fault: Fault) -> Mounted {
        let reads = Arc::new(AtomicU64::new(0));
        let storage = Storage {
            archive: std::fs::read(archive).unwrap(),
            fault,
            reads: Arc::clone(&reads),
        };
        let dir = tempfile::tempdir().unwrap();
        let session = fuser::spawn_mount(storage, dir.path(), &Config::default()).unwrap();
        Mounted {
            dir,
            reads,
            session: Some(session),
        }
    }

    fn open(&self) -> modeloci::Result<Model> {
        Model::open(self.dir.path().join(NAME), &options())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Before the directory goes.
        drop(self.session.take());
    }
}

/// An archive for each way of reading layers.
fn archives() -> Vec<(tempfile::TempDir, Files)> {
    let new = |write: &dyn Fn(&Path, &Files)| {
        let (dir, files) = (tempfile::tempdir().unwrap(), files());
        write(dir.path(), &files);
        (dir, files)
    };
    vec![
        new(&|dir, files| packed(dir, files, Form::Packed(Compression::Auto))),
        new(&|dir, files| packed(dir, files, Form::Packed(Compression::None))),
        new(&|dir, files| packed(dir, files, Form::Plain)),
        new(&|dir, files| foreign(dir, files, gzip)),
        new(&|dir, files| foreign(dir, files, |tar| tar)),
    ]
}

#[test]
fn r4_interrupted_and_short_system_calls() {
    for (dir, files) in archives() {
        let mut healthy = 0;
        for fault in [Fault::None, Fault::Interrupted, Fault::Short] {
            let mounted = Mounted::new(&dir.path().join(NAME), fault);
            let model = mounted.open().unwrap();
            for (name, bytes) in &files {
                read(&model, name, bytes).unwrap();
                model.verify(model.find(name).unwrap().inode).unwrap();
            }
            let reads = mounted.reads.load(Ordering::SeqCst);
            match fault {
                Fault::None => healthy = reads,
                _ => assert!(reads > healthy, "{fault:?}: {reads} reads"),
            }
        }
    }
}

#[test]
fn r3_every_system_call_fails_once() {
    for (dir, files) in archives() {
        for number in 0.. {
            let errno = [Errno::EIO, Errno::ESTALE][number as usize % 2];
            let mounted = Mounted::new(&dir.path().join(NAME), Fault::Fails(number, errno));
            let blames_the_disk = |error: modeloci::Error| {
                assert_eq!(
                    error.kind(),
                    ErrorKind::Environment,
                    "read {number}: {error}"
                );
            };
            let model = mounted.open().map_err(blames_the_disk);
            let model = model.unwrap_or_else(|()| mounted.open().unwrap());
            for (name, bytes) in &files {
                if let Err(error) = read(&model, name, bytes) {
                    blames_the_disk(error);
                    read(&model, name, bytes).unwrap();
                }
            }
            if mounted.reads.load(Ordering::SeqCst) <= number {
                assert!(number > 8, "only {number} reads");
                break;
            }
        }
    }
}
