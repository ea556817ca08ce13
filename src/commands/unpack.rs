//! `modeloci unpack`

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use modeloci::byte_size::format_size;
use modeloci::printable::printable_path;
use modeloci::unpack::{UnpackOptions, unpack};
use modeloci::{Error, ErrorKind, Model};
use serde_json::json;

use super::progress::Progress;
use super::{document, inspect, interrupt, output};
use crate::cli::{UnpackArgs, Verbosity};

pub(crate) fn run(args: &UnpackArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    if args.output() == Path::new("-") {
        return Err(output::hint(
            Error::usage("--output - is standard output, to which a directory cannot be written"),
            "./- is a directory of that name",
        ));
    }
    let cancel = interrupt::catch();
    let mut open = args.which.options();
    open.cancel = Some(cancel);
    let options = UnpackOptions {
        include: args.include.clone(),
        force: args.force,
        jobs: output::fitted(open.fit_memory(args.jobs.unwrap_or(0), "unpacking")?),
        cancel: Some(cancel),
    };
    let model = Model::open(args.archive(), &open);
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::refused(printable_path(args.archive()), "interrupted").into());
    }
    let model = model.map_err(|error| output::about(args.archive(), error))?;
    for note in model.notes() {
        // What is left out of the tree must not be missed unnoticed.
        log::warn!("{note}");
    }
    let bar = Progress::new("unpacking", verbosity);
    let result = unpack(&model, args.output(), &options, &|done, total| {
        bar.update(done, total);
    });
    drop(bar);
    let unpacked = result.map_err(|error| advise(error, args))?;

    if args.json {
        let mut document = document::model(args.archive(), &model);
        let unpacked = json!({
            "output": args.output().to_string_lossy(),
            "files": unpacked.files,
            "bytes": unpacked.bytes,
            "warnings": model.notes(),
        });
        document::extend(&mut document, unpacked);
        output::print_json(&document)?;
    } else {
        let files = format!("{} ({})", unpacked.files, format_size(unpacked.bytes));
        output::print(&format!(
            "Unpacked to: {}\n{}{}{}",
            output::absolute(args.output()),
            inspect::config(&model),
            inspect::identity(&model),
            output::line("Files", &files),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn advise(error: Error, args: &UnpackArgs) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Refused if !args.force && is_named_directory(args.output()) => {
            output::hint(error, "--force replaces the directory as a whole")
        }
        ErrorKind::NotFound if !args.include.is_empty() => {
            output::hint(error, "`modeloci inspect --no-verify` lists the paths")
        }
        _ => error.into(),
    }
}

/// True for what `--force` can replace: `/`, `.` and links have no name of their own to give away.
#[expect(
    clippy::disallowed_methods,
    reason = "only chooses the words of a message"
)]
fn is_named_directory(path: &Path) -> bool {
    path.file_name().is_some() && path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}
