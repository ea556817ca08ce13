//! SHA-256 of two streams that grow together.
//!
//! The SHA instructions wait for their own results half of the time, so one core hashes two
//! independent streams in not much more time than one. Packing has two: a file, and the blob that it
//! becomes. Libraries hash one message at a time. Only what both streams have in common is done
//! here, and only where the processor has the instructions; the rest is `sha2`'s compression
//! function.
//!
//! Source: FIPS 180-4; Intel, "Intel SHA Extensions" (the order of words in the registers).

use sha2::block_api::compress256;

use super::value::{Algorithm, Digest};

const BLOCK: usize = 64;

/// The initial hash value (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The SHA-256 of one stream.
#[derive(Clone)]
pub(crate) struct Sha256 {
    state: [u32; 8],
    /// The bytes that fill no block yet: `length % 64` of them.
    pending: [u8; BLOCK],
    /// Bytes seen.
    length: u64,
}

impl Sha256 {
    /// Of a stream that has no bytes yet.
    pub(crate) fn new() -> Sha256 {
        Sha256 {
            state: INITIAL,
            pending: [0; BLOCK],
            length: 0,
        }
    }

    /// Adds `data` to the stream.
    pub(crate) fn update(&mut self, data: &[u8]) {
        let blocks = self.whole_blocks(data);
        compress256(&mut self.state, blocks);
    }

    /// Adds `data` to the stream, and `other_data` to `other`.
    pub(crate) fn update_both(&mut self, data: &[u8], other: &mut Sha256, other_data: &[u8]) {
        let (a, b) = (self.whole_blocks(data), other.whole_blocks(other_data));
        let both = a.len().min(b.len());
        let ((a, a_rest), (b, b_rest)) = (a.split_at(both), b.split_at(both));
        compress_both(&mut self.state, a, &mut other.state, b);
        compress256(&mut self.state, a_rest);
        compress256(&mut other.state, b_rest);
    }

    /// The digest of everything seen.
    pub(crate) fn finish(mut self) -> Digest {
        let bits = self.length.wrapping_mul(8);
        let filled = self.filled();
        // A one bit, zeros, and the length in bits: FIPS 180-4, 5.1.1.
        let padding = 1 + (2 * BLOCK - filled - 9) % BLOCK;
        let mut end = [0; 2 * BLOCK];
        end[0] = 0x80;
        end[padding..padding + 8].copy_from_slice(&bits.to_be_bytes());
        self.update(&end[..padding + 8]);
        let mut bytes = [0; 64];
        for (to, word) in bytes.chunks_exact_mut(4).zip(self.state) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        Digest {
            algorithm: Algorithm::Sha256,
            bytes,
        }
    }

    fn filled(&self) -> usize {
        (self.length % BLOCK as u64) as usize
    }

    /// Takes note of `data`: digests the block that it completes, puts aside what fills none, and
    /// returns the blocks between.
    fn whole_blocks<'a>(&mut self, data: &'a [u8]) -> &'a [[u8; BLOCK]] {
        let filled = self.filled();
        let (first, data) = match filled {
            0 => (&[][..], data),
            _ => data.split_at(data.len().min(BLOCK - filled)),
        };
        self.pending[filled..filled + first.len()].copy_from_slice(first);
        if filled > 0 && filled + first.len() == BLOCK {
            compress256(&mut self.state, &[self.pending]);
        }
        self.length += (first.len() + data.len()) as u64;
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        if !rest.is_empty() {
            self.pending[..rest.len()].copy_from_slice(rest);
        }
        blocks
    }
}

