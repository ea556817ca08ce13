//! The encoder: histogram, one code, six blocks.

use super::super::bits::BitWriter;
use super::super::cpu::{Cpu, multiversion};
use super::super::huffman::{END_OF_BLOCK, canonical_codes, limited_lengths, write_dynamic_header};
use super::super::{SUB_STREAMS, SubOffsets};
use super::{DISTANCE_LENGTHS, MAX_BITS, SYMBOLS, SYNC, part};

/// How often each byte occurs.
type Histogram = [u32; 256];

/// What the literal-only form of an input will be: its code, and with it its exact size.
pub(in super::super) struct LiteralPlan {
    lengths: Vec<u8>,
    parts: [Histogram; SUB_STREAMS],
    header: BitWriter,
}

impl LiteralPlan {
    /// Counts the bytes of `input` and finds the best code for them.
    pub(in super::super) fn new(input: &[u8]) -> LiteralPlan {
        let parts = std::array::from_fn(|i| histogram(&input[part(input.len(), i)]));
        let mut frequencies = [0u32; SYMBOLS];
        for counts in &parts {
            for (sum, count) in frequencies.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        frequencies[END_OF_BLOCK] = SUB_STREAMS as u32;
        let lengths = limited_lengths(&frequencies, MAX_BITS);
        let mut header = BitWriter::default();
        write_dynamic_header(&lengths, &DISTANCE_LENGTHS, &mut header);
        LiteralPlan {
            lengths,
            parts,
            header,
        }
    }

    /// Size of sub-stream `index`, in bytes.
    fn part_size(&self, index: usize) -> usize {
        let literals: u64 = self.parts[index]
            .iter()
            .zip(&self.lengths)
            .map(|(count, length)| u64::from(*count) * u64::from(*length))
            .sum();
        let end_of_block = usize::from(self.lengths[END_OF_BLOCK]);
        let bits = self.header.len() + literals as usize + end_of_block;
        (bits + 3).div_ceil(8) + SYNC.len()
    }

    /// Size of the segment, in bytes: exact.
    pub(in super::super) fn size(&self) -> usize {
        (0..SUB_STREAMS).map(|i| self.part_size(i)).sum()
    }

    /// Size of one block for all of the input, in bits, without what separates sub-streams: what a
    /// sample of other compressors is compared with.
    pub(in super::super) fn single_block_bits(&self) -> usize {
        let literals: u64 = self
            .parts
            .iter()
            .flat_map(|counts| counts.iter().zip(&self.lengths))
            .map(|(count, length)| u64::from(*count) * u64::from(*length))
            .sum();
        self.header.len() + literals as usize + usize::from(self.lengths[END_OF_BLOCK])
    }

    /// Appends the segment. `input` is what the plan was made for.
    pub(in super::super) fn encode(self, cpu: Cpu, input: &[u8], out: &mut Vec<u8>) -> SubOffsets {
        let base = out.len();
        let mut starts = [0usize; SUB_STREAMS + 1];
        for i in 0..SUB_STREAMS {
            starts[i + 1] = starts[i] + self.part_size(i);
        }
        out.resize(base + starts[SUB_STREAMS], 0);
        let segment = &mut out[base..];

        let mut codes = [0u32; SYMBOLS];
        let canonical = canonical_codes(&self.lengths);
        for ((entry, code), length) in codes.iter_mut().zip(canonical).zip(&self.lengths) {
            *entry = u32::from(code) << 8 | u32::from(*length);
        }
        let (header, pending, count) = self.header.finish();
        let mut lanes: [Lane<'_>; SUB_STREAMS] = std::array::from_fn(|i| {
            segment[starts[i]..starts[i] + header.len()].copy_from_slice(&header);
            Lane {
                input: &input[part(input.len(), i)],
                position: starts[i] + header.len(),
                pending,
                count,
            }
        });
        let [a, b, c, d, e, f] = &mut lanes;
        encode_lanes(cpu, &codes, [a, b, c], segment);
        encode_lanes(cpu, &codes, [d, e, f], segment);
        for (lane, end) in lanes.into_iter().zip(&starts[1..]) {
            lane.finish(&codes, &mut segment[..*end]);
        }
        std::array::from_fn(|i| starts[i + 1] as u32)
    }
}

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
/// Literals left to [`Lane::finish`], at least: each takes a bit or more, so that the 8-byte
/// stores of the steps stay within the lane's own sub-stream.
const TAIL: usize = 64;

