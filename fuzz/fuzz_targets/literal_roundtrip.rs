//! Invariant: whatever the input, each segment decodes to it, by our decoder, by zlib-rs and by
//! libdeflate; and encoding it again, with the same encoder or a new one, gives the same bytes.
//!
//! The fuzzer's bytes are the symbols of a chunk, drawn at random, so that their number and
//! frequencies shape the Huffman code and the literal-only encoder is what gets chosen.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modeloci::Compression;
use modeloci::codec::{ChunkKind, Decoder, Encoder};

fuzz_target!(|symbols: &[u8]| {
    let [seed, extra, symbols @ ..] = symbols else {
        return;
    };
    let mut state = u64::from(*seed) << 8 | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // The smaller of two: not all symbols shall be equally frequent.
        let (a, b) = (state >> 40, state & 0xff_ffff);
        let at = a.min(b) as usize * symbols.len() >> 24;
        symbols.get(at).copied().unwrap_or_default()
    };
    let input: Vec<u8> = (0..(16 << 10) + usize::from(*extra))
        .map(|_| draw())
        .collect();

    let mut encoder = Encoder::new(Compression::Gzip(6));
    let mut segment = Vec::new();
    let encoded = encoder.encode(&input, &mut segment);
    let mut again = Vec::new();
    assert_eq!(encoder.encode(&input, &mut again), encoded);
    assert_eq!(again, segment);

    let mut out = vec![0; input.len()];
    let mut decoder = Decoder::default();
    let done = decoder.decode(encoded.kind, &encoded.sub_offsets, &segment, &mut out);
    assert_eq!(done, Ok(()));
    assert_eq!(out, input);
    if encoded.kind == ChunkKind::Literal {
        // As an ordinary segment it means the same.
        out.fill(0);
        let done = decoder.decode(ChunkKind::Deflate, &[0; 5], &segment, &mut out);
        assert_eq!(done, Ok(()));
        assert_eq!(out, input);
    }

    segment.extend([3, 0]);
    out.fill(0);
    let mut inflate = flate2::Decompress::new(false);
    let status = inflate.decompress(&segment, &mut out, flate2::FlushDecompress::Finish);
    assert!(matches!(status, Ok(flate2::Status::StreamEnd)));
    assert_eq!(out, input);
    out.fill(0);
    let size = libdeflater::Decompressor::new().deflate_decompress(&segment, &mut out);
    assert_eq!(size, Ok(input.len()));
    assert_eq!(out, input);
});
