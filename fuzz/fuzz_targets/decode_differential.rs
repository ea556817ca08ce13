//! Invariant: a decoder never panics, and bytes that it accepts as a deflate segment are bytes that
//! zlib-rs accepts and decodes to the same, both when `03 00` completes them to a stream and when
//! they stand between two other segments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modeloci::codec::{ChunkKind, Decoder};

/// A stored block that holds an "x".
const NEIGHBOUR: [u8; 6] = [0, 1, 0, 0xfe, 0xff, b'x'];

fuzz_target!(|data: &[u8]| {
    let Some((header, segment)) = data.split_first_chunk::<13>() else {
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
    let mut decoder = Decoder::default();
    if decoder
        .decode(kind, &sub_offsets, segment, &mut out)
        .is_err()
    {
        return;
    }
    if matches!(
        kind,
        ChunkKind::Stored | ChunkKind::Literal | ChunkKind::Deflate
    ) {
        assert_eq!(inflate(&[segment, &[3, 0]], out.len()), out);
        let expected = [b"x", &out[..], b"x"].concat();
        let within = [&NEIGHBOUR, segment, &NEIGHBOUR, &[3, 0]];
        assert_eq!(inflate(&within, expected.len()), expected);
    }
});

/// What zlib-rs makes of a stream, which must end where its bytes end.
fn inflate(stream: &[&[u8]], len: usize) -> Vec<u8> {
    let stream = stream.concat();
    let mut out = vec![0; len + 1];
    let mut inflate = flate2::Decompress::new(false);
    let status = inflate.decompress(&stream, &mut out, flate2::FlushDecompress::Finish);
    assert!(matches!(status, Ok(flate2::Status::StreamEnd)));
    assert_eq!(inflate.total_in(), stream.len() as u64);
    out.truncate(inflate.total_out() as usize);
    out
}
