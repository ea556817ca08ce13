//! The operations of FUSE, one short function each: ask [`Shared`], then reply.
//!
//! Every operation that would change something is EROFS. The kernel refuses most of them itself,
//! since the mount is read-only; a remount by root must not change that.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::activity::Reading;
use super::filesystem::{BLOCK_BYTES, FOREVER, Shared, Shown, kind};
use super::guard;
use super::loops::ReadLoops;
use super::waits::{MAX_WAITING, Read, Waits};
use crate::mount::options::{MAX_REQUEST_BYTES, MountOptions};

/// The kernel keeps what it has read of a file.
const OPENED: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;
/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);
/// Requests in flight that are made in the background: all of readahead, the pages included that a
/// reader waits for. The kernel holds back those beyond, for all files; so there must be room for all
/// that wait here, and for others.
const MAX_BACKGROUND: u16 = MAX_WAITING as u16 + 1024;
/// With so many in flight the kernel reads ahead only what a reader waits for.
const CONGESTED: u16 = 48;

/// Serves a model to the kernel.
pub(in crate::mount) struct Adapter {
    shared: Arc<Shared>,
    loops: ReadLoops,
    waits: Arc<Waits<Shared>>,
    max_readahead: u32,
    /// The kernel takes ENOSYS from open as "not needed, for any file, ever": which is so as soon as what
    /// is shown of all files is a fact.
    no_open: bool,
    no_opendir: bool,
}

impl Adapter {
    pub(in crate::mount) fn new(shared: Arc<Shared>, options: &MountOptions) -> Adapter {
        let (threads, timeout) = (options.threads, options.stall_timeout);
        Adapter {
            waits: Arc::new(Waits::new(Arc::clone(&shared), threads, timeout)),
            shared,
            loops: ReadLoops::new(threads),
            max_readahead: options.max_readahead,
            no_open: false,
            no_opendir: false,
        }
    }

    fn guard<T>(&self, operation: impl FnOnce(&Shared) -> Result<T, Errno>) -> Result<T, Errno> {
        let activity = &self.shared.activity;
        activity.requests.fetch_add(1, Ordering::Relaxed);
        guard::run(&activity.panics, || operation(&self.shared))
    }
}

/// Answers a request for a value of unknown length: its length, or the value if it fits.
fn reply_xattr(result: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match (result, size) {
        (Err(errno), _) => reply.error(errno),
        (Ok(value), 0) => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        (Ok(value), size) if value.len() > size as usize => reply.error(Errno::ERANGE),
        (Ok(value), _) => reply.data(&value),
    }
}

fn reply_open(unneeded: bool, flags: FopenFlags, reply: ReplyOpen) {
    if unneeded {
        reply.error(Errno::ENOSYS);
    } else {
        reply.opened(FileHandle(0), flags);
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPORT_SUPPORT,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
        ] {
            if let Err(missing) = config.add_capabilities(wanted) {
                log::debug!("the kernel does not know {missing:?}");
            }
        }
        let known = config.capabilities();
        self.no_open = known.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = known.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // Each setter answers with the nearest value that it would take. The kernel caps
        // readahead at its default here; see `device::raise_readahead`.
        if let Err(nearest) = config.set_max_readahead(self.max_readahead) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_write(MAX_REQUEST_BYTES);
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(CONGESTED);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.guard(|s| s.lookup(parent, name)) {
            Ok(Some(Shown { attr, keep })) => {
                reply.entry_with_ttls(&keep, &FOREVER, &attr, GENERATION)
            }
            Ok(None) => reply.entry(&FOREVER, &self.shared.absent(), GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.guard(|s| s.attr(ino)) {
            Ok(Shown { attr, keep }) => reply.attr(&keep, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        reply.error(self.guard(|s| s.attr(ino)).err().unwrap_or(Errno::EINVAL));
    }

    /// Once a file is open, the kernel answers by itself where it ends: not before that is a fact. An
    /// opening waits for what its first read would wait for, and in the same way: as a read of no bytes.
    fn open(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.guard(|s| s.attr(ino).map(|_| s.is_settled(ino))) {
            Ok(true) => {
                let unneeded = self.no_open && self.shared.model.is_settled();
                return reply_open(unneeded, OPENED, reply);
            }
            Err(errno) => return reply.error(errno),
            Ok(false) => {}
        }
        let ahead = self.shared.activity.is_prefetcher(req.pid());
        let reading = Reading::begin(&self.shared.activity, ahead);
        let open = Read {
            inode: ino.0,
            offset: 0,
            size: 0,
            thread: req.pid(),
            ahead,
        };
        let waits = Arc::clone(&self.waits);
        self.loops.run(move || {
            waits.read(open, move |result| {
                match result {
                    Ok(_) => reply.opened(FileHandle(0), OPENED),
                    Err(errno) => reply.error(errno),
                }
                drop(reading);
            });
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_CACHE_DIR | OPENED;
        match self.guard(|s| s.attr(ino)) {
            Ok(_) => reply_open(self.no_opendir, flags, reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let activity = &self.shared.activity;
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.reads.fetch_add(1, Ordering::Relaxed);
        let ahead = activity.is_prefetcher(req.pid());
        let reading = Reading::begin(activity, ahead);
        let read = Read {
            inode: ino.0,
            offset,
            size,
            thread: req.pid(),
            ahead,
        };
        let waits = Arc::clone(&self.waits);
        self.loops.run(move || {
            waits.read(read, move |result| {
                match result {
                    Ok(bytes) => reply.data(&bytes),
                    Err(errno) => reply.error(errno),
                }
                drop(reading);
            });
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let filled = self.guard(|s| {
            s.list(ino, offset, |entry| {
                let inode = INodeNo(entry.inode.0);
                reply.add(inode, entry.next_offset, kind(entry.kind), entry.name)
            })
        });
        match filled {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let filled = self.guard(|s| {
            s.list(ino, offset, |entry| {
                let inode = INodeNo(entry.inode.0);
                let Ok(Shown { attr, keep }) = s.attr(inode) else {
                    return false;
                };
                let (offset, name) = (entry.next_offset, entry.name);
                reply.add(inode, offset, name, &keep, &attr, GENERATION)
            })
        });
        match filled {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let sizes = self.guard(|s| Ok((s.model.total_bytes(), s.model.inodes())));
        match sizes {
            Ok((bytes, inodes)) => {
                let blocks = bytes.div_ceil(u64::from(BLOCK_BYTES));
                reply.statfs(blocks, 0, 0, inodes, 0, BLOCK_BYTES, 255, BLOCK_BYTES);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(self.guard(|s| s.xattr(ino, name)), size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(self.guard(|s| s.xattr_names(ino)), size, reply);
    }

    fn access(&self, _req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        match self.guard(|s| s.attr(ino)) {
            Ok(_) if mask.contains(AccessFlags::W_OK) => reply.error(Errno::EROFS),
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    // Inodes live as long as the mount, so there is nothing to forget.
    fn forget(&self, _req: &Request, _ino: INodeNo, _nlookup: u64) {}

    // ENOSYS tells the kernel not to ask again, for any file.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // n3: nothing can be changed.
    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}
