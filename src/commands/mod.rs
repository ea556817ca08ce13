//! The verbs: each takes its arguments, calls the library and reports.

use std::process::ExitCode;

use crate::cli::{Cli, Command};

mod add_layer;
mod cat;
mod daemon;
mod document;
mod generate;
mod inspect;
pub(crate) mod interrupt;
pub(crate) mod logging;
mod ls;
mod mount;
mod mount_list;
pub(crate) mod output;
mod pack;
pub(crate) mod progress;
mod remove_layer;
mod status;
mod table;
mod umount;
mod unpack;
mod verify;

/// Runs one command line. `mount` sets up its own logging, because it may outlive the terminal.
///
/// # Errors
/// What [`output::failure`] prints and turns into an exit code.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let verbosity = cli.verbosity;
    if !matches!(cli.command, Command::Mount(_)) {
        logging::init(verbosity);
    }
    match cli.command {
        Command::Pack(args) => pack::run(&args, verbosity),
        Command::Inspect(args) => inspect::run(&args, verbosity),
        Command::Verify(args) => verify::run(&args, verbosity),
        Command::Ls(args) => ls::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Unpack(args) => unpack::run(&args, verbosity),
        Command::Mount(args) => mount::run(args, verbosity),
        Command::Umount(args) => umount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::AddLayer(args) => add_layer::run(&args),
        Command::RemoveLayer(args) => remove_layer::run(&args),
        Command::Completions { shell } => generate::completions(shell),
        Command::ManPages { directory } => generate::man_pages(&directory),
        Command::Prefetcher {
            directory,
            mount,
            device,
            confined,
        } => {
            daemon::prefetcher::run(directory, mount, device, confined)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
