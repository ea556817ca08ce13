//! Writes headers: ustar, with base-256 numbers and a pax path where ustar has no room.
//!
//! The same arguments give the same bytes. A size never goes into a pax record: some readers find a
//! blob's size in the header 512 bytes before its data and look nowhere else.

use ::tar::{EntryType, Header};

use super::BLOCK;

/// Block size where buffers are concerned.
const BLOCK_LEN: usize = BLOCK as usize;
/// Length of the ustar name field, in bytes.
const NAME_LEN: usize = 100;
/// Length of the ustar prefix field, in bytes.
const PREFIX_LEN: usize = 155;
/// What a header that carries a pax record calls itself: never extracted by a reader of pax.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// The header blocks of a regular file: one block, or at least three when the path does not fit the
/// ustar name and prefix (a pax header, its padded record, the file's own header).
///
/// uid and gid are 0, user and group names empty. `mtime` is in seconds since the epoch. `path`
/// holds no NUL byte (an [`EntryPath`](crate::entry_path::EntryPath) never does); UTF-8 goes in as
/// it is. The file's own header is always the last block, with its true size.
pub fn file_header(path: &str, size: u64, mode: u32, mtime: u64) -> Vec<u8> {
    entry(path, "", |prefix, name| {
        header(prefix, name, EntryType::Regular, size, mode, mtime)
    })
}

/// The header blocks of a directory, whose path ends without a slash here and with one there.
pub fn directory_header(path: &str, mtime: u64) -> Vec<u8> {
    entry(&format!("{path}/"), "", |prefix, name| {
        header(prefix, name, EntryType::Directory, 0, 0o755, mtime)
    })
}

/// The header blocks of a symbolic link.
pub fn symlink_header(path: &str, target: &str, mtime: u64) -> Vec<u8> {
    entry(path, target, |prefix, name| {
        header(prefix, name, EntryType::Symlink, 0, 0o777, mtime)
    })
}

/// The blocks of an entry: its header, by a ustar prefix and name, and a pax header before it where the
/// path, or the target of a link, does not fit.
fn entry(path: &str, target: &str, header_of: impl Fn(&[u8], &[u8]) -> Header) -> Vec<u8> {
    let (path, target) = (path.as_bytes(), target.as_bytes());
    let place = split(path);
    let mut records = Vec::new();
    if place.is_none() {
        records.extend(pax_record("path", path));
    }
    if target.len() > NAME_LEN {
        records.extend(pax_record("linkpath", target));
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        let size = records.len() as u64;
        let pax = header(b"", PAX_NAME, EntryType::XHeader, size, 0o644, 0);
        out.extend_from_slice(&sealed(pax));
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(size), 0);
    }
    let (prefix, name) = place.unwrap_or((b"", truncated(path)));
    let mut own = header_of(prefix, name);
    let target = truncated(target);
    own.as_old_mut().linkname[..target.len()].copy_from_slice(target);
    out.extend_from_slice(&sealed(own));
    out
}

/// The header block of a hard link to an earlier entry, or nothing when one of the paths does not fit
/// the fields that every reader knows.
pub fn link_header(path: &str, target: &str, mode: u32, mtime: u64) -> Option<Vec<u8>> {
    let (prefix, name) = split(path.as_bytes())?;
    let target = target.as_bytes();
    (target.len() <= NAME_LEN).then(|| {
        let mut link = header(prefix, name, EntryType::Link, 0, mode, mtime);
        link.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        sealed(link).to_vec()
    })
}

/// Zero bytes that pad `size` bytes of data to a whole block.
pub fn padding(size: u64) -> usize {
    ((BLOCK - size % BLOCK) % BLOCK) as usize
}

/// The end of an archive: two zero blocks.
pub const END_OF_ARCHIVE: [u8; 1024] = [0; 1024];

/// The path as ustar (prefix, name); the prefix is empty where the name field has room for all.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME_LEN {
        return Some((b"", path));
    }
    // The first separator after which the rest fits leaves the shortest prefix.
    let at = (0..path.len()).find(|&i| path[i] == b'/' && path.len() - i - 1 <= NAME_LEN)?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (!prefix.is_empty() && prefix.len() <= PREFIX_LEN && !name.is_empty()).then_some((prefix, name))
}

