//! A model as a read-only tree of files: the one view that mount, unpack and tests share.
//!
//! The tree is built once from the manifest and never changes; inode numbers are indexes into it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::digest::{Algorithm, Digest};
use crate::entry_path::EntryPath;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::FileDigests;
use crate::limits;
use crate::memory::cache::LruChunkCache;
use crate::memory::context::{Context, Stats};
use crate::memory::limiter::Grant;
use crate::memory::limiter::Limiter;
use crate::memory::promise::{self, Promise};
use crate::memory::room::{Fitted, Room};
use crate::memory::shared_work::{Helpers, together};
use crate::oci::OciConfig;
use crate::source::{self, BlobSource, registry};
use crate::stream::{Wait, Within};
use crate::systems::About;
use crate::work::cores;

mod archives;
mod assemble;
mod builder;
mod built;
mod compose;
mod file;
mod links;
mod listed;
mod node;
mod notes;
mod opening;
pub mod resolve;
mod subtree;
mod tree;
pub mod verify;

use built::Built;
use file::File;
pub use file::{FileFacts, FileInfo};
pub use node::{Attr, DirEntry, Inode, NodeKind};
use opening::Opening;
use resolve::{Documents, Resolved, Wanted};
pub use subtree::Subtree;
use tree::Tree;

/// How long a read of a served model waits for nothing but answers that are on their way out.
const PATIENCE: Duration = Duration::from_millis(200);

/// How to open a model.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The digest that the manifest must have (`--digest`).
    pub pin: Option<Digest>,
    /// The name that the index must give the manifest (`--ref`).
    pub reference: Option<String>,
    /// Which part of it is shown (`--root`, `--prefix`).
    pub subtree: Subtree,
    /// Bytes of decoded chunks to keep.
    pub cache_bytes: u64,
    /// Where seek tables of foreign layers are kept between runs (`--index-dir`); `None` to keep
    /// none (`--no-index`).
    pub index_dir: Option<PathBuf>,
    /// Decode ahead of sequential readers on threads of the model's own. The mount does without:
    /// the kernel reads ahead, on more threads.
    pub readahead: bool,
    /// How much memory reading may take.
    pub memory: Memory,
    /// How to reach a model in a registry.
    pub registry: registry::Options,
    /// Ends opening and reading once it is true, with [`ErrorKind::Environment`].
    pub cancel: Option<&'static AtomicBool>,
}

/// How much memory an open model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The cache, and what decoders need beside it: a program reads as it likes.
    Usual,
    /// What is promised of a mount. Who reads lets go of the bytes soon.
    Served {
        /// Event loops.
        threads: usize,
    },
    /// No more than is said, the process included.
    Within {
        /// In all.
        bytes: u64,
        /// That read, each a mebibyte at a time at most.
        threads: usize,
    },
}

impl OpenOptions {
    /// Makes reading each byte once on `asked` threads (0 for one per core, or as many as fit) keep within
    /// the memory that this process may have: that of its control groups, and of its own limits. Nothing
    /// changes where there is enough. `what` says what the threads do, for messages.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when not even one thread fits.
    pub fn fit_memory(&mut self, asked: usize, what: &str) -> Result<Fitted> {
        let fitted = Room::here().fit(asked, what, "", promise::least_reading)?;
        let least = promise::least_reading(fitted.threads);
        let usual = promise::usual_reading(fitted.threads);
        if let Some(memory) = fitted.memory.filter(|memory| *memory < usual) {
            self.memory = Memory::Within {
                bytes: memory.max(least),
                threads: fitted.threads,
            };
        }
        self.cache_bytes = self.cache_bytes.min(promise::READING_CACHE);
        Ok(fitted)
    }

    fn context(&self, limiter: Arc<Limiter>) -> Context {
        let mut context = Context::within(
            limiter,
            Arc::new(LruChunkCache::new(self.cache_bytes)),
            self.index_dir.clone(),
            // What is decoded ahead must fit into the cache with room to spare.
            if self.readahead {
                self.cache_bytes / 4
            } else {
                0
            },
        );
        context.cancel = self.cancel;
        context
    }

