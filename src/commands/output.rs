//! What the user sees at the end: errors, hints, exit codes, and how values are spelt.
//!
//! Everything that came from outside (an archive, a file name, an argument) is made printable here
//! or where its error was built; no message can drive a terminal or forge a second line.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use modeloci::memory::room::Fitted;
use modeloci::printable::{printable, printable_path};
use modeloci::source::{self, registry::Reference};
use modeloci::{Error, ErrorKind};

use super::interrupt;

/// An error with advice on what to do about it.
#[derive(Debug)]
pub(crate) struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Adds advice to an error.
pub(crate) fn hint(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted {
        error: error.into(),
        hint: hint.into(),
    })
}

/// Who reads the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codes {
    /// Whoever runs `modeloci`: see [`code_of`].
    Modeloci,
    /// mount(8): section "EXIT STATUS" there.
    MountHelper,
}

/// mount(8): "incorrect invocation or permissions".
const MOUNT_USAGE: u8 = 1;
/// mount(8): "mount failure".
const MOUNT_FAILURE: u8 = 32;

/// Names the archive in an error that speaks only of its manifest, and says why a registry was asked where
/// a file may have been meant.
pub(crate) fn about(archive: &Path, error: Error) -> anyhow::Error {
    let kind = error.kind();
    let error = anyhow::Error::new(error);
    match kind {
        ErrorKind::PinMismatch => error.context(printable_path(archive)),
        ErrorKind::Environment if is_instead_of_a_path(archive) => hint(
            error,
            "there is no such file, so it is taken for a model in a registry",
        ),
        _ => error,
    }
}

/// True for a reference that could have been meant as a path, as in `models.old/llama`.
fn is_instead_of_a_path(archive: &Path) -> bool {
    let reference = source::reference_of(archive).ok().flatten();
    let like_a_path =
        |reference: Reference| reference.host() != "localhost" && !reference.host().contains(':');
    Reference::explicit(archive).is_none() && reference.is_some_and(like_a_path)
}

/// Prints a failure and returns its exit code. A reader that closed its end of stdout wanted no
/// more, which is no failure.
pub(crate) fn failure(error: &anyhow::Error, codes: Codes) -> ExitCode {
    let (error, hint) = match error.downcast_ref::<Hinted>() {
        Some(hinted) => (&hinted.error, Some(&hinted.hint)),
        None => (error, None),
    };
    if let Some(io) = error.downcast_ref::<io::Error>()
        && io.kind() == io::ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    report_line(&format!("error: {}", message(error)));
    if let Some(hint) = hint {
        report_line(&format!("hint: {hint}"));
    }
    interrupt::finish();
    ExitCode::from(exit_code(error, codes))
}

/// Prints what clap has to say: help and version to stdout, wrong usage to stderr.
pub(crate) fn usage(error: &clap::Error, codes: Codes) -> ExitCode {
    if error.use_stderr() {
        // Rendered without colour, because the arguments that it quotes must be made printable.
        let text = error.render().to_string();
        for line in text.trim_end().lines() {
            report_line(line);
        }
        ExitCode::from(match codes {
            Codes::Modeloci => code_of(ErrorKind::Usage),
            Codes::MountHelper => MOUNT_USAGE,
        })
    } else {
        let _ = error.print();
        ExitCode::SUCCESS
    }
}

/// One line to stderr, printable; a closed stderr is no reason to fail.
pub(crate) fn report_line(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// The error and its contexts, outermost first. A library error already contains its cause.
fn message(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        parts.push(cause.to_string());
        if cause.is::<Error>() {
            break;
        }
    }
    parts.join(": ")
}

fn exit_code(error: &anyhow::Error, codes: Codes) -> u8 {
    let known = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Error>());
    if codes == Codes::MountHelper {
        return match known.map(Error::kind) {
            Some(ErrorKind::Usage) => MOUNT_USAGE,
            _ => MOUNT_FAILURE,
        };
    }
    match known {
        Some(error) => code_of(error.kind()),
        None if error.chain().any(|cause| cause.is::<io::Error>()) => 5,
        None => 1,
    }
}

