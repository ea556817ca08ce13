//! `modeloci inspect`

use std::fmt::Write as _;
use std::process::ExitCode;

use modeloci::entry_path::printable;
use modeloci::model::verify::{LayerReport, verify};
use modeloci::model::{FileInfo, OpenOptions};
use modeloci::oci::{Descriptor, OciManifest, media_type};
use modeloci::{ErrorKind, Model, Result};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::output::{self, human_bytes, ratio};
use super::progress::Progress;
use crate::cli::{InspectArgs, Verbosity};

pub(crate) fn run(args: &InspectArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let options = OpenOptions {
        pin: args.digest,
        ..OpenOptions::default()
    };
    let model = Model::open(args.archive(), &options)
        .map_err(|error| output::about(args.archive(), error))?;
    let reports = (!args.no_verify).then(|| {
        let bar = Progress::new("verifying", verbosity);
        verify(&model, args.jobs.unwrap_or(0), &|done, total| {
            bar.update(done, total)
        })
    });

    // Before anything is printed: the manifest is read once more.
    let manifest = model.documents()?.manifest;
    let printed = if args.json {
        output::print_json(&document(args, &model, &manifest, reports.as_deref()))
    } else {
        for note in model.notes() {
            output::report_line(&format!("warning: {note}"));
        }
        let mut text = config(&model);
        text.push_str(&listing(&model, &manifest));
        if let Some(reports) = &reports {
            text.push_str(&verification(reports));
        }
        // What the original tool did not print stands below all that it did.
        output::print(&format!("{text}\n{}", identity(&model)))
    };
    // A reader that wanted no more of the listing (`| head`, `| grep -q`) must not turn a failed
    // verification into success.
    match conclude(&reports.unwrap_or_default()) {
        Some(code) => Ok(code),
        None => printed.map(|()| ExitCode::SUCCESS),
    }
}

/// The original tool's section on what was verified: a line for each layer.
fn verification(reports: &[LayerReport]) -> String {
    let count = output::count(reports.len() as u64, "layer");
    let mut text = format!("\nLayer verification ({count}):\n");
    for report in reports {
        let word = match &report.outcome {
            Ok(_) => "OK",
            Err(error) if error.kind() == ErrorKind::Environment => "UNREADABLE",
            Err(_) => "CORRUPTED",
        };
        let _ = writeln!(text, "  {word}  {}", report.layer.digest);
    }
    if reports.iter().all(LayerReport::verified) {
        text.push_str("All layers verified.\n");
    }
    text
}

/// One line on stderr for each layer that failed, and the exit code: that of failed verification
/// before that of storage that cannot be read. `None` when none failed.
fn conclude(reports: &[LayerReport]) -> Option<ExitCode> {
    let mut codes = Vec::new();
    for report in reports {
        if let Err(error) = &report.outcome {
            codes.push(output::code_of(error.kind()));
            let (path, text) = (report.path.to_string(), error.to_string());
            if text.contains(&path) {
                output::report_line(&format!("error: {text}"));
            } else {
                output::report_line(&format!("error: {path}: {text}"));
            }
        }
    }
    if codes.is_empty() {
        return None;
    }
    let (failed, all) = (codes.len(), reports.len());
    output::report_line(&format!(
        "error: {failed} of {all} layers failed verification"
    ));
    // A layer that breaks its format's rules has failed verification too.
    let environment = codes.iter().all(|code| *code == 5);
    Some(ExitCode::from(if environment { 5 } else { 1 }))
}

/// The original tool's lines on what the model is.
pub(crate) fn config(model: &Model) -> String {
    let mut text = String::new();
    let Some(config) = model.config() else {
        return format!("{:<9}: -\n", "Model");
    };
    for (label, value) in [
        ("Model", &config.model_name),
        ("Version", &config.version),
        ("Framework", &config.framework),
        ("Arch", &config.architecture),
    ] {
        let _ = writeln!(text, "{label:<9}: {}", printable(value));
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
        None => output::line("Type", model.artifact()),
    };
    what + &output::line("Digest", &model.manifest_digest().to_string())
}

