//! Log messages: to stderr or a file, one line each, made printable.

use std::fs::File;
use std::io::Write as _;

use env_logger::{Builder, Target};
use modeloci::entry_path::printable;

use crate::cli::Verbosity;

/// Starts logging; later calls change nothing. `MODELOCI_LOG` (`debug`, `modeloci::layer=trace`)
/// overrides the level.
///
/// On stderr a line is `warning: …`; in a file it starts with the time. Writing never fails: a
/// full or closed stderr must not stop what is being logged about.
pub(crate) fn init(verbosity: Verbosity, file: Option<File>) {
    let mut builder = Builder::new();
    builder.filter_level(verbosity.level());
    if let Ok(filter) = std::env::var("MODELOCI_LOG") {
        builder.parse_filters(&filter);
    }
    match file {
        Some(file) => {
            builder.target(Target::Pipe(Box::new(file)));
            builder.format(|out, record| {
                let message = printable(&record.args().to_string());
                let (time, level) = (out.timestamp_millis(), label(record.level()));
                writeln!(out, "{time} {level}: {message}")
            });
        }
        None => {
            builder.format(|out, record| {
                let message = printable(&record.args().to_string());
                writeln!(out, "{}: {message}", label(record.level()))
            });
        }
    }
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
