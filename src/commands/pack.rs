//! `modeloci pack`

use std::process::ExitCode;

use crate::cli::{PackArgs, Verbosity};

pub(crate) fn run(args: &PackArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let _ = (args, verbosity);
    todo!()
}
