//! What a layer holds. Whether it is opened is its [`Reading`]'s word; how it is packed its bytes'.
//!
//! One gzip, one zstd and one tar reader stand behind both the look at a layer's first kilobytes
//! and the walk through all of it, so that they cannot read it differently.

use std::io::{self, Read};
use std::sync::Arc;

use super::reader::{FileAttr, LayerSpec, LinkTarget, Reading};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::memory::effort::Effort;
use crate::printable::printable_bytes;
use crate::source::ReadAt;
use crate::stream::{Expected, Guess, Packing, Plan, changed, lift, prove, read_out, unpack};
use crate::tar::{BLOCK, EntryKind, Members};

/// How a layer's file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packaging {
    /// The blob is the file.
    Raw,
    /// A tar.
    Tar,
    /// A tar, compressed with gzip.
    Gzip,
    /// A tar, compressed with zstd.
    Zstd,
}

impl Packaging {
    /// How its stream is had.
    fn packing(self) -> Packing {
        match self {
            Packaging::Raw | Packaging::Tar => Packing::Plain,
            Packaging::Gzip => Packing::Gzip,
            Packaging::Zstd => Packing::Zstd,
        }
    }
}

/// A file in a layer: a range of its stream, and what the layer says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Where the file starts in the (decompressed) layer.
    pub(crate) start: u64,
    pub(crate) attr: FileAttr,
}

/// A layer's file: how it is packed, where it is, and its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) packaging: Packaging,
    pub(crate) member: Member,
}

impl Content {
    /// What its stream is to be planned with.
    pub(crate) fn plan(&self) -> Plan {
        let Member { start, attr } = self.member;
        Plan {
            packing: self.packaging.packing(),
            start,
            end: start.saturating_add(attr.size),
        }
    }
}

/// What the first bytes of a layer tell. As true as they are: see [`stream`](crate::stream).
pub(super) enum Look {
    /// It holds a file.
    File(Content),
    /// It holds a link, or nothing but a directory.
    Small(Packaging),
    /// It holds something else than the file that the manifest names.
    Members,
}

/// Bytes in which a tar can be told from other content.
const SNIFF: usize = 512;
/// Fewest bytes of a gzip member: header, end of block, checksum and size.
const GZIP_LEAST: u64 = 20;
/// What follows a file of at most so many bytes is looked at, to tell it from a directory of several.
const SMALL: u64 = 32 << 10;
/// More zeros than this stand behind the last file of hardly any tar: two blocks, and what fills a record
/// of twenty.
const TAR_RECORD: u32 = 11_265;
/// Largest expansion of deflate, rounded up: a header that declares more lies.
const MAX_DEFLATE_RATIO: u64 = 1_040;

/// What a layer holds, as far as it must be known to build the tree.
pub(super) enum Opening {
    /// A file, if what the first bytes say is right.
    File(Content),
    /// A link; proven.
    Link(LinkTarget),
    /// A directory with nothing in it; proven.
    Directory,
    /// Several files, if what the first bytes say is right.
    Members,
}

/// Looks at a layer: reads its first kilobytes, or all of a small one that holds a link.
///
/// # Errors
/// As [`look`]; for a link also when its layer is not the manifest's.
pub(super) fn open(
    blob: &dyn ReadAt,
    spec: &LayerSpec,
    subject: &str,
    effort: &Effort,
) -> Result<Opening> {
    match look(blob, spec, subject, effort)? {
        Look::File(content)
            if spec.reading == Reading::Either && goes_on(blob, &content, effort)? =>
        {
            Ok(Opening::Members)
        }
        Look::File(content) => Ok(Opening::File(content)),
        Look::Small(_) => prove_small(blob, spec, subject, effort),
        Look::Members => Ok(Opening::Members),
    }
}

