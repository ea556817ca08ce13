//! Decodes anyone's gzip (RFC 1952): any number of members, from the start or from a seek point.
//!
//! Guarantees: every CRC-32 and length that stands behind a member decoded from its start is
//! checked, and so are header flags and header checksums; memory is bounded whatever the stream
//! says. Refuses: bytes behind a member that are no further member, a missing trailer, reserved
//! flags, headers of more than 1 MiB, more than
//! [`limits::MAX_EMPTY_MEMBERS`] empty members in a row.

use std::io::{self, Read};

use super::CodecError;
use super::inflate::{Inflate, Output, Position, SLOP, Stop, WINDOW};
use super::seek::{Checkpoint, Record, Resume};
use crate::limits;

/// Input that is asked for at once.
const INPUT: usize = 256 << 10;
/// Longest member header.
const MAX_HEADER: usize = 1 << 20;
/// Output that is decoded at once.
const ROOM: usize = 256 << 10;
/// Length of a member's trailer.
const TRAILER: usize = 8;

/// A gzip stream, decoded as it is read. Its errors carry a [`CodecError`] with
/// [`io::ErrorKind::InvalidData`], or are those of its input.
pub(crate) struct Gunzip<'r, R> {
    input: Input<R>,
    at: At,
    inflate: Inflate,
    /// Checksum of the member so far; `None` when it was entered in the middle.
    crc: Option<crc32fast::Hasher>,
    /// Bytes of the member so far, counting a window it was entered with.
    member_bytes: u64,
    /// Members in a row that held nothing.
    empty: u32,
    /// Offset in the output.
    total: u64,
    record: Option<&'r mut dyn Record>,
    /// What was decoded: history, then what was not read yet.
    buffer: Vec<u8>,
    filled: usize,
    read: usize,
}

/// What a member holds before some place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Member {
    /// CRC-32 of it.
    pub(crate) crc: u32,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// Where in the framing the decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a member; true before the first one.
    Header(bool),
    Body,
    Trailer,
    End,
}

impl<'r, R: Read> Gunzip<'r, R> {
    /// At the start of `source`; tells `record` where the stream can be entered.
    pub(crate) fn new(source: R, record: Option<&'r mut dyn Record>) -> Gunzip<'r, R> {
        Gunzip {
            input: Input::new(source),
            at: At::Header(true),
            inflate: Inflate::new(),
            crc: None,
            member_bytes: 0,
            empty: 0,
            total: 0,
            record,
            buffer: Vec::new(),
            filled: 0,
            read: 0,
        }
    }

    /// Decodes the `len` bytes behind a seek point; `source` starts with the byte that holds bit
    /// `bit` of the stream. The result has the window in front.
    ///
    /// # Errors
    /// When the stream does not have as much.
    pub(crate) fn resume(
        source: R,
        bit: u64,
        checkpoint: &Checkpoint,
        len: usize,
    ) -> io::Result<Vec<u8>> {
        let mut gunzip = Gunzip::enter(source, bit, checkpoint, None)?;
        let window = checkpoint.window.len();
        let stop = window + len;
        let mut out = vec![0; stop + SLOP];
        if let Some(front) = out.get_mut(..window) {
            front.copy_from_slice(&checkpoint.window);
        }
        let mut pos = window;
        gunzip.decode(&mut out, &mut pos, stop, true)?;
        if pos < stop {
            return Err(invalid(CodecError::WrongLength { expected: len }));
        }
        out.truncate(stop);
        Ok(out)
    }

    /// A decoder at a seek point; `source` starts with the byte that holds bit `bit` of the stream.
    /// The trailer of the member it stands in is checked when `member` says what came before.
    ///
    /// # Errors
    /// When the seek point makes no sense, or `source` cannot be read.
    pub(crate) fn enter(
        source: R,
        bit: u64,
        checkpoint: &Checkpoint,
        member: Option<Member>,
    ) -> io::Result<Gunzip<'r, R>> {
        let mut gunzip = Gunzip::new(source, None);
        gunzip.input.offset = bit / 8;
        gunzip.input.bit = bit % 8;
        gunzip.input.more()?;
        match &checkpoint.resume {
            Resume::Member => {}
            Resume::Block => gunzip.at = At::Body,
            Resume::Symbols { header, bit } => {
                gunzip.at = At::Body;
                gunzip
                    .inflate
                    .resume_symbols(header, *bit)
                    .map_err(invalid)?;
            }
            Resume::Stored { left, last } => {
                gunzip.at = At::Body;
                gunzip.inflate.resume_stored(*left, *last);
            }
        }
        gunzip.member_bytes = checkpoint.window.len() as u64;
        if let Some(Member { crc, length }) = member {
            gunzip.crc = Some(crc32fast::Hasher::new_with_initial_len(crc, length));
            gunzip.member_bytes = length;
        }
        Ok(gunzip)
    }

