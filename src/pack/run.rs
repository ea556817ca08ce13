//! All of it, from a directory to an archive.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::archive::Archive;
use super::describe::{self, Description};
use super::options::{Output, PackOptions};
use super::packed::Packed;
use super::plan::{self, Settings};
use super::select::{LeftOut, Selection};
use super::tree::Tree;
use super::walk::{self, Input, Skip};
use super::{content, documents, pipeline, share, small};
use crate::error::{Error, Result};
use crate::files::output::OutputPlace;
use crate::oci::OciConfig;
use crate::oci::config::is_tag;
use crate::work::Progress;

/// Permissions of a new archive, which the user's mask narrows.
const FILE_MODE: u32 = 0o666;

/// What to think of when all versions of a model may get one time.
const ONE_TIME: &str = "SOURCE_DATE_EPOCH sets the time of all files: versions that are packed with the \
                        same one look alike to what compares times (rsync, Python, HTTP servers)";

/// Packs `model_dir`, a directory or a single file, into an archive.
///
/// Times in tar headers are 0, or `SOURCE_DATE_EPOCH` when that environment variable is set; the manifest
/// then states it as well, and all files show that time.
///
/// # Errors
/// - [`ErrorKind::Usage`](crate::ErrorKind::Usage): the directory or the output's directory does
///   not exist, the config breaks its schema, an option, an annotation, the config or `SOURCE_DATE_EPOCH` is no valid value, standard output is
///   a terminal.
/// - [`ErrorKind::Refused`](crate::ErrorKind::Refused): the output exists and `force` is not set;
///   the directory holds something that cannot be packed faithfully, or that `options` would have
///   to allow; a file changed or vanished
///   while it was packed; `cancel` was set.
/// - [`ErrorKind::Environment`](crate::ErrorKind::Environment): reading or writing failed.
///
/// Nothing is left at the output's name then, and no temporary file.
pub fn pack(
    model_dir: &Path,
    config: &OciConfig,
    output: &Output,
    options: &PackOptions,
    progress: Progress<'_>,
) -> Result<Packed> {
    let settings = Settings::new(options)?;
    let config = &plan::check_config(config)?;
    // What is wrong with it must not be hidden by what is wrong with the output.
    let input = walk::open(model_dir)?;
    match output {
        Output::File(path) => {
            let place = OutputPlace::check(path, options.force)?;
            let (mut tree, left_out) =
                find(input, model_dir, &Skip::around(&place)?, options, &settings)?;
            let about = describe::describe(&mut tree, config, options)?;
            let file = place.create(FILE_MODE)?;
            let archive = Archive::in_file(file.handle()?, path, settings.mtime);
            let packed = write(tree, about, archive, &settings, progress)?;
            settings.check_cancelled(path)?;
            file.commit()?;
            Ok(Packed { left_out, ..packed })
        }
        Output::Stdout => {
            let stdout = std::io::stdout();
            if stdout.is_terminal() {
                return Err(Error::usage(
                    "standard output is a terminal; redirect it, or name a file with --output",
                ));
            }
            let stdout = stdout
                .as_fd()
                .try_clone_to_owned()
                .map_err(Error::io("write", "standard output"))?;
            let (mut tree, left_out) =
                find(input, model_dir, &Skip::default(), options, &settings)?;
            let about = describe::describe(&mut tree, config, options)?;
            let archive = Archive::to_stream(
                Box::new(std::fs::File::from(stdout)),
                Path::new("standard output"),
                settings.mtime,
            )?;
            let packed = write(tree, about, archive, &settings, progress)?;
            Ok(Packed { left_out, ..packed })
        }
    }
}

/// The files to pack, and what is left out.
fn find(
    input: Input,
    model_dir: &Path,
    skip: &Skip,
    options: &PackOptions,
    settings: &Settings,
) -> Result<(Tree, Vec<LeftOut>)> {
    let mut selection = Selection::new(options)?;
    let mut tree = match input {
        Input::Directory(root) => {
            let reach = walk::Reach::of(root, model_dir, options.dereference)?;
            walk::walk(reach, model_dir, skip, &mut selection)?
        }
        Input::File(..) if !(options.exclude.is_empty() && options.include.is_empty()) => {
            return Err(Error::usage(
                "--exclude and --include choose among the files of a directory, and this is a file",
            ));
        }
        Input::File(place, stat) => walk::single(place, &stat, model_dir, skip)?,
    };
    content::check(&mut tree, options, settings)?;
    Ok((tree, selection.left_out()))
}

/// Writes the whole archive: layers, then documents.
pub(super) fn write(
    mut tree: Tree,
    about: Description,
    mut archive: Archive,
    settings: &Settings,
    progress: Progress<'_>,
) -> Result<Packed> {
    let Description {
        config,
        annotations,
        found,
    } = about;
    share::share(&mut tree, settings)?;
    tree.others.sort_by(|a, b| a.path.cmp(&b.path));
    let (files, file_bytes) = tree.totals();
    let mut layers = pipeline::write_layers(&tree, settings, &mut archive, progress)?;
    layers.extend(small::write_layers(&tree.others, settings, &mut archive)?);
    let manifest = documents::manifest(&config, layers, annotations, settings.mtime);
    let written = documents::write(
        &mut archive,
        &manifest,
        &config.to_bytes(),
        &config.version,
        Vec::new(),
    )?;
    let mut warnings = tree.warnings;
    if settings.mtime > 0 {
        warnings.push(ONE_TIME.into());
    }
    warnings.extend(written.warnings);
    if !is_tag(&config.version) {
        warnings.push(format!(
            "version \"{}\" cannot be a tag in a registry: a tag has letters, digits, \"_\", \".\" and \
             \"-\" only",
            config.version
        ));
    }
    Ok(Packed {
        config: Some(config),
        found,
        manifest_digest: written.manifest_digest,
        layers: manifest.layers,
        files,
        file_bytes,
        archive_bytes: archive.finish()?,
        left_out: Vec::new(),
        warnings,
    })
}