/// True when more members seem to follow the file of a layer. Where it is not seen, who reads the file
/// finds them, and gets an error.
fn goes_on(blob: &dyn ReadAt, content: &Content, effort: &Effort) -> Result<bool> {
    let end = content.plan().end.next_multiple_of(BLOCK);
    match content.packaging {
        Packaging::Tar if end.saturating_add(BLOCK) <= blob.len() => {
            let mut block = [0; BLOCK as usize];
            effort.spend(BLOCK)?;
            blob.read_exact_at(&mut block, end)?;
            Ok(block.iter().any(|byte| *byte != 0))
        }
        // A gzip member ends with the size of what it holds, in four bytes (RFC 1952).
        Packaging::Gzip if blob.len() > GZIP_LEAST => {
            let mut size = [0; 4];
            effort.spend(4)?;
            blob.read_exact_at(&mut size, blob.len() - 4)?;
            let behind = u32::from_le_bytes(size).wrapping_sub(end as u32);
            // Of several members the last may hold anything: less than the file, too.
            Ok((TAR_RECORD..=u32::MAX / 2).contains(&behind))
        }
        Packaging::Zstd => {
            // As a frame may say of itself (RFC 8878): it holds all that was compressed at once.
            let mut start = [0; 18];
            let length = blob.len().min(start.len() as u64) as usize;
            let start = start.get_mut(..length).unwrap_or_default();
            effort.spend(length as u64)?;
            blob.read_exact_at(start, 0)?;
            let size = zstd::zstd_safe::get_frame_content_size(start)
                .ok()
                .flatten();
            Ok(size.is_some_and(|size| size >= end.saturating_add(u64::from(TAR_RECORD))))
        }
        _ => Ok(false),
    }
}

/// What a layer holds that is small enough to be proven when it is opened.
fn prove_small(
    blob: &dyn ReadAt,
    spec: &LayerSpec,
    subject: &str,
    effort: &Effort,
) -> Result<Opening> {
    if blob.len() > limits::MAX_LINK_LAYER_BYTES {
        let rule = format!("holds no file, and has {} bytes", blob.len());
        return Err(Error::malformed(subject, rule));
    }
    effort.spend(blob.len())?;
    let (mut bytes, mut packaging) = (Vec::new(), None);
    let confirm = |first: &dyn ReadAt| match look(first, spec, subject, effort)? {
        Look::Small(found) => {
            packaging = Some(found);
            Ok(())
        }
        Look::File(_) | Look::Members => Err(changed(subject)),
    };
    prove(blob, spec.stated.digest, subject, confirm, |buffer| {
        bytes.extend_from_slice(buffer);
    })?;
    let packaging = packaging.ok_or_else(|| changed(subject))?;
    small(&bytes, packaging, spec, subject, effort)
}

