//! The encoder: one code for all of the input, six blocks.

use super::super::bits::BitWriter;
use super::super::cpu::{Cpu, multiversion};
use super::super::huffman::{END_OF_BLOCK, canonical_codes, limited_lengths, write_dynamic_header};
use super::super::{SUB_STREAMS, SubOffsets};
#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::histogram::{self, Histogram};
use super::shape::{DISTANCE_LENGTHS, MAX_BITS, SYMBOLS, SYNC, part};

/// What the literal-only form of an input will be: its code, and with it about its size.
pub(in super::super) struct LiteralPlan {
    lengths: Vec<u8>,
    header: BitWriter,
    /// Bits that the literals take: exact when all of them were counted.
    literal_bits: u64,
    sampled: bool,
}

impl LiteralPlan {
    /// Counts bytes of `input` and finds the best code for them.
    pub(in super::super) fn new(input: &[u8]) -> LiteralPlan {
        LiteralPlan::of(input, histogram::of(input))
    }

    /// The same from all bytes of `input`.
    pub(in super::super) fn exact(input: &[u8]) -> LiteralPlan {
        LiteralPlan::of(input, (histogram::of_all(input), input.len()))
    }

    /// True when not all bytes were counted.
    pub(in super::super) fn is_sampled(&self) -> bool {
        self.sampled
    }

    fn of(input: &[u8], (counts, counted): (Histogram, usize)) -> LiteralPlan {
        let mut frequencies = [0u32; SYMBOLS];
        frequencies[..counts.len()].copy_from_slice(&counts);
        frequencies[END_OF_BLOCK] = SUB_STREAMS as u32;
        if input.is_empty() {
            // A code of one symbol is incomplete, which decoders refuse, ours too.
            frequencies[0] = 1;
        }
        let lengths = limited_lengths(&frequencies, MAX_BITS);
        let mut header = BitWriter::default();
        write_dynamic_header(&lengths, &DISTANCE_LENGTHS, &mut header);
        let bits_of_counted: u64 = counts
            .iter()
            .zip(&lengths)
            .map(|(count, length)| u64::from(*count) * u64::from(*length))
            .sum();
        LiteralPlan {
            lengths,
            header,
            literal_bits: bits_of_counted * input.len() as u64 / (counted as u64).max(1),
            sampled: counted < input.len(),
        }
    }

    /// About the size of the segment, in bytes: what a sample of the input lets expect.
    pub(in super::super) fn expected_size(&self) -> usize {
        let frame = self.header.len() + usize::from(self.lengths[END_OF_BLOCK]) + 3 + 7;
        (self.literal_bits as usize + SUB_STREAMS * frame) / 8 + SUB_STREAMS * SYNC.len()
    }

    /// Size of one block for all of the input, in bits, without what separates sub-streams: what a
    /// sample of other compressors is compared with.
    pub(in super::super) fn single_block_bits(&self) -> usize {
        let end_of_block = usize::from(self.lengths[END_OF_BLOCK]);
        self.header.len() + self.literal_bits as usize + end_of_block
    }

    /// Appends the segment. `input` is what the plan was made for.
    pub(in super::super) fn encode(self, cpu: Cpu, input: &[u8], out: &mut Vec<u8>) -> SubOffsets {
        let mut codes = [0u32; SYMBOLS];
        let canonical = canonical_codes(&self.lengths);
        for ((entry, code), length) in codes.iter_mut().zip(canonical).zip(&self.lengths) {
            *entry = u32::from(code) << 8 | u32::from(*length);
        }
        let (header, pending, count) = self.header.finish();
        let code = Code {
            codes,
            header,
            pending,
            count,
        };
        let base = out.len();
        let parts = std::array::from_fn(|i| &input[part(input.len(), i)]);
        let ends = match cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512 => code.one_by_one(parts, out),
            _ => code.interleaved(cpu, parts, out),
        };
        std::array::from_fn(|i| (ends[i] - base) as u32)
    }
}

/// What all sub-streams have in common.
struct Code {
    /// The code of every symbol, with its length in the low byte.
    codes: [u32; SYMBOLS],
    /// The header of the block, down to bits that fill no byte, and how many these are.
    header: Vec<u8>,
    pending: u64,
    count: u32,
}

impl Code {
    /// Appends one sub-stream after the other: a vector of literals keeps the processor busy.
    /// Returns where each ends.
    #[cfg(target_arch = "x86_64")]
    fn one_by_one(&self, parts: [&[u8]; SUB_STREAMS], out: &mut Vec<u8>) -> [usize; SUB_STREAMS] {
        let tables = avx512::Tables::new(&self.codes);
        parts.map(|literals| {
            out.extend(&self.header);
            let (mut pending, mut count) = (self.pending, self.count);
            // SAFETY: `Cpu::Avx512` is made only where the features were found.
            #[allow(unsafe_code)]
            let rest = unsafe { avx512::append(&tables, literals, &mut pending, &mut count, out) };
            out.extend(self.end(rest, pending, count));
            out.len()
        })
    }

