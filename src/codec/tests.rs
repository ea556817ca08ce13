//! Round trips, and differential tests against zlib-rs and libdeflate.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Seeded data of the shapes that chunks have.
pub(super) mod shapes {
    use modeloci_test_support::random::Random;

    /// Near a normal distribution: the sum of twelve uniform numbers.
    fn weight(random: &mut Random) -> f32 {
        let uniform = |_| (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((0..12).map(uniform).sum::<f64>() - 6.0) as f32 * 0.02
    }

    pub(in crate::codec) fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut random = Random(seed | 1);
        (0..len).map(|_| (random.next() >> 32) as u8).collect()
    }

    pub(in crate::codec) fn bf16(len: usize, seed: u64) -> Vec<u8> {
        let mut random = Random(seed | 1);
        let weight = |_| ((weight(&mut random).to_bits() >> 16) as u16).to_le_bytes();
        let mut bytes: Vec<u8> = (0..len.div_ceil(2)).flat_map(weight).collect();
        bytes.truncate(len);
        bytes
    }

    pub(in crate::codec) fn fp32(len: usize, seed: u64) -> Vec<u8> {
        let mut random = Random(seed | 1);
        let weight = |_| weight(&mut random).to_le_bytes();
        let mut bytes: Vec<u8> = (0..len.div_ceil(4)).flat_map(weight).collect();
        bytes.truncate(len);
        bytes
    }

    pub(in crate::codec) fn text(len: usize, seed: u64) -> Vec<u8> {
        let mut random = Random(seed | 1);
        let words = [
            "weight",
            "bias",
            "layer",
            "norm",
            "\"token\": ",
            "attention",
            ", ",
            "[1, 2]",
        ];
        let mut bytes = Vec::new();
        while bytes.len() < len {
            bytes.extend(words[random.next() as usize % words.len()].bytes());
            bytes.extend((random.next() % 10_000).to_string().bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Bytes 0 to 19 whose frequencies halve: codes longer than the limit, were there none.
    pub(in crate::codec) fn skewed(len: usize, seed: u64) -> Vec<u8> {
        let mut random = Random(seed | 1);
        (0..len)
            .map(|_| (random.next() >> 20).trailing_zeros().min(19) as u8)
            .collect()
    }

    /// Regions of different nature, so that the sub-streams differ in length.
    pub(in crate::codec) fn mixed(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![7; len / 3];
        bytes.extend(random(len / 3, seed));
        bytes.extend(bf16(len - bytes.len(), seed));
        bytes
    }

    pub(in crate::codec) fn constant(len: usize, seed: u64) -> Vec<u8> {
        vec![seed as u8; len]
    }

    /// A length and a seed, to bytes.
    type Make = fn(usize, u64) -> Vec<u8>;

    pub(in crate::codec) const ALL: [(&str, Make); 7] = [
        ("random", random),
        ("bf16", bf16),
        ("fp32", fp32),
        ("text", text),
        ("skewed", skewed),
        ("mixed", mixed),
        ("constant", constant),
    ];
}

const COMPRESSIONS: [Compression; 6] = [
    Compression::Auto,
    Compression::Gzip(1),
    Compression::Gzip(6),
    Compression::Gzip(9),
    Compression::Zstd(3),
    Compression::None,
];

/// What zlib-rs makes of a complete deflate stream that takes up all of `stream`.
pub(super) fn zlib_inflate(stream: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; limit + 1];
    let mut inflate = flate2::Decompress::new(false);
    let status = inflate.decompress(stream, &mut out, flate2::FlushDecompress::Finish);
    let complete = matches!(status, Ok(flate2::Status::StreamEnd))
        && inflate.total_in() == stream.len() as u64;
    out.truncate(inflate.total_out() as usize);
    complete.then_some(out)
}

pub(super) fn libdeflate_inflate(stream: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; len];
    let mut decompressor = libdeflater::Decompressor::new();
    let size = decompressor.deflate_decompress(stream, &mut out);
    (size == Ok(len)).then_some(out)
}

/// `segments`, completed to one deflate stream.
pub(super) fn stream(segments: &[&[u8]]) -> Vec<u8> {
    [segments, &[&[3, 0][..]]].concat().concat()
}

fn encode(compression: Compression, input: &[u8]) -> (Encoded, Vec<u8>) {
    let mut out = b"before".to_vec();
    let encoded = Encoder::new(compression).encode(input, &mut out);
    assert_eq!(&out[..6], b"before");
    (encoded, out.split_off(6))
}

fn decode(encoded: &Encoded, segment: &[u8], len: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![0xa5; len];
    Decoder::default()
        .decode(encoded.kind, &encoded.sub_offsets, segment, &mut out)
        .map(|()| out)
}

/// Encodes, decodes, and has others decode.
fn round_trip(compression: Compression, input: &[u8]) -> (Encoded, Vec<u8>) {
    let (encoded, segment) = encode(compression, input);
    assert_eq!(
        decode(&encoded, &segment, input.len()).as_deref(),
        Ok(input)
    );
    for len in [input.len() + 1, input.len().wrapping_sub(1)] {
        if len < usize::MAX {
            assert!(decode(&encoded, &segment, len).is_err());
        }
    }
    match encoded.kind {
        ChunkKind::Stored | ChunkKind::Literal | ChunkKind::Deflate => {
            assert!(segment.len() <= stored::size(input.len()));
            let complete = stream(&[&segment]);
            assert_eq!(zlib_inflate(&complete, input.len()).as_deref(), Some(input));
            assert_eq!(
                libdeflate_inflate(&complete, input.len()).as_deref(),
                Some(input)
            );
        }
        ChunkKind::Zstd => {
            let expected = zstd::bulk::decompress(&segment, input.len());
            assert_eq!(expected.unwrap(), input);
        }
        ChunkKind::Plain => panic!("is only read"),
    }
    (encoded, segment)
}

#[test]
fn l8_every_length_to_2000_round_trips() {
    let text = shapes::text(2_000, 1);
    let random = shapes::random(2_000, 1);
    for len in 0..=2_000 {
        // The levels differ in nothing that depends on such lengths; take turns.
        let compression = COMPRESSIONS[len % COMPRESSIONS.len()];
        round_trip(compression, &text[..len]);
        round_trip(Compression::Auto, &random[..len]);
    }
}

#[test]
fn l8_sizes_around_one_chunk_round_trip() {
    for (i, (_, make)) in shapes::ALL.iter().enumerate() {
        let input = make((1 << 20) + 1, 5);
        for len in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
            round_trip(Compression::Auto, &input[..len]);
        }
        round_trip(COMPRESSIONS[i % COMPRESSIONS.len()], &input);
        round_trip(Compression::Gzip(6), &input[..1 << 18]);
    }
}