/// Finds out what a layer is, from its first bytes. What is read and decoded for it counts as effort.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) when a tar holds no single file of the
/// right name, [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a stream that must be a tar
/// cannot be decoded.
fn look(blob: &dyn ReadAt, spec: &LayerSpec, subject: &str, effort: &Effort) -> Result<Look> {
    if spec.reading == Reading::File {
        return Ok(raw(blob, spec));
    }
    let mut first = [0; SNIFF];
    let len = SNIFF.min(usize::try_from(blob.len()).unwrap_or(SNIFF));
    let first = first.get_mut(..len).unwrap_or_default();
    effort.spend(len as u64)?;
    blob.read_exact_at(first, 0)?;
    let packaging = match Packing::of(first) {
        Packing::Gzip => Packaging::Gzip,
        Packing::Zstd => Packaging::Zstd,
        Packing::Plain if is_tar(first) => Packaging::Tar,
        Packing::Plain => Packaging::Raw,
    };
    if packaging == Packaging::Raw {
        return Ok(raw(blob, spec));
    }
    let stream = unpack(
        Front::new(blob, effort),
        packaging.packing(),
        None,
        Box::new(|_| Ok(())),
    )
    .map_err(|e| lift(e, subject))?;
    let mut stream = Counted { stream, effort }.take(limits::MAX_HEAD_BYTES);
    let mut start = Vec::new();
    let result = stream.by_ref().take(SNIFF as u64).read_to_end(&mut start);
    let result = result.map_err(|error| lift(error, subject));
    match result {
        Ok(_) if is_tar(&start) => {}
        Err(error) if error.kind() == ErrorKind::Environment => return Err(error),
        // A compressed file that is no layer of ours, pushed as it is (`data.csv.gz`).
        _ if !claims_compressed_tar(&spec.stated.media_type) => {
            return Ok(raw(blob, spec));
        }
        Err(error) => return Err(error),
        Ok(_) => {
            return Err(Error::malformed(
                subject,
                format!(
                    "the media type {} says that it is a compressed tar, what it holds is none",
                    spec.stated.media_type
                ),
            ));
        }
    }
    let mut members = Members::new(start.chain(stream), subject);
    match first_member(&mut members, packaging, spec, subject)? {
        Ok(member) => {
            check_size(member.attr.size, packaging, blob.len(), subject)?;
            let may_be_one = spec.reading == Reading::Either && member.attr.size <= SMALL;
            if may_be_one && has_more(&mut members) {
                return Ok(Look::Members);
            }
            Ok(Look::File(Content { packaging, member }))
        }
        Err(other) => Ok(other),
    }
}

/// True when something else than directories is seen to follow a small file.
fn has_more<R: Read>(members: &mut Members<R>) -> bool {
    while let Ok(Some(entry)) = members.next_member() {
        if entry.kind != EntryKind::Directory {
            return true;
        }
    }
    // What is wrong there is met by who reads the file.
    false
}

/// The file that a tar begins with, after directories; or what it holds instead.
fn first_member<R: Read>(
    members: &mut Members<R>,
    packaging: Packaging,
    spec: &LayerSpec,
    subject: &str,
) -> Result<Result<Member, Look>> {
    loop {
        let entry = members.next_member()?;
        if spec.reading == Reading::Either && !is_the_file(entry.as_ref(), spec) {
            match entry {
                Some(entry)
                    if entry.kind == EntryKind::Directory && !is_the_path(&entry.path, spec) =>
                {
                    continue;
                }
                _ => return Ok(Err(Look::Members)),
            }
        }
        let Some(entry) = entry else {
            return Ok(Err(Look::Small(packaging)));
        };
        if matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink) {
            return Ok(Err(Look::Small(packaging)));
        }
        if let Some(member) = accept(&entry, spec, subject)? {
            return Ok(Ok(member));
        }
    }
}

/// Checks that a layer of `blob` bytes can hold a file of `size`.
fn check_size(size: u64, packaging: Packaging, blob: u64, subject: &str) -> Result<()> {
    let possible = match packaging {
        Packaging::Tar => blob,
        Packaging::Gzip => blob.saturating_mul(MAX_DEFLATE_RATIO),
        Packaging::Zstd | Packaging::Raw => limits::MAX_FILE_BYTES,
    };
    match size <= possible.min(limits::MAX_FILE_BYTES) {
        true => Ok(()),
        false => Err(Error::corrupt(
            subject,
            format!("the tar header declares {size} bytes, more than a layer of {blob} can hold"),
        )),
    }
}

