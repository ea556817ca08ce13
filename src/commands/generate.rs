//! Completions and man pages, out of the definitions of the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::shells;
use modeloci::files::named::NamedDirectory;

use super::output;
use crate::cli::{Cli, Shell};

/// Prints what a shell is to read.
///
/// # Errors
/// Those of standard output.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut command = visible();
    let name = command.get_name().to_string();
    let mut text = Vec::new();
    let to = &mut text;
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, to),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, to),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, to),
    }
    output::print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// The command line without what help hides: completions would name that, too.
fn visible() -> Command {
    // Names are to live as long as the program, which ends when they are printed.
    let all: &Command = Box::leak(Box::new(Cli::command()));
    let shown = |command: &Command| -> Vec<Arg> {
        let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set());
        arguments.cloned().collect()
    };
    let subcommands = all.get_subcommands().filter(|sub| !sub.is_hide_set());
    let subcommands = subcommands.map(|sub| {
        let about = sub.get_about().cloned().unwrap_or_default();
        Command::new(sub.get_name())
            .about(about)
            .visible_aliases(sub.get_visible_aliases())
            .disable_version_flag(true)
            .args(shown(sub))
    });
    Command::new("modeloci")
        .version(env!("CARGO_PKG_VERSION"))
        .args(shown(all))
        .subcommands(subcommands)
}

/// Writes `modeloci.1`, and `modeloci-COMMAND.1` for each command, into a directory.
///
/// # Errors
/// Those of the directory.
pub(crate) fn man_pages(directory: &Path) -> anyhow::Result<ExitCode> {
    let to = NamedDirectory::open(directory)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    man_pages_of(&command, &to)?;
    Ok(ExitCode::SUCCESS)
}

fn man_pages_of(command: &Command, to: &NamedDirectory) -> anyhow::Result<()> {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for sub in shown {
        man_pages_of(sub, to)?;
    }
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    to.create(&page.get_filename())?.write(&text)?;
    Ok(())
}