    /// Decodes to `out[*pos..]` until `*pos >= stop`, or to the end of the last member. What was
    /// decoded before stands in front of `*pos`, as far back as matches reach; behind `stop` must be
    /// [`SLOP`] bytes of room.
    ///
    /// # Errors
    /// When the stream is damaged or cannot be read.
    pub(crate) fn decode_into(
        &mut self,
        out: &mut [u8],
        pos: &mut usize,
        stop: usize,
    ) -> io::Result<()> {
        self.decode(out, pos, stop, true)
    }

    /// The seek point where the decoder stands, behind `decoded`: its bit, and what was before it
    /// in its member. `None` at the end of the stream.
    ///
    /// # Errors
    /// When what follows between two members is damaged or cannot be read.
    pub(crate) fn mark(&mut self, decoded: &[u8]) -> io::Result<Option<(u64, Checkpoint, Member)>> {
        // Checkpoints describe places inside a member.
        loop {
            let needs_more = match self.at {
                At::Header(first) => self.header(first)?,
                At::Trailer => self.trailer()?,
                At::Body => break,
                At::End => return Ok(None),
            };
            if needs_more {
                self.input.more()?;
            }
        }
        let member = Member {
            crc: self.crc.clone().map_or(0, crc32fast::Hasher::finalize),
            length: self.member_bytes,
        };
        let (bit, checkpoint) = (self.input.position(), self.checkpoint(decoded));
        Ok(Some((bit, checkpoint, member)))
    }

    /// Reads on behind `decoded`, through [`Read`].
    pub(crate) fn read_behind(&mut self, decoded: &[u8]) {
        let from = decoded.len().saturating_sub(WINDOW);
        let window = decoded.get(from..).unwrap_or_default();
        self.buffer = window.to_vec();
        self.buffer.resize(WINDOW + ROOM + SLOP, 0);
        (self.filled, self.read) = (window.len(), window.len());
    }

    fn checkpoint(&self, decoded: &[u8]) -> Checkpoint {
        let from = decoded
            .len()
            .saturating_sub(WINDOW.min(clamp(self.member_bytes)));
        Checkpoint {
            resume: match self.inflate.position() {
                Position::Symbols => {
                    let (header, bit) = self.inflate.header();
                    let header = header.to_vec();
                    Resume::Symbols { header, bit }
                }
                Position::Stored(left) => Resume::Stored {
                    left,
                    last: self.inflate.in_last_block(),
                },
                Position::Boundary | Position::End => Resume::Block,
            },
            window: decoded.get(from..).unwrap_or_default().to_vec(),
        }
    }

    /// Decodes to `out[*pos..]` until `*pos >= stop`, or to the end of the last member. Unless it
    /// is `patient`, asks for no more input once it has decoded anything.
    fn decode(
        &mut self,
        out: &mut [u8],
        pos: &mut usize,
        stop: usize,
        patient: bool,
    ) -> io::Result<()> {
        let start = *pos;
        while *pos < stop {
            let needs_more = match self.at {
                At::Header(first) => self.header(first)?,
                At::Body => self.body(out, pos, stop)?,
                At::Trailer => self.trailer()?,
                At::End => break,
            };
            if needs_more {
                if !patient && *pos > start {
                    break;
                }
                self.input.more()?;
            }
        }
        Ok(())
    }

