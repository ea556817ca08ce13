//! Decoders and encoders of chunks and streams.

use flate2::{Decompress, FlushDecompress, Status};
use modeloci::Compression;
use modeloci::codec::{ChunkKind, Decoder, Encoded, Encoder, SubOffsets};

use super::super::Random;
use super::super::forge::{gzip, noise};
use super::reference;

/// What zlib-rs makes of a deflate stream, which must end where its bytes end.
fn inflate(stream: &[&[u8]], len: usize) -> Vec<u8> {
    let stream = stream.concat();
    let mut out = vec![0; len + 1];
    let mut inflate = Decompress::new(false);
    let status = inflate.decompress(&stream, &mut out, FlushDecompress::Finish);
    assert!(matches!(status, Ok(Status::StreamEnd)), "{status:?}");
    assert_eq!(inflate.total_in(), stream.len() as u64);
    out.truncate(inflate.total_out() as usize);
    out
}

/// A segment decodes to `input`, by our decoder and by everybody else's.
fn assert_decodes(encoder: &mut Encoder, input: &[u8]) {
    let mut segment = Vec::new();
    let encoded = encoder.encode(input, &mut segment);
    let mut again = Vec::new();
    assert_eq!(encoder.encode(input, &mut again), encoded);
    assert!(again == segment, "encoded again, it is another");
    let mut decoder = Decoder::default();
    let mut decode = |kind, sub_offsets| {
        let mut out = vec![0; input.len()];
        assert_eq!(
            decoder.decode(kind, sub_offsets, &segment, &mut out),
            Ok(())
        );
        assert!(out == input, "{kind:?} decodes to something else");
    };
    decode(encoded.kind, &encoded.sub_offsets);
    match encoded.kind {
        ChunkKind::Stored | ChunkKind::Literal | ChunkKind::Deflate => {
            // As an ordinary segment it means the same.
            decode(ChunkKind::Deflate, &[0; 5]);
            let stored = input.len() + 5 * (input.len() / 65_535 + 1);
            assert!(
                segment.len() <= stored,
                "{} bytes take {}",
                input.len(),
                segment.len()
            );
            assert!(inflate(&[&segment, &[3, 0]], input.len()) == input);
            segment.extend([3, 0]);
            let mut out = vec![0; input.len()];
            let size = libdeflater::Decompressor::new().deflate_decompress(&segment, &mut out);
            assert_eq!(size, Ok(input.len()));
            assert!(out == input);
        }
        ChunkKind::Zstd => {
            assert!(zstd::bulk::decompress(&segment, input.len()).expect("a frame") == input);
        }
        ChunkKind::Plain => panic!("is only read"),
    }
}

pub mod decode_differential {
    use super::*;

    /// A stored block that holds an "x".
    const NEIGHBOUR: [u8; 6] = [0, 1, 0, 0xfe, 0xff, b'x'];
    const FRONT: usize = 13;

