//! A progress bar on stderr: bytes, rate, time left; only where someone can see it.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Verbosity;

/// Shows how far some work is. Nothing is drawn when stderr is no terminal, or with `--quiet`.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar that says what is done: "packing".
    pub(crate) fn new(what: &'static str, verbosity: Verbosity) -> Progress {
        let target = if stderr().is_terminal() && !verbosity.quiet {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ) {
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
