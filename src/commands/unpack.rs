//! `modeloci unpack`

use std::process::ExitCode;

use crate::cli::{UnpackArgs, Verbosity};

pub(crate) fn run(args: &UnpackArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let _ = (args, verbosity);
    todo!()
}
