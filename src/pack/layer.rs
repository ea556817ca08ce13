//! Composes one layer: its segments in their order, the framing around them, the chunk table behind
//! them, and the descriptor that pins all of it.
//!
//! `docs/layer-format.md` is the specification.

use super::plan::Settings;
use super::tree::InputFile;
use crate::codec::{Compression, Encoded};
use crate::digest::{Digest, Sha256};
use crate::error::{Error, Result};
use crate::layer::table::{DEFLATE_END, Framing, GZIP_HEADER, Header, TableBuilder};
use crate::layer::wrap::wrap;
use crate::limits;
use crate::oci::stated::{FileStatement, StatedTable, TablePlace};
use crate::oci::{Descriptor, media_type};
use crate::tar::write;

/// A compressed piece of a layer, with what the workers found out about it.
pub(super) struct Segment<'a> {
    /// How it is stored.
    pub encoded: Encoded,
    /// The compressed bytes.
    pub bytes: &'a [u8],
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// The CRC-32 of the uncompressed bytes, for gzip.
    pub crc: crc32fast::Hasher,
    /// How many uncompressed bytes there are.
    pub length: u64,
    /// Those of them that are the file's.
    pub content: &'a [u8],
}

/// The tar bytes in front of a file.
pub(super) fn head(file: &InputFile, settings: &Settings) -> Vec<u8> {
    write::file_header(
        file.path.as_str(),
        file.identity.size,
        mode(file),
        settings.mtime,
    )
}

/// The tar bytes behind a file: padding, and the end of the archive.
pub(super) fn tail(file: &InputFile) -> Vec<u8> {
    vec![0; write::padding(file.identity.size) + write::END_OF_ARCHIVE.len()]
}

fn mode(file: &InputFile) -> u32 {
    if file.executable { 0o755 } else { 0o644 }
}

/// Refuses a file whose chunk table no reader would accept.
pub(super) fn check_table_size(file: &InputFile, settings: &Settings) -> Result<()> {
    let chunks = file.identity.size.div_ceil(u64::from(settings.chunk_size));
    // A header, and a row for each chunk, the head and the tail: `layer::table`.
    let bytes = 104 + (chunks + 2) * 72;
    if bytes > limits::MAX_CHUNK_TABLE_BYTES {
        return Err(Error::refused(
            &file.path,
            format!(
                "{} bytes in chunks of {} bytes need a chunk table of {bytes} bytes, the limit is \
                 {}; use a larger --chunk-size",
                file.identity.size,
                settings.chunk_size,
                limits::MAX_CHUNK_TABLE_BYTES
            ),
        ));
    }
    Ok(())
}

/// The end of a layer.
pub(super) struct End {
    /// What follows the last segment.
    pub bytes: Vec<u8>,
    /// The digest of the blob.
    pub digest: Digest,
    /// The layer's descriptor, with all annotations.
    pub descriptor: Descriptor,
}

/// Puts a layer together. It sees all that the blob consists of, and writes nothing.
pub(super) struct LayerComposer<'a> {
    file: &'a InputFile,
    settings: &'a Settings,
    table: TableBuilder,
    /// Of the whole blob.
    blob: Sha256,
    /// Of the file.
    content: Sha256,
    crc: crc32fast::Hasher,
    /// Bytes of the blob.
    offset: u64,
    /// Uncompressed bytes of the segments so far.
    tar_size: u64,
    /// Where the file starts in the tar: the length of the head.
    file_offset: u64,
}

impl<'a> LayerComposer<'a> {
    /// Begins the layer of a file. The second value is what the blob starts with.
    pub(super) fn begin(
        file: &'a InputFile,
        settings: &'a Settings,
    ) -> (LayerComposer<'a>, &'static [u8]) {
        let mut layer = LayerComposer {
            file,
            settings,
            table: TableBuilder::new(),
            blob: Sha256::new(),
            content: Sha256::new(),
            crc: crc32fast::Hasher::new(),
            offset: 0,
            tar_size: 0,
            file_offset: 0,
        };
        let start: &[u8] = match settings.framing {
            Framing::Gzip => &GZIP_HEADER,
            _ => &[],
        };
        layer.data(start, &[]);
        (layer, start)
    }

    /// Adds the next segment: the head first, then the chunks, then the tail. The blob goes on with
    /// its bytes.
    pub(super) fn segment(&mut self, segment: &Segment<'_>) -> Result<()> {
        let length = u32::try_from(segment.bytes.len()).map_err(|_| {
            Error::refused(
                &self.file.path,
                format!("a chunk compressed to {} bytes", segment.bytes.len()),
            )
        })?;
        self.table
            .push(self.offset, length, segment.encoded, &segment.digest);
        self.crc.combine(&segment.crc);
        if self.tar_size == 0 {
            self.file_offset = segment.length;
        }
        self.tar_size += segment.length;
        self.data(segment.bytes, segment.content);
        Ok(())
    }

    /// Ends the layer.
    pub(super) fn finish(mut self) -> End {
        let mut bytes = Vec::new();
        if self.settings.framing == Framing::Gzip {
            bytes.extend(DEFLATE_END);
            bytes.extend(self.crc.clone().finalize().to_le_bytes());
            // RFC 1952: the length modulo 2^32.
            bytes.extend((self.tar_size as u32).to_le_bytes());
            self.data(&bytes, &[]);
        }
        let data_size = self.offset;
        let data_digest = self.blob.clone().finish();
        let table = std::mem::take(&mut self.table).finish(&Header {
            algorithm: self.settings.algorithm,
            framing: self.settings.framing,
            chunk_size: self.settings.chunk_size,
            file_size: self.file.identity.size,
            file_offset: self.file_offset,
            tar_size: self.tar_size,
            data_size,
            data_digest,
        });
        let (members, range_length) = wrap(self.settings.framing, &table, data_size);
        self.blob.update(&members);
        bytes.extend_from_slice(&members);
        let size = data_size + members.len() as u64;
        let digest = self.blob.clone().finish();

        let mut descriptor = Descriptor::new(self.media_type(), digest, size);
        FileStatement {
            path: self.file.path.as_str(),
            digest: self.content.clone().finish(),
            size: self.file.identity.size,
            mode: self.file.executable.then(|| mode(self.file)),
            chunks: StatedTable {
                digest: Digest::sha256(&table),
                place: TablePlace::Members(data_size, range_length),
            },
        }
        .write(&mut descriptor);
        End {
            bytes,
            digest,
            descriptor,
        }
    }

    fn media_type(&self) -> &'static str {
        match self.settings.compression {
            Compression::Auto | Compression::Gzip(_) | Compression::None => {
                media_type::LAYER_TAR_GZIP
            }
            Compression::Zstd(_) => media_type::LAYER_TAR_ZSTD,
        }
    }

    /// Takes note of bytes of the data; `content` is what they hold of the file.
    fn data(&mut self, bytes: &[u8], content: &[u8]) {
        self.blob.update_both(bytes, &mut self.content, content);
        self.offset += bytes.len() as u64;
    }
}
