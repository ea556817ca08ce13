//! The error type of the library.
//!
//! One type carries what went wrong, with what was expected and found, and a [`kind`](Error::kind)
//! that a caller can act on: the binary turns it into an exit code, the mount into an errno.
//! Every string that came out of an archive is made printable when the error is built
//! (see [`printable`]), so a message never carries a terminal escape.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use crate::digest::Digest;
use crate::printable::{printable, printable_path};

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
    Usage(String),
    /// `subject` (an archive, entry, blob or document) breaks `rule`.
    #[error("{subject}: {rule}")]
    Malformed {
        /// What is malformed: names the file, entry or digest.
        subject: String,
        /// The rule that it breaks, with the values found.
        rule: String,
    },
    /// `subject` (a layer, chunk or file) is not what its digest or verified table says.
    #[error("{subject}: {problem}")]
    Corrupt {
        /// What is corrupt: names the layer, its digest and the offset where known.
        subject: String,
        /// What was expected and what was found.
        problem: String,
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
        subject: String,
        /// Why it was refused.
        problem: String,
    },
    /// No such file, blob or layer.
    #[error("{subject}: {problem}")]
    NotFound {
        /// What was looked up.
        subject: String,
        /// Where it was missing.
        problem: String,
    },
    /// The system lacks something, or refuses it: `subject`, and what to do about it.
    #[error("{subject}: {problem}")]
    Environment {
        /// The path, program or device.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An error that another process of ours met and reported.
    #[error("{message}")]
    Reported {
        /// Its kind there.
        kind: ErrorKind,
        /// Its text there, printable.
        message: String,
    },
    /// The operating system refused `action` on `subject`.
    #[error("cannot {action} {subject}: {}", spoken(source))]
    Io {
        /// A verb phrase: "read", "create", "mount on".
        action: &'static str,
        /// The path or thing, already printable.
        subject: String,
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

    /// An [`Error::Malformed`]; both strings are made printable.
    pub fn malformed(subject: impl fmt::Display, rule: impl fmt::Display) -> Error {
        Error::Malformed {
            subject: printable(&subject.to_string()),
            rule: printable(&rule.to_string()),
        }
    }

    /// An [`Error::Corrupt`]; both strings are made printable.
    pub fn corrupt(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::Corrupt {
            subject: printable(&subject.to_string()),
            problem: printable(&problem.to_string()),
        }
    }

    /// An [`Error::Refused`]; both strings are made printable.
    pub fn refused(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::Refused {
            subject: printable(&subject.to_string()),
            problem: printable(&problem.to_string()),
        }
    }

    /// An [`Error::NotFound`]; both strings are made printable.
    pub fn not_found(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::NotFound {
            subject: printable(&subject.to_string()),
            problem: printable(&problem.to_string()),
        }
    }

    /// An [`Error::Environment`]; both strings are made printable.
    pub fn environment(subject: impl fmt::Display, problem: impl fmt::Display) -> Error {
        Error::Environment {
            subject: printable(&subject.to_string()),
            problem: printable(&problem.to_string()),
        }
    }

    /// An [`Error::Usage`]; the string is made printable.
    pub fn usage(message: impl fmt::Display) -> Error {
        Error::Usage(printable(&message.to_string()))
    }

    /// An [`Error::Io`] about a path: `map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let subject = printable_path(path.as_ref());
        move |source| Error::Io {
            action,
            subject,
            source: Arc::new(source),
        }
    }

    /// Puts `subject` in front of what the error already names, keeping its kind.
    #[must_use]
    pub fn within(self, outer: impl fmt::Display) -> Error {
        let outer = printable(&outer.to_string());
        let join = |subject: String| format!("{outer}: {subject}");
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
