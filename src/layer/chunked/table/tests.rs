#![allow(clippy::unwrap_used)]

use modeloci_test_support::random::Random;

use super::*;
use crate::ErrorKind;
use crate::layer::wrap::{unwrap, wrap};

const C: u32 = 64 << 10;

/// A table of three chunks (the last one short) with a literal-only chunk in the middle.
fn sample(framing: Framing) -> Vec<u8> {
    let kind = match framing {
        Framing::Gzip => ChunkKind::Stored,
        Framing::Zstd => ChunkKind::Zstd,
        Framing::Plain => ChunkKind::Plain,
    };
    let lengths: [u32; 5] = [
        512,
        C,
        if framing == Framing::Gzip { 50_000 } else { C },
        100,
        1436,
    ];
    let mut builder = TableBuilder::new();
    let mut at = framing.start();
    for (n, length) in lengths.into_iter().enumerate() {
        let literal = framing == Framing::Gzip && n == 2;
        let encoded = Encoded {
            kind: if literal { ChunkKind::Literal } else { kind },
            sub_offsets: if literal {
                [9_000, 18_000, 27_000, 36_000, 45_000]
            } else {
                [0; 5]
            },
        };
        builder.push(
            at,
            length,
            encoded,
            &Digest::of(Algorithm::Blake3, &[n as u8]),
        );
        at += u64::from(length);
    }
    builder.finish(&Header {
        algorithm: Algorithm::Blake3,
        framing,
        chunk_size: C,
        file_size: u64::from(C) * 2 + 100,
        file_offset: 512,
        tar_size: 512 + u64::from(C) * 2 + 100 + 1436,
        data_size: at + framing.end(),
        data_digest: Digest::sha256(b"data"),
    })
}

fn parse(bytes: &[u8]) -> Result<ChunkTable> {
    ChunkTable::parse(Bytes::copy_from_slice(bytes), 1 << 20, "layer")
}

#[test]
fn reads_back_what_was_built() {
    for framing in [Framing::Gzip, Framing::Zstd, Framing::Plain] {
        let table = parse(&sample(framing)).unwrap();
        assert_eq!(table.chunks(), 3);
        assert_eq!(table.header().framing, framing);
        let lengths: Vec<u64> = (0..table.segments())
            .map(|n| table.decoded_len(n))
            .collect();
        assert_eq!(lengths, [512, 65_536, 65_536, 100, 1436]);
        let row = table.row(1).unwrap();
        assert_eq!((row.offset, row.length), (framing.start() + 512, C));
        assert_eq!(row.digest, Digest::of(Algorithm::Blake3, &[1]));
        assert_eq!(table.row(5), None);
    }
}

#[test]
fn an_unknown_kind_in_a_gzip_layer_is_read_by_any_inflate() {
    let mut bytes = sample(Framing::Gzip);
    bytes[HEADER_BYTES + ROW_BYTES + 12] = 77;
    assert_eq!(
        parse(&bytes).unwrap().row(1).unwrap().kind,
        ChunkKind::Deflate
    );
    bytes[HEADER_BYTES + ROW_BYTES + 12] = ChunkKind::Zstd as u8;
    assert!(parse(&bytes).is_err(), "a kind of another framing is a lie");
}

/// Every change of a field that the rules tie to another one is found. (Digests and sub-offsets
/// are tied to the content; the reader's tests cover them.)
#[test]
fn l9_a_table_whose_numbers_lie_is_refused() {
    for framing in [Framing::Gzip, Framing::Zstd, Framing::Plain] {
        let good = sample(framing);
        let digests = |at: usize| {
            (72..HEADER_BYTES).contains(&at)
                || (at >= HEADER_BYTES && (at - HEADER_BYTES) % ROW_BYTES >= 40)
        };
        // Where the file stands within the tar shows when its first and last chunk are decoded.
        let position = |at: usize| (16..40).contains(&at);
        // Row kinds and sub-offsets are hints of gzip layers.
        let hints =
            |at: usize| at >= HEADER_BYTES && (12..40).contains(&((at - HEADER_BYTES) % ROW_BYTES));
        for at in 0..good.len() {
            if digests(at) || hints(at) || position(at) {
                continue;
            }
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                match parse(&bad) {
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt),
                    Ok(_) => panic!("{framing:?}: bit {bit} of byte {at} went unnoticed"),
                }
            }
        }
    }
}

#[test]
fn l9_every_truncation_and_extension_is_refused() {
    let good = sample(Framing::Gzip);
    for end in 0..good.len() {
        assert!(parse(&good[..end]).is_err(), "cut at {end}");
    }
    let mut long = good.clone();
    long.extend_from_slice(&[0; ROW_BYTES]);
    assert!(parse(&long).is_err());
    assert!(
        ChunkTable::parse(Bytes::from(good), 100_000, "layer").is_err(),
        "data beyond the end of the blob"
    );
}

