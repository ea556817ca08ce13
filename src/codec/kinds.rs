//! How a chunk can be stored, and what may be asked for.

use crate::error::{Error, Result};

/// Number of sub-streams of a literal-only segment.
pub const SUB_STREAMS: usize = 6;

/// Offsets of sub-streams 1 to 5 within a literal-only segment (sub-stream 0 starts at 0); all
/// zero for every other kind. In compressed bytes.
pub type SubOffsets = [u32; SUB_STREAMS - 1];

/// How a chunk's bytes are stored. The numbers are those of the chunk table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Deflate stored blocks.
    Stored = 0,
    /// Six literal-only dynamic deflate blocks with one code (`docs/layer-format.md`).
    Literal = 1,
    /// Any deflate blocks.
    Deflate = 2,
    /// One zstd frame.
    Zstd = 3,
    /// The bytes themselves, in a plain tar or a raw layer. Only read.
    Plain = 4,
}

impl ChunkKind {
    /// The kind that a chunk table's number names.
    pub fn from_u8(n: u8) -> Option<ChunkKind> {
        [
            Self::Stored,
            Self::Literal,
            Self::Deflate,
            Self::Zstd,
            Self::Plain,
        ]
        .get(n as usize)
        .copied()
    }
}

/// What `--compression` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Per chunk: stored, literal-only or generic deflate, whichever `docs/compression.md` found best (`auto`).
    #[default]
    Auto,
    /// Generic deflate at a level from 1 to 9.
    Gzip(u8),
    /// zstd at a level from 1 to 19.
    Zstd(u8),
    /// No compression: all is stored, in gzip like the others, so that the chunk table is in the layer.
    None,
}

impl std::str::FromStr for Compression {
    type Err = Error;

    /// Parses `auto`, `gzip`, `gzip:1` to `gzip:9`, `zstd`, `zstd:1` to `zstd:19`, `none`.
    fn from_str(s: &str) -> Result<Compression> {
        let (name, level) = match s.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (s, None),
        };
        let number = |default: u8, max: u8| match level {
            None => Some(default),
            Some(text) => (1..=max).find(|n| n.to_string() == text),
        };
        let bad_level = |max: u8| {
            let text = level.unwrap_or_default();
            Error::usage(format!(
                "compression level \"{text}\" is not a number from 1 to {max}"
            ))
        };
        match (name, level) {
            ("auto", None) => Ok(Compression::Auto),
            ("none", None) => Ok(Compression::None),
            ("gzip", _) => match number(6, 9) {
                Some(level) => Ok(Compression::Gzip(level)),
                None => Err(bad_level(9)),
            },
            ("zstd", _) => match number(3, 19) {
                Some(level) => Ok(Compression::Zstd(level)),
                None => Err(bad_level(19)),
            },
            _ => Err(Error::usage(format!(
                "unknown compression \"{s}\"; use auto, gzip[:1-9], zstd[:1-19] or none"
            ))),
        }
    }
}

/// One encoded segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// How it is stored.
    pub kind: ChunkKind,
    /// Where its sub-streams start.
    pub sub_offsets: SubOffsets,
}
