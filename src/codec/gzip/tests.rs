#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use super::*;
use crate::codec::inflate::tests::sample;

/// Keeps all seek points, one every `spacing` bytes.
struct Points {
    spacing: u64,
    next: u64,
    points: Vec<(u64, u64, Checkpoint)>,
}

impl Points {
    fn every(spacing: u64) -> Points {
        Points {
            spacing,
            next: spacing,
            points: vec![(0, 0, Checkpoint::start())],
        }
    }
}

impl Record for Points {
    fn next(&self) -> u64 {
        self.next
    }

    fn checkpoint(&mut self, out: u64, bit: u64, checkpoint: Checkpoint) -> io::Result<()> {
        self.next = out + self.spacing;
        self.points.push((out, bit, checkpoint));
        Ok(())
    }

    fn frame(&mut self, _: u64, _: u64) -> io::Result<()> {
        unreachable!()
    }

    fn output(&mut self, _: &[u8]) -> io::Result<()> {
        unreachable!()
    }
}

fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new()
        .filename("name")
        .comment("comment")
        .extra(vec![1; 300])
        .write(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(stream: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Gunzip::new(stream, None).read_to_end(&mut out)?;
    Ok(out)
}

fn error_of(stream: &[u8]) -> CodecError {
    let error = gunzip(stream).unwrap_err();
    *error.get_ref().unwrap().downcast_ref().unwrap()
}

const INVALID: CodecError = CodecError::Invalid("gzip");

#[test]
fn reads_one_and_many_members_and_enters_them_anywhere() {
    let data = sample(700_000);
    let one = gzip(&data, 6);
    let many: Vec<u8> = data
        .chunks(9_999)
        .flat_map(|piece| gzip(piece, 9))
        .collect();
    let mixed = [
        gzip(b"", 6),
        gzip(&data[..400_000], 0),
        gzip(b"", 1),
        gzip(&data[400_000..], 1),
    ];
    for stream in [one, many, mixed.concat()] {
        let mut points = Points::every(30_000);
        let mut out = Vec::new();
        Gunzip::new(&stream[..], Some(&mut points))
            .read_to_end(&mut out)
            .unwrap();
        assert!(out == data);
        assert!(points.points.len() >= 22, "{}", points.points.len());
        let ends = points
            .points
            .iter()
            .skip(1)
            .map(|p| p.0)
            .chain([data.len() as u64]);
        for ((out, bit, checkpoint), end) in points.points.iter().zip(ends) {
            let source = &stream[(bit / 8) as usize..];
            let span = Gunzip::resume(source, *bit, checkpoint, (end - out) as usize).unwrap();
            assert!(span[checkpoint.window.len()..] == data[*out as usize..end as usize]);
        }
    }
}

#[test]
fn l1_refuses_every_truncation() {
    let stream = [gzip(&sample(2_000), 6), gzip(b"tail", 6)].concat();
    let boundary = gzip(&sample(2_000), 6).len();
    for cut in 0..stream.len() {
        if cut != boundary {
            assert_eq!(
                error_of(&stream[..cut]),
                CodecError::Truncated,
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn l1_refuses_bad_checksum_length_and_flags() {
    let stream = gzip(b"hello", 6);
    let end = stream.len();
    for (at, why) in [
        (end - 8, "CRC"),
        (end - 5, "CRC"),
        (end - 4, "ISIZE"),
        (end - 1, "ISIZE"),
        (2, "method"),
    ] {
        let mut bad = stream.clone();
        bad[at] ^= 1;
        assert_eq!(error_of(&bad), INVALID, "{why}");
    }
    for flag in [0x20, 0x40, 0x80] {
        let mut bad = stream.clone();
        bad[3] |= flag;
        assert_eq!(error_of(&bad), INVALID, "reserved flag {flag:#x}");
    }
}

#[test]
fn l1_checks_the_header_checksum() {
    let plain = modeloci_test_support::compressed::gzip(b"", 6);
    let mut header = plain[..10].to_vec();
    header[3] |= 2;
    let crc = (crc32fast::hash(&header) as u16).to_le_bytes();
    let good = [&header[..], &crc, &plain[10..]].concat();
    assert_eq!(gunzip(&good).unwrap(), b"");
    let mut bad = good;
    bad[4] ^= 1;
    assert_eq!(error_of(&bad), INVALID);
}

#[test]
fn l2_refuses_bytes_behind_the_last_member() {
    for tail in [
        &b"\0"[..],
        b"garbage",
        &[0; 512],
        b"\x1f\x8b\x07aaaaaaaaaaaa",
    ] {
        let stream = [&gzip(b"hello", 6)[..], tail].concat();
        assert_eq!(error_of(&stream), INVALID, "{tail:?}");
    }
    let stream = [&gzip(b"hello", 6)[..], b"\x1f\x8b"].concat();
    assert_eq!(error_of(&stream), CodecError::Truncated);
}

#[test]
fn refuses_an_endless_header() {
    let mut stream = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255];
    stream.resize(MAX_HEADER * 2, b'n');
    assert_eq!(error_of(&stream), INVALID);
}
