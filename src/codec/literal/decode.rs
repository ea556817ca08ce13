//! The decoder: strict about the shape, so that it can be quick about the content.

use super::super::bits::{BitReader, load_padded};
use super::super::cpu::Cpu;
use super::super::huffman::{Dialect, DynamicHeader, END_OF_BLOCK, canonical_codes};
use super::super::{CodecError, SUB_STREAMS, SubOffsets};
use super::kernel::{self, Lane, MAX_LITERALS, TABLE_SIZE, Table};
use super::shape::{DISTANCE_LENGTHS, MAX_BITS, SYMBOLS, SYNC, part};

const INVALID: CodecError = CodecError::Invalid("literal-only deflate");

/// Decodes literal-only segments; keeps the memory of its table.
#[derive(Default)]
pub(in super::super) struct LiteralDecoder {
    table: Option<Box<Table>>,
    cpu: Cpu,
}

impl LiteralDecoder {
    /// A decoder that uses the portable loop whatever the machine has.
    #[cfg(test)]
    pub(in super::super) fn portable() -> LiteralDecoder {
        LiteralDecoder {
            table: None,
            cpu: Cpu::Portable,
        }
    }

    /// Decodes the whole of `segment` into the whole of `out`.
    ///
    /// # Errors
    /// [`CodecError`] when `segment` is not six sub-streams of the exact shape that begin where
    /// `sub_offsets` say, or do not hold exactly their parts of `out`.
    pub(in super::super) fn decode(
        &mut self,
        sub_offsets: &SubOffsets,
        segment: &[u8],
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        let streams = sub_streams(sub_offsets, segment.len())?;
        let first = segment.get(..streams[0].1).ok_or(INVALID)?;
        let mut header = BitReader::new(first, 0);
        let lengths = read_header(&mut header)?;
        let header_bits = header.position();
        for &(start, end) in &streams[1..] {
            let stream = segment.get(start..end).ok_or(INVALID)?;
            if !starts_alike(first, stream, header_bits) {
                return Err(INVALID);
            }
        }

        let table = self.table.get_or_insert_with(|| Box::new([0; TABLE_SIZE]));
        fill_table(table, &lengths);
        let mut lanes: [Lane; SUB_STREAMS] = std::array::from_fn(|i| {
            let part = part(out.len(), i);
            Lane {
                bit: streams[i].0 * 8 + header_bits,
                out: part.start,
                out_end: part.end,
                end: streams[i].1,
            }
        });
        // All six, until the first is nearly done; then what is left of them in threes, then alone.
        kernel::run_six(self.cpu, table, segment, out, &mut lanes);
        lanes.sort_unstable_by_key(|lane| (lane.out_end - lane.out, lane.out));
        if let Some(longest) = lanes.last_chunk_mut() {
            kernel::run_three(self.cpu, table, segment, out, longest);
        }
        for lane in &mut lanes {
            kernel::run_one(self.cpu, table, segment, out, std::array::from_mut(lane));
        }
        for lane in lanes {
            let input = segment.get(..lane.end).ok_or(INVALID)?;
            finish(lane, table, &lengths, input, out)?;
        }
        Ok(())
    }
}

/// Start and end of every sub-stream: in order, none empty, the last up to `len`.
fn sub_streams(
    sub_offsets: &SubOffsets,
    len: usize,
) -> Result<[(usize, usize); SUB_STREAMS], CodecError> {
    let mut streams = [(0, len); SUB_STREAMS];
    for (i, &offset) in sub_offsets.iter().enumerate() {
        let offset = usize::try_from(offset).map_err(|_| INVALID)?;
        streams[i].1 = offset;
        streams[i + 1].0 = offset;
    }
    if streams.iter().any(|(start, end)| start >= end) {
        return Err(INVALID);
    }
    Ok(streams)
}

/// Reads the header of a block: code lengths of the literals and end of block.
fn read_header(bits: &mut BitReader<'_>) -> Result<[u8; SYMBOLS], CodecError> {
    if bits.take(3) != 0b100 {
        return Err(INVALID);
    }
    let header = DynamicHeader::read(bits, Dialect::Common)?;
    if header.litlen_sent != SYMBOLS
        || header.distance.get(..header.distance_sent) != Some(&DISTANCE_LENGTHS[..])
    {
        return Err(INVALID);
    }
    let lengths: &[u8; SYMBOLS] = header.litlen.first_chunk().ok_or(INVALID)?;
    if lengths.iter().any(|length| *length > MAX_BITS) {
        return Err(INVALID);
    }
    Ok(*lengths)
}

/// True when the first `bits` bits of both are the same.
fn starts_alike(a: &[u8], b: &[u8], bits: usize) -> bool {
    let whole = bits / 8;
    let mask = (1u64 << (bits % 8)) - 1;
    match (a.get(..whole), b.get(..whole)) {
        (Some(a_whole), Some(b_whole)) => {
            a_whole == b_whole && (load_padded(a, whole) ^ load_padded(b, whole)) & mask == 0
        }
        _ => false,
    }
}

/// Fills the table for a complete code of at most 11 bits.
fn fill_table(table: &mut Table, lengths: &[u8; SYMBOLS]) {
    /// Bit length in the low nibble, the literal above; no literal for end of block.
    const END: u16 = END_OF_BLOCK as u16;
    let mut single = [(0u16, 0u8); TABLE_SIZE];
    for ((symbol, &length), code) in (0u16..).zip(lengths).zip(canonical_codes(lengths)) {
        if length > 0 {
            let slots = single.iter_mut().skip(code.into()).step_by(1 << length);
            slots.for_each(|slot| *slot = (symbol, length));
        }
    }
    for (index, entry) in table.iter_mut().enumerate() {
        let (mut literals, mut count, mut used) = (0u32, 0u32, 0u8);
        while count < MAX_LITERALS as u32 {
            let (symbol, length) = single[index >> used];
            if symbol == END || used + length > MAX_BITS {
                break;
            }
            literals |= u32::from(symbol) << (8 * count);
            count += 1;
            used += length;
        }
        *entry = literals | u32::from(used) << 24 | count << 30;
    }
}

/// Decodes what the loops left of a lane, and checks how the sub-stream ends: with an end of block
/// just where its part of the output is full, then an empty stored block up to the end of `input`.
fn finish(
    lane: Lane,
    table: &Table,
    lengths: &[u8; SYMBOLS],
    input: &[u8],
    out: &mut [u8],
) -> Result<(), CodecError> {
    let wrong_length = CodecError::WrongLength {
        expected: out.len(),
    };
    let entry = |bits: &BitReader<'_>| table[bits.peek() as usize % TABLE_SIZE];
    let mut bits = BitReader::new(input, lane.bit);
    for to in out.get_mut(lane.out..lane.out_end).ok_or(INVALID)? {
        let entry = entry(&bits);
        if entry >> 30 == 0 {
            return Err(wrong_length);
        }
        let literal = entry as u8;
        *to = literal;
        bits.skip(lengths[usize::from(literal)].into());
    }
    bits.check()?;
    if entry(&bits) >> 30 != 0 {
        return Err(wrong_length);
    }
    bits.skip(lengths[END_OF_BLOCK].into());
    // The bits up to the next byte boundary are those of a stored block's header, and padding.
    let mut after = bits;
    after.skip(3);
    after.align();
    let header_and_padding = bits.take((after.position() - bits.position()) as u32);
    bits.check()?;
    if header_and_padding != 0 || input.get(bits.position() / 8..) != Some(&SYNC[..]) {
        return Err(INVALID);
    }
    Ok(())
}
