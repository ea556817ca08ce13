#![allow(clippy::unwrap_used)]

use modeloci_test_support::random::Random;

use super::*;
use crate::codec::bits::BitWriter;
use crate::codec::huffman::{
    DISTANCES, LENGTHS, canonical_codes, is_complete, limited_lengths, write_dynamic_header,
};
use crate::codec::tests::{libdeflate_inflate, shapes, stream, zlib_inflate};

/// What all loops make of a segment; they must agree, also on why they refuse it.
fn segment(bytes: &[u8], len: usize) -> Result<Vec<u8>, CodecError> {
    let run = |cpu| {
        let mut out = vec![0x5a; len];
        let done = StrictInflate::new(cpu).segment(bytes, &mut out);
        done.map(|()| out)
    };
    let result = run(Some(Cpu::detect()));
    for cpu in [Some(Cpu::Portable), None] {
        let other = run(cpu);
        assert!(other == result, "{:?} {:?}", other.err(), result.err());
    }
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
                let last = StrictInflate::default()
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
    assert!(is_complete(&litlen));
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

/// One thing that a deflate stream says.
#[derive(Clone, Copy)]
enum Token {
    Literal(u8),
    /// Length and distance.
    Match(usize, usize),
}

/// The symbol of a length or distance, and the value of its extra bits with their number.
fn symbol(table: &[(u32, u32)], value: usize) -> (usize, u32, u32) {
    let value = value as u32;
    let symbol = table.iter().rposition(|(base, _)| *base <= value).unwrap();
    let (base, extra) = table[symbol];
    (symbol, value - base, extra)
}

/// Writes a dynamic block, not the last, whose codes are as random as `random`: some symbols have
/// codes of one bit, others of 15.
fn write_block(random: &mut Random, tokens: &[Token], bits: &mut BitWriter) {
    let mut code = |symbols: usize| {
        let spread = random.next() % 20;
        let mut frequency = |_| 1 << (random.next() % (spread + 1));
        let frequencies: Vec<u32> = (0..symbols).map(&mut frequency).collect();
        let lengths = limited_lengths(&frequencies, 15);
        let codes = canonical_codes(&lengths);
        (lengths, codes)
    };
    let (litlen, litlen_codes) = code(286);
    let (distance, distance_codes) = code(30);
    write_dynamic_header(&litlen, &distance, bits);
    let litlen =
        |bits: &mut BitWriter, i: usize| bits.put(litlen_codes[i].into(), litlen[i].into());
    for token in tokens {
        match *token {
            Token::Literal(byte) => litlen(bits, byte.into()),
            Token::Match(length, back) => {
                let (i, more, extra) = symbol(&LENGTHS, length);
                litlen(bits, 257 + i);
                bits.put(more, extra);
                let (i, more, extra) = symbol(&DISTANCES, back);
                bits.put(distance_codes[i].into(), distance[i].into());
                bits.put(more, extra);
            }
        }
    }
    litlen(bits, 256);
}

/// Random tokens in random blocks, and what they mean.
fn random_segment(seed: u64, tokens: usize) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(seed | 1);
    let mut below = |n: usize| (random.next() >> 16) as usize % n;
    let mut expected = Vec::new();
    let mut all = Vec::new();
    for _ in 0..tokens {
        let token = match below(3) {
            _ if expected.is_empty() => Token::Literal(below(256) as u8),
            0 => Token::Literal(below(256) as u8),
            kind => {
                let length = [3 + below(256), 3 + below(14)][kind - 1];
                let farthest = expected.len().min(1 << (1 + below(15)));
                Token::Match(length, 1 + below(farthest))
            }
        };
        match token {
            Token::Literal(byte) => expected.push(byte),
            Token::Match(length, back) => {
                for _ in 0..length {
                    expected.push(expected[expected.len() - back]);
                }
            }
        }
        all.push(token);
    }
    let mut bits = BitWriter::default();
    for tokens in all.chunks(tokens.div_ceil(3).max(1)) {
        write_block(&mut random, tokens, &mut bits);
    }
    bits.put(0, 3); // an empty stored block
    bits.put(0, (8 - bits.len() as u32 % 8) % 8);
    bits.put(0xffff_0000, 32);
    (bits.finish().0, expected)
}

