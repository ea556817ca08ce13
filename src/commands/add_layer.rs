//! `modeloci add-layer`, and what it says of an archive that was changed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use modeloci::model::OpenOptions;
use modeloci::pack::{PackOptions, Packed, add_layer, replace_layer};
use modeloci::{ErrorKind, Model, Result};

use super::{interrupt, output, pack};
use crate::cli::AddLayerArgs;

const ADDED: &str = "Added layer to";

/// A function of the library that puts a file into an archive.
type Add = fn(&Path, &Path, Option<&str>, &PackOptions) -> Result<Packed>;

pub(crate) fn run(args: &AddLayerArgs) -> anyhow::Result<ExitCode> {
    let options = PackOptions {
        cancel: Some(interrupt::catch()),
        ..pack::options(&args.encode)?
    };
    let (add, what): (Add, _) = match args.replace {
        true if is_taken(args) => (replace_layer, "Replaced layer in"),
        true => (replace_layer, ADDED),
        false => (add_layer, ADDED),
    };
    let packed = add(&args.archive, &args.file, args.path.as_deref(), &options).map_err(
        |error| match error.kind() {
            ErrorKind::Refused if !args.replace && is_taken(args) => output::hint(
                error,
                "--replace replaces that file; --path gives the new one another path in the model",
            ),
            _ => error.into(),
        },
    )?;
    report(what, &args.archive, &packed, args.json)
}

/// Prints what was made of an archive.
pub(super) fn report(
    what: &str,
    archive: &Path,
    packed: &Packed,
    json: bool,
) -> anyhow::Result<ExitCode> {
    for warning in &packed.warnings {
        output::report_line(&format!("warning: {warning}"));
    }
    if json {
        output::print_json(&pack::document(archive, packed)?)?;
    } else {
        let archive = output::absolute(archive);
        output::print(&format!("{what}: {archive}\n{}", pack::written(packed)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// True when the archive has a file of the path that the new one would get.
fn is_taken(args: &AddLayerArgs) -> bool {
    let name = args.file.file_name().and_then(OsStr::to_str);
    let path = args.path.as_deref().or(name);
    let model = Model::open(&args.archive, &OpenOptions::default());
    let has = |model: &Model, path: &str| model.files().any(|file| file.path.as_str() == path);
    matches!((path, model), (Some(path), Ok(model)) if has(&model, path))
}
