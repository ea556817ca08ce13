//! The encoder's bulk with AVX-512: 64 literals at a time.
//!
//! Codes and lengths come from tables in registers. Neighbours are then joined within the vector,
//! to 2, 4 and 8 literals, and a prefix sum of their lengths says where each group goes: what is
//! left for scalar code is one store per group, merged with the bits that the last one left over.

use std::arch::x86_64::*;

use super::super::huffman::END_OF_BLOCK;
use super::shape::{MAX_BITS, SYMBOLS};

/// Literals per step.
const BLOCK: usize = 64;
/// Most bytes of their codes.
const BLOCK_BYTES: usize = BLOCK * MAX_BITS as usize / 8;
/// Bytes that are touched beyond the last codes: those of one store.
const REACH: usize = 8;
/// Most bits of eight codes that are stored at once. Behind 7 bits of others they are fewer than 64:
/// what they fill is at most 7 whole bytes, and can be shifted out.
const GROUP_BITS: i64 = 64 - 8;

/// The code of every literal: what fits eight bits of it, and the rest with its length.
pub(super) struct Tables {
    low: [u8; END_OF_BLOCK],
    /// The length in the low nibble, the upper bits of the code in the high one.
    high: [u8; END_OF_BLOCK],
}

impl Tables {
    /// From entries that hold a length in their low byte and the code above.
    pub(super) fn new(codes: &[u32; SYMBOLS]) -> Tables {
        // What `append` reserves depends on it.
        assert!(codes.iter().all(|entry| entry & 0xff <= MAX_BITS.into()));
        Tables {
            low: std::array::from_fn(|i| (codes[i] >> 8) as u8),
            high: std::array::from_fn(|i| ((codes[i] >> 16) << 4 | codes[i] & 15) as u8),
        }
    }
}

/// Appends the codes of all whole blocks of `literals` to `out`, in front of them the `count` (below 8)
/// bits of `pending`, whose other bits are zero. Bits that fill no byte are left there. Returns the
/// other literals.
#[allow(unsafe_code)]
#[expect(
    clippy::too_many_lines,
    reason = "one loop, all of whose values stay in registers"
)]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi1,bmi2,lzcnt")]
pub(super) fn append<'a>(
    tables: &Tables,
    literals: &'a [u8],
    pending: &mut u64,
    count: &mut u32,
    out: &mut Vec<u8>,
) -> &'a [u8] {
    assert!(*count < 8);
    let (blocks, rest) = literals.as_chunks::<BLOCK>();
    let (low_table, high_table) = (load_table(&tables.low), load_table(&tables.high));
    let zero = _mm512_setzero_si512();
    let seven = _mm512_set1_epi64(7);
    let (mut bits, mut filled) = (*pending, u64::from(*count));
    out.reserve(blocks.len() * BLOCK_BYTES + REACH);
    let base = out.as_mut_ptr();
    let mut at = out.len();
    // The compiler would take words out of the vectors one by one: slower than by way of memory.
    let mut scratch = [[0u64; 8]; 4];
    let scratch = std::hint::black_box(&mut scratch);
    for block in blocks {
        // The second and third four of every 16 change places: what is unpacked from the low and the
        // high halves of the lanes, below, are then the first and the second four of every eight.
        let x = _mm512_shuffle_epi32::<0b11_01_10_00>(load(block));
        let (low, high) = (look_up(&low_table, x), look_up(&high_table, x));
        let lengths = _mm512_and_si512(high, _mm512_set1_epi8(15));
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(high), _mm512_set1_epi8(15));
        let (first, first_bits) = join_four(
            _mm512_unpacklo_epi8(low, high),
            _mm512_unpacklo_epi8(lengths, zero),
        );
        let (second, second_bits) = join_four(
            _mm512_unpackhi_epi8(low, high),
            _mm512_unpackhi_epi8(lengths, zero),
        );
        let group_bits = _mm512_add_epi64(first_bits, second_bits);
        // SAFETY: within the capacity. `n` blocks add at most `n * BLOCK_BYTES` to `at`: 64 codes of at
        // most 11 bits each, as `Tables` promises, and the fewer than 8 bits that were pending.
        let to = unsafe { base.add(at) };
        if _mm512_cmpgt_epu64_mask(group_bits, _mm512_set1_epi64(GROUP_BITS)) == 0 {
            let group = _mm512_or_si512(first, _mm512_sllv_epi64(second, first_bits));
            // Prefix sums: where each group ends, in bits from `at`, and where it starts.
            let mut ends = group_bits;
            ends = _mm512_add_epi64(ends, _mm512_alignr_epi64::<7>(ends, zero));
            ends = _mm512_add_epi64(ends, _mm512_alignr_epi64::<6>(ends, zero));
            ends = _mm512_add_epi64(ends, _mm512_alignr_epi64::<4>(ends, zero));
            store(ends, &mut scratch[3]);
            let offset = _mm512_set1_epi64(filled as i64);
            ends = _mm512_add_epi64(ends, offset);
            let starts = _mm512_alignr_epi64::<7>(ends, offset);
            let group = _mm512_sllv_epi64(group, _mm512_and_si512(starts, seven));
            let start_bytes = _mm512_srli_epi64::<3>(starts);
            let whole_bits = _mm512_sub_epi64(
                _mm512_andnot_si512(seven, ends),
                _mm512_andnot_si512(seven, starts),
            );
            store(group, &mut scratch[0]);
            store(start_bytes, &mut scratch[1]);
            store(whole_bits, &mut scratch[2]);
            let [groups, start_bytes, whole_bits, _] = &*scratch;
            for ((group, start), whole) in groups.iter().zip(start_bytes).zip(whole_bits) {
                bits |= group;
                // SAFETY: groups start at most `BLOCK_BYTES` from `at`, and `REACH` has 8 bytes more.
                unsafe { write(to.add(*start as usize), bits) };
                bits >>= whole & 63;
            }
            filled += scratch[3][7];
            at += (filled / 8) as usize;
            filled %= 8;
        } else {
            // Long codes, one after the other.
            store(first, &mut scratch[0]);
            store(second, &mut scratch[1]);
            store(first_bits, &mut scratch[2]);
            store(second_bits, &mut scratch[3]);
            let mut to = to;
            for i in 0..16 {
                bits |= scratch[i % 2][i / 2] << filled;
                filled += scratch[2 + i % 2][i / 2];
                // SAFETY: as above.
                unsafe { write(to, bits) };
                let bytes = (filled / 8) as usize;
                bits >>= filled & 56;
                filled %= 8;
                at += bytes;
                // SAFETY: as above.
                to = unsafe { to.add(bytes) };
            }
        }
    }
    // SAFETY: `at` is within the capacity, as above. Every byte up to it was written: a store starts
    // where the whole bytes of the one before end, which has at most 8 of them.
    unsafe { out.set_len(at) };
    *pending = bits;
    *count = filled as u32;
    rest
}

