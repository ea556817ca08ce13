//! The command line: clap types, and the parsers of single values. Nothing here acts.
//!
//! The main operands (`DIR`, `ARCHIVE`, `OUTPUT`) work as positional arguments and as options, but
//! not both at once; the accessor of each gives the one that was used.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use modeloci::{Algorithm, Compression};

mod reading;
mod values;

pub(crate) use reading::{CatArgs, InspectArgs, LsArgs, UnpackArgs, VerifyArgs, Which};
pub(crate) use values::parse_timeout;
use values::{
    either, parse_annotation, parse_chunk_size, parse_compression, parse_id, parse_jobs, parse_size,
};

/// The hidden subcommand of the process that reads ahead on a mount.
pub(crate) const PREFETCHER: &str = "prefetcher";

/// Pack machine-learning models as OCI artifacts, and mount them: every byte verified, read lazily.
#[derive(Debug, Parser)]
#[command(
    name = "modeloci",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  modeloci pack ./llama --name llama --version 1.0.0   # to ./llama-1.0.0.tar
  modeloci inspect llama-1.0.0.tar                     # verifies every layer
  modeloci cat llama-1.0.0.tar config.json             # without a mount
  modeloci mount llama-1.0.0.tar /mnt/llama            # ready in milliseconds
  modeloci unpack llama-1.0.0.tar ./restored

Exit codes: 0 done, 1 failed verification or another failure, 2 usage,
3 malformed archive, 4 another digest than the pinned one, 5 the environment"
)]
pub(crate) struct Cli {
    /// How much to say.
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How much to say on stderr.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Verbosity {
    /// Log more; repeat for debug and trace messages
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Messages")]
    pub(crate) verbose: u8,
    /// Log errors only, show no progress
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Messages"
    )]
    pub(crate) quiet: bool,
}

impl Verbosity {
    /// The most detailed level to log.
    pub(crate) fn level(self) -> log::LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => log::LevelFilter::Error,
            (false, 0) => log::LevelFilter::Warn,
            (false, 1) => log::LevelFilter::Info,
            (false, 2) => log::LevelFilter::Debug,
            (false, _) => log::LevelFilter::Trace,
        }
    }
}

/// One verb each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pack a model directory into an OCI archive
    Pack(PackArgs),
    /// Show what an archive holds, and verify every layer
    Inspect(InspectArgs),
    /// Verify every layer of an archive
    Verify(VerifyArgs),
    /// List files of an archive
    Ls(LsArgs),
    /// Print files of an archive, verified
    Cat(CatArgs),
    /// Restore a model's files from an archive
    Unpack(UnpackArgs),
    /// Mount an archive read-only
    Mount(MountArgs),
    /// Unmount a model
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Show what a mount has served, verified and decoded
    Status(StatusArgs),
    /// Add one file to an archive, in place
    AddLayer(AddLayerArgs),
    /// Remove one file from an archive, in place
    RemoveLayer(RemoveLayerArgs),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages
    #[command(hide = true)]
    ManPages {
        /// An existing directory, which gets one file for each command
        directory: PathBuf,
    },
    /// Read ahead on a mount, as its server says on standard input
    #[command(hide = true, name = PREFETCHER)]
    Prefetcher {
        /// An inherited descriptor of the directory that it is mounted on
        directory: i32,
        /// The number of the mount
        mount: u32,
        /// Its device, as the mount table has it
        device: String,
        /// Give up all rights but to read there
        #[arg(long)]
        confined: bool,
    },
}

/// How layers are written: of `pack` and `add-layer`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EncodeArgs {
    /// auto, gzip[:1-9], zstd[:1-19] or none
    #[arg(
        long,
        value_name = "C",
        default_value = "auto",
        value_parser = parse_compression,
        help_heading = "Layers"
    )]
    pub(crate) compression: Compression,
    /// A power of two from 64KiB to 16MiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "512KiB",
        value_parser = parse_chunk_size,
        help_heading = "Layers"
    )]
    pub(crate) chunk_size: u32,
    /// Of chunks: blake3 or sha256
    #[arg(
        long,
        value_name = "D",
        value_enum,
        default_value = "blake3",
        hide_possible_values = true,
        help_heading = "Layers"
    )]
    pub(crate) chunk_digest: ChunkDigest,
    /// Worker threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = parse_jobs)]
    pub(crate) jobs: Option<usize>,
}

