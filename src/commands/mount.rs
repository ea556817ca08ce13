//! `modeloci mount`

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use log::LevelFilter;
use modeloci::files::named;
use modeloci::mount::parts;
use modeloci::printable::printable_path;
use modeloci::source::{self, registry::Reference};
use modeloci::{Error, ErrorKind};

use super::daemon::keeper::{self, Side};
use super::daemon::log_queue::LogQueue;
use super::daemon::options::Options;
use super::daemon::system_log::SystemLog;
use super::daemon::{background, serve};
use super::{logging, mount_list, output};
use crate::cli::{MountArgs, Verbosity};

pub(crate) fn run(args: MountArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let options = options(&args, verbosity)?;
    if args.fake {
        // mount(8): "perform everything except the actual system call".
        logging::init(verbosity);
        serve::check(&options).map_err(|error| advise(error, &args.archive))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.foreground {
        logging::init(verbosity);
        // Said here, where somebody reads it, and not by the background process.
        if options.log_file.is_none()
            && let Err(error) = SystemLog::check()
        {
            output::report_line(&format!(
                "warning: there is no system log, and {error}: messages of this mount are lost; \
                 --log-file names a file for them"
            ));
        }
        background::start(&options).map_err(|error| advise(error, &args.archive))?;
        remark(&args, &options, verbosity);
        return Ok(ExitCode::SUCCESS);
    }
    if options.ready_fd.is_some() {
        // Started by way of /proc/self/exe, it would be "exe" to ps, top and pgrep.
        let _ = rustix::thread::set_name(c"modeloci");
    }
    if options.no_sandbox {
        let log = log_sink(&options)
            .and_then(|sink| start_log(&options, verbosity, sink))
            .inspect_err(|error| serve::report_failure(&options, error))?;
        let result = serve::run(&options);
        return end(&args, &options, &log, result);
    }
    match keeper::part(&options).map_err(|error| advise(error, &args.archive))? {
        Side::Keeper(mut keeper) => {
            let log = log_sink(&options)
                .and_then(|sink| start_log(&options, verbosity, sink))
                .inspect_err(|error| keeper.failed(error))?;
            let result = keeper.keep(&options, log.writer());
            end(&args, &options, &log, result)
        }
        Side::Server(server) => {
            let sink = server.log_to_keeper();
            server.serve(&options, || start_log(&options, verbosity, sink));
            // What there is to say the keeper says.
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Says what may surprise about a mount that answers.
fn remark(args: &MountArgs, options: &Options, verbosity: Verbosity) {
    if args.writable {
        // As mount(8) says it of what cannot be written. It asks for it whenever `ro` is not given.
        let mountpoint = printable_path(&args.mountpoint);
        output::report_line(&format!("warning: {mountpoint} is mounted read-only"));
    }
    if Reference::explicit(&options.mount.archive).is_some()
        && !verbosity.quiet
        && let Ok(status) = modeloci::mount::status(&args.mountpoint)
    {
        // A tag may come to mean another model; this mount does not.
        let (archive, digest) = (&status.archive, &status.manifest_digest);
        output::report_line(&format!("{archive} is {digest}"));
    }
    let of_root = rustix::process::geteuid().is_root() && !options.mount.allow_other;
    let given = parts::descriptor_name(&args.mountpoint).is_some();
    if of_root && !given && !verbosity.quiet {
        output::report_line("hint: only root can read it; --allow-other lets other users in");
    }
}

/// Says how a mount in the foreground has ended.
fn end(
    args: &MountArgs,
    options: &Options,
    log: &LogQueue,
    result: Result<(), Error>,
) -> anyhow::Result<ExitCode> {
    let result = result.map_err(|error| advise(error, &args.archive));
    if let Err(error) = &result {
        // In the background nobody sees stderr.
        if options.log_file.is_some() || options.system_log {
            log::error!("{error:#}");
        }
    }
    log.flush(Duration::from_millis(500));
    result?;
    Ok(ExitCode::SUCCESS)
}

/// Says what to do about a directory of files that was never packed.
#[expect(
    clippy::disallowed_methods,
    reason = "only chooses the words of a message"
)]
fn advise(error: Error, archive: &Path) -> anyhow::Error {
    let of_archive = error.kind() == ErrorKind::Malformed;
    let error = output::about(archive, error);
    if of_archive && archive.is_dir() && !archive.join("oci-layout").exists() {
        return output::hint(
            error,
            "pack a model directory first: `modeloci pack DIR --name NAME --version VERSION`",
        );
    }
    error
}

fn options(args: &MountArgs, verbosity: Verbosity) -> anyhow::Result<Options> {
    let mut options = Options::new(&args.archive, &args.mountpoint);
    if let Some(reference) = source::reference_of(&args.archive)? {
        options.mount.archive = reference.with_scheme().into();
    }
    options.mount.digest = args.which.digest;
    options.mount.reference = args.which.reference.clone();
    options.mount.subtree = args.which.subtree();
    options.mount.registry = args.which.registry.options();
    if let Some(bytes) = args.cache_size {
        options.mount.cache_bytes = bytes;
        options.cache_stated = true;
    }
    options.foreground = args.foreground;
    options.mount.allow_other = args.allow_other;
    options.mount.uid = args.uid;
    options.mount.gid = args.gid;
    options.prefetch = args.prefetch;
    options.log_file = args.log_file.clone();
    options.system_log = args.system_log;
    options.ready_fd = args.ready_fd;
    options.no_sandbox = args.no_sandbox;
    options.mountpoint_fd = args.mountpoint_fd;
    options.mount.index_dir = match (&args.index_dir, args.no_index) {
        (_, true) => None,
        (Some(dir), false) => Some(dir.clone()),
        (None, false) => cache_dir(),
    };
    mount_list::apply(&mut options, &args.options.join(","), args.sloppy)?;
    if args.no_index && options.mount.index_dir.is_some()
        || args.index_dir.is_some() && options.mount.index_dir.is_none()
    {
        return Err(Error::usage("an index directory and no index cannot both be had").into());
    }
    // The process that a mount leaves behind is told what its starter has found.
    if options.ready_fd.is_none()
        && let Some(warning) = options.fit_memory()?
    {
        output::report_line(&format!("warning: {warning}"));
    }
    if options.ready_fd.is_some() && !options.foreground {
        return Err(Error::usage("--ready-fd needs --foreground").into());
    }
    if verbosity.quiet {
        options.extra_args.push("-q".into());
    }
    for _ in 0..verbosity.verbose {
        options.extra_args.push(OsString::from("-v"));
    }
    Ok(options)
}

/// `$XDG_CACHE_HOME/modeloci`; nowhere for a user without a home. The specification says that a
/// relative path is to be ignored.
fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .map(|dir| dir.join("modeloci"))
}

fn log_sink(options: &Options) -> Result<Box<dyn Write + Send>, Error> {
    Ok(match &options.log_file {
        Some(file) => Box::new(named::append(file)?),
        None if options.system_log => Box::new(SystemLog::new()),
        None => Box::new(std::io::stderr()),
    })
}

/// A mount outlives the terminal that it was started from, so whatever it says goes through a
/// queue that never blocks.
fn start_log(
    options: &Options,
    verbosity: Verbosity,
    sink: Box<dyn Write + Send>,
) -> Result<LogQueue, Error> {
    let (writer, queue) = LogQueue::start(sink).map_err(Error::io("start", "a thread"))?;
    let level = match verbosity.level() {
        LevelFilter::Warn => LevelFilter::Info,
        level => level,
    };
    logging::init_to(level, Box::new(writer), options.log_file.is_some());
    Ok(queue)
}
