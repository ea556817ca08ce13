//! `modeloci umount`

use std::process::ExitCode;

use modeloci::mount;

use crate::cli::UmountArgs;

pub(crate) fn run(args: &UmountArgs) -> anyhow::Result<ExitCode> {
    mount::unmount(&args.mountpoint, args.lazy)?;
    Ok(ExitCode::SUCCESS)
}
