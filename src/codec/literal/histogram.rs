//! How often each byte occurs: of a large input, in a sample.

/// How often each byte occurs.
pub(super) type Histogram = [u32; 256];

/// Bytes that are counted at least, where there are as many.
const SAMPLE_BYTES: usize = 64 << 10;
/// At most this many times as many bytes as were counted have the code that is best for those.
const MOST_PER_COUNTED: usize = 8;
/// Bytes of a line: what the processor fetches at once.
const LINE_BYTES: usize = 64;

/// How often each byte occurs in `input`, or in a sample of it; and how many bytes were counted.
///
/// The code that is best for 64 KiB of weights is as good for their chunk as its own, to a few bytes
/// in ten thousand. But where a sample misses some byte value it does not say which others it
/// missed, and all of them would need a code: then everything is counted.
pub(super) fn of(input: &[u8]) -> (Histogram, usize) {
    let per_counted = (input.len() / SAMPLE_BYTES).clamp(1, MOST_PER_COUNTED);
    if per_counted > 1 {
        let lines = sample(input, per_counted);
        let counts = count(lines.clone());
        if !counts.contains(&0) {
            return (counts, lines.count() * LINE_BYTES);
        }
    }
    (of_all(input), input.len())
}

/// How often each byte occurs in `input`.
pub(super) fn of_all(input: &[u8]) -> Histogram {
    let (lines, rest) = input.as_chunks();
    let mut counts = count(lines.iter());
    for byte in rest {
        counts[usize::from(*byte)] += 1;
    }
    counts
}

/// One line of every `per_counted`, at places that follow no pattern which data could have; the same
/// ones in every input of a length.
fn sample(input: &[u8], per_counted: usize) -> impl Iterator<Item = &[u8; LINE_BYTES]> + Clone {
    let (lines, _) = input.as_chunks::<LINE_BYTES>();
    let mut state = 1u32;
    lines.chunks_exact(per_counted).map(move |group| {
        // Knuth, The Art of Computer Programming, volume 2, 3.3.4: a linear congruential generator.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        &group[((state >> 16) as usize * per_counted) >> 16]
    })
}

/// Counts the bytes of all lines.
fn count<'a>(mut lines: impl Iterator<Item = &'a [u8; LINE_BYTES]>) -> Histogram {
    /// Lines that are fetched together: one after the other, each would be waited for.
    const TOGETHER: usize = 32;
    // Four tables, since runs of one byte would else wait for each other.
    let mut tables = [[0u32; 256]; 4];
    let mut batch = [[0; LINE_BYTES]; TOGETHER];
    loop {
        let mut fetched = 0;
        for (to, line) in batch.iter_mut().zip(&mut lines) {
            *to = *line;
            fetched += 1;
        }
        for line in &batch[..fetched] {
            let (words, _) = line.as_chunks::<4>();
            for word in words {
                for (table, byte) in tables.iter_mut().zip(word) {
                    table[usize::from(*byte)] += 1;
                }
            }
        }
        if fetched < TOGETHER {
            break;
        }
    }
    let [a, b, c, d] = tables;
    std::array::from_fn(|i| a[i] + b[i] + c[i] + d[i])
}