/// `pack`
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "\
Examples:
  modeloci pack ./llama --name llama --version 1.0.0
  modeloci pack ./llama -n llama --version 1.0.0 --metadata '{\"task\":\"chat\"}'
  modeloci pack ./llama -n llama --version 1.0.0 -o - | ssh host 'cat >m.tar'

Left out by default: .git __pycache__ .DS_Store ._* *.swp *.swo *~ .#* and
.cache/huggingface. A GLOB is one of gitignore(5), as in DIR/.modelociignore."
)]
pub(crate) struct PackArgs {
    /// The model directory, or a single file
    #[arg(
        value_name = "DIR",
        required_unless_present = "model_dir_option",
        conflicts_with = "model_dir_option"
    )]
    dir: Option<PathBuf>,
    /// The model directory, as an option
    #[arg(id = "model_dir_option", long = "model-dir", value_name = "DIR")]
    dir_option: Option<PathBuf>,
    /// Name of the model
    #[arg(short, long, value_name = "NAME")]
    pub(crate) name: String,
    /// Version of the model; also its reference name
    #[arg(id = "model_version", long = "version", value_name = "VERSION")]
    pub(crate) version: String,
    /// What loads it [default: as its files tell, or pytorch]
    #[arg(long, value_name = "F")]
    pub(crate) framework: Option<String>,
    /// [default: as its files tell, or transformer]
    #[arg(long, value_name = "A")]
    pub(crate) architecture: Option<String>,
    /// Anything else: a JSON object, or @FILE
    #[arg(
        long,
        value_name = "JSON",
        default_value = "{}",
        hide_default_value = true
    )]
    pub(crate) metadata: String,
    /// JSON Schema that all of this must keep
    #[arg(long, value_name = "FILE")]
    pub(crate) config_schema: Option<PathBuf>,
    /// For the manifest; repeatable
    #[arg(long = "annotation", value_name = "K=V", value_parser = parse_annotation)]
    pub(crate) annotations: Vec<(String, String)>,
    /// - for stdout [default: NAME-VERSION.tar beside DIR]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write the manifest's digest there, too
    #[arg(long, value_name = "FILE")]
    pub(crate) digestfile: Option<PathBuf>,
    /// Leave out what matches; repeatable
    #[arg(long, value_name = "GLOB", help_heading = "What is packed")]
    pub(crate) exclude: Vec<String>,
    /// Pack only what matches; repeatable
    #[arg(long, value_name = "GLOB", help_heading = "What is packed")]
    pub(crate) include: Vec<String>,
    /// Pack what is left out by default
    #[arg(long, help_heading = "What is packed")]
    pub(crate) no_default_excludes: bool,
    /// Follow links out of DIR, too, if you trust them
    #[arg(long, help_heading = "What is packed")]
    pub(crate) dereference: bool,
    /// Pack incomplete downloads, too
    #[arg(long, help_heading = "What is packed")]
    pub(crate) allow_incomplete: bool,
    /// Pack what looks like a secret, too
    #[arg(long, help_heading = "What is packed")]
    pub(crate) allow_secrets: bool,
    /// Layout of the archive
    #[arg(
        long,
        value_name = "P",
        value_enum,
        default_value = "default",
        hide_possible_values = true,
        help_heading = "Layers"
    )]
    pub(crate) profile: Profile,
    /// How layers are written.
    #[command(flatten)]
    pub(crate) encode: EncodeArgs,
    /// Replace an existing archive
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl PackArgs {
    /// The model directory.
    pub(crate) fn model_dir(&self) -> &Path {
        either(&self.dir, &self.dir_option)
    }
}

