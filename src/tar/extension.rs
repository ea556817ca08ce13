//! pax and GNU extension headers: what they say about the entry behind them.
//!
//! Acted on are the pax records `path`, `linkpath`, `size` and `mtime`, and GNU long names and long
//! link targets. Records that change nothing about a file's bytes or place (owners, other times,
//! comments, extended attributes) are ignored. Refused are: malformed, empty or repeated records,
//! records that describe sparse or multi-volume files, a global record for anything acted on, two
//! headers of one kind, pax and GNU headers for one entry, and more than
//! [`limits::MAX_TAR_EXTENSION_BYTES`] bytes.
//!
//! Source: POSIX.1-2017 pax, "pax Extended Header"; GNU tar manual, "Basic Tar Format".

use super::block::Block;
use crate::limits;
use crate::printable::printable_bytes;

/// The headers that describe the entry behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtensionKind {
    /// pax records for the next entry, `x`.
    Pax,
    /// pax records for all entries that follow, `g`.
    PaxGlobal,
    /// GNU long name, `L`.
    LongName,
    /// GNU long link target, `K`.
    LongLink,
}

/// A rule that an extension breaks.
type Rule = String;

/// Extensions that wait for their entry.
#[derive(Debug, Default)]
pub(super) struct Pending {
    start: Option<u64>,
    pax: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<i64>,
}

/// (path, link target, size, mtime), each where an extension gives it.
type Parts = (Option<Vec<u8>>, Option<Vec<u8>>, Option<u64>, Option<i64>);

impl Pending {
    /// True when no entry is waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.start.is_none()
    }

    /// Offset of the entry's first extension header.
    pub(super) fn start(&self) -> Option<u64> {
        self.start
    }

    /// What the extensions say.
    pub(super) fn into_parts(self) -> Parts {
        (self.path, self.link, self.size, self.mtime)
    }

    /// An extension header with `size` bytes of data stands at `offset`.
    pub(super) fn begin(
        &mut self,
        kind: ExtensionKind,
        size: u64,
        offset: u64,
    ) -> Result<Extension, Rule> {
        let left = match usize::try_from(size) {
            Ok(0) => return Err("an extension header without data".into()),
            Ok(left) if size <= limits::MAX_TAR_EXTENSION_BYTES => left,
            _ => {
                return Err(format!(
                    "an extension header of {size} bytes, the limit is {}",
                    limits::MAX_TAR_EXTENSION_BYTES
                ));
            }
        };
        match kind {
            // Readers disagree about which of these a global header in between belongs to, about
            // which of two wins, and about whether a pax size counts for a GNU name's data.
            ExtensionKind::PaxGlobal if !self.is_empty() => {
                return Err("a global pax header between an entry and its extensions".into());
            }
            ExtensionKind::PaxGlobal => {}
            _ if self.pax && kind == ExtensionKind::Pax => {
                return Err("two pax headers for one entry".into());
            }
            _ if self.pax || (kind == ExtensionKind::Pax && !self.is_empty()) => {
                return Err("pax and GNU extension headers for one entry".into());
            }
            ExtensionKind::Pax => self.pax = true,
            ExtensionKind::LongName if self.path.is_some() => {
                return Err("two long names for one entry".into());
            }
            ExtensionKind::LongLink if self.link.is_some() => {
                return Err("two long link targets for one entry".into());
            }
            ExtensionKind::LongName | ExtensionKind::LongLink => {}
        }
        if kind != ExtensionKind::PaxGlobal {
            self.start.get_or_insert(offset);
        }
        Ok(Extension {
            kind,
            left,
            data: Vec::new(),
        })
    }
}

/// The data of an extension header, block by block.
#[derive(Debug)]
pub(super) struct Extension {
    kind: ExtensionKind,
    left: usize,
    data: Vec<u8>,
}

impl Extension {
    /// Takes the next block; true when it was the last.
    pub(super) fn feed(&mut self, block: &Block) -> bool {
        let data = block.get(..self.left).unwrap_or(block);
        self.data.extend_from_slice(data);
        self.left -= data.len();
        self.left == 0
    }

    /// Adds what the data say to the entry that is waited for.
    pub(super) fn apply(self, pending: &mut Pending) -> Result<(), Rule> {
        match self.kind {
            ExtensionKind::LongName => pending.path = Some(long_name(self.data)?),
            ExtensionKind::LongLink => pending.link = Some(long_name(self.data)?),
            ExtensionKind::Pax => {
                records(&self.data, |key, value| pax_record(pending, key, value))?;
            }
            ExtensionKind::PaxGlobal => records(&self.data, |key, _| global_record(key))?,
        }
        Ok(())
    }
}

