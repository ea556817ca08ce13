//! The inner loop.
//!
//! What costs time in a decoder of text is not the number of its instructions but every branch that
//! the processor cannot foresee, and whether a literal or a match comes next is one. So a step, be
//! it literals or a whole match, is always the same instructions: store two literals, of which none
//! may count; copy 32 bytes, of which none may count. It leaves this path only for what is rare.
//!
//! Where hardly any whole match fits into a step there is nothing to foresee: in weights nearly all
//! symbols are literals, and fixed codes are too long. There, literals are taken in a loop of their own
//! before each step, and copy nothing.
//!
//! The loop begins a round only where neither buffer can end within it. That is for speed and needs
//! no trust: the code is safe, and every access is checked besides.

use super::state::State;
use super::tables::{DISTANCE_BITS, STEP_BITS, Symbol, Tables};
use crate::codec::cpu::{Cpu, multiversion};

/// Longest match.
const MAX_LENGTH: usize = 258;
/// Bytes that a step copies, however few are the match's.
const COPY: usize = 32;
/// Steps of one round.
const STEPS: usize = 2;
/// Lookups for literals in front of the one step of a round, where matches are rare.
const LITERAL_LOOKUPS: usize = 4;
/// Bytes of output that one round may write: matches, and what the copy of the last writes beyond.
pub(super) const OUTPUT_MARGIN: usize = STEPS * MAX_LENGTH + COPY;
/// Bytes from where a round begins to where no symbol shall begin, at least: the last step begins
/// behind the other steps' matches, and may have two literals, which are two symbols.
pub(super) const BEFORE_STOP: usize = (STEPS - 1) * MAX_LENGTH + 2;
/// Bytes of input that one round may load: two words, the second at most 7 bytes after the first.
const INPUT_MARGIN: usize = 7 + 8;

/// Bits that are there after a load.
const LOADED: u32 = 56;
/// Most bits of a step: its index and the extra bits of a distance.
const MAX_STEP: u32 = STEP_BITS + 13;
// Both steps of a round, or one step and a length that is none, need one load; a distance another.
const _: () = assert!(STEPS as u32 * MAX_STEP <= LOADED);
const _: () = assert!((STEPS as u32 - 1) * MAX_STEP + 15 + 5 <= LOADED);
const _: () = assert!(15 + 13 <= LOADED);
// The same where literals come first: the lookups, then one step, or a length with its distance.
const _: () = assert!(LITERAL_LOOKUPS as u32 * STEP_BITS <= LOADED);
const _: () = assert!(15 + 5 + 15 + 13 <= LOADED);
const _: () = assert!(LITERAL_LOOKUPS * 2 <= (STEPS - 1) * MAX_LENGTH);

/// Decodes symbols while neither input nor output is near its end; true when the block ended,
/// nothing when it is not valid, and `state` then as it was.
pub(super) fn run(cpu: Cpu, tables: &Tables, state: &mut State<'_>) -> Option<bool> {
    match tables.are_matches_rare() {
        true => literals_first(cpu, tables, state),
        false => all_alike(cpu, tables, state),
    }
}

