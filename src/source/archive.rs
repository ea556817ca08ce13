//! A tar archive in one file.
//!
//! Opening reads the archive's headers, never its data, and keeps where each blob and root document
//! is. One reading: a leading `./` is dropped, and an entry whose path is absolute or has an empty,
//! `.` or `..` component is refused, as it lands beside another one when the archive is extracted.
//! Refused are also: two entries for one blob or document; a blob or document that is no regular
//! file; anything below `blobs/` that is not named by a digest; and, after the rules of
//! [`tar`], every archive that two readers could take differently.
//!
//! Three things that other writers do are accepted: a nameless directory entry (the original Python
//! tool's root), what a desktop left below `blobs/` (`._x`, `.DS_Store`), and a root `manifest.json` that is a hard link to a blob in front of it, which is
//! then served as the document.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::blob::{BlobSource, ReadAt, read_document};
use super::file::{DOCUMENTS, EXPECTED, FileBlob, not_regular, open_any, read_exact_at, time_of};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::calls;
use crate::printable::{printable_bytes, printable_path};
use crate::tar::{self, Entry, EntryKind};

/// An open archive.
pub struct ArchiveSource {
    file: Arc<File>,
    name: String,
    index: Index,
    time: Option<Duration>,
}

/// Where the bytes of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    offset: u64,
    len: u64,
}

/// Blobs and documents of an archive. A few dozen bytes per blob, whatever the paths.
#[derive(Debug, Default)]
struct Index {
    /// Sorted by digest.
    blobs: Vec<(Digest, Extent)>,
    documents: [Option<Extent>; DOCUMENTS.len()],
}

impl ArchiveSource {
    /// What the archive has, in its order.
    #[cfg(test)]
    fn blobs(&self) -> Vec<(Digest, u64)> {
        let mut blobs = self.index.blobs.clone();
        blobs.sort_unstable_by_key(|(_, extent)| extent.offset);
        let list = blobs.into_iter();
        list.map(|(digest, extent)| (digest, extent.len)).collect()
    }

    /// Opens the archive at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) naming the entry and the rule, or what
    /// was expected when it is no archive at all;
    /// [`ErrorKind::Environment`](crate::ErrorKind::Environment) when it cannot be read.
    pub fn open(path: &Path) -> Result<ArchiveSource> {
        ArchiveSource::from_file(open_any(path)?, path)
    }

    /// [`open`](ArchiveSource::open) for a file that is open; `path` names it.
    pub(crate) fn from_file(file: File, path: &Path) -> Result<ArchiveSource> {
        let name = printable_path(path);
        let metadata =
            calls::metadata(&file).map_err(|errno| Error::io("read", path)(errno.into()))?;
        if !metadata.is_file() {
            return Err(not_regular(path));
        }
        let length = metadata.len();
        check_is_tar(&file, length, &name)?;
        let index = Index::build(length, |buf, offset| {
            read_exact_at(&file, buf, offset, &name)
        })
        .map_err(|error| match error {
            Error::Malformed { .. } => error.within(&name),
            other => other,
        })?;
        if index.blobs.is_empty() && index.documents.iter().all(Option::is_none) {
            return Err(Error::malformed(
                &name,
                format!("a tar without blobs, index.json or manifest.json; {EXPECTED}"),
            ));
        }
        Ok(ArchiveSource {
            file: Arc::new(file),
            name,
            index,
            time: time_of(&metadata),
        })
    }

    /// Where the bytes of a blob are: the file, the offset in it, and how many.
    pub(crate) fn range(&self, digest: &Digest) -> Option<(&File, u64, u64)> {
        let extent = self.index.blob(digest)?;
        Some((&self.file, extent.offset, extent.len))
    }

    fn open_extent(&self, extent: Extent, what: &str) -> FileBlob {
        FileBlob {
            file: Arc::clone(&self.file),
            offset: extent.offset,
            len: extent.len,
            subject: format!("{}: {what}", self.name),
        }
    }
}

impl BlobSource for ArchiveSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn blob(&self, digest: &Digest, _: Option<u64>) -> Result<Option<Arc<dyn ReadAt>>> {
        Ok(self.index.blob(digest).map(|extent| {
            Arc::new(self.open_extent(extent, &format!("blob {digest}"))) as Arc<dyn ReadAt>
        }))
    }

    fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let at = DOCUMENTS.iter().position(|document| *document == name);
        let Some(extent) = at.and_then(|at| *self.index.documents.get(at)?) else {
            return Ok(None);
        };
        let blob = self.open_extent(extent, name);
        read_document(&blob, &blob.subject, limit).map(Some)
    }

    fn time(&self) -> Option<Duration> {
        self.time
    }
}