    /// A decoder never panics, and bytes that it accepts as a deflate segment are bytes that zlib-rs
    /// accepts and decodes to the same, both when `03 00` completes them to a stream and when they
    /// stand between two other segments.
    pub fn run(data: &[u8]) {
        let Some((header, segment)) = data.split_first_chunk::<FRONT>() else {
            return;
        };
        let word = |i: usize| u16::from_le_bytes([header[i], header[i + 1]]);
        let Some(kind) = ChunkKind::from_u8(header[0] % 5) else {
            return;
        };
        let sub_offsets = match kind {
            ChunkKind::Literal => [word(1), word(3), word(5), word(7), word(9)].map(u32::from),
            _ => [0; 5],
        };
        let mut out = vec![0; usize::from(word(11))];
        let done = Decoder::default().decode(kind, &sub_offsets, segment, &mut out);
        if done.is_ok() && (kind as u8) <= ChunkKind::Deflate as u8 {
            assert!(inflate(&[segment, &[3, 0]], out.len()) == out);
            let expected = [b"x", &out[..], b"x"].concat();
            let within = [&NEIGHBOUR, segment, &NEIGHBOUR, &[3, 0]];
            assert!(inflate(&within, expected.len()) == expected);
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let text = b"to be or not to be, ".repeat(400);
        let skewed: Vec<u8> = noise(2, 20_000).iter().map(|b| b & 0x1c).collect();
        let methods = [
            Compression::Gzip(6),
            Compression::Auto,
            Compression::Zstd(1),
            Compression::None,
        ];
        let form = |encoded: Encoded, input: &[u8], segment: &[u8]| {
            let mut front = vec![encoded.kind as u8];
            front.extend(
                encoded
                    .sub_offsets
                    .iter()
                    .flat_map(|offset| (*offset as u16).to_le_bytes()),
            );
            front.extend((input.len() as u16).to_le_bytes());
            [&front, segment].concat()
        };
        let with = |method: Compression, input: &[u8]| {
            let mut segment = Vec::new();
            let encoded = Encoder::new(method).encode(input, &mut segment);
            form(encoded, input, &segment)
        };
        let plain = |input: &[u8]| {
            let encoded = Encoded {
                kind: ChunkKind::Plain,
                sub_offsets: SubOffsets::default(),
            };
            form(encoded, input, input)
        };
        let inputs = [&text[..], &skewed, &noise(1, 3_000), b"a", &[0; 30_000]];
        methods
            .iter()
            .flat_map(|method| inputs.map(|input| with(*method, input)))
            .chain(inputs.map(plain))
            .collect()
    }
}

pub mod streams {
    use super::*;
    use modeloci::codec::{gunzip, unzstd};

    /// A gzip or zstd stream is to us what it is to flate2 or zstd: the same bytes, and sound or not.
    pub fn run(data: &[u8]) {
        let theirs = reference::decompress(data);
        let ours = match data {
            [0x1f, 0x8b, ..] => reference::stream(gunzip(data)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => reference::stream(unzstd(data).expect("memory")),
            _ => return,
        };
        let known = ours.bytes.len().min(theirs.bytes.len());
        assert!(ours.bytes[..known] == theirs.bytes[..known], "other bytes");
        if ours.whole {
            assert!(theirs.whole, "sound to us alone");
            assert_eq!(ours.bytes.len(), theirs.bytes.len());
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let text = b"to be or not to be, ".repeat(900);
        let noise = noise(6, 20_000);
        let zstd = |bytes: &[u8], level| zstd::encode_all(bytes, level).unwrap();
        let mut named = vec![
            0x1f, 0x8b, 8, 0x1e, 1, 2, 3, 4, 0, 3, 3, 0, 1, 2, 3, b'n', 0, b'c', 0,
        ];
        let crc = crc32fast::hash(&named) as u16;
        named.extend(crc.to_le_bytes());
        named.extend(&gzip(&text)[10..]);
        vec![
            gzip(&text),
            gzip(&noise),
            [gzip(&text), gzip(b""), gzip(&noise)].concat(),
            named,
            zstd(&text, 1),
            zstd(&noise, 19),
            [
                zstd(&text, 3),
                vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3],
                zstd(b"", 1),
            ]
            .concat(),
        ]
    }
}

pub mod literal_roundtrip {
    use super::*;

