//! An answer to a question for bytes: checked to be those that were asked for, then read.
//!
//! A partial answer (206) counts only when it says exactly which bytes it has, and of how many. A server that
//! ignores ranges answers with all (200): what lies before the range is passed over, if that is little.

use std::io::Read;

use ureq::http::Response;
use ureq::{Body, BodyReader};

use super::connections::Connection;
use super::patience::Patience;

/// What is passed over of an answer that begins before what was asked for.
const MAX_SKIP: u64 = 4 << 20;
/// What is read of an answer whose rest nobody wants, so that its connection can be used again.
const MAX_DRAIN: u64 = 64 << 10;

/// Why an answer is none.
pub(super) enum Refused {
    /// Another attempt may get a better one.
    Later(String),
    Never(String),
}

/// The bytes of an answer.
pub(super) struct Bytes {
    reader: BodyReader<'static>,
    /// Of all that comes; `None` where nothing says it.
    left: Option<u64>,
    /// To be passed over.
    skip: u64,
    /// The content digest that the registry states, and the type of what it is.
    pub(super) digest: Option<String>,
    pub(super) media_type: Option<String>,
    /// Of the whole, where it is known.
    pub(super) total: Option<u64>,
}

/// An answer that is being read.
pub(super) struct Answer {
    pub(super) bytes: Bytes,
    _connection: Connection,
}

/// What is asked for of a blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
    /// How many bytes there are, where that is known.
    pub(super) total: Option<u64>,
}

/// Checks that an answer has the range that was asked for: its first byte and its last, and of how many.
pub(super) fn check(response: Response<Body>, range: Option<Range>) -> Result<Bytes, Refused> {
    let header = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_string())
    };
    if let Some(coding) = header("content-encoding").filter(|coding| coding != "identity") {
        return Err(Refused::Never(format!(
            "is answered in the coding {}, which nobody asked for",
            crate::printable::quoted(&coding)
        )));
    }
    let length: Option<u64> = header("content-length").and_then(|text| text.parse().ok());
    let (digest, media_type) = (header("docker-content-digest"), header("content-type"));
    let (left, skip, total) = match (response.status().as_u16(), range) {
        (206, Some(Range { first, last, total })) => {
            let stated = header("content-range").unwrap_or_default();
            let fits = |found: &((u64, u64), u64)| {
                let (range, of) = *found;
                range == (first, last) && last < of && total.is_none_or(|total| total == of)
            };
            let Some((_, total)) = parse(&stated).filter(fits) else {
                return Err(Refused::Later(format!(
                    "bytes {first}-{last} were asked for, and {} are answered",
                    crate::printable::quoted(&stated)
                )));
            };
            (Some(last - first + 1), 0, Some(total))
        }
        (200, Some(range)) if range.first > MAX_SKIP => {
            let why = "this registry answers no ranges: it would send all of it for each read; copy the model, or use another registry";
            return Err(Refused::Never(why.into()));
        }
        (200, Some(range)) => (length, range.first, length),
        (200, None) => (length, 0, length),
        _ => {
            return Err(Refused::Later(
                "a part is answered that nobody asked for".into(),
            ));
        }
    };
    Ok(Bytes {
        reader: response.into_body().into_reader(),
        left,
        skip,
        digest,
        media_type,
        total,
    })
}

/// What a `Content-Range` states: the first byte, the last, and of how many.
fn parse(text: &str) -> Option<((u64, u64), u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok())?
    };
    Some(((number(first)?, number(last)?), number(total)?))
}

/// Reads the few words of an answer that is none, so that the connection stays of use.
pub(super) fn drain(response: Response<Body>) {
    read_to_end(&mut response.into_body().into_reader());
}

fn read_to_end(reader: &mut BodyReader<'_>) {
    let mut buf = [0; 4096];
    let mut left = MAX_DRAIN;
    while left > 0 {
        match reader.read(&mut buf) {
            Ok(0) | Err(_) => return,
            Ok(n) => left = left.saturating_sub(n as u64),
        }
    }
}