/// One line per file: path, size of the file, digest of its layer. Where a layer holds several
/// files, one line per layer with its files below.
fn listing(model: &Model, manifest: &OciManifest) -> String {
    let layers = layers(manifest);
    let mut text = format!("\nLayers ({}):\n", layers.len());
    let files: Vec<&FileInfo> = model.files().collect();
    if files.len() == layers.len() {
        let rows = files.iter().map(|file| {
            (
                file.path.to_string(),
                file.size,
                file.layer.digest.to_string(),
            )
        });
        table(&mut text, "  ", rows.collect());
        return text;
    }
    for layer in layers {
        let (size, digest) = (human_bytes(layer.size), layer.digest);
        let _ = writeln!(text, "  {digest}  {size}  {}", printable(&layer.media_type));
        let inside = files.iter().filter(|file| file.layer.digest == digest);
        let rows = inside.map(|file| (file.path.to_string(), file.size, String::new()));
        table(&mut text, "    ", rows.collect());
    }
    text
}

/// Columns as wide as the original tool's, or as the longest path wants them.
fn table(text: &mut String, indent: &str, rows: Vec<(String, u64, String)>) {
    // One very long path must not push every other line's size off the screen.
    let width = rows.iter().map(|(path, ..)| path.width());
    let width = width.filter(|n| *n <= 60).max().unwrap_or(0).max(40);
    for (path, size, digest) in rows {
        // Some characters take two columns, others none.
        let pad = width.saturating_sub(path.width());
        let size = output::original_kilobytes(size);
        let line = format!("{indent}{path}{:pad$} {size:>9}  {digest}", "");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// The manifest's layers, without the placeholder of a model that has none.
fn layers(manifest: &OciManifest) -> Vec<&Descriptor> {
    let layers = manifest.layers.iter();
    layers
        .filter(|layer| layer.media_type != media_type::EMPTY)
        .collect()
}

fn document(
    args: &InspectArgs,
    model: &Model,
    manifest: &OciManifest,
    reports: Option<&[LayerReport]>,
) -> Value {
    let files: Vec<Value> = model
        .files()
        .enumerate()
        .map(|(i, file)| {
            let report = reports.and_then(|reports| reports.get(i));
            let layer = manifest.layers.get(file.layer_number);
            entry(model, file, layer, report.map(|report| &report.outcome))
        })
        .collect();
    let stored = layers(manifest)
        .iter()
        .fold(0u64, |sum, l| sum.saturating_add(l.size));
    json!({
        "archive": args.archive().to_string_lossy(),
        "manifest_digest": model.manifest_digest(),
        "model": model.config(),
        "artifact_type": manifest.artifact_type,
        "config_descriptor": manifest.config,
        "annotations": manifest.annotations,
        "files": files.len(),
        "bytes": model.total_bytes(),
        "layer_bytes": stored,
        "ratio": ratio(stored, model.total_bytes()),
        "verified": reports.map(|reports| reports.iter().all(LayerReport::verified)),
        "layers": files,
        "notes": model.notes(),
    })
}

fn entry(
    model: &Model,
    file: &FileInfo,
    layer: Option<&Descriptor>,
    outcome: Option<&Result<modeloci::Digest>>,
) -> Value {
    let found = outcome.and_then(|outcome| outcome.as_ref().ok().copied());
    json!({
        "path": file.path.as_str(),
        "size": file.size,
        "digest": found.or(file.digest),
        "executable": model.attr(file.inode).is_some_and(|attr| attr.mode & 0o111 != 0),
        "layer": layer,
        "compression": compression(&file.layer.media_type),
        "seekable": file.layer.chunks.is_some(),
        "ratio": ratio(file.layer.size, file.size),
        "verified": outcome.map(Result::is_ok),
        "error": outcome.and_then(|outcome| outcome.as_ref().err()).map(ToString::to_string),
    })
}

/// What the media type says about compression; null where it says nothing.
fn compression(media_type: &str) -> Option<&'static str> {
    let ends = |suffixes: [&str; 2]| suffixes.iter().any(|s| media_type.ends_with(s));
    match () {
        () if ends(["+gzip", ".gzip"]) => Some("gzip"),
        () if ends(["+zstd", ".zstd"]) => Some("zstd"),
        () if ends([".tar", ".raw"]) => Some("none"),
        () => None,
    }
}