/// `mount`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modeloci mount llama-1.0.0.tar /mnt/llama --digest sha256:... --prefetch
  modeloci mount registry.example/team/llama:1.0.0 /mnt/llama
  mount -t modeloci llama-1.0.0.tar /mnt/llama -o ro,allow_other

Options for -o: all above but foreground, no-sandbox and ready-fd, with _ for -;
noexec; nonempty: hide what is in the directory; context=, fscontext=,
defcontext=, rootcontext= of SELinux, for root; threads=8: requests served side
by side; max_readahead=1MiB: of the kernel, for root; stall_timeout=60: seconds
in which nothing that a read waits for gets on, until the read is an error.

Returns as soon as the mount answers and leaves a process behind, which
`modeloci umount`, SIGTERM, SIGINT or SIGHUP end; SIGUSR1 logs its status.
MODELOCI_LOG=debug in the environment logs more.")]
pub(crate) struct MountArgs {
    /// An archive, an image layout, or HOST/REPOSITORY:TAG
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// An empty directory, or /dev/fd/N of a FUSE connection
    #[arg(value_name = "MOUNTPOINT")]
    pub(crate) mountpoint: PathBuf,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Memory for decoded chunks [default: up to 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) cache_size: Option<u64>,
    /// Fill the page cache while nobody reads
    #[arg(long)]
    pub(crate) prefetch: bool,
    /// Stay in the foreground
    #[arg(short, long)]
    pub(crate) foreground: bool,
    /// Let other users read the mount
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Owner of all files [default: the user who mounts]
    #[arg(long, value_name = "N", value_parser = parse_id)]
    pub(crate) uid: Option<u32>,
    /// Group of all files [default: the one of that user]
    #[arg(long, value_name = "N", value_parser = parse_id)]
    pub(crate) gid: Option<u32>,
    /// Mount options, as mount(8) takes them; repeatable
    #[arg(
        short = 'o',
        long = "options",
        value_name = "OPTIONS",
        value_delimiter = ','
    )]
    pub(crate) options: Vec<String>,
    /// Append messages to a file [default: system log; in the foreground, stderr]
    #[arg(long, value_name = "FILE", help_heading = "Messages")]
    pub(crate) log_file: Option<PathBuf>,
    /// How the background process is started: messages go to the system log.
    #[arg(long, hide = true, conflicts_with = "log_file")]
    pub(crate) system_log: bool,
    /// For seek tables [default: ~/.cache/modeloci]
    #[arg(long, value_name = "DIR", conflicts_with = "no_index")]
    pub(crate) index_dir: Option<PathBuf>,
    /// Keep no seek tables between runs
    #[arg(long)]
    pub(crate) no_index: bool,
    /// Give up no rights, to debug
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    /// With --foreground: gets READY=1 when it answers
    #[arg(long, value_name = "N")]
    pub(crate) ready_fd: Option<i32>,
    /// How the background process is started: an inherited descriptor of the mount point.
    #[arg(long, hide = true)]
    pub(crate) mountpoint_fd: Option<i32>,
    /// mount(8) helper `-f`: check everything, mount nothing.
    #[arg(skip)]
    pub(crate) fake: bool,
    /// mount(8) helper `-s`: unknown options are ignored.
    #[arg(skip)]
    pub(crate) sloppy: bool,
    /// mount(8) helper `-o rw`.
    #[arg(skip)]
    pub(crate) writable: bool,
}

/// `umount`
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {
    /// Where models are mounted
    #[arg(value_name = "MOUNTPOINT", required = true)]
    pub(crate) mountpoints: Vec<PathBuf>,
    /// Detach now, finish when the last file is closed
    #[arg(short, long)]
    pub(crate) lazy: bool,
}

/// `status`
#[derive(Debug, Args)]
#[command(after_help = "\
Without a mount point: all models that are mounted on this machine.

