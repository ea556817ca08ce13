//! Columns of paths, sizes and digests: the original tool's, and where a terminal is too narrow for them
//! as many as it has.
//!
//! Nothing is cut but the digits of digests, which the original shortens alike: a path that is too wide
//! stands on a line of its own.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, stdout};

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr as _;

/// One file or directory.
pub(crate) struct Row {
    /// Printable.
    pub(crate) path: String,
    pub(crate) size: String,
    /// Empty where it stands elsewhere.
    pub(crate) digest: String,
}

/// Digits of a shortened digest.
const DIGITS: usize = 12;
/// Columns of the original's paths, where none is wider.
const PATH: usize = 40;
/// Wider paths do not push the others' sizes away.
const WIDEST_PATH: usize = 60;
/// Narrower columns of paths are none.
const NARROWEST_PATH: usize = 20;
/// Columns of `4321.0 KB`.
const SIZE: usize = 9;

/// The columns of the terminal that standard output is.
pub(crate) fn columns() -> Option<usize> {
    let stdout = stdout();
    let size = stdout.is_terminal().then(|| terminal_size_of(&stdout));
    size.flatten().map(|(Width(columns), _)| columns.into())
}

/// A digest in so many columns: whole if it fits, as in a file or a pipe it always does.
pub(crate) fn digest(digest: &str, room: Option<usize>) -> String {
    let short = digest
        .split_once(':')
        .filter(|_| room.is_some_and(|room| digest.len() > room))
        .and_then(|(algorithm, digits)| Some(format!("{algorithm}:{}...", digits.get(..DIGITS)?)));
    short.unwrap_or_else(|| digest.to_string())
}

/// The rows behind `indent`, in so many columns.
pub(crate) fn render(indent: &str, rows: &[Row], columns: Option<usize>) -> String {
    // One very long path must not push every other line's size off the screen.
    let widths = rows.iter().map(|row| row.path.width());
    let widest = widths.filter(|n| *n <= WIDEST_PATH).max().unwrap_or(0);
    let mut path_width = widest.max(PATH);
    let room = columns.map(|columns| columns.saturating_sub(indent.len()));
    // Beside the path and the size.
    let beside = |path: usize| room.map(|room| room.saturating_sub(path + 1 + SIZE + 2));
    let digests: Vec<String> = rows
        .iter()
        .map(|row| digest(&row.digest, beside(path_width)))
        .collect();
    let mut text = String::new();
    let widest_digest = digests.iter().map(|digest| digest.len()).max().unwrap_or(0);
    if let Some(room) = room {
        path_width = path_width.min(room.saturating_sub(1 + SIZE + 2 + widest_digest));
    }
    for (row, digest) in rows.iter().zip(digests) {
        // Some characters take two columns, others none.
        let width = row.path.width();
        let mut line = format!("{indent}{}", row.path);
        let mut pad = path_width.saturating_sub(width);
        let wraps = columns.is_some() && width > path_width;
        if wraps || path_width < NARROWEST_PATH {
            let _ = writeln!(text, "{line}");
            line = indent.to_string();
            pad = match path_width {
                0..NARROWEST_PATH => 1,
                _ => path_width,
            };
        }
        let size = &row.size;
        let _ = write!(line, "{:pad$} {size:>SIZE$}  {digest}", "");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |path: &str, size: &str, digest: &str| Row {
            path: path.into(),
            size: size.into(),
            digest: digest.into(),
        };
        let (sha256, sha512) = ("a".repeat(64), "b".repeat(128));
        vec![
            row("config.json", "2.1 KB", &format!("sha256:{sha256}")),
            row(
                &"\u{6a21}".repeat(20),
                "0.0 KB",
                &format!("sha512:{sha512}"),
            ),
            row("e\u{301}", "4321.0 KB", ""),
            row(&"x".repeat(100), "18.4 KB", &format!("sha256:{sha256}")),
        ]
    }

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.width()).max().unwrap_or(0)
    }

    #[test]
    fn without_a_terminal_nothing_is_shortened() {
        let text = render("  ", &rows(), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let sha256 = "a".repeat(64);
        let name = "config.json";
        assert_eq!(lines[0], format!("  {name:40}    2.1 KB  sha256:{sha256}"));
        assert!(lines[1].ends_with(&"b".repeat(128)));
        assert_eq!(lines[2].width(), 2 + 40 + 1 + 9);
        assert!(lines[3].starts_with(&format!("  {}   18.4 KB  ", "x".repeat(100))));
    }

    #[test]
    fn wide_terminals_show_digests_in_full() {
        let text = render("  ", &rows()[..1], Some(125));
        assert_eq!(text, render("  ", &rows()[..1], None));
        let text = render("  ", &rows()[..1], Some(124));
        assert!(text.ends_with("  sha256:aaaaaaaaaaaa...\n"), "{text}");
    }

    #[test]
    fn a_hundred_columns_hold_all_but_long_paths() {
        let text = render("  ", &rows(), Some(100));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        let name = "config.json";
        assert_eq!(
            lines[0],
            format!("  {name:40}    2.1 KB  sha256:aaaaaaaaaaaa...")
        );
        assert!(lines[1].ends_with("  sha512:bbbbbbbbbbbb..."));
        assert_eq!(lines[1].width(), lines[0].width());
        assert_eq!(lines[3].trim(), "x".repeat(100));
        assert_eq!(
            lines[4],
            format!("  {:40}   18.4 KB  sha256:aaaaaaaaaaaa...", "")
        );
        assert!(widest(&[lines[0], lines[1], lines[2], lines[4]].join("\n")) <= 100);
    }

    #[test]
    fn eighty_columns_narrow_the_paths() {
        let text = render("    ", &rows()[..3], Some(72));
        assert!(widest(&text) <= 72, "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("\u{6a21}\n"), "{text}");
    }

    #[test]
    fn forty_columns_hold_size_and_digest_below_the_path() {
        let text = render("  ", &rows()[..3], Some(40));
        assert!(widest(&text) <= 42, "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  config.json");
        assert_eq!(lines[1], "       2.1 KB  sha256:aaaaaaaaaaaa...");
        assert_eq!(lines[5], "    4321.0 KB");
        for columns in 0..40 {
            assert_eq!(render("  ", &rows(), Some(columns)).lines().count(), 8);
        }
    }
}