/// Compresses as many blocks of one stream as of the other.
fn compress_both(
    a: &mut [u32; 8],
    a_blocks: &[[u8; BLOCK]],
    b: &mut [u32; 8],
    b_blocks: &[[u8; BLOCK]],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sha")
        && std::arch::is_x86_feature_detected!("ssse3")
        && std::arch::is_x86_feature_detected!("sse4.1")
    {
        // SAFETY: the processor has the instructions.
        #[allow(unsafe_code)]
        return unsafe { x86::compress_both(a, a_blocks, b, b_blocks) };
    }
    compress256(a, a_blocks);
    compress256(b, b_blocks);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use crate::digest::twin::BLOCK;

    /// The round constants (FIPS 180-4, 4.2.2).
    const K: [u32; 64] = [
        0x428a_2f98,
        0x7137_4491,
        0xb5c0_fbcf,
        0xe9b5_dba5,
        0x3956_c25b,
        0x59f1_11f1,
        0x923f_82a4,
        0xab1c_5ed5,
        0xd807_aa98,
        0x1283_5b01,
        0x2431_85be,
        0x550c_7dc3,
        0x72be_5d74,
        0x80de_b1fe,
        0x9bdc_06a7,
        0xc19b_f174,
        0xe49b_69c1,
        0xefbe_4786,
        0x0fc1_9dc6,
        0x240c_a1cc,
        0x2de9_2c6f,
        0x4a74_84aa,
        0x5cb0_a9dc,
        0x76f9_88da,
        0x983e_5152,
        0xa831_c66d,
        0xb003_27c8,
        0xbf59_7fc7,
        0xc6e0_0bf3,
        0xd5a7_9147,
        0x06ca_6351,
        0x1429_2967,
        0x27b7_0a85,
        0x2e1b_2138,
        0x4d2c_6dfc,
        0x5338_0d13,
        0x650a_7354,
        0x766a_0abb,
        0x81c2_c92e,
        0x9272_2c85,
        0xa2bf_e8a1,
        0xa81a_664b,
        0xc24b_8b70,
        0xc76c_51a3,
        0xd192_e819,
        0xd699_0624,
        0xf40e_3585,
        0x106a_a070,
        0x19a4_c116,
        0x1e37_6c08,
        0x2748_774c,
        0x34b0_bcb5,
        0x391c_0cb3,
        0x4ed8_aa4a,
        0x5b9c_ca4f,
        0x682e_6ff3,
        0x748f_82ee,
        0x78a5_636f,
        0x84c8_7814,
        0x8cc7_0208,
        0x90be_fffa,
        0xa450_6ceb,
        0xbef9_a3f7,
        0xc671_78f2,
    ];

    /// One stream: the state as the instructions want it (A, B, E, F and C, D, G, H), and the last
    /// 16 words of the message schedule.
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
        words: [__m128i; 4],
    }

    impl Lane {
        #[inline]
        #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
        fn load(state: &[u32; 8]) -> Lane {
            let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
            Lane {
                abef: _mm_set_epi32(a, b, e, f),
                cdgh: _mm_set_epi32(c, d, g, h),
                words: [_mm_setzero_si128(); 4],
            }
        }

        #[inline]
        #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
        fn store(&self, state: &mut [u32; 8]) {
            let [f, e, b, a] = words(self.abef);
            let [h, g, d, c] = words(self.cdgh);
            *state = [a, b, c, d, e, f, g, h];
        }

        #[inline]
        #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
        fn read(&mut self, block: &[u8; BLOCK]) {
            // Words are big-endian.
            let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
            let (quarters, _) = block.as_chunks::<16>();
            for (words, quarter) in self.words.iter_mut().zip(quarters) {
                let (halves, _) = quarter.as_chunks::<8>();
                let [low, high] = [halves[0], halves[1]].map(i64::from_le_bytes);
                *words = _mm_shuffle_epi8(_mm_set_epi64x(high, low), order);
            }
        }

        /// Rounds `4 * step` to `4 * step + 3`.
        #[inline]
        #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
        fn four_rounds(&mut self, step: usize, k: __m128i) {
            let words = _mm_add_epi32(self.words[step % 4], k);
            self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, words);
            let words = _mm_shuffle_epi32::<0x0e>(words);
            self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, words);
        }

        /// Replaces words `4 * step` to `4 * step + 3` of the schedule with those 16 further on.
        #[inline]
        #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
        fn schedule(&mut self, step: usize) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|n| self.words[(step + n) % 4]);
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8::<4>(d, c));
            self.words[step % 4] = _mm_sha256msg2_epu32(sum, d);
        }
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn words(register: __m128i) -> [u32; 4] {
        [
            _mm_extract_epi32::<0>(register),
            _mm_extract_epi32::<1>(register),
            _mm_extract_epi32::<2>(register),
            _mm_extract_epi32::<3>(register),
        ]
        .map(i32::cast_unsigned)
    }

    /// Compresses the blocks of two streams in turns. Blocks beyond the shorter list are left out.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress_both(
        a: &mut [u32; 8],
        a_blocks: &[[u8; BLOCK]],
        b: &mut [u32; 8],
        b_blocks: &[[u8; BLOCK]],
    ) {
        let (mut x, mut y) = (Lane::load(a), Lane::load(b));
        for (i, j) in a_blocks.iter().zip(b_blocks) {
            let before = [x.abef, x.cdgh, y.abef, y.cdgh];
            x.read(i);
            y.read(j);
            for step in 0..16 {
                let [k0, k1, k2, k3] = [0, 1, 2, 3].map(|n| K[4 * step + n].cast_signed());
                let k = _mm_set_epi32(k3, k2, k1, k0);
                x.four_rounds(step, k);
                y.four_rounds(step, k);
                if step < 12 {
                    x.schedule(step);
                    y.schedule(step);
                }
            }
            x.abef = _mm_add_epi32(x.abef, before[0]);
            x.cdgh = _mm_add_epi32(x.cdgh, before[1]);
            y.abef = _mm_add_epi32(y.abef, before[2]);
            y.cdgh = _mm_add_epi32(y.cdgh, before[3]);
        }
        x.store(a);
        y.store(b);
    }
}