/// The start of a path for readers that ignore pax: whole characters, and no final `/`, which would
/// make a directory of it.
fn truncated(path: &[u8]) -> &[u8] {
    let mut end = path.len().min(NAME_LEN);
    while end > 1 && (path.get(end).is_some_and(|b| b & 0xc0 == 0x80) || path[end - 1] == b'/') {
        end -= 1;
    }
    &path[..end]
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// One ustar header block (POSIX.1-2017 pax, "ustar Interchange Format"). Numbers are octal digits and a
/// NUL, or big-endian with the first bit set where they do not fit (GNU tar manual, "Basic Tar Format").
fn header(prefix: &[u8], name: &[u8], kind: EntryType, size: u64, mode: u32, mtime: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(0);
        ustar.set_device_minor(0);
        ustar.name[..name.len()].copy_from_slice(name);
        ustar.prefix[..prefix.len()].copy_from_slice(prefix);
    }
    header
}

/// The block of a header, with its checksum in the form that every reader expects: six digits, NUL,
/// space.
fn sealed(mut header: Header) -> [u8; BLOCK_LEN] {
    header.as_old_mut().cksum = *b"        ";
    let sum: u64 = header.as_bytes().iter().map(|&b| u64::from(b)).sum();
    let digits = format!("{sum:06o}\0 ");
    header.as_old_mut().cksum.copy_from_slice(digits.as_bytes());
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn links_are_what_other_readers_see() {
        let target = format!("blobs/sha256/{}", "0".repeat(64));
        let header = link_header("manifest.json", &target, 0o644, 7).unwrap();
        let mut archive = ::tar::Archive::new(&header[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().entry_type(), ::tar::EntryType::Link);
        assert_eq!(&*entry.path_bytes(), b"manifest.json");
        assert_eq!(&*entry.link_name_bytes().unwrap(), target.as_bytes());
        assert_eq!((entry.size(), entry.header().mtime().unwrap()), (0, 7));
        assert!(crate::tar::is_header(header.first_chunk().unwrap()));
        assert_eq!(link_header("m", &"x".repeat(101), 0o644, 0), None);
    }

    #[test]
    fn pads_to_whole_blocks() {
        for (size, pad) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(size), pad, "{size}");
        }
        assert_eq!(padding(u64::MAX), 1);
    }

    #[test]
    fn writes_a_ustar_header() {
        let header = file_header("blobs/sha256/00", 1234, 0o100644, 7);
        assert_eq!(header.len(), 512);
        assert!(header.starts_with(b"blobs/sha256/00\0"));
        assert_eq!(
            &header[100..148],
            b"0000644\x000000000\x000000000\x0000000002322\x0000000000007\0"
        );
        assert_eq!(&header[156..158], b"0\0");
        assert_eq!(&header[257..266], b"ustar\x0000\0");
        let sum: u32 = header
            .iter()
            .enumerate()
            .map(|(i, &b)| {
                if (148..156).contains(&i) {
                    u32::from(b' ')
                } else {
                    u32::from(b)
                }
            })
            .sum();
        assert_eq!(&header[148..156], format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn l8_sizes_of_8_gib_are_base_256_in_the_header_itself() {
        let below = file_header("w", (8 << 30) - 1, 0o644, 0);
        assert_eq!(&below[124..136], b"77777777777\0");
        let above = file_header("w", 9 << 30, 0o644, 1 << 40);
        assert_eq!(above.len(), 512);
        assert_eq!(above[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0x40, 0, 0, 0]);
        assert_eq!(above[136..148], [0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn splits_a_path_where_it_fits() {
        let name = "n".repeat(100);
        assert_eq!(split(name.as_bytes()), Some((&b""[..], name.as_bytes())));
        let prefix = "p".repeat(155);
        let path = format!("{prefix}/{name}");
        assert_eq!(
            split(path.as_bytes()),
            Some((prefix.as_bytes(), name.as_bytes()))
        );
        assert_eq!(file_header(&path, 0, 0o644, 0).len(), 512);
        for path in [
            format!("{prefix}p/{name}"),
            format!("{prefix}/{name}n"),
            "x".repeat(101),
        ] {
            assert_eq!(split(path.as_bytes()), None);
            assert_eq!(file_header(&path, 5, 0o644, 0).len(), 3 * 512);
        }
    }

    #[test]
    fn a_truncated_name_is_whole_characters_and_no_directory() {
        assert_eq!(
            truncated(format!("{}é{}", "a".repeat(99), "b".repeat(100)).as_bytes()).len(),
            99
        );
        assert_eq!(
            truncated(format!("{}/{}", "a".repeat(99), "b".repeat(200)).as_bytes()).len(),
            99
        );
    }

    #[test]
    fn a_pax_length_counts_its_own_digits() {
        for n in 0..1200 {
            let record = pax_record("path", &vec![b'x'; n]);
            let text = String::from_utf8(record).unwrap();
            assert_eq!(
                text.split(' ').next().unwrap().parse::<usize>().unwrap(),
                text.len()
            );
        }
    }
}
