//! Paths of files inside a model.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::limits;
use crate::printable::printable;

/// The path of a file in a model: relative, `/` between components, UTF-8.
///
/// Guarantees: no empty, `.` or `..` component, no leading or trailing `/`, no control character
/// (but see [`of_original`](EntryPath::of_original)), no component over [`limits::MAX_NAME_BYTES`], no path over [`limits::MAX_PATH_BYTES`] or deeper
/// than [`limits::MAX_PATH_DEPTH`]. A backslash is an ordinary character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryPath(Arc<str>);

impl EntryPath {
    /// Checks `path` against every rule above.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the path and the rule.
    pub fn new(path: &str) -> Result<EntryPath> {
        EntryPath::checked(path, char::is_control)
    }

    /// As [`new`](EntryPath::new), but control characters other than NUL pass: for archives of the
    /// original tool, which took every name that a Linux file system takes.
    ///
    /// # Errors
    /// As [`new`](EntryPath::new).
    pub fn of_original(path: &str) -> Result<EntryPath> {
        EntryPath::checked(path, |c| c == '\0')
    }

    /// As [`new`](EntryPath::new), for who says which path it is: the error is the rule that it breaks.
    ///
    /// # Errors
    /// A clause.
    pub(crate) fn checked_as_clause(path: &str) -> std::result::Result<EntryPath, String> {
        match broken_rule(path, char::is_control) {
            None => Ok(EntryPath(path.into())),
            Some(rule) => Err(rule),
        }
    }

    fn checked(path: &str, refused: impl Fn(char) -> bool) -> Result<EntryPath> {
        match broken_rule(path, refused) {
            None => Ok(EntryPath(path.into())),
            Some(rule) => Err(Error::malformed(
                format!("path \"{}\"", shorten(path)),
                rule,
            )),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, outermost first; never empty.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The paths of the directories that it is in, outermost first, but for the root.
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        let path = self.as_str();
        let ends = path.match_indices('/');
        ends.filter_map(|(end, _)| path.get(..end))
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for EntryPath {
    /// The path made [`printable`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

fn broken_rule(path: &str, refused: impl Fn(char) -> bool) -> Option<String> {
    if path.is_empty() {
        return Some("is empty".into());
    }
    if path.starts_with('/') {
        return Some("is absolute; paths are relative to the model's root".into());
    }
    if path.len() > limits::MAX_PATH_BYTES {
        return Some(format!(
            "has {} bytes, the limit is {}",
            path.len(),
            limits::MAX_PATH_BYTES
        ));
    }
    if path.chars().any(refused) {
        return Some("contains a control character".into());
    }
    let mut depth = 0;
    for component in path.split('/') {
        depth += 1;
        match component {
            "" => return Some("has an empty component".into()),
            "." | ".." => return Some(format!("has a \"{component}\" component")),
            _ if component.len() > limits::MAX_NAME_BYTES => {
                return Some(format!(
                    "has a component of {} bytes, the limit is {}",
                    component.len(),
                    limits::MAX_NAME_BYTES
                ));
            }
            _ => {}
        }
    }
    (depth > limits::MAX_PATH_DEPTH).then(|| {
        format!(
            "is {depth} components deep, the limit is {}",
            limits::MAX_PATH_DEPTH
        )
    })
}

/// At most 120 characters of a name, for messages.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for good in [
            "a",
            "a/b",
            "v1..2",
            "..a",
            "a b",
            "ünï/코드",
            "back\\slash",
            "...",
            "-rf",
        ] {
            assert_eq!(EntryPath::new(good).unwrap().as_str(), good);
        }
        assert_eq!(EntryPath::new("a/b/c.txt").unwrap().file_name(), "c.txt");
    }

    #[test]
    fn p1_refuses_paths_that_are_not_plain_relative() {
        for bad in [
            "", "/", "/a", ".", "..", "../a", "a/..", "a/../b", "a//b", "a/", "./a", "a/./b",
        ] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn p2_refuses_control_characters() {
        for bad in ["a\0b", "a\nb", "\x1b[31m", "a\x7f", "a\u{85}"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_the_original_tool_pass_but_for_nul() {
        assert_eq!(
            EntryPath::of_original("new\nline").unwrap().to_string(),
            "new\\u{a}line"
        );
        for bad in ["a\0b", "../a", "a//b"] {
            assert!(EntryPath::of_original(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn p3_refuses_names_that_no_file_system_takes() {
        assert!(EntryPath::new(&"a".repeat(255)).is_ok());
        assert!(EntryPath::new(&"a".repeat(256)).is_err());
        let deep = |n: usize| vec!["d"; n].join("/");
        assert!(EntryPath::new(&deep(64)).is_ok());
        assert!(EntryPath::new(&deep(65)).is_err());
        let long = |n: usize| format!("{}/{}", vec!["a".repeat(254); 16].join("/"), "b".repeat(n));
        assert!(EntryPath::new(&long(15)).is_ok(), "4,095 bytes");
        assert!(EntryPath::new(&long(16)).is_err(), "4,096 bytes");
    }
}
