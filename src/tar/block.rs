//! One block of a tar: its fields, its numbers and its checksum.

/// Size of a tar block, in bytes.
pub const BLOCK: u64 = 512;

/// One block of a tar.
pub(super) type Block = [u8; BLOCK as usize];

/// A rule that a header breaks.
pub(super) type Rule = String;

/// Bytes of data with their padding; `None` on overflow.
pub(super) fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}

/// True when a block can be the first one of a tar: its checksum is right.
pub fn is_header(block: &[u8; BLOCK as usize]) -> bool {
    verify_checksum(block).is_ok()
}

/// The checksum is the sum of the block's unsigned bytes, its own field taken as spaces. (Some
/// ancient writers summed signed bytes; what only they accept is refused.)
pub(super) fn verify_checksum(block: &Block) -> Result<(), Rule> {
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
pub(super) fn field<const N: usize>(block: &Block, position: usize) -> [u8; N] {
    let tail = block.get(position..).unwrap_or_default();
    tail.first_chunk().copied().unwrap_or([0; N])
}

/// A text field up to its NUL, or all of it.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(field)
}

const NO_NUMBER: &str = "is not an octal number";
const NEGATIVE: &str = "is negative";
const OVERFLOW: &str = "is too large for any file";

pub(super) fn unsigned(field: &[u8]) -> Result<u64, &'static str> {
    u64::try_from(signed(field)?).map_err(|_| NEGATIVE)
}

/// Octal, or base-256: a first byte of 80 (or ff, negative) and a big-endian two's complement
/// number behind it (GNU tar manual, "Basic Tar Format"). Other first bytes with their high bit set
/// mean different numbers to different readers.
pub(super) fn signed(field: &[u8]) -> Result<i64, &'static str> {
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
