//! `modeloci umount`

use std::process::ExitCode;

use crate::cli::UmountArgs;

pub(crate) fn run(args: &UmountArgs) -> anyhow::Result<ExitCode> {
    let _ = args;
    todo!()
}