/// Every length, distance and code length, as no encoder would write them.
#[test]
fn l8_random_streams_decode_to_what_they_say() {
    for seed in 0..300 {
        let (bytes, expected) = random_segment(seed, 1 + seed as usize * 7);
        assert!(
            segment(&bytes, expected.len()).as_ref() == Ok(&expected),
            "{seed}"
        );
        let complete = stream(&[&bytes]);
        assert!(
            zlib_inflate(&complete, expected.len()).as_ref() == Some(&expected),
            "{seed}"
        );
        let found = libdeflate_inflate(&complete, expected.len());
        assert!(found.as_ref() == Some(&expected), "{seed}");
        for len in [expected.len() - 1, expected.len() + 1] {
            assert_eq!(
                segment(&bytes, len),
                Err(CodecError::WrongLength { expected: len })
            );
        }
    }
}

/// Where the inner loop leaves off depends on what is left of both buffers.
#[test]
fn l8_every_length_up_to_several_rounds_is_exact() {
    let input = shapes::text(3_000, 1);
    for len in 0..2_000 {
        let bytes = zlib(&input[..len], 6);
        assert!(
            segment(&bytes, len).as_deref() == Ok(&input[..len]),
            "{len}"
        );
    }
}

#[test]
fn nothing_outside_of_the_output_is_written_at_any_alignment() {
    let input = shapes::text(5_000, 3);
    let bytes = zlib(&input, 6);
    for shift in 0..9 {
        let shifted = [&vec![0xff; shift][..], &bytes].concat();
        let mut out = vec![0x5a; input.len() + 64 + shift];
        let inflated = StrictInflate::default()
            .segment(&shifted[shift..], &mut out[shift..shift + input.len()]);
        assert_eq!(inflated, Ok(()));
        assert!(out[shift..shift + input.len()] == input);
        assert!(out[..shift].iter().all(|byte| *byte == 0x5a));
        assert!(out[shift + input.len()..].iter().all(|byte| *byte == 0x5a));
    }
}

/// Each flip and each truncation of a segment that is long enough for the inner loop: all loops say
/// the same, and zlib decodes whatever they accept to the same bytes.
#[test]
fn l8_l9_every_flipped_bit_and_every_truncation_is_an_error_or_the_same_for_zlib() {
    let text = shapes::text(2_000, 7);
    let (random, expected) = random_segment(5, 300);
    for (bytes, len) in [(zlib(&text, 6), text.len()), (random, expected.len())] {
        assert!(segment(&bytes, len).is_ok());
        let mut accepted = 0;
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = segment(&damaged, len) {
                accepted += 1;
                assert!(
                    zlib_inflate(&stream(&[&damaged]), len) == Some(found),
                    "{bit}"
                );
            }
        }
        assert!(accepted > 100, "flips of literals are other literals");
        for end in 0..bytes.len() {
            assert!(segment(&bytes[..end], len).is_err(), "{end}");
        }
    }
}

/// The tables of a fixed block are kept from one to the next, but not over a dynamic one.
#[test]
fn fixed_and_dynamic_blocks_take_turns() {
    let (dynamic, expected) = random_segment(9, 50);
    let mut bits = BitWriter::default();
    bits.put(0b010, 3);
    bits.put(u32::from((0x30u8 + b'a').reverse_bits()), 8);
    bits.put(0, 7);
    bits.put(0, 3);
    bits.put(0, (8 - bits.len() as u32 % 8) % 8);
    bits.put(0xffff_0000, 32);
    let fixed = bits.finish().0;
    let bytes = [&fixed[..], &fixed, &dynamic, &fixed].concat();
    let expected = [b"aa", &expected[..], b"a"].concat();
    assert_eq!(segment(&bytes, expected.len()), Ok(expected));
}
