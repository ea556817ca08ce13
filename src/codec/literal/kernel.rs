//! The inner loop of the decoder: several sub-streams in step, up to three literals per lookup.
//!
//! This is the one place of the codecs that goes without bounds checks, because with them it runs
//! at half the speed (1.7 instead of 3.3 times libdeflate): [`run`] first computes how many rounds
//! cannot leave the buffers whatever the bits are, and runs just those. What the bits mean is
//! checked afterwards, by the caller.
#![allow(unsafe_code)]

use super::super::bits::load_padded;
use super::super::cpu::multiversion;
use super::shape::MAX_BITS;

/// Entries of a decoding table.
pub(super) const TABLE_SIZE: usize = 1 << MAX_BITS;
/// What the next 11 bits mean:
///
/// ```text
/// bits  0-23  up to three literals, in order
/// bits 24-29  number of bits of their codes together
/// bits 30-31  number of literals; 0: end of block (and the number of bits is 0 as well)
/// ```
pub(super) type Table = [u32; TABLE_SIZE];

/// Most literals that one lookup gives.
pub(super) const MAX_LITERALS: usize = 3;
/// Lookups between two loads of a lane.
const LOOKUPS: usize = 5;
/// Most output bytes of one round, per lane.
const ROUND_LITERALS: usize = LOOKUPS * MAX_LITERALS;
/// Most input bytes by which one round moves a lane.
const ROUND_BYTES: usize = 7;
// A load gives 63 bits (the highest is the mark), of which up to 7 were consumed already.
const _: () = assert!(7 + LOOKUPS * MAX_BITS as usize <= 63);
const _: () = assert!(7 + LOOKUPS * MAX_BITS as usize <= 8 * ROUND_BYTES + 7);

/// One sub-stream that is being decoded.
#[derive(Clone, Copy, Default)]
pub(super) struct Lane {
    /// The next bit, counted from the start of the segment.
    pub(super) bit: usize,
    /// Where the next literal goes.
    pub(super) out: usize,
    /// Where the part of this sub-stream ends in the output.
    pub(super) out_end: usize,
    /// Where the sub-stream ends in the segment; for the caller.
    pub(super) end: usize,
}

impl Lane {
    /// How many rounds can leave neither `input` nor the lane's part of the output.
    ///
    /// Round `i` loads 8 bytes at most `7 * i` bytes beyond the lane's position, and its last store
    /// of 4 bytes begins at most `15 * i + 12` bytes beyond the lane's output.
    fn safe_rounds(&self, input: &[u8], out: &[u8]) -> usize {
        let readable = input.len().saturating_sub(self.bit / 8);
        let writable = self.out_end.min(out.len()).saturating_sub(self.out);
        let by_input = match readable.checked_sub(8) {
            Some(spare) => spare / ROUND_BYTES + 1,
            None => 0,
        };
        let by_output = match writable.checked_sub(ROUND_LITERALS + 1) {
            Some(spare) => spare / ROUND_LITERALS + 1,
            None => 0,
        };
        by_input.min(by_output)
    }
}

/// Decodes `N` lanes in step for as long as none of them can leave its buffers.
///
/// Stops early when a lane stands at an end of block, as it does only in damaged input.
#[inline(always)]
fn run<const N: usize>(table: &Table, input: &[u8], out: &mut [u8], lanes: &mut [Lane; N]) {
    /// Above all bits of a load: the zeros above it, later, are the number of bits consumed.
    const MARK: u64 = 1 << 63;
    loop {
        let rounds = lanes.iter().map(|lane| lane.safe_rounds(input, out)).min();
        let rounds = rounds.unwrap_or(0);
        if rounds == 0 {
            return;
        }
        let mut at: [usize; N] = std::array::from_fn(|i| lanes[i].bit / 8);
        let mut to: [usize; N] = std::array::from_fn(|i| lanes[i].out);
        let mut bits: [u64; N] =
            std::array::from_fn(|i| (load_padded(input, at[i]) | MARK) >> (lanes[i].bit % 8));
        let base = out.as_mut_ptr();
        for round in 0..rounds {
            for _ in 0..LOOKUPS {
                for i in 0..N {
                    let entry = table[bits[i] as usize % TABLE_SIZE];
                    // SAFETY: `to[i] + 4 <= out.len()`. Before round `r` it is at most the lane's
                    // `out + 15 * r`, each lookup adds at most 3, so that the store ends at most at
                    // `out + 15 * r + 12 + 4`; `safe_rounds` made `r` small enough for this to stay
                    // within `out_end.min(out.len())`.
                    unsafe { base.add(to[i]).cast::<[u8; 4]>().write(entry.to_le_bytes()) };
                    to[i] += (entry >> 30) as usize;
                    bits[i] >>= (entry >> 24) & 63;
                }
            }
            if round + 1 == rounds {
                break;
            }
            for i in 0..N {
                let consumed = bits[i].leading_zeros() as usize;
                at[i] += consumed / 8;
                // SAFETY: `at[i] + 8 <= input.len()`. At most 7 + 5 * 11 = 62 bits are consumed per
                // load, so that `at[i]` grows by at most 7 per round; `safe_rounds` made the number
                // of rounds small enough for the load of the last one to stay within `input`.
                let word = unsafe { input.as_ptr().add(at[i]).cast::<[u8; 8]>().read() };
                bits[i] = (u64::from_le_bytes(word) | MARK) >> (consumed % 8);
            }
        }
        let mut stuck = false;
        for (i, lane) in lanes.iter_mut().enumerate() {
            stuck |= to[i] == lane.out;
            lane.bit = at[i] * 8 + bits[i].leading_zeros() as usize;
            lane.out = to[i];
        }
        if stuck {
            return;
        }
    }
}

multiversion! {
    /// Six lanes in step.
    pub(super) fn run_six(table: &Table, input: &[u8], out: &mut [u8], lanes: &mut [Lane; 6])
        = run
}
multiversion! {
    /// Three lanes in step.
    pub(super) fn run_three(table: &Table, input: &[u8], out: &mut [u8], lanes: &mut [Lane; 3])
        = run
}
multiversion! {
    /// One lane.
    pub(super) fn run_one(table: &Table, input: &[u8], out: &mut [u8], lanes: &mut [Lane; 1])
        = run
}
