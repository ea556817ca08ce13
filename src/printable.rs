//! Text that came out of an archive, made fit for a terminal and for memory.

use std::fmt::{self, Write as _};
use std::ops::Deref;
use std::path::Path;

/// `text` with every character escaped that could drive a terminal or reorder a line: controls
/// other than newline and tab in trusted positions are written as `\u{…}`.
///
/// Newlines are escaped too: a name must not be able to forge a second line of output.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut out, c));
    out
}

fn push(out: &mut String, c: char) {
    if is_unprintable(c) {
        let _ = write!(out, "{}", c.escape_unicode());
    } else {
        out.push(c);
    }
}

/// Control characters, and the format characters that reorder or hide text (UAX #9 bidi controls,
/// zero-width marks, line and paragraph separators, tags, the byte-order mark).
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A file system path, made [`printable`]; bytes that are not UTF-8 become `\xNN`.
pub fn printable_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    printable_bytes(path.as_os_str().as_bytes())
}

/// Bytes of a name, made [`printable`]; bytes that are not UTF-8 become `\xNN`.
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A printable text of bounded length, whatever it is made of: what errors consist of. Of a long one
/// its start and its end are shown, with how much was left out between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(Box<str>);

impl Text {
    /// Longest text about what stands in an archive, in bytes: a name that can be recognised, and a
    /// sentence.
    pub const MAX_FOREIGN: usize = 1 << 10;
    /// Longest text that may name a path of the user's, in bytes: such a path is shown whole.
    pub const MAX_OWN: usize = 8 << 10;
    /// Longest string out of a document inside of such a text, in bytes.
    const MAX_SHOWN: usize = 256;

    /// A text about what stands in an archive.
    pub fn foreign(text: impl fmt::Display) -> Text {
        Text::within(Text::MAX_FOREIGN, &text)
    }

    /// A text that may name what the user named.
    pub fn own(text: impl fmt::Display) -> Text {
        Text::within(Text::MAX_OWN, &text)
    }

    fn within(most: usize, text: &dyn fmt::Display) -> Text {
        let mut cut = Cut::new(most);
        let _ = write!(cut, "{text}");
        Text(cut.finish().into())
    }
}

/// A string out of a document, for a message: printable, and short whatever its length.
pub fn shown(text: &str) -> String {
    let mut cut = Cut::new(Text::MAX_SHOWN);
    let _ = cut.write_str(text);
    cut.finish()
}

/// The same in quotes.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Takes a text piece by piece and keeps its start and its end, without holding more.
struct Cut {
    half: usize,
    start: String,
    /// What came after the start, of late.
    end: String,
    /// Characters that stood between the two.
    left_out: usize,
}

impl Cut {
    fn new(most: usize) -> Cut {
        Cut {
            half: most / 2,
            start: String::new(),
            end: String::new(),
            left_out: 0,
        }
    }

    /// Lets go of the end's front, until `most` bytes are left.
    fn shorten(&mut self, most: usize) {
        let surplus = self.end.len().saturating_sub(most);
        let from = self.end.char_indices().find(|(at, _)| *at >= surplus);
        let from = from.map_or(self.end.len(), |(at, _)| at);
        self.left_out += self.end.drain(..from).count();
    }

    fn finish(mut self) -> String {
        if self.left_out > 0 || self.end.len() > self.half {
            self.shorten(self.half);
        }
        match self.left_out {
            0 => self.start + &self.end,
            n => format!("{}…({n} characters left out)…{}", self.start, self.end),
        }
    }
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if !self.end.is_empty() || self.start.len() >= self.half {
                push(&mut self.end, c);
            } else {
                push(&mut self.start, c);
            }
            if self.end.len() > 4 * self.half {
                self.shorten(self.half);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p6_what_is_shown_of_a_foreign_text_has_a_bound() {
        assert_eq!(&*Text::foreign("short\n"), "short\\u{a}");
        let most = Text::MAX_FOREIGN;
        let whole = "x".repeat(most);
        assert_eq!(*Text::foreign(&whole), whole);
        // Each character takes five, or six.
        for c in ['\u{1}', '\u{7f}', 'x', '한'] {
            let long = format!("from here {} to there", String::from(c).repeat(1 << 14));
            let shown = Text::foreign(&long);
            assert!(shown.len() < most + 64, "{}", shown.len());
            assert!(shown.starts_with("from here ") && shown.ends_with(" to there"));
            assert!(shown.contains(" characters left out)"), "{shown}");
            assert!(quoted(&long).len() < 320);
        }
        let path = format!("/{}", "directory/".repeat(400));
        assert_eq!(*Text::own(&path), path);
        assert_eq!(quoted("a\"b"), "\"a\"b\"");
    }

    #[test]
    fn p6_escapes_what_drives_a_terminal() {
        assert_eq!(
            printable("a\x1b[2Jb\u{202e}c\n"),
            "a\\u{1b}[2Jb\\u{202e}c\\u{a}"
        );
        assert_eq!(printable("ünï 코드"), "ünï 코드");
        assert_eq!(printable_bytes(b"a\xffb\x1b"), "a\\xffb\\u{1b}");
    }
}
