//! The codes of one block, and the tables that the inner loop looks them up in.
//!
//! A code is kept as RFC 1951 defines it, by the number of its codes of each length, and can be
//! decoded from that alone, bit by bit. The tables know only what is short and therefore frequent;
//! whatever they do not know is decoded bit by bit, so that no table has a second level.

use crate::codec::huffman::{
    DISTANCE_SYMBOLS, DISTANCES, END_OF_BLOCK, FIXED_DISTANCE, FIXED_LITLEN, LENGTHS,
    LITLEN_SYMBOLS, canonical_codes,
};

/// Longest code of a deflate stream, in bits.
const MAX_CODE_BITS: usize = 15;
/// The first symbol that is a length.
const FIRST_LENGTH: usize = END_OF_BLOCK + 1;
/// Bits that index the table of steps.
pub(super) const STEP_BITS: u32 = 11;
/// Bits that index the table of distances.
pub(super) const DISTANCE_BITS: u32 = 9;

/// A canonical prefix code for `N` symbols.
pub(super) struct Code<const N: usize> {
    /// How many codes have each length; none has length 0.
    counts: [u16; MAX_CODE_BITS + 1],
    /// Where the symbols of each length begin in `symbols`.
    starts: [u16; MAX_CODE_BITS + 2],
    /// The symbols, by their codes.
    symbols: [u16; N],
    /// The codes, first bit lowest.
    codes: [u16; N],
}

impl<const N: usize> Code<N> {
    const EMPTY: Code<N> = Code {
        counts: [0; MAX_CODE_BITS + 1],
        starts: [0; MAX_CODE_BITS + 2],
        symbols: [0; N],
        codes: [0; N],
    };

    /// Takes the code with these lengths, which are at most 15 and no more than a code can have.
    fn set(&mut self, lengths: &[u8; N]) {
        self.counts = [0; MAX_CODE_BITS + 1];
        for &length in lengths {
            self.counts[usize::from(length & 15)] += 1;
        }
        self.counts[0] = 0;
        let mut start = 0;
        for (slot, count) in self.starts.iter_mut().zip(self.counts) {
            *slot = start;
            start += count;
        }
        self.starts[MAX_CODE_BITS + 1] = start;
        let mut next = self.starts;
        for ((symbol, &length), code) in (0..).zip(lengths).zip(canonical_codes(lengths)) {
            if length > 0 {
                let slot = &mut next[usize::from(length & 15)];
                self.symbols[usize::from(*slot)] = symbol;
                self.codes[usize::from(*slot)] = code;
                *slot += 1;
            }
        }
    }

    /// The codes of `length` bits with their symbols.
    fn of(&self, length: u32) -> impl Iterator<Item = (usize, usize)> {
        let [from, to] = [length, length + 1].map(|l| usize::from(self.starts[l as usize]));
        let codes = self.codes[from..to].iter();
        codes
            .zip(&self.symbols[from..to])
            .map(|(code, symbol)| (usize::from(*code), usize::from(*symbol)))
    }

    /// The codes of `length` bits for literals, with them. Literals are the first symbols.
    fn literals(&self, length: u32) -> impl Iterator<Item = (usize, u8)> {
        let literals = self
            .of(length)
            .take_while(|(_, symbol)| *symbol < END_OF_BLOCK);
        literals.map(|(code, symbol)| (code, symbol as u8))
    }

    /// The codes of `length` bits for all but literals.
    fn others(&self, length: u32) -> impl Iterator<Item = (usize, usize)> {
        self.of(length)
            .skip_while(|(_, symbol)| *symbol < END_OF_BLOCK)
    }

    /// The length of the shortest code; above 15 if there is none.
    fn shortest(&self) -> u32 {
        (0..)
            .zip(&self.counts)
            .find(|(_, count)| **count > 0)
            .map_or(u32::MAX, |(length, _)| length)
    }

    /// The symbol whose code `bits` begin with, and the length of the code.
    pub(super) fn decode(&self, mut bits: u64) -> Option<(usize, u32)> {
        // The number of the code among those of its length is the code minus their first.
        let (mut code, mut first, mut start) = (0, 0, 0);
        for (length, &count) in (1..).zip(&self.counts[1..]) {
            let count = u32::from(count);
            code = code << 1 | bits as u32 & 1;
            bits >>= 1;
            if code - first < count {
                let symbol = self.symbols[(start + code - first) as usize];
                return Some((symbol.into(), length));
            }
            first = (first + count) << 1;
            start += count;
        }
        None
    }
}

