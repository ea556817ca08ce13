//! Stored deflate blocks (RFC 1951, section 3.2.4): bytes as they are, in pieces.

use std::io::IoSliceMut;

use super::CodecError;

/// Bytes in front of the data of a block that starts on a byte boundary.
const HEADER: usize = 5;
/// Bytes of a full block with its header. Digests and reads of whole blocks keep the alignment that
/// they are fastest with; a block could have 4 bytes more.
const FULL_BLOCK: usize = 64 << 10;
/// Bytes of the data of a full block.
const FULL_DATA: usize = FULL_BLOCK - HEADER;
/// Blocks that are read at once: digested while they are in the processor's cache.
const TOGETHER: usize = 4;
/// The same in bytes.
pub(crate) const PIECE: usize = TOGETHER * FULL_BLOCK;

/// Size of the segment that holds `len` bytes, in bytes.
pub(super) fn size(len: usize) -> usize {
    len.saturating_add(len.div_ceil(FULL_DATA).saturating_mul(HEADER))
}

/// Appends the segment that holds `input`: full blocks, and what is left in a last one.
pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    out.reserve(size(input.len()));
    for block in input.chunks(FULL_DATA) {
        out.extend(header(block.len()));
        out.extend(block);
    }
}

/// The header of a block of `len` bytes, at most [`FULL_DATA`].
fn header(len: usize) -> [u8; HEADER] {
    let [a, b] = (len as u16).to_le_bytes();
    [0, a, b, !a, !b]
}

/// Decodes a segment while it is read, without a copy. `read` fills buffers with what comes next of
/// it, headers aside and data where they belong; `seen` is given the same bytes in their order.
/// Returns false, and leaves anything in `out`, when the segment is not one that [`encode`] writes
/// for so many bytes, or too short for this.
///
/// # Errors
/// What `read` returns.
pub(crate) fn decode_as_read<E>(
    out: &mut [u8],
    segment_len: usize,
    mut read: impl FnMut(&mut [IoSliceMut<'_>]) -> Result<(), E>,
    mut seen: impl FnMut(&[u8]),
) -> Result<bool, E> {
    if out.len() < FULL_BLOCK || segment_len != size(out.len()) {
        return Ok(false);
    }
    let mut start = 0;
    while start < out.len() {
        let end = out.len().min(start + TOGETHER * FULL_DATA);
        // For each block what has no place of its own while its neighbours are where they belong:
        // the header, or the last bytes of the first block, in front of which there is nothing.
        let mut aside = [[0; HEADER]; TOGETHER];
        let mut slices = Vec::with_capacity(2 * TOGETHER);
        for (aside, data) in aside.iter_mut().zip(out[start..end].chunks_mut(FULL_DATA)) {
            let at = slices.len();
            slices.extend([IoSliceMut::new(aside), IoSliceMut::new(data)]);
            if start == 0 && at == 0 {
                slices.swap(0, 1);
            }
        }
        read(&mut slices)?;
        for aside in &mut aside {
            if start >= end {
                break;
            }
            let data_len = FULL_DATA.min(end - start);
            // All of the block, over bytes of its neighbour that are put back.
            let from = start.saturating_sub(HEADER);
            let at = if start == 0 { FULL_DATA } else { from };
            let block = from..from + HEADER + data_len;
            out[at..at + HEADER].swap_with_slice(aside);
            seen(&out[block.clone()]);
            if out[from..from + HEADER] != header(data_len) {
                return Ok(false);
            }
            if start == 0 {
                out.copy_within(HEADER..FULL_BLOCK, 0);
            }
            out[at..at + HEADER].copy_from_slice(aside);
            start += data_len;
        }
    }
    Ok(true)
}

/// Decodes the whole of `segment` into the whole of `out`.
///
/// # Errors
/// [`CodecError`] when `segment` is anything else than stored blocks, none marked as the last,
/// with zeros as padding, that hold exactly `out.len()` bytes.
pub(super) fn decode(segment: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let wrong_length = CodecError::WrongLength {
        expected: out.len(),
    };
    let (mut segment, mut out) = (segment, out);
    while let Some((&header, rest)) = segment.split_first() {
        let (&[a, b, c, d], rest) = rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        let len = u16::from_le_bytes([a, b]);
        if header != 0 || len != !u16::from_le_bytes([c, d]) {
            return Err(CodecError::Invalid("stored deflate"));
        }
        let len = usize::from(len);
        let (data, rest) = rest.split_at_checked(len).ok_or(CodecError::Truncated)?;
        let (to, free) = out.split_at_mut_checked(len).ok_or(wrong_length)?;
        to.copy_from_slice(data);
        (segment, out) = (rest, free);
    }
    if !out.is_empty() {
        return Err(wrong_length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::shapes;
    use super::*;

    /// Decodes `segment` as it is read, in pieces as they are asked for.
    fn as_read(segment: &[u8], len: usize) -> (bool, Vec<u8>) {
        let (mut out, mut rest, mut seen) = (vec![0x5a; len], segment, Vec::<u8>::new());
        let read = |slices: &mut [IoSliceMut<'_>]| {
            for slice in slices {
                let (bytes, later) = rest.split_at_checked(slice.len()).ok_or("the end")?;
                slice.copy_from_slice(bytes);
                rest = later;
            }
            Ok::<(), &str>(())
        };
        let done = decode_as_read(&mut out, segment.len(), read, |bytes| seen.extend(bytes));
        let done = done == Ok(true);
        assert!(segment.starts_with(&seen));
        assert!(!done || seen == segment && rest.is_empty());
        (done, out)
    }

    #[test]
    fn what_was_encoded_is_decoded_as_it_is_read() {
        let around = |len: usize| (len - 7..len + 8).chain([len + 1000]);
        let lens = [1, 2, 4, 5, 8].map(|blocks| blocks * FULL_DATA);
        for len in lens.into_iter().flat_map(around) {
            let input = shapes::random(len, 7);
            let mut segment = Vec::new();
            encode(&input, &mut segment);
            assert_eq!(segment.len(), size(len));
            let (done, out) = as_read(&segment, len);
            assert_eq!(done, len >= FULL_BLOCK);
            assert!(!done || out == input, "{len}");
            let mut copied = vec![0; len];
            assert_eq!(decode(&segment, &mut copied), Ok(()));
            assert!(copied == input);
        }
    }

    #[test]
    fn l9_blocks_of_another_shape_are_left_to_the_other_decoder() {
        let input = shapes::random(3 * FULL_DATA, 8);
        for (lens, good) in [
            ([FULL_DATA; 3], true),
            ([65_535, 65_535, 3 * FULL_DATA - 2 * 65_535], true),
            ([1, 65_535, 3 * FULL_DATA - 65_536], false),
        ] {
            let (mut segment, mut rest) = (Vec::new(), &input[..]);
            for len in lens {
                let (data, later) = rest.split_at(len);
                segment.extend(header(len));
                segment.extend(data);
                rest = later;
            }
            let mut copied = vec![0; input.len()];
            assert_eq!(decode(&segment, &mut copied).is_ok(), good);
            assert_eq!(as_read(&segment, input.len()).0, lens == [FULL_DATA; 3]);
        }
        let mut segment = Vec::new();
        encode(&input, &mut segment);
        for block in 0..3 {
            for bit in 0..HEADER * 8 {
                let mut damaged = segment.clone();
                damaged[block * FULL_BLOCK + bit / 8] ^= 1 << (bit % 8);
                assert!(!as_read(&damaged, input.len()).0);
            }
        }
    }
}