    // Each of the following makes one step; true when it needs more input for the next.

    fn header(&mut self, first: bool) -> io::Result<bool> {
        let rest = self.input.rest();
        if rest.is_empty() && self.input.last && !first {
            self.at = At::End;
            return Ok(false);
        }
        match header_length(rest).map_err(invalid)? {
            Some(length) => {
                self.input.skip(length);
                self.inflate.reset();
                self.crc = Some(crc32fast::Hasher::new());
                self.member_bytes = 0;
                self.at = At::Body;
                Ok(false)
            }
            None if self.input.last => Err(invalid(CodecError::Truncated)),
            None if rest.len() > MAX_HEADER => Err(invalid(CodecError::Invalid("gzip"))),
            None => Ok(true),
        }
    }

    fn body(&mut self, out: &mut [u8], pos: &mut usize, stop: usize) -> io::Result<bool> {
        let mut stop = stop;
        // The first window of the stream is its beginning, which needs no seek point.
        if let Some(next) = self.record.as_ref().map(|record| record.next())
            && self.total >= next
            && self.total > 0
        {
            let checkpoint = self.checkpoint(out.get(..*pos).unwrap_or_default());
            let (total, bit) = (self.total, self.input.position());
            if let Some(record) = &mut self.record {
                record.checkpoint(total, bit, checkpoint)?;
            }
        }
        if let Some(record) = &self.record {
            let until = clamp(record.next().saturating_sub(self.total));
            stop = stop.min(pos.saturating_add(until.max(1)));
        }
        let before = *pos;
        let history = pos.saturating_sub(clamp(self.member_bytes));
        let input = &mut self.input;
        let bytes = input.bytes.get(..input.filled).unwrap_or_default();
        let mut output = Output {
            bytes: out,
            pos: before,
            history,
            stop,
        };
        let result = self
            .inflate
            .run(bytes, &mut input.bit, input.last, &mut output);
        *pos = output.pos;
        let decoded = out.get(before..*pos).unwrap_or_default();
        if let Some(crc) = &mut self.crc {
            crc.update(decoded);
        }
        self.member_bytes += decoded.len() as u64;
        self.total += decoded.len() as u64;
        match result.map_err(invalid)? {
            Stop::Output => Ok(false),
            Stop::Input => Ok(true),
            Stop::End => {
                self.input.skip_to_byte();
                self.at = At::Trailer;
                Ok(false)
            }
        }
    }

    fn trailer(&mut self) -> io::Result<bool> {
        let Some(trailer) = self.input.rest().first_chunk::<TRAILER>() else {
            return match self.input.last {
                true => Err(invalid(CodecError::Truncated)),
                false => Ok(true),
            };
        };
        let [c0, c1, c2, c3, l0, l1, l2, l3] = *trailer;
        if let Some(crc) = self.crc.take() {
            let length = self.member_bytes as u32; // modulo 2^32, as the format has it
            if u32::from_le_bytes([c0, c1, c2, c3]) != crc.finalize()
                || u32::from_le_bytes([l0, l1, l2, l3]) != length
            {
                return Err(invalid(CodecError::Invalid("gzip")));
            }
        }
        self.input.skip(TRAILER);
        self.at = At::Header(false);
        self.empty = match self.member_bytes {
            0 => self.empty.saturating_add(1),
            _ => 0,
        };
        if self.empty > limits::MAX_EMPTY_MEMBERS {
            return Err(invalid(CodecError::Endless("gzip")));
        }
        Ok(false)
    }
}

