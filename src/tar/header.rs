//! What one header block says, and what an entry is by its header and the extensions before it.

use super::block::{Block, Rule, field, signed, text, unsigned};
use super::entry::{Entry, EntryKind, subject};
use super::extension::{ExtensionKind, Pending};
use crate::error::{Error, Result};
use crate::limits;

/// The largest size that eleven octal digits can say.
const MAX_OCTAL_SIZE: u64 = (8 << 30) - 1;

/// What a type flag means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Entry(EntryKind),
    Extension(ExtensionKind),
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
pub(super) struct Header {
    name: Vec<u8>,
    link: Vec<u8>,
    flag: u8,
    pub(super) kind: Kind,
    pub(super) size: u64,
    mode: u32,
    mtime: i64,
}

impl Header {
    pub(super) fn parse(block: &Block) -> Result<Header, Rule> {
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
pub(super) fn resolve(
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
