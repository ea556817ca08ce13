//! `modeloci add-layer`

use std::ffi::OsStr;
use std::process::ExitCode;

use modeloci::model::OpenOptions;
use modeloci::pack::PackOptions;
use modeloci::{ErrorKind, Model};

use super::{interrupt, output, pack};
use crate::cli::AddLayerArgs;

pub(crate) fn run(args: &AddLayerArgs) -> anyhow::Result<ExitCode> {
    let options = PackOptions {
        cancel: Some(interrupt::catch()),
        ..pack::options(&args.encode)
    };
    let packed =
        modeloci::pack::add_layer(&args.archive, &args.file, args.path.as_deref(), &options)
            .map_err(|error| match error.kind() {
                ErrorKind::Refused if args.path.is_none() && is_taken(args) => {
                    output::hint(error, "--path gives the file another path in the model")
                }
                _ => error.into(),
            })?;
    for warning in &packed.warnings {
        output::report_line(&format!("warning: {warning}"));
    }
    if args.json {
        output::print_json(&pack::document(&args.archive, &packed)?)?;
    } else {
        let archive = output::absolute(&args.archive);
        output::print(&format!(
            "Added layer to: {archive}\n{}",
            pack::written(&packed)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// True when the archive has a file of the name that the new one would get.
fn is_taken(args: &AddLayerArgs) -> bool {
    let name = args.file.file_name().and_then(OsStr::to_str);
    let model = Model::open(&args.archive, &OpenOptions::default());
    matches!((name, model), (Some(name), Ok(model)) if model.find(name).is_some())
}
