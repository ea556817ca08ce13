#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::cpu::Cpu;
use super::super::tests::{shapes, stream, zlib_inflate};
use super::super::{CodecError, Compression, Decoder, Encoder, SUB_STREAMS, SubOffsets, stored};
use super::shape::part;
use super::*;

fn encode(input: &[u8]) -> (SubOffsets, Vec<u8>) {
    let mut segment = Vec::new();
    let offsets = LiteralPlan::new(input).encode(Cpu::Portable, input, &mut segment);
    for cpu in Cpu::all() {
        let mut again = b"x".to_vec();
        let same = LiteralPlan::new(input).encode(cpu, input, &mut again);
        assert_eq!((same, &again[1..]), (offsets, &segment[..]), "{cpu:?}");
    }
    (offsets, segment)
}

/// Both loops must agree on what they accept; what they refuse they may refuse for any reason.
fn decode(offsets: &SubOffsets, segment: &[u8], len: usize) -> Result<Vec<u8>, CodecError> {
    let run = |mut decoder: LiteralDecoder| {
        let mut out = vec![0x5a; len];
        decoder.decode(offsets, segment, &mut out).map(|()| out)
    };
    let result = run(LiteralDecoder::default());
    assert_eq!(run(LiteralDecoder::portable()), result);
    result
}

fn check_against_zlib(offsets: &SubOffsets, segment: &[u8], len: usize) -> bool {
    let Ok(out) = decode(offsets, segment, len) else {
        return false;
    };
    assert_eq!(
        zlib_inflate(&stream(&[segment]), len).as_deref(),
        Some(&out[..])
    );
    let mut neighbour = Vec::new();
    stored::encode(b"neighbour", &mut neighbour);
    let around = zlib_inflate(&stream(&[segment, &neighbour]), len + 9);
    assert_eq!(around, Some([&out[..], b"neighbour"].concat()));
    true
}

fn round_trip(input: &[u8]) {
    let (offsets, segment) = encode(input);
    assert_eq!(
        decode(&offsets, &segment, input.len()).as_deref(),
        Ok(input)
    );
    assert!(check_against_zlib(&offsets, &segment, input.len()));
}

#[test]
fn parts_tile_the_input() {
    for len in (0..100).chain([1 << 20, (1 << 20) + 5]) {
        let parts: Vec<_> = (0..SUB_STREAMS).map(|i| part(len, i)).collect();
        assert_eq!((parts[0].start, parts[5].end), (0, len));
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        let sizes: Vec<usize> = parts.iter().map(ExactSizeIterator::len).collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] - sizes[5] <= 1);
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    // The parts are aa, aa, aa, bb, bb, bb, and every symbol occurs six times. Codes, in reading
    // order: end of block 0, a 10, b 11.
    let (offsets, segment) = encode(b"aaaaaabbbbbb");
    assert_eq!(offsets, [19, 38, 57, 76, 95]);
    let header = [
        4, 0xc1, 0x81, 0, 0, 0, 0, 0x80, 0x20, 0xd6, 0xf7, 0x87, 0xa8,
    ];
    // The last bit of the header (0), then 10 10 0 or 11 11 0, and 000 for a stored block: zeros.
    for (part, literals) in segment.chunks(19).zip([10, 10, 10, 30, 30, 30]) {
        assert_eq!(
            part,
            [&header[..], &[literals, 0, 0, 0, 0xff, 0xff]].concat()
        );
    }
}

#[test]
fn every_length_round_trips() {
    let input = shapes::bf16(2_000, 9);
    for len in (0..200).chain((200..2_000).step_by(37)) {
        round_trip(&input[..len]);
    }
}

#[test]
fn every_shape_round_trips() {
    for (_, make) in shapes::ALL {
        for len in [1_000, 16_384, 65_536, 200_001] {
            round_trip(&make(len, 3));
        }
    }
}

#[test]
fn the_expected_size_is_near_the_size() {
    for (name, make) in shapes::ALL {
        for len in [16_384, 131_071, 131_072, 1 << 20] {
            let input = make(len, 5);
            let expected = LiteralPlan::new(&input).expected_size();
            let size = encode(&input).1.len();
            let permille = size.abs_diff(expected) * 1000 / size;
            assert!(permille <= 2, "{name} {len}: {expected}, {size}");
        }
    }
}

/// Someone may know which lines are counted (`docs/compression.md`), and make the others different.
#[test]
fn a_sample_that_misleads_costs_nothing_but_time() {
    const LEN: usize = 512 << 10;
    let (counted, other) = (shapes::bf16(LEN, 6), shapes::random(LEN, 6));
    let mut input = other.clone();
    let mut state = 1u32;
    for group in 0..LEN / 64 / 8 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let line = (group * 8 + (((state >> 16) as usize * 8) >> 16)) * 64;
        input[line..line + 64].copy_from_slice(&counted[line..line + 64]);
    }
    let expected = LiteralPlan::new(&input).expected_size();
    assert!(expected < LEN * 8 / 10, "{expected}: these are the lines");
    round_trip(&input);
    for compression in [Compression::Auto, Compression::Gzip(6)] {
        let mut segment = Vec::new();
        let encoded = Encoder::new(compression).encode(&input, &mut segment);
        assert!(segment.len() <= stored::size(LEN), "{compression:?}");
        let mut out = vec![0; LEN];
        let decoded =
            Decoder::default().decode(encoded.kind, &encoded.sub_offsets, &segment, &mut out);
        assert!(decoded.is_ok() && out == input);
    }
}