#[cfg(test)]
mod tests {
    use modeloci_test_support::noise;

    use super::*;

    #[test]
    fn is_the_library_s_sha256_for_every_length() {
        let data = noise(1, 300);
        for len in 0..=data.len() {
            let mut hasher = Sha256::new();
            hasher.update(&data[..len]);
            assert_eq!(hasher.finish(), Digest::sha256(&data[..len]), "{len}");
        }
    }

    #[test]
    fn two_streams_do_not_disturb_each_other_however_they_are_cut() {
        let (a, b) = (noise(2, 5_000), noise(3, 4_000));
        for (a_piece, b_piece) in [
            (1, 1),
            (64, 64),
            (63, 65),
            (1000, 7),
            (5_000, 4_000),
            (640, 1),
        ] {
            let (mut x, mut y) = (Sha256::new(), Sha256::new());
            let (mut i, mut j) = (&a[..], &b[..]);
            while !i.is_empty() || !j.is_empty() {
                let (now, i_later) = i.split_at(i.len().min(a_piece));
                let (other, j_later) = j.split_at(j.len().min(b_piece));
                x.update_both(now, &mut y, other);
                (i, j) = (i_later, j_later);
            }
            assert_eq!(x.finish(), Digest::sha256(&a), "{a_piece} {b_piece}");
            assert_eq!(y.finish(), Digest::sha256(&b), "{a_piece} {b_piece}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn this_machine_tests_the_interleaved_rounds_where_it_can() {
        // Both variants against each other; the other tests take whichever is chosen.
        let (a, b) = (noise(4, 64 * 40), noise(5, 64 * 40));
        let ((a_blocks, _), (b_blocks, _)) = (a.as_chunks(), b.as_chunks());
        let mut expected = [INITIAL; 2];
        compress256(&mut expected[0], a_blocks);
        compress256(&mut expected[1], b_blocks);
        let [mut x, mut y] = [INITIAL; 2];
        compress_both(&mut x, a_blocks, &mut y, b_blocks);
        assert_eq!([x, y], expected);
    }
}
