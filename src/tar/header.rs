//! The parser of header blocks, shared by [`outer`](super::outer) and [`members`](super::members).
//!
//! `Parser` is fed one 512-byte block at a time and says what follows; who feeds it decides where
//! the blocks come from. It guarantees that an [`Entry`] lies where every reader of tar finds it.
//! What two readers could take differently is refused, never resolved:
//!
//! - a checksum that is not the unsigned sum of the block;
//! - a number that is not plain octal or a positive base-256 number below 2^63;
//! - a pax `size` beside another size in the header itself. The one exception is a header that says
//!   0 beside a pax size of 8 GiB or more: ustar has no room for it, and Python's and Go's writers
//!   leave the field empty (CVE-2025-62518 is about readers that believe either of two sizes);
//! - data behind a link, directory or device;
//! - a file whose name ends in `/`, a directory to some;
//! - bytes where some readers see a ustar prefix and others do not;
//! - sparse files, multi-volume archives, unknown entry types;
//! - pax and GNU extensions that are malformed, empty, repeated, mixed or belong to no entry
//!   (see `extension`), or whose header is of a version in which some readers see a plain file;
//! - a single zero block with a header behind it: some readers stop there.

use super::BLOCK;
use super::extension::{Extension, Pending};
use crate::entry_path::printable_bytes;
use crate::error::{Error, Result};
use crate::limits;

/// One block of a tar.
pub(super) type Block = [u8; BLOCK as usize];

/// The largest size that eleven octal digits can say.
const MAX_OCTAL_SIZE: u64 = (8 << 30) - 1;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link.
    HardLink,
    /// A device or FIFO.
    Special,
}

/// One entry, with pax and GNU extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as stored: at most [`limits::MAX_PATH_BYTES`] bytes without a NUL, not yet checked
    /// against any other rule. Never ends in `/` for a file.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of data that follow the header, at most [`limits::MAX_FILE_BYTES`]; 0 for all but
    /// files.
    pub size: u64,
    /// Permission bits as stored.
    pub mode: u32,
    /// Modification time, in seconds since the epoch.
    pub mtime: i64,
    /// Target of a link, as stored; empty for everything else.
    pub link: Vec<u8>,
    /// Offset of the entry's first header block (extensions included), in bytes of the tar.
    pub header_offset: u64,
    /// Offset of the data, in bytes of the tar.
    pub data_offset: u64,
}

impl Entry {
    /// Names the entry in messages.
    pub fn subject(&self) -> String {
        subject(&self.path)
    }
}

/// What a block was.
#[derive(Debug)]
pub(super) enum Step {
    /// Part of something: feed the block at [`Parser::offset`].
    More,
    /// The last header of an entry. Its data follow; [`Parser::offset`] is behind them.
    Entry(Entry),
    /// The second zero block: the end of the archive.
    End,
}

/// Turns header blocks into entries.
#[derive(Debug)]
pub(super) struct Parser {
    /// Offset of the block to feed next.
    offset: u64,
    /// Length of the tar, where it is known.
    length: Option<u64>,
    /// Extensions of the entry to come.
    pending: Pending,
    /// The extension whose data are being read.
    body: Option<Extension>,
    /// The last block was a zero block.
    zero: bool,
}

impl Parser {
    /// A parser at the start of a tar. With a `length`, entries that run past it are refused.
    pub(super) fn new(length: Option<u64>) -> Parser {
        Parser {
            offset: 0,
            length,
            pending: Pending::default(),
            body: None,
            zero: false,
        }
    }

    /// A parser between two entries of a tar of unknown length.
    pub(super) fn from_offset(offset: u64) -> Parser {
        Parser {
            offset,
            ..Parser::new(None)
        }
    }

    /// Offset of the block to feed next, in bytes of the tar.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What went wrong when the tar ends before the next block.
    pub(super) fn truncated(&self) -> Error {
        Error::malformed(
            format!("offset {}", self.offset),
            if self.body.is_some() || !self.pending.is_empty() {
                "the archive ends inside an entry's extension headers"
            } else {
                "the archive is truncated: it ends without the two zero blocks of its end"
            },
        )
    }

