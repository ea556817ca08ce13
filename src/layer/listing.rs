//! What is in a layer of any number of files: its tar's members, in their order.
//!
//! Names are answers, too: they are taken from a tar that was read to its end, and are not given to
//! anybody before its digest was found right. An index keeps the list, so that a later run need not
//! read the tar for it.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::reader::FileAttr;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::source::ReadAt;
use crate::stream::{Expected, Packing, changed};
use crate::tar::{Entry, EntryKind, Members};

/// A member of a layer's tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path, as stored: any bytes but NUL.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: ListedKind,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedKind {
    /// A file, which has this number among the files of the layer.
    File(u32),
    /// A directory.
    Directory,
    /// A symbolic link, which leads here.
    Symlink(Box<[u8]>),
    /// Another name of the member that has this path.
    HardLink(Box<[u8]>),
    /// A device or a pipe.
    Special,
}

/// Where a file is in the stream, and what its header says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) attr: FileAttr,
}

/// All members, and the places of those that are files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) members: Vec<Listed>,
    pub(super) files: Vec<Place>,
    /// Bytes that this was parsed of.
    pub(super) bytes: usize,
}

impl Listing {
    /// From the bytes of [`Lister`]; `None` when they are no such list.
    fn parse(mut bytes: &[u8]) -> Option<Listing> {
        let mut listing = Listing {
            bytes: bytes.len(),
            ..Listing::default()
        };
        while !bytes.is_empty() {
            let kind = take::<1>(&mut bytes)?[0];
            let path = text(&mut bytes)?;
            let kind = match kind {
                FILE | EXECUTABLE => {
                    let number = u32::try_from(listing.files.len()).ok()?;
                    let mut word = || Some(u64::from_le_bytes(take(&mut bytes)?));
                    listing.files.push(Place {
                        start: word()?,
                        attr: FileAttr {
                            size: word()?,
                            executable: kind == EXECUTABLE,
                            mtime: word()?,
                        },
                    });
                    ListedKind::File(number)
                }
                DIRECTORY => ListedKind::Directory,
                SYMLINK => ListedKind::Symlink(text(&mut bytes)?),
                HARD_LINK => ListedKind::HardLink(text(&mut bytes)?),
                SPECIAL => ListedKind::Special,
                _ => return None,
            };
            listing.members.push(Listed { path, kind });
        }
        Some(listing)
    }
}

const FILE: u8 = 0;
const EXECUTABLE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;
const HARD_LINK: u8 = 4;
const SPECIAL: u8 = 5;

/// Appends a member to a list: its kind, the length of its path in two bytes and the path; then of
/// files offset, size and time, eight bytes each, of links the target as the path. Little-endian.
fn append(list: &mut Vec<u8>, entry: &Entry) {
    let kind = match entry.kind {
        EntryKind::File if entry.mode & 0o111 != 0 => EXECUTABLE,
        EntryKind::File => FILE,
        EntryKind::Directory => DIRECTORY,
        EntryKind::Symlink => SYMLINK,
        EntryKind::HardLink => HARD_LINK,
        EntryKind::Special => SPECIAL,
    };
    list.push(kind);
    append_text(list, &entry.path);
    match kind {
        SYMLINK | HARD_LINK => append_text(list, &entry.link),
        FILE | EXECUTABLE => {
            let mtime = u64::try_from(entry.mtime).unwrap_or(0);
            for number in [entry.data_offset, entry.size, mtime] {
                list.extend_from_slice(&number.to_le_bytes());
            }
        }
        _ => {}
    }
}

