//! The error type of the library.
//!
//! One type carries what went wrong, with what was expected and found, and a [`kind`](Error::kind)
//! that a caller can act on: the binary turns it into an exit code, the mount into an errno.
//! Its strings are [`Text`]s: printable, so that a message never carries a terminal escape, and of a
//! bounded length, because an error may be kept as long as the layer that it is about.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use crate::digest::Digest;
use crate::printable::{Text, printable_path};

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or option is wrong (exit code 2).
    Usage,
    /// The archive breaks a rule of its format, or is refused by a limit (exit code 3).
    Malformed,
    /// Content differs from its digest, or a verified table lies about it (exit code 1, `EIO`).
    Corrupt,
    /// The manifest is not the one that was pinned (exit code 4).
    PinMismatch,
    /// The operating system refused: permissions, disk, FUSE (exit code 5).
    Environment,
    /// A file changed while it was packed, or a result exists already (exit code 1).
    Refused,
    /// A path or digest that the archive does not have (exit code 1).
    NotFound,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [ErrorKind; 7] = [
        ErrorKind::Usage,
        ErrorKind::Malformed,
        ErrorKind::Corrupt,
        ErrorKind::PinMismatch,
        ErrorKind::Environment,
        ErrorKind::Refused,
        ErrorKind::NotFound,
    ];

    /// Its name, for other programs.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Usage => "usage",
            ErrorKind::Malformed => "malformed",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::PinMismatch => "pin-mismatch",
            ErrorKind::Environment => "environment",
            ErrorKind::Refused => "refused",
            ErrorKind::NotFound => "not-found",
        }
    }
}

/// What went wrong, where, and what was expected. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is wrong.
    #[error("{0}")]
    Usage(Text),
    /// `subject` (an archive, entry, blob or document) breaks `rule`.
    #[error("{subject}: {rule}")]
    Malformed {
        /// What is malformed: names the file, entry or digest.
        subject: Text,
        /// The rule that it breaks, with the values found.
        rule: Text,
    },
    /// `subject` (a layer, chunk or file) is not what its digest or verified table says.
    #[error("{subject}: {problem}")]
    Corrupt {
        /// What is corrupt: names the layer, its digest and the offset where known.
        subject: Text,
        /// What was expected and what was found.
        problem: Text,
    },
    /// The manifest is not the pinned one.
    #[error("manifest is {found}, but {expected} was pinned")]
    PinMismatch {
        /// The digest that the user pinned.
        expected: Box<Digest>,
        /// The digest of the manifest that the archive has.
        found: Box<Digest>,
    },
    /// An operation was refused to lose nothing: `subject`, and why.
    #[error("{subject}: {problem}")]
    Refused {
        /// The file, directory or entry.
        subject: Text,
        /// Why it was refused.
        problem: Text,
    },
    /// No such file, blob or layer.
    #[error("{subject}: {problem}")]
    NotFound {
        /// What was looked up.
        subject: Text,
        /// Where it was missing.
        problem: Text,
    },
    /// The system lacks something, or refuses it: `subject`, and what to do about it.
    #[error("{subject}: {problem}")]
    Environment {
        /// The path, program or device.
        subject: Text,
        /// What is wrong with it.
        problem: Text,
    },
    /// An error that another process of ours met and reported.
    #[error("{message}")]
    Reported {
        /// Its kind there.
        kind: ErrorKind,
        /// Its text there.
        message: Text,
    },
    /// The operating system refused `action` on `subject`.
    #[error("cannot {action} {subject}: {}", spoken(source))]
    Io {
        /// A verb phrase: "read", "create", "mount on".
        action: &'static str,
        /// The path or thing.
        subject: Text,
        /// The cause.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Usage(_) => ErrorKind::Usage,
            Error::Malformed { .. } => ErrorKind::Malformed,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::PinMismatch { .. } => ErrorKind::PinMismatch,
            Error::Refused { .. } => ErrorKind::Refused,
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::Environment { .. } | Error::Io { .. } => ErrorKind::Environment,
            Error::Reported { kind, .. } => *kind,
        }
    }

    /// Bytes of memory that its texts take.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Error::Usage(text) | Error::Reported { message: text, .. } => text.len(),
            Error::Malformed { subject, rule } => subject.len() + rule.len(),
            Error::Corrupt { subject, problem }
            | Error::Refused { subject, problem }
            | Error::NotFound { subject, problem }
            | Error::Environment { subject, problem } => subject.len() + problem.len(),
            Error::Io { subject, .. } => subject.len(),
            Error::PinMismatch { .. } => 0,
        }
    }

    /// An [`Error::Malformed`]; of bounded texts.
    pub fn malformed(subject: impl fmt::Display, rule: impl fmt::Display) -> Error {
        Error::Malformed {
            subject: Text::foreign(subject),
            rule: Text::foreign(rule),
        }
    }

    /// An [`Error::Corrupt`]; of bounded texts.
    pub fn corrupt(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::Corrupt {
            subject: Text::foreign(subject),
            problem: Text::foreign(problem),
        }
    }

    /// An [`Error::Refused`]; of bounded texts.
    pub fn refused(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::Refused {
            subject: Text::own(subject),
            problem: Text::own(problem),
        }
    }

    /// An [`Error::NotFound`]; of bounded texts.
    pub fn not_found(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::NotFound {
            subject: Text::own(subject),
            problem: Text::own(problem),
        }
    }

    /// An [`Error::Environment`]; of bounded texts.
    pub fn environment(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::Environment {
            subject: Text::own(subject),
            problem: Text::own(problem),
        }
    }

    /// An [`Error::Usage`]; of a bounded text.
    pub fn usage(message: impl fmt::Display) -> Error {
        Error::Usage(Text::own(message))
    }

    /// An [`Error::Io`] about a path: `map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let subject = printable_path(path.as_ref());
        move |source| Error::failed(action, subject, source)
    }

    /// An [`Error::Io`] about something that has no path of its own.
    pub(crate) fn failed(
        action: &'static str,
        subject: impl fmt::Display,
        source: io::Error,
    ) -> Error {
        Error::Io {
            action,
            subject: Text::own(subject),
            source: Arc::new(source),
        }
    }

    /// An [`Error::Reported`].
    pub fn reported(kind: ErrorKind, message: impl fmt::Display) -> Error {
        Error::Reported {
            kind,
            message: Text::own(message),
        }
    }

    /// Puts `subject` in front of what the error already names, keeping its kind.
    #[must_use]
    pub fn within(self, outer: impl fmt::Display) -> Error {
        let join = |subject: Text| Text::own(format_args!("{outer}: {subject}"));
        match self {
            Error::Malformed { subject, rule } => Error::Malformed {
                subject: join(subject),
                rule,
            },
            Error::Corrupt { subject, problem } => Error::Corrupt {
                subject: join(subject),
                problem,
            },
            Error::Refused { subject, problem } => Error::Refused {
                subject: join(subject),
                problem,
            },
            Error::NotFound { subject, problem } => Error::NotFound {
                subject: join(subject),
                problem,
            },
            Error::Environment { subject, problem } => Error::Environment {
                subject: join(subject),
                problem,
            },
            other @ (Error::Usage(_)
            | Error::PinMismatch { .. }
            | Error::Reported { .. }
            | Error::Io { .. }) => other,
        }
    }
}