/// The link, or the empty directory, that is the only member of the layer `bytes`, which were proven; a
/// link may come behind directories.
///
/// # Errors
/// As [`OneFile::check`].
fn small(
    bytes: &[u8],
    packaging: Packaging,
    spec: &LayerSpec,
    subject: &str,
    effort: &Effort,
) -> Result<Opening> {
    let stream = unpack(bytes, packaging.packing(), None, Box::new(|_| Ok(())))
        .map_err(|e| lift(e, subject))?;
    let stream = Counted { stream, effort };
    let mut members = Members::new(stream.take(limits::MAX_HEAD_BYTES), subject);
    let (mut target, mut directory) = (None, false);
    while let Some(entry) = members.next_member()? {
        let symbolic = match entry.kind {
            EntryKind::Directory => {
                let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
                directory = spec.stated.directory && path == spec.path.as_str().as_bytes();
                continue;
            }
            EntryKind::Symlink => true,
            EntryKind::HardLink => false,
            EntryKind::File | EntryKind::Special => return Err(several(subject)),
        };
        check_name(&entry, spec, subject)?;
        let path = String::from_utf8(entry.link)
            .map_err(|_| Error::malformed(subject, "holds a link whose target is not UTF-8"))?;
        if path.len() > limits::MAX_PATH_BYTES {
            let (found, limit) = (path.len(), limits::MAX_PATH_BYTES);
            let rule = format!("holds a link to a path of {found} bytes, the limit is {limit}");
            return Err(Error::malformed(subject, rule));
        }
        let path = path.into();
        if target.replace(LinkTarget { path, symbolic }).is_some() {
            return Err(several(subject));
        }
    }
    members.finish()?;
    match (target, directory) {
        (Some(target), _) => Ok(Opening::Link(target)),
        (None, true) => Ok(Opening::Directory),
        (None, false) => Err(no_file(subject)),
    }
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// True for media types of compressed tar layers. A plain `tar` claims nothing: some tools give
/// that type to every raw file.
pub(super) fn claims_compressed_tar(media_type: &str) -> bool {
    ["tar+gzip", "tar+zstd", "tar.gzip", "tar.zstd"]
        .iter()
        .any(|suffix| media_type.ends_with(suffix))
}

/// The blob as the file.
fn raw(blob: &dyn ReadAt, spec: &LayerSpec) -> Look {
    Look::File(Content {
        packaging: Packaging::Raw,
        member: Member {
            start: 0,
            attr: FileAttr {
                size: blob.len(),
                executable: spec.stated.executable == Some(true),
                mtime: 0,
            },
        },
    })
}

/// The rules for a member of a layer's tar: directories are passed over (`None`), a file has the
/// base name that the manifest gives it, and there is nothing else. Only its execute bits, its time
/// and its bytes are taken: owner, set-id bits and extended attributes are not.
fn accept(entry: &crate::tar::Entry, spec: &LayerSpec, subject: &str) -> Result<Option<Member>> {
    let name = printable_bytes(&entry.path);
    let refuse = |rule: &str| {
        Err(Error::malformed(
            subject,
            format!("member \"{name}\" of the layer's tar {rule}"),
        ))
    };
    match entry.kind {
        EntryKind::Directory => return Ok(None),
        EntryKind::File => {}
        EntryKind::Symlink | EntryKind::HardLink => return refuse("is a link, not a file"),
        EntryKind::Special => return refuse("is neither a file nor a directory"),
    }
    check_name(entry, spec, subject)?;
    Ok(Some(Member {
        start: entry.data_offset,
        attr: FileAttr {
            size: entry.size,
            executable: entry.mode & 0o111 != 0,
            mtime: u64::try_from(entry.mtime).unwrap_or(0),
        },
    }))
}

/// True for a file, or a link, that has the name of the manifest's.
fn is_the_file(entry: Option<&crate::tar::Entry>, spec: &LayerSpec) -> bool {
    entry.is_some_and(|entry| {
        !matches!(entry.kind, EntryKind::Directory | EntryKind::Special)
            && has_name(entry, spec.path.file_name())
    })
}

/// True when a member has the path of the manifest's file: as a directory, that is what the path means.
fn is_the_path(path: &[u8], spec: &LayerSpec) -> bool {
    let names = path.split(|byte| *byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names.eq(spec.path.components().map(str::as_bytes))
}

/// True when this is the base name of a member.
fn has_name(entry: &crate::tar::Entry, name: &str) -> bool {
    let base = entry.path.rsplit(|byte| *byte == b'/').next();
    base == Some(name.as_bytes())
}

/// The base name of a member must be that of the path in the manifest (`docs/systems.md`).
fn check_name(entry: &crate::tar::Entry, spec: &LayerSpec, subject: &str) -> Result<()> {
    if has_name(entry, spec.path.file_name()) {
        return Ok(());
    }
    Err(Error::malformed(
        subject,
        format!(
            "member \"{}\" of the layer's tar is not the manifest's \"{}\"",
            printable_bytes(&entry.path),
            spec.path.file_name()
        ),
    ))
}

/// The layer of one file, as it was taken for when it was opened.
pub(super) struct OneFile {
    pub(super) spec: LayerSpec,
    /// Names it in messages.
    pub(super) subject: Arc<str>,
    pub(super) content: Guess<Content>,
}

impl Expected for OneFile {
    fn confirm(&self, first: &dyn ReadAt) -> Result<()> {
        match look(first, &self.spec, &self.subject, &Effort::default()) {
            Ok(Look::File(content)) if content == *self.content.unproven() => Ok(()),
            _ => Err(changed(&self.subject)),
        }
    }

    fn check(&self, stream: &mut dyn Read) -> Result<Vec<u8>> {
        let subject = &*self.subject;
        let taken_for = self.content.unproven();
        if taken_for.packaging == Packaging::Raw {
            read_out(stream, subject)?;
            return Ok(Vec::new());
        }
        let mut buffer = vec![0; 256 << 10];
        let mut members = Members::new(stream, subject);
        let mut found = None;
        while let Some(entry) = members.next_member()? {
            let Some(member) = accept(&entry, &self.spec, subject)? else {
                continue;
            };
            if found.replace(member).is_some() {
                return Err(several(subject));
            }
            while members.read_data(&mut buffer)? > 0 {}
        }
        members.finish()?;
        match found {
            Some(member) if member == taken_for.member => Ok(Vec::new()),
            Some(_) => Err(changed(subject)),
            None => Err(no_file(subject)),
        }
    }

    fn check_rest(&self, stream: &mut dyn Read) -> Result<()> {
        let subject = &*self.subject;
        let mut members = Members::behind_data(stream, self.content.unproven().plan().end, subject);
        while let Some(entry) = members.next_member()? {
            if accept(&entry, &self.spec, subject)?.is_some() {
                return Err(several(subject));
            }
        }
        members.finish()
    }
}

fn no_file(subject: &str) -> Error {
    Error::malformed(subject, "the layer's tar holds no file")
}

fn several(subject: &str) -> Error {
    Error::malformed(
        subject,
        "the layer's tar holds several files; only layers of one file are supported",
    )
}

/// A decompressed stream whose bytes count as effort.
struct Counted<'a, R> {
    stream: R,
    effort: &'a Effort,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buf)?;
        self.effort.spend(n as u64).map_err(io::Error::other)?;
        Ok(n)
    }
}

/// Reads the front of a blob, a few kilobytes at a time.
struct Front<'a> {
    blob: &'a dyn ReadAt,
    at: u64,
    effort: &'a Effort,
}

impl<'a> Front<'a> {
    /// Read at once: the header of most files is in the first.
    const STEP: u64 = 4 << 10;

    fn new(blob: &'a dyn ReadAt, effort: &'a Effort) -> Front<'a> {
        Front {
            blob,
            at: 0,
            effort,
        }
    }
}

impl Read for Front<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= limits::MAX_HEAD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "no file begins in the first {} bytes",
                    limits::MAX_HEAD_BYTES
                ),
            ));
        }
        let end = self.blob.len().min(limits::MAX_HEAD_BYTES);
        let left = end.saturating_sub(self.at).min(Front::STEP);
        let n = buf.len().min(left as usize);
        let buf = buf.get_mut(..n).unwrap_or_default();
        self.effort.spend(n as u64).map_err(io::Error::other)?;
        self.blob
            .read_exact_at(buf, self.at)
            .map_err(io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}
