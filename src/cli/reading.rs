//! The options of commands that read an archive.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use modeloci::Digest;
use modeloci::model::{OpenOptions, Subtree};
use modeloci::source::registry;

use super::values::{either, parse_digest, parse_jobs, parse_timeout};

/// `inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modeloci inspect llama-1.0.0.tar
  modeloci inspect llama-1.0.0.tar --no-verify            # at once, whatever the size
  modeloci inspect llama-1.0.0.tar --digest sha256:...    # only if it is this very model
  modeloci inspect llama-1.0.0.tar --json | jq '.layers[].path'")]
pub(crate) struct InspectArgs {
    /// An archive, an image layout, or HOST/REPOSITORY:TAG
    #[arg(
        value_name = "ARCHIVE",
        required_unless_present = "archive_option",
        conflicts_with = "archive_option"
    )]
    archive: Option<PathBuf>,
    /// The archive, as an option
    #[arg(id = "archive_option", long = "archive", value_name = "ARCHIVE")]
    archive_option: Option<PathBuf>,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// List only, without reading the layers
    #[arg(long)]
    pub(crate) no_verify: bool,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Threads in all [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = parse_jobs)]
    pub(crate) jobs: Option<usize>,
}

impl InspectArgs {
    /// The archive.
    pub(crate) fn archive(&self) -> &Path {
        either(&self.archive, &self.archive_option)
    }
}

/// `verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 1 when a layer is not what the manifest says, 4 when the manifest is not the pinned one.")]
pub(crate) struct VerifyArgs {
    /// An archive, an image layout, or HOST/REPOSITORY:TAG
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// A file of the model, or a directory and all below it [default: all of it]
    #[arg(value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Threads in all [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = parse_jobs)]
    pub(crate) jobs: Option<usize>,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ls`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modeloci ls llama-1.0.0.tar
  modeloci ls -l llama-1.0.0.tar onnx")]
pub(crate) struct LsArgs {
    /// An archive, an image layout, or HOST/REPOSITORY:TAG
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// A directory or file of the model [default: all of it]
    #[arg(value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(crate) path: String,
    /// Mode, size and time, too
    #[arg(short, long)]
    pub(crate) long: bool,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cat`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  modeloci cat llama-1.0.0.tar config.json | jq .hidden_size

Nothing is printed that was not verified; what is damaged ends the output with an error.")]
pub(crate) struct CatArgs {
    /// An archive, an image layout, or HOST/REPOSITORY:TAG
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// Files of the model
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<String>,
    #[command(flatten)]
    pub(crate) which: Which,
}

/// Which of the models of an archive.
#[derive(Debug, Default, Args)]
pub(crate) struct Which {
    /// The digest that the manifest must have
    #[arg(long, value_name = "DIGEST", value_parser = parse_digest)]
    pub(crate) digest: Option<Digest>,
    /// The model that the archive's index calls so
    #[arg(long = "ref", value_name = "NAME")]
    pub(crate) reference: Option<String>,
    /// Show this directory of the model alone
    #[arg(long, value_name = "DIR", conflicts_with = "root")]
    pub(crate) prefix: Option<String>,
    /// Show all of an image, and not only its /models
    #[arg(long)]
    pub(crate) root: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// How to reach a registry.
#[derive(Debug, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Ask a registry without TLS
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// More authorities for TLS with a registry
    #[arg(long, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Until no answer is an error [default: 30]
    #[arg(long, value_name = "S", value_parser = parse_timeout)]
    pub(crate) registry_timeout: Option<Duration>,
}

impl RegistryArgs {
    /// The same for the library.
    pub(crate) fn options(&self) -> registry::Options {
        let usual = registry::Options::default();
        registry::Options {
            plain_http: self.plain_http,
            cacert: self.cacert.clone(),
            timeout: self.registry_timeout.unwrap_or(usual.timeout),
        }
    }
}

impl Which {
    /// Which part of it.
    pub(crate) fn subtree(&self) -> Subtree {
        match (&self.prefix, self.root) {
            (_, true) => Subtree::All,
            (Some(path), false) => Subtree::below(path),
            (None, false) => Subtree::Usual,
        }
    }

    /// How to open it.
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions {
            pin: self.digest,
            reference: self.reference.clone(),
            subtree: self.subtree(),
            registry: self.registry.options(),
            ..OpenOptions::default()
        }
    }
}

/// `unpack`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modeloci unpack llama-1.0.0.tar ./llama
  modeloci unpack llama-1.0.0.tar ./llama --include 'tokenizer*' --include '*.json'

A GLOB without a slash matches names at any depth, one with a slash whole paths; of a directory that
it matches, all is restored.
The output directory appears complete or not at all.")]
pub(crate) struct UnpackArgs {
    /// An archive, an image layout, or HOST/REPOSITORY:TAG
    #[arg(
        value_name = "ARCHIVE",
        required_unless_present = "archive_option",
        conflicts_with = "archive_option"
    )]
    archive: Option<PathBuf>,
    /// The directory to create
    #[arg(
        value_name = "OUTPUT",
        required_unless_present = "output_option",
        conflicts_with = "output_option"
    )]
    output: Option<PathBuf>,
    /// The archive, as an option
    #[arg(id = "archive_option", long = "archive", value_name = "ARCHIVE")]
    archive_option: Option<PathBuf>,
    /// The directory to create, as an option
    #[arg(
        id = "output_option",
        short = 'o',
        long = "output",
        value_name = "OUTPUT"
    )]
    output_option: Option<PathBuf>,
    /// Replace an existing directory as a whole
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Restore only what matches; repeatable
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Worker threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = parse_jobs)]
    pub(crate) jobs: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl UnpackArgs {
    /// The archive.
    pub(crate) fn archive(&self) -> &Path {
        either(&self.archive, &self.archive_option)
    }

    /// The directory to create.
    pub(crate) fn output(&self) -> &Path {
        either(&self.output, &self.output_option)
    }
}
