//! Packing: a directory becomes layers, layers become an archive.
//!
//! ```text
//! select    what is left out
//! hub       how far links of a download cache may lead
//! walk      the files of a directory, in path order, each with what it was when it was seen
//! describe  what the model is: by its user's word, or by its files (weights, card), or by a schema
//! content   what of them is unfinished or a secret, and refused
//! pipeline  reader -> workers -> composer -> writer: segments in order, whatever the threads do
//! layer     segments -> one blob with its framing, its chunk table and its descriptor
//! add_layer an archive of which one layer is added, replaced or removed
//! archive   blobs and documents -> an outer tar; output -> a file that appears complete or not
//! ```
//!
//! Guarantees: the same files and options give the same bytes for any number of threads, at any
//! time and place; every input byte is read once (but the beginnings of small files, and
//! indexes of shards, which are looked at before); memory is bounded by the number of threads times
//! the chunk size; an output appears under its name complete or not at all. Refuses what it cannot
//! pack faithfully: special files, links out of the directory
//! (but those of a snapshot into its repository), names that are no
//! [`EntryPath`](crate::entry_path::EntryPath), files that change meanwhile.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::codec::Compression;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::limits;
use crate::oci::config::is_tag;
use crate::oci::{Descriptor, OciConfig};

use self::archive::Archive;
use self::describe::Description;
use self::output::OutputPlace;
use self::plan::Settings;
use self::select::Selection;
use self::tree::Tree;
use self::walk::{Input, Skip};

mod add_layer;
mod archive;
mod card;
mod content;
mod describe;
mod documents;
mod hub;
mod layer;
mod output;
mod packager;
mod pipeline;
mod plan;
mod schema;
mod select;
mod tree;
mod walk;
mod weights;

#[cfg(test)]
mod tests;

pub use add_layer::{add_layer, remove_layer, replace_layer};
pub use packager::{ModelLayer, ModelPackager};
pub use select::{DEFAULT_EXCLUDES, LeftOut, LeftOutBy};

pub use crate::work::Progress;

/// Permissions of a new archive, which the user's mask narrows.
const FILE_MODE: u32 = 0o666;

/// How to pack.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// How chunks are compressed.
    pub compression: Compression,
    /// Chunk size in bytes: a power of two from 64 KiB to 16 MiB.
    pub chunk_size: u32,
    /// Algorithm of chunk digests: SHA-256 or BLAKE3.
    pub chunk_digest: Algorithm,
    /// Worker threads; 0 for one per core. Does not change the result.
    pub jobs: usize,
    /// Replace an existing output.
    pub force: bool,
    /// Leave out what matches, in the syntax of gitignore(5): a directory with all that is in it.
    /// The same can be asked for in a file `.modelociignore` at the model's root.
    pub exclude: Vec<String>,
    /// Pack only what matches, and is not left out otherwise; no pattern matches everything.
    pub include: Vec<String>,
    /// Leave out [`DEFAULT_EXCLUDES`].
    pub default_excludes: bool,
    /// Follow links wherever they lead: whatever they name is packed, so that it is for directories
    /// that are trusted.
    pub dereference: bool,
    /// Pack what looks like an incomplete download: a part, a git-lfs pointer, an index whose
    /// shards are missing.
    pub allow_incomplete: bool,
    /// Pack what looks like a secret.
    pub allow_secrets: bool,
    /// Annotations of the manifest, beside those that packing writes itself.
    pub annotations: BTreeMap<String, String>,
    /// Where the files tell it, the framework is theirs, not the config's.
    pub find_framework: bool,
    /// Where the files tell it, the architecture is theirs, not the config's.
    pub find_architecture: bool,
    /// A JSON Schema that the config has to keep.
    pub config_schema: Option<serde_json::Value>,
    /// Stops when it becomes true; nothing is left behind then.
    pub cancel: Option<&'static AtomicBool>,
}

impl Default for PackOptions {
    fn default() -> PackOptions {
        PackOptions {
            compression: Compression::Auto,
            chunk_size: limits::DEFAULT_CHUNK_BYTES,
            chunk_digest: Algorithm::Blake3,
            jobs: 0,
            force: false,
            exclude: Vec::new(),
            include: Vec::new(),
            default_excludes: true,
            dereference: false,
            allow_incomplete: false,
            allow_secrets: false,
            annotations: BTreeMap::new(),
            find_framework: false,
            find_architecture: false,
            config_schema: None,
            cancel: None,
        }
    }
}

/// Where the archive goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// A file: written beside it without a name, synced, then given its name.
    File(PathBuf),
    /// Standard output; refused when it is a terminal.
    Stdout,
}

/// Something that the files of a model tell about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `framework`, `architecture`, or the key of an annotation.
    pub what: &'static str,
    /// What it is.
    pub value: String,
    /// The file that tells it.
    pub path: String,
}

impl Found {
    fn new(what: &'static str, value: String, path: String) -> Found {
        Found { what, value, path }
    }
}

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The model's config, as it was written; `None` when a layer was changed.
    pub config: Option<OciConfig>,
    /// What of it, and of the annotations, the files tell.
    pub found: Vec<Found>,
    /// Digest of the manifest: what `--digest` pins.
    pub manifest_digest: Digest,
    /// Layer descriptors, in path order.
    pub layers: Vec<Descriptor>,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// What was left out, by pattern.
    pub left_out: Vec<LeftOut>,
    /// Things that the user should know: empty directories that were left out.
    pub warnings: Vec<String>,
}

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
            let (mut tree, left_out) = find(input, model_dir, &place.skip()?, options, &settings)?;
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
            walk::walk(&reach, model_dir, skip, &mut selection)?
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
fn write(
    tree: Tree,
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
    let (files, file_bytes) = (tree.files.len() as u64, tree.bytes());
    let layers = pipeline::write_layers(&tree, settings, &mut archive, progress)?;
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
