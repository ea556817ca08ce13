//! Encoding of one segment: the rule that chooses a kind, and the encoders behind it.
//!
//! The rule sees nothing but the chunk's bytes, so that the same file gives the same layer on every
//! machine and with any number of threads. Its thresholds, and what they give on real kinds of
//! data, stand in `docs/compression.md`.

use super::cpu::Cpu;
use super::deflate::{DeflateEncoder, Probe};
use super::literal::{self, LiteralPlan};
use super::{ChunkKind, Compression, Encoded, SubOffsets, stored, zstandard};
use crate::limits;

/// Level of generic segments where nobody asked for one: 1 % larger than at level 6, and encoded
/// 1.7 times as fast.
const DEFAULT_LEVEL: u8 = 5;
/// Level of the probe for `auto`.
const AUTO_PROBE_LEVEL: u8 = 1;
/// `auto` stores a chunk unless it shrinks below this many hundredths: reading a stored chunk costs
/// no more than its digest, decoding costs several times as much, and some percent of a disk's time
/// do not pay for it.
const STORE_PERCENT: u64 = 90;
/// LZ77 must beat literal-only coding of the sample by this many thousandths for `auto` to use it:
/// it decodes at a third of the speed.
const AUTO_GAIN_PERMILLE: usize = 30;
/// The same where a deflate level was asked for: less than what a user could notice in the size.
const GZIP_GAIN_PERMILLE: usize = 5;
/// The sample has one piece for so many bytes of the chunk, from two to four of them, spread evenly.
const SAMPLE_EVERY_BYTES: usize = 256 << 10;
/// Bytes of a piece.
const SAMPLE_PIECE_BYTES: usize = 4 << 10;

/// How a chunk's kind is chosen among the deflate kinds.
struct Rule {
    /// Level of generic segments.
    level: u8,
    /// A chunk is stored unless another kind makes it smaller than this many bytes.
    store_from: usize,
    /// Level at which the sample is compressed.
    probe_level: u8,
    /// By how many thousandths LZ77 must make the sample smaller than literal-only coding does.
    gain_permille: usize,
}

/// Encodes segments; keeps the state that is expensive to build. One per worker thread.
pub struct Encoder {
    compression: Compression,
    cpu: Cpu,
    deflate: Option<DeflateEncoder>,
    probe: Option<Probe>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compression {
    /// Memory that an [`Encoder`] keeps for chunks of at most `chunk` bytes, in bytes.
    pub(crate) fn encoder_bytes(self, chunk: u64) -> u64 {
        const TABLES: u64 = 1 << 20;
        match self {
            Compression::None => 0,
            // What was compressed is decoded again.
            Compression::Auto | Compression::Gzip(_) => TABLES + chunk,
            // The tables of zstd grow with the level, but not beyond what the size of its input asks for.
            Compression::Zstd(0..=6) => 4 * TABLES + chunk,
            Compression::Zstd(_) => 4 * TABLES + 16 * chunk,
        }
    }
}

impl Encoder {
    /// An encoder for what the user asked for. The choice depends on each chunk's bytes alone.
    pub fn new(compression: Compression) -> Encoder {
        Encoder {
            compression,
            cpu: Cpu::detect(),
            deflate: None,
            probe: None,
            zstd: None,
        }
    }

    /// Appends the segment that holds `input` to `out`. An empty input appends nothing decodable
    /// beyond an empty segment (zero bytes for deflate kinds, an empty frame for zstd).
    ///
    /// A deflate segment is never larger than its stored form.
    pub fn encode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Encoded {
        let rule = match self.compression {
            Compression::Auto => Rule {
                level: DEFAULT_LEVEL,
                store_from: (input.len() as u64 * STORE_PERCENT / 100) as usize,
                probe_level: AUTO_PROBE_LEVEL,
                gain_permille: AUTO_GAIN_PERMILLE,
            },
            Compression::Gzip(level) => Rule {
                level,
                store_from: stored::size(input.len()),
                probe_level: level,
                gain_permille: GZIP_GAIN_PERMILLE,
            },
            Compression::Zstd(_) | Compression::None => return self.encode_generic(input, out),
        };
        self.adaptive(input, &rule, out)
    }