    /// True where a tar may end when its end-of-archive blocks are missing.
    pub(super) fn between_entries(&self) -> bool {
        self.body.is_none() && self.pending.is_empty()
    }

    /// Takes the block at [`offset`](Parser::offset).
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the entry or the offset.
    pub(super) fn feed(&mut self, block: &Block) -> Result<Step> {
        let offset = self.offset;
        self.offset = self.advanced(BLOCK, || format!("header at offset {offset}"))?;
        if let Some(body) = &mut self.body {
            if body.feed(block) {
                let body = self.body.take();
                body.map_or(Ok(()), |body| body.apply(&mut self.pending))
                    .map_err(|rule| at(offset, rule))?;
            }
            return Ok(Step::More);
        }
        if block.iter().all(|&b| b == 0) {
            return self.zero_block(offset);
        }
        if self.zero {
            return Err(at(offset, "data after the zero block that ends an archive"));
        }
        verify_checksum(block).map_err(|rule| at(offset, rule))?;
        let header = Header::parse(block).map_err(|rule| at(offset, rule))?;
        match header.kind {
            Kind::Extension(kind) => {
                let padded = padded(header.size).unwrap_or(u64::MAX);
                let body = self
                    .pending
                    .begin(kind, header.size, offset)
                    .map_err(|rule| at(offset, rule))?;
                self.fits(padded, || format!("extension header at offset {offset}"))?;
                self.body = Some(body);
                Ok(Step::More)
            }
            Kind::Entry(kind) => {
                let pending = std::mem::take(&mut self.pending);
                let entry = resolve(header, kind, pending, offset, self.offset)?;
                let padded = padded(entry.size).unwrap_or(u64::MAX);
                self.offset = self.advanced(padded, || entry.subject())?;
                Ok(Step::Entry(entry))
            }
        }
    }

    fn zero_block(&mut self, offset: u64) -> Result<Step> {
        if !self.pending.is_empty() {
            return Err(at(offset, "an extension header that no entry follows"));
        }
        if self.zero {
            return Ok(Step::End);
        }
        self.zero = true;
        Ok(Step::More)
    }

    /// The offset `bytes` further on, which must lie within the tar.
    fn advanced(&self, bytes: u64, subject: impl Fn() -> String) -> Result<u64> {
        self.fits(bytes, &subject)?;
        self.offset
            .checked_add(bytes)
            .ok_or_else(|| Error::malformed(subject(), "lies beyond every possible offset"))
    }

    fn fits(&self, bytes: u64, subject: impl Fn() -> String) -> Result<()> {
        let Some(length) = self.length else {
            return Ok(());
        };
        let left = length.saturating_sub(self.offset);
        if bytes <= left {
            return Ok(());
        }
        Err(Error::malformed(
            subject(),
            format!("needs {bytes} bytes, but the archive ends after {left}"),
        ))
    }
}

/// Bytes of data with their padding; `None` on overflow.
pub(super) fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}

fn at(offset: u64, rule: impl std::fmt::Display) -> Error {
    Error::malformed(format!("header at offset {offset}"), rule)
}

fn subject(path: &[u8]) -> String {
    const SHOWN: usize = 200;
    match path.get(..SHOWN) {
        Some(start) => format!("entry \"{}…\"", printable_bytes(start)),
        None => format!("entry \"{}\"", printable_bytes(path)),
    }
}

/// A rule that a header breaks.
type Rule = String;

/// What a type flag means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Entry(EntryKind),
    Extension(ExtensionKind),
}

/// The headers that describe the entry behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtensionKind {
    /// pax records for the next entry, `x`.
    Pax,
    /// pax records for all entries that follow, `g`.
    PaxGlobal,
    /// GNU long name, `L`.
    LongName,
    /// GNU long link target, `K`.
    LongLink,
}