    fn limiter(&self) -> Arc<Limiter> {
        let (promise, patience) = match self.memory {
            Memory::Usual => (Promise::unmounted(self.cache_bytes), Duration::ZERO),
            Memory::Served { threads } => (Promise::new(self.cache_bytes, threads, 0), PATIENCE),
            Memory::Within { bytes, threads } => (Promise::reading(bytes, threads), Duration::ZERO),
        };
        Limiter::new(promise, patience)
    }
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            pin: None,
            reference: None,
            subtree: Subtree::Usual,
            cache_bytes: limits::DEFAULT_CACHE_BYTES,
            index_dir: None,
            readahead: true,
            memory: Memory::Usual,
            registry: registry::Options::default(),
            cancel: None,
        }
    }
}

/// An open model.
pub struct Model {
    source: Arc<dyn BlobSource>,
    resolved: Resolved,
    tree: Tree,
    /// In the order of their paths, as the tree numbers them.
    files: Vec<File>,
    /// So many files at their beginning have attributes that are facts.
    settled: AtomicUsize,
    context: Arc<Context>,
    total_bytes: u64,
    /// Bytes of memory that all this takes, as counted.
    memory: u64,
    /// Directories with nothing in them.
    empty: Box<[EntryPath]>,
    /// The time of files whose layers state none.
    time: Duration,
    /// The newest file below each directory, where not all have that time.
    newest: Box<[u32]>,
}

