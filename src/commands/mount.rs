//! `modeloci mount`

use std::process::ExitCode;

use crate::cli::{MountArgs, Verbosity};

pub(crate) fn run(args: MountArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let _ = (args, verbosity);
    todo!()
}
