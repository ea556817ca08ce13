//! Huffman codes of deflate: optimal lengths under a limit, the canonical code, and the header of
//! a dynamic block, written and read (RFC 1951, sections 3.2.2 and 3.2.7).

use super::CodecError;
use super::bits::{BitReader, BitWriter};

/// Literals, end of block and lengths, with the two symbols that only the fixed code has.
pub(super) const LITLEN_SYMBOLS: usize = 288;
/// Distances, with the two symbols that only the fixed code has.
pub(super) const DISTANCE_SYMBOLS: usize = 32;
/// The symbol that ends a block.
pub(super) const END_OF_BLOCK: usize = 256;
/// Longest code of a deflate stream, in bits.
const MAX_CODE_BITS: usize = 15;
/// Longest code of the code that transmits code lengths, in bits.
const MAX_PRECODE_BITS: u8 = 7;
/// The order in which lengths of that code are transmitted.
const PRECODE_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// Base and number of extra bits of the length symbols from 257 on (section 3.2.5).
pub(super) const LENGTHS: [(u32, u32); 29] = {
    let mut table = [(0, 0); 29];
    let (mut base, mut i) = (3, 0);
    while i < 28 {
        let extra = if i < 8 { 0 } else { i as u32 / 4 - 1 };
        table[i] = (base, extra);
        base += 1 << extra;
        i += 1;
    }
    table[28] = (258, 0);
    table
};
/// Base and number of extra bits of the distance symbols.
pub(super) const DISTANCES: [(u32, u32); 30] = {
    let mut table = [(0, 0); 30];
    let (mut base, mut i) = (1, 0);
    while i < 30 {
        let extra = if i < 4 { 0 } else { i as u32 / 2 - 1 };
        table[i] = (base, extra);
        base += 1 << extra;
        i += 1;
    }
    table
};
/// Lengths of the fixed code (section 3.2.6).
pub(super) const FIXED_LITLEN: [u8; LITLEN_SYMBOLS] = {
    let mut lengths = [8; LITLEN_SYMBOLS];
    let mut i = 144;
    while i < 280 {
        lengths[i] = if i < 256 { 9 } else { 7 };
        i += 1;
    }
    lengths
};
/// Lengths of the fixed code for distances.
pub(super) const FIXED_DISTANCE: [u8; DISTANCE_SYMBOLS] = [5; DISTANCE_SYMBOLS];

/// Optimal code lengths of at most `limit` bits for `frequencies`, by package-merge (Larmore and
/// Hirschberg 1990). Symbols that do not occur get length 0; a symbol that occurs alone gets 1.
///
/// Equal weights are taken in the order of the symbols, and a symbol before a package, so that the
/// result depends on the frequencies alone. At most `2^limit` symbols may occur.
pub(super) fn limited_lengths(frequencies: &[u32], limit: u8) -> Vec<u8> {
    let mut lengths = vec![0; frequencies.len()];
    let mut leaves: Vec<(u64, usize)> = (0..)
        .zip(frequencies)
        .filter(|(_, f)| **f > 0)
        .map(|(symbol, f)| (u64::from(*f), symbol))
        .collect();
    leaves.sort_unstable();
    debug_assert!(leaves.len() <= 1 << limit);
    if let [(_, only)] = leaves[..] {
        lengths[only] = 1;
        return lengths;
    }

    // One list per level, from the longest codes up: the leaves, merged with the pairs of the list
    // before. Of each list only this matters later: which of its items are leaves.
    //
    // Which of the two comes next is as good as random, so it is taken without a branch; both end
    // with weights that nothing exceeds.
    let weights: Vec<u64> = leaves.iter().map(|(weight, _)| *weight).collect();
    let weights = [&weights[..], &[u64::MAX]].concat();
    let mut lists: Vec<Vec<bool>> = Vec::with_capacity(limit.into());
    let mut sums: Vec<u64> = vec![u64::MAX];
    for _ in 0..limit {
        let mut merged = vec![0; leaves.len() + sums.len() - 1];
        let mut is_leaf = vec![false; merged.len()];
        let (mut leaf, mut package) = (0, 0);
        for (item, takes_leaf) in merged.iter_mut().zip(&mut is_leaf) {
            let (weight, sum) = (weights[leaf], sums[package]);
            *item = weight.min(sum);
            *takes_leaf = weight <= sum;
            leaf += usize::from(weight <= sum);
            package += usize::from(weight > sum);
        }
        lists.push(is_leaf);
        sums.clear();
        sums.extend(merged.as_chunks().0.iter().map(|[a, b]| a + b));
        sums.push(u64::MAX);
    }

    // The cheapest 2n-2 items of the last list make the code: each time a leaf is among the items
    // taken, directly or within a package, its code grows by one bit.
    let mut taken = (leaves.len() * 2).saturating_sub(2);
    for list in lists.iter().rev() {
        let of_them_leaves = list.iter().take(taken).filter(|leaf| **leaf).count();
        for &(_, symbol) in &leaves[..of_them_leaves] {
            lengths[symbol] += 1;
        }
        taken = (taken - of_them_leaves) * 2;
    }
    lengths
}