/// The exit code of each kind of failure.
pub(crate) fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::Malformed => 3,
        ErrorKind::PinMismatch => 4,
        ErrorKind::Environment => 5,
        // Corrupt, Refused, NotFound, and kinds to come.
        _ => 1,
    }
}

/// Writes to stdout in one go.
///
/// # Errors
/// Those of stdout; a broken pipe ends the command quietly, see [`failure`].
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write standard output")
}

/// Prints a JSON document, indented.
///
/// JSON escapes the C0 controls only; the rest of what could drive a terminal is escaped here,
/// which any JSON parser undoes.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    let mut text = escape_json(&serde_json::to_string_pretty(value)?);
    text.push('\n');
    print(&text)
}

/// Escapes within the strings of a JSON text what [`printable`] escapes, as `\uXXXX`.
pub(crate) fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && printable(c.encode_utf8(&mut [0; 4])).starts_with("\\u{") {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A path as the original tool prints it: absolute, and here printable too.
pub(crate) fn absolute(path: &Path) -> String {
    printable_path(&std::path::absolute(path).unwrap_or_else(|_| path.into()))
}

/// A number of bytes in the original tool's lines: kibibytes, called `KB` there. All else is told in the
/// units of [`modeloci::byte_size::format_size`].
pub(crate) fn original_kilobytes(bytes: u64) -> String {
    format!("{:.1} KB", bytes as f64 / 1024.0)
}

/// `part / whole` to four places; `None` of nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 1e4).round() / 1e4)
}

/// ` (79.8 %)`: the size of an archive in percent of the model's; nothing for a model so small that
/// it only measures tar headers.
pub(crate) fn percent(archive: u64, model: u64) -> String {
    match ratio(archive, model) {
        Some(ratio) if model >= 1_000_000 => format!(" ({:.1} %)", ratio * 100.0),
        _ => String::new(),
    }
}

/// A line of what the original tool did not print: `Digest:    sha256:...`.
pub(crate) fn line(label: &str, value: &str) -> String {
    format!("{:<10} {}\n", format!("{label}:"), printable(value))
}

/// `1 file`, `2 files`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The number of threads, after a word on those that do not fit.
pub(crate) fn fitted(fitted: Fitted) -> usize {
    if let Some(warning) = fitted.warning {
        report_line(&format!("warning: {warning}"));
    }
    fitted.threads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_models_have_no_percentage() {
        assert_eq!(percent(9216, 0), "");
        assert_eq!(percent(9216, 1), "");
        assert_eq!(percent(1_009_216, 999_999), "");
        assert_eq!(percent(798_000, 1_000_000), " (79.8 %)");
    }

    #[test]
    fn contexts_lead_and_the_cause_decides_the_code() {
        let error = anyhow::Error::new(Error::malformed("a.tar", "is empty")).context("inspect");
        assert_eq!(message(&error), "inspect: a.tar: is empty");
        assert_eq!(exit_code(&error, Codes::Modeloci), 3);
        assert_eq!(exit_code(&error, Codes::MountHelper), 32);
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = anyhow::Error::new(Error::io("read", "x")(cause));
        assert_eq!(message(&error), "cannot read x: permission denied");
        assert_eq!(exit_code(&error, Codes::Modeloci), 5);
        assert_eq!(exit_code(&error, Codes::MountHelper), 32);
        let error = anyhow::Error::new(Error::usage("x"));
        assert_eq!(exit_code(&error, Codes::Modeloci), 2);
        assert_eq!(exit_code(&error, Codes::MountHelper), 1);
        let error = hint(Error::refused("out", "exists already"), "use --force");
        assert_eq!(message(&error), "out: exists already");
    }

    #[test]
    fn p6_json_escapes_what_drives_a_terminal() {
        let json = escape_json("\"a\u{202e}b\u{e0041}\u{9b}\"\n");
        assert_eq!(json, "\"a\\u202eb\\udb40\\udc41\\u009b\"\n");
        let back: String = serde_json::from_str(&json).expect("still JSON");
        assert_eq!(back, "a\u{202e}b\u{e0041}\u{9b}");
    }
}
