//! `modeloci status`

use std::fmt::Write as _;
use std::process::ExitCode;

use modeloci::byte_size::format_size;
use modeloci::mount::{self, Protections, Status};
use serde_json::Value;

use super::document::versioned;
use super::output;
use crate::cli::StatusArgs;

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let Some(mountpoint) = &args.mountpoint else {
        return all(args);
    };
    let status = mount::status(mountpoint)?;
    if args.json {
        output::print_json(&versioned(serde_json::to_value(&status)?))?;
    } else {
        output::print(&report(&status))?;
    }
    Ok(code(args, &[status]))
}

/// What is told of every model that is mounted; those that do not answer are errors at the end.
fn all(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for mountpoint in mount::mountpoints()? {
        match mount::status(&mountpoint) {
            Ok(status) => answers.push(status),
            Err(error) => silent.push(error),
        }
    }
    if args.json {
        let answers = answers.iter().map(serde_json::to_value);
        let documents = answers.map(|value| value.map(versioned));
        output::print_json(&Value::Array(documents.collect::<Result<_, _>>()?))?;
    } else if answers.is_empty() && silent.is_empty() {
        output::print("no models are mounted\n")?;
    } else {
        let reports: Vec<_> = answers.iter().map(report).collect();
        output::print(&reports.join("\n"))?;
    }
    for error in &silent {
        output::report_line(&format!("error: {error}"));
    }
    Ok(match silent.first() {
        Some(error) => ExitCode::from(output::code_of(error.kind())),
        None => code(args, &answers),
    })
}

/// With `--check`, whether something has failed.
fn code(args: &StatusArgs, answers: &[Status]) -> ExitCode {
    let failed = |status: &Status| status.failures + status.panics > 0;
    match args.check && answers.iter().any(failed) {
        true => ExitCode::from(1),
        false => ExitCode::SUCCESS,
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "it is a list: one entry for each line, in their order"
)]
fn report(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<18}{value}");
    };
    // What came through the mount is whatever its process says.
    let plain = |text: &str| modeloci::printable::printable(text);
    line("Archive:", plain(&status.archive));
    line("Mounted on:", plain(&status.mountpoint));
    line("Manifest:", plain(&status.manifest_digest));
    line(
        "Process:",
        match status.server_pid {
            0 => format!("{}, up {} s", status.pid, status.uptime_seconds),
            server if server == status.pid => {
                format!("{}, up {} s", status.pid, status.uptime_seconds)
            }
            server => format!(
                "{}, served by {server}, up {} s",
                status.pid, status.uptime_seconds
            ),
        },
    );
    let sandbox = status.sandbox.as_ref();
    let sandbox = sandbox.map_or_else(|| "off".to_string(), protections);
    line("Sandbox:", plain(&sandbox));
    line(
        "Files:",
        format!("{} ({})", status.files, format_size(status.total_bytes)),
    );
    line(
        "Served:",
        format!(
            "{} in {} reads, {} in flight",
            format_size(status.bytes_served),
            status.read_requests,
            status.reads_in_flight
        ),
    );
    if status.prefetched_bytes > 0 {
        line("Prefetched:", format_size(status.prefetched_bytes));
    }
    line(
        "Chunks:",
        format!(
            "{} verified, {} decoded, {} cache hits, {} waits",
            status.chunks_verified, status.chunks_decoded, status.cache_hits, status.waits
        ),
    );
    line("Failures:", format!("{}", status.failures + status.panics));
    for failure in &status.last_failures {
        let path = plain(&failure.path);
        // Most errors name the file.
        let error = plain(&failure.error);
        let what = match error.contains(&path) {
            true => error,
            false => format!("{path}: {error}"),
        };
        line("", format!("at byte {}: {what}", failure.offset));
    }
    line("Requests:", status.requests.to_string());
    line(
        "Cache:",
        format!(
            "{} of {}",
            format_size(status.cache_used_bytes),
            format_size(status.cache_size_bytes)
        ),
    );
    line("Memory:", format_size(status.memory_bytes));
    text
}

/// What holds of the process that serves, and what does not.
fn protections(sandbox: &Protections) -> String {
    let missing = [
        (sandbox.landlock == 0, "Landlock"),
        (!sandbox.system_calls, "a filter of system calls"),
    ];
    let missing = missing.iter().filter(|(is_missing, _)| *is_missing);
    let missing: Vec<_> = missing.map(|(_, what)| *what).collect();
    match missing.is_empty() {
        true => sandbox.summary(),
        false => format!("{}; without {}", sandbox.summary(), missing.join(", ")),
    }
}
