//! Log messages: to stderr or where a mount sends them, one line each, made printable.

use std::io::Write;

use env_logger::{Builder, Target};
use log::LevelFilter;
use modeloci::entry_path::printable;

use crate::cli::Verbosity;

/// Starts logging to stderr; later calls change nothing. `MODELOCI_LOG` (`debug`,
/// `modeloci::layer=trace`) overrides the level.
///
/// A line is `warning: …`. Writing never fails: a full or closed stderr must not stop what is
/// being logged about.
pub(crate) fn init(verbosity: Verbosity) {
    let mut builder = builder(verbosity.level());
    builder.format(|out, record| {
        let message = printable(&record.args().to_string());
        writeln!(out, "{}: {message}", label(record.level()))
    });
    let _ = builder.try_init();
}

/// Starts logging to `sink`, like [`init`], each line with its time.
pub(crate) fn init_to(level: LevelFilter, sink: Box<dyn Write + Send>) {
    let mut builder = builder(level);
    builder.target(Target::Pipe(sink));
    builder.format(|out, record| {
        let message = printable(&record.args().to_string());
        let (time, level) = (out.timestamp_millis(), label(record.level()));
        writeln!(out, "{time} {level}: {message}")
    });
    let _ = builder.try_init();
}

fn builder(level: LevelFilter) -> Builder {
    let mut builder = Builder::new();
    builder.filter_level(level);
    if let Ok(filter) = std::env::var("MODELOCI_LOG") {
        builder.parse_filters(&filter);
    }
    builder
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
