//! The modeloci command: parses, dispatches, prints the error and sets the exit code.

mod cli;
mod commands;

use std::process::ExitCode;

use commands::output;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => output::failure(&error),
    }
}