/// Joins the codes (16 bits each) of four neighbours, with their lengths, to one of 64 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn join_four(codes: __m512i, lengths: __m512i) -> (__m512i, __m512i) {
    let low_quarter = _mm512_set1_epi32(0xffff);
    let low_half = _mm512_set1_epi64(0xffff_ffff);
    let two = _mm512_or_si512(
        _mm512_and_si512(codes, low_quarter),
        _mm512_sllv_epi32(
            _mm512_srli_epi32::<16>(codes),
            _mm512_and_si512(lengths, low_quarter),
        ),
    );
    let bits = _mm512_madd_epi16(lengths, _mm512_set1_epi16(1));
    let first_bits = _mm512_and_si512(bits, low_half);
    let four = _mm512_or_si512(
        _mm512_and_si512(two, low_half),
        _mm512_sllv_epi64(_mm512_srli_epi64::<32>(two), first_bits),
    );
    (
        four,
        _mm512_add_epi64(first_bits, _mm512_srli_epi64::<32>(bits)),
    )
}

/// The entries of a table of 256 bytes for 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up(table: &[__m512i; 4], x: __m512i) -> __m512i {
    let lower = _mm512_permutex2var_epi8(table[0], x, table[1]);
    let upper = _mm512_permutex2var_epi8(table[2], x, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), lower, upper)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_table(table: &[u8; 256]) -> [__m512i; 4] {
    let (quarters, _) = table.as_chunks();
    std::array::from_fn(|i| load(&quarters[i]))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes may be read there.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(vector: __m512i, words: &mut [u64; 8]) {
    // SAFETY: 64 bytes may be written there.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(words.as_mut_ptr().cast(), vector);
    }
}

/// Writes eight bytes.
///
/// # Safety
/// They must be writable.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn write(to: *mut u8, bits: u64) {
    // SAFETY: the caller's.
    unsafe { to.cast::<[u8; 8]>().write(bits.to_le_bytes()) };
}
