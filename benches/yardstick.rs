//! The yardstick: the most trivial FUSE server of a directory's bytes, all of them in memory,
//! tuned as the product's mount is. What it reaches is what FUSE itself allows.
//!
//! ```text
//! yardstick DIR MOUNTPOINT [--threads 8] [--readahead 16777216] [--background 64]
//!                          [--keep-cache on] [--ttl on] [--opens off] [--readdirplus on]
//!                          [--xattrs off] [--verify off]
//! ```
//!
//! Mounts (as root), prints `ready`, and serves until it is unmounted. Every option is one knob of
//! the mount; `scripts/bench knobs` turns each back to its default and shows what it is worth.
//!
//! With `--verify on` the bytes are not in memory: each request reads its chunk from DIR, compares its
//! BLAKE3 with the one of the start, and is answered from that buffer. It is the least that any server
//! of verified bytes must do, beside what FUSE takes.

#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyOpen, ReplyXattr, Request, Session,
};

/// Generous, but far from what overflows inside the kernel.
const FOREVER: Duration = Duration::from_secs(1 << 30);

struct Knobs {
    threads: usize,
    readahead: u32,
    background: u16,
    keep_cache: bool,
    ttl: Duration,
    opens: bool,
    readdirplus: bool,
    xattrs: bool,
    verify: bool,
}

/// What is verified at a time: the mount's default.
const CHUNK: usize = 512 << 10;

enum Content {
    File(Vec<u8>),
    /// Read and verified at each request.
    Verified(Verified),
    /// Names and inodes, `.` and `..` included, sorted.
    Directory(Vec<(OsString, u64)>),
}

struct Verified {
    file: std::fs::File,
    size: u64,
    /// Of each chunk.
    digests: Vec<blake3::Hash>,
}

impl Verified {
    fn open(path: &Path) -> io::Result<Verified> {
        let bytes = std::fs::read(path)?;
        Ok(Verified {
            file: std::fs::File::open(path)?,
            size: bytes.len() as u64,
            digests: bytes.chunks(CHUNK).map(blake3::hash).collect(),
        })
    }

    /// Hands the bytes from `offset` to `answer`, straight from the buffer where they lie in one chunk.
    fn read(&self, offset: u64, size: usize, answer: impl FnOnce(&[u8])) -> io::Result<()> {
        let size = size.min(self.size.saturating_sub(offset) as usize);
        let (first, start) = (
            (offset / CHUNK as u64) as usize,
            (offset % CHUNK as u64) as usize,
        );
        if start + size <= CHUNK {
            return self.chunk(first, |chunk| answer(&chunk[start..start + size]));
        }
        let mut joined = Vec::with_capacity(start + size);
        for number in first..(first * CHUNK + start + size).div_ceil(CHUNK) {
            self.chunk(number, |chunk| joined.extend_from_slice(chunk))?;
        }
        answer(&joined[start..start + size]);
        Ok(())
    }

    fn chunk(&self, number: usize, then: impl FnOnce(&[u8])) -> io::Result<()> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
        }
        let at = (number * CHUNK) as u64;
        let len = (self.size.saturating_sub(at) as usize).min(CHUNK);
        BUFFER.with_borrow_mut(|buffer| {
            let chunk = &mut buffer[..len];
            self.file.read_exact_at(chunk, at)?;
            if self.digests.get(number) != Some(&blake3::hash(chunk)) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            then(chunk);
            Ok(())
        })
    }
}

struct Memory {
    /// Inode 1 is the first.
    nodes: Vec<Content>,
    names: Vec<BTreeMap<OsString, u64>>,
    owner: (u32, u32),
    knobs: Knobs,
}

impl Memory {
    fn load(dir: &Path, knobs: Knobs) -> io::Result<Memory> {
        let meta = std::fs::metadata("/proc/self")?;
        let mut memory = Memory {
            nodes: Vec::new(),
            names: Vec::new(),
            owner: (meta.uid(), meta.gid()),
            knobs,
        };
        memory.add(dir, 1)?;
        Ok(memory)
    }