    /// Appends a generic segment (any deflate blocks, or one zstd frame): for tar headers and the end
    /// of the archive.
    pub fn encode_generic(&mut self, input: &[u8], out: &mut Vec<u8>) -> Encoded {
        match self.compression {
            Compression::Auto => self.generic(input, DEFAULT_LEVEL, out),
            Compression::Gzip(level) => self.generic(input, level, out),
            Compression::Zstd(level) => {
                zstandard::encode(&mut self.zstd, level, input, out);
                whole(ChunkKind::Zstd)
            }
            Compression::None => {
                stored::encode(input, out);
                whole(ChunkKind::Stored)
            }
        }
    }

    /// Appends the smaller of a generic deflate segment and a stored one.
    fn generic(&mut self, input: &[u8], level: u8, out: &mut Vec<u8>) -> Encoded {
        let encoder = self
            .deflate
            .get_or_insert_with(|| DeflateEncoder::new(level));
        if encoder.encode(input, stored::size(input.len()), out) {
            return whole(ChunkKind::Deflate);
        }
        stored::encode(input, out);
        whole(ChunkKind::Stored)
    }

    /// Appends the best deflate segment by `rule`.
    fn adaptive(&mut self, input: &[u8], rule: &Rule, out: &mut Vec<u8>) -> Encoded {
        let plan = (literal::MIN_INPUT..=limits::MAX_CHUNK_BYTES as usize)
            .contains(&input.len())
            .then(|| LiteralPlan::new(input));
        self.by_plan(input, rule, plan, out)
    }

    fn by_plan(
        &mut self,
        input: &[u8],
        rule: &Rule,
        plan: Option<LiteralPlan>,
        out: &mut Vec<u8>,
    ) -> Encoded {
        let literal_size = plan.as_ref().map_or(usize::MAX, LiteralPlan::expected_size);
        if plan.is_none() || self.matches_gain(input, rule) {
            let encoder = self
                .deflate
                .get_or_insert_with(|| DeflateEncoder::new(rule.level));
            if encoder.encode(input, rule.store_from.min(literal_size), out) {
                return whole(ChunkKind::Deflate);
            }
        }
        if let Some(plan) = plan
            && literal_size < rule.store_from
        {
            let (start, sampled) = (out.len(), plan.is_sampled());
            let sub_offsets = plan.encode(self.cpu, input, out);
            if out.len() - start < rule.store_from {
                return Encoded {
                    kind: ChunkKind::Literal,
                    sub_offsets,
                };
            }
            out.truncate(start);
            if sampled {
                // The sample was not like the rest.
                return self.by_plan(input, rule, Some(LiteralPlan::exact(input)), out);
            }
        }
        stored::encode(input, out);
        whole(ChunkKind::Stored)
    }

    /// True when LZ77 makes a sample of `input` smaller than literal-only coding does, by as much
    /// as `rule` asks.
    fn matches_gain(&mut self, input: &[u8], rule: &Rule) -> bool {
        let pieces = (input.len() / SAMPLE_EVERY_BYTES).clamp(2, 4);
        let mut sample = Vec::with_capacity(pieces * SAMPLE_PIECE_BYTES);
        let last = input.len().saturating_sub(SAMPLE_PIECE_BYTES);
        for i in 0..pieces {
            let at = last / (pieces - 1) * i;
            sample.extend(input.iter().skip(at).take(SAMPLE_PIECE_BYTES));
        }
        let literal = LiteralPlan::new(&sample).single_block_bits().div_ceil(8);
        let matches = self
            .probe
            .get_or_insert_with(|| Probe::new(rule.probe_level))
            .size(&sample);
        matches * 1000 <= literal * (1000 - rule.gain_permille)
    }
}

fn whole(kind: ChunkKind) -> Encoded {
    Encoded {
        kind,
        sub_offsets: SubOffsets::default(),
    }
}
