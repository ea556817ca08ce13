#![allow(clippy::unwrap_used)]

use modeloci_test_support::random::Random;

use super::*;

fn cost(frequencies: &[u32], lengths: &[u8]) -> u64 {
    let bits = |(f, l): (&u32, &u8)| u64::from(*f) * u64::from(*l);
    frequencies.iter().zip(lengths).map(bits).sum()
}

/// The least cost of any prefix code with lengths of 1 to `limit` bits, by trying all of them.
fn brute_force(frequencies: &[u32], limit: u8) -> u64 {
    fn search(left: &[u32], limit: u8, space: u32, cost: u64, best: &mut u64) {
        let Some((first, rest)) = left.split_first() else {
            *best = cost.min(*best);
            return;
        };
        for length in 1..=limit {
            let needs = 1 << (limit - length);
            if needs <= space {
                let cost = cost + u64::from(*first) * u64::from(length);
                search(rest, limit, space - needs, cost, best);
            }
        }
    }
    let mut best = u64::MAX;
    search(frequencies, limit, 1 << limit, 0, &mut best);
    best
}

/// The cost of a Huffman code without a limit: the sum of all its inner nodes.
fn huffman_cost(frequencies: &[u32]) -> u64 {
    let mut nodes: Vec<u64> = frequencies
        .iter()
        .filter(|f| **f > 0)
        .map(|f| u64::from(*f))
        .collect();
    let mut cost = 0;
    while nodes.len() > 1 {
        nodes.sort_unstable_by(|a, b| b.cmp(a));
        let pair = nodes.pop().unwrap() + nodes.pop().unwrap();
        cost += pair;
        nodes.push(pair);
    }
    cost
}

#[test]
fn limited_lengths_are_optimal() {
    let mut random = Random(1);
    for round in 0..300 {
        let symbols = 2 + round % 5;
        let limit = 3 + (round % 2) as u8;
        let frequencies: Vec<u32> = (0..symbols)
            .map(|_| 1 + ((random.next() >> 33) as u32 >> random.below(31)))
            .collect();
        let lengths = limited_lengths(&frequencies, limit);
        assert!(is_complete(&lengths), "{frequencies:?}: {lengths:?}");
        assert!(lengths.iter().all(|length| (1..=limit).contains(length)));
        assert_eq!(
            cost(&frequencies, &lengths),
            brute_force(&frequencies, limit),
            "{frequencies:?}: {lengths:?}"
        );
    }
}

#[test]
fn a_limit_that_does_not_bind_gives_a_huffman_code() {
    let mut random = Random(7);
    for _ in 0..20 {
        let frequencies: Vec<u32> = (0..257)
            .map(|_| 100 + random.below(10_000) as u32)
            .collect();
        let lengths = limited_lengths(&frequencies, 15);
        assert_eq!(cost(&frequencies, &lengths), huffman_cost(&frequencies));
    }
}

#[test]
fn the_limit_binds_where_frequencies_grow_like_fibonacci_numbers() {
    let mut frequencies = vec![1u32, 1];
    while frequencies.len() < 30 {
        frequencies.push(frequencies[frequencies.len() - 1] + frequencies[frequencies.len() - 2]);
    }
    let lengths = limited_lengths(&frequencies, 11);
    assert!(is_complete(&lengths));
    assert_eq!(lengths.iter().max(), Some(&11));
    assert!(cost(&frequencies, &lengths) >= huffman_cost(&frequencies));
}

#[test]
fn few_symbols() {
    assert!(limited_lengths(&[], 11).is_empty());
    assert_eq!(limited_lengths(&[0, 0], 11), [0, 0]);
    assert_eq!(limited_lengths(&[0, 5], 11), [0, 1]);
    assert_eq!(limited_lengths(&[9, 0, 1], 11), [1, 0, 1]);
    assert_eq!(limited_lengths(&[1; 256], 8), [8; 256]);
}

#[test]
fn canonical_codes_of_the_specification() {
    // RFC 1951, section 3.2.2: ABCDEFGH with lengths (3, 3, 3, 3, 3, 2, 4, 4).
    let codes = canonical_codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
    let reversed = |code: u16, length: u32| code.reverse_bits() >> (16 - length);
    let expected = [
        reversed(0b010, 3),
        reversed(0b011, 3),
        reversed(0b100, 3),
        reversed(0b101, 3),
        reversed(0b110, 3),
        reversed(0b00, 2),
        reversed(0b1110, 4),
        reversed(0b1111, 4),
    ];
    assert_eq!(codes, expected);
}

fn written(litlen: &[u8], distance: &[u8]) -> Vec<u8> {
    let mut out = BitWriter::default();
    write_dynamic_header(litlen, distance, &mut out);
    out.put(0, 7);
    out.finish().0
}

fn read(bytes: &[u8]) -> Result<DynamicHeader, CodecError> {
    DynamicHeader::read(&mut BitReader::new(bytes, 3), Dialect::Common)
}

#[test]
fn headers_round_trip() {
    let mut random = Random(3);
    for round in 0..60 {
        let symbols = 257 + random.below(30);
        let mut frequencies: Vec<u32> = (0..symbols)
            .map(|_| (random.below(100) as u32).saturating_sub(round * 2))
            .collect();
        frequencies[END_OF_BLOCK] = 1;
        frequencies[0] = 1;
        let litlen = limited_lengths(&frequencies, 15);
        let distance = [vec![1, 1], vec![2; 4], vec![0], vec![0, 1]][round as usize % 4].clone();
        let header = read(&written(&litlen, &distance)).unwrap();
        assert_eq!(header.litlen_sent, litlen.len());
        assert_eq!(header.litlen[..litlen.len()], litlen);
        assert_eq!(header.distance_sent, distance.len());
        assert_eq!(header.distance[..distance.len()], distance);
    }
}

#[test]
fn headers_that_inflates_refuse_are_refused() {
    let mut complete = [0u8; 257];
    complete[97] = 1;
    complete[END_OF_BLOCK] = 1;
    assert!(read(&written(&complete, &[1, 1])).is_ok());
    let refused = |litlen: &[u8], distance: &[u8]| {
        assert_eq!(
            read(&written(litlen, distance)).err(),
            Some(CodecError::Invalid("deflate"))
        );
    };
    let mut no_end = complete;
    no_end[END_OF_BLOCK] = 0;
    no_end[98] = 1;
    refused(&no_end, &[1, 1]);
    let mut incomplete = complete;
    incomplete[97] = 2;
    refused(&incomplete, &[1, 1]);
    let mut oversubscribed = complete;
    oversubscribed[98] = 1;
    refused(&oversubscribed, &[1, 1]);
    refused(&complete, &[1, 1, 1]);
    refused(&complete, &[2, 2]);
    refused(&complete, &[0, 2]);
    // zlib takes a block that has nothing but its end; others do not.
    let mut only_end = [0u8; 257];
    only_end[END_OF_BLOCK] = 1;
    refused(&only_end, &[0]);
    let bytes = written(&only_end, &[0]);
    assert!(DynamicHeader::read(&mut BitReader::new(&bytes, 3), Dialect::Zlib).is_ok());
    only_end[END_OF_BLOCK] = 2;
    let bytes = written(&only_end, &[0]);
    let result = DynamicHeader::read(&mut BitReader::new(&bytes, 3), Dialect::Zlib);
    assert_eq!(result.err(), Some(CodecError::Invalid("deflate")));
    for cut in 0..written(&complete, &[1, 1]).len() - 1 {
        assert!(read(&written(&complete, &[1, 1])[..cut]).is_err());
    }
}
