#![allow(clippy::unwrap_used)]

use super::super::bits::BitWriter;
use super::super::huffman::write_dynamic_header;
use super::super::tests::{shapes, stream, zlib_inflate};
use super::*;

/// What both loops make of a segment; they must agree.
fn segment(bytes: &[u8], len: usize) -> Result<Vec<u8>, CodecError> {
    let run = |cpu| {
        let mut out = vec![0x5a; len];
        let done = Inflater::new(cpu).segment(bytes, &mut out);
        done.map(|()| out)
    };
    let result = run(Cpu::detect());
    assert_eq!(run(Cpu::Portable), result);
    result
}

fn zlib(input: &[u8], level: u32) -> Vec<u8> {
    let mut out = vec![0; input.len() + input.len() / 8 + 1000];
    let mut deflate = flate2::Compress::new(flate2::Compression::new(level), false);
    deflate
        .compress(input, &mut out, flate2::FlushCompress::Sync)
        .unwrap();
    assert_eq!(deflate.total_in(), input.len() as u64);
    out.truncate(deflate.total_out() as usize);
    out
}

#[test]
fn tables_of_the_specification() {
    let length = |symbol: usize| LENGTHS[symbol - 257];
    assert_eq!(length(257), (3, 0));
    assert_eq!(length(264), (10, 0));
    assert_eq!(length(265), (11, 1));
    assert_eq!(length(273), (35, 3));
    assert_eq!(length(284), (227, 5));
    assert_eq!(length(285), (258, 0));
    assert_eq!(DISTANCES[..4], [(1, 0), (2, 0), (3, 0), (4, 0)]);
    assert_eq!(DISTANCES[10], (33, 4));
    assert_eq!(DISTANCES[29], (24_577, 13));
}

#[test]
fn reads_what_zlib_and_libdeflate_write() {
    for (name, make) in shapes::ALL {
        for (len, seed) in [(10, 1), (5_000, 2), (300_000, 3)] {
            let input = make(len, seed);
            for level in [0, 1, 3, 6, 9] {
                let found = segment(&zlib(&input, level), len);
                assert!(found.as_deref() == Ok(&input[..]), "{name} {len} {level}");
            }
            for level in [1, 6, 12] {
                let level = libdeflater::CompressionLvl::new(level).unwrap();
                let mut compressor = libdeflater::Compressor::new(level);
                let mut bytes = vec![0; compressor.deflate_compress_bound(len)];
                let size = compressor.deflate_compress(&input, &mut bytes).unwrap();
                let mut out = vec![0; len];
                let last = Inflater::default()
                    .stream(&bytes[..size], &mut out)
                    .unwrap();
                assert!(out == input, "{name} {len}");
                assert_eq!(last.end.div_ceil(8), size);
                // The whole is a stream that ends, so it is no segment.
                assert!(segment(&bytes[..size], len).is_err());
            }
        }
    }
}

#[test]
fn short_distances_repeat() {
    for period in 1..40 {
        let pattern = shapes::random(period, 1);
        let input: Vec<u8> = pattern.iter().copied().cycle().take(20_000).collect();
        assert_eq!(segment(&zlib(&input, 6), input.len()), Ok(input));
    }
}

#[test]
fn a_block_marked_as_the_last_is_refused() {
    assert_eq!(segment(&[3, 0], 0), Err(INVALID));
    assert_eq!(segment(&[1, 1, 0, 0xfe, 0xff, b'a'], 1), Err(INVALID));
    // Also in front of more that is correct.
    let stored = [1, 1, 0, 0xfe, 0xff, b'a', 0, 1, 0, 0xfe, 0xff, b'b'];
    assert_eq!(segment(&stored, 2), Err(INVALID));
}

/// A last block that runs over the end of the segment and takes the two bytes that complete a
/// stream for its own end of block: alone a correct stream, but not within a longer one.
#[test]
fn l9_a_last_block_that_ends_beyond_the_segment_is_refused() {
    let mut litlen = vec![0u8; 286];
    litlen[usize::from(b'a')] = 1;
    litlen[usize::from(b'b')] = 2;
    litlen[..97].fill(10);
    litlen[99..198].fill(10);
    litlen[256..].fill(9); // end of block first: 110000000 in reading order
    assert!(super::super::huffman::is_complete(&litlen));
    for last in [0, 1] {
        let mut bits = BitWriter::default();
        write_dynamic_header(&litlen, &[1, 1], &mut bits);
        let mut literals = 0;
        while bits.len() % 8 != 0 || literals == 0 {
            bits.put(0, 1); // an "a"
            literals += 1;
        }
        let (mut bytes, _, _) = bits.finish();
        bytes[0] |= last;
        let completed = zlib_inflate(&stream(&[&bytes]), literals);
        assert_eq!(completed, (last == 1).then(|| vec![b'a'; literals]));
        assert_eq!(segment(&bytes, literals), Err(CodecError::Truncated));
    }
}

#[test]
fn a_segment_that_does_not_end_on_a_byte_boundary_is_refused() {
    // Fixed block: "a", end of block: 3 + 8 + 7 bits. Its padding would be the next block's header.
    let mut bits = BitWriter::default();
    bits.put(0b010, 3);
    bits.put(u32::from((0x30u8 + b'a').reverse_bits()), 8);
    bits.put(0, 7);
    bits.put(0, 6);
    let (bytes, _, _) = bits.finish();
    assert!(segment(&bytes, 1).is_err());
    // With the empty stored block that the padding announces, it does.
    assert_eq!(
        segment(&[&bytes[..], &[0, 0, 0xff, 0xff]].concat(), 1),
        Ok(vec![b'a'])
    );
}

#[test]
fn distances_before_the_start_are_refused() {
    // Fixed block: "a", length 3 at distance 2.
    for (distance_symbol, expected) in [(0u32, Ok(b"aaaa".to_vec())), (1, Err(INVALID))] {
        let mut bits = BitWriter::default();
        bits.put(0b010, 3);
        bits.put(u32::from((0x30u8 + b'a').reverse_bits()), 8);
        bits.put(0b100_0000, 7); // symbol 257: 0000001
        bits.put(distance_symbol << 4, 5); // 0000x in reading order
        bits.put(0, 7);
        bits.put(0, 3);
        bits.put(0, (8 - bits.len() as u32 % 8) % 8);
        let (bytes, _, _) = bits.finish();
        let bytes = [&bytes[..], &[0, 0, 0xff, 0xff]].concat();
        assert_eq!(segment(&bytes, 4), expected);
    }
}

#[test]
fn reserved_symbols_and_blocks_are_refused() {
    assert_eq!(segment(&[0b110], 0), Err(INVALID)); // block type 3
    for (code, bits_of_code) in [(0b1100_0110u8, 8), (0b1100_0111, 8)] {
        let mut bits = BitWriter::default();
        bits.put(0b010, 3);
        bits.put(code.reverse_bits().into(), bits_of_code); // symbols 286 and 287
        bits.put(0, 32);
        assert_eq!(segment(&bits.finish().0, 10), Err(INVALID));
    }
}
