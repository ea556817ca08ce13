//! `modeloci status`

use std::process::ExitCode;

use crate::cli::StatusArgs;

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let _ = args;
    todo!()
}