/// What the next bits mean, as far as the inner loop does it in one step: one or two literals, or a
/// whole match, with all of its length within the bits of the index and all but the extra bits of
/// its distance. Most matches of text are that short.
///
/// ```text
/// bits  0-5   number of bits of the codes and the extra bits
/// bit   6     0; 1 if it is not done in one step, see [`Step::OTHER`]
/// bits  8-13  number of bits before the extra bits of the distance
/// bits 14-15  number of literals; 0 in a match
/// bits 16-31  base of the distance; 0 for literals
/// bits 32-40  length of the match; 0 for literals
/// bits 48-63  the literals, in order
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step(u64);

impl Step {
    /// Not one step. The upper half is a [`Value`]: the length of a match, whose distance is to be
    /// looked up; or nothing known, for all that is rare: a long code, the end of the block, a
    /// symbol without a meaning.
    const OTHER: u64 = 1 << 6;

    fn of_literals(bits: u32, literals: [u8; 2], count: u64) -> Step {
        Step(u64::from(u16::from_le_bytes(literals)) << 48 | count << 14 | Step::bits(bits, 0))
    }

    fn whole_match(bits: u32, length: u16, base: u32, extra: u32) -> Step {
        Step(u64::from(length) << 32 | u64::from(base) << 16 | Step::bits(bits, extra))
    }

    fn length_only(length: Value) -> Step {
        Step(u64::from(length.0) << 32 | Step::OTHER)
    }

    fn bits(codes: u32, extra: u32) -> u64 {
        u64::from(codes << 8 | (codes + extra))
    }

    #[inline(always)]
    pub(super) fn is_other(self) -> bool {
        self.0 & Self::OTHER != 0
    }

    /// The number of bits that this consumes, in the low six bits.
    #[inline(always)]
    pub(super) fn consumed(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(super) fn is_literals(self) -> bool {
        self.literal_count() > 0
    }

    #[inline(always)]
    pub(super) fn literals(self) -> [u8; 2] {
        ((self.0 >> 48) as u16).to_le_bytes()
    }

    #[inline(always)]
    pub(super) fn literal_count(self) -> usize {
        (self.0 >> 14 & 3) as usize
    }

    #[inline(always)]
    pub(super) fn length(self) -> usize {
        (self.0 >> 32 & 511) as usize
    }

    /// The distance, given the bits that begin with this step; 0 for literals.
    #[inline(always)]
    pub(super) fn distance(self, bits: u64) -> usize {
        let extra = (bits & ((1 << (self.0 & 63)) - 1)) >> (self.0 >> 8 & 63);
        (self.0 as u32 >> 16) as usize + extra as usize
    }

    #[inline(always)]
    pub(super) fn as_length(self) -> Value {
        Value((self.0 >> 32) as u32)
    }
}

/// A length or distance.
///
/// ```text
/// bits  0-5   number of bits of the code and the extra bits; 0: the code is not known
/// bits  8-11  number of bits of the code
/// bits 16-31  base
/// ```
#[derive(Clone, Copy)]
pub(super) struct Value(u32);

impl Value {
    const UNKNOWN: Value = Value(0);

    fn new(bits: u32, base: u32, extra: u32) -> Value {
        Value(base << 16 | bits << 8 | (bits + extra))
    }

    /// What a symbol with a code of so many bits means; nothing where `table` has none.
    fn of(table: &[(u32, u32)], symbol: usize, bits: u32) -> Option<Value> {
        let &(base, extra) = table.get(symbol)?;
        Some(Value::new(bits, base, extra))
    }

    #[inline(always)]
    pub(super) fn is_known(self) -> bool {
        self.0 != 0
    }

    /// The number of bits that this consumes, in the low six bits.
    #[inline(always)]
    pub(super) fn consumed(self) -> u32 {
        self.0
    }

    /// The value, given the bits that begin with its code.
    #[inline(always)]
    pub(super) fn get(self, bits: u64) -> usize {
        let code_and_extra = bits & ((1 << (self.0 & 63)) - 1);
        (self.0 >> 16) as usize + (code_and_extra >> (self.0 >> 8 & 15)) as usize
    }
}

/// What one symbol of the literal and length code means.
pub(super) enum Symbol {
    /// A literal.
    Literal(u8),
    /// The end of the block.
    End,
    /// The length of a match.
    Length(Value),
}

/// The codes of a block, and the tables made from them.
pub(super) struct Tables {
    litlen: Code<LITLEN_SYMBOLS>,
    distance: Code<DISTANCE_SYMBOLS>,
    /// By the next bits: what they mean.
    pub(super) steps: [Step; 1 << STEP_BITS],
    /// By the bits that begin with the code of a distance: the distance.
    pub(super) distances: [Value; 1 << DISTANCE_BITS],
    /// Lengths of matches with their extra bits in the code, by the number of these bits.
    lengths: [Vec<(u16, u16)>; STEP_BITS as usize],
    /// True when the codes are those of fixed blocks.
    are_fixed: bool,
    /// How many of the steps are whole matches.
    matches: usize,
}

impl Tables {
    /// Tables that know nothing.
    pub(super) fn new() -> Tables {
        Tables {
            litlen: Code::EMPTY,
            distance: Code::EMPTY,
            steps: [Step(Step::OTHER); 1 << STEP_BITS],
            distances: [Value::UNKNOWN; 1 << DISTANCE_BITS],
            lengths: Default::default(),
            are_fixed: false,
            matches: 0,
        }
    }