Exit codes: 5 when a mount does not answer; with --check, 1 when a read of it has failed.")]
pub(crate) struct StatusArgs {
    /// Where the model is mounted [default: all models]
    #[arg(value_name = "MOUNTPOINT")]
    pub(crate) mountpoint: Option<PathBuf>,
    /// Print the counters as JSON; a list of them without a mount point
    #[arg(long)]
    pub(crate) json: bool,
    /// For monitoring: exit with 1 when a read has failed since it was mounted
    #[arg(long)]
    pub(crate) check: bool,
}

/// `add-layer`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  modeloci add-layer llama-1.0.0.tar ./chat_template.jinja --path templates/chat.jinja")]
pub(crate) struct AddLayerArgs {
    /// The archive to change
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// The file to add
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its path in the model [default: its file name]
    #[arg(long, value_name = "TITLE")]
    pub(crate) path: Option<String>,
    /// Replace the file that has this path, if there is one
    #[arg(long)]
    pub(crate) replace: bool,
    /// How the layer is written.
    #[command(flatten)]
    pub(crate) encode: EncodeArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `remove-layer`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  modeloci remove-layer llama-1.0.0.tar templates/chat.jinja")]
pub(crate) struct RemoveLayerArgs {
    /// The archive to change
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// The file's path in the model
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shells that completions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Layout of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    // One tar layer per file: any OCI tool and any tar reader. (Not `///`: help on a value makes
    // clap print every option over three lines.)
    Default,
}

/// Algorithm of chunk digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChunkDigest {
    // The fastest.
    Blake3,
    // Where policy wants it.
    Sha256,
}

impl From<ChunkDigest> for Algorithm {
    fn from(digest: ChunkDigest) -> Algorithm {
        match digest {
            ChunkDigest::Blake3 => Algorithm::Blake3,
            ChunkDigest::Sha256 => Algorithm::Sha256,
        }
    }
}

/// The helper that mount(8) runs for `mount -t modeloci`: its arguments are fixed by mount(8),
/// section "EXTERNAL HELPERS".
#[derive(Debug, Parser)]
#[command(
    name = "mount.modeloci",
    version,
    about = "Mount a model archive, for mount(8)"
)]
struct MountHelper {
    /// The archive, or an image-layout directory
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// An empty directory
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
    /// Ignore unknown options
    #[arg(short = 's')]
    sloppy: bool,
    /// Check everything, mount nothing
    #[arg(short = 'f')]
    fake: bool,
    /// Accepted: there is no mtab
    #[arg(short = 'n')]
    _no_mtab: bool,
    /// Log more
    #[arg(short = 'v', action = ArgAction::Count)]
    verbose: u8,
    /// Mount options
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    options: Vec<String>,
    /// File system type, `modeloci` or `fuse.modeloci`
    #[arg(short = 't', value_name = "TYPE")]
    _fs_type: Option<String>,
}

impl From<MountHelper> for Cli {
    fn from(helper: MountHelper) -> Cli {
        Cli {
            verbosity: Verbosity {
                verbose: helper.verbose,
                quiet: false,
            },
            command: Command::Mount(MountArgs {
                archive: helper.archive,
                mountpoint: helper.mountpoint,
                which: Which::default(),
                cache_size: None,
                prefetch: false,
                foreground: false,
                allow_other: false,
                uid: None,
                gid: None,
                // mount(8) passes `rw` whenever `ro` was not asked for. The mount is read-only, and
                // a warning and the mount table say so, as with other file systems that cannot be
                // written.
                writable: helper.options.iter().any(|o| o == "rw"),
                options: helper.options.into_iter().filter(|o| o != "rw").collect(),
                log_file: None,
                system_log: false,
                index_dir: None,
                no_index: false,
                no_sandbox: false,
                ready_fd: None,
                mountpoint_fd: None,
                fake: helper.fake,
                sloppy: helper.sloppy,
            }),
        }
    }
}

/// True when this program was invoked by a name under which mount(8) looks for helpers.
pub(crate) fn is_mount_helper(args: &[OsString]) -> bool {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| name == "mount.modeloci" || name == "mount.fuse.modeloci")
}

