//! Seek points into anyone's gzip: where a decoder can start, and what it needs to know there.
//!
//! A `Checkpoint` is the state of a gzip decoder between two symbols: the 32 KiB that later
//! matches may refer to, and the header of the block around it. Its bytes are what is kept of it:
//!
//! ```text
//! 0  1  kind: 0 before a member, 1 before a block, 2 inside a compressed, 3 inside a stored one
//! 1  1  kind 2: bit of the header's first byte in which it begins; kind 3: 1 in the last block
//! 2  2  kind 2: length of the header; kind 3: bytes left of the block (little-endian)
//! 4  2  length of the window (little-endian), 0x8000 at most
//! 6  1  1 when what follows is compressed with zstd
//! 7     the header, then the window
//! ```

use std::io;

use super::CodecError;
use super::inflate::WINDOW;

const HEADER: usize = 7;
/// Longest header of a deflate block, generously.
const MAX_BLOCK_HEADER: usize = 1024;

/// How a decoder goes on from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resume {
    /// With the header of a gzip member.
    Member,
    /// With the header of a deflate block.
    Block,
    /// With a symbol, in the block whose header stands at `bit` of `header`.
    Symbols {
        /// Bytes of the header, from the one in which it begins.
        header: Vec<u8>,
        /// Bit of the first byte in which it begins.
        bit: u8,
    },
    /// With bytes of a stored block.
    Stored {
        /// Bytes left of it.
        left: u16,
        /// True when it is the last block of its member.
        last: bool,
    },
}

/// The state of a gzip decoder between two symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// How it goes on.
    pub(crate) resume: Resume,
    /// The last bytes of the member so far, at most 32 KiB.
    pub(crate) window: Vec<u8>,
}

impl Checkpoint {
    /// The start of a stream.
    pub(crate) fn start() -> Checkpoint {
        Checkpoint {
            resume: Resume::Member,
            window: Vec::new(),
        }
    }

    /// Its bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (kind, small, number, header): (u8, u8, u16, &[u8]) = match &self.resume {
            Resume::Member => (0, 0, 0, &[]),
            Resume::Block => (1, 0, 0, &[]),
            Resume::Symbols { header, bit } => (2, *bit, header.len() as u16, header),
            Resume::Stored { left, last } => (3, u8::from(*last), *left, &[]),
        };
        let mut bytes = vec![kind, small];
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&(self.window.len() as u16).to_le_bytes());
        let plain = [header, &self.window].concat();
        match zstd::bulk::compress(&plain, 1) {
            // Less than an eighth saved is not worth a decoder.
            Ok(packed) if packed.len() < plain.len() / 8 * 7 => {
                bytes.push(1);
                bytes.extend_from_slice(&packed);
            }
            _ => {
                bytes.push(0);
                bytes.extend_from_slice(&plain);
            }
        }
        bytes
    }

    /// The checkpoint of its bytes.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] when there is none.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, CodecError> {
        const INVALID: CodecError = CodecError::Invalid("seek point");
        let (&[kind, small, n0, n1, w0, w1, packed], rest) =
            bytes.split_first_chunk::<HEADER>().ok_or(INVALID)?;
        let number = u16::from_le_bytes([n0, n1]);
        let window = usize::from(u16::from_le_bytes([w0, w1]));
        let header = match kind {
            2 => usize::from(number),
            _ => 0,
        };
        if window > WINDOW || header > MAX_BLOCK_HEADER {
            return Err(INVALID);
        }
        let plain = match packed {
            0 => rest.to_vec(),
            1 => zstd::bulk::decompress(rest, window + header).map_err(|_| INVALID)?,
            _ => return Err(INVALID),
        };
        if plain.len() != window + header {
            return Err(INVALID);
        }
        let (header, window) = plain.split_at_checked(header).ok_or(INVALID)?;
        let resume = match (kind, small) {
            (0, 0) if number == 0 && window.is_empty() => Resume::Member,
            (1, 0) if number == 0 => Resume::Block,
            (2, bit @ 0..8) => Resume::Symbols {
                header: header.to_vec(),
                bit,
            },
            (3, last @ 0..2) => Resume::Stored {
                left: number,
                last: last == 1,
            },
            _ => return Err(INVALID),
        };
        Ok(Checkpoint {
            resume,
            window: window.to_vec(),
        })
    }
}

/// Takes note of the places where a stream can be entered, while it is decoded once.
pub(crate) trait Record {
    /// Decompressed offset from which on the next seek point is welcome.
    fn next(&self) -> u64;

    /// A gzip stream can be entered at bit `bit` of the input, which is offset `out` of the output.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn checkpoint(&mut self, out: u64, bit: u64, checkpoint: Checkpoint) -> io::Result<()>;

    /// A zstd frame begins at byte `byte` of the input, which is offset `out` of the output.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn frame(&mut self, out: u64, byte: u64) -> io::Result<()>;

    /// A zstd stream yields `bytes`.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn output(&mut self, bytes: &[u8]) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_survive_their_bytes() {
        let noise: Vec<u8> = (0..32_768u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for window in [Vec::new(), b"abc".to_vec(), vec![7; WINDOW], noise] {
            for resume in [
                Resume::Block,
                Resume::Symbols {
                    header: vec![1, 2, 3],
                    bit: 7,
                },
                Resume::Stored {
                    left: 65_535,
                    last: true,
                },
            ] {
                let checkpoint = Checkpoint {
                    resume,
                    window: window.clone(),
                };
                let bytes = checkpoint.to_bytes();
                assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint);
                for cut in 0..bytes.len().min(40) {
                    assert!(Checkpoint::from_bytes(&bytes[..cut]).is_err());
                }
            }
        }
        let start = Checkpoint::start();
        assert_eq!(Checkpoint::from_bytes(&start.to_bytes()).unwrap(), start);
    }
}
