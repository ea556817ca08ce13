//! Streams as other tools compress them, and ones that are the same whatever library writes them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A gzip member of the bytes, at a level from 0 to 9.
pub fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    gzip_of(level, |out| out.write_all(bytes).unwrap())
}

/// The same of what is written, which is never held.
pub fn gzip_of(level: u32, write: impl FnOnce(&mut dyn Write)) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    write(&mut encoder);
    encoder.finish().unwrap()
}

/// A gzip member (RFC 1952) of stored blocks: of the same lengths for the same length.
pub fn stored_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for block in bytes.chunks(40_000) {
        let length = block.len() as u16;
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend([1, 0, 0, 0xff, 0xff]);
    out.extend(crc32fast::hash(bytes).to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

/// A zstd frame of raw blocks (RFC 8878, section 3.1.1).
pub fn stored_zstd(bytes: &[u8]) -> Vec<u8> {
    // A single segment, with its size in four bytes.
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    out.extend((bytes.len() as u32).to_le_bytes());
    let mut blocks = bytes.chunks(100_000).peekable();
    while let Some(block) = blocks.next() {
        let header = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        out.extend(&header.to_le_bytes()[..3]);
        out.extend(block);
    }
    out
}
