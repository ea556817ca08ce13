//! `modeloci inspect`

use std::process::ExitCode;

use crate::cli::{InspectArgs, Verbosity};

pub(crate) fn run(args: &InspectArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let _ = (args, verbosity);
    todo!()
}
