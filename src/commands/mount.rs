//! `modeloci mount`

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use log::LevelFilter;
use modeloci::mount::{self, LogQueue, MountOptions, SystemLog};
use modeloci::{Error, ErrorKind};

use super::{logging, output};
use crate::cli::{MountArgs, Verbosity};

pub(crate) fn run(args: MountArgs, verbosity: Verbosity) -> anyhow::Result<ExitCode> {
    let options = options(&args, verbosity)?;
    if args.fake {
        // mount(8): "perform everything except the actual system call".
        logging::init(verbosity);
        mount::check(&options).map_err(|error| advise(error, &args.archive))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.foreground {
        if let Some(file) = &options.log_file {
            // Said here, where somebody reads it, and not by the background process.
            open_log(file)?;
        }
        mount::mount(&options).map_err(|error| advise(error, &args.archive))?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.ready_fd.is_some() {
        // Started by way of /proc/self/exe, it would be "exe" to ps, top and pgrep.
        let _ = rustix::thread::set_name(c"modeloci");
    }
    give_up_privileges();
    let log = start_log(&options, verbosity)
        .inspect_err(|error| mount::report_failure(&options, error))?;
    let result = mount::mount(&options).map_err(|error| advise(error, &args.archive));
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

/// What a server never needs is given up before its first thread starts, which inherits that. (Only
/// the program does this: a caller of the library keeps what it has.)
fn give_up_privileges() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // A core dump would hold the model. Whoever looks for a bug can raise the limit again.
    let cores = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    if let Err(error) = setrlimit(Resource::Core, cores) {
        log::debug!("core dumps stay as they are: {error}");
    }
    // For other users a setuid program mounts, and unmounts at the end.
    if rustix::process::geteuid().is_root()
        && let Err(error) = rustix::thread::set_no_new_privs(true)
    {
        log::debug!("new privileges stay possible: {error}");
    }
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

fn options(args: &MountArgs, verbosity: Verbosity) -> anyhow::Result<MountOptions> {
    let mut options = MountOptions::new(&args.archive, &args.mountpoint);
    options.digest = args.digest;
    options.cache_bytes = args.cache_size;
    options.foreground = args.foreground;
    options.allow_other = args.allow_other;
    options.uid = args.uid;
    options.gid = args.gid;
    options.prefetch = args.prefetch;
    options.log_file = args.log_file.clone();
    options.system_log = args.system_log;
    options.ready_fd = args.ready_fd;
    options.mountpoint_fd = args.mountpoint_fd;
    options.index_dir = match (&args.index_dir, args.no_index) {
        (_, true) => None,
        (Some(dir), false) => Some(dir.clone()),
        (None, false) => cache_dir(),
    };
    options.apply(&args.options.join(","), args.sloppy)?;
    if args.no_index && options.index_dir.is_some()
        || args.index_dir.is_some() && options.index_dir.is_none()
    {
        return Err(Error::usage("an index directory and no index cannot both be had").into());
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

#[expect(
    clippy::disallowed_methods,
    reason = "the user names the log; opened once"
)]
fn open_log(file: &Path) -> Result<File, Error> {
    File::options()
        .append(true)
        .create(true)
        .open(file)
        .map_err(Error::io("open the log file", file))
}

/// A mount outlives the terminal that it was started from, so whatever it says goes through a
/// queue that never blocks.
fn start_log(options: &MountOptions, verbosity: Verbosity) -> Result<LogQueue, Error> {
    let sink: Box<dyn Write + Send> = match &options.log_file {
        Some(file) => Box::new(open_log(file)?),
        None if options.system_log => Box::new(SystemLog::new()),
        None => Box::new(std::io::stderr()),
    };
    let (writer, queue) = LogQueue::start(sink).map_err(Error::io("start", "a thread"))?;
    let level = match verbosity.level() {
        LevelFilter::Warn => LevelFilter::Info,
        level => level,
    };
    logging::init_to(level, Box::new(writer), options.log_file.is_some());
    Ok(queue)
}
