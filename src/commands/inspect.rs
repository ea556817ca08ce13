//! `modeloci inspect`

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use modeloci::Model;
use modeloci::byte_size::format_size;
use modeloci::model::FileInfo;
use modeloci::oci::OciManifest;
use modeloci::printable::printable;
use serde_json::{Value, json};

use super::table::{self, Row};
use super::{document, output, verify};
use crate::cli::{InspectArgs, Verbosity};

pub(crate) fn run(args: &InspectArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let (model, reports) = if args.no_verify {
        let model = Model::open(args.archive(), &args.which.options())
            .map_err(|error| output::about(args.archive(), error))?;
        (model, None)
    } else {
        let verified = verify::verified(args.archive(), "", &args.which, args.jobs, verbosity)?;
        (verified.model, Some(verified.reports))
    };

    // Before anything is printed: the manifest is read once more.
    let manifest = model.documents()?.manifest;
    let printed = if args.json {
        let mut document = document::archive(args.archive(), &model, reports.as_deref())?;
        if reports.is_none() {
            document::extend(&mut document, json!({ "verified": null }));
        }
        output::print_json(&document)
    } else {
        verify::warn(&model);
        let columns = table::columns();
        let mut text = config(&model);
        text.push_str(&listing(&model, &manifest, columns));
        if let Some(reports) = &reports {
            text.push('\n');
            text.push_str(&verify::section(reports, columns));
        }
        // What the original tool did not print stands below all that it did.
        output::print(&format!("{text}\n{}", identity(&model)))
    };
    verify::conclude(&reports.unwrap_or_default(), printed)
}

/// The original tool's lines on what the model is.
pub(crate) fn config(model: &Model) -> String {
    let mut text = String::new();
    let about = model.about();
    let name = about.name.clone().or_else(|| Some("-".into()));
    for (label, value) in [
        ("Model", &name),
        ("Version", &about.version),
        ("Framework", &about.framework),
        ("Arch", &about.architecture),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "{label:<9}: {}", printable(value));
        }
    }
    text
}

/// Our lines on what the model is.
pub(crate) fn identity(model: &Model) -> String {
    let what = match model.config() {
        Some(config) => {
            let metadata = Value::Object(config.metadata.clone()).to_string();
            output::line("Metadata", &metadata)
        }
        None => output::line("System", model.system()) + &output::line("Type", model.artifact()),
    };
    let license = model.about().license.as_ref();
    let license = license.map(|license| output::line("Licence", license));
    what + &license.unwrap_or_default()
        + &output::line("Digest", &model.manifest_digest().to_string())
}

/// One line per file: path, size of the file, digest of its layer. Where these are not as many as
/// layers, one line per layer with its files below.
fn listing(model: &Model, manifest: &OciManifest, columns: Option<usize>) -> String {
    let layers = document::layers(manifest);
    let mut text = format!("\nLayers ({}):\n", layers.len());
    let files: Vec<&FileInfo> = model.files().collect();
    let row = |file: &FileInfo, digest: String| Row {
        path: file.path.to_string(),
        size: output::original_kilobytes(file.shown_size),
        digest,
    };
    if files.len() == layers.len() {
        let rows = files.iter().map(|file| row(file, file.parts.digests()));
        return text + &table::render("  ", &rows.collect::<Vec<_>>(), columns);
    }
    let mut inside: HashMap<usize, Vec<Row>> = HashMap::new();
    for file in files {
        for part in file.parts.iter() {
            let rows = inside.entry(part.number).or_default();
            rows.push(row(file, String::new()));
        }
    }
    for (number, layer) in layers {
        let size = format_size(layer.size);
        let media_type = printable(&layer.media_type);
        let beside = size.len() + media_type.len() + 6;
        let room = columns.map(|columns| columns.saturating_sub(beside));
        let digest = table::digest(&layer.digest.to_string(), room);
        let _ = writeln!(text, "  {digest}  {size}  {media_type}");
        let rows = inside.remove(&number).unwrap_or_default();
        text.push_str(&table::render("    ", &rows, columns));
    }
    text
}
