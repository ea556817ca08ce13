#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use modeloci_test_support::random::Random;
use proptest::prelude::*;

use super::*;
use crate::codec::bits::BitWriter;
use crate::codec::huffman::write_dynamic_header;
use crate::codec::inflate::segment::StrictInflate;

/// Text-like, weight-like, constant and random bytes, one after the other.
pub(crate) fn sample(len: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        let n = random.next();
        match data.len() * 4 / len.max(1) {
            0 => data.extend_from_slice(
                [&b"\"token\": "[..], b"the ", b"weights ", b"12345, "][n as usize % 4],
            ),
            1 => data.extend_from_slice(&[n as u8, 0x3c | (n >> 8 & n >> 16 & n >> 24 & 3) as u8]),
            2 => data.push(7),
            _ => data.extend_from_slice(&n.to_le_bytes()),
        }
    }
    data.truncate(len);
    data
}

fn deflated(data: &[u8], level: i32, strategy: zlib_rs::Strategy) -> Vec<u8> {
    let config = zlib_rs::DeflateConfig {
        level,
        strategy,
        window_bits: -15,
        ..Default::default()
    };
    let mut deflate = zlib_rs::Deflate::new_with_config(config);
    let mut out = vec![0; data.len() * 2 + 1024];
    let status = deflate.compress(data, &mut out, zlib_rs::DeflateFlush::Finish);
    assert_eq!(status.unwrap(), zlib_rs::Status::StreamEnd);
    out.truncate(deflate.total_out() as usize);
    out
}

fn streams(data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    use zlib_rs::Strategy::*;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    for piece in data.chunks(50_000) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    let mut fast = vec![0; data.len() * 2 + 1024];
    let n = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(12).unwrap())
        .deflate_compress(data, &mut fast)
        .unwrap();
    fast.truncate(n);
    vec![
        ("level 1", deflated(data, 1, Default)),
        ("level 6", deflated(data, 6, Default)),
        ("level 9", deflated(data, 9, Default)),
        ("stored", deflated(data, 0, Default)),
        ("filtered", deflated(data, 6, Filtered)),
        ("huffman only", deflated(data, 6, HuffmanOnly)),
        ("rle", deflated(data, 6, Rle)),
        ("fixed", deflated(data, 6, Fixed)),
        ("flushed", encoder.finish().unwrap()),
        ("libdeflate 12", fast),
    ]
}

/// Decodes with input that arrives `step` bytes at a time and stops every `stop` bytes of output.
fn decode(
    input: &[u8],
    step: usize,
    stop: usize,
    limit: usize,
) -> Result<(Vec<u8>, u64), CodecError> {
    let mut inflate = Inflate::new();
    let mut out = vec![0; limit + stop + SLOP];
    let (mut bit, mut pos, mut end) = (0, 0, step.min(input.len()));
    loop {
        let target = pos + stop;
        match inflate.step(
            &input[..end],
            &mut bit,
            end == input.len(),
            &mut out,
            &mut pos,
            0,
            target,
        )? {
            Stop::Input => end = (end + step).min(input.len()),
            Stop::Output if pos > limit => return Err(CodecError::WrongLength { expected: limit }),
            Stop::Output => {}
            Stop::End => {
                out.truncate(pos);
                return Ok((out, bit));
            }
        }
    }
}

impl Inflate {
    /// [`run`](Inflate::run) on loose values.
    #[allow(clippy::too_many_arguments)]
    fn step(
        &mut self,
        input: &[u8],
        bit: &mut u64,
        last: bool,
        bytes: &mut [u8],
        pos: &mut usize,
        history: usize,
        stop: usize,
    ) -> Result<Stop, CodecError> {
        let mut out = Output {
            bytes,
            pos: *pos,
            history,
            stop,
        };
        let result = self.run(input, bit, last, &mut out);
        *pos = out.pos;
        result
    }
}

#[test]
fn decodes_what_every_encoder_writes() {
    let data = sample(300_000);
    for (name, stream) in streams(&data) {
        for (step, stop) in [
            (usize::MAX / 2, 1 << 20),
            (1, 40_000),
            (700, 1),
            (4096, 65_536),
        ] {
            let (out, bit) = decode(&stream, step, stop, data.len() + 300).unwrap();
            assert!(out == data, "{name}, input by {step}, output by {stop}");
            assert_eq!(bit.div_ceil(8), stream.len() as u64, "{name}");
        }
    }
    for data in [&b""[..], b"a", b"ab", &[0; 70_000]] {
        for (name, stream) in streams(data) {
            assert!(
                decode(&stream, 64, 1000, data.len() + 300).unwrap().0 == data,
                "{name}"
            );
        }
    }
}

#[test]
fn resumes_at_every_symbol() {
    let data = sample(60_000);
    for (name, stream) in streams(&data) {
        let mut inflate = Inflate::new();
        let mut out = vec![0; data.len() + 10_000];
        let (mut bit, mut pos) = (0, 0);
        let mut target = 0;
        loop {
            target += 977;
            let stop = inflate.step(&stream, &mut bit, true, &mut out, &mut pos, 0, target);
            if stop.unwrap() == Stop::End {
                break;
            }
            let mut other = Inflate::new();
            match inflate.position() {
                Position::Symbols => {
                    let (header, bit) = inflate.header();
                    other.resume_symbols(header, bit).unwrap();
                }
                Position::Stored(left) => other.resume_stored(left, inflate.in_last_block()),
                _ => {}
            }
            let window = pos.min(WINDOW);
            let mut rest = data[pos - window..pos].to_vec();
            rest.resize(data.len() + 1000, 0);
            let (mut from, mut end) = (bit, window);
            let stop = (pos + 3000).min(data.len()) - pos + window;
            other
                .step(&stream, &mut from, true, &mut rest, &mut end, 0, stop)
                .unwrap();
            assert!(
                rest[window..end] == data[pos..pos + end - window],
                "{name} at {pos}"
            );
        }
    }
}