impl Kind {
    fn from_flag(flag: u8) -> Result<Kind, Rule> {
        Ok(match flag {
            // `7`, a contiguous file, is a plain one to every reader.
            b'0' | 0 | b'7' => Kind::Entry(EntryKind::File),
            b'1' => Kind::Entry(EntryKind::HardLink),
            b'2' => Kind::Entry(EntryKind::Symlink),
            b'3' | b'4' | b'6' => Kind::Entry(EntryKind::Special),
            b'5' => Kind::Entry(EntryKind::Directory),
            b'x' => Kind::Extension(ExtensionKind::Pax),
            b'g' => Kind::Extension(ExtensionKind::PaxGlobal),
            b'L' => Kind::Extension(ExtensionKind::LongName),
            b'K' => Kind::Extension(ExtensionKind::LongLink),
            b'S' => return Err("sparse entries are not supported".into()),
            b'M' | b'V' | b'D' | b'N' => {
                return Err("multi-volume and incremental archives are not supported".into());
            }
            _ => return Err(format!("unknown entry type {:?}", char::from(flag))),
        })
    }
}

/// One header block, on its own.
struct Header {
    name: Vec<u8>,
    link: Vec<u8>,
    flag: u8,
    kind: Kind,
    size: u64,
    mode: u32,
    mtime: i64,
}

impl Header {
    fn parse(block: &Block) -> Result<Header, Rule> {
        let flag = field::<1>(block, 156)[0];
        let kind = Kind::from_flag(flag)?;
        let name = text(&field::<100>(block, 0)).to_vec();
        let prefix = field::<155>(block, 345);
        let magic = field::<8>(block, 257);
        if matches!(kind, Kind::Extension(_)) && !matches!(&magic, b"ustar\x0000" | b"ustar  \0") {
            return Err("extends an entry, but is neither a ustar nor a GNU header".into());
        }
        let name = match &magic {
            b"ustar\x0000" if field::<4>(block, 508) == *b"tar\0" => {
                return Err("star's own header format is not supported".into());
            }
            b"ustar\x0000" => match text(&prefix) {
                b"" => name,
                prefix => [prefix, b"/", &name].concat(),
            },
            // GNU headers keep times there, and those without a version have no such field; some
            // readers see a prefix all the same.
            b"ustar  \0" | b"ustar\0\0\0" | b"\0\0\0\0\0\0\0\0"
                if prefix.iter().all(|&b| b == 0) =>
            {
                name
            }
            b"ustar  \0" | b"ustar\0\0\0" | b"\0\0\0\0\0\0\0\0" => {
                return Err("has a prefix, but is no ustar header".into());
            }
            _ => return Err("is neither a ustar, a GNU nor a plain tar header".into()),
        };
        let named = |name: &str, rule: &str| format!("{name} {rule}");
        Ok(Header {
            name,
            link: text(&field::<100>(block, 157)).to_vec(),
            flag,
            kind,
            size: unsigned(&field::<12>(block, 124)).map_err(|rule| named("size", rule))?,
            mode: (unsigned(&field::<8>(block, 100)).map_err(|rule| named("mode", rule))? & 0o7777)
                as u32,
            mtime: signed(&field::<12>(block, 136)).map_err(|rule| named("mtime", rule))?,
        })
    }
}

/// Puts a header and its extensions together.
fn resolve(
    header: Header,
    kind: EntryKind,
    pending: Pending,
    offset: u64,
    data_offset: u64,
) -> Result<Entry> {
    // Some readers look at the name before they apply pax, and only for the oldest type flag.
    let old_directory = header.flag == 0 && header.name.ends_with(b"/");
    let header_offset = pending.start().unwrap_or(offset);
    let (path, link, size, mtime) = pending.into_parts();
    let path = path.unwrap_or(header.name);
    let refuse = |rule: String| Err(Error::malformed(subject(&path), rule));

    if path.len() > limits::MAX_PATH_BYTES {
        return refuse(format!(
            "its path has {} bytes, the limit is {}",
            path.len(),
            limits::MAX_PATH_BYTES
        ));
    }
    let size = match size {
        None => header.size,
        Some(size) if size == header.size => size,
        Some(size) if header.size == 0 && size > MAX_OCTAL_SIZE => size,
        Some(size) => {
            return refuse(format!(
                "its pax size {size} and its header's size {} disagree",
                header.size
            ));
        }
    };
    if size > limits::MAX_FILE_BYTES {
        return refuse(format!(
            "declares {size} bytes, the limit is {}",
            limits::MAX_FILE_BYTES
        ));
    }
    if kind == EntryKind::File && (path.ends_with(b"/") || old_directory) {
        return refuse("is a file, but its name ends in \"/\" like a directory's".into());
    }
    if kind != EntryKind::File && size != 0 {
        return refuse(format!("declares {size} bytes of data, but is no file"));
    }
    let is_link = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
    if link.is_some() && !is_link {
        return refuse("has an extended link target, but is no link".into());
    }
    let link = if is_link {
        link.unwrap_or(header.link)
    } else {
        Vec::new()
    };
    if is_link && link.is_empty() {
        return refuse("is a link without a target".into());
    }
    Ok(Entry {
        path,
        kind,
        size,
        mode: header.mode,
        mtime: mtime.unwrap_or(header.mtime),
        link,
        header_offset,
        data_offset,
    })
}