    /// Whatever the input, its segment decodes to it, by our decoder, by zlib-rs and by libdeflate;
    /// and encoding it again gives the same bytes.
    ///
    /// The bytes are the symbols of a chunk, drawn at random, so that their number and frequencies
    /// shape the Huffman code and the literal-only encoder is what gets chosen.
    pub fn run(symbols: &[u8]) {
        let [seed, extra, symbols @ ..] = symbols else {
            return;
        };
        let mut random = Random::new(u64::from(*seed), 0);
        let mut draw = || {
            // The smaller of two: not all symbols shall be equally frequent.
            let at = random.below(symbols.len()).min(random.below(symbols.len()));
            symbols.get(at).copied().unwrap_or_default()
        };
        let input: Vec<u8> = (0..(16 << 10) + usize::from(*extra))
            .map(|_| draw())
            .collect();
        assert_decodes(&mut Encoder::new(Compression::Gzip(6)), &input);
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let all: Vec<u8> = (0..=255).collect();
        vec![
            [&[1, 0], &all[..]].concat(),
            [&[2, 9], &all[100..140]].concat(),
            [&[3, 255], &[7u8][..]].concat(),
            [&[4, 1], &[0, 0, 0, 0, 1, 1, 2, 3, 5, 8, 13, 21][..]].concat(),
            [&[5, 1], &noise(8, 4_000)[..]].concat(),
        ]
    }
}

pub mod histograms {
    use super::*;

    const LINE: usize = 64;

    /// As `literal_roundtrip`, for chunks of 128 KiB and more, of which the encoder counts a sample,
    /// where the sample is not like the rest.
    pub fn run(recipe: &[u8]) {
        let Some(([method, size, seed, rare], pieces)) = recipe.split_first_chunk::<4>() else {
            return;
        };
        let mut random = Random::new(u64::from(*seed), 0);
        let size = (128 << 10) + usize::from(*size) * 2_011;
        let mut input = vec![0; size];
        // Each piece: where it starts, in 256ths; what it is made of; how many values.
        let pieces = pieces.as_chunks::<3>().0;
        for [start, base, values] in pieces {
            let values = usize::from(*values) + 1;
            for byte in &mut input[size * usize::from(*start) / 256..] {
                let drawn = random.below(values).min(random.below(values));
                *byte = base.wrapping_add(drawn as u8);
            }
        }
        // The lines that are counted have every value; the others perhaps some that are rare there.
        if rare % 4 > 0 {
            mislead(&mut input, usize::from(rare % 4), *rare, &mut random);
        }
        let method = match method % 6 {
            0..=2 => Compression::Auto,
            3 => Compression::Gzip(method % 9 + 1),
            4 => Compression::Gzip(6),
            _ => Compression::Zstd(1),
        };
        assert_decodes(&mut Encoder::new(method), &input);
    }

    /// Overwrites the lines that the encoder's histogram looks at. How it picks them is repeated here;
    /// were it another way, this would be an ordinary input.
    fn mislead(input: &mut [u8], how: usize, rare: u8, random: &mut Random) {
        let per_counted = (input.len() / (64 << 10)).clamp(1, 8);
        let mut state = 1u32;
        for group in input.chunks_exact_mut(per_counted * LINE) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = ((state >> 16) as usize * per_counted) >> 16;
            let line = &mut group[at * LINE..(at + 1) * LINE];
            for byte in line {
                *byte = match how {
                    // As frequent as each other.
                    1 => random.next() as u8,
                    // One in nearly all places, all of them now and then.
                    2 if random.below(20) > 0 => rare,
                    2 => random.next() as u8,
                    // Growing like Fibonacci's numbers: the longest codes there can be.
                    _ => match random.below(300) {
                        0 => random.next() as u8,
                        _ => (random.next().trailing_zeros() as u8).wrapping_mul(rare | 1),
                    },
                };
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            vec![0, 0, 1, 1, 0, 0, 255],
            vec![0, 65, 2, 2, 0, 10, 3, 128, 100, 60],
            vec![1, 200, 3, 3, 0, 0, 15],
            vec![3, 255, 4, 5, 0, 0, 0, 1, 7, 200],
            vec![4, 100, 5, 6, 0, 30, 2],
            vec![5, 90, 6, 0, 0, 0, 255, 100, 0, 3],
            vec![2, 33, 7, 255, 0, 200, 1, 255, 0, 255],
        ]
    }
}