impl Answer {
    pub(super) fn new(bytes: Bytes, connection: Connection) -> Answer {
        Answer {
            bytes,
            _connection: connection,
        }
    }

    /// Fills as much of `buf` as comes in time. Returns how much that is, and why it is not more.
    pub(super) fn fill(
        &mut self,
        buf: &mut [u8],
        patience: &mut Patience,
    ) -> (usize, Option<String>) {
        if let Err(why) = self.skip(patience) {
            return (0, Some(why));
        }
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read(rest, patience) {
                Ok(n) => done += n,
                Err(why) => return (done, Some(why)),
            }
        }
        (done, None)
    }

    /// All of it; `None` when that is more than `limit` bytes.
    pub(super) fn read_all(
        &mut self,
        limit: u64,
        patience: &mut Patience,
    ) -> Result<Option<Vec<u8>>, String> {
        const STEP: usize = 64 << 10;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let stated = self
            .bytes
            .left
            .map(|left| usize::try_from(left).unwrap_or(usize::MAX));
        if stated.is_some_and(|stated| stated > limit) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut done = 0;
        loop {
            if stated == Some(done) {
                bytes.truncate(done);
                return Ok(Some(bytes));
            }
            if done > limit {
                return Ok(None);
            }
            // Nothing is believed that has not come.
            bytes.resize(done + STEP, 0);
            match self.read_some(bytes.get_mut(done..).unwrap_or_default(), patience)? {
                0 if stated.is_none() => {
                    bytes.truncate(done);
                    return Ok(Some(bytes));
                }
                0 => return Err("the answer was broken off".into()),
                n => done += n,
            }
        }
    }

    /// Passes over bytes that come first and that nobody wants.
    pub(super) fn pass_over(&mut self, bytes: u64) {
        self.bytes.skip += bytes;
    }

    /// Reads what is left if that is little, so that the connection stays of use.
    pub(super) fn finish(mut self) {
        if self.bytes.left.is_none_or(|rest| rest <= MAX_DRAIN) {
            read_to_end(&mut self.bytes.reader);
        }
    }

    fn skip(&mut self, patience: &mut Patience) -> Result<(), String> {
        let mut buf = [0; 8192];
        while self.bytes.skip > 0 {
            let wanted = usize::try_from(self.bytes.skip).unwrap_or(buf.len());
            let wanted = buf.get_mut(..wanted.min(8192)).unwrap_or_default();
            self.bytes.skip -= self.read(wanted, patience)? as u64;
        }
        Ok(())
    }

    /// At least one byte.
    fn read(&mut self, buf: &mut [u8], patience: &mut Patience) -> Result<usize, String> {
        match self.read_some(buf, patience)? {
            0 => Err("the answer was broken off".into()),
            n => Ok(n),
        }
    }

    /// 0 at the end.
    fn read_some(&mut self, buf: &mut [u8], patience: &mut Patience) -> Result<usize, String> {
        if patience.is_over() {
            return Err("the bytes come too slowly".into());
        }
        match self.bytes.reader.read(buf) {
            Ok(n) => {
                patience.moved();
                if let Some(left) = &mut self.bytes.left {
                    *left = left.saturating_sub(n as u64);
                }
                Ok(n)
            }
            Err(error) => Err(match error.to_string().contains("timeout") {
                true => "no byte came in time".into(),
                false => format!(
                    "the answer was broken off: {}",
                    crate::printable::shown(&error.to_string())
                ),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w6_a_content_range_is_exact_or_none() {
        assert_eq!(parse("bytes 0-9/10"), Some(((0, 9), 10)));
        for text in [
            "",
            "bytes 0-9/*",
            "bytes */10",
            "0-9/10",
            "bytes 0-9",
            "bytes +0-9/10",
            "bytes 0-9/10 ",
            "bytes -9/10",
            "items 0-9/10",
            "bytes 0-99999999999999999999/10",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