impl Lane<'_> {
    /// Encodes one step's literals.
    #[inline(always)]
    fn step(&mut self, codes: &[u32; SYMBOLS], literals: &[u8; STEP], segment: &mut [u8]) {
        let (mut bits, mut sum) = (self.pending, self.count);
        for literal in literals {
            let entry = codes[usize::from(*literal)];
            // The codes in the upper bits of the entries add up as well. Shifts look at the lowest
            // six bits only, where nothing but the lengths is.
            bits |= u64::from(entry >> 8) << (sum & 63);
            sum = sum.wrapping_add(entry);
        }
        let count = sum & 63;
        if let Some(to) = segment.get_mut(self.position..self.position + 8) {
            to.copy_from_slice(&bits.to_le_bytes());
        }
        self.position += (count >> 3) as usize;
        self.pending = bits >> (count & 56);
        self.count = count & 7;
    }

    /// Encodes the rest, end of block and the empty stored block; ends exactly at `segment`'s end.
    fn finish(self, codes: &[u32; SYMBOLS], segment: &mut [u8]) {
        let mut rest = BitWriter::default();
        rest.put(self.pending as u32, self.count);
        for symbol in self
            .input
            .iter()
            .map(|b| usize::from(*b))
            .chain([END_OF_BLOCK])
        {
            rest.put(codes[symbol] >> 8, codes[symbol] & 0xff);
        }
        rest.put(0, 3); // not the last block; stored
        rest.put(0, (8 - rest.len() as u32 % 8) % 8);
        let (mut bytes, _, _) = rest.finish();
        bytes.extend(SYNC);
        segment[self.position..].copy_from_slice(&bytes);
    }
}

multiversion! {
    /// Encodes all but the last literals of three lanes, interleaved.
    fn encode_lanes(codes: &[u32; SYMBOLS], lanes: [&mut Lane<'_>; 3], segment: &mut [u8])
        = encode_lanes_body
}

#[inline(always)]
fn encode_lanes_body(codes: &[u32; SYMBOLS], lanes: [&mut Lane<'_>; 3], segment: &mut [u8]) {
    // Copies of the lanes, so that their state can live in registers.
    let [a, b, c] = lanes;
    let shortest = a.input.len().min(b.input.len()).min(c.input.len());
    let bulk = shortest.saturating_sub(TAIL) / STEP * STEP;
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
        x.step(codes, i, segment);
        y.step(codes, j, segment);
        z.step(codes, k, segment);
    }
    *a = Lane { input: a_rest, ..x };
    *b = Lane { input: b_rest, ..y };
    *c = Lane { input: c_rest, ..z };
}

/// How often each byte occurs. Four tables, since runs of one byte would else wait for each other.
fn histogram(input: &[u8]) -> Histogram {
    let mut tables = [[0u32; 256]; 4];
    let (words, rest) = input.as_chunks::<8>();
    for word in words {
        let [a, b, c, d] = &mut tables;
        a[usize::from(word[0])] += 1;
        b[usize::from(word[1])] += 1;
        c[usize::from(word[2])] += 1;
        d[usize::from(word[3])] += 1;
        a[usize::from(word[4])] += 1;
        b[usize::from(word[5])] += 1;
        c[usize::from(word[6])] += 1;
        d[usize::from(word[7])] += 1;
    }
    for byte in rest {
        tables[0][usize::from(*byte)] += 1;
    }
    let [a, b, c, d] = tables;
    std::array::from_fn(|i| a[i] + b[i] + c[i] + d[i])
}
