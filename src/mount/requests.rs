//! What the FUSE operations answer: attributes, directories, extended attributes and bytes.
//!
//! Everything here can be asked without a mount. Attributes and names never change, so every
//! answer, also that a name is absent, may be kept for ever.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo};

use super::sandbox::Protections;
use super::serve::{Files, Read};
use super::status::{Failure, MAX_FAILURES, Status};
use super::{errno, guard};
use crate::error::Error;
use crate::layer::{Wait, Within};
use crate::model::{Attr, DirEntry, Inode, Model, NodeKind};

/// How long the kernel may keep what it was told: 136 years. (The longest duration that the
/// protocol can carry would be negative in the kernel's own time type.)
pub(super) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Block size that files report. Some readers allocate a buffer of it for every open file.
pub(super) const BLOCK_BYTES: u32 = 4096;
/// Largest value of an extended attribute (`XATTR_SIZE_MAX` of Linux).
const MAX_XATTR_BYTES: usize = 64 << 10;
/// Different failures that are logged at full level.
const MAX_REPORTED: usize = 1024;

const PREFIX: &str = "user.modeloci.";
/// Answers [`status`](super::status); not listed, because its value is never the same twice.
pub(super) const STATUS_XATTR: &str = "user.modeloci.status";

/// An extended attribute: what follows the prefix in its name, and its value if that is not too
/// large for one.
type Xattr = (&'static str, Option<String>);

fn xattr(name: &'static str, value: String) -> Xattr {
    (
        name,
        Some(value).filter(|value| value.len() <= MAX_XATTR_BYTES),
    )
}

/// The extended attributes of the mount's root. They may take long to write down, and never change.
fn root_xattrs(model: &Model) -> Box<[Xattr]> {
    let mut all = vec![xattr(
        "manifest-digest",
        model.manifest_digest().to_string(),
    )];
    if let Some(config) = model.config() {
        let metadata = serde_json::to_string(&config.metadata).unwrap_or_default();
        all.extend([
            xattr("name", config.model_name.clone()),
            xattr("version", config.version.clone()),
            xattr("framework", config.framework.clone()),
            xattr("architecture", config.architecture.clone()),
            xattr("metadata", metadata),
        ]);
    }
    all.into()
}

/// A mounted model and what it has done: shared by event loops, prefetch and signals.
pub(super) struct Shared {
    pub(super) model: Model,
    root_xattrs: Box<[Xattr]>,
    pub(super) counters: Counters,
    pub(super) mountpoint: PathBuf,
    pub(super) cache_bytes: u64,
    pub(super) process: Process,
    uid: u32,
    gid: u32,
    started: Instant,
    reported: Mutex<HashSet<u64>>,
    /// The process that prefetches; 0 for none.
    prefetcher: AtomicU32,
    /// The last file of which it could not read something.
    failed_ahead: Mutex<Option<Inode>>,
    /// The last failures, the newest first, one of each file.
    failures: Mutex<VecDeque<Failure>>,
}

/// What a status tells of the process that serves.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// The process that keeps its mount; `None` for itself.
    pub(super) keeper: Option<u32>,
    /// What it has given up.
    pub(super) sandbox: Option<Protections>,
}

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A read that is being answered, until it is dropped.
pub(super) struct Reading {
    shared: Arc<Shared>,
    ahead: bool,
}

impl Reading {
    pub(super) fn begin(shared: &Arc<Shared>, ahead: bool) -> Reading {
        let reading = Reading {
            shared: Arc::clone(shared),
            ahead,
        };
        reading.counter().fetch_add(1, Ordering::Relaxed);
        shared.counters.reads.fetch_add(1, Ordering::Relaxed);
        reading
    }

