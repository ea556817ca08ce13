//! Log messages: to stderr or where a mount sends them, one line each, made printable.

use std::io::Write;

use env_logger::{Builder, Target};
use log::LevelFilter;
use modeloci::printable::Text;

use crate::cli::Verbosity;

/// Starts logging to stderr; later calls change nothing. `MODELOCI_LOG` (`debug`,
/// `modeloci::layer=trace`) overrides the level.
///
/// A line is `warning: …`. Writing never fails: a full or closed stderr must not stop what is
/// being logged about.
pub(crate) fn init(verbosity: Verbosity) {
    start(verbosity.level(), Target::Stderr, false);
}

/// Starts logging to `sink`, like [`init`]; `timed` puts the time in front of each line.
pub(crate) fn init_to(level: LevelFilter, sink: Box<dyn Write + Send>, timed: bool) {
    start(level, Target::Pipe(sink), timed);
}

fn start(level: LevelFilter, target: Target, timed: bool) {
    let mut builder = Builder::new();
    builder.filter_level(level);
    if let Ok(filter) = std::env::var("MODELOCI_LOG") {
        builder.parse_filters(&filter);
    }
    builder.target(target);
    builder.format(move |out, record| {
        let message = Text::own(record.args());
        let label = label(record.level());
        if timed {
            let time = out.timestamp_millis();
            writeln!(out, "{time} {label}: {message}")
        } else {
            writeln!(out, "{label}: {message}")
        }
    });
    let _ = builder.try_init();
}

fn label(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug => "debug",
        log::Level::Trace => "trace",
    }
}