    /// Appends the sub-streams in threes: scalar code waits for one while it works on the others.
    /// Returns where each ends.
    fn interleaved(
        &self,
        cpu: Cpu,
        parts: [&[u8]; SUB_STREAMS],
        out: &mut Vec<u8>,
    ) -> [usize; SUB_STREAMS] {
        let mut ends = [0; SUB_STREAMS];
        for (parts, ends) in parts.chunks(LANES).zip(ends.chunks_mut(LANES)) {
            // Where each one ends is known when it is written: they start well apart, and move
            // together afterwards.
            let longest = parts.iter().map(|part| part.len()).max().unwrap_or(0);
            let room = self.header.len() + (longest + 2) * usize::from(MAX_BITS) / 8 + TAIL;
            let first = out.len();
            out.resize(first + LANES * room, 0);
            let mut lanes: [Lane<'_>; LANES] = std::array::from_fn(|i| {
                let position = first + i * room;
                out[position..position + self.header.len()].copy_from_slice(&self.header);
                Lane {
                    input: parts[i],
                    position: position + self.header.len(),
                    pending: self.pending,
                    count: self.count,
                }
            });
            encode_lanes(cpu, &self.codes, &mut lanes, out);
            let mut to = first;
            for (i, (lane, lane_end)) in lanes.into_iter().zip(ends).enumerate() {
                let from = first + i * room;
                let written = lane.position - from;
                out.copy_within(from..from + written, to);
                let end = self.end(lane.input, lane.pending, lane.count);
                out[to + written..to + written + end.len()].copy_from_slice(&end);
                to += written + end.len();
                *lane_end = to;
            }
            out.truncate(to);
        }
        ends
    }

    /// The last bytes of a sub-stream: the bits that are pending, the rest of its literals, end of
    /// block and the empty stored block.
    fn end(&self, rest: &[u8], pending: u64, count: u32) -> Vec<u8> {
        let mut bits = BitWriter::default();
        bits.put(pending as u32, count);
        for symbol in rest.iter().map(|b| usize::from(*b)).chain([END_OF_BLOCK]) {
            bits.put(self.codes[symbol] >> 8, self.codes[symbol] & 0xff);
        }
        bits.put(0, 3); // not the last block; stored
        bits.put(0, (8 - bits.len() as u32 % 8) % 8);
        let (mut bytes, _, _) = bits.finish();
        bytes.extend(SYNC);
        bytes
    }
}

/// Sub-streams that are encoded in step.
const LANES: usize = 3;

/// One sub-stream that is being written.
struct Lane<'a> {
    /// What is still to be encoded.
    input: &'a [u8],
    /// Where the next whole byte goes.
    position: usize,
    /// Bits that do not fill a byte yet, and how many.
    pending: u64,
    count: u32,
}

/// Literals per step: their codes and the 7 bits pending at most fit 64 bits.
const STEP: usize = 5;
const _: () = assert!(STEP * MAX_BITS as usize + 7 <= 64);
/// Bytes beyond the codes of a sub-stream: its last bytes, and those that 8-byte stores touch.
const TAIL: usize = 32;

impl Lane<'_> {
    /// Encodes one step's literals.
    #[inline(always)]
    fn step(&mut self, codes: &[u32; SYMBOLS], literals: &[u8; STEP], out: &mut [u8]) {
        let (mut bits, mut sum) = (self.pending, self.count);
        for literal in literals {
            let entry = codes[usize::from(*literal)];
            // The codes in the upper bits of the entries add up as well. Shifts look at the lowest
            // six bits only, where nothing but the lengths is.
            bits |= u64::from(entry >> 8) << (sum & 63);
            sum = sum.wrapping_add(entry);
        }
        let count = sum & 63;
        out[self.position..self.position + 8].copy_from_slice(&bits.to_le_bytes());
        self.position += (count >> 3) as usize;
        self.pending = bits >> (count & 56);
        self.count = count & 7;
    }
}

multiversion! {
    /// Encodes all but the last literals of the lanes, in step.
    fn encode_lanes(codes: &[u32; SYMBOLS], lanes: &mut [Lane<'_>; LANES], out: &mut [u8])
        = encode_lanes_body
}

#[inline(always)]
fn encode_lanes_body(codes: &[u32; SYMBOLS], lanes: &mut [Lane<'_>; LANES], out: &mut [u8]) {
    // Copies of the lanes, so that their state can live in registers.
    let [a, b, c] = lanes;
    let shortest = a.input.len().min(b.input.len()).min(c.input.len());
    let bulk = shortest / STEP * STEP;
    let (a_bulk, a_rest) = a.input.split_at(bulk);
    let (b_bulk, b_rest) = b.input.split_at(bulk);
    let (c_bulk, c_rest) = c.input.split_at(bulk);
    let state = |lane: &Lane<'_>| Lane {
        input: &[],
        ..*lane
    };
    let (mut x, mut y, mut z) = (state(a), state(b), state(c));
    let (a_steps, _) = a_bulk.as_chunks::<STEP>();
    let (b_steps, _) = b_bulk.as_chunks::<STEP>();
    let (c_steps, _) = c_bulk.as_chunks::<STEP>();
    for ((i, j), k) in a_steps.iter().zip(b_steps).zip(c_steps) {
        x.step(codes, i, out);
        y.step(codes, j, out);
        z.step(codes, k, out);
    }
    *a = Lane { input: a_rest, ..x };
    *b = Lane { input: b_rest, ..y };
    *c = Lane { input: c_rest, ..z };
}
