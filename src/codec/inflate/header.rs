//! How a block begins (RFC 1951, section 3.2.3).

use super::state::INVALID;
use super::tables::Tables;
use crate::codec::CodecError;
use crate::codec::bits::BitReader;
use crate::codec::huffman::{Dialect, DynamicHeader};

/// What stands in front of a block.
pub(super) struct BlockHeader {
    /// True when it is marked as the last.
    pub(super) last: bool,
    pub(super) body: Body,
}

/// What follows the header of a block.
pub(super) enum Body {
    /// So many bytes as they are, from a byte boundary on.
    Stored(u16),
    /// Symbols, in the codes that the tables now have.
    Symbols,
}

impl BlockHeader {
    /// Reads a header, and fills `tables` with the codes that it brings.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] and [`CodecError::Truncated`]; also the former where the input ends, since
    /// the zeros that are read beyond can look like anything.
    pub(super) fn read(
        bits: &mut BitReader<'_>,
        dialect: Dialect,
        tables: &mut Tables,
    ) -> Result<BlockHeader, CodecError> {
        let last = bits.take(1) == 1;
        let kind = bits.take(2);
        bits.check()?;
        let body = match kind {
            0b00 => {
                bits.align();
                let (length, complement) = (bits.take(16) as u16, bits.take(16) as u16);
                bits.check()?;
                if length != !complement {
                    return Err(INVALID);
                }
                Body::Stored(length)
            }
            0b01 => {
                tables.set_fixed();
                Body::Symbols
            }
            0b10 => {
                let header = DynamicHeader::read(bits, dialect)?;
                tables.set(&header.litlen, &header.distance);
                Body::Symbols
            }
            _ => return Err(INVALID),
        };
        Ok(BlockHeader { last, body })
    }
}