/// True when a block can be the first one of a tar: its checksum is right.
pub fn is_header(block: &[u8; BLOCK as usize]) -> bool {
    verify_checksum(block).is_ok()
}

/// The checksum is the sum of the block's unsigned bytes, its own field taken as spaces. (Some
/// ancient writers summed signed bytes; what only they accept is refused.)
fn verify_checksum(block: &Block) -> Result<(), Rule> {
    let checksum = field::<8>(block, 148);
    let total = |bytes: &[u8]| bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
    let sum = total(block) - total(&checksum) + total(&[b' '; 8]);
    match octal(&checksum) {
        Ok(stored) if stored == sum => Ok(()),
        Ok(stored) => Err(format!(
            "checksum is {stored:o} instead of {sum:o}: damaged, or not a tar"
        )),
        Err(rule) => Err(format!("checksum {rule}: damaged, or not a tar")),
    }
}

/// The `N` bytes at a fixed position of a block.
fn field<const N: usize>(block: &Block, position: usize) -> [u8; N] {
    let tail = block.get(position..).unwrap_or_default();
    tail.first_chunk().copied().unwrap_or([0; N])
}

/// A text field up to its NUL, or all of it.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(field)
}

const NO_NUMBER: &str = "is not an octal number";
const NEGATIVE: &str = "is negative";
const OVERFLOW: &str = "is too large for any file";

fn unsigned(field: &[u8]) -> Result<u64, &'static str> {
    u64::try_from(signed(field)?).map_err(|_| NEGATIVE)
}

/// Octal, or base-256: a first byte of 80 (or ff, negative) and a big-endian two's complement
/// number behind it (GNU tar manual, "Basic Tar Format"). Other first bytes with their high bit set
/// mean different numbers to different readers.
fn signed(field: &[u8]) -> Result<i64, &'static str> {
    let fill = match field.first() {
        Some(0x80) => 0u8,
        Some(0xff) => 0xff,
        Some(byte) if byte & 0x80 != 0 => return Err(NO_NUMBER),
        _ => return i64::try_from(octal(field)?).map_err(|_| OVERFLOW),
    };
    let bytes = field.get(1..).unwrap_or_default();
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(8));
    if high.iter().any(|&b| b != fill) {
        return Err(OVERFLOW);
    }
    let value = low
        .iter()
        .fold(i64::from(fill as i8), |n, &b| n << 8 | i64::from(b));
    match (fill, value) {
        (0, 0..) | (0xff, ..0) => Ok(value),
        _ => Err(OVERFLOW),
    }
}

/// Spaces, octal digits, then nothing but spaces and NULs; no digits at all are 0.
fn octal(field: &[u8]) -> Result<u64, &'static str> {
    let field = match field.iter().position(|&b| b != b' ') {
        Some(start) => field.get(start..).unwrap_or_default(),
        None => return Ok(0),
    };
    let end = field
        .iter()
        .position(|b| !(b'0'..=b'7').contains(b))
        .unwrap_or(field.len());
    let (digits, rest) = field.split_at(end);
    if rest.iter().any(|&b| b != b' ' && b != 0) {
        return Err(NO_NUMBER);
    }
    digits.iter().try_fold(0u64, |n, &digit| {
        n.checked_mul(8)
            .map(|n| n + u64::from(digit - b'0'))
            .ok_or(OVERFLOW)
    })
}

#[cfg(test)]
mod tests;
