//! Text that came out of an archive, made fit for a terminal.

use std::fmt::Write as _;
use std::path::Path;

/// `text` with every character escaped that could drive a terminal or reorder a line: controls
/// other than newline and tab in trusted positions are written as `\u{…}`.
///
/// Newlines are escaped too: a name must not be able to forge a second line of output.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

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