multiversion! {
    /// For blocks of mostly literals.
    fn literals_first(tables: &Tables, state: &mut State<'_>) -> Option<bool> = run_body::<true>
}

multiversion! {
    /// For all other blocks.
    fn all_alike(tables: &Tables, state: &mut State<'_>) -> Option<bool> = run_body::<false>
}

#[expect(
    clippy::too_many_lines,
    reason = "one loop, all of whose values stay in registers"
)]
#[inline(always)]
fn run_body<const LITERALS_FIRST: bool>(tables: &Tables, state: &mut State<'_>) -> Option<bool> {
    let input = state.bits.input();
    let position = state.bits.position();
    let out = &mut *state.out;
    let (Some(room), Some(before_stop), Some(last_next)) = (
        out.len().checked_sub(OUTPUT_MARGIN),
        state.stop.checked_sub(BEFORE_STOP),
        input.len().checked_sub(INPUT_MARGIN),
    ) else {
        return Some(false);
    };
    let last_at = room.min(before_stop);
    let mut at = state.at;
    // `bits` holds `count` bits and more from the position on; `next` is where more come from. Only
    // the low six bits of `count` are the count: a step or value can be subtracted as it is.
    let mut next = position / 8;
    let (mut bits, mut count) = (0u64, 0u32);
    macro_rules! refill {
        () => {
            bits |= u64::from_le_bytes(*piece(input, next)?) << (count & 63);
            next += 7 - (count >> 3 & 7) as usize;
            count |= LOADED;
        };
    }
    // Moves on by what the low six bits say; gives the bits as they were before.
    macro_rules! consume {
        ($consumed:expr) => {{
            let (before, consumed) = (bits, $consumed);
            bits >>= consumed & 63;
            count = count.wrapping_sub(consumed);
            before
        }};
    }

    if at > last_at || next > last_next {
        return Some(false);
    }
    refill!();
    bits >>= position % 8;
    count -= position as u32 % 8;
    let ended = 'rounds: loop {
        if at > last_at || next > last_next {
            break false;
        }
        refill!();
        let other = 'steps: {
            if LITERALS_FIRST {
                let mut lookups = 0;
                while lookups < LITERAL_LOOKUPS {
                    let step = tables.steps[bits as usize & ((1 << STEP_BITS) - 1)];
                    if !step.is_literals() {
                        break;
                    }
                    consume!(step.consumed());
                    *place(out, at)? = step.literals();
                    at += step.literal_count();
                    lookups += 1;
                }
                if lookups == LITERAL_LOOKUPS {
                    continue 'rounds;
                }
                refill!();
            }
            let steps = if LITERALS_FIRST { 1 } else { STEPS };
            for _ in 0..steps {
                let step = tables.steps[bits as usize & ((1 << STEP_BITS) - 1)];
                if step.is_other() {
                    break 'steps step;
                }
                let before = consume!(step.consumed());
                let (back, length) = (step.distance(before), step.length());
                if back > at {
                    return None;
                }
                if length > back.min(COPY) {
                    copy_rare(out, at - back, at, length)?;
                } else {
                    // For literals, whose length is 0, bytes that were not written just now: the
                    // load would wait for them.
                    let from = if length == 0 { 0 } else { at - back };
                    let source: [u8; COPY] = *piece(out, from)?;
                    let target: &mut [u8; COPY + 3] = place(out, at)?;
                    let literals = step.literal_count();
                    target[..2].copy_from_slice(&step.literals());
                    target[literals..literals + COPY].copy_from_slice(&source);
                    at += literals;
                }
                at += length;
            }
            continue 'rounds;
        };

        let mut length = other.as_length();
        if !length.is_known() {
            let (symbol, code) = tables.symbol(bits)?;
            match symbol {
                Symbol::Literal(byte) => {
                    consume!(code);
                    *place(out, at)? = [byte];
                    at += 1;
                    continue;
                }
                Symbol::End => {
                    count = count.wrapping_sub(code);
                    break true;
                }
                Symbol::Length(value) => length = value,
            }
        }
        let length = length.get(consume!(length.consumed()));
        if !LITERALS_FIRST {
            refill!();
        }
        let mut distance = tables.distances[bits as usize & ((1 << DISTANCE_BITS) - 1)];
        if !distance.is_known() {
            distance = tables.distance(bits)?;
        }
        let back = distance.get(consume!(distance.consumed()));
        let from = at.checked_sub(back)?;
        copy_match(out, from, at, length)?;
        at += length;
    };
    state.bits.seek(next * 8 - (count & 63) as usize);
    state.at = at;
    Some(ended)
}

// Neither of these is ever nothing, by the margins. Were they wrong, the result would be an error
// and not other bytes.

#[inline(always)]
fn piece<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

#[inline(always)]
fn place<const N: usize>(bytes: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    bytes.get_mut(at..)?.first_chunk_mut()
}

/// [`copy_match`] where it is rare enough to stay out of the way.
#[inline(never)]
fn copy_rare(out: &mut [u8], from: usize, to: usize, length: usize) -> Option<()> {
    copy_match(out, from, to, length)
}

/// Copies `length` bytes from `from` to `to`, where bytes just written count; may write up to
/// `COPY - 1` bytes more.
#[inline(always)]
fn copy_match(out: &mut [u8], from: usize, to: usize, length: usize) -> Option<()> {
    /// Copies by pieces that do not overlap their source.
    #[inline(always)]
    fn by<const N: usize>(out: &mut [u8], from: usize, to: usize, length: usize) -> Option<()> {
        let mut done = 0;
        while done < length {
            let piece: [u8; N] = *piece(out, from + done)?;
            *place(out, to + done)? = piece;
            done += N;
        }
        Some(())
    }
    match to - from {
        COPY.. => by::<COPY>(out, from, to, length),
        16.. => by::<16>(out, from, to, length),
        1 => {
            let byte = out[from];
            out[to..to + length].fill(byte);
            Some(())
        }
        // The bytes repeat: of each piece that many count, and the next one begins after them.
        period => {
            let piece: [u8; 16] = *piece(out, from)?;
            let mut done = 0;
            while done < length {
                *place(out, to + done)? = piece;
                done += period;
            }
            Some(())
        }
    }
}
