//! How a serving process tells its starter that the mount answers, or why it does not.
//!
//! One line on an inherited descriptor: `READY=1`, or `ERROR=<kind> <message>`. A starter that
//! reads neither before the end knows that the process died. Before it, who has asked for them gets
//! lines `PROGRESS=<bytes>`.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;

use modeloci::{Error, ErrorKind, Result};

use super::process;

/// What a line begins with that says how far opening is.
pub(super) const PROGRESS: &str = "PROGRESS=";
/// Longest line that is read, in bytes.
const MAX_REPORT_BYTES: u64 = 64 << 10;

/// The serving process's end.
pub(crate) struct Reporter(Option<File>);

impl Reporter {
    /// Reports to the descriptor of that number; to nobody when there is none.
    pub(crate) fn new(fd: Option<i32>) -> Result<Reporter> {
        let Some(fd) = fd else {
            return Ok(Reporter(None));
        };
        let file = process::inherit_fd(fd).map_err(|_| {
            let why = match fd {
                0..=2 => "is a standard stream; use 3 or more",
                _ => "is not an open descriptor",
            };
            Error::usage(format!("--ready-fd {fd}: {why}"))
        })?;
        Ok(Reporter(Some(File::from(file))))
    }

    /// One more descriptor of the same.
    pub(crate) fn starter(&self) -> Option<OwnedFd> {
        self.0.as_ref()?.try_clone().ok().map(OwnedFd::from)
    }

    /// The mount answers. Fails when the starter is gone.
    pub(crate) fn ready(&mut self) -> io::Result<()> {
        match self.0.take() {
            Some(mut pipe) => pipe.write_all(b"READY=1\n"),
            None => Ok(()),
        }
    }

    /// The mount will never answer. Does nothing after [`ready`](Reporter::ready).
    pub(crate) fn failed(&mut self, error: &Error) {
        if let Some(mut pipe) = self.0.take() {
            // A starter that is gone needs no report. The message is printable, so it has no
            // line break.
            let _ = writeln!(pipe, "ERROR={}", spelt(error));
        }
    }
}

/// Waits for the report: `None` when the process ended without one. `progress` takes the bytes that
/// were read until then.
pub(crate) fn receive(pipe: impl Read, progress: impl Fn(u64)) -> Option<Result<()>> {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut line = String::new();
        let mut part = pipe.by_ref().take(MAX_REPORT_BYTES);
        part.read_line(&mut line).ok()?;
        let line = line.strip_suffix('\n')?;
        if line == "READY=1" {
            return Some(Ok(()));
        }
        match line.strip_prefix(PROGRESS) {
            Some(bytes) => progress(bytes.parse().ok()?),
            None => return read(line.strip_prefix("ERROR=")?).map(Err),
        }
    }
}

/// An error as another process can read it: its kind, and its text.
pub(crate) fn spelt(error: &Error) -> String {
    format!("{} {error}", error.kind().name())
}

/// The error of another process; `None` for anything else.
pub(crate) fn read(spelt: &str) -> Option<Error> {
    let (kind, message) = spelt.split_once(' ')?;
    let kind = ErrorKind::ALL.into_iter().find(|k| k.name() == kind)?;
    Some(Error::reported(kind, message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn report(act: impl FnOnce(&mut Reporter)) -> Option<Result<()>> {
        let (reader, writer) = io::pipe().unwrap();
        let mut reporter = Reporter(Some(File::from(std::os::fd::OwnedFd::from(writer))));
        act(&mut reporter);
        drop(reporter);
        receive(reader, |_| ())
    }

    #[test]
    fn readiness_and_every_kind_of_error_arrive() {
        assert!(matches!(report(|r| r.ready().unwrap()), Some(Ok(()))));
        for kind in ErrorKind::ALL {
            let error = Error::reported(kind, "layer a (sha256:00): is not in the archive");
            let received = report(|r| r.failed(&error)).unwrap().unwrap_err();
            assert_eq!(received.kind(), kind);
            assert_eq!(received.to_string(), error.to_string());
        }
    }

    #[test]
    fn descriptors_that_cannot_be_used_are_refused() {
        for (fd, why) in [
            (1, "standard stream"),
            (1_000_000, "not an open"),
            (-1, "not an open"),
        ] {
            let error = Reporter::new(Some(fd)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn silence_and_noise_are_no_report() {
        assert!(report(|_| ()).is_none());
        for noise in ["READY=1", "READY=2\n", "ERROR=odd x\n", "ERROR=usage\n"] {
            assert!(receive(noise.as_bytes(), |_| ()).is_none(), "{noise}");
        }
    }

    #[test]
    fn progress_comes_before_the_report() {
        let told = std::cell::RefCell::new(Vec::new());
        let receive = |text: &str| receive(text.as_bytes(), |bytes| told.borrow_mut().push(bytes));
        let text = "PROGRESS=1\nPROGRESS=20\nREADY=1\n";
        assert!(matches!(receive(text), Some(Ok(()))));
        for noise in ["PROGRESS=3\n", "PROGRESS=4", "PROGRESS=\nREADY=1\n"] {
            assert!(receive(noise).is_none(), "{noise}");
        }
        assert_eq!(told.into_inner(), [1, 20, 3]);
    }

    #[test]
    fn a_starter_that_is_gone_is_noticed() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut reporter = Reporter(Some(File::from(std::os::fd::OwnedFd::from(writer))));
        assert!(reporter.ready().is_err());
    }
}
