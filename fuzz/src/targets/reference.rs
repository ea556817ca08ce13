//! What other people's readers make of a layer: flate2 with zlib-rs, zstd, tar.

use std::io::Read;

/// Bytes of a layer that are decoded at most.
const MOST: u64 = 24 << 20;

/// A decompressed layer.
pub(super) struct Stream {
    /// As far as it was decoded.
    pub(super) bytes: Vec<u8>,
    /// True when that is all of it, without an error.
    pub(super) whole: bool,
}

/// The file of a layer.
pub(super) struct Found {
    /// As far as it was decoded.
    pub(super) bytes: Vec<u8>,
    pub(super) size: u64,
    /// Unless the crate cannot read it.
    pub(super) mode: Option<u32>,
    /// Unless a pax header states another.
    pub(super) mtime: Option<u64>,
    /// True when the layer is sound and holds nothing but this file and directories.
    pub(super) alone: bool,
}

/// Decompresses a layer by its first bytes.
pub(super) fn decompress(blob: &[u8]) -> Stream {
    match blob {
        [0x1f, 0x8b, ..] => stream(flate2::bufread::MultiGzDecoder::new(blob)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => match zstd::stream::read::Decoder::new(blob) {
            Ok(mut decoder) => {
                let _ = decoder.window_log_max(27);
                stream(decoder)
            }
            Err(_) => stream(blob),
        },
        _ => stream(blob),
    }
}

/// Decompresses the first gzip member alone.
pub(super) fn first_member(blob: &[u8]) -> Stream {
    stream(flate2::bufread::GzDecoder::new(blob))
}

/// Reads in small pieces, so that what precedes an error is there.
pub(super) fn stream(source: impl Read) -> Stream {
    let (mut source, mut bytes, mut piece) = (source.take(MOST), Vec::new(), [0; 4096]);
    loop {
        match source.read(&mut piece) {
            Ok(0) => {
                let whole = source.limit() > 0;
                return Stream { bytes, whole };
            }
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(_) => {
                return Stream {
                    bytes,
                    whole: false,
                };
            }
        }
    }
}

impl Stream {
    /// True for what our rules take for a tar.
    pub(super) fn is_tar(&self) -> bool {
        self.bytes.get(257..262) == Some(b"ustar")
    }

    /// The first file of the tar.
    pub(super) fn file(&self) -> Option<Found> {
        let mut archive = tar::Archive::new(&self.bytes[..]);
        let mut file: Option<Found> = None;
        let mut alone = self.whole;
        for entry in archive.entries().ok()? {
            // What the crate refuses (an empty number, say) it does not take differently.
            let Ok(mut entry) = entry else { break };
            let kind = entry.header().entry_type();
            let directory = kind.is_dir() || (kind.is_file() && entry.path_bytes().ends_with(b"/"));
            if directory || kind == tar::EntryType::XGlobalHeader {
                continue;
            }
            if file.is_some() || !(kind.is_file() || kind.is_contiguous()) {
                alone = false;
                break;
            }
            let start = usize::try_from(entry.raw_file_position()).ok()?;
            let size = entry.size();
            let end = usize::try_from(size).map_or(usize::MAX, |size| start.saturating_add(size));
            let end = end.min(self.bytes.len());
            let stated = entry.pax_extensions().ok().flatten();
            let stated = stated
                .is_some_and(|mut all| all.any(|e| e.is_ok_and(|e| e.key_bytes() == b"mtime")));
            let mtime = entry.header().mtime().ok();
            file = Some(Found {
                bytes: self.bytes.get(start..end).unwrap_or_default().to_vec(),
                size,
                mode: entry.header().mode().ok(),
                mtime: mtime.filter(|_| !stated),
                alone: false,
            });
        }
        file.map(|file| Found {
            alone: alone && file.bytes.len() as u64 == file.size,
            ..file
        })
    }
}
