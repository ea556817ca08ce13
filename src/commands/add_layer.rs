//! `modeloci add-layer`

use std::process::ExitCode;

use crate::cli::AddLayerArgs;

pub(crate) fn run(args: &AddLayerArgs) -> anyhow::Result<ExitCode> {
    let _ = args;
    todo!()
}