#[test]
fn empty_inputs_are_empty_segments() {
    for (compression, kind) in [
        (Compression::Auto, ChunkKind::Stored),
        (Compression::Gzip(6), ChunkKind::Stored),
        (Compression::None, ChunkKind::Stored),
    ] {
        let (encoded, segment) = round_trip(compression, &[]);
        assert_eq!((encoded.kind, segment.len()), (kind, 0));
    }
    let (encoded, segment) = round_trip(Compression::Zstd(3), &[]);
    assert_eq!(encoded.kind, ChunkKind::Zstd);
    assert!(!segment.is_empty());
}

#[test]
fn the_automatic_rule_takes_what_was_measured_best() {
    let expected = [
        ("random", ChunkKind::Stored, 1.01),
        ("bf16", ChunkKind::Literal, 0.80),
        ("fp32", ChunkKind::Stored, 1.01),
        ("text", ChunkKind::Deflate, 0.60),
        ("skewed", ChunkKind::Literal, 0.30),
        ("mixed", ChunkKind::Deflate, 0.70),
        ("constant", ChunkKind::Deflate, 0.01),
    ];
    for ((name, make), (_, kind, ratio)) in shapes::ALL.iter().zip(expected) {
        let input = make(1 << 19, 11);
        let (encoded, segment) = round_trip(Compression::Auto, &input);
        assert_eq!(encoded.kind, kind, "{name}");
        let found = segment.len() as f64 / input.len() as f64;
        assert!(found <= ratio, "{name}: {found}");
    }
}

#[test]
fn gzip_compresses_what_auto_stores() {
    let input = shapes::fp32(1 << 18, 2);
    assert_eq!(encode(Compression::Auto, &input).0.kind, ChunkKind::Stored);
    let (encoded, segment) = round_trip(Compression::Gzip(6), &input);
    assert_eq!(encoded.kind, ChunkKind::Literal);
    assert!(segment.len() < input.len() * 95 / 100);
}

#[test]
fn segments_in_a_row_are_one_stream() {
    let inputs: Vec<Vec<u8>> = (0..14)
        .map(|i| shapes::ALL[i % 7].1(20_000 + i * 1_777, i as u64))
        .collect();
    let mut encoder = Encoder::new(Compression::Auto);
    let mut segments = Vec::new();
    encoder.encode_generic(&[0; 1024], &mut segments);
    for input in &inputs {
        encoder.encode(input, &mut segments);
    }
    let expected = [&[0; 1024][..], &inputs.concat()].concat();
    let complete = stream(&[&segments]);
    assert_eq!(
        zlib_inflate(&complete, expected.len()).as_deref(),
        Some(&expected[..])
    );
    assert_eq!(
        libdeflate_inflate(&complete, expected.len()).as_deref(),
        Some(&expected[..])
    );
}

