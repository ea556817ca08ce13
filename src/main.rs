//! The modeloci command: parses, dispatches, prints the error and sets the exit code.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::unwrap_used))]

mod cli;
mod commands;

use std::process::ExitCode;

use commands::output::{self, Codes};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let codes = match cli::is_mount_helper(&args) {
        true => Codes::MountHelper,
        false => Codes::Modeloci,
    };
    let cli = match cli::parse(args) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error, codes),
    };
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => output::failure(&error, codes),
    }
}