fn append_text(list: &mut Vec<u8>, text: &[u8]) {
    // A header's texts are not longer: see `MAX_TAR_EXTENSION_BYTES`.
    let text = text.get(..usize::from(u16::MAX)).unwrap_or(text);
    list.extend_from_slice(&(text.len() as u16).to_le_bytes());
    list.extend_from_slice(text);
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn text(bytes: &mut &[u8]) -> Option<Box<[u8]>> {
    let length = u16::from_le_bytes(take(bytes)?);
    let (text, rest) = bytes.split_at_checked(usize::from(length))?;
    *bytes = rest;
    Some(text.into())
}

/// What a byte of a list costs while a model is opened: it stands in the list, in the members that are
/// parsed of it, in the tree that these are put together to, and in that of the model.
const LIST_COSTS: u64 = 8;
/// A list of so many bytes is always taken: tens of thousands of files.
const LEAST_LIST: usize = 4 << 20;

/// Lists a layer while a pass goes over it.
pub(super) struct Lister {
    subject: Box<str>,
    packing: Packing,
    /// Bytes of the layer.
    size: u64,
    /// Most bytes of the list.
    most: usize,
    learnt: Mutex<Learnt>,
}

#[derive(Default)]
struct Learnt {
    /// The digest of the list, since it was learnt first.
    digest: Option<Digest>,
    /// The list, until somebody takes it.
    list: Option<Listing>,
}

impl Lister {
    /// Of a layer of `size` bytes, packed in this way, where so much memory may be had at a time, and lists
    /// of so many bytes are held already.
    pub(super) fn new(
        subject: &str,
        packing: Packing,
        size: u64,
        memory: u64,
        held: usize,
    ) -> Lister {
        let most = usize::try_from(memory / LIST_COSTS).unwrap_or(usize::MAX);
        Lister {
            subject: subject.into(),
            packing,
            size,
            most: most
                .clamp(LEAST_LIST, limits::MAX_LISTING_BYTES)
                .saturating_sub(held),
            learnt: Mutex::default(),
        }
    }

    /// What the layer holds; `None` while that is not proven, and after it was taken.
    pub(super) fn take(&self) -> Option<Listing> {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        learnt.list.take()
    }

    fn too_long(&self) -> Error {
        let most = self.most;
        match most < limits::MAX_LISTING_BYTES {
            true => Error::environment(
                &*self.subject,
                format!(
                    "its list of files takes more than {most} bytes, for which there is not enough memory; \
                     a larger --cache-size allows more"
                ),
            ),
            false => self.refuse(format!("its list of files takes more than {most} bytes")),
        }
    }

    fn refuse(&self, rule: String) -> Error {
        Error::malformed(&*self.subject, rule)
    }
}

impl Expected for Lister {
    fn confirm(&self, first: &dyn ReadAt) -> Result<()> {
        match packing_of(first)? == self.packing {
            true => Ok(()),
            false => Err(changed(&self.subject)),
        }
    }

    fn check(&self, stream: &mut dyn Read) -> Result<Vec<u8>> {
        let mut members = Members::listing(stream, &*self.subject);
        let most = self.size.saturating_mul(limits::MAX_ARCHIVE_RATIO);
        let most = most.saturating_add(limits::ARCHIVE_ALLOWANCE);
        let mut list = Vec::new();
        let mut count = 0;
        while let Some(entry) = members.next_member()? {
            count += 1;
            if count > limits::MAX_NODES {
                let rule = format!(
                    "holds more than {} files and directories",
                    limits::MAX_NODES
                );
                return Err(self.refuse(rule));
            }
            let end = entry.data_offset.saturating_add(entry.size);
            if end > most {
                let size = self.size;
                let rule =
                    format!("its {size} bytes expand to {end} and more, the limit is {most}");
                return Err(self.refuse(rule));
            }
            append(&mut list, &entry);
            if list.len() > self.most {
                return Err(self.too_long());
            }
        }
        members.finish()?;
        Ok(list)
    }

    fn learn(&self, found: &[u8]) -> Result<()> {
        let digest = Digest::sha256(found);
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        match learnt.digest {
            Some(before) if before == digest => Ok(()),
            Some(_) => Err(changed(&self.subject)),
            None => {
                let list = Listing::parse(found);
                let senseless =
                    || Error::corrupt(&*self.subject, "its list of files makes no sense");
                learnt.list = Some(list.ok_or_else(senseless)?);
                learnt.digest = Some(digest);
                Ok(())
            }
        }
    }

    fn check_rest(&self, stream: &mut dyn Read) -> Result<()> {
        // Nothing is asked for from the middle of a list.
        let _ = stream;
        Err(changed(&self.subject))
    }
}

/// How a layer is packed, by its first bytes.
pub(super) fn packing_of(blob: &dyn ReadAt) -> Result<Packing> {
    let mut first = [0; 4];
    let length = blob.len().min(first.len() as u64) as usize;
    let first = first.get_mut(..length).unwrap_or_default();
    blob.read_exact_at(first, 0)?;
    Ok(Packing::of(first))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(path: &[u8], kind: EntryKind, link: &[u8]) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            size: 7,
            mode: 0o755,
            mtime: -5,
            link: link.to_vec(),
            header_offset: 0,
            data_offset: 512,
        }
    }

    #[test]
    fn what_is_listed_is_parsed() {
        let mut list = Vec::new();
        append(&mut list, &entry(b"d/", EntryKind::Directory, b""));
        append(&mut list, &entry(b"d/\xff", EntryKind::File, b""));
        append(&mut list, &entry(b"s", EntryKind::Symlink, b"d/x"));
        append(&mut list, &entry(b"h", EntryKind::HardLink, b"s"));
        append(&mut list, &entry(b"p", EntryKind::Special, b""));
        let listing = Listing::parse(&list).unwrap();
        let kinds: Vec<_> = listing
            .members
            .iter()
            .map(|m| (&*m.path, &m.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (&b"d/"[..], &ListedKind::Directory),
                (b"d/\xff", &ListedKind::File(0)),
                (b"s", &ListedKind::Symlink(b"d/x"[..].into())),
                (b"h", &ListedKind::HardLink(b"s"[..].into())),
                (b"p", &ListedKind::Special),
            ]
        );
        let attr = FileAttr {
            size: 7,
            executable: true,
            mtime: 0,
        };
        assert_eq!(listing.files, [Place { start: 512, attr }]);
        for cut in 1..list.len() {
            let parsed = Listing::parse(&list[..cut]);
            assert!(
                parsed.is_none_or(|parsed| parsed.members.len() < 5),
                "{cut}"
            );
        }
        assert!(Listing::parse(&[9, 0, 0]).is_none());
    }
}