impl<R: Read> Read for Gunzip<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.read == self.filled && self.at != At::End {
            if self.buffer.is_empty() {
                self.buffer = vec![0; WINDOW + ROOM + SLOP];
            }
            let from = self.filled.saturating_sub(WINDOW);
            self.buffer.copy_within(from..self.filled, 0);
            self.filled -= from;
            self.read = self.filled;
            let mut buffer = std::mem::take(&mut self.buffer);
            let mut filled = self.filled;
            let result = self.decode(&mut buffer, &mut filled, WINDOW + ROOM, false);
            (self.buffer, self.filled) = (buffer, filled);
            result?;
        }
        let rest = self.buffer.get(self.read..self.filled).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.read += n;
        Ok(n)
    }
}

/// The part of the input that is in memory.
struct Input<R> {
    source: R,
    bytes: Vec<u8>,
    filled: usize,
    /// Offset of the first byte in the stream.
    offset: u64,
    /// Bits of `bytes` that were used.
    bit: u64,
    /// True when the source has no more.
    last: bool,
}

impl<R: Read> Input<R> {
    fn new(source: R) -> Input<R> {
        Input {
            source,
            bytes: Vec::new(),
            filled: 0,
            offset: 0,
            bit: 0,
            last: false,
        }
    }

    /// What was not used yet; the position must be a byte's.
    fn rest(&self) -> &[u8] {
        self.bytes
            .get(clamp(self.bit / 8)..self.filled)
            .unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.bit += bytes as u64 * 8;
    }

    fn skip_to_byte(&mut self) {
        self.bit = self.bit.next_multiple_of(8);
    }

    /// Bits used, from the start of the stream.
    fn position(&self) -> u64 {
        self.offset * 8 + self.bit
    }

    /// Forgets what was used and reads more.
    fn more(&mut self) -> io::Result<()> {
        let used = clamp(self.bit / 8).min(self.filled);
        self.bytes.copy_within(used..self.filled, 0);
        self.filled -= used;
        self.offset += used as u64;
        self.bit -= used as u64 * 8;
        if self.bytes.is_empty() {
            self.bytes = vec![0; INPUT];
        }
        if self.bytes.len() - self.filled < INPUT / 2 {
            self.bytes.resize(self.filled + INPUT, 0);
        }
        loop {
            let room = self.bytes.get_mut(self.filled..).unwrap_or_default();
            match self.source.read(room) {
                Ok(n) => {
                    self.last = n == 0;
                    self.filled += n;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The length of the member header that `bytes` start with; `None` when they end within it.
fn header_length(bytes: &[u8]) -> Result<Option<usize>, CodecError> {
    const INVALID: CodecError = CodecError::Invalid("gzip");
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    const HEADER_CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const RESERVED: u8 = 0xe0;
    let magic = bytes.get(..bytes.len().min(MAGIC.len()));
    if magic != MAGIC.get(..bytes.len().min(MAGIC.len())) {
        return Err(INVALID);
    }
    let Some(&[_, _, _, flags, ..]) = bytes.first_chunk::<10>() else {
        return Ok(None);
    };
    if flags & RESERVED != 0 {
        return Err(INVALID);
    }
    let mut at = 10;
    if flags & EXTRA != 0 {
        let Some(length) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        at += 2 + usize::from(u16::from_le_bytes(*length));
    }
    for flag in [8, 16] {
        // name, comment
        if flags & flag != 0 {
            let end = bytes.get(at..).and_then(|s| s.iter().position(|&b| b == 0));
            let Some(length) = end else { return Ok(None) };
            at += length + 1;
        }
    }
    if flags & HEADER_CRC != 0 {
        let Some(crc) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let header = bytes.get(..at).unwrap_or_default();
        if u16::from_le_bytes(*crc) != crc32fast::hash(header) as u16 {
            return Err(INVALID);
        }
        at += 2;
    }
    Ok((at <= bytes.len()).then_some(at))
}

fn clamp(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// An error of the stream, as `Read` passes it on.
fn invalid(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