#[test]
fn l9_sub_offsets_out_of_order_are_refused() {
    let at = HEADER_BYTES + 2 * ROW_BYTES + 20;
    for (n, value) in [(0, 0), (1, 9_000), (4, 50_000), (4, u32::MAX), (2, 40_000)] {
        let mut bad = sample(Framing::Gzip);
        bad[at + 4 * n..at + 4 * n + 4].copy_from_slice(&u32::to_le_bytes(value));
        assert!(parse(&bad).is_err(), "sub-offset {n} = {value}");
    }
}

#[test]
fn wrapped_tables_decode_to_nothing_and_unwrap_to_themselves() {
    use std::io::Read as _;
    for length in [0, 1, 7_899, 7_900, 7_901, 3_000_000] {
        let table: Vec<u8> = (0..length).map(|n| n as u8).collect();
        for framing in [Framing::Gzip, Framing::Zstd] {
            let (bytes, range) = wrap(framing, &table, 12_345);
            let members = &bytes[..range as usize];
            assert_eq!(unwrap(framing, members).unwrap(), table);
            let footer = &bytes[range as usize..];
            let data = if framing == Framing::Gzip {
                &footer[16..32]
            } else {
                &footer[8..24]
            };
            assert_eq!(u64_at(data, 0), Some(12_345));
            assert_eq!(u64_at(data, 8), Some(range));
            let mut out = Vec::new();
            match framing {
                Framing::Gzip => flate2::read::MultiGzDecoder::new(&bytes[..])
                    .read_to_end(&mut out)
                    .unwrap(),
                _ => zstd::Decoder::new(&bytes[..])
                    .unwrap()
                    .read_to_end(&mut out)
                    .unwrap(),
            };
            assert_eq!(out, b"");
            for bad in [&members[..members.len().saturating_sub(1)], &bytes[..]] {
                if !bad.is_empty() {
                    assert_eq!(unwrap(framing, bad), None);
                }
            }
        }
    }
}

/// Several fields of a table set at once, to values where arithmetic breaks: never a panic, and what
/// is accepted tiles the data.
#[test]
fn l9_tables_of_extreme_numbers_are_refused_or_sound() {
    let mut random = Random(1);
    let mut random = |n: u64| random.below(n as usize) as u64;
    let mut accepted = 0;
    for round in 0..60_000 {
        let framing = [Framing::Gzip, Framing::Zstd, Framing::Plain][round % 3];
        let mut table = sample(framing);
        let rows = (table.len() - HEADER_BYTES) / ROW_BYTES;
        for _ in 0..=random(3) {
            let value: u64 = match random(8) {
                0 => 0,
                1 => 1 << random(64),
                2 => (1 << random(64)) - 1,
                3 => u64::MAX - random(200),
                4 => u64::MAX << random(64),
                5 => u64::from(u32::MAX) - random(200),
                6 => random(200_000),
                _ => u64::from(table[random(table.len() as u64) as usize]),
            };
            let row = HEADER_BYTES + ROW_BYTES * random(rows as u64) as usize;
            let (at, width) = match random(14) {
                0 => (10 + random(2) as usize, 1),
                1 => (12, 4),
                n @ 2..=6 => (16 + 8 * (n as usize - 2), 8),
                7 => (row, 8),
                8 | 9 => (row + 8, 4),
                10 => (row + 12, 1),
                n => (row + 20 + 4 * (n as usize - 10), 4),
            };
            table[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        if random(8) == 0 {
            table.truncate(random(table.len() as u64) as usize);
        }
        let Ok(parsed) = ChunkTable::parse(Bytes::from(table), u64::MAX, "layer") else {
            continue;
        };
        accepted += 1;
        let header = parsed.header();
        let (mut at, mut decoded) = (header.framing.start(), 0);
        for segment in 0..parsed.segments() {
            let row = parsed.row(segment).unwrap();
            assert_eq!(row.offset, at);
            at += u64::from(row.length);
            decoded += parsed.decoded_len(segment);
            assert!(parsed.decoded_len(segment) <= u64::from(limits::MAX_CHUNK_BYTES));
        }
        assert_eq!(at + header.framing.end(), header.data_size);
        assert_eq!(decoded, header.tar_size);
        assert!(parsed.row(parsed.segments()).is_none() && parsed.row(u64::MAX).is_none());
        assert_eq!(parsed.decoded_len(u64::MAX - 1), 0);
    }
    assert!(accepted > 100, "{accepted}");
}
