//! How a blob is packed, and the stream that comes out of it.

use std::io::{self, Read};

use crate::codec::frames::Frames;
use crate::codec::gzip::Gunzip;
use crate::codec::seek::Record;
use crate::error::{Error, Result};

/// What has to be done to a blob to get its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Packing {
    /// Nothing: the blob is the stream.
    Plain = 0,
    /// It is compressed with gzip.
    Gzip = 1,
    /// It is compressed with zstd.
    Zstd = 2,
}

impl Packing {
    /// What a blob that begins with these bytes may be packed with.
    pub(crate) fn of(first: &[u8]) -> Packing {
        match first {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            // A frame that is skipped, as parallel compressors put in front (RFC 8878, 3.1.2).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// The stream of a blob. `memory` is asked for what a zstd decoder takes.
///
/// # Errors
/// When the blob does not begin like its packing.
pub(crate) fn unpack<'r, R: Read + 'r>(
    source: R,
    packing: Packing,
    record: Option<&'r mut dyn Record>,
    memory: Box<dyn FnMut(u64) -> io::Result<()> + 'r>,
) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match packing {
        Packing::Plain => Box::new(source),
        Packing::Gzip => Box::new(Gunzip::new(source, record)),
        Packing::Zstd => Box::new(Frames::new(source, record, memory)?),
    })
}

/// What an error of a stream means: one of ours inside, damage, or the system's.
pub(crate) fn lift(error: io::Error, subject: &str) -> Error {
    if let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        return inner.clone();
    }
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::corrupt(subject, format!("cannot be decoded: {error}"))
        }
        _ => Error::failed("decode", subject, error),
    }
}

/// Reads a stream to its end.
///
/// # Errors
/// What its decoder, or its source, meets.
pub(crate) fn read_out(stream: &mut dyn Read, subject: &str) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(lift(error, subject)),
        }
    }
}