impl Model {
    /// Opens an archive file, an image-layout directory, or a model in a registry by its reference.
    ///
    /// Costs the manifest, not the data.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] when the archive breaks a rule,
    /// [`ErrorKind::PinMismatch`] when the manifest is not the
    /// pinned one, [`ErrorKind::Environment`] when it cannot be read.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        let source = source::open_with(path.as_ref(), &options.registry)?;
        Model::from_source(source, options)
    }

    /// Opens a model from any source of blobs.
    ///
    /// # Errors
    /// As [`open`](Model::open).
    pub fn from_source(source: Arc<dyn BlobSource>, options: &OpenOptions) -> Result<Model> {
        let within = |e: Error| e.within(source.name());
        let wanted = Wanted {
            pin: options.pin.as_ref(),
            reference: options.reference.as_deref(),
        };
        let mut resolved = resolve::resolve(&*source, wanted).map_err(within)?;
        let layers = std::mem::take(&mut resolved.layers);
        let config = || resolved.config_bytes(&*source);
        let contents = builder::contents(layers, resolved.system, &config);
        let contents = contents.map_err(within)?;
        let limiter = options.limiter();
        let taken = opening::memory_of(&contents.files).saturating_add(source.memory());
        if options.memory != Memory::Usual {
            // What cannot fit is refused before it is taken.
            limiter
                .settle(taken, "opening this model")
                .map_err(within)?;
        }
        let context = Arc::new(options.context(limiter));
        let opening = Opening::new(&*source, &context, resolved.manifest_bytes);
        let (system, told) = (resolved.system, &mut resolved.notes);
        let built = assemble::open(contents, system, &options.subtree, opening, told);
        let Built {
            mut files,
            empty,
            memory,
        } = built.map_err(within)?;
        let taken = taken.saturating_add(memory);
        let paths = files.iter().map(|file| &file.info.path);
        let tree = Tree::build(paths, &empty).map_err(within)?;
        let mut total_bytes = 0u64;
        for (number, file) in files.iter_mut().enumerate() {
            file.info.inode = tree.file_inode(number);
            total_bytes = total_bytes.saturating_add(file.info.shown_size);
        }
        let time = resolved.created.or_else(|| source.time());
        let time = time.unwrap_or_default();
        let stated = |file: &File| file.time(file.attributes.shown());
        let newest = match files.iter().any(|file| stated(file).is_some()) {
            true => tree.newest(|file| files.get(file).and_then(stated).unwrap_or(time)),
            false => Box::default(),
        };
        Ok(Model {
            source,
            resolved,
            memory: taken.saturating_add(tree.memory()),
            tree,
            files,
            settled: AtomicUsize::new(0),
            context,
            total_bytes,
            empty,
            time,
            newest,
        })
    }

    /// Bytes of memory that the open model itself takes, as counted.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Counts what the open model itself takes, as counted or measured, against what was promised.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when that leaves too little to read anything; it names the
    /// `--cache-size` that would do.
    pub(crate) fn settle(&self, bytes: u64) -> Result<()> {
        let limiter = &self.context.limiter;
        limiter.settle(bytes, "serving this model")
    }

    /// Counts `bytes` that are taken beside it, until what is returned is dropped.
    pub(crate) fn count(&self, bytes: usize) -> Grant {
        self.context.limiter.charge(bytes as u64)
    }

    /// Lets go of all that it can load again, as it must when memory is short. Returns the bytes that
    /// are left.
    #[cfg(test)]
    pub(crate) fn forget(&self) -> u64 {
        let limiter = &self.context.limiter;
        while limiter.reclaim(u64::MAX) {}
        limiter.taken()
    }

    /// Names the archive in messages.
    pub fn name(&self) -> String {
        self.source.name()
    }

    /// The digest of the manifest.
    pub fn manifest_digest(&self) -> &Digest {
        &self.resolved.manifest_digest
    }

    /// The model's documents, which are read again: what is needed of them to read files is known.
    ///
    /// # Errors
    /// As [`open`](Model::open), when they cannot be read any more, or are others.
    pub fn documents(&self) -> Result<Documents> {
        let documents = self.resolved.documents(&*self.source);
        documents.map_err(|e| e.within(self.source.name()))
    }

    /// What the artifact is, where it has no [`config`](Model::config): its artifact type, or else
    /// its config's media type.
    pub fn artifact(&self) -> &str {
        &self.resolved.artifact
    }

    /// The model's config; `None` when the archive is of a system that has none.
    pub fn config(&self) -> Option<&OciConfig> {
        self.resolved.config.as_ref()
    }

    /// What the model is, as far as its system says it.
    pub fn about(&self) -> &About {
        &self.resolved.about
    }

    /// The system that wrote it, by its name in `docs/systems.md`.
    pub fn system(&self) -> &'static str {
        self.resolved.system.name()
    }

    /// Things about the archive that are worth a remark, none of them fatal.
    pub fn notes(&self) -> &[String] {
        &self.resolved.notes
    }

    /// All files, in the order of their paths' bytes.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &FileInfo> {
        self.files.iter().map(|file| &file.info)
    }

    /// All directories that have nothing in them.
    pub fn empty_directories(&self) -> &[EntryPath] {
        &self.empty
    }

    /// The file of an inode; `None` for directories and unknown inodes.
    pub fn file(&self, inode: Inode) -> Option<&FileInfo> {
        Some(&self.node(inode)?.info)
    }

    fn node(&self, inode: Inode) -> Option<&File> {
        self.files.get(self.tree.file_number(inode)?)
    }

    /// The inode of a name in a directory, with its attributes as they are shown.
    pub fn lookup(&self, parent: Inode, name: &OsStr) -> Option<Attr> {
        // Every name of a model is UTF-8, so any other name is absent.
        self.attr(self.tree.lookup(parent, name.to_str()?)?)
    }

    /// The inode of a path from the root (`""` is the root), with its attributes as they are shown.
    pub fn find(&self, path: &str) -> Option<Attr> {
        let mut inode = Inode::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            inode = self.tree.lookup(inode, name)?;
        }
        self.attr(inode)
    }

    /// The attributes of an inode, as a directory shows them. Of a file in a layer without a chunk table
    /// they are what the layer's first bytes said, which may be wrong until they are proven, and are shown no
    /// longer once they were found wrong: who opens or restores a file asks for [`facts`](Model::facts).
    pub fn attr(&self, inode: Inode) -> Option<Attr> {
        if self.tree.is_directory(inode) {
            let number = self.tree.directory_number(inode);
            let newest = number.and_then(|number| self.newest.get(number));
            let newest = newest.and_then(|file| {
                let file = self.files.get(*file as usize)?;
                file.time(file.attributes.shown())
            });
            let time = newest.unwrap_or(self.time);
            let links = self.tree.links(inode);
            return Some(tree::directory_attr(inode, links, time));
        }
        let file = self.node(inode)?;
        let shown = &file.shown();
        Some(Attr {
            inode,
            kind: NodeKind::File,
            size: shown.size,
            mode: if file.executable(shown) { 0o555 } else { 0o444 },
            mtime: file.time(shown).unwrap_or(self.time),
            links: 1,
        })
    }

    /// What a file is, once its layer's first bytes are proven to say so: a layer without a chunk table
    /// is read for that, unless it was.
    ///
    /// # Errors
    /// As [`read_at`](Model::read_at).
    pub fn facts(&self, inode: Inode) -> Result<FileFacts> {
        let file = self.regular(inode)?;
        if file.proven().is_none() {
            self.read(inode, 0, 0)?;
        }
        let unproven = || Error::corrupt(file.info.subject(), "was not verified");
        let proven = file.proven().unwrap_or_else(|| Err(unproven()));
        let attr = self.noted(file, proven)?;
        Ok(FileFacts {
            size: attr.size,
            executable: file.executable(&attr),
            time: file.time(&attr).or(self.resolved.created),
        })
    }

    /// True when the attributes that [`attr`](Model::attr) shows are facts.
    pub(crate) fn has_facts(&self, inode: Inode) -> bool {
        // What directories are stands in the manifest.
        let file = self.node(inode);
        file.is_none_or(|file| matches!(file.proven(), Some(Ok(_))))
    }

    /// True when the attributes of all files are facts. Facts stay facts, so each is looked at once.
    pub(crate) fn is_settled(&self) -> bool {
        let known = self.settled.load(Ordering::Relaxed);
        let rest = self.files.get(known..).unwrap_or_default();
        let guess = |file: &File| !matches!(file.proven(), Some(Ok(_)));
        let more = rest.iter().position(guess).unwrap_or(rest.len());
        self.settled.fetch_max(known + more, Ordering::Relaxed);
        more == rest.len()
    }

    /// The entries of a directory from `offset` (0, or an entry's `next_offset`), each exactly once
    /// in a fixed order, `.` and `..` first; `None` when the inode is no directory.
    pub fn readdir(&self, inode: Inode, offset: u64) -> Option<impl Iterator<Item = DirEntry<'_>>> {
        self.tree.readdir(inode, offset)
    }

    /// Number of inodes, directories included.
    pub fn inodes(&self) -> u64 {
        self.tree.len() as u64
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The bytes of a file from `offset`: `len` of them, fewer only at the end of the file. Every
    /// byte was verified. Decodes on the calling thread; safe to call from any number of threads.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the inode is no file,
    /// [`ErrorKind::Corrupt`] when the layer is damaged.
    pub fn read_at(&self, inode: Inode, offset: u64, len: usize) -> Result<Bytes> {
        let bytes = self.read(inode, offset, len)?;
        Stats::add(&self.stats().bytes_served, bytes.len() as u64);
        Ok(bytes)
    }

    /// As [`read_at`](Model::read_at), if that waits for no more than `may`: see
    /// [`FileReader::read_within`]. When it is `ahead` of readers, the bytes count as prefetched, not
    /// as served.
    ///
    /// # Errors
    /// As [`read_at`](Model::read_at).
    pub(crate) fn read_within(
        &self,
        may: Option<Wait>,
        ahead: bool,
        inode: Inode,
        offset: u64,
        len: usize,
    ) -> Result<Within> {
        let file = self.regular(inode)?;
        // What has to wait is not looked at before: that would be waited for here.
        let read = file.reader.read_within(may, offset, len);
        let read = read.and_then(|read| match read {
            Within::Read(_) => file.confirmed().map(|()| read),
            Within::Waits(_) => Ok(read),
        });
        let read = self.noted(file, read)?;
        if let Within::Read(bytes) = &read {
            self.was_read(file, bytes);
            let stats = self.stats();
            let counter = match ahead {
                true => &stats.bytes_prefetched,
                false => &stats.bytes_served,
            };
            Stats::add(counter, bytes.len() as u64);
        }
        Ok(read)
    }

    /// Makes the first pass over a file's layer: see [`FileReader::touch`].
    ///
    /// # Errors
    /// As [`read_at`](Model::read_at).
    pub(crate) fn touch(&self, inode: Inode) -> Result<()> {
        let file = self.regular(inode)?;
        self.noted(file, file.reader.touch())
    }

    /// Grows as long as what reads of a file wait for gets on: see [`FileReader::advance`].
    pub(crate) fn advance(&self, inode: Inode) -> u64 {
        self.node(inode).map_or(0, |file| file.reader.advance())
    }

    fn read(&self, inode: Inode, offset: u64, len: usize) -> Result<Bytes> {
        let file = self.regular(inode)?;
        let bytes = file
            .confirmed()
            .and_then(|()| file.reader.read_at(offset, len));
        let bytes = self.noted(file, bytes)?;
        self.was_read(file, &bytes);
        Ok(bytes)
    }

    fn was_read(&self, file: &File, bytes: &Bytes) {
        // A read behind the end decodes nothing.
        if !bytes.is_empty() || file.info.shown_size == 0 {
            file.verified.store(true, Ordering::Relaxed);
        }
    }

    /// Takes note of a failure.
    fn noted<T>(&self, file: &File, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            // Also a layer that holds something else than its file, behind what was served of it.
            if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Malformed) {
                file.damaged.store(true, Ordering::Relaxed);
            }
            Stats::add(&self.stats().failures, 1);
        }
        result
    }

    fn regular(&self, inode: Inode) -> Result<&File> {
        self.node(inode).ok_or_else(|| {
            Error::not_found(format!("inode {}", inode.0), "is no file of the model")
        })
    }

    /// Verifies one file's layer in full: blob digest, chunk table, stream, file digest. Returns
    /// the SHA-256 of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], naming layer and digest.
    pub fn verify(&self, inode: Inode) -> Result<Digest> {
        let file = self.regular(inode)?;
        let stated = file.info.digest.map(|digest| digest.algorithm());
        let own = |helpers: &Helpers| self.verify_layer(inode, stated.as_slice(), helpers);
        let digests = together(cores(), own, |_| {})?;
        self.verify_file(inode, &digests)
    }

    /// Verifies the layer of a file: what is the same for all files that are read from it. Returns the
    /// digests of all files in it.
    fn verify_layer(
        &self,
        inode: Inode,
        also: &[Algorithm],
        helpers: &Helpers,
    ) -> Result<Vec<FileDigests>> {
        self.regular(inode)?.reader.verify_with(also, helpers)
    }

    /// Compares what the manifest says about one file with what verifying its layer found.
    fn verify_file(&self, inode: Inode, digests: &[FileDigests]) -> Result<Digest> {
        let file = self.regular(inode)?;
        file.confirmed()?;
        let unhashed = || Error::corrupt(file.info.subject(), "was not hashed");
        let digests = digests.get(file.reader.whole().file as usize);
        let digests = digests.ok_or_else(unhashed)?;
        if let Some(stated) = &file.info.digest {
            digests.compare(stated, || file.info.subject())?;
        }
        Ok(digests.sha256)
    }

    /// The links of the model, and the file that each leads to in the end.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&EntryPath, &EntryPath)> {
        let links = self.files.iter();
        links.filter_map(|file| Some((&file.info.path, &**file.link_to.as_ref()?)))
    }

    /// The same number for all files that are read from one layer, links among them; another for
    /// every other file.
    pub(crate) fn content_key(&self, inode: Inode) -> Option<usize> {
        Some(self.node(inode)?.reader.whole().layer)
    }

    /// True once bytes of the file were verified and decoded, and as long as no read of it has
    /// found damage.
    pub fn verified(&self, inode: Inode) -> bool {
        self.node(inode).is_some_and(|file| {
            file.verified.load(Ordering::Relaxed) && !file.damaged.load(Ordering::Relaxed)
        })
    }

    /// True once a read of the file has found damage.
    pub fn damaged(&self, inode: Inode) -> bool {
        self.node(inode)
            .is_some_and(|file| file.damaged.load(Ordering::Relaxed))
    }

    /// What was read so far.
    pub fn stats(&self) -> &Stats {
        &self.context.stats
    }

    /// Grants memory.
    #[cfg(test)]
    pub(crate) fn limiter(&self) -> &Arc<crate::memory::limiter::Limiter> {
        &self.context.limiter
    }

    /// Bytes of decoded chunks kept now.
    pub fn cache_used(&self) -> u64 {
        self.context.cache.used()
    }
}
