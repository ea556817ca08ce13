//! A progress bar on stderr: bytes, rate, time left; only where someone can see it.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Verbosity;

/// Shows how far some work is. Nothing is drawn when stderr is no terminal, or with `--quiet`.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar that says what is done: "packing".
    pub(crate) fn new(what: &'static str, verbosity: Verbosity) -> Progress {
        Progress::styled(
            what,
            verbosity,
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        )
    }

    /// The same for work whose end is not known.
    pub(crate) fn without_end(what: &'static str, verbosity: Verbosity) -> Progress {
        let style = "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}";
        Progress::styled(what, verbosity, style)
    }

    /// True when somebody can see it.
    pub(crate) fn is_seen(verbosity: Verbosity) -> bool {
        stderr().is_terminal() && !verbosity.quiet
    }

    fn styled(what: &'static str, verbosity: Verbosity, style: &str) -> Progress {
        let target = match Progress::is_seen(verbosity) {
            true => ProgressDrawTarget::stderr_with_hz(10),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress(bar)
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }

    /// Takes (bytes done, bytes in total) from any thread.
    pub(crate) fn update(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
