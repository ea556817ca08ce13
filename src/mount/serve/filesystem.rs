//! What the FUSE operations answer: attributes, directories, extended attributes and bytes.
//!
//! Everything here can be asked without a mount. Names never change, nor attributes that are facts, so
//! every answer, also that a name is absent, may be kept for ever. What the first bytes of a layer without
//! a chunk table say of its file is a guess until somebody opens it: it is shown, but not to be kept.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo};

use super::activity::Activity;
use super::waits::{Files, Read};
use super::xattrs::Xattrs;
use super::{errno, guard};
use crate::error::Error;
use crate::model::{Attr, DirEntry, Inode, Model, NodeKind};
use crate::mount::resident::resident;
use crate::mount::status::{Failure, MAX_FAILURES, Protections, STATUS_XATTR, Status};
use crate::printable::{printable, printable_path};
use crate::stream::{Wait, Within};

/// How long the kernel may keep what it was told: 136 years. (The longest duration that the
/// protocol can carry would be negative in the kernel's own time type.)
pub(super) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Block size that files report. Some readers allocate a buffer of it for every open file.
pub(super) const BLOCK_BYTES: u32 = 4096;
/// Different failures that are logged at full level.
const MAX_REPORTED: usize = 1024;

/// A mounted model and what it has done: shared by event loops, prefetch and signals.
pub(in crate::mount) struct Shared {
    pub(in crate::mount) model: Model,
    xattrs: Xattrs,
    pub(in crate::mount) activity: Arc<Activity>,
    pub(in crate::mount) mountpoint: PathBuf,
    pub(super) cache_bytes: u64,
    pub(in crate::mount) process: Process,
    uid: u32,
    gid: u32,
    reported: Mutex<HashSet<u64>>,
    /// The last failures, the newest first, one of each file.
    failures: Mutex<VecDeque<Failure>>,
}

/// Attributes as they are shown.
pub(super) struct Shown {
    pub(super) attr: FileAttr,
    /// How long the kernel may keep them.
    pub(super) keep: Duration,
}

