//! Where random reads go, and what a set of timings says.

use std::time::Duration;

use serde_json::{Value, json};

/// Random reads touch each cell of a file at most once.
pub(crate) const CELL: u64 = 1 << 20;

/// splitmix64 (Steele, Lea, Flood 2014): the same places for the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// A read to do: number of the file, offset.
pub(crate) type Place = (usize, u64);

/// `count` places of `block` bytes in files of `sizes`, in random order, each in a cell of its own
/// (in a block of its own when blocks are larger); fewer when there are not so many.
pub(crate) fn places(sizes: &[u64], block: u64, count: usize, seed: u64) -> Vec<Place> {
    let cell = CELL.max(block);
    let mut places = Vec::new();
    for (file, size) in sizes.iter().enumerate() {
        for number in 0..size / cell {
            places.push((file, number * cell));
        }
    }
    let mut random = Random::new(seed);
    for i in (1..places.len()).rev() {
        places.swap(i, random.below(i as u64 + 1) as usize);
    }
    places.truncate(count);
    for (_, offset) in &mut places {
        // At 4 KiB boundaries, as page faults are.
        *offset += random.below((cell - block) / 4096 + 1) * 4096;
    }
    places
}

/// What single operations took.
pub(crate) fn report(
    operation: &str,
    bytes: u64,
    wall: Duration,
    mut each: Vec<Duration>,
) -> Value {
    each.sort_unstable();
    let at = |share: f64| {
        let last = each.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        each.get(index).map_or(0.0, Duration::as_secs_f64)
    };
    json!({
        "operation": operation,
        "bytes": bytes,
        "seconds": wall.as_secs_f64(),
        "count": each.len(),
        "p50": at(0.5),
        "p99": at(0.99),
    })
}