    fn add(&mut self, path: &Path, parent: u64) -> io::Result<u64> {
        let is_dir = std::fs::metadata(path)?.is_dir();
        let content = if is_dir {
            Content::Directory(Vec::new())
        } else if self.knobs.verify {
            Content::Verified(Verified::open(path)?)
        } else {
            Content::File(std::fs::read(path)?)
        };
        self.nodes.push(content);
        self.names.push(BTreeMap::new());
        let inode = self.nodes.len() as u64;
        if is_dir {
            let mut names = BTreeMap::new();
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                names.insert(entry.file_name(), self.add(&entry.path(), inode)?);
            }
            let mut list = vec![(".".into(), inode), ("..".into(), parent)];
            list.extend(names.iter().map(|(name, inode)| (name.clone(), *inode)));
            self.nodes[inode as usize - 1] = Content::Directory(list);
            self.names[inode as usize - 1] = names;
        }
        Ok(inode)
    }

    fn node(&self, inode: INodeNo) -> Option<&Content> {
        self.nodes.get((inode.0 as usize).checked_sub(1)?)
    }

    fn attr(&self, inode: INodeNo) -> Option<FileAttr> {
        let node = self.node(inode)?;
        let (kind, perm, size) = match node {
            Content::File(bytes) => (FileType::RegularFile, 0o444, bytes.len() as u64),
            Content::Verified(file) => (FileType::RegularFile, 0o444, file.size),
            Content::Directory(_) => (FileType::Directory, 0o555, 0),
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn list(
        &self,
        inode: INodeNo,
        offset: u64,
    ) -> Option<impl Iterator<Item = (u64, &OsStr, u64)>> {
        match self.node(inode)? {
            Content::File(_) | Content::Verified(_) => None,
            Content::Directory(list) => Some(
                list.iter()
                    .enumerate()
                    .skip(offset as usize)
                    .map(|(i, (name, inode))| (*inode, name.as_os_str(), i as u64 + 1)),
            ),
        }
    }
}

impl Filesystem for Memory {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_MAX_PAGES;
        if self.knobs.readdirplus {
            wanted |= InitFlags::FUSE_DO_READDIRPLUS;
        }
        if !self.knobs.opens {
            wanted |= InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        }
        let _ = config.add_capabilities(wanted & config.capabilities());
        // The kernel's limit of now; raised through sysfs once it is mounted.
        if let Err(most) = config.set_max_readahead(self.knobs.readahead) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(self.knobs.background);
        let _ = config.set_congestion_threshold((self.knobs.background / 4 * 3).max(1));
        let most = if self.knobs.verify { CHUNK } else { 1 << 20 };
        let _ = config.set_max_write(most as u32);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let names = self.names.get(parent.0 as usize - 1);
        match names.and_then(|names| self.attr(INodeNo(*names.get(name)?))) {
            Some(attr) => reply.entry(&self.knobs.ttl, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&self.knobs.ttl, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if !self.knobs.opens {
            return reply.error(Errno::ENOSYS);
        }
        let mut flags = FopenFlags::empty();
        if self.knobs.keep_cache {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        reply.opened(FileHandle(0), flags);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if !self.knobs.opens {
            return reply.error(Errno::ENOSYS);
        }
        let mut flags = FopenFlags::empty();
        if self.knobs.keep_cache {
            flags |= FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        }
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.node(ino) {
            Some(Content::File(bytes)) => {
                let start = bytes.len().min(offset as usize);
                let end = bytes.len().min(start + size as usize);
                reply.data(&bytes[start..end]);
            }
            Some(Content::Verified(file)) => {
                let mut reply = Some(reply);
                let done = file.read(offset, size as usize, |bytes| {
                    if let Some(reply) = reply.take() {
                        reply.data(bytes);
                    }
                });
                if let (Err(_), Some(reply)) = (done, reply) {
                    reply.error(Errno::EIO);
                }
            }
            _ => reply.error(Errno::EISDIR),
        }
    }

    fn getxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        // After ENOSYS the kernel asks no more; who has attributes is asked every time.
        reply.error(if self.knobs.xattrs {
            Errno::NO_XATTR
        } else {
            Errno::ENOSYS
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
        let Some(list) = self.list(ino, offset) else {
            return reply.error(Errno::ENOTDIR);
        };
        for (inode, name, next) in list {
            let kind = match self.node(INodeNo(inode)) {
                Some(Content::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(inode), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(list) = self.list(ino, offset) else {
            return reply.error(Errno::ENOTDIR);
        };
        for (inode, name, next) in list {
            let Some(attr) = self.attr(INodeNo(inode)) else {
                continue;
            };
            let ttl = &self.knobs.ttl;
            if reply.add(INodeNo(inode), next, name, ttl, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}

/// Raises what the kernel reads ahead on the mount, as the product does; root only.
fn raise_readahead(mountpoint: &Path, bytes: u32) -> io::Result<()> {
    let dev = std::fs::metadata(mountpoint)?.dev();
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    std::fs::write(
        format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"),
        (bytes / 1024).to_string(),
    )
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut operands = Vec::new();
    let mut options = BTreeMap::new();
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(name) => {
                let value = words.next().ok_or(format!("{word} wants a value"))?;
                options.insert(name.to_string(), value);
            }
            None => operands.push(word),
        }
    }
    let [dir, mountpoint] = &operands[..] else {
        return Ok(false);
    };
    let on = |name: &str, default: bool| options.get(name).map_or(default, |v| v == "on");
    let number = |name: &str, default: u32| options.get(name).map_or(Ok(default), |v| v.parse());
    let knobs = Knobs {
        threads: number("threads", 8)? as usize,
        readahead: number("readahead", 16 << 20)?,
        background: u16::try_from(number("background", 64)?)?,
        keep_cache: on("keep-cache", true),
        ttl: if on("ttl", true) {
            FOREVER
        } else {
            Duration::ZERO
        },
        opens: on("opens", false) || !on("keep-cache", true),
        readdirplus: on("readdirplus", true),
        xattrs: on("xattrs", false),
        verify: on("verify", false),
    };
    let mut config = Config::default();
    config.n_threads = Some(knobs.threads);
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::DefaultPermissions,
        MountOption::FSName("yardstick".into()),
        MountOption::Subtype("yardstick".into()),
    ];
    let readahead = knobs.readahead;
    let mountpoint = Path::new(mountpoint);
    let memory = Memory::load(Path::new(dir), knobs)?;
    let session = Session::new(memory, mountpoint, &config)?;
    let session = session.spawn()?;
    raise_readahead(mountpoint, readahead)?;
    println!("ready");
    session.join()?;
    Ok(true)
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => {
            // `cargo bench` and `cargo test --benches` call it so.
            println!("scripts/bench drives this program; see benches/yardstick.rs");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