/// What a sample misses must have a code all the same, and costs no more than it must.
#[test]
fn a_sample_may_miss_what_is_rare() {
    let mut input = shapes::bf16(512 << 10, 4);
    for byte in &mut input {
        *byte &= 0xfe;
    }
    let even = encode(&input).1.len();
    for at in [0, 1, 77_777, input.len() - 1] {
        let mut with_one = input.clone();
        with_one[at] = 0xff;
        round_trip(&with_one);
        assert!(encode(&with_one).1.len() < even + 64);
    }
    // All values in the sample; but half of the input is unlike the rest.
    let mut halves = shapes::bf16(256 << 10, 4);
    halves.extend(vec![7; 256 << 10]);
    round_trip(&halves);
}

#[test]
fn codes_are_limited_to_11_bits() {
    round_trip(&shapes::skewed(1 << 17, 1));
    // One literal takes one bit, and 255 others are as rare as can be.
    let mut frequent = vec![0u8; 1 << 16];
    frequent.extend(0..=255);
    round_trip(&frequent);
}

#[test]
fn l9_every_flipped_bit_is_an_error_or_what_zlib_reads() {
    let input = b"literal-only deflate, in six sub-streams of one code".repeat(2);
    let (offsets, segment) = encode(&input);
    let mut accepted = 0;
    for bit in 0..segment.len() * 8 {
        let mut damaged = segment.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        accepted += usize::from(check_against_zlib(&offsets, &damaged, input.len()));
    }
    // A flipped bit may turn a literal into another one of the same length.
    assert!(accepted > 0);
}

#[test]
fn l9_every_truncation_and_extension_is_an_error() {
    let input = shapes::bf16(300, 2);
    let (offsets, segment) = encode(&input);
    for cut in 0..segment.len() {
        assert!(decode(&offsets, &segment[..cut], input.len()).is_err());
    }
    for trailing in [&[0][..], &[3, 0], &[0, 0, 0, 0xff, 0xff]] {
        assert!(decode(&offsets, &[&segment, trailing].concat(), input.len()).is_err());
    }
    for len in [
        0,
        1,
        input.len() - 1,
        input.len() + 1,
        input.len() + 6,
        1 << 20,
    ] {
        assert!(decode(&offsets, &segment, len).is_err());
    }
}

#[test]
fn l9_sub_offsets_that_lie_are_an_error() {
    let input = shapes::text(3_000, 2);
    let (offsets, segment) = encode(&input);
    for i in 0..5 {
        for other in [
            0,
            1,
            offsets[i] - 1,
            offsets[i] + 1,
            offsets[(i + 1) % 5],
            segment.len() as u32,
            segment.len() as u32 + 1,
            u32::MAX,
        ] {
            let mut lying = offsets;
            lying[i] = other;
            assert!(
                decode(&lying, &segment, input.len()).is_err(),
                "{i}: {other}"
            );
        }
    }
    assert!(decode(&SubOffsets::default(), &segment, input.len()).is_err());
}

#[test]
fn l9_a_stream_that_ends_early_and_one_that_ends_late_are_an_error() {
    // Two segments of one code whose sub-streams hold other numbers of literals: taken together
    // they have the right number, and as one deflate stream they are correct.
    let input = [b"ab".repeat(600), b"ba".repeat(600)].concat();
    let (offsets, segment) = encode(&input);
    let starts = [&[0], &offsets[..]].concat();
    let (other_offsets, other) = encode(&[b"ab".repeat(300), b"ba".repeat(300)].concat());
    let second = &segment[starts[1] as usize..starts[2] as usize];
    let short = &other[other_offsets[0] as usize..other_offsets[1] as usize];
    let mut spliced = Vec::new();
    let mut lying = SubOffsets::default();
    for i in 0..6 {
        if i > 0 {
            lying[i - 1] = spliced.len() as u32;
        }
        let end = starts.get(i + 1).map_or(segment.len(), |end| *end as usize);
        match i {
            1 => spliced.extend(short),
            2 => spliced.extend([second, short].concat()),
            _ => spliced.extend(&segment[starts[i] as usize..end]),
        }
    }
    assert!(decode(&lying, &spliced, input.len()).is_err());
    assert!(decode(&lying, &spliced, input.len() - 200).is_err());
}

#[test]
fn l9_sub_streams_of_two_codes_are_an_error() {
    let (one, two) = (shapes::text(1_200, 1), shapes::bf16(1_200, 1));
    let (offsets, segment) = encode(&one);
    let (other_offsets, other) = encode(&two);
    let mut spliced = segment[..offsets[4] as usize].to_vec();
    spliced.extend(&other[other_offsets[4] as usize..]);
    let expected = [&one[..1_000], &two[1_000..]].concat();
    assert_eq!(zlib_inflate(&stream(&[&spliced]), 1_200), Some(expected));
    assert!(decode(&offsets, &spliced, 1_200).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    /// The in-tree twin of the fuzz target `literal_roundtrip`.
    #[test]
    fn any_bytes_round_trip(input in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        round_trip(&input);
    }

    /// Damage in large segments, where the interleaved loop meets it first.
    #[test]
    fn l9_damage_in_the_bulk_is_an_error_or_what_zlib_reads(
        shape in 0..shapes::ALL.len(),
        seed: u64,
        len in 6_000usize..60_000,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..5),
        moved in proptest::option::of((0usize..5, -9i32..9)),
    ) {
        let input = shapes::ALL[shape].1(len, seed);
        let (mut offsets, mut segment) = encode(&input);
        for (at, bit) in damage {
            let at = at.index(segment.len());
            segment[at] ^= 1 << bit;
        }
        if let Some((i, by)) = moved {
            offsets[i] = offsets[i].wrapping_add_signed(by);
        }
        check_against_zlib(&offsets, &segment, len);
    }
}