/// The canonical code for `lengths` (RFC 1951, section 3.2.2), bits already in the order in which
/// they are written: the first bit of a code is its lowest.
///
/// Codes that are no prefix code give meaningless, but never out-of-range, results.
pub(super) fn canonical_codes(lengths: &[u8]) -> Vec<u16> {
    let mut next = [0u16; MAX_CODE_BITS + 2];
    for &length in lengths {
        next[usize::from(length.min(15)) + 1] += u16::from(length > 0);
    }
    let mut code = 0u16;
    for slot in next.iter_mut().skip(1) {
        code = code.wrapping_add(*slot).wrapping_shl(1);
        *slot = code;
    }
    // Now `next[l]` is the first code of length `l`, because slot `l` summed the lengths below.
    lengths
        .iter()
        .map(|&length| {
            let slot = &mut next[usize::from(length.min(15))];
            let code = *slot;
            *slot = slot.wrapping_add(1);
            match length {
                0 => 0,
                _ => code.reverse_bits() >> (16 - u32::from(length.min(15))),
            }
        })
        .collect()
}

/// How much of the code space `lengths` fill, in units of 2^-15: 2^15 is a complete code.
fn code_space(lengths: &[u8]) -> u32 {
    lengths
        .iter()
        .filter(|length| **length > 0)
        .map(|&length| (1 << MAX_CODE_BITS) >> length.min(15))
        .sum()
}

/// True when `lengths` are a prefix code that gives every sequence of bits a meaning.
pub(super) fn is_complete(lengths: &[u8]) -> bool {
    code_space(lengths) == 1 << MAX_CODE_BITS
}

/// True when `lengths` are no code at all, or one code of one bit.
fn is_at_most_one_bit(lengths: &[u8]) -> bool {
    lengths.iter().all(|length| *length <= 1) && code_space(lengths) < 1 << MAX_CODE_BITS
}

/// Writes the header of a dynamic block that is not the last: both codes.
///
/// `litlen` has 257 to 286 lengths, `distance` 1 to 30; none longer than 15.
pub(super) fn write_dynamic_header(litlen: &[u8], distance: &[u8], out: &mut BitWriter) {
    /// Symbol of the precode, and the value and number of its extra bits.
    type Item = (u8, u32, u32);
    let mut items: Vec<Item> = Vec::new();
    let all: Vec<u8> = litlen.iter().chain(distance).copied().collect();
    for run in all.chunk_by(|a, b| a == b) {
        let (value, mut left) = (run[0], run.len());
        if value == 0 {
            while left >= 3 {
                let n = left.min(138);
                items.push(match n {
                    ..=10 => (17, n as u32 - 3, 3),
                    _ => (18, n as u32 - 11, 7),
                });
                left -= n;
            }
        } else {
            items.push((value, 0, 0));
            left -= 1;
            while left >= 3 {
                let n = left.min(6);
                items.push((16, n as u32 - 3, 2));
                left -= n;
            }
        }
        items.extend(std::iter::repeat_n((value, 0, 0), left));
    }

    let mut frequencies = [0u32; 19];
    for &(symbol, _, _) in &items {
        frequencies[usize::from(symbol)] += 1;
    }
    // Some readers want a complete precode: give a symbol that occurs alone a companion.
    if frequencies.iter().filter(|f| **f > 0).count() == 1 {
        let unused = usize::from(frequencies[0] > 0);
        frequencies[unused] = 1;
    }
    let lengths = limited_lengths(&frequencies, MAX_PRECODE_BITS);
    let codes = canonical_codes(&lengths);
    let sent = PRECODE_ORDER
        .iter()
        .rposition(|symbol| lengths[*symbol] > 0)
        .map_or(4, |last| (last + 1).max(4));

    out.put(0b100, 3); // not the last block; dynamic codes
    out.put(litlen.len() as u32 - 257, 5);
    out.put(distance.len() as u32 - 1, 5);
    out.put(sent as u32 - 4, 4);
    for &symbol in PRECODE_ORDER.iter().take(sent) {
        out.put(lengths[symbol].into(), 3);
    }
    for (symbol, extra, extra_bits) in items {
        let symbol = usize::from(symbol);
        out.put(codes[symbol].into(), lengths[symbol].into());
        out.put(extra, extra_bits);
    }
}

