//! `modeloci umount`

use std::process::ExitCode;

use modeloci::mount;

use super::output::{self, Codes};
use crate::cli::UmountArgs;

/// Unmounts each, whatever becomes of the others. The exit code is that of the first failure.
pub(crate) fn run(args: &UmountArgs) -> anyhow::Result<ExitCode> {
    let mut code = None;
    for mountpoint in &args.mountpoints {
        if let Err(error) = mount::unmount(mountpoint, args.lazy) {
            let failed = output::failure(&error.into(), Codes::Modeloci);
            code.get_or_insert(failed);
        }
    }
    Ok(code.unwrap_or(ExitCode::SUCCESS))
}