/// Also in the inner loop, whose table has two literals at once.
#[test]
fn stops_at_the_first_symbol_that_ends_where_it_shall() {
    let data = sample(20_000);
    for (name, stream) in streams(&data) {
        let mut out = vec![0; data.len() + 10_000];
        let mut ends = vec![0];
        let (mut inflate, mut bit, mut pos) = (Inflate::new(), 0, 0);
        loop {
            let next = pos + 1;
            match inflate.step(&stream, &mut bit, true, &mut out, &mut pos, 0, next) {
                Ok(Stop::Output) => ends.push(pos),
                stop => break assert_eq!(stop, Ok(Stop::End), "{name}"),
            }
        }
        assert_eq!(ends.last(), Some(&data.len()), "{name}");
        for distance in (1..700).chain([1_000, 5_000]) {
            let (mut inflate, mut bit, mut pos) = (Inflate::new(), 0, 0);
            for _ in 0..3 {
                let target = pos + distance;
                let stop = inflate.step(&stream, &mut bit, true, &mut out, &mut pos, 0, target);
                assert_eq!(stop, Ok(Stop::Output));
                let expected = ends[ends.partition_point(|end| *end < target)];
                match inflate.position() {
                    // The bytes of a stored block are no symbols.
                    Position::Stored(_) => assert_eq!(pos, target, "{name}"),
                    _ => assert_eq!(pos, expected, "{name}, to {target}"),
                }
            }
        }
    }
}

/// Which the decoder of segments refuses: other decoders do.
#[test]
fn l1_a_block_that_has_a_code_for_nothing_but_its_end_is_read_as_zlib_does() {
    let mut litlen = [0; 257];
    litlen[256] = 1;
    let mut bits = BitWriter::default();
    write_dynamic_header(&litlen, &[0], &mut bits);
    bits.put(0, 7);
    let (mut stream, _, _) = bits.finish();
    stream[0] |= 1; // the last block
    agrees(&stream, 1);
    assert_eq!(
        decode(&stream, 1, 10, 10).map(|(out, _)| out),
        Ok(Vec::new())
    );
    let result = StrictInflate::default().stream(&stream, &mut []);
    assert_eq!(result.err(), Some(INVALID));
}

#[test]
fn l1_refuses_every_truncation() {
    let data = sample(3_000);
    for (name, stream) in streams(&data) {
        for cut in 0..stream.len() {
            let result = decode(&stream[..cut], 100, 500, data.len() + 300);
            assert_eq!(
                result.unwrap_err(),
                CodecError::Truncated,
                "{name} cut at {cut}"
            );
        }
    }
}

#[test]
fn l1_refuses_what_reaches_before_the_history() {
    let data = [&b"abcdefghijkl"[..]; 20].concat();
    let stream = deflated(&data, 9, zlib_rs::Strategy::Fixed);
    // The same symbols again, with a history that begins in the middle of what they refer to.
    let mut inflate = Inflate::new();
    let mut out = vec![0; 1000];
    let result = inflate.step(&stream, &mut 0, true, &mut out, &mut 13, 13, 400);
    assert_eq!(result, Ok(Stop::End), "the literals come first");
    inflate.reset();
    let mut skipped = (0, 0);
    let stop = inflate.step(
        &stream,
        &mut skipped.0,
        true,
        &mut out,
        &mut skipped.1,
        0,
        5,
    );
    assert_eq!(stop, Ok(Stop::Output));
    let result = inflate.step(&stream, &mut skipped.0, true, &mut out, &mut 5, 5, 400);
    assert_eq!(result, Err(CodecError::Invalid("deflate")));
}

/// What zlib-rs makes of a raw deflate stream.
fn reference(input: &[u8], limit: usize) -> Option<(Vec<u8>, u64)> {
    let mut inflate = zlib_rs::Inflate::new(false, 15);
    let mut out = vec![0; limit];
    match inflate.decompress(input, &mut out, zlib_rs::InflateFlush::Finish) {
        Ok(zlib_rs::Status::StreamEnd) => {
            out.truncate(inflate.total_out() as usize);
            Some((out, inflate.total_in()))
        }
        _ => None,
    }
}

fn agrees(input: &[u8], step: usize) {
    let limit = 1 << 20;
    let ours = decode(input, step, 4096, limit).ok();
    let theirs = reference(input, limit + 4096);
    match (ours, theirs) {
        (Some((ours, bit)), Some((theirs, read))) => {
            assert!(ours == theirs);
            assert_eq!(bit.div_ceil(8), read);
        }
        (None, None) => {}
        (ours, theirs) => panic!("ours: {}, zlib: {}", ours.is_some(), theirs.is_some()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn l1_damaged_streams_are_read_or_refused_as_zlib_does(
        kind in 0usize..10, len in 1usize..6_000, at in any::<proptest::sample::Index>(),
        bit in 0u8..8, step in 1usize..700,
    ) {
        let data = sample(len);
        let (_, mut stream) = streams(&data).swap_remove(kind);
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        agrees(&stream, step);
    }

    #[test]
    fn l1_damaged_headers_are_read_or_refused_as_zlib_does(
        data in prop::collection::vec(0u8..20, 50..400), at in 0usize..60, bit in 0u8..8,
    ) {
        let mut stream = deflated(&data, 6, zlib_rs::Strategy::Default);
        let at = at % stream.len();
        stream[at] ^= 1 << bit;
        agrees(&stream, 64);
    }

    #[test]
    fn l1_noise_is_read_or_refused_as_zlib_does(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        agrees(&noise, 50);
    }
}