/// Parses a whole command line, the program's name included. Invoked as a mount(8) helper, it
/// takes the arguments of a mount(8) helper.
///
/// # Errors
/// clap's, which carries the text to print and the exit code; help and version are such errors.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    if is_mount_helper(&args) {
        MountHelper::try_parse_from(args).map(Cli::from)
    } else {
        Cli::try_parse_from(args)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn command(line: &[&str]) -> Result<Command, ErrorKind> {
        parse(line.iter().map(OsString::from))
            .map(|cli| cli.command)
            .map_err(|e| e.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        MountHelper::command().debug_assert();
    }

    #[test]
    fn help_fits_a_screen() {
        let mut command = Cli::command().term_width(80);
        assert!(command.render_help().to_string().lines().count() <= 36);
        for sub in command.get_subcommands_mut() {
            let help = sub.render_help().to_string();
            let lines = help.lines().count();
            assert!(lines <= 50, "{}: {lines} lines", sub.get_name());
        }
    }

    #[test]
    fn operands_work_both_ways_but_not_at_once() {
        for line in [
            &["modeloci", "unpack", "a.tar", "out"][..],
            &[
                "modeloci",
                "unpack",
                "--archive",
                "a.tar",
                "--output",
                "out",
            ],
            &["modeloci", "unpack", "a.tar", "--output", "out"],
        ] {
            let Ok(Command::Unpack(args)) = command(line) else {
                panic!("{line:?}")
            };
            assert_eq!(args.archive(), Path::new("a.tar"));
            assert_eq!(args.output(), Path::new("out"));
        }
        let both = ["modeloci", "inspect", "a.tar", "--archive", "b.tar"];
        assert_eq!(command(&both).unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(
            command(&["modeloci", "inspect"]).unwrap_err(),
            ErrorKind::MissingRequiredArgument
        );
        let pack = ["modeloci", "pack", "--name", "n", "--version", "1", "m"];
        let Ok(Command::Pack(args)) = command(&pack) else {
            panic!()
        };
        assert_eq!(args.model_dir(), Path::new("m"));
        assert_eq!(args.version, "1");
    }

    #[test]
    fn sizes_are_taken_however_their_unit_is_written() {
        for (text, bytes) in [("65536", 1 << 16), ("64Mi", 64 << 20), ("64MiB", 64 << 20)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert!(parse_size("1MB").is_err());
        for text in ["64K", "64Ki", "64KiB"] {
            assert_eq!(parse_chunk_size(text), Ok(65536), "{text}");
        }
        for bad in ["32K", "3M", "32Mi", "8G"] {
            assert!(parse_chunk_size(bad).is_err(), "{bad}");
        }
        for size in ["64Mi", "64MiB", "64M"] {
            let line = ["modeloci", "mount", "a", "b", "--cache-size", size];
            let Ok(Command::Mount(args)) = command(&line) else {
                panic!("{size}")
            };
            assert_eq!(args.cache_size, Some(64 << 20), "{size}");
        }
    }

    #[test]
    fn the_mount_helper_takes_what_mount_8_passes() {
        let line = [
            "/sbin/mount.modeloci",
            "a.tar",
            "/mnt",
            "-sfv",
            "-o",
            "ro,allow_other",
            "-t",
            "fuse.modeloci",
        ];
        let Ok(Command::Mount(args)) = command(&line) else {
            panic!()
        };
        assert!(args.fake && args.sloppy);
        assert_eq!(args.options, ["ro", "allow_other"]);
        assert_eq!(args.mountpoint, Path::new("/mnt"));

        let line = ["mount.modeloci", "a.tar", "/mnt", "-o", "rw,noexec"];
        let Ok(Command::Mount(args)) = command(&line) else {
            panic!()
        };
        assert_eq!(args.options, ["noexec"], "mount(8) adds rw by itself");
        assert!(args.writable);
    }
}
