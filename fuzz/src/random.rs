/// Random numbers, the same on every run: SplitMix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of one iteration of a run.
    pub fn new(seed: u64, iteration: u64) -> Random {
        let mut random = Random(seed);
        Random(random.next() ^ iteration.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % (end as u64).max(1)) as usize
    }

    /// A number of fewer than `bits` bits, each number of bits as likely as another.
    pub fn length(&mut self, bits: usize) -> usize {
        let bits = self.below(bits);
        self.below(1 << bits)
    }
}