/// Says what a file is when it is clearly no tar: the tar parser only knows a bad checksum.
fn check_is_tar(file: &File, length: u64, name: &str) -> Result<()> {
    let mut block = [0; tar::BLOCK as usize];
    let short = length < tar::BLOCK;
    let len = usize::try_from(length.min(tar::BLOCK)).unwrap_or(0);
    read_exact_at(file, block.get_mut(..len).unwrap_or_default(), 0, name)?;
    let what = match &block {
        _ if length == 0 => "an empty file",
        [0x1f, 0x8b, ..] => "compressed with gzip; decompress it first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "compressed with zstd; decompress it first",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "compressed with xz; decompress it first",
        [b'B', b'Z', b'h', ..] => "compressed with bzip2; decompress it first",
        [b'P', b'K', 3, 4, ..] => "a zip file",
        _ if short => "too short for a tar",
        _ if tar::is_header(&block) || block.iter().all(|&b| b == 0) => return Ok(()),
        _ => "not a tar",
    };
    Err(Error::malformed(
        name,
        format!("not a model archive: {what}; {EXPECTED}"),
    ))
}

impl Index {
    fn build(length: u64, read_at: impl FnMut(&mut [u8], u64) -> Result<()>) -> Result<Index> {
        let mut index = Index::default();
        tar::outer::scan(length, read_at, |entry| index.add(&entry))?;
        index.blobs.sort_unstable_by_key(|(digest, _)| *digest);
        let mut pairs = index.blobs.windows(2);
        if let Some([(digest, _), ..]) = pairs.find(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
            return Err(Error::malformed(
                format!("blob {digest}"),
                "has two entries",
            ));
        }
        index.blobs.shrink_to_fit();
        Ok(index)
    }

    fn blob(&self, digest: &Digest) -> Option<Extent> {
        let at = self
            .blobs
            .binary_search_by_key(digest, |(digest, _)| *digest);
        self.blobs.get(at.ok()?).map(|(_, extent)| *extent)
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        let refuse = |rule: String| Err(Error::malformed(entry.subject(), rule));
        let Some(path) = plain_path(entry) else {
            return refuse(
                "its path is absolute or has an empty, \".\" or \"..\" component".into(),
            );
        };
        let extent = Extent {
            offset: entry.data_offset,
            len: entry.size,
        };
        let (root, below) = match path.iter().position(|&b| b == b'/') {
            Some(slash) => path.split_at(slash),
            None => (path, &b""[..]),
        };
        if root == b"blobs" {
            // The directories themselves: `blobs`, `blobs/<algorithm>`.
            if entry.kind == EntryKind::Directory
                && below.iter().filter(|&&b| b == b'/').count() < 2
            {
                return Ok(());
            }
            let digest = std::str::from_utf8(path)
                .ok()
                .and_then(Digest::from_blob_path);
            let Some(digest) = digest else {
                if is_left_by_a_desktop(path) {
                    return Ok(());
                }
                return refuse("below blobs/ only files named by a digest are allowed".into());
            };
            if entry.kind != EntryKind::File {
                return refuse(format!("a blob is {}, not a regular file", a(entry.kind)));
            }
            self.blobs.push((digest, extent));
            return Ok(());
        }
        let documents = DOCUMENTS.iter().zip(&mut self.documents);
        let mut documents = documents.filter(|(name, _)| name.as_bytes() == root);
        let Some((&name, slot)) = documents.next() else {
            return Ok(());
        };
        let extent = match entry.kind {
            EntryKind::File if below.is_empty() => extent,
            EntryKind::HardLink if below.is_empty() && name == "manifest.json" => {
                link_target(&self.blobs, entry)?
            }
            EntryKind::File => return refuse(format!("{name} is a regular file, no directory")),
            kind => return refuse(format!("{name} is {}, not a regular file", a(kind))),
        };
        if slot.replace(extent).is_some() {
            return refuse(format!("{name} has two entries"));
        }
        Ok(())
    }
}

/// True for what desktops put beside files, and into tars that are made there: nobody asks for it.
fn is_left_by_a_desktop(path: &[u8]) -> bool {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    name == b".DS_Store" || name.starts_with(b"._")
}

/// The blob that a hard link leads to. It must stand in front of the link, as extraction needs.
fn link_target(blobs: &[(Digest, Extent)], entry: &Entry) -> Result<Extent> {
    let target = entry.link.strip_prefix(b"./").unwrap_or(&entry.link);
    let digest = std::str::from_utf8(target)
        .ok()
        .and_then(Digest::from_blob_path);
    let found = digest.and_then(|digest| blobs.iter().find(|blob| blob.0 == digest));
    found.map(|(_, extent)| *extent).ok_or_else(|| {
        Error::malformed(
            entry.subject(),
            format!(
                "is a hard link to \"{}\", which is no blob in front of it",
                printable_bytes(&entry.link)
            ),
        )
    })
}

/// The path without a leading `./` and a directory's final `/`; empty for the root itself; `None`
/// when it could name the place of another entry.
fn plain_path(entry: &Entry) -> Option<&[u8]> {
    let mut path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
    if entry.kind == EntryKind::Directory {
        path = path.strip_suffix(b"/").unwrap_or(path);
        if path.is_empty() || path == b"." {
            return Some(b"");
        }
    }
    let plain = |component: &[u8]| !matches!(component, b"" | b"." | b"..");
    path.split(|&b| b == b'/').all(plain).then_some(path)
}

fn a(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "a regular file",
        EntryKind::Directory => "a directory",
        EntryKind::Symlink => "a symbolic link",
        EntryKind::HardLink => "a hard link",
        EntryKind::Special => "a device or FIFO",
    }
}

#[cfg(test)]
mod tests;