#[test]
fn what_an_encoder_did_before_changes_nothing() {
    for compression in COMPRESSIONS {
        let mut used = Encoder::new(compression);
        for (_, make) in shapes::ALL {
            let input = make(50_000, 3);
            let mut segment = Vec::new();
            let encoded = used.encode(&input, &mut segment);
            assert_eq!((encoded, segment), encode(compression, &input));
        }
    }
}

#[test]
fn a_decoder_is_as_good_as_new_after_an_error() {
    let mut decoder = Decoder::default();
    for (_, make) in shapes::ALL {
        for compression in COMPRESSIONS {
            let input = make(40_000, 4);
            let (encoded, segment) = encode(compression, &input);
            let Encoded { kind, sub_offsets } = encoded;
            let mut out = vec![0; input.len()];
            let cut = &segment[..segment.len() / 2];
            assert!(decoder.decode(kind, &sub_offsets, cut, &mut out).is_err());
            assert_eq!(
                decoder.decode(kind, &sub_offsets, &segment, &mut out),
                Ok(())
            );
            assert_eq!(out, input);
        }
    }
}

/// The invariant of every decoder: what it accepts is what zlib-rs makes of the same bytes, alone
/// and with other segments around them.
fn check_against_zlib(encoded: &Encoded, segment: &[u8], len: usize) -> bool {
    let Ok(out) = decode(encoded, segment, len) else {
        return false;
    };
    assert_eq!(
        zlib_inflate(&stream(&[segment]), len).as_deref(),
        Some(&out[..])
    );
    let mut neighbour = Vec::new();
    stored::encode(b"neighbour", &mut neighbour);
    let around = zlib_inflate(&stream(&[&neighbour, segment, &neighbour]), len + 18);
    let expected = [b"neighbour", &out[..], b"neighbour"].concat();
    assert_eq!(around.as_deref(), Some(&expected[..]));
    true
}

#[test]
fn l9_every_flipped_bit_and_truncation_is_an_error_or_what_zlib_reads() {
    let stored_input = shapes::random(60, 1);
    let deflate_input = shapes::text(400, 1);
    let mut stored = Vec::new();
    stored::encode(&stored_input, &mut stored);
    let mut encoder = Encoder::new(Compression::Gzip(6));
    let mut deflate = Vec::new();
    let generic = encoder.encode_generic(&deflate_input, &mut deflate);
    assert_eq!(generic.kind, ChunkKind::Deflate);
    for (kind, segment, len) in [
        (ChunkKind::Stored, &stored, stored_input.len()),
        (ChunkKind::Deflate, &deflate, deflate_input.len()),
        (ChunkKind::Deflate, &stored, stored_input.len()),
        (ChunkKind::Stored, &deflate, deflate_input.len()),
    ] {
        let encoded = Encoded {
            kind,
            sub_offsets: SubOffsets::default(),
        };
        let mut accepted = 0;
        for bit in 0..segment.len() * 8 {
            let mut damaged = segment.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            for len in [len, len - 1, len + 1] {
                accepted += usize::from(check_against_zlib(&encoded, &damaged, len));
            }
        }
        // A flipped bit of data is data.
        assert_eq!(
            accepted > 0,
            segment == &stored || kind == ChunkKind::Deflate
        );
        for cut in 0..segment.len() {
            assert!(!check_against_zlib(&encoded, &segment[..cut], len));
        }
        for trailing in [0, 3, 0xff] {
            let longer = [segment, &[trailing][..]].concat();
            assert!(!check_against_zlib(&encoded, &longer, len));
        }
    }
}

#[test]
fn sub_offsets_of_other_kinds_must_be_zero() {
    for compression in COMPRESSIONS {
        let (mut encoded, segment) = encode(compression, b"some bytes");
        encoded.sub_offsets[4] = 1;
        assert!(decode(&encoded, &segment, 10).is_err());
    }
}

#[test]
fn zstd_takes_one_whole_frame_and_nothing_else() {
    let input = shapes::text(3_000, 1);
    let (encoded, frame) = round_trip(Compression::Zstd(19), &input);
    let refused = |bytes: &[u8], len: usize| assert!(decode(&encoded, bytes, len).is_err());
    for cut in 0..frame.len() {
        refused(&frame[..cut], input.len());
    }
    refused(&[&frame[..], &[0]].concat(), input.len());
    refused(&[&frame[..], &frame].concat(), input.len() * 2);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
    refused(&[&skippable[..], &frame].concat(), input.len());
    refused(&[&frame[..], &skippable].concat(), input.len());
    refused(&skippable, 0);
    // A window of 128 MiB for three thousand bytes; sizes and contents are right.
    let window = 17 << 3;
    let mut huge = vec![0x28, 0xb5, 0x2f, 0xfd, 0x80, window];
    huge.extend((input.len() as u32).to_le_bytes());
    huge.extend(&((input.len() as u32) << 3 | 1).to_le_bytes()[..3]);
    huge.extend(&input);
    assert_eq!(zstd::bulk::decompress(&huge, input.len()).unwrap(), input);
    refused(&huge, input.len());
    huge[5] = 0;
    let small = &huge[..];
    // The same with a window of 1 KiB is refused by the library: the block exceeds it.
    assert_eq!(
        decode(&encoded, small, input.len()).is_ok(),
        zstd::bulk::decompress(small, input.len()).is_ok()
    );
}

