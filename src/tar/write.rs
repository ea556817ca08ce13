//! Writes headers: ustar, with base-256 sizes and a pax path where ustar has no room.

/// The header blocks of a regular file: one block, or three when the path needs a pax record.
/// uid, gid 0, no names; deterministic. `mtime` in seconds since the epoch.
pub fn file_header(path: &str, size: u64, mode: u32, mtime: u64) -> Vec<u8> {
    let _ = (path, size, mode, mtime);
    todo!()
}

/// Zero bytes that pad `size` bytes of data to a whole block.
pub fn padding(size: u64) -> usize {
    (super::BLOCK - 1 - (size + super::BLOCK - 1) % super::BLOCK) as usize
}

/// The end of an archive: two zero blocks.
pub const END_OF_ARCHIVE: [u8; 1024] = [0; 1024];