    fn counter(&self) -> &AtomicUsize {
        let counters = &self.shared.counters;
        match self.ahead {
            true => &counters.reading_ahead,
            false => &counters.reading,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let shared = &self.shared;
        if !self.ahead {
            let now = u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            shared.counters.last_read.store(now, Ordering::Relaxed);
        }
        self.counter().fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts of a mount.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Requests of any kind that reached this process.
    pub(super) requests: AtomicU64,
    /// Of these, reads of file content.
    pub(super) reads: AtomicU64,
    /// Requests that panicked.
    pub(super) panics: AtomicU64,
    /// Reads that are being answered now.
    pub(super) reading: AtomicUsize,
    /// Those of a prefetch.
    pub(super) reading_ahead: AtomicUsize,
    /// When the last read ended, in milliseconds after the start.
    last_read: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        model: Model,
        mountpoint: PathBuf,
        cache_bytes: u64,
        owner: (u32, u32),
    ) -> Shared {
        Shared {
            root_xattrs: root_xattrs(&model),
            model,
            counters: Counters::default(),
            mountpoint,
            cache_bytes,
            process: Process::default(),
            uid: owner.0,
            gid: owner.1,
            started: Instant::now(),
            reported: Mutex::new(HashSet::new()),
            prefetcher: AtomicU32::new(0),
            failed_ahead: Mutex::new(None),
            failures: Mutex::default(),
        }
    }

    /// The attributes of an inode.
    pub(super) fn attr(&self, inode: INodeNo) -> Result<FileAttr, Errno> {
        let attr = self.model.attr(Inode(inode.0)).ok_or(Errno::ESTALE)?;
        Ok(self.fuse_attr(&attr))
    }

    /// The attributes of a name; `None` when the directory does not have it. `.` and `..` are
    /// names only for an NFS server that opens a handle.
    pub(super) fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<Option<FileAttr>, Errno> {
        let directory = self.directory(parent)?;
        let found = match name.to_str() {
            Some("." | "..") => self
                .model
                .readdir(directory, 0)
                .and_then(|mut entries| entries.find(|entry| name == entry.name))
                .and_then(|entry| self.model.attr(entry.inode)),
            _ => self.model.lookup(directory, name),
        };
        Ok(found.map(|attr| self.fuse_attr(&attr)))
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
            *lock(&self.failed_ahead) = Some(inode);
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

    /// From now on, reads of this process are prefetching.
    pub(super) fn set_prefetcher(&self, process: u32) {
        self.prefetcher.store(process, Ordering::Relaxed);
    }

    /// True for the process that prefetches.
    pub(super) fn is_prefetcher(&self, process: u32) -> bool {
        process != 0 && process == self.prefetcher.load(Ordering::Relaxed)
    }

    /// Reads of the process that prefetches which are being answered now.
    pub(super) fn reads_ahead(&self) -> usize {
        self.counters.reading_ahead.load(Ordering::Relaxed)
    }

    /// The file of which something could not be prefetched since the last call.
    pub(super) fn take_failed_ahead(&self) -> Option<Inode> {
        lock(&self.failed_ahead).take()
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
        let name = name.strip_prefix(PREFIX).ok_or(Errno::NO_XATTR)?;
        let all = self.xattrs(Inode(inode.0))?;
        match all.iter().find(|(known, _)| *known == name) {
            Some((_, Some(value))) => Ok(value.clone().into_bytes()),
            Some((_, None)) => Err(Errno::E2BIG),
            None => Err(Errno::NO_XATTR),
        }
    }

    /// The names of all extended attributes, each with a zero byte after it.
    pub(super) fn xattr_names(&self, inode: INodeNo) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        for (name, value) in self.xattrs(Inode(inode.0))?.iter() {
            if value.is_some() {
                names.extend_from_slice(PREFIX.as_bytes());
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        Ok(names)
    }

    fn xattrs(&self, inode: Inode) -> Result<Cow<'_, [Xattr]>, Errno> {
        let model = &self.model;
        if inode == Inode::ROOT {
            return Ok(Cow::Borrowed(&self.root_xattrs));
        }
        let Some(file) = model.file(inode) else {
            // A directory has none; an unknown inode is an error.
            let none = Cow::Borrowed(&[][..]);
            return model.attr(inode).map(|_| none).ok_or(Errno::ESTALE);
        };
        let mut all = vec![xattr("digest", file.layer.digest.to_string())];
        if let Some(digest) = &file.digest {
            all.push(xattr("sha256", digest.to_string()));
        }
        all.push(xattr("media-type", file.layer.media_type.to_string()));
        all.push(xattr("verified", model.verified(inode).to_string()));
        if model.damaged(inode) {
            all.push(xattr("damaged", true.to_string()));
        }
        Ok(Cow::Owned(all))
    }

    pub(super) fn fuse_attr(&self, attr: &Attr) -> FileAttr {
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

    /// True while readers wait, and for `pause` after the last.
    pub(super) fn in_use(&self, pause: Duration) -> bool {
        let last = self.counters.last_read.load(Ordering::Relaxed);
        self.counters.reading.load(Ordering::Relaxed) > 0
            || (last > 0 && self.started.elapsed() < Duration::from_millis(last) + pause)
    }

    /// What the mount has done so far.
    pub(super) fn status(&self) -> Status {
        Status::of(self, self.started.elapsed())
    }
}

impl Files for Shared {
    fn attempt(&self, read: &Read, may: Option<Wait>) -> Result<Within, Errno> {
        guard::run(&self.counters.panics, || {
            let (inode, len) = (Inode(read.inode), read.size as usize);
            self.model
                .read_within(may, read.ahead, inode, read.offset, len)
                .map_err(|error| self.failed(read, &error))
        })
    }

    fn touch(&self, read: &Read) -> Result<(), Errno> {
        guard::run(&self.counters.panics, || {
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
