//! How a table stands after the data: members and frames that decode to nothing.
//!
//! ```text
//! gzip member (26 + n bytes)                 zstd skippable frame (8 + n bytes)
//!   0 10  1f 8b 08 04 00 00 00 00 00 ff        0  4  50 2a 4d 18 (table), 5e 2a 4d 18 (footer)
//!  10  2  XLEN = 4 + n                         4  4  n
//!  12  2  "MT" (table) or "MF" (footer)        8  n  data
//!  14  2  n
//!  16  n  data
//!     10  03 00, CRC-32 = 0, length = 0
//! ```
//!
//! The footer's data are two 8-byte numbers: where the table members start in the blob, and how
//! many bytes they have. It is the last thing in the blob, so a reader without the manifest finds
//! the table too.

use super::table::Framing;
use crate::limits;

const GZIP_MEMBER: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
const GZIP_MEMBER_END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ZSTD_TABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const ZSTD_FOOTER: [u8; 4] = [0x5e, 0x2a, 0x4d, 0x18];

/// Largest piece of table in one zstd skippable frame, in bytes.
const ZSTD_PIECE_BYTES: usize = 1 << 20;

/// The table as it stands after the data, and the length of the part that
/// `io.modeloci.chunks.range` names (all but the footer). For plain layers nothing: their table is
/// a blob of its own.
///
/// `data_size` is the offset in the blob at which the result will stand.
pub fn wrap(framing: Framing, table: &[u8], data_size: u64) -> (Vec<u8>, u64) {
    let out: Vec<Vec<u8>> = pieces(framing, table, data_size).collect();
    let length = out.iter().rev().skip(1).map(|piece| piece.len() as u64);
    (out.concat(), length.sum())
}

/// The same piece by piece, none of more than [`ZSTD_PIECE_BYTES`] and what frames it; the last is the
/// footer.
pub(super) fn pieces(
    framing: Framing,
    table: &[u8],
    data_size: u64,
) -> impl Iterator<Item = Vec<u8>> {
    let mut footer = [0; 16];
    footer[..8].copy_from_slice(&data_size.to_le_bytes());
    let length = members_size(framing, table.len());
    footer[8..].copy_from_slice(&length.to_le_bytes());
    let members = (framing != Framing::Plain).then(|| table.chunks(piece_bytes(framing)));
    let members = members.into_iter().flatten();
    let footer = (framing != Framing::Plain).then(|| piece(framing, true, &footer));
    members
        .map(move |data| piece(framing, false, data))
        .chain(footer)
}

/// Bytes of all pieces of a table of so many bytes.
pub(super) fn wrapped_size(framing: Framing, table: usize) -> u64 {
    match framing {
        Framing::Plain => 0,
        _ => members_size(framing, table) + framed_size(framing, 16),
    }
}

/// The same without the footer.
fn members_size(framing: Framing, table: usize) -> u64 {
    let most = piece_bytes(framing);
    let (whole, rest) = (table / most, table % most);
    let rest = if rest > 0 {
        framed_size(framing, rest)
    } else {
        0
    };
    whole as u64 * framed_size(framing, most) + rest
}

/// Bytes of a piece that holds so many.
fn framed_size(framing: Framing, data: usize) -> u64 {
    let frame = match framing {
        Framing::Gzip => GZIP_MEMBER.len() + 6 + GZIP_MEMBER_END.len(),
        Framing::Zstd => 8,
        Framing::Plain => 0,
    };
    (frame + data) as u64
}

/// Most bytes of the table in one piece.
fn piece_bytes(framing: Framing) -> usize {
    match framing {
        Framing::Gzip => limits::CHUNK_TABLE_MEMBER_BYTES,
        Framing::Zstd | Framing::Plain => ZSTD_PIECE_BYTES,
    }
}

fn piece(framing: Framing, footer: bool, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 32);
    if framing == Framing::Gzip {
        let length = data.len() as u16; // at most CHUNK_TABLE_MEMBER_BYTES
        out.extend_from_slice(&GZIP_MEMBER);
        out.extend_from_slice(&(length + 4).to_le_bytes());
        out.extend_from_slice(if footer { b"MF" } else { b"MT" });
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(&GZIP_MEMBER_END);
    } else {
        out.extend_from_slice(if footer { &ZSTD_FOOTER } else { &ZSTD_TABLE });
        out.extend_from_slice(&(data.len() as u32).to_le_bytes()); // at most ZSTD_PIECE_BYTES
        out.extend_from_slice(data);
    }
    out
}

/// The table out of the members that `io.modeloci.chunks.range` names; `None` when `members` is
/// anything else than what [`wrap`] writes.
pub fn unwrap(framing: Framing, members: &[u8]) -> Option<Vec<u8>> {
    let mut table = Vec::with_capacity(members.len());
    let mut rest = members;
    while !rest.is_empty() {
        match framing {
            Framing::Gzip => {
                rest = rest.strip_prefix(&GZIP_MEMBER)?;
                let (extra, after) = rest.split_first_chunk::<2>()?;
                rest = after.strip_prefix(b"MT")?;
                let (length, after) = rest.split_first_chunk::<2>()?;
                let length = u16::from_le_bytes(*length);
                if u16::from_le_bytes(*extra) != length.checked_add(4)? {
                    return None;
                }
                let (data, after) = after.split_at_checked(length.into())?;
                table.extend_from_slice(data);
                rest = after.strip_prefix(&GZIP_MEMBER_END)?;
            }
            Framing::Zstd => {
                rest = rest.strip_prefix(&ZSTD_TABLE)?;
                let (length, after) = rest.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
                let (data, after) = after.split_at_checked(length)?;
                table.extend_from_slice(data);
                rest = after;
            }
            Framing::Plain => return None,
        }
    }
    Some(table)
}