#[test]
fn zstd_frames_of_raw_blocks_are_frames() {
    for len in [0, 1, 1000, 128 << 10, (128 << 10) + 1, 300_000] {
        let input = shapes::random(len, 1);
        let mut frame = Vec::new();
        zstandard::encode_raw(&input, &mut frame);
        let encoded = Encoded {
            kind: ChunkKind::Zstd,
            sub_offsets: SubOffsets::default(),
        };
        assert_eq!(decode(&encoded, &frame, len), Ok(input));
    }
}

#[test]
fn plain_is_a_copy_of_the_right_length() {
    let encoded = Encoded {
        kind: ChunkKind::Plain,
        sub_offsets: SubOffsets::default(),
    };
    assert_eq!(decode(&encoded, b"bytes", 5).as_deref(), Ok(&b"bytes"[..]));
    for expected in [4, 6] {
        assert_eq!(
            decode(&encoded, b"bytes", expected),
            Err(CodecError::WrongLength { expected })
        );
    }
}

#[test]
fn without_compression_everything_is_stored() {
    for (name, make) in shapes::ALL {
        let input = make(200_000, 3);
        let (encoded, segment) = round_trip(Compression::None, &input);
        assert_eq!(encoded.kind, ChunkKind::Stored, "{name}");
        assert_eq!(segment.len(), stored::size(input.len()), "{name}");
        let mut generic = Vec::new();
        let encoded = Encoder::new(Compression::None).encode_generic(&input, &mut generic);
        assert_eq!((encoded.kind, generic), (ChunkKind::Stored, segment));
    }
}

#[test]
fn compressions_parse() {
    for (text, expected) in [
        ("auto", Compression::Auto),
        ("none", Compression::None),
        ("gzip", Compression::Gzip(6)),
        ("gzip:1", Compression::Gzip(1)),
        ("zstd", Compression::Zstd(3)),
        ("zstd:19", Compression::Zstd(19)),
    ] {
        assert_eq!(text.parse::<Compression>().unwrap(), expected);
    }
    for text in [
        "", "Auto", "auto:1", "none:", "gzip:", "gzip:0", "gzip:10", "gzip:06", "gzip:+6",
        "zstd:20", "zstd:-1", "gzip:6:6", "xz",
    ] {
        let error = text.parse::<Compression>().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_shape_round_trips(
        shape in 0..shapes::ALL.len(),
        len in 0usize..150_000,
        seed: u64,
        compression in 0..COMPRESSIONS.len(),
    ) {
        round_trip(COMPRESSIONS[compression], &shapes::ALL[shape].1(len, seed));
    }

    /// The in-tree twin of the fuzz target `decode_differential`, for damage that flips no single
    /// bit: several bytes of a segment overwritten.
    #[test]
    fn l9_damage_is_an_error_or_what_zlib_reads(
        shape in 0..shapes::ALL.len(),
        len in 1usize..40_000,
        seed: u64,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let input = shapes::ALL[shape].1(len, seed);
        let (encoded, mut segment) = encode(Compression::Gzip(6), &input);
        for (at, byte) in damage {
            let at = at.index(segment.len());
            segment[at] = byte;
        }
        check_against_zlib(&encoded, &segment, len);
        check_against_zlib(&Encoded { kind: ChunkKind::Deflate, ..encoded }, &segment, len);
        let whole = Encoded { kind: ChunkKind::Deflate, sub_offsets: SubOffsets::default() };
        check_against_zlib(&whole, &segment, len);
    }

    #[test]
    fn l9_arbitrary_bytes_are_an_error_or_what_zlib_reads(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        len in 0usize..400,
        kind in 0u8..3,
        sub_offsets: [u16; 5],
    ) {
        let kind = ChunkKind::from_u8(kind).unwrap();
        let sub_offsets = sub_offsets.map(|offset| u32::from(offset) % 300);
        check_against_zlib(&Encoded { kind, sub_offsets }, &bytes, len);
        let sub_offsets = SubOffsets::default();
        check_against_zlib(&Encoded { kind, sub_offsets }, &bytes, len);
    }
}