/// Which codes a header may have that not every inflate takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// None: what every inflate takes.
    Common,
    /// What zlib takes: also a literal code that is only an end of block, of one bit.
    Zlib,
}

/// The code lengths of a dynamic block.
pub(super) struct DynamicHeader {
    /// Lengths of literals, end of block and lengths; 0 where the header sends none.
    pub(super) litlen: [u8; LITLEN_SYMBOLS],
    /// Lengths of distances; 0 where the header sends none.
    pub(super) distance: [u8; DISTANCE_SYMBOLS],
    /// Number of literal and length codes that the header sends.
    pub(super) litlen_sent: usize,
    /// Number of distance codes that the header sends.
    pub(super) distance_sent: usize,
}

impl DynamicHeader {
    /// Reads what follows the three bits that begin a dynamic block.
    ///
    /// Accepts complete codes, an end-of-block code, for distances also no code or one code of one
    /// bit, and what the dialect says.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] and [`CodecError::Truncated`].
    pub(super) fn read(
        bits: &mut BitReader<'_>,
        dialect: Dialect,
    ) -> Result<DynamicHeader, CodecError> {
        const INVALID: CodecError = CodecError::Invalid("deflate");
        let litlen_sent = bits.take(5) as usize + 257;
        let distance_sent = bits.take(5) as usize + 1;
        let precode_sent = bits.take(4) as usize + 4;
        if litlen_sent > 286 || distance_sent > 30 {
            return Err(INVALID);
        }
        let mut precode = [0u8; 19];
        for symbol in PRECODE_ORDER.into_iter().take(precode_sent) {
            precode[symbol] = bits.take(3) as u8;
        }
        bits.check()?;
        if !is_complete(&precode) {
            return Err(INVALID);
        }
        // Symbol and length of whatever code the next seven bits begin with.
        let mut table = [(0u8, 0u8); 1 << MAX_PRECODE_BITS];
        for ((symbol, &length), code) in (0..).zip(&precode).zip(canonical_codes(&precode)) {
            if length > 0 {
                let slots = table.iter_mut().skip(code.into()).step_by(1 << length);
                slots.for_each(|slot| *slot = (symbol, length));
            }
        }

        let mut lengths = [0u8; LITLEN_SYMBOLS + DISTANCE_SYMBOLS];
        let total = litlen_sent + distance_sent;
        let mut filled = 0;
        while filled < total {
            let (symbol, length) = table[(bits.peek() & 127) as usize];
            bits.skip(length.into());
            let (value, count) = match symbol {
                16 if filled == 0 => return Err(INVALID),
                16 => (lengths[filled - 1], bits.take(2) as usize + 3),
                17 => (0, bits.take(3) as usize + 3),
                18 => (0, bits.take(7) as usize + 11),
                length => (length, 1),
            };
            if count > total - filled {
                return Err(INVALID);
            }
            lengths[filled..filled + count].fill(value);
            filled += count;
        }
        bits.check()?;

        let mut header = DynamicHeader {
            litlen: [0; LITLEN_SYMBOLS],
            distance: [0; DISTANCE_SYMBOLS],
            litlen_sent,
            distance_sent,
        };
        header.litlen[..litlen_sent].copy_from_slice(&lengths[..litlen_sent]);
        header.distance[..distance_sent].copy_from_slice(&lengths[litlen_sent..total]);
        let litlen_is_sound = is_complete(&header.litlen)
            || dialect == Dialect::Zlib && is_at_most_one_bit(&header.litlen);
        let distance_is_sound =
            is_complete(&header.distance) || is_at_most_one_bit(&header.distance);
        if header.litlen[END_OF_BLOCK] == 0 || !litlen_is_sound || !distance_is_sound {
            return Err(INVALID);
        }
        Ok(header)
    }
}

#[cfg(test)]
#[path = "huffman/tests.rs"]
mod tests;