/// What a status tells of the process that serves.
#[derive(Debug, Default)]
pub struct Process {
    /// The process that keeps its mount; `None` for itself.
    pub keeper: Option<u32>,
    /// What it has given up.
    pub sandbox: Option<Protections>,
}

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(in crate::mount) fn new(
        model: Model,
        mountpoint: PathBuf,
        cache_bytes: u64,
        owner: (u32, u32),
    ) -> Shared {
        Shared {
            xattrs: Xattrs::of(&model),
            model,
            activity: Arc::new(Activity::new()),
            mountpoint,
            cache_bytes,
            process: Process::default(),
            uid: owner.0,
            gid: owner.1,
            reported: Mutex::new(HashSet::new()),
            failures: Mutex::default(),
        }
    }

    /// The attributes of an inode, and how long they may be kept.
    pub(super) fn attr(&self, inode: INodeNo) -> Result<Shown, Errno> {
        let attr = self.model.attr(Inode(inode.0)).ok_or(Errno::ESTALE)?;
        Ok(self.shown_attr(&attr))
    }

    /// True when a file may be opened at once: what was shown of it is a fact.
    pub(super) fn is_settled(&self, inode: INodeNo) -> bool {
        self.model.has_facts(Inode(inode.0))
    }

    /// The attributes of a name; `None` when the directory does not have it. `.` and `..` are
    /// names only for an NFS server that opens a handle.
    pub(super) fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<Option<Shown>, Errno> {
        let directory = self.directory(parent)?;
        let found = match name.to_str() {
            Some("." | "..") => self
                .model
                .readdir(directory, 0)
                .and_then(|mut entries| entries.find(|entry| name == entry.name))
                .and_then(|entry| self.model.attr(entry.inode)),
            _ => self.model.lookup(directory, name),
        };
        Ok(found.map(|attr| self.shown_attr(&attr)))
    }

    /// Hands the entries of a directory from `offset` to `add` until it returns true: full.
    pub(super) fn list(
        &self,
        inode: INodeNo,
        offset: u64,
        mut add: impl FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<(), Errno> {
        let directory = self.directory(inode)?;
        let entries = self
            .model
            .readdir(directory, offset)
            .ok_or(Errno::ENOTDIR)?;
        for entry in entries {
            if add(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn directory(&self, inode: INodeNo) -> Result<Inode, Errno> {
        match self.model.attr(Inode(inode.0)).ok_or(Errno::ESTALE)?.kind {
            NodeKind::Directory => Ok(Inode(inode.0)),
            NodeKind::File => Err(Errno::ENOTDIR),
        }
    }

    /// What to answer to a read that failed.
    fn failed(&self, read: &Read, error: &Error) -> Errno {
        let inode = Inode(read.inode);
        if read.ahead {
            self.activity.failed_ahead(inode);
        }
        self.report(inode, read.offset, error);
        self.remember(inode, read.offset, error);
        errno::of(error.kind())
    }

    /// Keeps a failure for the status.
    fn remember(&self, inode: Inode, offset: u64, error: &Error) {
        let Some(file) = self.model.file(inode) else {
            return;
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let failure = Failure::new(
            file.path.as_str(),
            offset,
            now.map_or(0, |now| now.as_secs()),
            error,
        );
        let mut failures = lock(&self.failures);
        failures.retain(|known| known.path != failure.path);
        failures.push_front(failure);
        failures.truncate(MAX_FAILURES);
    }

    /// The last failures, the newest first.
    pub(super) fn failures(&self) -> Vec<Failure> {
        lock(&self.failures).iter().cloned().collect()
    }

    /// Logs a failure: once at full level, because readers repeat what failed.
    fn report(&self, inode: Inode, offset: u64, error: &Error) {
        let mut hasher = DefaultHasher::new();
        error.to_string().hash(&mut hasher);
        let mut reported = lock(&self.reported);
        let first = reported.len() < MAX_REPORTED && reported.insert(hasher.finish());
        drop(reported);
        let level = if first {
            log::Level::Error
        } else {
            log::Level::Debug
        };
        match self.model.file(inode) {
            Some(file) => log::log!(level, "read {} at {offset}: {error}", file.path),
            None => log::log!(level, "read inode {} at {offset}: {error}", inode.0),
        }
    }

    /// The value of an extended attribute. There are none but those of users, and saying so tells
    /// programs (ls, for one) not to ask for labels and access lists of one file after the other.
    pub(super) fn xattr(&self, inode: INodeNo, name: &OsStr) -> Result<Vec<u8>, Errno> {
        if !name.as_encoded_bytes().starts_with(b"user.") {
            return Err(Errno::EOPNOTSUPP);
        }
        let name = name.to_str().ok_or(Errno::NO_XATTR)?;
        // Also of a part of the model, which may be all that a container sees of it.
        if name == STATUS_XATTR && self.model.attr(Inode(inode.0)).is_some() {
            return serde_json::to_vec(&self.status()).map_err(|_| Errno::EIO);
        }
        self.xattrs.value(&self.model, Inode(inode.0), name)
    }

    /// The names of all extended attributes, each with a zero byte after it.
    pub(super) fn xattr_names(&self, inode: INodeNo) -> Result<Vec<u8>, Errno> {
        self.xattrs.names(&self.model, Inode(inode.0))
    }

    fn shown_attr(&self, attr: &Attr) -> Shown {
        Shown {
            attr: self.fuse_attr(attr),
            keep: match self.model.has_facts(attr.inode) {
                true => FOREVER,
                false => Duration::ZERO,
            },
        }
    }

    fn fuse_attr(&self, attr: &Attr) -> FileAttr {
        // A time that the system's clock cannot hold is as good as unknown.
        let time = SystemTime::UNIX_EPOCH
            .checked_add(attr.mtime)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        FileAttr {
            ino: INodeNo(attr.inode.0),
            size: attr.size,
            blocks: attr.size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: kind(attr.kind),
            perm: attr.mode,
            nlink: attr.links,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }

    /// A negative entry: the name is absent, and the kernel may remember that.
    pub(super) fn absent(&self) -> FileAttr {
        FileAttr {
            ino: INodeNo(0),
            ..self.fuse_attr(&Attr {
                inode: Inode(0),
                kind: NodeKind::File,
                size: 0,
                mode: 0,
                mtime: Duration::ZERO,
                links: 0,
            })
        }
    }

    /// What the mount has done so far.
    pub(in crate::mount) fn status(&self) -> Status {
        let (model, activity) = (&self.model, &self.activity);
        let stats = model.stats();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            modeloci: env!("CARGO_PKG_VERSION").to_string(),
            pid: self.process.keeper.unwrap_or_else(std::process::id),
            server_pid: std::process::id(),
            sandbox: self.process.sandbox.clone(),
            archive: printable(&model.name()),
            mountpoint: printable_path(&self.mountpoint),
            manifest_digest: model.manifest_digest().to_string(),
            uptime_seconds: activity.uptime().as_secs(),
            files: model.files().len() as u64,
            total_bytes: model.total_bytes(),
            requests: get(&activity.requests),
            read_requests: get(&activity.reads),
            reads_in_flight: activity.in_flight() as u64,
            panics: get(&activity.panics),
            bytes_served: get(&stats.bytes_served),
            chunks_verified: get(&stats.chunks_verified),
            chunks_decoded: get(&stats.chunks_decoded),
            cache_hits: get(&stats.cache_hits),
            waits: get(&stats.waits),
            failures: get(&stats.failures),
            last_failures: self.failures(),
            cache_used_bytes: model.cache_used(),
            cache_size_bytes: self.cache_bytes,
            prefetched_bytes: get(&model.stats().bytes_prefetched),
            memory_bytes: resident().unwrap_or(0),
        }
    }
}

impl Shared {
    /// Makes facts of what is shown of a file that a prefetch is about to have opened; false when they are
    /// none. Here, and not by the process that opens: while that waits, nobody can unmount.
    pub(in crate::mount) fn settle_ahead(&self, inode: Inode) -> bool {
        let open = Read {
            inode: inode.0,
            offset: 0,
            size: 0,
            thread: 0,
            ahead: true,
        };
        self.is_settled(INodeNo(inode.0)) || self.attempt(&open, Some(Wait::Pass)).is_ok()
    }
}

impl Files for Shared {
    fn attempt(&self, read: &Read, may: Option<Wait>) -> Result<Within, Errno> {
        guard::run(&self.activity.panics, || {
            let (inode, len) = (Inode(read.inode), read.size as usize);
            self.model
                .read_within(may, read.ahead, inode, read.offset, len)
                .map_err(|error| self.failed(read, &error))
        })
    }

    fn touch(&self, read: &Read) -> Result<(), Errno> {
        guard::run(&self.activity.panics, || {
            let touched = self.model.touch(Inode(read.inode));
            touched.map_err(|error| self.failed(read, &error))
        })
    }

    fn blob(&self, inode: u64) -> u64 {
        let key = self.model.content_key(Inode(inode));
        key.map_or(0, |key| key as u64)
    }

    fn advance(&self, inode: u64) -> u64 {
        self.model.advance(Inode(inode))
    }

    fn stalled(&self, read: &Read, time: Duration) -> Errno {
        let what = format!("no byte of it could be read for {} s", time.as_secs());
        self.failed(read, &Error::environment("the layer", what))
    }
}

/// The type of an inode, as FUSE calls it.
pub(super) fn kind(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::File => FileType::RegularFile,
    }
}