    /// Takes the codes of fixed blocks.
    pub(super) fn set_fixed(&mut self) {
        if !self.are_fixed {
            self.set(&FIXED_LITLEN, &FIXED_DISTANCE);
            self.are_fixed = true;
        }
    }

    /// Takes the codes with these lengths, no more than a code can have. Bits that are no code are
    /// refused when they occur.
    pub(super) fn set(&mut self, litlen: &[u8; LITLEN_SYMBOLS], distance: &[u8; DISTANCE_SYMBOLS]) {
        self.are_fixed = false;
        self.litlen.set(litlen);
        self.distance.set(distance);
        self.fill_distances();
        self.fill_steps();
    }

    // A table is filled from the shortest codes to the longest. As long as codes have at most n
    // bits, 2^n entries are all there is to know; for the next length they are copied behind
    // themselves, and each code of that length takes exactly one.

    fn fill_distances(&mut self) {
        let table = &mut self.distances;
        table[0] = Value::UNKNOWN;
        for bits in 1..=DISTANCE_BITS {
            table.copy_within(..1 << (bits - 1), 1 << (bits - 1));
            for (code, symbol) in self.distance.of(bits) {
                if let Some(value) = Value::of(&DISTANCES, symbol, bits) {
                    table[code] = value;
                }
            }
        }
    }

    fn fill_steps(&mut self) {
        let Tables {
            litlen,
            distance,
            steps,
            lengths,
            matches,
            ..
        } = self;
        *matches = 0;
        lengths.iter_mut().for_each(Vec::clear);
        // Bits that are left for a length if any distance is to follow it.
        let room = STEP_BITS - distance.shortest().min(STEP_BITS);
        steps[0] = Step(Step::OTHER);
        for bits in 1..=STEP_BITS {
            let known = 1 << (bits - 1);
            steps.copy_within(..known, known);
            for (code, literal) in litlen.literals(bits) {
                steps[code] = Step::of_literals(bits, [literal, 0], 1);
            }
            for (code, symbol) in litlen.others(bits) {
                let Some(&(base, extra)) = LENGTHS.get(symbol.wrapping_sub(FIRST_LENGTH)) else {
                    continue; // the end of the block, or without a meaning
                };
                steps[code] = Step::length_only(Value::new(bits, base, extra));
                if bits + extra <= room {
                    let with_extra =
                        |more| ((code | more << bits) as u16, (base as usize + more) as u16);
                    lengths[(bits + extra) as usize].extend((0..1 << extra).map(with_extra));
                }
            }
            for first_bits in 1..bits {
                let second_bits = bits - first_bits;
                for (first_code, first) in litlen.literals(first_bits) {
                    for (code, second) in litlen.literals(second_bits) {
                        steps[first_code | code << first_bits] =
                            Step::of_literals(bits, [first, second], 2);
                    }
                }
                let lengths = &lengths[first_bits as usize];
                if lengths.is_empty() {
                    continue;
                }
                for (code, symbol) in distance.of(second_bits) {
                    let Some(&(base, extra)) = DISTANCES.get(symbol) else {
                        continue; // without a meaning
                    };
                    *matches += lengths.len() << (STEP_BITS - bits);
                    for &(length_code, length) in lengths {
                        steps[usize::from(length_code) | code << first_bits] =
                            Step::whole_match(bits, length, base, extra);
                    }
                }
            }
        }
    }

    /// True when less than an eighth of the steps, each as probable as its code says, are whole matches.
    pub(super) fn are_matches_rare(&self) -> bool {
        self.matches < (1 << STEP_BITS) / 8
    }

    /// The meaning of the symbol that `bits` begin with, and the length of its code.
    pub(super) fn symbol(&self, bits: u64) -> Option<(Symbol, u32)> {
        let (symbol, length) = self.litlen.decode(bits)?;
        let meaning = match symbol {
            ..END_OF_BLOCK => Symbol::Literal(symbol as u8),
            END_OF_BLOCK => Symbol::End,
            _ => Symbol::Length(Value::of(&LENGTHS, symbol - FIRST_LENGTH, length)?),
        };
        Some((meaning, length))
    }

    /// The distance whose code `bits` begin with.
    pub(super) fn distance(&self, bits: u64) -> Option<Value> {
        let (symbol, length) = self.distance.decode(bits)?;
        Value::of(&DISTANCES, symbol, length)
    }
}
