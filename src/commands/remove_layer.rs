//! `modeloci remove-layer`

use std::process::ExitCode;

use modeloci::pack::{PackOptions, remove_layer};

use super::{add_layer, interrupt};
use crate::cli::RemoveLayerArgs;

pub(crate) fn run(args: &RemoveLayerArgs) -> anyhow::Result<ExitCode> {
    let options = PackOptions {
        cancel: Some(interrupt::catch()),
        ..PackOptions::default()
    };
    let packed = remove_layer(&args.archive, &args.path, &options)?;
    add_layer::report("Removed layer from", &args.archive, &packed, args.json)
}
