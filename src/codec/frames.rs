//! Decodes anyone's zstd (RFC 8878): any number of frames, skippable ones included.
//!
//! Guarantees: content checksums are checked where frames have them; a window over
//! [`limits::MAX_ZSTD_WINDOW_LOG`](crate::limits::MAX_ZSTD_WINDOW_LOG) is refused. Refuses: bytes
//! behind a frame that are no further frame, a frame cut short, and more than
//! [`limits::MAX_EMPTY_MEMBERS`](crate::limits::MAX_EMPTY_MEMBERS) frames in a row without content.

use std::io::{self, Read};

use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::CodecError;
use super::seek::Record;
use crate::limits;

/// Input that is asked for at once.
const INPUT: usize = 128 << 10;

/// A zstd stream, decoded as it is read. Its errors carry a [`CodecError`] with
/// [`io::ErrorKind::InvalidData`], or are those of its input.
pub(crate) struct Frames<'r, R> {
    source: R,
    decoder: DCtx<'static>,
    /// Is asked for the memory that the decoder has, whenever it is more than before.
    memory: Box<dyn FnMut(u64) -> io::Result<()> + 'r>,
    /// What it was told last.
    told: usize,
    bytes: Vec<u8>,
    used: usize,
    filled: usize,
    /// Offset in the input of what is not in memory yet.
    offset: u64,
    /// Offset in the output.
    total: u64,
    between_frames: bool,
    /// Frames in a row that held nothing.
    empty: u32,
    record: Option<&'r mut dyn Record>,
}

impl<'r, R: Read> Frames<'r, R> {
    /// At the start of a frame; tells `record` where frames start, and what they hold. Each time that
    /// the decoder is about to use more memory, `memory` is asked whether it may have so much in all.
    ///
    /// # Errors
    /// When there is no memory for a decoder.
    pub(crate) fn new(
        source: R,
        record: Option<&'r mut dyn Record>,
        memory: Box<dyn FnMut(u64) -> io::Result<()> + 'r>,
    ) -> io::Result<Self> {
        let mut decoder = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        decoder
            .set_parameter(DParameter::WindowLogMax(limits::MAX_ZSTD_WINDOW_LOG))
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Frames {
            source,
            decoder,
            memory,
            told: 0,
            bytes: vec![0; INPUT],
            used: 0,
            filled: 0,
            offset: 0,
            total: 0,
            between_frames: true,
            empty: 0,
            record,
        })
    }

    /// Reads more input when all of it is used; false at its end.
    fn more(&mut self) -> io::Result<bool> {
        while self.used == self.filled {
            match self.source.read(&mut self.bytes) {
                Ok(n) => {
                    (self.used, self.filled) = (0, n);
                    self.offset += n as u64;
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl<R: Read> Read for Frames<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            // A frame may have output left although its input is used up: try before asking.
            let more = self.more()?;
            if !more && self.between_frames {
                return Ok(0);
            }
            if let Some(record) = &mut self.record
                && self.between_frames
                && self.total >= record.next()
            {
                record.frame(self.total, self.offset - (self.filled - self.used) as u64)?;
            }
            let rest = self.bytes.get(self.used..self.filled).unwrap_or_default();
            let mut input = InBuffer::around(rest);
            let mut output = OutBuffer::around(&mut *buf);
            let hint = self
                .decoder
                .decompress_stream(&mut output, &mut input)
                .map_err(|_| invalid(CodecError::Invalid("zstd")))?;
            let (read, written) = (input.pos(), output.pos());
            // The window was allocated when the frame's header was read; no more of it was touched so
            // far than `buf` is long.
            let size = self.decoder.sizeof();
            if size > self.told {
                self.told = size;
                (self.memory)(size as u64)?;
            }
            self.used += read;
            self.total += written as u64;
            self.between_frames = hint == 0;
            if written > 0 {
                self.empty = 0;
                if let Some(record) = &mut self.record {
                    record.output(buf.get(..written).unwrap_or_default())?;
                }
                return Ok(written);
            }
            if !more && !self.between_frames {
                return Err(invalid(CodecError::Truncated));
            }
            // A frame's end that comes without output may be one of a frame that had some.
            self.empty = self.empty.saturating_add(u32::from(self.between_frames));
            if self.empty > limits::MAX_EMPTY_MEMBERS {
                return Err(invalid(CodecError::Endless("zstd")));
            }
        }
    }
}

/// What a decoder takes for its window, as the first bytes of a frame tell; 0 when they are of no frame.
pub(crate) fn window(start: &[u8]) -> u64 {
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, window, ..] = *start else {
        return 0;
    };
    let size = if descriptor & 0x20 != 0 {
        let size = zstd_safe::get_frame_content_size(start);
        size.ok().flatten().unwrap_or(0)
    } else {
        let base = 1u64 << (10 + (window >> 3));
        base + base / 8 * u64::from(window & 7)
    };
    // What is larger is refused.
    size.min(1 << limits::MAX_ZSTD_WINDOW_LOG)
}

fn invalid(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
