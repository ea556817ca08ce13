//! `modeloci verify`, and what `inspect` says of verification.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use modeloci::model::FileInfo;
use modeloci::model::verify::{LayerReport, verify_files};
use modeloci::printable::printable_path;
use modeloci::source::{self, WatchedSource};
use modeloci::{Error, ErrorKind, Model};

use super::progress::Progress;
use super::{document, interrupt, ls, output, table};
use crate::cli::{Verbosity, VerifyArgs, Which};

pub(crate) fn run(args: &VerifyArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let verified = verified(&args.archive, &args.path, &args.which, args.jobs, verbosity)?;
    let Verified { model, reports } = verified;
    let printed = if args.json {
        output::print_json(&document::archive(&args.archive, &model, Some(&reports))?)
    } else {
        warn(&model);
        let digest = output::line("Digest", &model.manifest_digest().to_string());
        output::print(&(section(&reports, table::columns()) + &digest))
    };
    conclude(&reports, printed)
}

/// A model, and what was found out about its layers.
pub(crate) struct Verified {
    pub(crate) model: Model,
    pub(crate) reports: Vec<LayerReport>,
}

/// Opens an archive and verifies the layers of the files at and below a path of the model (`""` for all);
/// a bar shows how much of them was read. A signal ends it.
///
/// # Errors
/// Those of opening, and when there is nothing at the path; a layer that fails is none.
pub(crate) fn verified(
    archive: &Path,
    path: &str,
    which: &Which,
    jobs: Option<usize>,
    verbosity: Verbosity,
) -> anyhow::Result<Verified> {
    let cancel = interrupt::catch();
    let interrupted = || Error::refused(printable_path(archive), "interrupted");
    let bar = Arc::new(Progress::new("verifying", verbosity));
    let (read, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let ended = Arc::new(AtomicBool::new(false));
    let watch = {
        let ended = Arc::clone(&ended);
        let (bar, read, total) = (Arc::clone(&bar), Arc::clone(&read), Arc::clone(&total));
        move |bytes: u64| {
            let read = read.fetch_add(bytes, Ordering::Relaxed);
            let total = total.load(Ordering::Relaxed);
            if total > 0 {
                bar.update(read.saturating_add(bytes).min(total), total);
            }
            match cancel.load(Ordering::Relaxed) && !ended.load(Ordering::Relaxed) {
                true => Err(Error::refused("verification", "interrupted")),
                false => Ok(()),
            }
        }
    };
    let mut open = which.options();
    open.cancel = Some(cancel);
    let jobs = output::fitted(open.fit_memory(jobs.unwrap_or(0), "verifying")?);
    let opened = source::open_with(archive, &open.registry)
        .map(|source| WatchedSource::new(source, watch))
        .and_then(|source| Model::from_source(Arc::new(source), &open));
    if cancel.load(Ordering::Relaxed) {
        return Err(interrupted().into());
    }
    let model = opened.map_err(|error| output::about(archive, error))?;
    ls::find(&model, archive, path)?;
    let path = ls::resolved(path);
    let chosen: Vec<&FileInfo> = model
        .files()
        .filter(|file| is_at_or_below(file, &path))
        .collect();
    // A blob is read once, however many files are read from it.
    let parts = chosen.iter().flat_map(|file| file.parts.iter());
    let mut blobs: Vec<_> = parts
        .map(|part| (part.stated.digest, part.stated.size))
        .collect();
    blobs.sort();
    blobs.dedup_by_key(|(digest, _)| *digest);
    let bytes = blobs.iter().map(|(_, size)| *size);
    total.store(bytes.fold(0, u64::saturating_add), Ordering::Relaxed);
    // The documents are blobs, too.
    read.store(0, Ordering::Relaxed);
    let reports = verify_files(&model, chosen, jobs, &|_, _| {});
    // What is read from now on is no progress.
    total.store(0, Ordering::Relaxed);
    bar.clear();
    if cancel.load(Ordering::Relaxed) {
        return Err(interrupted().into());
    }
    ended.store(true, Ordering::Relaxed);
    Ok(Verified { model, reports })
}

fn is_at_or_below(file: &FileInfo, path: &str) -> bool {
    let rest = file.path.as_str().strip_prefix(path);
    path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is worth a remark about an archive.
pub(crate) fn warn(model: &Model) {
    for note in model.notes() {
        output::report_line(&format!("warning: {note}"));
    }
}

/// The original tool's section on what was verified: a line for each layer.
pub(crate) fn section(reports: &[LayerReport], columns: Option<usize>) -> String {
    let reports = by_layer(reports);
    let count = output::count(reports.len() as u64, "layer");
    let mut text = format!("Layer verification ({count}):\n");
    for report in &reports {
        let word = match &report.outcome {
            Ok(_) => "OK",
            Err(error) if error.kind() == ErrorKind::Environment => "UNREADABLE",
            Err(_) => "CORRUPTED",
        };
        let room = columns.map(|columns| columns.saturating_sub(word.len() + 4));
        let digest = table::digest(&report.parts.digests(), room);
        let _ = writeln!(text, "  {word}  {digest}");
    }
    if reports.iter().all(|report| report.verified()) {
        text.push_str("All layers verified.\n");
    }
    text
}

/// One report for each layer of any number of files, that of a file which failed before others; one for
/// each of all other files.
fn by_layer(reports: &[LayerReport]) -> Vec<&LayerReport> {
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut layers: Vec<&LayerReport> = Vec::new();
    for report in reports {
        let part = report.parts.first();
        let known = match part.of_file() {
            Some(_) => None,
            None => places.get(&part.number).copied(),
        };
        match known.and_then(|place| layers.get_mut(place)) {
            Some(layer) if layer.verified() => *layer = report,
            Some(_) => {}
            None => {
                places.insert(part.number, layers.len());
                layers.push(report);
            }
        }
    }
    layers
}

/// The exit code of what was verified and printed.
///
/// # Errors
/// Those of printing, where no layer has failed: a reader that wanted no more of the listing
/// (`| head`, `| grep -q`) must not turn a failed verification into success.
pub(crate) fn conclude(
    reports: &[LayerReport],
    printed: anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    match failed(reports) {
        Some(code) => Ok(code),
        None => printed.map(|()| ExitCode::SUCCESS),
    }
}

/// One line on stderr for each layer that failed, and the exit code: that of failed verification
/// before that of storage that cannot be read. `None` when none failed.
fn failed(reports: &[LayerReport]) -> Option<ExitCode> {
    let mut codes = Vec::new();
    let reports = by_layer(reports);
    for report in &reports {
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