/// An operating system's message in the style of ours: lower case, without the number.
fn spoken(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(code) = error.raw_os_error() else {
        return match wrapped(error, &text) {
            Some(inner) => spoken(&inner),
            None => text,
        };
    };
    let text = text
        .strip_suffix(&format!(" (os error {code})"))
        .unwrap_or(&text);
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // "RPC" stays as it is.
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_lowercase() => {
            format!(
                "{}{}",
                first.to_ascii_lowercase(),
                text.get(1..).unwrap_or_default()
            )
        }
        _ => text.to_string(),
    }
}

/// The system's error in one that a library put words around: a path, say, that is in ours too.
/// tempfile gives access to nothing but the text and the kind.
fn wrapped(error: &io::Error, text: &str) -> Option<io::Error> {
    let (_, behind) = text.split_once(" (os error ")?;
    let (code, _) = behind.split_once(')')?;
    let inner = io::Error::from_raw_os_error(code.parse().ok()?);
    (inner.kind() == error.kind()).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_system_read_like_ours() {
        let text = |cause| Error::io("open", "a.tar")(cause).to_string();
        assert_eq!(
            text(io::Error::from_raw_os_error(libc::ENOENT)),
            "cannot open a.tar: no such file or directory"
        );
        assert_eq!(
            text(io::Error::other("Some words (os error 2)")),
            "cannot open a.tar: Some words (os error 2)"
        );
        let wrapped = tempfile::NamedTempFile::new_in("/does/not/exist").unwrap_err();
        assert_eq!(wrapped.raw_os_error(), None);
        assert_eq!(
            text(wrapped),
            "cannot open a.tar: no such file or directory"
        );
    }
}
