//! `modeloci status`

use std::fmt::Write as _;
use std::process::ExitCode;

use modeloci::mount::{self, Status};

use super::output;
use crate::cli::StatusArgs;

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = mount::status(&args.mountpoint)?;
    if args.json {
        output::print_json(&serde_json::to_value(&status)?)?;
    } else {
        output::print(&report(&status))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<18}{value}");
    };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    // What came through the mount is whatever its process says.
    let plain = |text: &str| modeloci::entry_path::printable(text);
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
    let sandbox = sandbox.map_or_else(|| "off".to_string(), |sandbox| sandbox.summary());
    line("Sandbox:", plain(&sandbox));
    line(
        "Files:",
        format!("{} ({})", status.files, mib(status.total_bytes)),
    );
    line(
        "Served:",
        format!(
            "{} in {} reads, {} in flight",
            mib(status.bytes_served),
            status.read_requests,
            status.reads_in_flight
        ),
    );
    if status.prefetched_bytes > 0 {
        line("Prefetched:", mib(status.prefetched_bytes));
    }
    line(
        "Chunks:",
        format!(
            "{} verified, {} decoded, {} cache hits, {} waits",
            status.chunks_verified, status.chunks_decoded, status.cache_hits, status.waits
        ),
    );
    line("Failures:", format!("{}", status.failures + status.panics));
    line("Requests:", status.requests.to_string());
    line(
        "Cache:",
        format!(
            "{} of {}",
            mib(status.cache_used_bytes),
            mib(status.cache_size_bytes)
        ),
    );
    line("Memory:", mib(status.memory_bytes));
    text
}