/// A GNU long name: text up to a NUL, and nothing behind it.
fn long_name(mut data: Vec<u8>) -> Result<Vec<u8>, Rule> {
    let end = data.iter().position(|&b| b == 0).unwrap_or(data.len());
    if end == 0 {
        return Err("a long name that is empty".into());
    }
    if data.iter().skip(end).any(|&b| b != 0) {
        return Err("a long name with data behind its end".into());
    }
    data.truncate(end);
    Ok(data)
}

/// Splits pax data into records `<length> <key>=<value>\n`, where the length counts all of it.
fn records(
    mut data: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Rule>,
) -> Result<(), Rule> {
    let malformed = || "a malformed pax record".to_string();
    while !data.is_empty() {
        let digits = data.iter().position(|&b| b == b' ').ok_or_else(malformed)?;
        let length = data.get(..digits).and_then(decimal).ok_or_else(malformed)?;
        let length = usize::try_from(length).map_err(|_| malformed())?;
        let (record, rest) = data.split_at_checked(length).ok_or_else(malformed)?;
        let (&newline, record) = record.split_last().ok_or_else(malformed)?;
        let record = record.get(digits + 1..).ok_or_else(malformed)?;
        let equals = record
            .iter()
            .position(|&b| b == b'=')
            .filter(|&at| at > 0 && newline == b'\n')
            .ok_or_else(malformed)?;
        // Some readers split the data at newlines, and would find records in a value.
        if record.split(|&b| b == b'\n').skip(1).any(is_like_a_record) {
            return Err("a pax record within another".into());
        }
        let (key, value) = record.split_at(equals);
        each(key, value.get(1..).unwrap_or_default())?;
        data = rest;
    }
    Ok(())
}

/// True for a line that begins like a record: digits, a space, and somewhere an equals sign.
fn is_like_a_record(line: &[u8]) -> bool {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    digits > 0 && line.get(digits) == Some(&b' ') && line.contains(&b'=')
}

fn pax_record(pending: &mut Pending, key: &[u8], value: &[u8]) -> Result<(), Rule> {
    let bad = |rule: &str| {
        let shown = value.get(..80).unwrap_or(value);
        format!(
            "pax {} \"{}\" {rule}",
            printable_bytes(key),
            printable_bytes(shown)
        )
    };
    let repeated = match key {
        b"path" => pending.path.replace(name(value).map_err(bad)?).is_some(),
        b"linkpath" => pending.link.replace(name(value).map_err(bad)?).is_some(),
        b"size" => {
            let size = decimal(value).ok_or_else(|| bad("is not a number"))?;
            pending.size.replace(size).is_some()
        }
        b"mtime" => {
            let mtime = seconds(value).ok_or_else(|| bad("is not a time"))?;
            pending.mtime.replace(mtime).is_some()
        }
        _ => return layout_key(key),
    };
    if repeated {
        return Err(bad("is given twice"));
    }
    Ok(())
}

fn global_record(key: &[u8]) -> Result<(), Rule> {
    match key {
        b"path" | b"linkpath" | b"size" | b"mtime" => Err(format!(
            "a global pax record for {} is not supported",
            printable_bytes(key)
        )),
        _ => layout_key(key),
    }
}

/// Refuses records of formats that lay files out in another way.
fn layout_key(key: &[u8]) -> Result<(), Rule> {
    const KEYS: [&[u8]; 4] = [
        b"GNU.sparse.",
        b"GNU.volume.",
        b"SCHILY.realsize",
        b"SUN.holesdata",
    ];
    if KEYS.iter().any(|start| key.starts_with(start)) {
        return Err("sparse and multi-volume entries are not supported".into());
    }
    Ok(())
}

fn name(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.is_empty() {
        return Err("is empty");
    }
    if value.contains(&0) {
        return Err("contains a NUL byte");
    }
    if value.contains(&b'\n') {
        return Err("contains a newline, where some readers end a record");
    }
    Ok(value.to_vec())
}

/// Decimal digits without a sign or leading zeros, below 2^63.
fn decimal(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    text.iter()
        .try_fold(0u64, |n, &b| {
            let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
            n.checked_mul(10)?.checked_add(digit)
        })
        .filter(|&n| n <= i64::MAX as u64)
}

/// Whole seconds of a pax time, rounded down. Python writes times near the epoch as `1e-05`.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
        return None;
    }
    let whole = text.split('.').next().unwrap_or(text);
    match whole.parse::<i64>() {
        Ok(seconds) if !text.starts_with('-') && !text.contains(['e', 'E']) => {
            let fraction = text.get(whole.len()..).unwrap_or_default();
            let digits = fraction.strip_prefix('.').unwrap_or_default();
            digits
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then_some(seconds)
        }
        _ => {
            let seconds = text.parse::<f64>().ok()?.floor();
            // Beyond 2^53 a float is no longer a number of seconds.
            (seconds.abs() < 9e15).then_some(seconds as i64)
        }
    }
}
